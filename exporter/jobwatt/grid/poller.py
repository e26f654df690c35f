"""One provider asked about one zone, again and again, in a thread of its own."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from jobwatt.grid.board import Board
from jobwatt.grid.contract import GridError, Provider, Reason, checked, is_fresh

__all__ = ["Feed", "Poller"]

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 15.0
MOST_PAUSE_SECONDS = 900.0
"""After failures the pause doubles from the one to the other."""

PAUSE_SPREAD = (0.5, 1.5)
"""Jitter of those pauses: who failed together does not come back together."""

INTERVAL_SPREAD = (0.95, 1.05)


@dataclass(frozen=True, slots=True)
class Feed:
    """What is polled: a provider, for a zone, every so many seconds."""

    zone: str
    provider: Provider
    interval: float


class Poller:
    """Asks, checks the answer, leaves it on the board, and knows when to ask again.

    `clock` gives Unix seconds, `spread` a number between two.
    """

    def __init__(
        self,
        feed: Feed,
        board: Board,
        clock: Callable[[], float] = time.time,
        spread: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._feed = feed
        self._board = board
        self._clock = clock
        self._spread = spread
        self._failures = 0
        self._error = ""

    def run(self, stop: threading.Event) -> None:
        """Poll until told to stop."""
        while not stop.wait(self.poll()):
            pass

    def poll(self) -> float:
        """Ask once; return the seconds until the next time."""
        try:
            self._ask()
        except GridError as error:
            return self._failed(error)
        except Exception:
            log.exception("%s has failed; please report this", self._feed.provider.name)
            return self._failed(GridError(Reason.INTERNAL, "an error nobody foresaw; see the log"))
        if self._failures:
            log.info("%s: %s is back", self._feed.zone, self._feed.provider.name)
        self._failures, self._error = 0, ""
        return self._feed.interval * self._spread(*INTERVAL_SPREAD)

    def _ask(self) -> None:
        provider = self._feed.provider
        intensity = checked(provider.intensity(self._clock()), self._clock())
        now = self._clock()
        if not is_fresh(intensity, now):
            hours = (now - (intensity.time or now)) / 3600
            raise GridError(Reason.STALE, f"the newest value is {hours:.1f} h old")
        self._board.succeeded(self._feed.zone, provider.name, intensity)

    def _failed(self, error: GridError) -> float:
        self._board.failed(self._feed.zone, self._feed.provider.name, error)
        if str(error) != self._error:  # once, not at every attempt
            self._error = str(error)
            log.warning("%s: %s: %s", self._feed.zone, self._feed.provider.name, error)
        # Not beyond what a float can hold, however long it lasts.
        doubled = FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 16)
        self._failures += 1
        pause = min(doubled, MOST_PAUSE_SECONDS) * self._spread(*PAUSE_SPREAD)
        return max(pause, error.retry_after or 0.0)
