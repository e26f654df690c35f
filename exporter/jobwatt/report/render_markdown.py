"""A report as Markdown, for a ticket or a wiki."""

from __future__ import annotations

import re
from collections.abc import Iterable

from jobwatt.report.collect import Report
from jobwatt.report.columns import TOGETHER, columns, legend, site_text
from jobwatt.report.timerange import moment_text
from jobwatt.text import visible

__all__ = ["as_markdown"]

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&#!]|:(?=//))")
"""What Markdown, HTML or an automatic link might make more of than a letter."""


def as_markdown(report: Report) -> str:
    """Return a heading, a table with all columns, and the notes."""
    window = report.wanted.window
    found = columns(report)
    below = [site_text(report).replace(TOGETHER, " "), legend(found), *map(visible, report.notes)]
    lines = [
        f"# JobWatt report by {report.wanted.by}",
        "",
        f"{moment_text(window.start)} to {moment_text(window.end)}",
        "",
        _line(_safe(column.title) for column in found),
        _line("---:" if column.is_number else "---" for column in found),
        *(
            _line(_safe(visible(cell)) for cell in cells)
            for cells in zip(*(column.cells + column.below for column in found), strict=True)
        ),
        "",
        *(f"- {_safe(text)}" for text in below if text),
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _safe(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
