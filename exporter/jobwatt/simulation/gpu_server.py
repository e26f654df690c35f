"""A server with eight GPUs and the jobs of five users.

The GPUs are as an H100 with 80 GB shows itself: 70 W idle, 632 W in a training, limited to 700 W.
Its jobs begin one after the other within the first half minute: until then one sees every GPU
idle, as after a boot.
"""

from __future__ import annotations

from jobwatt.simulation.blueprint import (
    DRAM_RANGE_UJ,
    GIB,
    MIB,
    Gpu,
    Hardware,
    Kernels,
    Lifetime,
    Package,
    PowerModel,
    Scenario,
    User,
    Workload,
)
from jobwatt.simulation.load import Daily, Phases, Steady
from jobwatt.simulation.recurring import (
    ALICE,
    BOB,
    CAROL,
    DAEMONS,
    DAVE,
    PROMETHEUS,
    ROOT,
    daemon,
    kernel_thread,
)

__all__ = ["GPU_SERVER"]

GPU_POWER = PowerModel(idle_watts=70.0, full_watts=640.0, limit_watts=700.0, range_uj=None)
GPU_MEMORY_BYTES = 85_520_809_984
GPU_BUSES = ("1b", "43", "52", "61", "9d", "c3", "d1", "df")

SERVER = User(10001, "10001")
"""The user of a container: the node has no name for it."""

POOL = (0, 1, 2, 3)
SHARED, SERVING, NOTEBOOK = 4, 5, 6
"""What the GPUs are for; the last one is free."""

PRETRAINING = "slurm:4711"
SWEEP = "slurm:4718"
TOKENIZING = "slurm:4720"
FINETUNING = "container:5f0c1e7a9b3d4826c1f7e09a4d6b8c2e3a5f7d910b2c4e6f8a1d3c5b7e9f0a24"
CHAT = "k8s:serving/ReplicaSet/chat-7d9c6b5f48:3b1f7c52-8e4a-4d06-9c1d-2f6a8b0e7d35"

# Each epoch loads its data, trains twice with a validation after each, and writes a checkpoint.
EPOCH_SECONDS = (20.0, 150.0, 20.0, 150.0, 20.0, 10.0)


def _epoch(*levels: float) -> Phases:
    """A load that follows the epochs of the large training."""
    return Phases(tuple(zip(EPOCH_SECONDS, levels, strict=True)))


