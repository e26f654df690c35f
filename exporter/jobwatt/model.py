"""The words that every part of JobWatt shares: devices, counters, readings, processes, usage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from jobwatt.gpus import GpuState
from jobwatt.records import JobRecord

__all__ = [
    "UNDECIDED",
    "Component",
    "Counter",
    "Device",
    "Fault",
    "IdleMethod",
    "IdlePower",
    "JobPresence",
    "Process",
    "RaplDomain",
    "Reading",
    "Report",
    "Row",
    "Rows",
    "Source",
    "Usage",
]


UNDECIDED = ""
"""Owner of a process whose job will be known in a moment: what it uses until then is nobody's."""

Row = tuple[Any, ...]
"""Numbers and texts that are kept together on disk."""

Rows = Mapping[str, Row]
"""All that is kept on disk, by a key of our own."""


class Component(StrEnum):
    """What kind of hardware spends the energy."""

    CPU = "cpu"
    DRAM = "dram"
    GPU = "gpu"


class Source(StrEnum):
    """Where a joule's figure comes from."""

    RAPL = "rapl"
    NVML_ENERGY = "nvml_energy"
    NVML_POWER = "nvml_power"
    HWMON = "hwmon"
    ESTIMATE = "estimate"
    SIMULATED = "simulated"


class IdleMethod(StrEnum):
    """How an idle power is known."""

    CONFIGURED = "configured"
    OBSERVED = "observed"
    FITTED = "fitted"


@dataclass(frozen=True, slots=True)
class IdlePower:
    """A device's idle power in microwatts and how it is known."""

    uw: int
    method: IdleMethod


@dataclass(frozen=True, slots=True)
class Device:
    """A part of the node whose energy is measured; devices never overlap.

    `name` is unique on the node; `package` is the CPU package that it is, or hangs on.
    """

    component: Component
    name: str
    source: Source
    package: int | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class RaplDomain:
    """A RAPL zone: `package`, `core`, `uncore`, `dram` or `psys`, and its package ("" for psys)."""

    domain: str
    package: str


@dataclass(frozen=True, slots=True)
class Counter:
    """One hardware energy counter, in microjoules.

    Attributes:
        key: unique on the node (a RAPL zone's folder name).
        device: the device that it measures; None where it is shown raw only (core, uncore, psys).
        domain: its RAPL domain, None for other sources.
        range_uj: the value after which it starts again at 0; None where it never wraps.
        limit_uw: the sustained power limit of its package, None where unknown.
        peak_uw: the highest limit of any window, None where unknown.
        lasting: the hardware goes on counting while no exporter runs.
    """

    key: str
    device: Device | None
    domain: RaplDomain | None = None
    range_uj: int | None = None
    limit_uw: int | None = None
    peak_uw: int | None = None
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """What a counter showed.

    Attributes:
        at_ns: monotonic time at which it was read; None: with the whole report.
        lost_ns: time since the reading before whose energy `value_uj` does not contain.
    """

    counter: Counter
    value_uj: int
    at_ns: int | None = None
    lost_ns: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """A counter (or a whole source, `what`) that could not be read.

    `reason` is a short word fit for a label; `message` says what happened and what mends it.
    """

    what: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """One look at a source.

    Attributes:
        source: what its joules are labelled with.
        at_ns: monotonic time of the look.
        readings: what its counters showed.
        faults: what could not be read.
        limits_uw: enforced power limits.
        gpus: what else each GPU showed.
        covers: the devices that were looked at, where not all of the source: a slow driver's come
            one after the other.
    """

    source: Source
    at_ns: int
    readings: tuple[Reading, ...] = ()
    faults: tuple[Fault, ...] = ()
    limits_uw: Mapping[Device, int] = field(default_factory=dict)
    gpus: Mapping[Device, GpuState] = field(default_factory=dict)
    covers: frozenset[Device] | None = None

    def has(self, device: Device) -> bool:
        """Whether the device was to be read in this look."""
        return device.source is self.source and (self.covers is None or device in self.covers)


@dataclass(slots=True, eq=False)
class Process:
    """A process: one object for its whole life, compared by identity.

    `(pid, start_ticks)` names it on the machine. The rest is what is known of it now: `comm`,
    `job_uid` and the others change after fork and exec.

    Attributes:
        pid: in the PID namespace of the exporter's procfs.
        start_ticks: start after boot, in clock ticks (field 22 of /proc/PID/stat).
        comm: the kernel's name of it, decoded.
        uid: the real user id, -1 while unknown.
        user: the name of that user, or its number; "" while unknown.
        job_uid: who owns it (design: metric contract), or `UNDECIDED`.
        packages: the CPU packages that its affinity allows; None for all.
        memory_bytes: its anonymous resident memory, of what others of its job share its part.
        environment: those of its variables that say something about its place.
        alive: False once it is known to have ended.
    """

    pid: int
    start_ticks: int
    comm: str = ""
    uid: int = -1
    user: str = ""
    job_uid: str = "system"
    packages: frozenset[int] | None = None
    memory_bytes: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    alive: bool = True


@dataclass(slots=True)
class JobPresence:
    """A job's live processes.

    Attributes:
        processes: how many.
        started: when the first that was seen started, Unix time.
        user: whose that was, or has become; of a scheduled job, the first that is not root's; ""
            while there is nobody's but that of a pod's sandbox.
        uid: that user's, -1 where it does not matter.
        first: that process, None while nobody's is there.
        record: what a process said of its job, None while none has.
        cpus: how many its cgroups leave it, None where that is all of the machine.
    """

    processes: int
    started: float
    user: str
    uid: int = -1
    record: JobRecord | None = None
    cpus: float | None = None
    first: Process | None = None


@dataclass(slots=True)
class Usage:
    """Who was busy since the previous look.

    Attributes:
        cpu_ns: on-CPU nanoseconds of every process that ran, `{process: ns > 0}`; also of
            processes that have ended since.
        exited_ns: on-CPU nanoseconds of processes that nobody saw live, `{job_uid: ns > 0}`.
        unseen_ns: on-CPU nanoseconds of the machine that belong to nobody known.
        memory_bytes: anonymous memory of all live processes, summed by job (that of undecided
            ones under `UNDECIDED`) and by the packages that their affinity allows (None: all).
        jobs: the jobs that have live processes.
        records: what is known for sure of jobs, whether they have processes or not.
        ended: processes that have ended since the previous look.
        busy_ns: CPU time of each package, `{package: ns}`; empty where it is not known.
        capacity_ns: CPUs × elapsed time of each package, with the same keys as `busy_ns`.
    """

    cpu_ns: dict[Process, int] = field(default_factory=dict)
    exited_ns: dict[str, int] = field(default_factory=dict)
    unseen_ns: int = 0
    memory_bytes: dict[tuple[str, frozenset[int] | None], int] = field(default_factory=dict)
    jobs: dict[str, JobPresence] = field(default_factory=dict)
    records: Mapping[str, JobRecord] = field(default_factory=dict)
    ended: list[Process] = field(default_factory=list)
    busy_ns: dict[int, int] = field(default_factory=dict)
    capacity_ns: dict[int, int] = field(default_factory=dict)
