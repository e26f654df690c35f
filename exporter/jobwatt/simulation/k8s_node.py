"""A GPU node of a Kubernetes cluster: operators' training jobs, a service, notebooks, system pods.

Pods of which nobody has metadata keep their uid as a name. Like the Slurm node it has been up for
a quarter of an hour when its exporter first answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from jobwatt.kubernetes.pod import BUDGET, PodRules, parse_pod
from jobwatt.simulation.blueprint import (
    DRAM_RANGE_UJ,
    GIB,
    MIB,
    Gpu,
    Hardware,
    Job,
    Kernels,
    Lifetime,
    Package,
    PowerModel,
    Scenario,
    User,
    Workload,
)
from jobwatt.simulation.load import Daily, Phases, Steady
from jobwatt.simulation.recurring import DAEMONS, ROOT, daemon, kernel_thread, of_job

__all__ = ["K8S_NODE", "NAMELESS", "NOTEBOOK", "OVER_BUDGET", "TRAINING"]

HOUR = 3600

MADE_UP = "{uuid}"
"""In place of a uid that is made up for each run."""

TRAINER = User(1000, "1000")
SERVER = User(10001, "10001")
JOVYAN = User(1001, "1001")
NOBODY = User(65534, "nobody")
"""Users of containers: the node has no names for most of them."""


def _job(
    pod: str,
    user: User,
    labels: Mapping[str, str] | None = None,
    *,
    cpus: int | None = None,
    watt_hours: float | None = None,
    limit_seconds: int | None = None,
) -> Job:
    """Return the job of a pod, as the exporter finds it in what the API tells.

    Args:
        pod: `<namespace>/<kind>/<name>`: where it is, and what controls it; `{id}` as in `Job`.
        user: of its processes.
        labels: of the pod.
        cpus: what it asks for.
        watt_hours: its annotation.
        limit_seconds: how long kubelet lets it run.
    """
    namespace, kind, name = pod.split("/")
    requests = {} if cpus is None else {"cpu": str(cpus)}
    told = parse_pod(
        {
            "metadata": {
                "namespace": namespace,
                "name": name,
                "uid": MADE_UP,
                "labels": labels or {},
                "annotations": {} if watt_hours is None else {BUDGET: f"{watt_hours:g}Wh"},
                "ownerReferences": [
                    {"kind": kind, "name": name, "uid": MADE_UP, "controller": True}
                ],
            },
            "spec": {"containers": [{"resources": {"requests": requests}}]},
        },
        PodRules(),
    )
    return Job(
        told.job_uid,
        user,
        told.record.name,
        told.record.account,
        told.record.queue,
        told.record.k8s_namespace,
        told.record.budget,
        told.record.cpus,
        limit_seconds=limit_seconds,
        tells_times=False,
    )


TRAINING = replace(
    _job(
        "research/PyTorchJob/mistral-sft",
        TRAINER,
        {
            "training.kubeflow.org/job-name": "mistral-sft",
            "training.kubeflow.org/operator-name": "pytorchjob-controller",
            "kueue.x-k8s.io/cluster-queue-name": "research-gpu",
        },
        cpus=32,
        watt_hours=180,
        limit_seconds=12 * HOUR,
    ),
    gpus=(0, 1),
    begins_seconds=30,
)
OVER_BUDGET = replace(
    _job(
        "vision/RayCluster/detr-tune",
        TRAINER,
        {"ray.io/cluster": "detr-tune", "kueue.x-k8s.io/cluster-queue-name": "vision-gpu"},
        cpus=16,
        watt_hours=60,
    ),
    gpus=(2,),
    begins_seconds=40,
)
NOTEBOOK = replace(
    _job(
        "notebooks/StatefulSet/jupyter-carol",
        JOVYAN,
        {"statefulset.kubernetes.io/pod-name": "jupyter-carol-0"},
        cpus=4,
    ),
    gpus=(3,),
    begins_seconds=35,
)
CHAT = replace(
    _job("serving/ReplicaSet/embed-7d9c6b5f48", SERVER, cpus=24),
    begins_seconds=32,
)
SHARDS = tuple(
    replace(
        # A JobSet makes a Job, whose pods have the labels of both.
        _job(
            "data/Job/tokenize-shards-{id}-workers-0",
            TRAINER,
            {
                "jobset.sigs.k8s.io/jobset-name": "tokenize-shards-{id}",
                "jobset.sigs.k8s.io/jobset-uid": MADE_UP,
                "batch.kubernetes.io/job-name": "tokenize-shards-{id}-workers-0",
                "kueue.x-k8s.io/cluster-queue-name": "data-batch",
            },
            cpus=14,
            watt_hours=12,
            limit_seconds=HOUR,
        ),
        begins_seconds=50.0 + 20 * place,
        lasts_seconds=190.0 + 12 * place,
        pause_seconds=20,
        first_id=1 + place,
        ids_apart=3,
    )
    for place in range(3)
)
CRON = replace(
    _job(
        "ops/Job/backup-{id}",
        NOBODY,
        {
            "batch.kubernetes.io/job-name": "backup-{id}",
            "batch.kubernetes.io/controller-uid": MADE_UP,
        },
        cpus=1,
    ),
    begins_seconds=70.25,
    lasts_seconds=0.75,
    pause_seconds=119.25,
    first_id=29_400_115,
    ids_apart=2,
)
"""A CronJob's: over before anybody looks."""