GPU_SERVER = Scenario(
    name="gpu-server",
    description="two packages of 96 threads with DRAM, eight GPUs: a training on four, two jobs "
    "that share one, inference, a notebook that only holds one, one free",
    hardware=Hardware(
        cpu_model="Simulated server CPU",
        dram_model="Simulated DDR5",
        packages=(
            Package(
                96,
                PowerModel(idle_watts=108.0, full_watts=345.0, limit_watts=350.0),
                PowerModel(idle_watts=14.0, full_watts=62.0, range_uj=DRAM_RANGE_UJ),
            ),
            Package(
                96,
                PowerModel(idle_watts=104.0, full_watts=342.0, limit_watts=350.0),
                PowerModel(idle_watts=13.5, full_watts=62.0, range_uj=DRAM_RANGE_UJ),
            ),
        ),
        gpus=tuple(
            Gpu(
                "Simulated H100 80GB HBM3",
                "Hopper",
                GPU_MEMORY_BYTES,
                GPU_POWER,
                f"0000:{bus}:00.0",
            )
            for bus in GPU_BUSES
        ),
        gpu_driver="590.48.01",
    ),
    workloads=(
        *DAEMONS,
        kernel_thread("ksoftirqd/3", 0.004),
        daemon("sshd", "ssh.service", 6, 0.001),
        daemon("slurmd", "slurmd.service", 30, 0.002),
        daemon("kubelet", "kubelet.service", 95, 0.02),
        daemon("containerd", "containerd.service", 70, 0.01),
        daemon("nvidia-persiste", "nvidia-persistenced.service", 4, 0.0005),
        daemon("prometheus-node", "prometheus-node-exporter.service", 18, 0.004, PROMETHEUS),
        # A training on four GPUs: one rank on each, and what feeds them.
        Workload(
            "torchrun",
            PRETRAINING,
            ALICE,
            Steady(0.005),
            memory_bytes=450 * MIB,
            start_seconds=15,
            gpus=POOL,
        ),
        Workload(
            "python",
            PRETRAINING,
            ALICE,
            _epoch(0.5, 0.98, 0.9, 0.98, 0.9, 0.6),
            threads=1.5,
            memory_bytes=24 * GIB,
            count=4,
            start_seconds=17,
            gpus=POOL,
            kernels=Kernels(_epoch(0.05, 0.99, 0.7, 0.99, 0.7, 0.02), 71 * GIB, intensity=1.06),
        ),
        Workload(
            "pt_data_worker",
            PRETRAINING,
            ALICE,
            _epoch(0.95, 0.5, 0.7, 0.5, 0.7, 0.03),
            threads=2.0,
            memory_bytes=5 * GIB,
            count=16,
            package=0,
            traffic=0.7,
            start_seconds=19,
            gpus=POOL,
        ),
        # Two users take turns on one GPU: a fine-tuning with its evaluation, and a sweep.
        Workload(
            "python",
            FINETUNING,
            BOB,
            Steady(0.7),
            memory_bytes=18 * GIB,
            start_seconds=21,
            gpus=(SHARED,),
            kernels=Kernels(Steady(0.45), 34 * GIB),
        ),
        Workload(
            "python",
            FINETUNING,
            BOB,
            Steady(0.3),
            memory_bytes=7 * GIB,
            start_seconds=26,
            gpus=(SHARED,),
            kernels=Kernels(Steady(0.12), 14 * GIB),
        ),
        Workload(
            "python",
            SWEEP,
            DAVE,
            Steady(0.85),
            threads=2.0,
            memory_bytes=4 * GIB,
            count=2,
            package=1,
            lifetime=Lifetime((12, 40), (0.5, 4)),
            start_seconds=23,
            gpus=(SHARED,),
            kernels=Kernels(Steady(0.2), 9 * GIB),
        ),
        # A model that people talk to by day.
        Workload(
            "vllm",
            CHAT,
            SERVER,
            Daily(0.15, 0.8, 480, 100),
            threads=4.0,
            memory_bytes=20 * GIB,
            package=1,
            start_seconds=16,
            gpus=(SERVING,),
            kernels=Kernels(Daily(0.05, 0.9, 480, 100), 73 * GIB, intensity=0.85),
        ),
        # A notebook whose kernel has not let go of its GPU.
        Workload("jupyter-lab", "session:carol", CAROL, Steady(0.01), memory_bytes=240 * MIB),
        Workload(
            "ipykernel_launc",
            "session:carol",
            CAROL,
            Phases(((110, 0.003), (8, 0.6), (60, 0.003))),
            memory_bytes=6 * GIB,
            start_seconds=15,
            gpus=(NOTEBOOK,),
            kernels=Kernels(Steady(0), 11 * GIB),
        ),
        # Work that needs no GPU.
        Workload(
            "tokenize",
            TOKENIZING,
            CAROL,
            Phases(((210, 0.95), (150, 0.02)), ahead_seconds=330),
            threads=8.0,
            memory_bytes=9 * GIB,
            count=8,
            traffic=0.95,
            start_seconds=12,
        ),
        Workload("tmux: server", "session:dave", DAVE, Steady(0.002), memory_bytes=8 * MIB),
        Workload(
            "cicc",
            "session:dave",
            DAVE,
            Phases(((120, 0.0), (50, 0.98)), ahead_seconds=90),
            memory_bytes=450 * MIB,
            count=4,
            lifetime=Lifetime((0.3, 6), (0.1, 0.6)),
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
