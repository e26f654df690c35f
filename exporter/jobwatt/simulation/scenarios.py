"""The made-up nodes, as data: hardware, and what runs on it.

The figures are typical, not measured: package and DRAM power as in data sheets of 32-core server
and four-core laptop processors, RAPL ranges as their energy units make them.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobwatt.simulation.load import Daily, Load, Phases, Steady

__all__ = [
    "SCENARIOS",
    "Hardware",
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


# --- what a scenario is made of -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PowerModel:
    """Power of one part: linear between idle and full load, never above its limit.

    Attributes:
        idle_watts, full_watts: the two ends, without noise.
        limit_watts: the sustained limit that the hardware enforces; None where it has none.
        range_uj: the value after which its counter starts again at 0.
    """

    idle_watts: float
    full_watts: float
    limit_watts: float | None = None
    range_uj: int = RANGE_UJ


@dataclass(frozen=True, slots=True)
class Package:
    """A CPU package, with the memory beside it where that is measured."""

    threads: int
    power: PowerModel
    dram: PowerModel | None = None


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the node is built of."""

    cpu_model: str
    dram_model: str
    packages: tuple[Package, ...]

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
class Lifetime:
    """Processes that come and go.

    Attributes:
        seconds: the shortest and longest life.
        pause_seconds: the shortest and longest time until a successor, with a pid of its own.
    """

    seconds: tuple[float, float]
    pause_seconds: tuple[float, float]


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


@dataclass(frozen=True, slots=True)
class Scenario:
    """A node and its work. The first workload is the node's first process."""

    name: str
    description: str
    hardware: Hardware
    workloads: tuple[Workload, ...]


# --- who and what recurs ------------------------------------------------------------------------

ROOT = User(0, "root")
MESSAGEBUS = User(101, "messagebus")
POSTGRES = User(113, "postgres")
PROMETHEUS = User(114, "prometheus")
WWW_DATA = User(33, "www-data")
ALICE = User(1000, "alice")
BOB = User(1001, "bob")
CAROL = User(1002, "carol")
DAVE = User(1003, "dave")


def _daemon(
    comm: str, unit: str, memory_mib: int, share: float = 0.003, user: User = ROOT
) -> Workload:
    """A service that mostly sleeps."""
    return Workload(comm, f"systemd:{unit}", user, Steady(share), memory_bytes=memory_mib * MIB)


def _kernel_thread(comm: str, share: float) -> Workload:
    return Workload(comm, "system", ROOT, Steady(share))


DAEMONS = (
    _daemon("systemd", "init.scope", 9),
    _kernel_thread("kworker/u8:2", 0.01),
    _kernel_thread("kswapd0", 0.001),
    _daemon("systemd-journal", "systemd-journald.service", 24, 0.01),
    _daemon("dbus-daemon", "dbus.service", 3, user=MESSAGEBUS),
    _daemon("cron", "cron.service", 1, 0.0005),
)


# --- scenarios ----------------------------------------------------------------------------------

LAPTOP = Scenario(
    name="laptop",
    description="one package of 8 threads: a desktop, a browser, builds, short trainings",
    hardware=Hardware(
        cpu_model="Simulated laptop CPU",
        dram_model="",
        packages=(Package(8, PowerModel(idle_watts=2.5, full_watts=26.0, limit_watts=28.0)),),
    ),
    workloads=(
        *DAEMONS,
        _daemon("NetworkManager", "NetworkManager.service", 12),
        Workload("gnome-shell", "session:alice", ALICE, Daily(0.02, 0.12), 1.0, 320 * MIB),
        Workload("pipewire", "session:alice", ALICE, Steady(0.01), 1.0, 12 * MIB),
        Workload("firefox", "session:alice", ALICE, Daily(0.01, 0.25, 420), 2.0, 700 * MIB),
        Workload(
            "Isolated Web Co",
            "session:alice",
            ALICE,
            Phases(((50, 0.01), (12, 0.5), (40, 0.03), (8, 0.8)), ahead_seconds=30),
            memory_bytes=260 * MIB,
            count=3,
        ),
        Workload("code", "session:alice", ALICE, Daily(0.01, 0.2, 300), 1.5, 450 * MIB, count=2),
        Workload(
            "python",
            "systemd:train-mnist.service",
            ALICE,
            Phases(((8, 0.25), (40, 0.95), (12, 0.5))),
            threads=5.0,
            memory_bytes=1800 * MIB,
            intensity=1.15,
            traffic=0.6,
            lifetime=Lifetime((70, 110), (50, 90)),
        ),
        Workload(
            "cc1plus",
            "session:alice",
            ALICE,
            Phases(((150, 0.0), (40, 0.95)), ahead_seconds=120),
            memory_bytes=180 * MIB,
            count=3,
            lifetime=Lifetime((0.3, 4), (0.1, 0.8)),
        ),
    ),
)

