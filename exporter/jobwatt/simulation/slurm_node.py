"""A node of a Slurm cluster that many people share: eight GPUs, and jobs that come and go.

Its exporter has been there since the node came up a quarter of an hour ago, so that one sees at
once what takes a while to come about: jobs near their budgets, one beyond, some that have ended.
"""

from __future__ import annotations

from collections.abc import Iterator

from jobwatt.records import Budget, BudgetOrigin
from jobwatt.simulation.blueprint import (
    GIB,
    MIB,
    Job,
    Kernels,
    Lifetime,
    Scenario,
    User,
    Workload,
)
from jobwatt.simulation.gpu_server import GPU_SERVER
from jobwatt.simulation.load import Phases, Steady
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
    of_job,
)

__all__ = ["ARRAY", "CHECK", "NOTEBOOK", "OVER_BUDGET", "PRETRAINING", "REQUEUED", "SLURM_NODE"]

ERIN = User(1004, "erin")
BUILDS = User(1005, "ci-builds")

WH, HOUR, DAY = 3600.0, 3600.0, 86400.0


def _asked(watt_hours: float, origin: BudgetOrigin = BudgetOrigin.COMMENT) -> Budget:
    return Budget(watt_hours * WH, origin)


PRETRAINING = Job(
    "slurm:8140227",
    ALICE,
    "llama3-8b-pretrain",
    "nlp",
    "gpu-large",
    budget=_asked(620),
    cpus=64,
    gpus=(0, 1, 2, 3),
    begins_seconds=30,
    limit_seconds=DAY,
)
OVER_BUDGET = Job(
    "slurm:8140303",
    BOB,
    "sdxl-lora",
    "vision",
    "gpu",
    budget=_asked(90, BudgetOrigin.OPERATOR),
    cpus=16,
    gpus=(4,),
    begins_seconds=42,
    limit_seconds=8 * HOUR,
)
PREEMPTED = Job(
    "slurm:8139874",
    DAVE,
    "protein-fold",
    "bio",
    "preempt",
    cpus=12,
    gpus=(5,),
    begins_seconds=36,
    lasts_seconds=520,
    limit_seconds=12 * HOUR,
)
REQUEUED = Job(
    "slurm:8139874:r1",
    DAVE,
    "protein-fold",
    "bio",
    "preempt",
    cpus=12,
    gpus=(5,),
    begins_seconds=590,
    limit_seconds=12 * HOUR,
)
NOTEBOOK = Job(
    "slurm:8140119",
    CAROL,
    "jupyter",
    "vision",
    "interactive",
    cpus=8,
    gpus=(6,),
    begins_seconds=33,
    limit_seconds=4 * HOUR,
)
EVALUATION = Job(
    "slurm:{id}",
    ALICE,
    "eval-mmlu",
    "nlp",
    "gpu",
    budget=_asked(25, BudgetOrigin.ENVIRONMENT),
    cpus=8,
    gpus=(7,),
    begins_seconds=60,
    lasts_seconds=160,
    pause_seconds=25,
    limit_seconds=HOUR,
    first_id=8140310,
    ids_apart=100,
)
SOLVER = Job(
    "slurm:8140288",
    ERIN,
    "cfd-wing-les",
    "aero",
    "cpu",
    budget=_asked(120),
    cpus=48,
    begins_seconds=48,
    limit_seconds=36 * HOUR,
)
ARRAY = tuple(
    Job(
        "slurm:{id}",
        DAVE,
        "hparam-sweep",
        "bio",
        "cpu",
        budget=_asked(4, BudgetOrigin.ENVIRONMENT),
        cpus=6,
        begins_seconds=55.0 + 2 * place,
        lasts_seconds=210.0 + 16.5 * place,
        pause_seconds=3,
        limit_seconds=HOUR,
        first_id=8150001 + place,
        ids_apart=4,
    )
    for place in range(4)
)
"""The elements of one array, of which four run at a time; each is a job of its own."""

CHECK = Job(
    "slurm:{id}",
    BUILDS,
    "smoke-test",
    "infra",
    "short",
    cpus=2,
    begins_seconds=80.25,
    lasts_seconds=0.5,
    pause_seconds=74.5,
    limit_seconds=300,
    first_id=8160007,
    ids_apart=13,
)
"""Over before anybody looks: its processes are never seen live."""


def _step(job: Job) -> Workload:
    """What starts a job's processes."""
    return Workload("slurmstepd", job.uid, ROOT, Steady(0.001), memory_bytes=6 * MIB, job=job)


# Each epoch loads its data, trains twice with a validation after each, and writes a checkpoint.
EPOCH_SECONDS = (20.0, 150.0, 20.0, 150.0, 20.0, 10.0)


def _epoch(*levels: float) -> Phases:
    return Phases(tuple(zip(EPOCH_SECONDS, levels, strict=True)))


