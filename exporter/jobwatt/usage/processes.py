"""The machine's processes: who they are, and what each used since the last look.

A look costs in proportion to who was busy (decision: docs/decisions/0003-looking-is-cheap.md).
Newcomers are looked for when the youngest pid has changed; identity is read once, again while a
process is young, and on a slow round afterwards; memory is read with it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping

from jobwatt.errors import Absent, ReadError
from jobwatt.host.cgroupfs import Cgroupfs
from jobwatt.host.procfs import TICKS, Census, Procfs
from jobwatt.host.topology import Topology
from jobwatt.model import UNDECIDED, Process, Row, Rows, Usage
from jobwatt.units import NS
from jobwatt.usage.contract import RecordSource
from jobwatt.usage.cpu_time import GONE, CpuTimeReader, choose_reader
from jobwatt.usage.entry import Entry
from jobwatt.usage.groups import FALSE_STILLNESS_NS, Group, Walk
from jobwatt.usage.hybrid import HybridJobs
from jobwatt.usage.own_cgroups import OwnCgroups
from jobwatt.usage.packages import PackageTimes
from jobwatt.usage.past import Keeper, Look, Past, read_past
from jobwatt.usage.presence import Presences, beyond_shared
from jobwatt.usage.tree import GroupTree
from jobwatt.usage.visits import Visits
from jobwatt.usage.zombies import Zombies
from jobwatt.workloads.contract import Facts

__all__ = ["HostProcesses"]

log = logging.getLogger(__name__)

LISTING_NS, FULL_LOOK_NS = 10 * NS, 60 * NS
"""Every so often processes are listed where some have ended, and all are listed, and all clocks
read, whatever seems to have changed."""

PARTED_NS, MOST_PARTED = 60 * NS, 1000
"""How long, and of how many that have ended, the pid is known: drivers may answer late."""

START_SLACK_TICKS = 2 * TICKS
"""A process seen first that is older than the last listing by more was merely hidden from it."""


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
        own_cgroups = OwnCgroups(cgroupfs, job_uid_of, len(topology.package_of))
        self._hybrid = HybridJobs(cgroupfs, job_uid_of)
        self._reader: CpuTimeReader = choose_reader(procfs)
        self._own_pids = procfs.is_own()
        self._packages = PackageTimes(procfs, topology)
        self._tree = GroupTree(cgroupfs, job_uid_of, self._packages.task_time)
        self._presences = Presences(own_cgroups, records)
        self._visits = Visits(self._reader, own_cgroups.hasten)
        self._zombies = Zombies(procfs, self._reader)
        self._keeper = Keeper()
        self._unlisted = ""  # why processes could not be listed the last time
        self._pids: dict[int, Process] = {}
        self._entries: dict[Process, Entry] = {}
        self._claimants: set[Process] = set()
        self._undecided: dict[Process, None] = {}
        self._parted: dict[int, tuple[Process, int]] = {}
        self._census: Census | None = None
        self._must_list = False
        self._listed: Census | None = None
        self._listed_ticks = 0
        self._last_ns: int | None = None
        self._full_due_ns = 0
        self._listing_due_ns = 0
        self._past: Past | None = None
        self._used: Mapping[Process, int] = {}
        self._moved: Collection[Group] = ()

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
        return self._presences.jobs.keys()

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
        look = Look(self._packages.times, self._used, self._moved, self._tree.take_made())
        return self._keeper.keep(now_ns, look, self._tree)

    def restore(self, rows: Rows) -> None:
        """Go on from the clocks of an earlier run: the first look tells what has been used since.

        Raises:
            ValueError, TypeError, LookupError: the rows are not those of `dump`.
        """
        past = read_past(rows)
        if past is not None:
            self._past, self._packages.times = past, past.busy

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
            self._tree.take_up(past.groups)
        self._find_newcomers(usage, now_ns, first=first)
        for entry in self._visits.due(self._entries, now_ns, span_ns):
            self._visit(usage, entry, now_ns)
        if full and not first:
            self._visit_the_moved(usage, now_ns)
        self._packages.read(usage, span_ns)  # beside the clocks: to meet all takes its time
        walk = Walk(
            self._reader,
            usage,
            most_ns=span_ns * len(self._topology.package_of),
            full=full,
            first=first and past is None,
            blurred=None if past is None else self._tree.blurred(),
        )
        walk.visit(self._tree.root)
        self._hybrid.settle(usage, walk.rests, full=full, first=first)
        if past is not None:
            self._past = None
            known_ns = sum(usage.cpu_ns.values()) + sum(usage.exited_ns.values())
            usage.unseen_ns = max(0, sum(usage.busy_ns.values()) - known_ns)
        self._moved = walk.moved
        before, self._used = self._used, dict(usage.cpu_ns)
        self._leave_to_nobody(usage)
        self._visits.note_ran(usage.cpu_ns)
        for process in usage.ended:
            self._forget(process)
        self._zombies.note_stopped(before, self._used, self._entries)
        self._end_zombies(usage)
        self._hybrid.forget(usage.ended)
        self._must_list |= bool(usage.ended)  # another may live under the same pid
        self._forget_parted(now_ns)
        self._presences.review(span_ns, self._entries)
        usage.memory_bytes = dict(self._presences.memory)
        usage.jobs = self._presences.jobs
        return usage

    def _decide(self) -> None:
        """Ask again for the owners of who was undecided at the look before."""
        for process in list(self._undecided):
            entry = self._entries[process]
            if self._job_uid_of(_facts(process, entry.cgroups)) != UNDECIDED:
                self._identify_again(entry)
        self._tree.decide()

    def _leave_to_nobody(self, usage: Usage) -> None:
        """Count the time of those whose owner is undecided, or was to their end, as nobody's."""
        ended = (process for process in usage.ended if process.job_uid == UNDECIDED)
        for process in (*self._undecided, *ended):
            usage.unseen_ns += usage.cpu_ns.pop(process, 0)

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
        is_told = before is not None and self._census is not None  # else it may be any
        zombies = self._zombies.pids
        given_out = set(self._given_out_since(before, zombies)) if is_told else zombies
        self._zombies.forget_reaped(pids, given_out)
        for pid in self._pids.keys() - pids:
            self._bury(usage, self._entries[self._pids[pid]])
        born_after = None if first else listed_ticks - START_SLACK_TICKS
        if self._past is not None:
            born_after = self._listed_ticks - (now_ns - self._past.listed_ns) * TICKS // NS
        for pid in sorted(pids - self._pids.keys() - self._zombies.pids):
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

    def _keep_if_same(self, usage: Usage, entry: Entry) -> bool:
        """End a process whose pid belongs to another by now; whether it was kept."""
        process = entry.process
        if self._is_same(process):
            return True
        self._end(usage, entry)
        return False

    def _bury(self, usage: Usage, entry: Entry) -> None:
        """End a process that is not listed any more, unless it has merely been hidden."""
        if self._reader.read([self._key(entry.process)]) == [GONE]:
            self._end(usage, entry)

    def _end(self, usage: Usage, entry: Entry) -> None:
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
                self._zombies.note(pid, stat.start_ticks)
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
        group = self._tree.place(cgroups)
        group.add(process, key, time_ns)
        self._pids[pid] = process
        self._entries[process] = Entry(process, group, now_ns, time_ns, cgroups)
        self._hybrid.place(process, cgroups, group)
        self._presences.count_in(process)
        self._presences.attend(process, cgroups)
        self._visits.meet(process, _boot_ticks() - process.start_ticks, now_ns)

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
            entry = self._entries.get(process)
            process.memory_bytes = beyond_shared(entry, status.anonymous_bytes)
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

    def _forget(self, process: Process) -> None:
        if self._entries.pop(process, None) is not None:
            del self._pids[process.pid]
            self._visits.forget(process)
            self._zombies.forget(process)
            self._claimants.discard(process)
            self._undecided.pop(process, None)
            self._parted.pop(process.pid, None)
            self._parted[process.pid] = process, self._last_ns or 0
            process.alive = False
            self._presences.count_out(process.job_uid, process.packages, process.memory_bytes)

    def _end_zombies(self, usage: Usage) -> None:
        """End those of whom nothing runs any more, though they are listed until they are reaped."""
        for entry in self._zombies.find(self._entries):
            entry.group.remove(entry.process)
            usage.ended.append(entry.process)
            self._forget(entry.process)

    def _forget_parted(self, now_ns: int) -> None:
        """Drop those from whom no late reading can come any more, the oldest first."""
        while self._parted:
            pid, (_, ended_ns) = next(iter(self._parted.items()))
            if now_ns - ended_ns < PARTED_NS and len(self._parted) <= MOST_PARTED:
                break
            del self._parted[pid]

    # --- visits ---------------------------------------------------------------------------------

    def _visit_the_moved(self, usage: Usage, now_ns: int) -> None:
        """Look again at those whose clocks tell of time that their group's counter does not.

        They are in another cgroup by now, which has counted it, as of somebody whom nobody saw.
        """
        for group in list(self._tree):
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

    def _visit(self, usage: Usage, entry: Entry, now_ns: int, *, counted: bool = False) -> None:
        """Identify a process again; `counted`: if it has moved, what it used up to now is told."""
        entry.visited_ns = now_ns
        (entry.visited_time_ns,) = self._reader.read([self._key(entry.process)])
        if self._keep_if_same(usage, entry):
            self._identify_again(entry, counted=counted)

    def _identify_again(self, entry: Entry, *, counted: bool = False) -> None:
        """Identify a process anew, and follow it into another group."""
        process = entry.process
        before = process.job_uid, process.packages, process.memory_bytes
        cgroups = self._identify(process)
        if process.job_uid != before[0]:  # it shares with nobody there, as far as is known
            process.memory_bytes += entry.shared_bytes
            entry.shared_bytes = 0
        self._presences.count_in(process)  # first: a job's only process does not end it by staying
        self._presences.count_out(*before)
        self._presences.attend(process, cgroups)
        if cgroups != entry.cgroups:
            entry.cgroups = cgroups
            time_ns, _ = entry.group.remove(process)
            if counted:
                time_ns = max(time_ns, entry.visited_time_ns)
            entry.group = self._tree.place(cgroups)
            entry.group.add(process, self._key(process), time_ns)
        self._hybrid.place(process, cgroups, entry.group)


def _facts(process: Process, cgroups: Mapping[str, str]) -> Facts:
    return Facts(cgroups, process.uid, process.environment)


def _boot_ticks() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)