TWO_SOCKET_SERVER = Scenario(
    name="two-socket-server",
    description="two packages of 64 threads with DRAM: trainings, a solver, a database, four users",
    hardware=Hardware(
        cpu_model="Simulated server CPU",
        dram_model="Simulated DDR4",
        packages=(
            Package(
                64,
                PowerModel(idle_watts=72.0, full_watts=245.0, limit_watts=250.0),
                PowerModel(idle_watts=9.0, full_watts=38.0, range_uj=DRAM_RANGE_UJ),
            ),
            Package(
                64,
                PowerModel(idle_watts=69.0, full_watts=243.0, limit_watts=250.0),
                PowerModel(idle_watts=8.5, full_watts=38.0, range_uj=DRAM_RANGE_UJ),
            ),
        ),
    ),
    workloads=(
        *DAEMONS,
        _kernel_thread("ksoftirqd/3", 0.004),
        _daemon("sshd", "ssh.service", 6, 0.001),
        _daemon("prometheus-node", "prometheus-node-exporter.service", 18, 0.004, PROMETHEUS),
        Workload(
            "nginx",
            "systemd:nginx.service",
            WWW_DATA,
            Daily(0.05, 0.7, 480, 60),
            memory_bytes=40 * MIB,
            count=3,
        ),
        Workload(
            "postgres",
            "systemd:postgresql.service",
            POSTGRES,
            Daily(0.05, 0.8, 480, 75),
            threads=1.5,
            memory_bytes=2 * GIB,
            count=4,
            traffic=0.8,
        ),
        # Two trainings, each on a socket of its own, with the processes that feed them.
        Workload(
            "python",
            "systemd:training.service",
            ALICE,
            Phases(((25, 0.1), (150, 0.95), (20, 0.45), (150, 0.95), (20, 0.45), (10, 0.05))),
            threads=30.0,
            memory_bytes=52 * GIB,
            package=0,
            intensity=1.2,
            traffic=0.75,
        ),
        Workload(
            "pt_data_worker",
            "systemd:training.service",
            ALICE,
            Phases(((25, 0.9), (150, 0.5), (20, 0.7), (150, 0.5), (20, 0.7), (10, 0.05))),
            memory_bytes=3 * GIB,
            count=6,
            package=0,
            traffic=0.6,
        ),
        Workload(
            "python",
            "systemd:finetune.service",
            BOB,
            Phases(((15, 0.15), (90, 0.9), (15, 0.4))),
            threads=24.0,
            memory_bytes=28 * GIB,
            package=1,
            intensity=1.15,
            traffic=0.7,
            lifetime=Lifetime((240, 420), (60, 150)),
        ),
        # A solver of eight ranks that goes wherever there is room.
        Workload(
            "simpleFoam",
            "systemd:airfoil.service",
            CAROL,
            Phases(((200, 0.97), (12, 0.2), (200, 0.97), (140, 0.02)), ahead_seconds=90),
            threads=2.0,
            memory_bytes=5 * GIB,
            count=8,
            intensity=1.05,
            traffic=0.95,
        ),
        # People.
        Workload("jupyter-lab", "session:carol", CAROL, Steady(0.01), memory_bytes=240 * MIB),
        Workload(
            "ipykernel_launc",
            "session:carol",
            CAROL,
            Phases(((70, 0.01), (25, 0.8), (40, 0.02), (9, 0.95))),
            threads=8.0,
            memory_bytes=9 * GIB,
            traffic=0.6,
        ),
        Workload("tmux: server", "session:dave", DAVE, Steady(0.002), memory_bytes=8 * MIB),
        Workload(
            "cc1plus",
            "session:dave",
            DAVE,
            Phases(((110, 0.0), (60, 0.98)), ahead_seconds=90),
            memory_bytes=350 * MIB,
            count=6,
            lifetime=Lifetime((0.3, 5), (0.1, 0.6)),
        ),
        Workload(
            "restic",
            "systemd:backup.service",
            ROOT,
            Steady(0.8),
            threads=4.0,
            memory_bytes=600 * MIB,
            traffic=0.5,
            lifetime=Lifetime((40, 70), (200, 260)),
        ),
    ),
)

SCENARIOS: dict[str, Scenario] = {s.name: s for s in (LAPTOP, TWO_SOCKET_SERVER)}
"""All scenarios by name."""
