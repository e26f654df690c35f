"""The nodes with a scheduler, through the whole path from the meter to the snapshot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from jobwatt.app import make_sampler, simulated_parts
from jobwatt.config import Config
from jobwatt.exposition.samples import samples
from jobwatt.records import BudgetOrigin, JobRecord
from jobwatt.simulation.meter import SimulatedMeter
from jobwatt.simulation.scenarios import SCENARIOS
from jobwatt.snapshot import JobView, Snapshot
from jobwatt.units import NS, UJ

JOB_METRICS = {
    "jobwatt_job_cpu_seconds_total",
    "jobwatt_job_gpus",
    "jobwatt_job_gpu_idle_energy_joules_total",
    "jobwatt_job_info",
    "jobwatt_job_start_timestamp_seconds",
    "jobwatt_job_measured_since_timestamp_seconds",
    "jobwatt_job_end_timestamp_seconds",
    "jobwatt_job_deadline_timestamp_seconds",
    "jobwatt_job_cpus",
    "jobwatt_job_energy_budget_joules",
}


class Life(NamedTuple):
    """A node's life up to now: its last snapshot, and whose processes were ever seen."""

    snapshot: Snapshot
    seen: set[str]

    def job(self, name: str, *, ended: bool = False) -> JobView:
        """The newest job of this name."""
        found = [
            job
            for job in self.snapshot.jobs
            if job.record is not None
            and job.record.name == name
            and (job.ended is not None) is ended
        ]
        return max(found, key=lambda job: job.started)


def live(scenario: str, seed: int = 1, interval_seconds: float = 5.0) -> Iterator[Life]:
    """Let a node live through its past; the clock moves as fast as it can be computed."""
    parts = simulated_parts(scenario, seed)
    (meter,) = parts.meters
    assert isinstance(meter, SimulatedMeter)
    start_ns = now_ns = meter._node._start_ns
    sampler = make_sampler(Config(), parts)
    sampler._clock = lambda: now_ns
    sampler._wall = lambda: 1e9 + (now_ns - start_ns) / NS
    parts.usage._wall = sampler._wall  # type: ignore[attr-defined]
    seen: set[str] = set()
    while now_ns - start_ns <= SCENARIOS[scenario].past_seconds * NS:
        yield Life(sampler.sample(), seen)
        seen |= {process.job_uid for process in parts.usage.processes}
        now_ns += round(interval_seconds * NS)


@pytest.fixture(scope="module")
def slurm() -> Life:
    """The Slurm node as it is when its exporter first answers."""
    *_, life = live("slurm-node")
    return life


@pytest.fixture(scope="module")
def kubernetes() -> Life:
    """The Kubernetes node as it is when its exporter first answers."""
    *_, life = live("k8s-node")
    return life


def used(job: JobView) -> float:
    """The part of its budget that a job has used."""
    assert job.budget is not None
    return sum(job.energy_uj) / UJ / job.budget.joules


@pytest.mark.parametrize("scenario", ["slurm-node", "k8s-node"])
def test_every_microjoule_is_accounted_for(scenario: str) -> None:
    """Σ jobs + retired + idle + unattributed = energy, at each sample, over ends and lingers."""
    for snapshot, _ in live(scenario, interval_seconds=2.9):
        for index, view in enumerate(snapshot.devices):
            jobs = sum(job.energy_uj[index] for job in snapshot.jobs if index < len(job.energy_uj))
            rest = view.job_retired_uj + view.idle_uj + view.unattributed_uj
            assert view.energy_uj == jobs + rest


def test_the_same_seed_has_the_same_jobs() -> None:
    """Names, times and energies, to the microjoule; another seed has other energies."""
    one, same, other = (list(live("slurm-node", seed))[-1].snapshot.jobs for seed in (7, 7, 8))

    assert one == same
    assert [job.job_uid for job in one] == [job.job_uid for job in other]
    assert [job.energy_uj for job in one] != [job.energy_uj for job in other]


