"""The operator's budgets: who is meant, and which budget holds."""

from pathlib import Path

import pytest

from jobwatt.budgets import BudgetRule, holding, parse_rules
from jobwatt.config import load_config
from jobwatt.errors import UsageError
from jobwatt.records import Budget, BudgetOrigin

NAMES = {
    "kind": "slurm",
    "user": "ada",
    "account": "vision-lab",
    "queue": "gpu",
    "k8s_namespace": "",
}
OWN = Budget(50e6, BudgetOrigin.ENVIRONMENT)


def rules(*items: object) -> tuple[BudgetRule, ...]:
    return parse_rules(list(items))


@pytest.mark.parametrize(
    ("match", "meant"),
    [
        ({"account": "vision-*"}, True),
        ({"account": "*"}, True),
        ({"account": ["speech", "vision-*"]}, True),
        ({"account": "vision"}, False),
        ({"account": "Vision-*"}, False),
        ({"account": "vision-*", "queue": "gpu"}, True),
        ({"account": "vision-*", "queue": "cpu"}, False),
        ({"k8s_namespace": "?*"}, False),
        ({"user": "a[a-d]a", "kind": "slurm"}, True),
        ({"kind": "k8s"}, False),
    ],
)
def test_all_keys_of_a_rule_must_match(match: dict[str, object], *, meant: bool) -> None:
    """One of a key's patterns is enough."""
    (rule,) = rules({"match": match, "budget": "25kWh"})
    assert rule.matches(NAMES) is meant


def test_what_is_no_job_is_meant_by_its_kind_only() -> None:
    """A rule for a user is not about the session in which he sits for weeks."""
    session = {**NAMES, "kind": "session"}
    by_user, by_kind = rules(
        {"match": {"user": "ada"}, "budget": "1kWh"},
        {"match": {"user": "ada", "kind": "session"}, "budget": "1kWh"},
    )
    assert (by_user.matches(session), by_kind.matches(session)) == (False, True)


@pytest.mark.parametrize(
    ("own", "cap", "held"),
    [
        (None, None, None),
        (OWN, None, OWN),
        (None, "90MJ", Budget(90e6, BudgetOrigin.OPERATOR)),
        (OWN, "90MJ", OWN),
        (OWN, "10MJ", Budget(10e6, BudgetOrigin.OPERATOR)),
        (OWN, "50MJ", OWN),
    ],
)
def test_the_smaller_budget_holds(own: Budget | None, cap: str | None, held: Budget | None) -> None:
    """An operator's cap goes before what a user allows himself."""
    given = rules({"match": {"user": "*"}, "budget": cap}) if cap else ()
    assert holding(own, given, NAMES) == held


def test_the_first_rule_that_matches_is_the_one() -> None:
    """Exceptions come first."""
    given = rules(
        {"match": {"user": "bob"}, "budget": "1MJ"},
        {"match": {"user": "ada"}, "budget": "80MJ"},
        {"match": {"user": "*"}, "budget": "2MJ"},
    )
    assert holding(None, given, NAMES) == Budget(80e6, BudgetOrigin.OPERATOR)
    assert holding(OWN, given, NAMES) == OWN


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("budgets: 25kWh", "write a list"),
        ("budgets: [25kWh]", "rule 1: it must have match and budget"),
        ("budgets: [{match: {user: a}}]", "rule 1: it must have match and budget"),
        ("budgets: [{match: {user: a}, budget: 1kWh, cap: 2}]", "nothing else"),
        ("budgets: [{match: {}, budget: 1kWh}]", "at least one of account, queue"),
        ("budgets: [{match: {team: a}, budget: 1kWh}]", "'team' is none of account"),
        ("budgets: [{match: {user: a}, budget: 25}]", "'25' is no energy"),
        ("budgets: [{match: {user: a}, budget: '25'}]", "has no unit"),
        ("budgets: [{match: {user: a}, budget: 25kwh}]", "did you mean 25kWh"),
        ("budgets: [{match: {user: 1000}, budget: 1kWh}]", "quote numbers"),
        ("budgets: [{match: {user: []}, budget: 1kWh}]", "a pattern is a text"),
        ("budgets: [{match: {user: a}, budget: 1kWh}, {match: 7, budget: 1kWh}]", "rule 2"),
    ],
)
def test_an_error_of_the_operator_is_one_at_the_start(tmp_path: Path, text: str, why: str) -> None:
    """It says where and what."""
    path = tmp_path / "jobwatt.yml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config({"config.file": str(path)}, {})
    assert why in str(caught.value)
    assert "budgets" in str(caught.value)


def test_budgets_of_a_file(tmp_path: Path) -> None:
    """As docs/configuration.md has them."""
    path = tmp_path / "jobwatt.yml"
    path.write_text(
        'budgets: [{match: {account: "vision-*", queue: [gpu, long]}, budget: 25kWh}]\n'
    )
    config = load_config({"config.file": str(path)}, {})
    match = (("account", ("vision-*",)), ("queue", ("gpu", "long")))
    assert config.budgets == (BudgetRule(match, 90e6),)
