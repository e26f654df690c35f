"""What a fake machine's GPUs are, and how what they do changes over time."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

NOT_SUPPORTED = 3


class Kind(enum.IntFlag):
    """The lists of running processes that a process stands in."""

    COMPUTE = 1
    GRAPHICS = 2
    MPS = 4


class Scope(enum.IntEnum):
    """What a power reading covers."""

    GPU = 0
    MODULE = 1
    MEMORY = 2


class Architecture(enum.IntEnum):
    """What nvmlDeviceGetArchitecture returns."""

    PASCAL = 4
    VOLTA = 5
    TURING = 6
    AMPERE = 7
    ADA = 8
    HOPPER = 9
    BLACKWELL = 10


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process as it starts.

    Attributes:
        memory_bytes: None: the driver cannot tell.
        sm, memory: utilisation in %.
        instance: UUID of the MIG instance that it runs in.
    """

    pid: int
    kind: Kind = Kind.COMPUTE
    memory_bytes: int | None = 512 << 20
    sm: int = 0
    memory: int = 0
    instance: str | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """One MIG device: a compute instance in a GPU instance.

    Attributes:
        profile: what its name ends with.
        used_bytes: memory that is in use without any process.
    """

    uuid: str
    gpu_instance: int
    compute_instance: int = 0
    profile: str = "1g.10gb"
    slices: int = 1
    compute_slices: int = 1
    multiprocessors: int = 16
    memory_bytes: int = 10 << 30
    used_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Field:
    """How nvmlDeviceGetFieldValues answers differently for one field.

    Attributes:
        scope: None: every scope.
        value_type: None: the usual one.
    """

    id: int
    scope: Scope | None = None
    result: int = 0
    value_type: int | None = None


UNAVERAGED = Field(185, result=NOT_SUPPORTED)
"""A driver or a GPU without the reading of average power."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A row of nvmlDeviceGetProcessUtilization that no process has caused."""

    time_us: int
    pid: int
    sm: int
    memory: int = 0
    encoder: int = 0
    decoder: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU as it is when the scenario begins.

    Attributes:
        bus_id: domain:bus:device.function, hexadecimal.
        pci_id, pci_subsystem: device and vendor, as in nvmlPciInfo_t.
        power_mw, module_power_mw, memory_power_mw: None: no such reading.
        energy_mj: what the energy counter has counted before.
        refresh_ms: how often the energy counter moves; 0: at every reading.
        averaging_ms: over how long nvmlDeviceGetPowerUsage averages; 0: it does not.
        min_limit_mw, max_limit_mw, default_limit_mw, enforced_limit_mw: None: the limit itself.
        clocks_mhz, max_clocks_mhz: graphics, SM, memory, video.
        utilization: GPU and memory in %; None: what the processes' sum up to.
        sample_period_ns: of the processes' utilisation.
        sample_size_exact: the size call tells how many samples there are, not the ring's size; and
            if there are none it succeeds.
        mig_capable: nvmlDeviceGetMigMode is supported.
        instances: the MIG devices by slot, None for a hole; None: MIG is off.
        unsupported: patterns of functions that return NOT_SUPPORTED for this GPU.
    """

    uuid: str
    name: str = "NVIDIA H100 80GB HBM3"
    minor: int | None = None
    architecture: Architecture = Architecture.HOPPER
    compute_capability: tuple[int, int] = (9, 0)
    bus_id: str = "00000000:00:09.0"
    pci_id: int = 0x233010DE
    pci_subsystem: int = 0x16C110DE
    power_mw: int = 70_000
    module_power_mw: int | None = None
    memory_power_mw: int | None = None
    energy_mj: int = 0
    refresh_ms: int = 20
    averaging_ms: int = 1000
    limit_mw: int = 700_000
    min_limit_mw: int | None = None
    max_limit_mw: int | None = None
    default_limit_mw: int | None = None
    enforced_limit_mw: int | None = None
    memory_bytes: int = 80 << 30
    reserved_bytes: int = 0
    used_bytes: int = 0
    temperature: int = 40
    memory_temperature: int | None = None
    event_reasons: int = 0
    event_reasons_supported: int = 511
    compute_mode: int = 0
    persistence: bool = True
    pstate: int = 0
    clocks_mhz: tuple[int, int, int, int] = (1980, 1980, 2619, 1545)
    max_clocks_mhz: tuple[int, int, int, int] = (1980, 1980, 2619, 1545)
    utilization: tuple[int, int] | None = None
    sample_period_ns: int = 166_666_667
    sample_size_exact: bool = False
    mig_capable: bool = True
    mig_slots: int = 7
    instances: tuple[Instance | None, ...] | None = None
    gpm: bool = True
    unsupported: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    processes: tuple[GpuProcess, ...] = ()


WITHOUT_ENERGY = ("nvmlDeviceGetTotalEnergyConsumption",)
"""`unsupported` of a GPU older than Volta."""

WITHOUT_SAMPLES = ("nvmlDeviceGetProcessUtilization",)
"""`unsupported` of a GPU that tells no process's utilisation."""


class Trace:
    """A value that is piecewise constant over time, and 0 before its first point."""

    def __init__(self, points: Iterable[tuple[int, int]] = ()) -> None:
        self.points = list(points)

    def set(self, ns: int, value: int) -> None:
        """Hold this value from a moment on."""
        if self.points and self.points[-1][0] == ns:
            self.points.pop()
        self.points.append((ns, value))

    def at(self, ns: int) -> int:
        """The value at a moment."""
        return next((value for start, value in reversed(self.points) if start <= ns), 0)

    def integral(self, start: int, end: int) -> int:
        """The value times nanoseconds, between two moments."""
        ends = [moment for moment, _ in self.points[1:]] + [end]
        return sum(
            value * max(0, min(stop, end) - max(begin, start))
            for (begin, value), stop in zip(self.points, ends, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Truth:
    """Where a GPU's energy really went, in µJ; the parts add up to the whole within rounding.

    Attributes:
        total: all of it.
        idle: what it takes when idle, at most all that it took.
        nobody: above idle while no process was busy.
        by_pid: above idle, shared by SM utilisation.
    """

    total: int
    idle: int
    nobody: int
    by_pid: dict[int, int]
