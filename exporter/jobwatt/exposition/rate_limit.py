"""A token bucket: `burst` requests at once, then one each `interval`."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["RateLimit"]


class RateLimit:
    """Tells which requests still fit."""

    def __init__(
        self, interval: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take `interval` seconds > 0 and `burst` > 0."""
        self._interval = interval
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._then = clock()

    def allow(self) -> bool:
        """Return whether a request fits now, and count it if so."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._then) / self._interval)
        self._then = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
