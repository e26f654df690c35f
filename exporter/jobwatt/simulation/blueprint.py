"""What a made-up node is made of, as data: hardware, people, and what they run."""

from __future__ import annotations

from dataclasses import dataclass

from jobwatt.records import NO_ACCOUNT, Budget
from jobwatt.simulation.load import Load

__all__ = [
    "DRAM_RANGE_UJ",
    "GIB",
    "MIB",
    "Gpu",
    "Hardware",
    "Job",
    "Kernels",
    "Lifetime",
    "Package",
    "PowerModel",
    "Scenario",
    "User",
    "Workload",
]

MIB = 1 << 20
GIB = 1 << 30

RANGE_UJ = 262_143_328_850
"""Where counters with an energy unit of 2^-14 J start again."""

DRAM_RANGE_UJ = 65_712_999_613
"""Where the DRAM counters of servers start again."""


@dataclass(frozen=True, slots=True)
class PowerModel:
    """Power of one part: linear between idle and full load, never above its limit.

    Attributes:
        idle_watts, full_watts: the two ends, without noise.
        limit_watts: the sustained limit that the hardware enforces; None where it has none.
        range_uj: the value after which its counter starts again at 0; None where it never does.
    """

    idle_watts: float
    full_watts: float
    limit_watts: float | None = None
    range_uj: int | None = RANGE_UJ


@dataclass(frozen=True, slots=True)
class Package:
    """A CPU package, with the memory beside it where that is measured."""

    threads: int
    power: PowerModel
    dram: PowerModel | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU; its number is its place in the hardware, its UUID comes from the seed."""

    model: str
    architecture: str
    memory_bytes: int
    power: PowerModel
    pci_bus_id: str


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the node is built of."""

    cpu_model: str
    dram_model: str
    packages: tuple[Package, ...]
    gpus: tuple[Gpu, ...] = ()
    gpu_driver: str = ""

    @property
    def threads(self) -> int:
        """All hardware threads of the node."""
        return sum(package.threads for package in self.packages)


@dataclass(frozen=True, slots=True)
class User:
    """An account on the node."""

    uid: int
    name: str


@dataclass(frozen=True, slots=True)
class Job:
    """What a scheduler runs on the node, once or again and again, each time as a job of its own.

    Attributes:
        uid: its job_uid; `{id}` stands for the number of a run, `{uuid}` for its UUID.
        user: whose it is.
        name: what its user calls it, with `{id}` as above.
        account, queue, k8s_namespace: as its scheduler has them.
        budget: what each run may use.
        cpus: how many it is given, None where none are reserved.
        gpus: the GPUs that it is given, by number.
        begins_seconds: the age of the node at which it is first run.
        lasts_seconds: how long a run takes; None: as long as the node.
        pause_seconds: how long after a run the next begins; None: there is none.
        limit_seconds: how long its scheduler lets a run go on; None: for ever.
        first_id, ids_apart: the numbers of its runs.
        tells_times: whether its scheduler tells when runs begin and end, and whose they are, as a
            Prolog and an Epilog do; else its processes do.
    """

    uid: str
    user: User
    name: str = ""
    account: str = NO_ACCOUNT
    queue: str = ""
    k8s_namespace: str = ""
    budget: Budget | None = None
    cpus: float | None = None
    gpus: tuple[int, ...] = ()
    begins_seconds: float = 0.0
    lasts_seconds: float | None = None
    pause_seconds: float | None = None
    limit_seconds: float | None = None
    first_id: int = 1
    ids_apart: int = 1
    tells_times: bool = True


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Processes that come and go.

    Attributes:
        seconds: the shortest and longest life.
        pause_seconds: the shortest and longest time until a successor, with a pid of its own.
    """

    seconds: tuple[float, float]
    pause_seconds: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Kernels:
    """What a process computes on a GPU, for as long as it lives.

    Attributes:
        load: the part of the time in which a kernel of it would run if it had the GPU to itself.
        memory_bytes: what its context holds of the GPU's memory, busy or not.
        intensity: power drawn by a busy second, beside the usual 1 (tensor cores draw more).
    """

    load: Load
    memory_bytes: int
    intensity: float = 1.0


@dataclass(frozen=True, slots=True)
class Workload:
    """Processes of one kind.

    Attributes:
        comm: their kernel name.
        job_uid: their owner (design: metric contract).
        user: whose they are.
        load: how busy each is over time; one with a lifetime is born only while that is above 0.
        threads: CPUs that one uses at level 1.
        memory_bytes: anonymous memory of one, once it has settled.
        count: how many there are.
        package: the package that their affinity allows; None for all.
        intensity: power drawn by a CPU second, beside the usual 1 (vector units draw more).
        traffic: how much of a CPU's share of the memory bandwidth it uses, 0 to 1.
        lifetime: None for what lives as long as the node.
        start_seconds: the age of the node, or of the job's run, at which the first are born.
        gpus: the GPUs that they are given, by number: their environment names them.
        kernels: what they compute there, the first on the first of `gpus`, and so on in turn; None
            for what has no context on a GPU.
        job: the job whose processes these are: they live only while it runs. None for what belongs
            to nothing that ends.
    """

    comm: str
    job_uid: str
    user: User
    load: Load
    threads: float = 1.0
    memory_bytes: int = 0
    count: int = 1
    package: int | None = None
    intensity: float = 1.0
    traffic: float = 0.4
    lifetime: Lifetime | None = None
    start_seconds: float = 0.0
    gpus: tuple[int, ...] = ()
    kernels: Kernels | None = None
    job: Job | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A node and its work. The first workload is the node's first process.

    Attributes:
        past_seconds: how old the node is when its exporter first answers.
    """

    name: str
    description: str
    hardware: Hardware
    workloads: tuple[Workload, ...]
    past_seconds: float = 0.0