@pytest.mark.parametrize("node", ["slurm", "kubernetes"])
def test_every_metric_of_jobs_is_there(node: str, request: pytest.FixtureRequest) -> None:
    """As on a real node with all that schedulers tell."""
    life: Life = request.getfixturevalue(node)
    rows = {spec.name: rows for spec, rows in samples(life.snapshot) if spec.name in JOB_METRICS}

    assert {name for name, found in rows.items() if found} == JOB_METRICS


def test_slurm_jobs_are_named(slurm: Life) -> None:
    """By number, requeue, account and partition, with what they were given."""
    training = slurm.job("llama3-8b-pretrain")

    assert training.job_uid == "slurm:8140227"
    assert (training.user, training.account, training.gpus, training.cpus) == (
        "alice",
        "nlp",
        4,
        64,
    )
    assert training.record is not None
    assert training.record.queue == "gpu-large"
    assert training.started == 1e9 + 30
    assert training.record.deadline == 1e9 + 30 + 86_400


def test_slurm_budgets(slurm: Life) -> None:
    """One is near, one beyond, by whom each was set."""
    near, beyond = slurm.job("llama3-8b-pretrain"), slurm.job("sdxl-lora")

    assert 0.8 < used(near) < 1
    assert used(beyond) > 1.2
    origins = {job.budget.origin for job in slurm.snapshot.jobs if job.budget is not None}
    assert origins == {BudgetOrigin.COMMENT, BudgetOrigin.OPERATOR, BudgetOrigin.ENVIRONMENT}


def test_slurm_requeue(slurm: Life) -> None:
    """The run that was preempted lingers beside the one that goes on."""
    runs = [slurm.job("protein-fold", ended=True), slurm.job("protein-fold")]

    assert [run.job_uid for run in runs] == ["slurm:8139874", "slurm:8139874:r1"]
    assert runs[0].ended == 1e9 + 556
    assert runs[1].started == 1e9 + 590


def test_slurm_notebook_holds_an_idle_gpu(slurm: Life) -> None:
    """It uses nothing, and its GPU's idle energy is its to answer for."""
    notebook = slurm.job("jupyter")

    assert notebook.gpus == 1
    assert sum(notebook.energy_uj) / UJ < 1_500
    assert notebook.gpu_idle_uj / UJ == pytest.approx(70 * 867, rel=0.05)


def test_slurm_array(slurm: Life) -> None:
    """Four elements at a time, each a job of its own with one name."""
    array = [job for job in slurm.snapshot.jobs if job.record and job.record.name == "hparam-sweep"]

    assert sum(job.ended is None for job in array) == 4
    assert sum(job.ended is not None for job in array) >= 8
    assert all(re.fullmatch(r"slurm:815\d{4}", job.job_uid) for job in array)


def test_short_slurm_jobs_that_nobody_saw(slurm: Life) -> None:
    """Their energy and names are there all the same, and their exact times."""
    check = slurm.job("smoke-test", ended=True)

    assert check.job_uid not in slurm.seen
    assert check.user == "ci-builds"
    assert check.account == "infra"
    assert check.ended is not None
    assert check.ended - check.started == 0.5
    assert 0.5 < sum(check.energy_uj) / UJ < 10
    assert check.cpu_ns > 0.8 * NS


def test_what_no_scheduler_owns(slurm: Life) -> None:
    """Daemons, a session and the kernel are jobs without an account."""
    others = {j.job_uid: j.account for j in slurm.snapshot.jobs if j.record == JobRecord()}

    assert {"system", "session:erin", "systemd:slurmd.service"} <= others.keys()
    assert set(others.values()) == {"none"}


