"""What is told of jobs: merged by field, bounded, kept over a restart."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobwatt.records import (
    BadBudget,
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
    (BadBudget(BudgetOrigin.ENVIRONMENT, "lots"),),
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
    more = BadBudget(BudgetOrigin.COMMENT, "more")
    assert FULL.over(JobRecord(bad_budgets=(more,))).bad_budgets == (*FULL.bad_budgets, more)


@pytest.mark.parametrize("record", [FULL, JobRecord()])
def test_a_record_outlives_a_restart(record: JobRecord) -> None:
    """Also one of a release that kept no errors."""
    row = json.loads(json.dumps(record.row()))
    assert JobRecord.from_row(row) == record
    assert JobRecord.from_row(row[:-1]) == replace(record, bad_budgets=())


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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("25", "'25' has no unit; write it like 25kWh or 25MJ"),
        ("lots", "'lots' is no energy; write it like 2kWh, 500Wh or 90MJ"),
        ("-1kWh", "'-1kWh' is no energy; write it like 2kWh, 500Wh or 90MJ"),
        ("1e99kWh", "'1e99kWh': an energy must be at most 1e+15 J"),
        ("0kWh", "'0kWh': an energy must be more than 0"),
        (
            "25 kwh",
            "'25 kwh': 'kwh' is none of J, kJ, MJ, Wh, kWh, MWh; did you mean 25kWh?",
        ),
        ("a\x1b[2J\nb", "'a\\x1b[2J\\nb' is no energy; write it like 2kWh, 500Wh or 90MJ"),
    ],
)
def test_what_is_no_budget_is_noted(text: str, reason: str) -> None:
    """With what is wrong; it stops nothing."""
    bad = JobRecord(bad_budgets=(BadBudget(BudgetOrigin.ENVIRONMENT, reason),))
    assert budget_of(text, BudgetOrigin.ENVIRONMENT) == bad


@pytest.mark.parametrize("text", ["9" * 5000, "5" + "x" * 5000, "9" * 5000 + "kwh", "\0" * 5000])
def test_what_is_said_of_it_is_bounded(text: str) -> None:
    """And printable: it is a user's."""
    (bad,) = budget_of(text, BudgetOrigin.ENVIRONMENT).bad_budgets
    assert (len(bad.reason) <= 200, bad.reason.isprintable()) == (True, True)


def test_an_empty_budget() -> None:
    """Is one that nobody set, but where a comment names one."""
    assert [bad.origin for bad in comment_budget("jobwatt:budget=").bad_budgets] == [
        BudgetOrigin.COMMENT
    ]
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
