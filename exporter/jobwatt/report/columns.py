"""The columns of a report for people: what stands in them, in readable units.

Names are as strangers wrote them: whoever prints a cell makes it safe first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jobwatt.report.collect import Report
from jobwatt.report.jobs import Job
from jobwatt.report.rows import Figures
from jobwatt.units import UJ, carbon_text, energy_text, few_digits

__all__ = ["TOGETHER", "Column", "columns", "legend", "site_text"]

NOT_KNOWN = "-"
SECONDS_PER_HOUR = 3600.0

LEAST_GRAMS, LEAST_MONEY, LEAST_JOULES = 0.01, 0.001, 0.005
"""What is less is not told apart."""

TOGETHER = "\N{NO-BREAK SPACE}"
"""Where a line must not end."""

MARKS = ""
"""The title of the column of marks."""

BEFORE, AFTER, GUESSED = "<", ">", "~"

LEAST_GUESSED = 0.001
"""A smaller share of estimates is not marked."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        title: its head.
        cells: of the rows.
        below: of the rows that are not shown (if there are any), and of the total.
        rank: columns of a high rank go first where there is no room.
        is_number: numbers stand at the right, and are never cut.
    """

    title: str
    cells: tuple[str, ...]
    below: tuple[str, ...]
    rank: int
    is_number: bool = True


def columns(report: Report) -> list[Column]:
    """Return all columns that have something in them."""
    jobs = _job_columns(report) if report.wanted.by == "job" else _group_columns(report)
    return [*jobs, *_figure_columns(report)]


def _job_columns(report: Report) -> list[Column]:
    names = _names_below(report)
    nothing = ("",) * len(names)
    found = []
    for title, rank, text in _OF_JOBS:
        cells = tuple(text(row.job) if row.job else "" for row in report.rows)
        if title == "JOB":
            found.append(Column(title, cells, names, rank, is_number=False))
        elif any(cells) and (title != "CLUSTER" or len(report.clusters) > 1):
            found.append(Column(title, cells, nothing, rank, is_number=False))
    return found


_OF_JOBS: tuple[tuple[str, int, Callable[[Job], str]], ...] = (
    ("JOB", 0, lambda job: job.job_uid),
    ("NAME", 4, lambda job: job.names.job_name),
    ("USER", 2, lambda job: job.names.user),
    ("ACCOUNT", 7, lambda job: job.names.account),
    ("QUEUE", 13, lambda job: job.names.queue),
    ("NAMESPACE", 14, lambda job: job.names.namespace),
    ("CLUSTER", 3, lambda job: job.cluster),
    ("KIND", 15, lambda job: job.names.kind),
    ("STATE", 6, lambda job: job.state().value),
)


def _group_columns(report: Report) -> list[Column]:
    names = tuple(row.key or "(none)" for row in report.rows)
    counts = tuple(f"{row.figures.jobs}" for row in report.rows)
    below = tuple(f"{figures.jobs}" for figures in _below(report))
    return [
        Column(report.wanted.by.upper(), names, _names_below(report), 0, is_number=False),
        Column("JOBS", counts, below, 1),
    ]


def _below(report: Report) -> list[Figures]:
    """Return what stands below the rows: those that are not shown, then all."""
    return [*([report.others] if report.others.jobs else []), report.total]


def _names_below(report: Report) -> tuple[str, ...]:
    if report.wanted.by == "job":
        names = f"{report.others.jobs} others", f"TOTAL {report.total.jobs}"
    else:
        names = "others", "TOTAL"
    return names if report.others.jobs else names[1:]


def _figure_columns(report: Report) -> list[Column]:
    found = []
    for title, rank, text in _OF_FIGURES:
        cells = tuple(text(row.figures) for row in report.rows)
        below = tuple(text(figures) for figures in _below(report))
        if title == "ENERGY" or not {*cells, *below} <= {NOT_KNOWN, ""}:
            found.append(Column(title, cells, below, rank, is_number=title != MARKS))
    return found


def _joules(joules: float | None) -> str:
    """Return an energy, negative ones too; `-` where it is not known."""
    if joules is None:
        return NOT_KNOWN
    sign = "-" if joules <= -LEAST_JOULES else ""
    return sign + energy_text(abs(joules) * UJ)


def _component(name: str) -> Callable[[Figures], str]:
    return lambda figures: _joules(figures.components.get(name))


def _carbon(figures: Figures) -> str:
    grams = figures.carbon_grams
    if grams is None:
        return NOT_KNOWN
    return f"<{LEAST_GRAMS} g" if 0 < grams < LEAST_GRAMS else carbon_text(grams)


def _cost(figures: Figures) -> str:
    amounts = [f"{_money(amount)} {currency}" for currency, amount in figures.cost.items()]
    return ", ".join(amounts).strip() or NOT_KNOWN


def _money(amount: float) -> str:
    if 0 < amount < LEAST_MONEY:
        return f"<{LEAST_MONEY}"
    return few_digits(amount) if 0 < amount < 0.1 else f"{amount:.2f}"  # noqa: PLR2004


def _gpu_hours(figures: Figures) -> str:
    if not figures.gpu_seconds:
        return NOT_KNOWN
    hours = figures.gpu_seconds / SECONDS_PER_HOUR
    return f"{hours:.2f}" if hours >= 0.01 else few_digits(hours)  # noqa: PLR2004


def _gpu_idle(figures: Figures) -> str:
    ratio = figures.gpu_idle_ratio
    # Who held no GPU has no share.
    return NOT_KNOWN if not ratio else f"{100 * ratio:.0f} %"


def _covered(figures: Figures) -> str:
    ratio = figures.coverage_ratio
    # Never rounded up to all of it.
    return NOT_KNOWN if ratio is None else f"{math.floor(1000 * ratio + 1e-6) / 10:g} %"


def _marks(figures: Figures) -> str:
    guessed = GUESSED if (figures.estimated_ratio or 0) >= LEAST_GUESSED else ""
    before = BEFORE if figures.began_before else ""
    return f"{before}{AFTER if figures.goes_on else ''}{guessed}"


_OF_FIGURES: tuple[tuple[str, int, Callable[[Figures], str]], ...] = (
    ("ENERGY", 0, lambda figures: _joules(figures.energy_joules)),
    (MARKS, 1, _marks),
    ("CPU", 10, _component("cpu")),
    ("DRAM", 12, _component("dram")),
    ("GPU", 9, _component("gpu")),
    ("WITH IDLE", 11, lambda figures: _joules(figures.full_energy_joules)),
    ("CARBON", 3, _carbon),
    ("COST", 4, _cost),
    ("GPU-HOURS", 5, _gpu_hours),
    ("GPU IDLE", 8, _gpu_idle),
    ("MEASURED", 7, _covered),
)

_LEGEND: Mapping[str, str] = {
    BEFORE: "began before the range",
    AFTER: "goes on after it",
    GUESSED: "part of it is estimated, not measured",
}


def legend(found: list[Column]) -> str:
    """Return what the marks mean that are there; "" where there are none."""
    used = {
        mark
        for column in found
        if column.title == MARKS
        for mark in "".join(column.cells + column.below)
    }
    return ", ".join(f"{mark} {text}" for mark, text in _LEGEND.items() if mark in used)


def site_text(report: Report) -> str:
    """Return where all the devices' energy went, a sum that closes; "" where nobody asked.

    What belongs together is held together by `TOGETHER`.
    """
    site = report.site
    if site is None:
        return ""
    parts = (
        ("jobs", site.jobs),
        ("idle", site.idle),
        ("unattributed", site.unattributed),
        ("difference", site.difference),
    )
    terms = [f"{name} {_joules(part)}{_share(part, site.measured)}" for name, part in parts]
    whole = f"all devices {_joules(site.measured)}"
    return f"{whole} = {' + '.join(term.replace(' ', TOGETHER) for term in terms)}"


def _share(joules: float, whole: float) -> str:
    # Adding 0 makes 0 of -0.
    return f" ({round(100 * joules / whole, 1) + 0:.1f} %)" if whole > 0 else ""
