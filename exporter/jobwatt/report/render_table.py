"""A report as a table of plain text that fits a width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.cells import cell_len, set_cell_size

from jobwatt.report.collect import Report
from jobwatt.report.columns import TOGETHER, Column, columns, legend, site_text
from jobwatt.report.timerange import moment_text
from jobwatt.text import visible

__all__ = ["as_table"]

GAP = "  "
CUT, PLAIN_CUT = "…", "."
LEAST_KEY, LEAST_TEXT = 24, 10
"""What a row is about, and other names, are cut to no less; rather a column goes."""

MOST_TEXT = 48
"""No name takes more room than this while a column has none."""


def as_table(report: Report, width: int, *, plain: bool = False) -> str:
    """Return lines of at most `width` columns, but for figures that need more; `plain` is ASCII."""
    window = report.wanted.window
    found = [_safe(column, plain=plain) for column in columns(report)]
    shown = _fitting(found, width)
    left_out = [column.title for column in found if column not in shown and column.title]
    told = _below(report, shown, left_out, plain=plain)
    below = [line for text in told for line in _wrapped(text, width)]
    lines = [
        *_wrapped(f"JobWatt report by {report.wanted.by}, from {report.prometheus}", width),
        *_wrapped(f"{moment_text(window.start)} to {moment_text(window.end)}", width),
        "",
        *_lines(shown, width),
        "",
        *below,
    ]
    text = "\n".join(line.rstrip() for line in lines).rstrip() + "\n"
    return text.replace(CUT, PLAIN_CUT) if plain else text


def _safe(column: Column, *, plain: bool) -> Column:
    cells, below = (
        tuple(visible(cell, plain=plain) for cell in part) for part in (column.cells, column.below)
    )
    return replace(column, cells=cells, below=below)


def _below(report: Report, shown: list[Column], left_out: list[str], *, plain: bool) -> list[str]:
    marks = legend(shown)
    more = f"no room for {', '.join(left_out)}; --format csv has all" if left_out else ""
    notes = [f"note: {visible(note, plain=plain)}" for note in report.notes]
    return [text for text in (site_text(report), marks, *notes, more) if text]


def _wrapped(text: str, width: int) -> list[str]:
    lines = textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace(TOGETHER, " ") for line in lines]


def _natural(column: Column) -> int:
    return max(map(cell_len, (column.title, *column.cells, *column.below)))


def _within(column: Column, most: int) -> int:
    """Return a column's width, with names cut to `most`; figures and sums' names are never cut."""
    natural = _natural(column)
    return natural if column.is_number else min(natural, max(most, *map(cell_len, column.below)))


def _least(column: Column) -> int:
    return _within(column, LEAST_TEXT if column.rank else LEAST_KEY)


def _fitting(found: Sequence[Column], width: int) -> list[Column]:
    """Return the columns that have room, without those of the highest ranks if need be."""
    shown = list(found)
    while len(shown) > 1 and sum(map(_least, shown)) + len(GAP) * (len(shown) - 1) > width:
        shown.remove(max(shown, key=lambda column: column.rank))
    return shown


def _widths(shown: Sequence[Column], width: int) -> list[int]:
    """Return each column's width: what names need beyond the room is taken from the longest."""
    widths = [_within(column, MOST_TEXT) for column in shown]
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


def _lines(shown: Sequence[Column], width: int) -> list[str]:
    widths = _widths(shown, width)

    def line(cells: Iterable[str]) -> str:
        return GAP.join(map(_cell, cells, widths, shown))

    above = [line(column.title for column in shown)]
    above += map(line, zip(*(column.cells for column in shown), strict=True))
    below = list(map(line, zip(*(column.below for column in shown), strict=True)))
    return [*above, "-" * max(cell_len(text.rstrip()) for text in above + below), *below]


def _cell(text: str, width: int, column: Column) -> str:
    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + CUT
    pad = " " * (width - cell_len(text))
    return pad + text if column.is_number else text + pad
