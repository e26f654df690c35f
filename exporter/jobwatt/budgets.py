"""The operator's budgets of jobs: who gets which cap, and which budget of a job holds.

In the configuration file, the first rule that matches holds:

    budgets:
      - match: {account: "vision-*", queue: [gpu, gpu-long]}
        budget: 25kWh
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from jobwatt.records import Budget, BudgetOrigin
from jobwatt.units import energy_joules

__all__ = ["KEYS", "BudgetRule", "holding", "parse_rules"]

KEYS = ("account", "queue", "k8s_namespace", "user", "kind")
"""What a rule can match: labels of jobwatt_job_info."""

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
    match, budget = item["match"], item["budget"]
    if not isinstance(match, dict) or not match:
        raise ValueError(f"match must name at least one of {', '.join(KEYS)}")
    if not isinstance(budget, str):
        raise ValueError(f"{str(budget)[:40]!r} is no energy; write it like 2kWh, 500Wh or 90MJ")
    parts = []
    for key, patterns in match.items():
        if key not in KEYS:
            raise ValueError(f"{str(key)[:40]!r} is none of {', '.join(KEYS)}")
        listed = patterns if isinstance(patterns, list) else [patterns]
        if not listed or not all(isinstance(pattern, str) for pattern in listed):
            raise ValueError(f"{key}: a pattern is a text; quote numbers, as in '1000'")
        parts.append((str(key), tuple(map(str, listed))))
    return BudgetRule(tuple(parts), energy_joules(budget))
