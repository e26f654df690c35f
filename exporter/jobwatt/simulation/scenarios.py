"""The made-up nodes by name; those without GPUs, and without a scheduler, are here.

The figures are typical, not measured: package and DRAM power as in data sheets of 32-core server
and four-core laptop processors, RAPL ranges as their energy units make them.
"""

from __future__ import annotations

from jobwatt.simulation.blueprint import (
    DRAM_RANGE_UJ,
    GIB,
    MIB,
    Hardware,
    Lifetime,
    Package,
    PowerModel,
    Scenario,
    User,
    Workload,
)
from jobwatt.simulation.gpu_server import GPU_SERVER
from jobwatt.simulation.k8s_node import K8S_NODE
from jobwatt.simulation.load import Daily, Phases, Steady
from jobwatt.simulation.recurring import (
    ALICE,
    BOB,
    CAROL,
    DAEMONS,
    DAVE,
    POSTGRES,
    PROMETHEUS,
    ROOT,
    WWW_DATA,
    daemon,
    kernel_thread,
)
from jobwatt.simulation.slurm_node import SLURM_NODE

__all__ = [
    "LAPTOP",
    "ROOT",
    "SCENARIOS",
    "TWO_SOCKET_SERVER",
    "Hardware",
    "Lifetime",
    "Package",
    "PowerModel",
    "Scenario",
    "User",
    "Workload",
]

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
        daemon("NetworkManager", "NetworkManager.service", 12),
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
        kernel_thread("ksoftirqd/3", 0.004),
        daemon("sshd", "ssh.service", 6, 0.001),
        daemon("prometheus-node", "prometheus-node-exporter.service", 18, 0.004, PROMETHEUS),
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

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (LAPTOP, TWO_SOCKET_SERVER, GPU_SERVER, SLURM_NODE, K8S_NODE)
}
"""All scenarios by name."""
