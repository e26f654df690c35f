"""Cgroups as a tree of CPU time: what a group used, what its processes used, and the rest.

A group's own counter is complete; the clocks of its live processes are not: what came and went
between two looks is in the first alone. So a group's rest is the time of processes that nobody saw
live, and a group whose counter has not moved has no process worth a look. Nor have those of its
processes that slept at the look before, where the others explain what the counter moved.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import compress
from operator import sub
from typing import Protocol

from jobwatt.errors import ReadError
from jobwatt.model import UNDECIDED, Process, Usage
from jobwatt.usage.cpu_time import CpuTimeReader

__all__ = ["CpuUsage", "Group", "KeptGroup", "Walk"]

log = logging.getLogger(__name__)

FALSE_STILLNESS_NS = 50_000_000
"""A group whose processes ran so long while its own counter stood still has a false counter."""

LITTLE_NS = 50_000
"""What a group's runners leave unexplained without a look at its sleepers: the end of a process
costs more. It is kept for the next look, not lost."""

MOST_CREDIT_NS = 1_000_000_000
"""How far the clocks of processes may run ahead of their group's counter."""


class CpuUsage(Protocol):
    """A cumulative CPU time."""

    def read(self) -> int:
        """Return nanoseconds; raises `ReadError` once it cannot be told any more."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


@dataclass(frozen=True, slots=True)
class KeptGroup:
    """What tells a group from all others, also over a restart of the exporter.

    Attributes:
        number: within a run.
        controller, path: where its cgroup is.
        identity: of that cgroup, on this boot: another may be made in its place.
    """

    number: int
    controller: str
    path: str
    identity: int


@dataclass(slots=True, eq=False)
class Group:
    """One cgroup: its counter, its live processes, its children.

    Attributes:
        job_uid: who owns what its unseen processes used; None: nobody can say.
        usage: its counter, None where there is none.
        exact: whether the counter is; one that counts clock ticks says nothing by standing still.
        kept: what the next run knows it by, None where it has no counter of its own.
        used_ns: the counter's last value, None before the first.
        credit_ns: what is settled later, not lost. Mostly ≤ 0: by how much processes' clocks ran
            ahead of the counter so far; both are exact but not read at the same moment. Up to
            `LITTLE_NS` where sleepers have not been looked at.
        exited_ns: what unseen processes used at the last look.
        processes, keys, times, deltas: the live processes, what the reader takes for each, its
            last CPU time, and what it used at the last look.
        runners: places in these lists of all that have run between the last two readings of all;
            None where that is not known.
        ended: processes known to have ended since the last look, with what they used per look.
    """

    job_uid: str | None
    usage: CpuUsage | None = None
    exact: bool = True
    kept: KeptGroup | None = None
    used_ns: int | None = None
    credit_ns: int = 0
    exited_ns: int = 0
    children: dict[str, Group] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    deltas: list[int] = field(default_factory=list)
    runners: list[int] | None = None
    ended: list[tuple[Process, int]] = field(default_factory=list)

    def add(self, process: Process, key: int, time_ns: int) -> None:
        """Take in a live process whose CPU time up to `time_ns` is accounted for."""
        self.processes.append(process)
        self.keys.append(key)
        self.times.append(time_ns)
        self.deltas.append(0)
        self.runners = None

    def remove(self, process: Process) -> tuple[int, int]:
        """Let a process go; return its last CPU time and what it used at the last look."""
        at = self.processes.index(process)
        self.runners = None
        del self.processes[at], self.keys[at]
        return self.times.pop(at), self.deltas.pop(at)

    def close(self) -> None:
        """Let go of the counter."""
        if self.usage is not None:
            self.usage.close()
            self.usage = self.kept = None


Claim = tuple[Process | str, int]
"""Who ended since the last look (a process, or a job with its group), and what it used at the look
before: as much as it can have used of a rest."""


class Walk:
    """One look at a tree, top down, into a `Usage`.

    Args:
        reader: reads CPU times.
        usage: receives what was used.
        most_ns: what the whole machine can have used since the last look.
        full: look also into groups whose counter has not moved.
        first: take values to start from; nothing has been used yet.
        blurred: where the look covers a time in which nobody looked, groups whose rest may be
            anybody's; None for an ordinary look.

    Attributes:
        moved: the groups that were accounted.
        rests: what was booked to the owners of groups, as of processes that nobody saw.
    """

    def __init__(
        self,
        reader: CpuTimeReader,
        usage: Usage,
        *,
        most_ns: int,
        full: bool,
        first: bool,
        blurred: Collection[Group] | None = None,
    ) -> None:
        self._reader = reader
        self._usage = usage
        self._most_ns = most_ns
        self._full = full
        self._first = first
        self._blurred = blurred
        self.moved: list[Group] = []
        self.rests: dict[Group, int] = {}

    def visit(self, group: Group, available_ns: int | None = None) -> tuple[int, list[Claim]]:
        """Account a group; return what it used and the claims left for its parent to pay.

        `available_ns` is what its parent has left for it, None where nobody knows.
        """
        used_ns = self._read_counter(group, available_ns)
        still = used_ns == 0 and group.exact
        if still and not (self._full or self._first or group.ended):
            return 0, []
        self.moved.append(group)
        known_ns, claims = self._visit_children(group, used_ns)
        lost = list(claims)
        if used_ns is not None and group.exact and not claims and not self._full:
            runners_ns = self._read_runners(group, group.credit_ns + used_ns - known_ns)
            if runners_ns is not None:
                rest_ns = group.credit_ns + used_ns - known_ns - runners_ns
                group.credit_ns = max(-MOST_CREDIT_NS, rest_ns)
                group.exited_ns = 0
                return used_ns, []
        known_ns += self._read_processes(group, claims)
        if used_ns is None:
            if group.exited_ns and group.job_uid is not None:  # its counter has just gone
                claims.append((group.job_uid, group.exited_ns))
                group.exited_ns = 0
            return known_ns, claims
        if still and known_ns >= FALSE_STILLNESS_NS and self._blurred is None:
            log.warning("a cgroup's CPU time stands still while its processes run: ignoring it")
            group.close()
            return known_ns, claims
        self._settle(group, used_ns - known_ns, claims, [] if group.processes else lost)
        return used_ns, []

    def _read_counter(self, group: Group, available_ns: int | None) -> int | None:
        """Return what the counter moved; None where there is none, or none any more."""
        if group.usage is None:
            return None
        try:
            total = group.usage.read()
        except ReadError:
            group.close()
            return None
        before, group.used_ns = group.used_ns, total
        if self._first:
            return 0
        if before is None:
            # New to us: all that it ever used, unless that is more than its parent can explain.
            return min(total, self._most_ns if available_ns is None else max(0, available_ns))
        return max(0, total - before)

    def _visit_children(self, group: Group, used_ns: int | None) -> tuple[int, list[Claim]]:
        known_ns = 0
        claims: list[Claim] = []
        children = list(group.children.items())
        if any(child.used_ns is None for _, child in children):
            # New groups come last: they are measured by what the others leave.
            children.sort(key=lambda item: item[1].used_ns is None)
        for name, child in children:
            child_ns, left = self.visit(child, None if used_ns is None else used_ns - known_ns)
            known_ns += child_ns
            claims += left
            if child.usage is None and not child.processes and not child.children:
                del group.children[name]
        return known_ns, claims

    def _read_runners(self, group: Group, to_explain_ns: int) -> int | None:
        """Account the processes that have run lately; return what they used.

        None, with nothing done, where that does not explain the time: all must be read.
        """
        if group.runners is None or group.ended or self._first:
            return None
        runners = group.runners
        times = self._reader.read([group.keys[at] for at in runners])
        deltas = [after - group.times[at] for at, after in zip(runners, times, strict=True)]
        if to_explain_ns - sum(deltas) > LITTLE_NS or min(deltas, default=0) < 0:
            return None
        for at, after, delta in zip(runners, times, deltas, strict=True):
            group.times[at] = after
            group.deltas[at] = delta
            if delta:
                self._usage.cpu_ns[group.processes[at]] = delta
        return sum(deltas)

    def _read_processes(self, group: Group, claims: list[Claim]) -> int:
        """Account the processes directly in a group; return what they used."""
        claims += group.ended
        group.ended = []
        if not group.processes:
            return 0
        times = self._reader.read(group.keys)
        deltas = list(map(sub, times, group.times))
        if min(deltas) < 0:  # ended, or another process under the same pid
            alive = [delta >= 0 for delta in deltas]
            for process, before, lives in zip(group.processes, group.deltas, alive, strict=True):
                if not lives:
                    self._usage.ended.append(process)
                    claims.append((process, before))
            group.processes = list(compress(group.processes, alive))
            group.keys = list(compress(group.keys, alive))
            times = list(compress(times, alive))
            deltas = list(compress(deltas, alive))
        group.times = times
        if self._first:
            group.deltas = [0] * len(deltas)
            return 0
        group.deltas = deltas
        group.runners = [at for at, delta in enumerate(deltas) if delta]
        self._usage.cpu_ns.update(compress(zip(group.processes, deltas, strict=True), deltas))
        return sum(deltas)

    def _settle(
        self, group: Group, rest_ns: int, claims: Iterable[Claim], lost: Iterable[Claim]
    ) -> None:
        """Give a group's rest to those who ended, then to processes that nobody saw.

        Where no process can have been directly in it these were in a group below that is gone by
        now: those of `lost` who had processes there have it in equal parts.
        """
        rest_ns += group.credit_ns
        for payee, most_ns in claims:
            paid = min(most_ns, rest_ns)
            if paid <= 0:
                continue
            rest_ns -= paid
            if isinstance(payee, Process):
                self._usage.cpu_ns[payee] = self._usage.cpu_ns.get(payee, 0) + paid
            else:
                self._book(payee, paid)
        group.credit_ns = max(-MOST_CREDIT_NS, min(0, rest_ns))
        rest_ns = max(0, rest_ns)
        owners = dict.fromkeys(p.job_uid if isinstance(p, Process) else p for p, _ in lost)
        if not owners:
            group.exited_ns = rest_ns
            if rest_ns and self._blurred and group in self._blurred:
                self._book(None, rest_ns)
            elif rest_ns:
                self.rests[group] = rest_ns
                self._book(group.job_uid, rest_ns)
            return
        group.exited_ns = 0
        share_ns, over_ns = divmod(rest_ns, len(owners))
        for at, owner in enumerate(owners):
            self._book(owner, share_ns + (at < over_ns))

    def _book(self, owner: str | None, time_ns: int) -> None:
        """Count time of processes that nobody saw."""
        if not time_ns:
            return
        if owner is None or owner == UNDECIDED:
            self._usage.unseen_ns += time_ns
        else:
            self._usage.exited_ns[owner] = self._usage.exited_ns.get(owner, 0) + time_ns
