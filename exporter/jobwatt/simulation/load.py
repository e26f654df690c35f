"""How busy a made-up workload is over time: pure functions of the node's age.

A real day is shrunk to minutes, so that a dashboard that has just been opened shows one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Daily", "Load", "Phases", "Steady"]


class Load(Protocol):
    """A level between 0 (asleep) and 1 (uses all the CPUs that it can use) at each moment."""

    def level(self, seconds: float) -> float:
        """Return the level at this age of the node."""
        ...


@dataclass(frozen=True, slots=True)
class Steady:
    """Always the same."""

    share: float

    def level(self, seconds: float) -> float:
        """Return the level at this age of the node."""
        del seconds
        return self.share


@dataclass(frozen=True, slots=True)
class Daily:
    """People at work: a wave between a night and a day.

    Attributes:
        night, day: the lowest and the highest level.
        period_seconds: how long a day lasts.
        noon_seconds: when it is first at its highest.
    """

    night: float
    day: float
    period_seconds: float = 600.0
    noon_seconds: float = 150.0

    def level(self, seconds: float) -> float:
        """Return the level at this age of the node."""
        angle = 2 * math.pi * (seconds - self.noon_seconds) / self.period_seconds
        return self.night + (self.day - self.night) * (1 + math.cos(angle)) / 2


@dataclass(frozen=True, slots=True)
class Phases:
    """A cycle of phases, such as loading, training, validating.

    Attributes:
        cycle: `(seconds, level)` of each phase, in turn, for ever.
        ahead_seconds: how far into the cycle it is when the node starts.
    """

    cycle: tuple[tuple[float, float], ...]
    ahead_seconds: float = 0.0

    def level(self, seconds: float) -> float:
        """Return the level at this age of the node."""
        left = (seconds + self.ahead_seconds) % sum(length for length, _ in self.cycle)
        for length, share in self.cycle:
            if left < length:
                return share
            left -= length
        return self.cycle[-1][1]  # the remainder of floats may reach the very end
