"""The operator's budgets of jobs: who gets which cap, and which budget of a job holds.

In the configuration file, the first rule that matches holds:

    budgets:
      - match: {account: "vision-*", queue: [gpu, gpu-long]}
        budget: 25kWh

Budgets of accounts, which `jobwatt grid` exports for the alerts, are another list:

    account_budgets:
      - {account: vision, period: month, budget: 2MWh}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from jobwatt.records import Budget, BudgetOrigin
from jobwatt.units import energy_joules

__all__ = [
    "KEYS",
    "PERIODS",
    "AccountBudget",
    "BudgetRule",
    "holding",
    "parse_account_budgets",
    "parse_rules",
]

KEYS = ("account", "queue", "k8s_namespace", "user", "kind")
"""What a rule can match: labels of jobwatt_job_info."""

PERIODS = ("day", "week", "month", "year")

_NO_JOBS = frozenset({"system", "session", "systemd"})
"""Kinds that live as long as the machine: a rule is about them only where it names `kind`."""


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """One cap.

    Attributes:
        match: patterns by key, of which one must match; all keys must.
        joules: what each job that matches may use.
    """

    match: tuple[tuple[str, tuple[str, ...]], ...]
    joules: float

    def matches(self, names: Mapping[str, str]) -> bool:
        """Whether a job with these names, by `KEYS`, is meant."""
        keys = {key for key, _ in self.match}
        if "kind" not in keys and names["kind"] in _NO_JOBS:
            return False
        return all(
            any(fnmatchcase(names[key], pattern) for pattern in patterns)
            for key, patterns in self.match
        )


@dataclass(frozen=True, slots=True)
class AccountBudget:
    """What all jobs of an account may use in each period."""

    account: str
    period: str
    joules: float


def holding(
    own: Budget | None, rules: Iterable[BudgetRule], names: Mapping[str, str]
) -> Budget | None:
    """Return the budget of a job that holds: its own, or the operator's where that is smaller."""
    for rule in rules:
        if rule.matches(names):
            if own is None or rule.joules < own.joules:
                return Budget(rule.joules, BudgetOrigin.OPERATOR)
            break
    return own


def parse_rules(value: object) -> tuple[BudgetRule, ...]:
    """Return the rules of the configuration file.

    Raises:
        ValueError: they are none, and why.
    """
    if not isinstance(value, list):
        raise ValueError('write a list: - {match: {account: "vision-*"}, budget: 25kWh}')
    rules = []
    for number, item in enumerate(value, 1):
        try:
            rules.append(_parse_rule(item))
        except ValueError as error:
            raise ValueError(f"rule {number}: {error}") from error
    return tuple(rules)


def _parse_rule(item: object) -> BudgetRule:
    if not isinstance(item, dict) or item.keys() != {"match", "budget"}:
        raise ValueError("it must have match and budget, and nothing else")
    match, joules = item["match"], _energy(item["budget"])
    if not isinstance(match, dict) or not match:
        raise ValueError(f"match must name at least one of {', '.join(KEYS)}")
    parts = []
    for key, patterns in match.items():
        if key not in KEYS:
            raise ValueError(f"{str(key)[:40]!r} is none of {', '.join(KEYS)}")
        listed = patterns if isinstance(patterns, list) else [patterns]
        if not listed or not all(isinstance(pattern, str) for pattern in listed):
            raise ValueError(f"{key}: a pattern is a text; quote numbers, as in '1000'")
        parts.append((str(key), tuple(map(str, listed))))
    return BudgetRule(tuple(parts), joules)


def _energy(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]!r} is no energy; write it like 2kWh, 500Wh or 90MJ")
    return energy_joules(value)


def parse_account_budgets(value: object) -> tuple[AccountBudget, ...]:
    """Return the accounts' budgets of the configuration file.

    Raises:
        ValueError: they are none, and why.
    """
    if not isinstance(value, list):
        raise ValueError("write a list: - {account: vision, period: month, budget: 2MWh}")
    found: dict[tuple[str, str], AccountBudget] = {}
    for number, item in enumerate(value, 1):
        try:
            budget = _parse_account_budget(item)
        except ValueError as error:
            raise ValueError(f"budget {number}: {error}") from error
        key = budget.account, budget.period
        if key in found:
            raise ValueError(
                f"budget {number}: {budget.account} has a budget for each {budget.period} already"
            )
        found[key] = budget
    return tuple(found.values())


def _parse_account_budget(item: object) -> AccountBudget:
    if not isinstance(item, dict) or item.keys() != {"account", "period", "budget"}:
        raise ValueError("it must have account, period and budget, and nothing else")
    account, period = item["account"], item["period"]
    if not isinstance(account, str) or not account:
        raise ValueError("account is a name; quote numbers, as in '1000'")
    if period not in PERIODS:
        raise ValueError(f"{str(period)[:40]!r} is none of {', '.join(PERIODS)}")
    return AccountBudget(account, period, _energy(item["budget"]))
