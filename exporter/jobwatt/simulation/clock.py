"""The clock of a made-up node: it may begin in the past, and then catches up."""

from __future__ import annotations

import time

from jobwatt.units import NS

__all__ = ["STRIDE_SECONDS", "SimulatedClock"]

STRIDE_SECONDS = 5.0
"""How far the past advances from one look to the next."""


class SimulatedClock:
    """Goes like this machine's clocks, some time behind, until it has caught up with them."""

    def __init__(self, past_seconds: float = 0.0) -> None:
        """Begin so many seconds ago."""
        self._behind_ns = round(past_seconds * NS)

    def monotonic_ns(self) -> int:
        """Return the monotonic time."""
        return time.monotonic_ns() - self._behind_ns

    def wall(self) -> float:
        """Return the Unix time."""
        return time.time() - self._behind_ns / NS

    def catch_up(self) -> bool:
        """Let a stride of the past go by; whether there was any."""
        is_behind = self._behind_ns > 0
        self._behind_ns = max(0, self._behind_ns - round(STRIDE_SECONDS * NS))
        return is_behind
