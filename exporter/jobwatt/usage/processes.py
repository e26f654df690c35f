"""The machine's processes: who they are, and what each used since the last look.

A look costs in proportion to who was busy (decision: docs/decisions/0003-looking-is-cheap.md).
Newcomers are looked for when the youngest pid has changed; identity is read once, again while a
process is young, and on a slow round afterwards; memory is read with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jobwatt.errors import Absent, ReadError
from jobwatt.host.cgroupfs import Cgroupfs, Hierarchy
from jobwatt.host.procfs import TICKS, Census, CpuTimes, Procfs
from jobwatt.host.topology import Topology
from jobwatt.model import UNDECIDED, JobPresence, Process, Row, Rows, Usage
from jobwatt.records import is_scheduled, kind_of
from jobwatt.units import NS
from jobwatt.usage.contract import RecordSource
from jobwatt.usage.cpu_time import GONE, CpuTimeReader, choose_reader
from jobwatt.usage.groups import FALSE_STILLNESS_NS, Group, KeptGroup, Walk
from jobwatt.usage.hybrid import HybridJobs
from jobwatt.usage.own_cgroups import OwnCgroups
from jobwatt.workloads.contract import SYSTEM, Facts

__all__ = ["HostProcesses"]

log = logging.getLogger(__name__)

LISTING_NS, FULL_LOOK_NS = 10 * NS, 60 * NS
"""Every so often processes are listed where some have ended, and all are listed, and all clocks
read, whatever seems to have changed."""

YOUNG_NS = (1 * NS, 2 * NS, 5 * NS)
"""Ages at which a newcomer is identified again: after fork come exec, setuid, a cgroup."""

VISIT_AGAIN_NS = 60 * NS
"""Least time between two visits to a busy process."""

ROUND_SECONDS = 3600
"""Every process is visited at least about this often, also one that never runs."""

REVIEW_NS, REVIEW_LEAST_NS = 120 * NS, 5 * NS
"""How often each job's limits are read again, and one job's at least; one at most at a look."""

PARTED_NS, MOST_PARTED = 60 * NS, 1000
"""How long, and of how many that have ended, the pid is known: drivers may answer late."""

DUMP_NS = 30 * NS
"""How often all clocks are kept for the next run; those who ran are kept at every look."""

MOST_YOUNG, MOST_BUSY, MOST_ROUND = 32, 1, 10
"""Visits a look, by occasion: what does not fit waits for the next."""

MOST_PASSED = 50
"""How many that ran are passed over in a look, to find one who is due for a visit."""

MOST_STOPPED = 4
"""How many that have stopped running are asked in a look whether they have exited."""

SANDBOX = "pause"
"""Name of the process that a pod begins with (Kubernetes' build/pause)."""

MOST_CHECKED = 500
"""How many of the young are asked in a look whether they have run: that costs a microsecond."""

START_SLACK_TICKS = 2 * TICKS
"""A process seen first that is older than the last listing by more was merely hidden from it."""


@dataclass(slots=True, eq=False)
class _Entry:
    process: Process
    group: Group
    visited_ns: int
    visited_time_ns: int  # its CPU time then
    cgroups: dict[str, str]
    shared_bytes: int = 0  # of its anonymous memory, what others of its job are charged for


@dataclass(frozen=True, slots=True)
class _PastGroup:
    """A group of an earlier run: where its counter stood (see `Group`), and whose it was."""

    kept: KeptGroup
    job_uid: str | None
    used_ns: int | None
    credit_ns: int


@dataclass(frozen=True, slots=True)
class _Past:
    """CPU times of an earlier run on this boot.

    Attributes:
        at_ns: when it looked last.
        listed_ns: since when it has known of every process that ran.
        times_ns: of processes, by pid and start, up to its last look.
        groups: up to its last look, those above before those below.
    """

    at_ns: int
    listed_ns: int
    times_ns: dict[tuple[int, int], int]
    groups: Collection[_PastGroup]


class HostProcesses:
    """All processes of the machine, through /proc, clocks and cgroups."""

    def __init__(
        self,
        procfs: Procfs,
        cgroupfs: Cgroupfs,
        topology: Topology,
        job_uid_of: Callable[[Facts], str],
        user_name: Callable[[int], str],
        variables: Collection[str] = (),
        owner_variables: Collection[str] = (),
        records: RecordSource | None = None,
    ) -> None:
        """Look through these.

        Of each process's environment only `variables`, which make it a claimant, and
        `owner_variables`, by which `job_uid_of` and `records` know jobs, are kept.
        """
        self._procfs = procfs
        self._claims = frozenset(variables)
        self._variables = self._claims | frozenset(owner_variables)
        self._cgroupfs = cgroupfs
        self._topology = topology
        self._job_uid_of = job_uid_of
        self._user_name = user_name
        self._records = records
        self._own_cgroups = OwnCgroups(cgroupfs, job_uid_of, len(topology.package_of))
        self._hybrid = HybridJobs(cgroupfs, job_uid_of)
        self._reader: CpuTimeReader = choose_reader(procfs)
        self._own_pids = procfs.is_own()
        self._unlisted = ""  # why processes could not be listed the last time
        self._pids: dict[int, Process] = {}
        self._entries: dict[Process, _Entry] = {}
        self._claimants: set[Process] = set()
        self._undecided: dict[Process, None] = {}
        self._undecided_groups: list[tuple[Group, Facts]] = []
        self._parted: dict[int, tuple[Process, int]] = {}
        self._memory: dict[tuple[str, frozenset[int] | None], int] = {}
        self._jobs: dict[str, JobPresence] = {}
        self._ran: dict[Process, int] = {}
        self._stopped: dict[Process, None] = {}
        self._zombies: dict[int, int] = {}
        self._young: deque[tuple[int, int, Process]] = deque()
        self._round: list[Process] = []
        self._round_due = 0.0
        self._review_due = 0.0
        self._census: Census | None = None
        self._must_list = False
        self._listed: Census | None = None
        self._listed_ticks = 0
        self._last_ns: int | None = None
        self._full_due_ns = 0
        self._listing_due_ns = 0
        self._times: CpuTimes | None = None
        self._task_time = _TaskTime()
        self._root = self._make_root()
        self._past: _Past | None = None
        self._used: Mapping[Process, int] = {}
        self._moved: Collection[Group] = ()
        self._made: list[Group] = []
        self._groups_made = 0
        self._dumped: dict[str, Row] = {}
        self._dump_due_ns = 0

    @property
    def method(self) -> str:
        """How CPU time is read, for people."""
        return self._reader.method

    @property
    def processes(self) -> Collection[Process]:
        """All live processes known."""
        return self._entries.keys()

    @property
    def jobs(self) -> Collection[str]:
        """The jobs that have live processes, now and later."""
        return self._jobs.keys()

    @property
    def claimants(self) -> Collection[Process]:
        """Live processes whose environment has one of `variables`."""
        return self._claimants

    def find(self, pid: int) -> Process | None:
        """Return the process that has this pid, or had it until lately.

        Of two that had it within one look the earlier is meant: the later has hardly begun. One
        whose job is undecided is nobody yet.
        """
        process, ended_ns = self._parted.get(pid, (None, 0))
        if process is None or ended_ns != self._last_ns:
            process = self._pids.get(pid) or process
        return None if process is not None and process.job_uid == UNDECIDED else process

    def refresh(self, process: Process) -> None:
        """Read a live process's name and owner anew."""
        entry = self._entries.get(process)
        if entry is not None and self._is_same(process):
            self._identify_again(entry)

    def dump(self, now_ns: int) -> Mapping[str, Row]:
        """Return clocks and groups: all of them now and then, and what each look changed since."""
        busy = () if self._times is None else tuple(self._times.busy_ns.items())
        if now_ns >= self._dump_due_ns:
            self._dump_due_ns = now_ns + DUMP_NS
            clocks = [
                (process.pid, process.start_ticks, time_ns)
                for group in self._groups()
                for process, time_ns in zip(group.processes, group.times, strict=True)
            ]
            groups = tuple(_group_rows(self._groups()))
            self._dumped = {"clocks": (now_ns, busy, clocks), "groups": groups}
        else:
            # Flat, since this is written with every look.
            ran = [x for p, time_ns in self._used.items() for x in (p.pid, p.start_ticks, time_ns)]
            moved = [
                x
                for group in self._moved
                if (kept := group.kept) is not None
                for x in (kept.number, group.used_ns, group.credit_ns)
            ]
            row = now_ns, busy, ran, moved, list(_group_rows(self._made))
            self._dumped[f"used {len(self._dumped) - 1}"] = row
        self._made.clear()
        return self._dumped

    def restore(self, rows: Rows) -> None:
        """Go on from the clocks of an earlier run: the first look tells what has been used since.

        Raises:
            ValueError, TypeError, LookupError: the rows are not those of `dump`.
        """
        if "clocks" not in rows or "groups" not in rows:
            return
        listed_ns, busy, clocks = rows["clocks"]
        at_ns = listed_ns
        known = {(int(pid), int(start)): int(time_ns) for pid, start, time_ns in clocks}
        groups = dict(map(_past_group, rows["groups"]))
        looks = 1
        while (row := rows.get(f"used {looks}")) is not None:
            at_ns, busy, ran, moved, made = row
            for pid, start, time_ns in _triples(ran):
                key = int(pid), int(start)
                known[key] = known.get(key, 0) + int(time_ns)
            groups.update(map(_past_group, made))
            for number, used_ns, credit_ns in _triples(moved):
                if (group := groups.get(number)) is not None:  # else it counts as new
                    groups[number] = replace(group, used_ns=int(used_ns), credit_ns=int(credit_ns))
            looks += 1
        self._times = CpuTimes({int(cpu): int(time_ns) for cpu, time_ns in busy})
        self._past = _Past(int(at_ns), int(listed_ns), known, groups.values())

    def look(self, now_ns: int) -> Usage:
        """Return the use since the previous look; the first look returns none.

        The first after `restore` returns what groups and processes have used since an earlier run.
        """
        usage = Usage()
        past = self._past
        first = self._last_ns is None
        before_ns = past.at_ns if past is not None else self._last_ns
        span_ns = 0 if before_ns is None else max(0, now_ns - before_ns)
        self._last_ns = now_ns
        full = now_ns >= self._full_due_ns
        if full:
            self._full_due_ns = now_ns + FULL_LOOK_NS
            self._listed = None
        if self._records is not None:  # before the processes: a Prolog is done when these begin
            usage.records = self._records.refresh()
        self._decide()
        if past is not None:
            self._take_up(past.groups)
        self._find_newcomers(usage, now_ns, first=first)
        self._visit_some(usage, now_ns, span_ns)
        if full and not first:
            self._visit_the_moved(usage, now_ns)
        self._read_packages(usage, span_ns)  # beside the clocks: to meet all takes its time
        walk = Walk(
            self._reader,
            usage,
            most_ns=span_ns * len(self._topology.package_of),
            full=full,
            first=first and past is None,
            blurred=None if past is None else self._blurred(),
        )
        walk.visit(self._root)
        self._hybrid.settle(usage, walk.rests, full=full, first=first)
        if past is not None:
            self._past = None
            known_ns = sum(usage.cpu_ns.values()) + sum(usage.exited_ns.values())
            usage.unseen_ns = max(0, sum(usage.busy_ns.values()) - known_ns)
        self._moved = walk.moved
        before, self._used = self._used, dict(usage.cpu_ns)
        self._leave_to_nobody(usage)
        self._ran.update(dict.fromkeys(usage.cpu_ns, 0))
        for process in usage.ended:
            self._forget(process)
        self._end_zombies(usage, before)
        self._hybrid.forget(usage.ended)
        self._must_list |= bool(usage.ended)  # another may live under the same pid
        self._forget_parted(now_ns)
        self._review_job(span_ns)
        usage.memory_bytes = dict(self._memory)
        usage.jobs = self._jobs
        return usage

    def _decide(self) -> None:
        """Ask again for the owners of who was undecided at the look before."""
        for process in list(self._undecided):
            entry = self._entries[process]
            if self._job_uid_of(_facts(process, entry.cgroups)) != UNDECIDED:
                self._identify_again(entry)
        waiting, self._undecided_groups = self._undecided_groups, []
        for group, facts in waiting:
            self._own(group, facts)

    def _leave_to_nobody(self, usage: Usage) -> None:
        """Count the time of those whose owner is undecided, or was to their end, as nobody's."""
        ended = (process for process in usage.ended if process.job_uid == UNDECIDED)
        for process in (*self._undecided, *ended):
            usage.unseen_ns += usage.cpu_ns.pop(process, 0)

    def _groups(self) -> Iterator[Group]:
        pending = [self._root]
        while pending:
            group = pending.pop()
            yield group
            pending += group.children.values()

    # --- packages -------------------------------------------------------------------------------

    def _read_packages(self, usage: Usage, span_ns: int) -> None:
        """Read how busy each package was, out of /proc/stat."""
        before = self._times
        try:
            self._times = self._procfs.read_cpu_times()
        except ReadError:
            self._times = None
            return
        self._task_time.total_ns = sum(self._times.busy_ns.values())
        if before is None or span_ns <= 0:
            return
        for cpu, busy_ns in self._times.busy_ns.items():
            package = self._topology.package_of.get(cpu)
            if package is None or cpu not in before.busy_ns:
                continue
            used_ns = max(0, busy_ns - before.busy_ns[cpu])
            usage.busy_ns[package] = usage.busy_ns.get(package, 0) + used_ns
            usage.capacity_ns[package] = usage.capacity_ns.get(package, 0) + span_ns

    # --- newcomers ------------------------------------------------------------------------------

    def _find_newcomers(self, usage: Usage, now_ns: int, *, first: bool) -> None:
        before, self._census = self._census, self._read_census()
        if not (self._must_list or self._may_have_changed(before, now_ns)):
            return
        self._must_list = False
        self._listed = self._census
        self._listing_due_ns = now_ns + LISTING_NS
        try:
            pids = self._procfs.list_pids()
        except ReadError as error:
            if str(error) != self._unlisted:
                self._unlisted = str(error)
                log.warning("processes cannot be listed: %s", error)
            return
        self._unlisted = ""
        listed_ticks, self._listed_ticks = self._listed_ticks, _boot_ticks()
        for pid in self._given_out_since(before, self._pids):
            self._keep_if_same(usage, self._entries[self._pids[pid]])
        self._forget_reaped(pids, before)
        for pid in self._pids.keys() - pids:
            self._bury(usage, self._entries[self._pids[pid]])
        born_after = None if first else listed_ticks - START_SLACK_TICKS
        if self._past is not None:
            born_after = self._listed_ticks - (now_ns - self._past.listed_ns) * TICKS // NS
        for pid in sorted(pids - self._pids.keys() - self._zombies.keys()):
            self._meet(pid, now_ns, born_after)

    def _may_have_changed(self, before: Census | None, now_ns: int) -> bool:
        """Whether somebody may have come since the last look, or gone without using CPU time."""
        census = self._census
        if census is None or before is None or census.youngest_pid != before.youngest_pid:
            return True
        return now_ns >= self._listing_due_ns and census != self._listed

    def _given_out_since(self, before: Census | None, known: Collection[int]) -> list[int]:
        """Return the known pids among those given out since `before`: they may be used again."""
        if before is None or self._census is None:
            return []
        eldest, youngest = before.youngest_pid, self._census.youngest_pid
        if eldest <= youngest:
            return [pid for pid in range(eldest + 1, youngest + 1) if pid in known]
        # Pids go up and start over.
        return [pid for pid in known if pid > eldest or pid <= youngest]

    def _read_census(self) -> Census | None:
        if not self._own_pids:
            return None  # another namespace's counter says nothing about these pids
        try:
            return self._procfs.read_census()
        except ReadError:
            return None

    def _is_same(self, process: Process) -> bool:
        """Read a process's name anew; whether its pid is still its own."""
        try:
            stat = self._procfs.read_process_stat(process.pid)
        except ReadError:
            return True  # its clock tells whether it is gone
        if stat.start_ticks == process.start_ticks:
            process.comm = stat.comm
            return True
        return False

    def _keep_if_same(self, usage: Usage, entry: _Entry) -> bool:
        """End a process whose pid belongs to another by now; whether it was kept."""
        process = entry.process
        if self._is_same(process):
            return True
        self._end(usage, entry)
        return False

    def _bury(self, usage: Usage, entry: _Entry) -> None:
        """End a process that is not listed any more, unless it has merely been hidden."""
        if self._reader.read([self._key(entry.process)]) == [GONE]:
            self._end(usage, entry)

    def _end(self, usage: Usage, entry: _Entry) -> None:
        """Take a process out whose end is known; its group pays what it used last."""
        _, delta = entry.group.remove(entry.process)
        entry.group.ended.append((entry.process, delta))
        usage.ended.append(entry.process)
        self._forget(entry.process)

    def _meet(self, pid: int, now_ns: int, born_after: int | None) -> None:
        """Take in a process; `born_after` (ticks) tells whether all its CPU time is news."""
        try:
            stat = self._procfs.read_process_stat(pid)
        except Absent:
            return
        except ReadError:
            process = Process(pid, 0)
        else:
            if stat.exited and (born_after is None or stat.start_ticks < born_after):
                self._zombies[pid] = stat.start_ticks
                return
            process = Process(pid, stat.start_ticks, stat.comm)
        key = self._key(process)
        told_ns = self._past.times_ns.get((pid, process.start_ticks)) if self._past else None
        time_ns = 0
        if told_ns is not None or born_after is None or process.start_ticks < born_after:
            (time_ns,) = self._reader.read([key])
            if time_ns == GONE:
                return
            if told_ns is not None:
                time_ns = min(time_ns, told_ns)
        cgroups = self._identify(process)
        group = self._place(cgroups)
        group.add(process, key, time_ns)
        self._pids[pid] = process
        self._entries[process] = _Entry(process, group, now_ns, time_ns, cgroups)
        self._hybrid.place(process, cgroups, group)
        self._count_in(process)
        self._attend(process, cgroups)
        if _boot_ticks() - process.start_ticks < YOUNG_NS[-1] * TICKS // NS:
            self._young.append((now_ns + YOUNG_NS[0], 0, process))

    def _key(self, process: Process) -> int:
        return self._reader.key(process.pid, process.start_ticks)

    # --- identity -------------------------------------------------------------------------------

    def _identify(self, process: Process) -> dict[str, str]:
        """Read what may change about a process; what cannot be read stays as it is."""
        try:
            status = self._procfs.read_process_status(process.pid)
        except ReadError:
            if process.uid < 0:
                process.uid = self._procfs.read_owner(process.pid)
        else:
            process.uid = status.uid
            process.memory_bytes = self._beyond_shared(process, status.anonymous_bytes)
            process.packages = self._topology.packages_allowed(status.cpus)
        process.user = self._user_name(process.uid) if process.uid >= 0 else ""
        if self._variables:
            with contextlib.suppress(ReadError):
                process.environment = self._procfs.read_environ(process.pid, self._variables)
        try:
            cgroups = self._cgroupfs.resolve(self._procfs.read_cgroup(process.pid))
        except ReadError:
            entry = self._entries.get(process)
            cgroups = entry.cgroups if entry is not None else {}
        else:
            process.job_uid = self._job_uid_of(_facts(process, cgroups))
        self._sort_in(process)
        return cgroups

    def _sort_in(self, process: Process) -> None:
        """Note whether a process is undecided, and else whether it names GPUs."""
        decided = process.job_uid != UNDECIDED
        if decided:
            self._undecided.pop(process, None)
        else:
            self._undecided[process] = None
        if decided and not self._claims.isdisjoint(process.environment):
            self._claimants.add(process)
        else:
            self._claimants.discard(process)

    def _count_in(self, process: Process) -> None:
        """Count a process into what is known of its job."""
        if process.job_uid != UNDECIDED:
            presence = self._jobs.get(process.job_uid)
            if presence is None:
                user, uid = ("", -1) if _is_sandbox(process) else (process.user, process.uid)
                presence = JobPresence(0, _started(process), user, uid)
                self._jobs[process.job_uid] = presence
            presence.processes += 1
        if process.memory_bytes:
            place = process.job_uid, process.packages
            self._memory[place] = self._memory.get(place, 0) + process.memory_bytes

    def _count_out(self, job_uid: str, packages: frozenset[int] | None, memory_bytes: int) -> None:
        """Count a process that had these out of what is known of its job."""
        if job_uid != UNDECIDED:
            presence = self._jobs[job_uid]
            presence.processes -= 1
            if not presence.processes:
                del self._jobs[job_uid]
                self._own_cgroups.forget(job_uid)
        if memory_bytes:
            place = job_uid, packages
            self._memory[place] -= memory_bytes
            if not self._memory[place]:
                del self._memory[place]

    def _attend(self, process: Process, cgroups: Mapping[str, str]) -> None:
        """Learn of a job what this process of it shows."""
        if process.job_uid == UNDECIDED:
            return
        presence = self._jobs[process.job_uid]
        if not _is_sandbox(process):
            _note_user(presence, process)
        by_cgroup = self._own_cgroups.note(process.job_uid, cgroups)
        presence.cpus = self._own_cgroups.cpus(process.job_uid)
        if process.uid not in {0, presence.uid}:
            return  # who may run something within a job does not speak for it
        if presence.record is None and process.environment and self._records is not None:
            presence.record = self._records.told_by(process, by_cgroup=by_cgroup)

    def _review_job(self, span_ns: int) -> None:
        self._review_due += span_ns * max(len(self._jobs) / REVIEW_NS, 1 / REVIEW_LEAST_NS)
        if self._review_due < 1:
            return
        self._review_due = min(self._review_due - 1, 1.0)
        job_uid = self._own_cgroups.review()
        if job_uid is not None and job_uid in self._jobs:
            self._jobs[job_uid].cpus = self._own_cgroups.cpus(job_uid)
            self._part_memory(job_uid)

    def _part_memory(self, job_uid: str) -> None:
        """Charge a job's processes together for no more memory than its cgroups hold.

        What several of them share, forked workers their parent's data, counts in each one's own.
        """
        entries = [entry for entry in self._entries.values() if entry.process.job_uid == job_uid]
        wholes = [entry.process.memory_bytes + entry.shared_bytes for entry in entries]
        whole = sum(wholes)
        held = self._own_cgroups.anonymous_bytes(job_uid) if len(entries) > 1 else None
        held = min(held, whole) if held else whole  # nothing held: not counted with those below
        for entry, mine in zip(entries, wholes, strict=True):
            if not mine:
                continue
            process, before = entry.process, entry.process.memory_bytes
            process.memory_bytes = max(1, mine * held // whole)
            entry.shared_bytes = mine - process.memory_bytes
            place = job_uid, process.packages
            self._memory[place] = self._memory.get(place, 0) + process.memory_bytes - before

    def _beyond_shared(self, process: Process, anonymous_bytes: int) -> int:
        """Return what a process is charged for of its anonymous memory."""
        entry = self._entries.get(process)
        if entry is None:
            return anonymous_bytes
        entry.shared_bytes = min(entry.shared_bytes, anonymous_bytes)
        return anonymous_bytes - entry.shared_bytes

    def _forget(self, process: Process) -> None:
        if self._entries.pop(process, None) is not None:
            del self._pids[process.pid]
            self._ran.pop(process, None)
            self._stopped.pop(process, None)
            self._claimants.discard(process)
            self._undecided.pop(process, None)
            self._parted.pop(process.pid, None)
            self._parted[process.pid] = process, self._last_ns or 0
            process.alive = False
            self._count_out(process.job_uid, process.packages, process.memory_bytes)

    def _forget_parted(self, now_ns: int) -> None:
        """Drop those from whom no late reading can come any more, the oldest first."""
        while self._parted:
            pid, (_, ended_ns) = next(iter(self._parted.items()))
            if now_ns - ended_ns < PARTED_NS and len(self._parted) <= MOST_PARTED:
                break
            del self._parted[pid]

    # --- zombies --------------------------------------------------------------------------------

    def _end_zombies(self, usage: Usage, before: Mapping[Process, int]) -> None:
        """End those of whom nothing runs any more, though they are listed until they are reaped.

        To exit takes CPU time: who ran at the look `before`, and has stopped, is asked once.
        """
        for process in self._stopped.keys() & self._used.keys():
            del self._stopped[process]
        for process in before.keys() - self._used.keys():
            if process in self._entries:
                self._stopped[process] = None
        for _ in range(min(MOST_STOPPED, len(self._stopped))):
            process = next(iter(self._stopped))
            del self._stopped[process]
            with contextlib.suppress(ReadError):
                stat = self._procfs.read_process_stat(process.pid)
                if stat.exited and stat.start_ticks == process.start_ticks:
                    self._end_zombie(usage, self._entries[process])

    def _end_zombie(self, usage: Usage, entry: _Entry) -> None:
        process, group = entry.process, entry.group
        at = group.processes.index(process)
        if self._reader.read([group.keys[at]]) != [group.times[at]]:
            group.runners = None  # it has run once more: when that is told it stops again
            return
        group.remove(process)
        usage.ended.append(process)
        self._forget(process)
        self._zombies[process.pid] = process.start_ticks

    def _forget_reaped(self, pids: Collection[int], before: Census | None) -> None:
        """Drop zombies that are gone, so that whoever has the pid now is met."""
        is_told = before is not None and self._census is not None
        anew = (
            set(self._given_out_since(before, self._zombies)) if is_told else self._zombies.keys()
        )
        for pid, start_ticks in list(self._zombies.items()):
            if pid not in pids or (pid in anew and not self._has_start(pid, start_ticks)):
                del self._zombies[pid]

    def _has_start(self, pid: int, start_ticks: int) -> bool:
        try:
            return self._procfs.read_process_stat(pid).start_ticks == start_ticks
        except ReadError:
            return False

    # --- visits ---------------------------------------------------------------------------------

    def _visit_some(self, usage: Usage, now_ns: int, span_ns: int) -> None:
        """Look again at who is young, at who runs, and at everybody in turn."""
        self._visit_young(usage, now_ns)
        self._visit_busy(usage, now_ns)
        if not self._round:
            self._round = list(self._entries)
        self._round_due += len(self._entries) * span_ns / (ROUND_SECONDS * NS)
        share = min(int(self._round_due), MOST_ROUND, len(self._round))
        self._round_due = min(self._round_due - share, MOST_ROUND)
        for _ in range(share):
            entry = self._entries.get(self._round.pop())
            if entry is not None:
                self._visit(usage, entry, now_ns)

    def _visit_busy(self, usage: Usage, now_ns: int) -> None:
        visited = 0
        for _ in range(min(MOST_PASSED, len(self._ran))):
            process = next(iter(self._ran))
            del self._ran[process]
            entry = self._entries.get(process)
            if entry is not None and now_ns - entry.visited_ns >= VISIT_AGAIN_NS:
                self._visit(usage, entry, now_ns)
                visited += 1
                if visited == MOST_BUSY:
                    break

    def _visit_young(self, usage: Usage, now_ns: int) -> None:
        visited = 0
        for _ in range(MOST_CHECKED):
            if not self._young or self._young[0][0] > now_ns or visited == MOST_YOUNG:
                break
            _, stage, process = self._young.popleft()
            entry = self._entries.get(process)
            if entry is None:
                continue
            if stage + 1 < len(YOUNG_NS):
                due = now_ns + YOUNG_NS[stage + 1] - YOUNG_NS[stage]
                self._young.append((due, stage + 1, process))
            else:
                self._own_cgroups.hasten(process.job_uid)
            if self._has_run(entry):
                self._visit(usage, entry, now_ns)
                visited += 1

    def _visit_the_moved(self, usage: Usage, now_ns: int) -> None:
        """Look again at those whose clocks tell of time that their group's counter does not.

        They are in another cgroup by now, which has counted it, as of somebody whom nobody saw.
        """
        for group in list(self._groups()):
            if group.usage is None or not group.exact or not group.processes:
                continue
            with contextlib.suppress(ReadError):
                still = group.usage.read() == group.used_ns
                if not still and group.credit_ns > -FALSE_STILLNESS_NS:
                    continue
                times = self._reader.read(group.keys)
                known = zip(group.processes, times, group.times, strict=True)
                for process in [p for p, time_ns, before in known if time_ns > before]:
                    self._visit(usage, self._entries[process], now_ns, counted=still)

    def _has_run(self, entry: _Entry) -> bool:
        """Whether a process has run since the last visit: only then can it have changed itself."""
        (time_ns,) = self._reader.read([self._key(entry.process)])
        return time_ns != entry.visited_time_ns

    def _visit(self, usage: Usage, entry: _Entry, now_ns: int, *, counted: bool = False) -> None:
        """Identify a process again; `counted`: if it has moved, what it used up to now is told."""
        entry.visited_ns = now_ns
        (entry.visited_time_ns,) = self._reader.read([self._key(entry.process)])
        if self._keep_if_same(usage, entry):
            self._identify_again(entry, counted=counted)

    def _identify_again(self, entry: _Entry, *, counted: bool = False) -> None:
        """Identify a process anew, and follow it into another group."""
        process = entry.process
        before = process.job_uid, process.packages, process.memory_bytes
        cgroups = self._identify(process)
        if process.job_uid != before[0]:  # it shares with nobody there, as far as is known
            process.memory_bytes += entry.shared_bytes
            entry.shared_bytes = 0
        self._count_in(process)  # first: a job's only process does not end it by staying
        self._count_out(*before)
        self._attend(process, cgroups)
        if cgroups != entry.cgroups:
            entry.cgroups = cgroups
            time_ns, _ = entry.group.remove(process)
            if counted:
                time_ns = max(time_ns, entry.visited_time_ns)
            entry.group = self._place(cgroups)
            entry.group.add(process, self._key(process), time_ns)
        self._hybrid.place(process, cgroups, entry.group)

    # --- groups ---------------------------------------------------------------------------------

    def _make_root(self) -> Group:
        """Return the group of all processes.

        Its counter is exact under cgroup v1. Under v2 the groups below are exact and complete.
        Without cgroups the machine's clock ticks have to do, whose rest is nobody's.
        """
        try:
            usage = self._cgroupfs.open_root_usage()
        except ReadError:
            usage = None
        if usage is not None:
            return Group(SYSTEM, usage)
        ticks = None if self._cgroupfs.hierarchies else self._task_time
        return Group(None, ticks, exact=False)

    def _place(self, cgroups: dict[str, str]) -> Group:
        """Return the group of a process, made with all groups above it where it is new."""
        place = self._cgroupfs.place(cgroups)
        if place is None:
            return self._root
        return self._reach(*place)

    def _reach(self, hierarchy: Hierarchy, path: str) -> Group:
        parts = path.strip("/").split("/")
        group: Group | None = self._root
        for part in parts:
            group = group.children.get(f"{hierarchy.controller}:{part}") if group else None
        if group is not None and not _is_gone(group):
            return group
        group, walked = self._root, ""
        for part in parts:
            walked += f"/{part}"
            name = f"{hierarchy.controller}:{part}"
            child = group.children.get(name)
            if child is not None and _is_gone(child):
                # A service that was started again, say: what is left of the old one is told apart.
                group.children[f"{name}/{id(child)}"] = child
                child = None
            if child is None:
                child = self._make_group(hierarchy, walked)
                group.children[name] = child
            group = child
        return group

    def _make_group(self, hierarchy: Hierarchy, path: str) -> Group:
        group = Group(None)
        with contextlib.suppress(ReadError):
            usage = group.usage = hierarchy.open_usage(path)
            self._groups_made += 1
            controller, identity = hierarchy.controller, usage.identity()
            group.kept = KeptGroup(self._groups_made, controller, path, identity)
            if self._dumped:  # else all of them will be
                self._made.append(group)
        self._own(group, Facts({hierarchy.controller: path}, -1))
        return group

    def _own(self, group: Group, facts: Facts) -> None:
        """Find a group's owner; one that is undecided is asked for again at the next look."""
        job_uid = self._job_uid_of(facts)
        if job_uid == UNDECIDED:
            self._undecided_groups.append((group, facts))
        else:
            group.job_uid = job_uid

    def _take_up(self, groups: Collection[_PastGroup]) -> None:
        """Make the groups of an earlier run anew, with their counters as they stood.

        Those that are gone are there for this look, for those above them to be `_blurred`.
        """
        hierarchies = {hierarchy.controller: hierarchy for hierarchy in self._cgroupfs.hierarchies}
        gone: dict[tuple[str, str], Group] = {}
        for past in groups:
            controller, path = past.kept.controller, past.kept.path
            hierarchy = hierarchies.get(controller)
            if hierarchy is None:
                continue
            above, _, name = path.rpartition("/")
            parent = gone.get((controller, above))
            if parent is None:
                parent = self._reach(hierarchy, above) if above else self._root
                group = self._make_group(hierarchy, path)
                if group.kept is not None and group.kept.identity == past.kept.identity:
                    group.used_ns, group.credit_ns = past.used_ns, past.credit_ns
                    parent.children[f"{controller}:{name}"] = group
                    continue
                group.close()
            group = gone[controller, path] = Group(past.job_uid)
            parent.children[f"{controller}:{name}/{id(group)}"] = group

    def _blurred(self) -> set[Group]:
        """Return the groups in which others' groups may have come and gone unseen.

        There some are, or were, that are not their owner's; and what nobody claims may hold any.
        """
        return {
            group
            for group in self._groups()
            if group.job_uid == SYSTEM
            or any(child.job_uid != group.job_uid for child in group.children.values())
        }


def _group_rows(groups: Iterable[Group]) -> Iterator[Row]:
    """Return what the next run must know of groups, of those that it can find again."""
    for group in groups:
        kept = group.kept
        if kept is not None:
            place = kept.number, kept.controller, kept.path, kept.identity
            yield *place, group.job_uid, group.used_ns, group.credit_ns


def _past_group(row: Row) -> tuple[int, _PastGroup]:
    """Read a row of `_group_rows`; return its number and what it tells."""
    number, controller, path, identity, job_uid, used_ns, credit_ns = row
    if b"\0" in os.fsencode(path) or not path.startswith("/"):
        raise ValueError("no path of a cgroup")
    kept = KeptGroup(int(number), str(controller), path, int(identity))
    owner = None if job_uid is None else str(job_uid)
    used_ns = None if used_ns is None else int(used_ns)
    return kept.number, _PastGroup(kept, owner, used_ns, int(credit_ns))


def _triples(flat: Iterable[Any]) -> Iterator[tuple[Any, Any, Any]]:
    values = iter(flat)
    return zip(values, values, values, strict=True)


def _is_gone(group: Group) -> bool:
    """Whether the cgroup of a group has been removed; another may have been made in its place."""
    if group.usage is None:
        return False
    try:
        group.usage.read()
    except ReadError:
        return True
    return False


@dataclass(slots=True)
class _TaskTime:
    """CPU time of all tasks in clock ticks, as the last reading of /proc/stat had it."""

    total_ns: int = 0

    def read(self) -> int:
        return self.total_ns

    def close(self) -> None:
        """Hold nothing."""


def _facts(process: Process, cgroups: Mapping[str, str]) -> Facts:
    return Facts(cgroups, process.uid, process.environment)


def _is_sandbox(process: Process) -> bool:
    """Whether a process only keeps a pod's namespaces, under a user of the runtime's choice."""
    return process.comm == SANDBOX and kind_of(process.job_uid) == "k8s"


def _note_user(presence: JobPresence, process: Process) -> None:
    """Note whose a job is: its first process's, of a scheduled one the first that is not root's.

    Root starts what is others': that first process may be its user's a moment later.
    """
    if presence.first is None or not presence.user:
        presence.first = process
    else:
        may_be = process is presence.first or is_scheduled(process.job_uid)
        if presence.uid != 0 or process.uid <= 0 or not may_be:
            return
    presence.user, presence.uid = process.user, process.uid


def _started(process: Process) -> float:
    """Return the Unix time of a process's start."""
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - process.start_ticks / TICKS
    return time.time() - max(0.0, age)


def _boot_ticks() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)
