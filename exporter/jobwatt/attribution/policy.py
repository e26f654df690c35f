"""Whose energy it is: one device, one interval, in; a posting that closes, out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from jobwatt.attribution.apportion import apportion
from jobwatt.model import UNDECIDED, Process, Usage
from jobwatt.units import NS

__all__ = ["DramPolicy", "Posting", "Weights", "cpu_weights", "divide", "memory_weights"]


class DramPolicy(StrEnum):
    """What DRAM's active energy follows."""

    MEMORY = "memory"
    CPU = "cpu"


@dataclass(slots=True)
class Weights:
    """Claims on a device's active energy; only their proportions count.

    Attributes:
        processes: by process.
        others: of processes without a name (ended unseen, or too small to be listed), by job.
        nobody: of what no process is known for; it stays unattributed.
        methods: the claims of processes again, by how they were found (GPUs only).
        parts: all claims again, by the part of the device that they are on (MIG only).
    """

    processes: dict[Process, int]
    others: dict[str, int] = field(default_factory=dict)
    nobody: int = 0
    methods: dict[str, int] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)

    def add(self, more: Weights) -> None:
        """Add the claims of a further interval."""
        for process, weight in more.processes.items():
            self.processes[process] = self.processes.get(process, 0) + weight
        self.nobody += more.nobody
        for mine, theirs in (
            (self.others, more.others),
            (self.methods, more.methods),
            (self.parts, more.parts),
        ):
            for name, weight in theirs.items():
                mine[name] = mine.get(name, 0) + weight

    def let_go_of_undecided(self) -> None:
        """Make the claims of processes that have no owner by now nobody's."""
        for process in [p for p in self.processes if p.job_uid == UNDECIDED]:
            self.nobody += self.processes.pop(process)


@dataclass(frozen=True, slots=True)
class Posting:
    """One device's energy of one interval, divided.

    `energy = idle + unattributed + Σ others + Σ processes`, exactly; others are by job. `methods`
    and `parts` show again what processes, and the parts of the device, have got.
    """

    energy_uj: int
    idle_uj: int
    unattributed_uj: int
    others: Mapping[str, int]
    processes: Mapping[Process, int]
    methods: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict)


def divide(energy_uj: int, span_ns: int, idle_uw: int | None, weights: Weights) -> Posting:
    """Divide a device's energy: idle power × time first, the rest by the weights.

    Args:
        energy_uj: what the device used.
        span_ns: within this time.
        idle_uw: its idle power in µW; None while unknown, which counts no idle energy.
        weights: who was busy.
    """
    idle_uj = 0 if idle_uw is None else min(energy_uj, idle_uw * span_ns // NS)
    active_uj = energy_uj - idle_uj
    claims = [*weights.processes.values(), *weights.others.values(), weights.nobody]
    if active_uj == 0 or not any(claims):
        return Posting(energy_uj, idle_uj, active_uj, {}, {})
    *shares, nobody_uj = apportion(active_uj, claims)
    processes = dict(zip(weights.processes, shares, strict=False))
    others = dict(zip(weights.others, shares[len(processes) :], strict=True))
    methods = _again(active_uj - nobody_uj, weights.methods)
    parts = _again(active_uj, weights.parts)
    return Posting(energy_uj, idle_uj, nobody_uj, others, processes, methods, parts)


def _again(uj: int, claims: Mapping[str, int]) -> Mapping[str, int]:
    """Divide an amount that has been divided among processes by another view of the claims."""
    if not any(claims.values()):
        return {}
    return dict(zip(claims, apportion(uj, list(claims.values())), strict=True))


def cpu_weights(usage: Usage, package: int | None) -> Weights:
    """Claims on a CPU package (or on what hangs on it): the on-CPU time spent there.

    A process whose affinity names its package has spent its time there. The time of the others is
    divided among the packages by what each was busy beyond the processes bound to it. A package
    that the topology does not know gets the claims of all.
    """
    loose = _loose_time(usage)
    if package is None or package not in loose or len(loose) == 1:
        return Weights(dict(usage.cpu_ns), dict(usage.exited_ns), usage.unseen_ns)

    here = _portions(package, loose)
    processes: dict[Process, int] = {}
    for process, time_ns in usage.cpu_ns.items():
        if weight := here(time_ns, process.packages):
            processes[process] = weight
    exited = {job_uid: here(time_ns, None) for job_uid, time_ns in usage.exited_ns.items()}
    return Weights(processes, exited, here(usage.unseen_ns, None))


def memory_weights(usage: Usage, package: int | None, listed: Iterable[Process]) -> Weights:
    """Claims on DRAM: anonymous resident memory, on the packages that a process may use.

    Only `listed` processes are named; the memory of all others is one claim for each job, so that
    the work does not grow with the processes that sleep.
    """
    packages = dict.fromkeys(usage.capacity_ns, 1)
    here: Portion = _whole
    if package is not None and package in packages:
        here = _portions(package, packages)
    others: dict[str, int] = {}
    for (job_uid, allowed), memory in usage.memory_bytes.items():
        if weight := here(memory, allowed):
            others[job_uid] = others.get(job_uid, 0) + weight
    processes: dict[Process, int] = {}
    for process in listed:
        if process.memory_bytes and (weight := here(process.memory_bytes, process.packages)):
            processes[process] = weight
            others[process.job_uid] = max(0, others.get(process.job_uid, 0) - weight)
    return Weights(processes, others, others.pop(UNDECIDED, 0))


def _loose_time(usage: Usage) -> dict[int, int]:
    """Return the busy time of each package beyond the processes bound to it, each at least 1."""
    loose = dict(usage.busy_ns)
    if len(loose) > 1:
        for process, time_ns in usage.cpu_ns.items():
            if process.packages is not None and len(process.packages) == 1:
                (bound,) = process.packages
                if bound in loose:
                    loose[bound] -= time_ns
    return {package: max(1, time_ns) for package, time_ns in loose.items()}


Portion = Callable[[int, frozenset[int] | None], int]


def _whole(amount: int, allowed: frozenset[int] | None) -> int:
    del allowed
    return amount


def _portions(package: int, loose: Mapping[int, int]) -> Portion:
    """Return what tells how much of an amount falls on `package`, of the packages allowed."""
    mine, whole = loose[package], sum(loose.values())
    wholes: dict[frozenset[int] | None, int] = {None: whole}

    def portion(amount: int, allowed: frozenset[int] | None) -> int:
        whole = wholes.get(allowed)
        if whole is None:
            places = allowed if allowed is not None and package in allowed else ()
            whole = wholes[allowed] = sum(loose.get(key, 0) for key in places)
        return amount * mine // whole if whole else 0

    return portion
