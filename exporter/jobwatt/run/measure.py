"""Who measures a run: the node's exporter, or this command itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jobwatt.errors import RunError
from jobwatt.exposition.status import status
from jobwatt.sampler import Sampler

__all__ = ["ByExporter", "ByOurselves", "Measurer", "Pause", "Status", "interval_of"]

log = logging.getLogger(__name__)

Status = Mapping[str, Any]
"""What `/api/v1/status` tells, see `jobwatt.exposition.status`."""

Pause = Callable[[float], bool]
"""Waits so many seconds; returns False at once when nobody wants to wait any longer."""

MARGIN_SECONDS = 0.02
PATIENCE_SECONDS = 2.0
"""How much longer than its intervals an exporter may take."""

RESTART_SECONDS, AGAIN_SECONDS = 15.0, 0.5
"""How long an exporter may take to come back, and how often it is looked for meanwhile."""

SETTLE_SECONDS = 0.05
"""Hardware counters move every millisecond, the machine's clock ticks every ten."""


class Measurer(Protocol):
    """Tells what was used up to now."""

    def begin(self) -> Status:
        """Return the status before the command begins; raises RunError where there is none."""
        ...

    def finish(self, ended: float, pause: Pause) -> Status:
        """Return a status that has all that was used until `ended` (Unix time), if one comes.

        Raises:
            RunError: no status can be had any more.
        """
        ...


def interval_of(told: Status) -> float:
    """Return the sampling interval that a status tells."""
    interval = told.get("interval")
    return float(interval) if isinstance(interval, int | float) and interval > 0 else 1.0


class ByExporter:
    """Asks an exporter, which samples by itself."""

    def __init__(self, read: Callable[[], Status]) -> None:
        """Take what asks for its status."""
        self._read = read

    def begin(self) -> Status:
        """Ask once."""
        return self._read()

    def finish(self, ended: float, pause: Pause) -> Status:
        """Ask until it has sampled since then; with GPUs once more, whose drivers answer late.

        One that does not answer may be starting anew, and still have the account.
        """
        begun = time.monotonic()
        while True:
            told, trouble = self._try_to_read()
            patience, due = RESTART_SECONDS, AGAIN_SECONDS
            if told is not None:
                interval, samples = interval_of(told), 2 if _has_gpus(told) else 1
                if _sampled_after(told, ended + (samples - 1) * interval):
                    return told
                patience = (samples + 1) * interval + PATIENCE_SECONDS
                due = min(max(0.0, float(told["time"]) + interval - time.time()), interval)
            is_over = time.monotonic() - begun > patience
            if is_over or not pause(due + MARGIN_SECONDS):
                break
        if trouble is not None:
            raise trouble
        return told or {}

    def _try_to_read(self) -> tuple[Status | None, RunError | None]:
        try:
            return self._read(), None
        except RunError as error:
            return None, error


class ByOurselves:
    """Samples in a thread of its own for as long as the command runs."""

    def __init__(self, sampler: Sampler) -> None:
        """Take what samples."""
        self._sampler = sampler
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._failed = ""

    def begin(self) -> Status:
        """Take the first sample and go on sampling."""
        told = status(self._sampler.sample())
        self._thread.start()
        return told

    def finish(self, ended: float, pause: Pause) -> Status:
        """Take the last sample now; with GPUs one more, whose drivers answer late."""
        del ended
        self._stop.set()
        self._thread.join()
        if self._failed:
            raise RunError(f"measuring failed: {self._failed}")
        pause(SETTLE_SECONDS)
        told = status(self._sampler.sample())
        if _has_gpus(told) and pause(interval_of(told)):
            told = status(self._sampler.sample())
        return told

    def _run(self) -> None:
        try:
            self._sampler.run(self._stop)
        except Exception as error:  # the command must not suffer
            log.exception("sampling failed; please report this")
            self._failed = f"{type(error).__name__}: {error}"


def _sampled_after(told: Status, moment: float) -> bool:
    """Whether the last sample began after a moment; a status is written after its sample."""
    health = told.get("health") or {}
    return float(told["time"]) - float(health.get("sample_seconds") or 0.0) > moment


def _has_gpus(told: Status) -> bool:
    return any(device.get("component") == "gpu" for device in told.get("devices", ()))
