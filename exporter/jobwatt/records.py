"""What is known of a job beside its energy: its names, its times, its budget, what it was given.

Several sources tell of one job. What root wrote (a Prolog's file, an API) goes before what its own
environment says, field by field. Everything that a user may have written is bounded here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jobwatt.units import energy_joules

__all__ = [
    "NO_ACCOUNT",
    "BadBudget",
    "Budget",
    "BudgetOrigin",
    "JobRecord",
    "budget_of",
    "comment_budget",
    "even_share",
    "is_scheduled",
    "kind_of",
    "moment",
    "numbers",
    "shown_name",
]

NO_ACCOUNT = "none"
"""Account of a job that no scheduler owns, or whose account is not known."""

MOST_CHARACTERS = 128
"""Of a name, as a label shows it."""

_MOST_REASON = 200

_SCHEDULED = frozenset({"slurm", "pbs"})
_MOST_SECONDS = 1e11
_MOST_NUMBERS = 1024
_MOST_DIGITS = 9

_COMMENT_BUDGET = re.compile(r"(?:^|[\s,;])jobwatt:budget=([^\s,;]*)")
_SHARE = re.compile(r"(\d{1,9})(?:\(x\d{1,9}\))?", re.ASCII)


class BudgetOrigin(StrEnum):
    """Who set a budget."""

    ANNOTATION = "annotation"
    ENVIRONMENT = "environment"
    COMMENT = "comment"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a whole job, on all of its nodes, may use."""

    joules: float
    origin: BudgetOrigin


@dataclass(frozen=True, slots=True)
class BadBudget:
    """What somebody wrote for a budget and is none: where it stood, and why it is none."""

    origin: BudgetOrigin
    reason: str


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What a source tells of a job; what it does not tell is empty, None, or `none`.

    Attributes:
        name: what its user calls it.
        user: the name of its user's uid.
        account: who pays.
        queue: a scheduler's queue or partition.
        k8s_namespace: a Kubernetes namespace.
        started, ended: Unix times, as its scheduler has them for this node.
        deadline: when its scheduler will end it.
        budget: what its user, or whoever submitted it, set.
        bad_budgets: what stood there and is none.
        cpus: how many it was given on this node.
        gpus: the numbers of the device files of the GPUs that it was given.
        gpu_ids: the GPUs that it holds now, as a device plugin names them.
    """

    name: str = ""
    user: str = ""
    account: str = NO_ACCOUNT
    queue: str = ""
    k8s_namespace: str = ""
    started: float | None = None
    ended: float | None = None
    deadline: float | None = None
    budget: Budget | None = None
    bad_budgets: tuple[BadBudget, ...] = ()
    cpus: float | None = None
    gpus: tuple[int, ...] = ()
    gpu_ids: tuple[str, ...] = ()

    def over(self, other: JobRecord) -> JobRecord:
        """Return this record, with the other's word where this one says nothing."""
        return JobRecord(
            self.name or other.name,
            self.user or other.user,
            other.account if self.account == NO_ACCOUNT else self.account,
            self.queue or other.queue,
            self.k8s_namespace or other.k8s_namespace,
            other.started if self.started is None else self.started,
            other.ended if self.ended is None else self.ended,
            other.deadline if self.deadline is None else self.deadline,
            self.budget or other.budget,
            self.bad_budgets + other.bad_budgets,
            other.cpus if self.cpus is None else self.cpus,
            self.gpus or other.gpus,
            self.gpu_ids or other.gpu_ids,
        )

    def row(self) -> tuple[Any, ...]:
        """Return what outlives a restart, without names of types: not what is held just now."""
        budget = self.budget
        return (
            self.name,
            self.user,
            self.account,
            self.queue,
            self.k8s_namespace,
            self.started,
            self.ended,
            self.deadline,
            None if budget is None else (budget.joules, budget.origin.value),
            self.cpus,
            self.gpus,
            tuple((bad.origin.value, bad.reason) for bad in self.bad_budgets),
        )

    @classmethod
    def from_row(cls, row: Any) -> JobRecord:  # noqa: ANN401 - what JSON gave back
        """Take back what `row` returned.

        Raises:
            ValueError, TypeError, LookupError: it is no such row.
        """
        name, user, account, queue, namespace, started, ended, *rest = row
        deadline, budget, cpus, gpus, *newer = rest
        bad_budgets = newer[0] if newer else ()
        return cls(
            str(name),
            str(user),
            str(account),
            str(queue),
            str(namespace),
            None if started is None else float(started),
            None if ended is None else float(ended),
            None if deadline is None else float(deadline),
            None if budget is None else Budget(float(budget[0]), BudgetOrigin(budget[1])),
            tuple(BadBudget(BudgetOrigin(origin), str(reason)) for origin, reason in bad_budgets),
            None if cpus is None else float(cpus),
            tuple(int(gpu) for gpu in gpus),
        )


def kind_of(job_uid: str) -> str:
    """Return what a job is: `slurm`, `k8s`, `systemd` and so on."""
    return job_uid.partition(":")[0]


def is_scheduled(job_uid: str) -> bool:
    """Whether a scheduler starts the job's processes out of a daemon of its own.

    Such a job begins with processes of root's that know nothing of it yet.
    """
    return kind_of(job_uid) in _SCHEDULED


def shown_name(text: str) -> str:
    """Return a name that somebody made up as it may be shown: printable, and not too long."""
    return _shown(text, MOST_CHARACTERS)


def _shown(text: str, most: int) -> str:
    text = text[: most * 2].strip()
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)[:most]


def budget_of(text: str, origin: BudgetOrigin) -> JobRecord:
    """Return a record with a budget such as `25kWh`; what is none is noted as bad."""
    if not text.strip():
        return JobRecord()
    try:
        return JobRecord(budget=Budget(energy_joules(text), origin))
    except ValueError as error:
        return JobRecord(bad_budgets=(BadBudget(origin, _shown(str(error), _MOST_REASON)),))


def comment_budget(comment: str) -> JobRecord:
    """Return a record with the budget in a comment, `jobwatt:budget=25kWh` among other words."""
    found = _COMMENT_BUDGET.search(comment)
    if found is None:
        return JobRecord()
    return budget_of(found[1] or "?", BudgetOrigin.COMMENT)


def moment(text: str) -> float | None:
    """Return a Unix time, None where the text is none."""
    try:
        seconds = float(text)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and 0 < seconds < _MOST_SECONDS else None


def even_share(text: str) -> float | None:
    """Return a node's CPUs out of Slurm's list for all nodes, `72(x2)`; None where they differ."""
    shares = set()
    for part in text.strip().split(","):
        found = _SHARE.fullmatch(part)
        if found is None:
            return None
        shares.add(int(found[1]))
    return float(shares.pop()) if len(shares) == 1 and 0 not in shares else None


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a list such as `0,2-3`; what is no such list is empty."""
    found: list[int] = []
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            return ()
        found += range(int(first), min(int(last if dash else first), _MOST_NUMBERS) + 1)
        if len(found) > _MOST_NUMBERS:
            return ()
    return tuple(dict.fromkeys(found))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
