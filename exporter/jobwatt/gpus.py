"""The words that JobWatt's parts share about GPUs: what one is, and who used it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["GpuHolder", "GpuInfo", "GpuInstance", "GpuMethod", "GpuState", "GpuUse"]


class GpuMethod(StrEnum):
    """How a GPU's active energy is divided among processes, best first."""

    EXCLUSIVE = "exclusive"
    SM_UTILIZATION = "sm_utilization"
    ENGINE_TIME = "engine_time"
    MEMORY = "memory"
    EQUAL = "equal"


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """What a GPU is; "" or None where the driver does not tell.

    Attributes:
        uuid: as the vendor's tools print it.
        index: in the driver's order.
        minor: number of its device file, `/dev/nvidia<minor>`.
        pci_bus_id: `0000:3b:00.0`.
        driver: version of the driver.
        architecture: `Hopper`.
        mig: whether it is divided into MIG instances.
    """

    uuid: str = ""
    index: int | None = None
    minor: int | None = None
    pci_bus_id: str = ""
    driver: str = ""
    architecture: str = ""
    mig: bool = False


@dataclass(frozen=True, slots=True)
class GpuUse:
    """Who used a GPU, or one MIG instance of it, since the look before.

    Pids are the host's.

    Attributes:
        residents: memory in bytes (None where unknown) of every process that held a context at
            the look before, or at this one.
        holders: the residents at this look.
        busy: how much each process worked, in a unit of the driver's; None where it cannot tell.
        strays: the same of processes that were not resident at either look: those that came and
            went in between, and false rows.
        measure: what `busy` and `strays` are.
        unknown: what `busy` does not cover of the time since the look before, in its unit.
    """

    residents: Mapping[int, int | None] = field(default_factory=dict)
    holders: frozenset[int] = frozenset()
    busy: Mapping[int, int] | None = None
    strays: Mapping[int, int] = field(default_factory=dict)
    measure: GpuMethod = GpuMethod.SM_UTILIZATION
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class GpuInstance:
    """A MIG instance: a part of a GPU with processes of its own.

    Attributes:
        uuid: `MIG-…`.
        name: its profile, `1g.10gb`.
        size: its streaming multiprocessors, or slices where these are not told: the same unit for
            all instances of a GPU.
        activity: how busy its multiprocessors were, 0 to 1; None where the driver does not tell.
        memory_used_bytes: None where unknown.
    """

    uuid: str
    name: str
    size: int
    use: GpuUse = GpuUse()
    activity: float | None = None
    memory_used_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class GpuState:
    """What a GPU showed in a look, beside its energy; None for what it does not tell.

    Attributes:
        span_ns: time since the look before.
        use: None where nothing is known; at the first look, whose `span_ns` is 0, it tells of now.
        foreign: its pids are of another PID namespace than the processes that JobWatt knows.
        instances: of a GPU that is divided by MIG; its own `use` then counts for nothing.
        throttled: by reason, whether it holds the clocks down now.
    """

    info: GpuInfo = GpuInfo()
    span_ns: int = 0
    use: GpuUse | None = None
    foreign: bool = False
    instances: tuple[GpuInstance, ...] = ()
    utilization_ratio: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    throttled: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GpuHolder:
    """Who holds a GPU: a job, and the pids of its contexts there (none: it only may use it)."""

    job_uid: str
    pids: tuple[int, ...]
