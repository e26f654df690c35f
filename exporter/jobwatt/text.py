"""Texts of strangers, made safe to show."""

from __future__ import annotations

__all__ = ["shown", "visible"]

_MOST_SHOWN = 40


def shown(value: object) -> str:
    """Return a value as Python writes it, or how that begins."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def visible(text: str, *, plain: bool = False) -> str:
    """Return a text as one line that is safe to print; `plain` for a terminal of ASCII only."""
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    return shown.encode("ascii", "backslashreplace").decode() if plain else shown
