"""Energy out of power: where a device tells what it draws and no more."""

from __future__ import annotations

from jobwatt.units import NS

__all__ = ["PowerIntegral"]

MOST_APART_NS = 10 * NS
"""Between two readings further apart than this anything may have happened: no line joins them."""


class PowerIntegral:
    """Adds up the power readings of one device by the trapezoidal rule, in microjoules."""

    __slots__ = ("_at_ns", "_power_uw", "_twice_nano")

    def __init__(self) -> None:
        self._twice_nano = 0  # twice µW times ns: exact, divided once
        self._power_uw: int | None = None
        self._at_ns = 0

    @property
    def value_uj(self) -> int:
        """The energy so far."""
        return self._twice_nano // (2 * NS)

    def add(self, power_uw: int, at_ns: int) -> int:
        """Take a reading of power in µW; return the time (ns) since the last whose energy is lost.

        A time that has passed already is no news.
        """
        before_uw, span_ns = self._power_uw, at_ns - self._at_ns
        if before_uw is not None and span_ns <= 0:
            return 0
        self._power_uw, self._at_ns = power_uw, at_ns
        if before_uw is None:
            return 0
        if span_ns > MOST_APART_NS:
            return span_ns
        self._twice_nano += (before_uw + power_uw) * span_ns
        return 0
