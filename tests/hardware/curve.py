"""A value over time, known at some moments and straight in between."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise


class Curve:
    """A quantity that never falls, such as energy (J) over time (s)."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        self.times = [time for time, _ in points]
        self.values = [value for _, value in points]

    @classmethod
    def integral(cls, points: Sequence[tuple[float, float]]) -> Curve:
        """Energy (J) out of readings of power (W), by the trapezoidal rule."""
        steps = ((a[1] + b[1]) / 2 * (b[0] - a[0]) for a, b in pairwise(points))
        sums = accumulate(steps, initial=0.0)
        return cls([(time, value) for (time, _), value in zip(points, sums, strict=True)])

    @property
    def falls(self) -> int:
        """How often it fell all the same."""
        return sum(b < a for a, b in pairwise(self.values))

    def at(self, time: float) -> float:
        """The value at a moment; outside of what is known, the nearest."""
        return _between(self.times, self.values, time, bisect_right(self.times, time))

    def when(self, value: float) -> float:
        """The first moment at which the value was reached."""
        return _between(self.values, self.times, value, bisect_left(self.values, value))

    def over(self, start: float, end: float) -> float:
        """How much it grew."""
        return self.at(end) - self.at(start)


def _between(xs: Sequence[float], ys: Sequence[float], x: float, right: int) -> float:
    if right == 0:
        return ys[0]
    if right == len(xs):
        return ys[-1]
    x0, x1, y0, y1 = xs[right - 1], xs[right], ys[right - 1], ys[right]
    return y0 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
