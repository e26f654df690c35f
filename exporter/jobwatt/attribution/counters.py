"""From what a hardware counter shows to the energy since its last good reading."""

from __future__ import annotations

from dataclasses import dataclass

from jobwatt.model import Counter
from jobwatt.units import NS, UJ

__all__ = ["Advance", "CounterTrack"]

UNKNOWN_LIMIT_UW = 250 * UJ
"""Sustained power assumed of a package that states no limit: a gap is then judged at 500 W."""

PEAK_FACTOR = 4
"""A counter that implies more than this many times its limit was reset, not busy."""

LEAST_PEAK_UW = 1000 * UJ
"""No package is held impossible below this: short turbo windows exceed small limits many times."""

PEAK_SLACK_NS = NS
"""Added to the time when power is judged: a counter may be updated in steps."""


@dataclass(frozen=True, slots=True)
class Advance:
    """The energy of one counter between two good readings.

    Attributes:
        uj: energy in microjoules.
        span_ns: time between the readings.
        wrapped: the counter passed its range once.
        gap: so long that it may have wrapped more than once; `uj` is the least it can have been.
        reset: the counter began anew; the energy of `lost_ns` before is unknown.
        lost_ns: time whose energy is in no reading.
    """

    uj: int
    span_ns: int
    wrapped: bool = False
    gap: bool = False
    reset: bool = False
    lost_ns: int = 0


class CounterTrack:
    """Follows one counter over wraps, resets, gaps and false readings.

    A reading that would mean an impossible power is set aside until the next one tells what it
    was. If that one fits the reading before, the odd one was false (a half-written file) and
    nothing is lost; if it fits the odd one, the counter was reset.

    Attributes:
        doubtful: whether the last reading was set aside.
    """

    __slots__ = ("_at_ns", "_counter", "_odd", "_odd_at_ns", "_peak_uw", "_value", "doubtful")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        peak = max(counter.peak_uw or 0, counter.limit_uw or 0) or 2 * UNKNOWN_LIMIT_UW
        self._peak_uw = max(PEAK_FACTOR * peak, LEAST_PEAK_UW)
        self._value: int | None = None
        self._at_ns = 0
        self._odd: int | None = None
        self._odd_at_ns = 0
        self.doubtful = False

    @property
    def last(self) -> tuple[int, int] | None:
        """The last good reading and its monotonic time, None before the first."""
        return None if self._value is None else (self._value, self._at_ns)

    def resume(self, value: int, at_ns: int) -> None:
        """Go on from a good reading of an earlier run on the same boot."""
        self._accept(value, at_ns)

    def advance(self, value: int, now_ns: int) -> Advance | None:
        """Take a reading; return what was spent since the last good one.

        None for the first reading, for one without time since the last, and for a doubtful one.
        """
        size = self._counter.range_uj
        self.doubtful = size is not None and value > size
        if self.doubtful:
            return None
        if self._value is None:
            self._accept(value, now_ns)
            return None
        if now_ns <= self._at_ns:
            return None
        advance = self._difference(self._value, self._at_ns, value, now_ns)
        if advance is None and self._odd is not None and now_ns > self._odd_at_ns:
            since_odd = self._difference(self._odd, self._odd_at_ns, value, now_ns)
            if since_odd is not None and not since_odd.gap:
                advance = Advance(
                    since_odd.uj + self._since_reset(),
                    since_odd.span_ns,
                    wrapped=since_odd.wrapped,
                    reset=True,
                    lost_ns=self._odd_at_ns - self._at_ns,
                )
        if advance is None:
            self._odd, self._odd_at_ns = value, now_ns
            self.doubtful = True
            return None
        self._accept(value, now_ns)
        return advance

    def _since_reset(self) -> int:
        """Return the energy between a reset and the odd reading that showed it.

        A counter that never wraps begins at 0 again; one with a range may begin anywhere.
        """
        if self._counter.range_uj is not None or self._odd is None:
            return 0
        return self._odd if self._is_possible(self._odd, self._odd_at_ns - self._at_ns) else 0

    def _is_possible(self, uj: int, span_ns: int) -> bool:
        return uj * NS <= self._peak_uw * (span_ns + PEAK_SLACK_NS)

    def _accept(self, value: int, now_ns: int) -> None:
        self._value, self._at_ns, self._odd = value, now_ns, None

    def _difference(self, before: int, before_ns: int, value: int, now_ns: int) -> Advance | None:
        """Return the advance between two readings; None if no possible power explains it."""
        span_ns = now_ns - before_ns
        uj = value - before
        size = self._counter.range_uj
        wrapped = uj < 0
        if wrapped:
            if size is None:
                return None
            uj += size
        if size is not None:
            limit_uw = self._counter.limit_uw or UNKNOWN_LIMIT_UW
            # Two wraps fit at twice the limit: equally, one unseen wrap fits at the limit.
            if 2 * limit_uw * span_ns >= 2 * size * NS:
                return Advance(uj, span_ns, wrapped=wrapped, gap=True)
        if not self._is_possible(uj, span_ns):
            return None
        return Advance(uj, span_ns, wrapped=wrapped)
