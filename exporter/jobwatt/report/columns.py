"""The columns of a report for people: what stands in them, in readable units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jobwatt.report.collect import Report
from jobwatt.report.jobs import Job
from jobwatt.report.rows import Figures
from jobwatt.text import visible
from jobwatt.units import UJ, carbon_text, energy_text, few_digits

__all__ = ["Column", "columns", "legend", "site_text"]

NOT_KNOWN = "-"
SECONDS_PER_HOUR = 3600.0

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
        cells: of the rows, then of those that are not shown (if there are any), then of the total.
        rank: columns of a high rank go first where there is no room.
        is_number: numbers stand at the right, and are never cut.
    """

    title: str
    cells: tuple[str, ...]
    rank: int
    is_number: bool = True


def columns(report: Report) -> list[Column]:
    """Return all columns that have something in them."""
    jobs = _job_columns(report) if report.wanted.by == "job" else _group_columns(report)
    return [*jobs, *_figure_columns(report)]


def _job_columns(report: Report) -> list[Column]:
    below = _names_below(report)
    found = []
    for title, rank, text in _OF_JOBS:
        cells = [visible(text(row.job)) if row.job else "" for row in report.rows]
        if title == "JOB":
            found.append(Column(title, (*cells, *below), rank, is_number=False))
        elif any(cells) and (title != "CLUSTER" or len(report.clusters) > 1):
            found.append(Column(title, (*cells, *("" for _ in below)), rank, is_number=False))
    return found


_OF_JOBS: tuple[tuple[str, int, Callable[[Job], str]], ...] = (
    ("JOB", 0, lambda job: job.job_uid),
    ("NAME", 4, lambda job: job.names.job_name),
    ("USER", 2, lambda job: job.names.user),
    ("ACCOUNT", 7, lambda job: job.names.account),
    ("QUEUE", 13, lambda job: job.names.queue),
    ("NAMESPACE", 14, lambda job: job.names.namespace),
    ("CLUSTER", 3, lambda job: job.cluster),
    ("STATE", 6, lambda job: job.state().value),
)


def _group_columns(report: Report) -> list[Column]:
    names = [visible(row.key) or "(none)" for row in report.rows]
    all_figures = [*(row.figures for row in report.rows), *_figures_below(report)]
    counts = tuple(f"{figures.jobs}" for figures in all_figures)
    return [
        Column(report.wanted.by.upper(), (*names, *_names_below(report)), 0, is_number=False),
        Column("JOBS", counts, 1),
    ]


def _figures_below(report: Report) -> list[Figures]:
    """Return what stands below the rows: those that are not shown, then all."""
    return [*([report.others] if report.others.jobs else []), report.total]


def _names_below(report: Report) -> list[str]:
    if report.wanted.by != "job":
        return [*(["others"] if report.others.jobs else []), "TOTAL"]
    others = [f"{report.others.jobs} others"] if report.others.jobs else []
    return [*others, f"TOTAL of {report.total.jobs}"]


def _figure_columns(report: Report) -> list[Column]:
    all_figures = [*(row.figures for row in report.rows), *_figures_below(report)]
    found = []
    for title, rank, text in _OF_FIGURES:
        cells = tuple(text(figures) for figures in all_figures)
        if any(cell not in {NOT_KNOWN, ""} for cell in cells) or title == "ENERGY":
            found.append(Column(title, cells, rank, is_number=title != MARKS))
    return found


def _joules(joules: float | None) -> str:
    """Return an energy, negative ones too; `-` where it is not known."""
    if joules is None:
        return NOT_KNOWN
    return energy_text(joules * UJ) if joules >= 0 else f"-{energy_text(-joules * UJ)}"


def _component(name: str) -> Callable[[Figures], str]:
    return lambda figures: _joules(figures.components.get(name))


def _carbon(figures: Figures) -> str:
    return NOT_KNOWN if figures.carbon_grams is None else carbon_text(figures.carbon_grams)


def _cost(figures: Figures) -> str:
    amounts = [f"{_money(amount)} {visible(c)}".strip() for c, amount in figures.cost.items()]
    return ", ".join(amounts) or NOT_KNOWN


def _money(amount: float) -> str:
    return f"{amount:.2f}" if amount >= 0.1 or amount == 0 else few_digits(amount)  # noqa: PLR2004


def _gpu_hours(figures: Figures) -> str:
    if not figures.gpu_seconds:
        return NOT_KNOWN
    hours = figures.gpu_seconds / SECONDS_PER_HOUR
    return f"{hours:.1f}" if hours >= 10 else few_digits(hours)  # noqa: PLR2004


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
    used = {mark for column in found if column.title == MARKS for mark in "".join(column.cells)}
    return ", ".join(f"{mark} {text}" for mark, text in _LEGEND.items() if mark in used)


def site_text(report: Report) -> list[str]:
    """Return where all the devices' energy went: a sum that closes."""
    site = report.site
    if site is None:
        return []
    parts = (
        ("jobs", site.jobs),
        ("idle", site.idle),
        ("unattributed", site.unattributed),
        ("difference", site.difference),
    )
    terms = [f"{name} {_joules(part)}{_share(part, site.measured)}" for name, part in parts]
    return [f"all devices {_joules(site.measured)} = {' + '.join(terms)}"]


def _share(joules: float, whole: float) -> str:
    return f" ({100 * joules / whole:.1f} %)" if whole > 0 else ""
