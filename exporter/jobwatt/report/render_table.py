"""A report as a table of plain text that fits a width."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

from jobwatt.report.collect import Report
from jobwatt.report.columns import Column, columns, legend, site_text
from jobwatt.report.timerange import moment_text
from jobwatt.text import visible

__all__ = ["as_table"]

GAP = "  "
LEAST_TEXT = 10
"""A name is cut to no less."""

MOST_TEXT = 48
"""No name takes more room than this while a column has none."""


def as_table(report: Report, width: int, *, plain: bool = False) -> str:
    """Return lines of at most `width` columns, but for figures that need more; `plain` is ASCII."""
    window = report.wanted.window
    found = columns(report)
    shown = _fitting(found, width)
    left_out = [column.title for column in found if column not in shown and column.title]
    lines = [
        *_wrapped(f"JobWatt report by {report.wanted.by}, from {report.prometheus}", width),
        f"{moment_text(window.start)} to {moment_text(window.end)}",
        "",
        *_lines(shown, report, width),
        "",
        *(line for text in _below(report, shown, left_out) for line in _wrapped(text, width)),
    ]
    text = "\n".join(line.rstrip() for line in lines).rstrip() + "\n"
    return text.encode("ascii", "replace").decode() if plain else text


def _below(report: Report, shown: list[Column], left_out: list[str]) -> list[str]:
    marks = legend(shown)
    more = f"no room for {', '.join(left_out)}; --format csv has all" if left_out else ""
    notes = [f"note: {visible(note)}" for note in report.notes]
    return [text for text in (*site_text(report), marks, *notes, more) if text]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)


def _natural(column: Column) -> int:
    return max(cell_len(column.title), *map(cell_len, column.cells))


def _least(column: Column) -> int:
    natural = _natural(column)
    return natural if column.is_number else min(natural, LEAST_TEXT)


def _wanted(column: Column) -> int:
    natural = _natural(column)
    return natural if column.is_number else min(natural, MOST_TEXT)


def _fitting(found: Sequence[Column], width: int) -> list[Column]:
    """Return the columns that have room, without those of the highest ranks if need be."""
    shown = list(found)
    while len(shown) > 1 and sum(map(_least, shown)) + len(GAP) * (len(shown) - 1) > width:
        shown.remove(max(shown, key=lambda column: column.rank))
    return shown


def _widths(shown: Sequence[Column], width: int) -> list[int]:
    """Return each column's width: what names need beyond the room is taken from the longest."""
    widths = [_wanted(column) for column in shown]
    least = [_least(column) for column in shown]
    too_much = sum(widths) + len(GAP) * (len(shown) - 1) - width
    while too_much > 0:
        spare = [have - need for have, need in zip(widths, least, strict=True)]
        if not any(spare):
            break
        longest = max(range(len(shown)), key=lambda i: (spare[i] > 0, widths[i]))
        widths[longest] -= 1
        too_much -= 1
    return widths


def _lines(shown: Sequence[Column], report: Report, width: int) -> list[str]:
    widths = _widths(shown, width)
    titles = [_cell(c.title, w, c) for c, w in zip(shown, widths, strict=True)]
    lines = [GAP.join(titles)]
    for cells in zip(*(column.cells for column in shown), strict=True):
        filled = [_cell(t, w, c) for t, w, c in zip(cells, widths, shown, strict=True)]
        lines.append(GAP.join(filled))
    rule = "-" * min(width, max(cell_len(line.rstrip()) for line in lines))
    below = 2 if report.others.jobs else 1
    return [*lines[:-below], rule, *lines[-below:]]


def _cell(text: str, width: int, column: Column) -> str:
    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + "…"
    pad = " " * (width - cell_len(text))
    return pad + text if column.is_number else text + pad