NAMELESS = Job(f"k8s:{MADE_UP}", TRAINER, cpus=2, begins_seconds=45, tells_times=False)
"""Of which the API tells nothing."""

SYSTEM = tuple(
    (comm, share, replace(_job(pod, ROOT), begins_seconds=12))
    for comm, share, pod in (
        ("kube-proxy", 0.003, "kube-system/DaemonSet/kube-proxy"),
        ("cilium-agent", 0.02, "kube-system/DaemonSet/cilium"),
        ("nvidia-device-p", 0.001, "gpu-operator/DaemonSet/nvidia-device-plugin"),
        ("node_exporter", 0.004, "monitoring/DaemonSet/node-exporter"),
    )
)
STATIC = replace(_job("kube-system/Node/gpu-a7", ROOT), begins_seconds=10)
"""The static pods: the node itself controls them."""


def _workloads() -> Iterator[Workload]:
    yield from DAEMONS
    yield kernel_thread("ksoftirqd/1", 0.003)
    yield daemon("kubelet", "kubelet.service", 95, 0.02)
    yield daemon("containerd", "containerd.service", 70, 0.012)
    for comm, share, job in SYSTEM:
        yield of_job(job)(comm, load=Steady(share), memory_bytes=60 * MIB)
    yield of_job(STATIC)("haproxy", load=Steady(0.004), memory_bytes=30 * MIB)
    yield of_job(TRAINING)("torchrun", load=Steady(0.005), memory_bytes=400 * MIB)
    yield of_job(TRAINING)(
        "python",
        load=Phases(((15, 0.5), (140, 0.95), (15, 0.8))),
        threads=2.0,
        memory_bytes=20 * GIB,
        count=2,
        start_seconds=2,
        kernels=Kernels(Phases(((15, 0.1), (140, 0.98), (15, 0.6))), 66 * GIB, intensity=1.05),
    )
    yield of_job(TRAINING)(
        "pt_data_worker",
        load=Phases(((15, 0.9), (140, 0.5), (15, 0.7))),
        threads=2.0,
        memory_bytes=3 * GIB,
        count=8,
        traffic=0.6,
        start_seconds=3,
    )
    yield of_job(OVER_BUDGET)("raylet", load=Steady(0.05), memory_bytes=500 * MIB)
    yield of_job(OVER_BUDGET)(
        "ray::train",
        load=Phases(((60, 0.9), (10, 0.5))),
        threads=5.0,
        memory_bytes=16 * GIB,
        start_seconds=4,
        kernels=Kernels(Phases(((60, 0.95), (10, 0.1))), 48 * GIB),
    )
    yield of_job(NOTEBOOK)("jupyter-lab", load=Steady(0.01), memory_bytes=220 * MIB)
    yield of_job(NOTEBOOK)(
        "ipykernel_launc",
        load=Phases(((170, 0.003), (8, 0.6), (60, 0.003))),
        memory_bytes=5 * GIB,
        start_seconds=2,
        kernels=Kernels(Steady(0), 9 * GIB),
    )
    yield of_job(CHAT)(
        "text-embeddings",
        load=Daily(0.15, 0.85, 480, 100),
        threads=12.0,
        memory_bytes=6 * GIB,
        count=2,
        package=1,
    )
    for job in SHARDS:
        yield of_job(job)(
            "python",
            load=Phases(((150, 0.95), (20, 0.3))),
            threads=6.5,
            memory_bytes=4 * GIB,
            count=2,
            traffic=0.95,
        )
        yield of_job(job)(
            "zstd",
            load=Phases(((20, 0.95), (40, 0.0))),
            memory_bytes=90 * MIB,
            lifetime=Lifetime((0.25, 0.75), (0.25, 0.5)),
        )
    yield of_job(CRON)("restic", load=Steady(0.9), memory_bytes=120 * MIB)
    yield of_job(NAMELESS)(
        "node", load=Daily(0.05, 0.4, 300, 60), threads=2.0, memory_bytes=350 * MIB
    )


K8S_NODE = Scenario(
    name="k8s-node",
    description="four GPUs in a Kubernetes cluster: an operator's training, one beyond its budget, "
    "a notebook that only holds one, a service, Kueue's batch jobs, system pods, one without names",
    hardware=Hardware(
        cpu_model="Simulated server CPU",
        dram_model="Simulated DDR5",
        packages=tuple(
            Package(
                64,
                PowerModel(idle_watts=idle, full_watts=265.0, limit_watts=270.0),
                PowerModel(idle_watts=9.5, full_watts=41.0, range_uj=DRAM_RANGE_UJ),
            )
            for idle in (84.0, 81.0)
        ),
        gpus=tuple(
            Gpu(
                "Simulated A100-SXM4-80GB",
                "Ampere",
                85_899_345_920,
                PowerModel(idle_watts=58.0, full_watts=385.0, limit_watts=400.0, range_uj=None),
                f"0000:{bus}:00.0",
            )
            for bus in ("07", "0b", "48", "4c")
        ),
        gpu_driver="590.48.01",
    ),
    workloads=tuple(_workloads()),
    past_seconds=900,
)
