"""A thread of its own for a meter whose calls may block: a driver's.

The sampler asks, waits a moment, and goes on without an answer; it is there at the next sample.
Nobody waits for a call that never returns, and that shows.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from jobwatt.errors import TimedOut
from jobwatt.model import Fault, Report, Source
from jobwatt.units import NS

__all__ = ["BlockingMeter", "OwnThread"]

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.05
"""How long a sample waits for an answer that is on its way."""

PERIOD_SECONDS = 5.0
"""The meter is read at least this often, whatever the interval: drivers forget after ten seconds,
and power must be read often to be integrated."""

STALLED_SECONDS = 10.0
"""A call that takes longer is a fault."""

ABSENT_SECONDS = 30.0
"""Where there is nothing to read, it is looked for this often."""


class BlockingMeter(Protocol):
    """A meter that may take its time."""

    @property
    def name(self) -> str:
        """What it reads, for people."""
        ...

    @property
    def sources(self) -> Sequence[Source]:
        """The sources that it has seen, or would report on."""
        ...

    def read(self) -> Sequence[Report]:
        """Read all counters now; no report where this machine has nothing of the kind."""
        ...


class OwnThread:
    """Runs a blocking meter; a `Meter` that never blocks."""

    def __init__(
        self,
        meter: BlockingMeter,
        *,
        period_seconds: float = PERIOD_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        stalled_seconds: float = STALLED_SECONDS,
        absent_seconds: float = ABSENT_SECONDS,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._meter = meter
        self._period = period_seconds
        self._patience = patience_seconds
        self._stalled_ns = round(stalled_seconds * NS)
        self._absent_ns = round(absent_seconds * NS)
        self._clock = clock
        self._reports: deque[Report] = deque()
        self._asked = threading.Event()
        self._answered = threading.Event()
        self._answered.set()
        self._busy_since_ns: int | None = None
        self._next_ns: int | None = None
        self._thread: threading.Thread | None = None

    def read(self, now_ns: int) -> Sequence[Report]:
        """Return what has been read since the last call, and of now if that comes at once."""
        if self._next_ns is not None and now_ns < self._next_ns and not self._reports:
            return ()
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._read_on, name=self._meter.name, daemon=True
            )
            self._thread.start()
        if self._answered.is_set():
            self._answered.clear()
            self._asked.set()
            self._answered.wait(self._patience)
        reports = [self._reports.popleft() for _ in range(len(self._reports))]
        busy_since_ns = self._busy_since_ns
        if reports or busy_since_ns is None:
            return reports
        busy_ns = self._clock() - busy_since_ns
        return self._stalled(now_ns, busy_ns) if busy_ns > self._stalled_ns else ()

    def _stalled(self, now_ns: int, busy_ns: int) -> Sequence[Report]:
        fault = Fault(
            self._meter.name,
            TimedOut.reason,
            f"{self._meter.name}: the driver has not answered for {busy_ns // NS} s; its devices "
            "are not measured until it does",
        )
        return [Report(source, now_ns, faults=(fault,)) for source in self._meter.sources]

    def _read_on(self) -> None:
        """Read whenever asked, and now and then unasked: seldom where there is nothing."""
        is_there = True
        while True:
            asked = self._asked.wait(self._period if is_there else self._absent_ns / NS)
            if asked:  # else one who asks just now would wait for ever
                self._asked.clear()
            self._busy_since_ns = self._clock()
            try:
                reports = self._meter.read()
            except Exception:
                log.exception("%s: reading failed; please report this", self._meter.name)
                os._exit(1)
            self._busy_since_ns = None
            self._reports.extend(reports)
            is_there = bool(reports)
            self._next_ns = None if is_there else self._clock() + self._absent_ns
            if asked:
                self._answered.set()
