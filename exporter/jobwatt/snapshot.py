"""What a scrape sees: one immutable picture of the ledger and of the exporter's health."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from jobwatt.gpus import GpuHolder, GpuInfo, GpuState
from jobwatt.model import Device, IdlePower, RaplDomain
from jobwatt.records import Budget, JobRecord

__all__ = [
    "DeviceView",
    "Health",
    "HistoryPoint",
    "JobView",
    "NodeInfo",
    "SeriesLabels",
    "SeriesView",
    "Snapshot",
]


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device's accounts in microjoules, since JobWatt first ran on this node.

    `energy = Σ process series + other + retired + idle + unattributed`, exactly, and
    `energy = Σ jobs + job_retired + idle + unattributed`.

    Attributes:
        power_uw: mean over the last interval; None while it cannot be read.
        limit_uw: the enforced limit; None where unknown.
        idle_power: None while nothing is known.
        other_uj: of processes without a series, alive or gone.
        retired_uj: of process series that have been dropped.
        job_retired_uj: of jobs that have been dropped.
        resting: whether another source measures the device now.
        gpu_info: what a GPU is, as its driver last told.
        gpu: how a GPU was at the last look, None where it did not answer.
        holders: who holds a GPU.
        methods_uj: energy of a GPU's processes, by the method that divided it.
        parts_uj: active energy of a GPU's MIG instances, by UUID.
    """

    device: Device
    energy_uj: int
    idle_uj: int
    unattributed_uj: int
    other_uj: int
    retired_uj: int
    power_uw: int | None
    limit_uw: int | None
    idle_power: IdlePower | None
    wraps: int
    resets: int
    gap_ns: int
    job_retired_uj: int = 0
    resting: bool = False
    gpu_info: GpuInfo | None = None
    gpu: GpuState | None = None
    holders: tuple[GpuHolder, ...] = ()
    methods_uj: Mapping[str, int] = field(default_factory=dict)
    parts_uj: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeriesLabels:
    """What names a process's series; frozen at its admission."""

    pid: int
    comm: str
    user: str
    job_uid: str


class SeriesView(NamedTuple):
    """A process's series.

    A named tuple: hundreds are made at each sample, and a frozen dataclass costs three times that.

    Attributes:
        energy_uj: by device, in the order of `Snapshot.devices`; it may be shorter where devices
            came later: 0 for those.
        power_uw: its mean power over the last seconds.
        alive: whether the process lives; its series lingers a while after.
    """

    labels: SeriesLabels
    energy_uj: tuple[int, ...]
    power_uw: int
    alive: bool


class JobView(NamedTuple):
    """A job on this node; see `jobwatt.jobs.JobAccount`. Times are Unix seconds.

    A named tuple for the reason that `SeriesView` is one.

    Attributes:
        record: what is known of it, None while that may still change.
        account: in which account its energy counts, None while that is not known.
        budget: the one that holds.
        cpus: how many it holds here, None where none are reserved.
    """

    job_uid: str
    user: str
    energy_uj: tuple[int, ...]
    cpu_ns: int
    gpu_idle_uj: int
    gpus: int
    power_uw: int
    started: float
    measured_since: float
    ended: float | None
    record: JobRecord | None = None
    account: str | None = None
    budget: Budget | None = None
    cpus: float | None = None


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """Mean power of each device in µW over a few seconds that ended at `time` (Unix seconds)."""

    time: float
    power_uw: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What does not change while the exporter runs."""

    version: str
    cpus: int
    grid_zone: str
    cpu_time_method: str
    interval_seconds: float
    started: float


@dataclass(frozen=True, slots=True)
class Health:
    """How the exporter itself is doing.

    Attributes:
        source_up: by source, whether every device of it was read at the last sample.
        source_errors: failed reads, by (source, reason).
        series_dropped: what did not fit, by reason.
        budget_errors: budgets that were none, by where they stood.
        sample_seconds: time that the last sample took.
        checkpoint: Unix time of the last state known to be on disk, None before.
        cpu_seconds: CPU time of the exporter since its start.
        resident_bytes: its resident memory.
    """

    source_up: dict[str, bool]
    source_errors: dict[tuple[str, str], int]
    series_dropped: dict[str, int]
    samples_missed: int
    sample_seconds: float
    processes: int
    checkpoint: float | None
    cpu_seconds: float
    resident_bytes: int
    budget_errors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is shown, as of `time` (Unix seconds) and `monotonic_ns`.

    Attributes:
        accounts: energy of each account's jobs that have been dropped, by device; its other jobs
            are among `jobs`.
    """

    time: float
    monotonic_ns: int
    node: NodeInfo
    devices: tuple[DeviceView, ...]
    domains_uj: tuple[tuple[RaplDomain, int], ...]
    series: tuple[SeriesView, ...]
    health: Health
    history: tuple[HistoryPoint, ...]
    jobs: tuple[JobView, ...] = ()
    accounts: tuple[tuple[str, tuple[int, ...]], ...] = ()
