"""Ranges of time: how they are written, and how they are cut so that each sample counts once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from jobwatt.units import duration_seconds

__all__ = ["LEAST_MS", "Window", "first_length_ms", "moment", "moment_text", "windows"]

SECOND_MS = 1000
DAY_MS = 86_400 * SECOND_MS

MOST_WINDOWS = 8
"""A range is asked for by day, a long one in so many parts: each costs a round trip a question."""

LEAST_MS = 3_600 * SECOND_MS
"""A window that Prometheus finds too big is halved down to this, then divided by job."""

_RELATIVE = re.compile(r"now(?:\s*-\s*(.+))?", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The moments after `start_ms` up to `end_ms`, that one included; Unix milliseconds.

    A recorded difference stands at the end of the time that it covers: so windows that touch share
    no sample and leave none out.
    """

    start_ms: int
    end_ms: int

    @property
    def length_ms(self) -> int:
        """Milliseconds."""
        return self.end_ms - self.start_ms

    @property
    def start(self) -> float:
        """Unix seconds."""
        return self.start_ms / SECOND_MS

    @property
    def end(self) -> float:
        """Unix seconds."""
        return self.end_ms / SECOND_MS


def windows(whole: Window, most_ms: int) -> list[Window]:
    """Return windows of at most `most_ms` that are `whole` together, cut at whole seconds.

    `most_ms` is a whole number of seconds.
    """
    parts = max(1, -(-whole.length_ms // most_ms))
    step = max(SECOND_MS, -(-whole.length_ms // parts // SECOND_MS) * SECOND_MS)
    borders = [*range(whole.start_ms, whole.end_ms, step), whole.end_ms]
    return [Window(*pair) for pair in pairwise(borders)]


def first_length_ms(whole: Window) -> int:
    """Return the length of the windows to begin with."""
    share = -(-whole.length_ms // MOST_WINDOWS // SECOND_MS) * SECOND_MS
    return max(DAY_MS, share)


def moment(text: str, now: float) -> float:
    """Return the Unix time, in whole seconds, of `now-7d`, `2026-11-01` or an RFC 3339 time.

    A date is its midnight, and a time without an offset is one of the local time zone.

    Raises:
        ValueError: it is none of these.
    """
    stripped = text.strip()
    if found := _RELATIVE.fullmatch(stripped):
        return float(int(now - (duration_seconds(found[1]) if found[1] else 0.0)))
    try:
        return float(int(datetime.fromisoformat(stripped).astimezone().timestamp()))
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{text!r} is no time; write it like now-7d, 2026-11-01, 2026-11-01T08:00 or "
            "2026-11-01T08:00:00Z"
        ) from error


def moment_text(seconds: float) -> str:
    """Return a Unix time in the local time zone, with its offset: `2026-11-01 08:00:00+01:00`."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(" ", "seconds")