def _workloads() -> Iterator[Workload]:
    yield from DAEMONS
    yield kernel_thread("ksoftirqd/3", 0.004)
    yield daemon("sshd", "ssh.service", 6, 0.001)
    yield daemon("slurmd", "slurmd.service", 30, 0.004)
    yield daemon("munged", "munge.service", 5, 0.001)
    yield daemon("nvidia-persiste", "nvidia-persistenced.service", 4, 0.0005)
    yield daemon("prometheus-node", "prometheus-node-exporter.service", 18, 0.004, PROMETHEUS)
    yield Workload("tmux: server", "session:erin", ERIN, Steady(0.002), memory_bytes=8 * MIB)
    yield Workload(
        "vim", "session:erin", ERIN, Phases(((40, 0.002), (5, 0.05))), memory_bytes=20 * MIB
    )
    lasting = (PRETRAINING, OVER_BUDGET, PREEMPTED, REQUEUED, NOTEBOOK, EVALUATION, SOLVER, *ARRAY)
    yield from map(_step, lasting)
    # A training on four GPUs: one rank on each, and what feeds them.
    yield of_job(PRETRAINING)("torchrun", load=Steady(0.005), memory_bytes=450 * MIB)
    yield of_job(PRETRAINING)(
        "python",
        load=_epoch(0.5, 0.98, 0.9, 0.98, 0.9, 0.6),
        threads=1.5,
        memory_bytes=24 * GIB,
        count=4,
        start_seconds=2,
        kernels=Kernels(_epoch(0.05, 0.99, 0.7, 0.99, 0.7, 0.02), 71 * GIB, intensity=1.06),
    )
    yield of_job(PRETRAINING)(
        "pt_data_worker",
        load=_epoch(0.95, 0.5, 0.7, 0.5, 0.7, 0.03),
        threads=2.5,
        memory_bytes=5 * GIB,
        count=8,
        package=0,
        traffic=0.7,
        start_seconds=4,
    )
    yield of_job(OVER_BUDGET)(
        "accelerate",
        load=Phases(((70, 0.9), (8, 0.4))),
        threads=4.0,
        memory_bytes=14 * GIB,
        start_seconds=1,
        kernels=Kernels(Phases(((70, 0.93), (8, 0.1))), 38 * GIB),
    )
    for job in (PREEMPTED, REQUEUED):
        yield of_job(job)(
            "python",
            load=Phases(((110, 0.6), (40, 0.95))),
            threads=6.0,
            memory_bytes=22 * GIB,
            package=1,
            traffic=0.6,
            start_seconds=2,
            kernels=Kernels(Phases(((110, 0.82), (40, 0.3))), 36 * GIB, intensity=0.92),
        )
    # A notebook whose kernel has not let go of its GPU.
    yield of_job(NOTEBOOK)("jupyter-lab", load=Steady(0.01), memory_bytes=240 * MIB)
    yield of_job(NOTEBOOK)(
        "ipykernel_launc",
        load=Phases(((150, 0.003), (6, 0.5), (90, 0.003))),
        memory_bytes=6 * GIB,
        start_seconds=3,
        kernels=Kernels(Steady(0), 11 * GIB),
    )
    yield of_job(EVALUATION)(
        "lm_eval",
        load=Steady(0.8),
        threads=3.0,
        memory_bytes=18 * GIB,
        start_seconds=2,
        kernels=Kernels(Phases(((12, 0.1), (60, 0.75))), 34 * GIB),
    )
    # A solver of sixteen ranks.
    yield of_job(SOLVER)("srun", load=Steady(0.002), memory_bytes=12 * MIB)
    yield of_job(SOLVER)(
        "pimpleFoam",
        load=Phases(((200, 0.97), (12, 0.25))),
        threads=2.5,
        memory_bytes=5 * GIB,
        count=16,
        intensity=1.05,
        traffic=0.9,
    )
    for job in ARRAY:
        yield of_job(job)(
            "python",
            load=Phases(((8, 0.3), (45, 0.95))),
            threads=5.0,
            memory_bytes=6 * GIB,
            start_seconds=0.5,
        )
        # Each trial compiles its kernels: most of these live between two looks.
        yield of_job(job)(
            "cc1",
            load=Phases(((12, 0.98), (60, 0.0))),
            memory_bytes=180 * MIB,
            lifetime=Lifetime((0.25, 0.75), (0.25, 0.5)),
        )
    yield of_job(CHECK)("pytest", load=Steady(0.95), threads=2.0, memory_bytes=300 * MIB)


SLURM_NODE = Scenario(
    name="slurm-node",
    description="eight GPUs shared by a Slurm cluster's users: a training on four, one beyond its "
    "budget, one requeued, a notebook that only holds one, an array, a solver, short jobs",
    hardware=GPU_SERVER.hardware,
    workloads=tuple(_workloads()),
    past_seconds=900,
)
