"""When the jobs of a made-up node run, and under which names: pure functions of the node's age."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from uuid import UUID

from jobwatt.records import JobRecord
from jobwatt.simulation.blueprint import Job

__all__ = ["Run", "record_of", "run_at"]


@dataclass(frozen=True, slots=True)
class Run:
    """A job's way through the node from one start to its end, which is a job of its own.

    Attributes:
        job_uid: what names it.
        name: what its user calls it.
        begins_seconds, ends_seconds: by the age of the node; None: it does not end.
    """

    job: Job
    job_uid: str
    name: str
    begins_seconds: float
    ends_seconds: float | None


def run_at(job: Job, seconds: float) -> Run | None:
    """Return the run of a job that goes on at this age of the node, None in a pause."""
    passed = seconds - job.begins_seconds
    if passed < 0:
        return None
    if job.lasts_seconds is None:
        return _run(job, 0, job.begins_seconds, None)
    number = 0
    if job.pause_seconds is not None:
        period = job.lasts_seconds + job.pause_seconds
        number = int(passed // period)
        passed -= number * period
    if passed >= job.lasts_seconds:
        return None
    begins = seconds - passed
    return _run(job, number, begins, begins + job.lasts_seconds)


def record_of(run: Run, zero: float, *, ended: bool) -> JobRecord:
    """Return what a scheduler tells of a run.

    Args:
        run: what it tells of.
        zero: Unix time at which the node's age was 0.
        ended: whether it is over.
    """
    job, started = run.job, zero + run.begins_seconds
    ended = ended and job.tells_times
    return JobRecord(
        name=run.name,
        user=job.user.name if job.tells_times else "",
        account=job.account,
        queue=job.queue,
        k8s_namespace=job.k8s_namespace,
        started=started if job.tells_times else None,
        ended=zero + run.ends_seconds if ended and run.ends_seconds is not None else None,
        deadline=None if job.limit_seconds is None else started + job.limit_seconds,
        budget=job.budget,
        cpus=job.cpus,
        gpus=job.gpus,
    )


def _run(job: Job, number: int, begins: float, ends: float | None) -> Run:
    """Return a job's run by its number; a UUID follows from what it names."""
    run_id = job.first_id + number * job.ids_apart
    chance = Random(f"{job.uid} {run_id}")  # noqa: S311 - made-up numbers, no secrets
    uuid = UUID(int=chance.getrandbits(128), version=4)
    return Run(job, job.uid.format(id=run_id, uuid=uuid), job.name.format(id=run_id), begins, ends)
