"""Names in a column of `jobwatt top`, cut so that no two different ones read the same.

What tells one from another is often not at the start: the elements of an array differ in the last
digits, units behind `systemd:`, pods in the UUID.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len, get_character_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

__all__ = ["Name", "names_of"]

END_CHARACTERS = 8
"""So much of an end that has digits is kept: it is a job's number, or the last of a UUID."""

START_CHARACTERS = 3
"""So much of a start is kept before that which tells a name from another."""

Pieces = tuple[slice, ...]
"""What is kept of a name; a mark stands for what is missing."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name that is cut when the width of its column is known."""

    text: Text
    column: _Column

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Say how wide it would like to be; it can always shrink."""
        del console
        return Measurement(1, self.text.cell_len).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it in one line."""
        del console
        mark = "~" if options.ascii_only else "…"
        line, stop = Text(style=self.text.style, no_wrap=True, overflow="crop"), 0
        for piece in self.column.pieces(options.max_width)[self.text.plain]:
            if piece.start > stop:
                line.append(mark)
            line.append_text(self.text[piece])
            stop = piece.stop
        yield line.append(mark if stop < len(self.text) else "")


def names_of(texts: Iterable[Text]) -> list[Name]:
    """Return the names of one column, in the same order."""
    texts = list(texts)
    column = _Column(tuple(dict.fromkeys(text.plain for text in texts)))
    return [Name(text, column) for text in texts]


@dataclass(frozen=True, slots=True)
class _Column:
    """All names of a column, and how they have been cut by width."""

    names: tuple[str, ...]
    cut: dict[int, dict[str, Pieces]] = field(default_factory=dict)

    def pieces(self, columns: int) -> dict[str, Pieces]:
        if columns not in self.cut:
            self.cut[columns] = _cut_apart(self.names, columns)
        return self.cut[columns]


def _cut_apart(names: Sequence[str], columns: int) -> dict[str, Pieces]:
    """Cut names to a width; where that makes some the same, show where they differ."""
    places = dict.fromkeys(names, 0)
    while True:
        cut = {name: _cut(name, columns, places[name]) for name in names}
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, pieces in cut.items():
            alike.setdefault(tuple(name[piece] for piece in pieces), []).append(name)
        moved = {
            name: place
            for same in alike.values()
            if len(same) > 1 and (place := _alike(same))
            for name in same
            if places[name] < place
        }
        if not moved:
            return cut
        places |= moved


def _cut(name: str, columns: int, place: int) -> Pieces:
    """Cut a name to a width.

    Args:
        name: the whole.
        columns: the width.
        place: where it differs from others; 0 while its start and end are enough.
    """
    if cell_len(name) <= columns:
        return (slice(0, len(name)),)
    if not place:
        end = len(name) - min(END_CHARACTERS, _fitting(name[::-1], columns // 2))
        if not any(character.isdigit() for character in name[end:]):
            return (slice(0, _fitting(name, columns - 1)),)
        return slice(0, _fitting(name, columns - 1 - cell_len(name[end:]))), slice(end, len(name))
    head = START_CHARACTERS if columns > 3 * START_CHARACTERS else 0
    room = columns - 1 - cell_len(name[:head])
    if cell_len(name[place:]) <= room:
        return slice(0, head), slice(len(name) - _fitting(name[::-1], room), len(name))
    return slice(0, head), slice(place, place + _fitting(name[place:], room - 1))


def _alike(names: Sequence[str]) -> int:
    """Return how many characters names begin with that all of them share."""
    first, last = min(names), max(names)
    pairs = enumerate(zip(first, last, strict=False))
    return next((place for place, (one, other) in pairs if one != other), len(first))


def _fitting(text: str, columns: int) -> int:
    """Return how many characters of a text's start fit."""
    for count, character in enumerate(text):
        columns -= get_character_cell_size(character)
        if columns < 0:
            return count
    return len(text)
