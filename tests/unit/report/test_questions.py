from __future__ import annotations

import re

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobwatt.exposition.catalog import METRICS
from jobwatt.report.questions import (
    BY_COUNTERS,
    EXPORTERS,
    IS_LEFT_OPEN,
    JOBS,
    LAST_EVALUATION,
    MOST_HALVINGS,
    RECORDED,
    SITE,
    Question,
    equal,
    halved,
    is_live,
    unrecorded,
)
from jobwatt.report.timerange import Window

DAY = Window(0, 86_400_000)
QUESTIONS = (*RECORDED, *BY_COUNTERS, *JOBS, *SITE, EXPORTERS)


def pattern_of(matcher: str) -> re.Pattern[str]:
    """A matcher's regular expression, as Python has it."""
    inside = matcher.removeprefix('job_uid=~"').removesuffix('"')
    return re.compile(inside.replace("\\\\", "\\"))


def test_energy() -> None:
    """The recorded differences of a range, summed; 1 ms less where the left border counts."""
    energy = RECORDED[0]
    assert energy.text(DAY, (), left_open=True) == (
        "sum by (cluster, job_uid, component) "
        "(sum_over_time(job_uid:jobwatt_job_energy_joules:delta[86400000ms]))"
    )
    assert energy.text(DAY, ('job_uid="a"',), left_open=False) == (
        "sum by (cluster, job_uid, component) "
        '(sum_over_time(job_uid:jobwatt_job_energy_joules:delta{job_uid="a"}[86399999ms]))'
    )


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_questions_are_promql_about_what_there_is(question: Question) -> None:
    """Of metrics that the exporter exposes or the rules record."""
    text = question.text(DAY, (*equal("job_uid", ["a", "b"]), *halved(3)), left_open=True)
    promql_parser.parse(text)
    metric = question.metric
    assert metric in {spec.name for spec in METRICS} or metric.startswith("job_uid:jobwatt_job_")


@pytest.mark.parametrize(
    "text",
    [is_live(('cluster="a"',)), is_live(()), unrecorded(DAY)[0], IS_LEFT_OPEN, LAST_EVALUATION],
)
def test_other_expressions_are_promql(text: str) -> None:
    """As its grammar has it."""
    promql_parser.parse(text)


def test_equal() -> None:
    """No values ask for nothing; several are an expression in which each is itself."""
    assert equal("cluster", []) == ()
    assert equal("job_uid", ['a"b\\']) == (r'job_uid="a\"b\\"',)
    assert equal("job_uid", ["slurm:1", "run:a|b"]) == (r'job_uid=~"slurm:1|run:a\\|b"',)


@given(st.text())
def test_each_job_is_in_one_half(job_uid: str) -> None:
    """At every depth, whatever it is called: the second half is what is not in the first."""
    for depth in range(MOST_HALVINGS):
        yes, no = halved(depth)
        assert no == yes.replace("=~", "!~", 1)
        assert pattern_of(yes).fullmatch(f"{job_uid}0000") is None


def test_halves_divide_numbered_jobs() -> None:
    """After all halvings each of ten thousand jobs is in a part of its own."""
    patterns = [pattern_of(halved(depth)[0]) for depth in range(MOST_HALVINGS)]
    jobs = [f"slurm:{number}" for number in range(10_000, 20_000)]
    assert len({tuple(bool(p.fullmatch(job)) for p in patterns) for job in jobs}) == 10_000
