"""When the exporter of a made-up node takes its samples, and when it is away."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jobwatt.simulation.fleet import ALWAYS, Outage

__all__ = ["Samples"]

_DIGITS = 6
"""To which a number of intervals is exact in spite of floats."""


class Samples:
    """The samples of one exporter: each interval, but in an outage."""

    def __init__(self, interval_seconds: float, outages: Sequence[Outage]) -> None:
        self._interval = interval_seconds
        self._outages = outages

    def outage(self, at: float) -> Outage | None:
        """Return the outage in which a moment lies."""
        return next((o for o in self._outages if o.start < at < o.end), None)

    def first(self, at: float) -> float:
        """Return when the first sample at or after a moment is taken."""
        if at == ALWAYS:
            return at
        sample = math.ceil(round(at / self._interval, _DIGITS)) * self._interval
        outage = self.outage(sample)
        return sample if outage is None else self.first(outage.end)

    def last(self, at: float) -> float:
        """Return when the last sample at or before a moment was taken."""
        sample = math.floor(round(at / self._interval, _DIGITS)) * self._interval
        outage = self.outage(sample)
        return sample if outage is None else self.last(outage.start)

    def forgotten(self, now: float) -> float:
        """Return the sample at which counters last began anew; before all time: never."""
        lost = (self.first(o.end) for o in self._outages if o.forgets and o.end <= now)
        return max(lost, default=-ALWAYS)
