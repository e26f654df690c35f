from __future__ import annotations

import re
from dataclasses import replace

import pytest

from jobwatt.records import Budget, BudgetOrigin, JobRecord
from jobwatt.simulation.blueprint import Job
from jobwatt.simulation.recurring import ALICE
from jobwatt.simulation.runs import record_of, run_at

AGAIN = Job(
    "slurm:{id}",
    ALICE,
    begins_seconds=10,
    lasts_seconds=5,
    pause_seconds=2.5,
    first_id=70,
    ids_apart=4,
)


@pytest.mark.parametrize(
    ("seconds", "found"),
    [
        (9.75, None),
        (10, ("slurm:70", 10, 15)),
        (14.75, ("slurm:70", 10, 15)),
        (15, None),
        (17.25, None),
        (17.5, ("slurm:74", 17.5, 22.5)),
        (85.25, ("slurm:110", 85, 90)),
    ],
)
def test_runs_follow_each_other(seconds: float, found: tuple[str, float, float] | None) -> None:
    """Each from its start up to its end, under a number of its own."""
    run = run_at(AGAIN, seconds)

    assert (run and (run.job_uid, run.begins_seconds, run.ends_seconds)) == found


def test_a_job_that_never_ends() -> None:
    """It has one run, from its start on."""
    run = run_at(replace(AGAIN, lasts_seconds=None), 1e6)

    assert run is not None
    assert (run.job_uid, run.begins_seconds, run.ends_seconds) == ("slurm:70", 10, None)


def test_a_job_that_comes_once() -> None:
    """Nothing follows it."""
    once = replace(AGAIN, pause_seconds=None)

    assert run_at(once, 12) is not None
    assert run_at(once, 20) is None


def test_a_uuid_belongs_to_one_run() -> None:
    """The same at every look, another for the next run and for another job."""
    job = replace(AGAIN, uid="k8s:a/Job/b:{uuid}")
    first, again, second = (run_at(job, seconds) for seconds in (10, 12, 18))
    other = run_at(replace(job, uid="k8s:a/Job/c:{uuid}"), 10)

    assert first is not None
    assert first == again
    assert second is not None
    assert other is not None
    assert len({run.job_uid[-36:] for run in (first, second, other)}) == 3
    assert re.fullmatch(
        r"k8s:a/Job/b:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        first.job_uid,
    )


def test_record_of_a_run() -> None:
    """What a Prolog would have written; its end once it is over."""
    job = replace(
        AGAIN,
        name="bert-{id}",
        account="nlp",
        queue="gpu",
        k8s_namespace="research",
        budget=Budget(90.0, BudgetOrigin.COMMENT),
        cpus=8.0,
        gpus=(0, 1),
        limit_seconds=60,
    )
    run = run_at(job, 10)
    assert run is not None

    running, over = (record_of(run, 1000.0, ended=ended) for ended in (False, True))

    assert running == JobRecord(
        "bert-70",
        "alice",
        "nlp",
        "gpu",
        "research",
        started=1010.0,
        ended=None,
        deadline=1070.0,
        budget=Budget(90.0, BudgetOrigin.COMMENT),
        cpus=8.0,
        gpus=(0, 1),
    )
    assert over == replace(running, ended=1015.0)


def test_record_of_a_run_without_a_prolog() -> None:
    """Kubernetes tells of pods neither when they ran nor whose processes are."""
    run = run_at(replace(AGAIN, account="ml", limit_seconds=60, tells_times=False), 10)
    assert run is not None

    assert record_of(run, 1000.0, ended=True) == JobRecord(account="ml", deadline=1070.0)
