"""What is told of jobs: merged by field, bounded, kept over a restart."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobwatt.records import (
    Budget,
    BudgetOrigin,
    JobRecord,
    budget_of,
    comment_budget,
    even_share,
    moment,
    numbers,
    shown_name,
)

FULL = JobRecord(
    "bert",
    "ada",
    "vision",
    "gpu",
    "lab",
    1.5,
    2.5,
    3.5,
    Budget(90e6, BudgetOrigin.COMMENT),
    (BudgetOrigin.ENVIRONMENT,),
    4.5,
    (0, 1),
)
OTHER = JobRecord(
    "b", "b", "b", "b", "b", 9.0, 9.0, 9.0, Budget(9.0, BudgetOrigin.ENVIRONMENT), (), 9.0, (9,)
)


def test_the_more_trusted_word_goes_before_field_by_field() -> None:
    """What it does not say, the other may; errors of both count."""
    assert FULL.over(OTHER) == FULL
    assert JobRecord().over(FULL) == FULL
    assert FULL.over(JobRecord()) == FULL
    assert JobRecord(account="vision").over(OTHER).account == "vision"
    assert JobRecord(name="bert").over(OTHER).account == "b"
    both = FULL.over(JobRecord(bad_budgets=(BudgetOrigin.COMMENT,)))
    assert both.bad_budgets == (BudgetOrigin.ENVIRONMENT, BudgetOrigin.COMMENT)


@pytest.mark.parametrize("record", [FULL, JobRecord()])
def test_a_record_outlives_a_restart(record: JobRecord) -> None:
    """All but the errors, which have been counted."""
    row = json.loads(json.dumps(record.row()))
    assert JobRecord.from_row(row).row() == record.row()
    assert JobRecord.from_row(row).bad_budgets == ()


@pytest.mark.parametrize("row", [[], ["a"], 7, None, [*FULL.row()[:-1], ["x"]]])
def test_a_row_of_somebody_else_is_refused(row: object) -> None:
    """In the words that the ledger expects."""
    with pytest.raises((ValueError, TypeError, LookupError)):
        JobRecord.from_row(row)


@pytest.mark.parametrize(
    ("comment", "joules"),
    [
        ("jobwatt:budget=25kWh", 90e6),
        ("night run, jobwatt:budget=1kWh; please", 3.6e6),
        ("a\njobwatt:budget=90MJ\tb", 90e6),
        ("jobwatt:budget=1kWh jobwatt:budget=2kWh", 3.6e6),
    ],
)
def test_a_comment_may_hold_a_budget(comment: str, joules: float) -> None:
    """Among other words; the first holds."""
    assert comment_budget(comment).budget == Budget(joules, BudgetOrigin.COMMENT)


@pytest.mark.parametrize("comment", ["", "25kWh", "xjobwatt:budget=25kWh", "jobwatt:budgets=1kWh"])
def test_a_comment_without_a_budget_is_none(comment: str) -> None:
    """And no error."""
    assert comment_budget(comment) == JobRecord()


@pytest.mark.parametrize("text", ["25", "lots", "-1kWh", "1e999kWh", "0kWh", "25 kwhh", "nan"])
def test_what_is_no_budget_is_noted(text: str) -> None:
    """It stops nothing."""
    bad = JobRecord(bad_budgets=(BudgetOrigin.ENVIRONMENT,))
    assert budget_of(text, BudgetOrigin.ENVIRONMENT) == bad
    assert comment_budget("jobwatt:budget=").bad_budgets == (BudgetOrigin.COMMENT,)
    assert budget_of(" ", BudgetOrigin.ENVIRONMENT) == JobRecord()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1800000000", 1.8e9),
        ("", None),
        ("None", None),
        ("nan", None),
        ("inf", None),
        ("-5", None),
        ("0", None),
        ("9" * 400, None),
    ],
)
def test_a_moment_is_a_time_that_can_be(text: str, seconds: float | None) -> None:
    """Anything else is not told."""
    assert moment(text) == seconds


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("32", 32.0),
        ("32(x2)", 32.0),
        ("32(x2),32", 32.0),
        ("32(x2),16", None),
        ("0", None),
        ("", None),
        ("32(x", None),
        ("٣", None),
        ("9" * 50, None),
    ],
)
def test_a_share_is_known_where_all_nodes_have_the_same(text: str, cpus: float | None) -> None:
    """Which of several is this node's nobody says."""
    assert even_share(text) == cpus


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0", (0,)),
        ("0,1,3", (0, 1, 3)),
        ("0-3,2", (0, 1, 2, 3)),
        ("", ()),
        ("a", ()),
        ("0-999999999", ()),
        ("0-1000,0-1000", ()),
        ("3-1", ()),
    ],
)
def test_numbers_of_a_list(text: str, found: tuple[int, ...]) -> None:
    """However long a list its user writes."""
    assert numbers(text) == found


@given(st.text())
def test_any_name_can_be_shown(text: str) -> None:
    """Printable, and not too long."""
    shown = shown_name(text)
    assert shown.isprintable()
    assert len(shown) <= 128
    if text.isprintable() and len(text) <= 128:
        assert shown == text.strip()