def test_kubernetes_jobs_are_named(kubernetes: Life) -> None:
    """By namespace, kind and name of what owns their pods, with Kueue's queue and annotations."""
    training, beyond = kubernetes.job("mistral-sft"), kubernetes.job("detr-tune")

    assert training.job_uid.startswith("k8s:research/PyTorchJob/mistral-sft:")
    assert training.record is not None
    assert (training.record.queue, training.record.k8s_namespace) == ("research-gpu", "research")
    assert (training.gpus, training.cpus, training.user) == (2, 32, "1000")
    assert training.started == 1e9 + 30
    assert used(training) > 0.8
    assert used(beyond) > 1
    assert beyond.budget is not None
    assert beyond.budget.origin is BudgetOrigin.ANNOTATION


def test_kubernetes_pods_without_names(kubernetes: Life) -> None:
    """One of which the API told nothing, and which therefore nobody pays for; system pods."""
    (nameless,) = [
        job for job in kubernetes.snapshot.jobs if re.fullmatch(r"k8s:[0-9a-f-]{36}", job.job_uid)
    ]
    uids = [job.job_uid for job in kubernetes.snapshot.jobs]

    assert (nameless.account, nameless.user) == ("none", "1000")
    assert sum(uid.startswith("k8s:kube-system/DaemonSet/") for uid in uids) == 2


def test_kubernetes_cron_jobs_are_over_before_anybody_looks(kubernetes: Life) -> None:
    """Each has its number, its energy and no process that was seen."""
    backups = [job for job in kubernetes.snapshot.jobs if ":ops/Job/backup-" in job.job_uid]

    assert len(backups) >= 4
    assert not kubernetes.seen & {job.job_uid for job in backups}
    assert all(sum(job.energy_uj) > 0 for job in backups)
    assert {(job.user, job.account) for job in backups} == {("", "ops")}


def test_kubernetes_namespaces_pay(kubernetes: Life) -> None:
    """Kinds, names and accounts are those that the exporter finds in pods."""
    found = {
        (job.job_uid.rpartition(":")[0], job.account)
        for job in kubernetes.snapshot.jobs
        if job.job_uid.startswith("k8s:") and job.ended is None and job.record != JobRecord()
    }

    assert {(re.sub(r"shards-\d+", "shards-N", uid), account) for uid, account in found} >= {
        ("k8s:research/PyTorchJob/mistral-sft", "research"),
        ("k8s:vision/RayCluster/detr-tune", "vision"),
        ("k8s:notebooks/StatefulSet/jupyter-carol", "notebooks"),
        ("k8s:serving/ReplicaSet/embed-7d9c6b5f48", "serving"),
        ("k8s:data/JobSet/tokenize-shards-N", "data"),
        ("k8s:kube-system/DaemonSet/cilium", "kube-system"),
        ("k8s:kube-system/Node/gpu-a7", "kube-system"),
        ("k8s:monitoring/DaemonSet/node-exporter", "monitoring"),
    }


@pytest.mark.parametrize(("scenario", "most"), [("slurm-node", 192), ("k8s-node", 128)])
def test_no_more_cpus_are_held_than_there_are(scenario: str, most: int) -> None:
    """No scheduler would have admitted more, at any time; and jobs use no more than they hold."""
    held, busy = 0.0, 0.0
    before: dict[str, int] = {}
    for snapshot, _ in live(scenario):
        assert snapshot.node.cpus == most
        held = max(held, sum(job.cpus or 0 for job in snapshot.jobs))
        for job in snapshot.jobs:
            if job.cpus and job.job_uid in before:
                used = (job.cpu_ns - before[job.job_uid]) / NS / 5
                busy = max(busy, used / job.cpus)
        before = {job.job_uid: job.cpu_ns for job in snapshot.jobs}

    assert 0.9 * most < held <= most
    assert 0.8 < busy <= 1


def test_kubernetes_tells_no_end(kubernetes: Life) -> None:
    """A job ends with the sample that misses it; one that nobody saw began with that before it."""
    ended = [job for job in kubernetes.snapshot.jobs if job.ended is not None]
    backups = [job for job in ended if ":ops/Job/backup-" in job.job_uid]

    assert all((job.ended or 0) >= job.measured_since >= job.started for job in ended)
    assert {(job.ended or 0) - job.started for job in backups} == {5}
