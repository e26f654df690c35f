"""Cells and tables of `jobwatt top`: how one thing is written in a terminal.

Names come from strangers: they are never read as markup, and what is invisible or would steer the
terminal is shown escaped.
"""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from jobwatt.text import visible
from jobwatt.units import power_text

__all__ = ["BAR_COLUMNS", "GAP_COLUMNS", "bar", "cell", "new_table", "power_cell", "visible"]

BAR_COLUMNS = 16
GAP_COLUMNS = 2
"""Between two columns of a table."""


def new_table() -> Table:
    """Return a table without lines, its heading dim."""
    return Table(
        box=None, pad_edge=False, padding=(0, GAP_COLUMNS, 0, 0), header_style="dim", expand=False
    )


def cell(text: str, style: str = "", *, plain: bool) -> Text:
    """Write a name; what does not fit is cut."""
    # Not wrapped by itself, so that its column may shrink without growing a second line.
    return Text(visible(text, plain=plain), style, no_wrap=True, overflow="ellipsis")


def power_cell(watts: float | None, style: str = "") -> Text:
    """Write a power, or that it is not known."""
    return Text("-", "dim") if watts is None else Text(power_text(watts), style)


def bar(
    share: float | None, *, plain: bool, style: str = "green", columns: int = BAR_COLUMNS
) -> Text:
    """Draw a share of 1; nothing where there is no limit to measure it by."""
    if share is None:
        return Text("")
    filled = round(min(max(share, 0.0), 1.0) * columns)
    full, empty = ("#", ".") if plain else ("━", "─")
    drawn = Text(full * filled, style)
    drawn.append(empty * (columns - filled), "dim")
    return drawn
