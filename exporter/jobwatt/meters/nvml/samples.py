"""The driver's samples of which process kept a GPU busy."""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Any

from jobwatt.meters.nvml.library import Library, NothingFound, Unsupported
from jobwatt.units import NS

__all__ = ["ProcessSamples"]

_ROW = struct.Struct("@IQI12x")
"""nvml.h: nvmlProcessUtilizationSample_t: pid, timestamp, SM utilisation; the rest is not needed.

pynvml's own attributes cost 0.3 µs each, and there are hundreds a second.
"""

KEPT_NS = 10 * NS
"""The driver keeps about a hundred samples: ten seconds."""

MOST_PERCENT = 100

BACK_US = 500_000
"""A wall clock that goes back by more has been set."""


class ProcessSamples:
    """One GPU's samples, each told once.

    The driver is always asked for what is newer than the newest sample that it has shown: with the
    present time samples that are still on their way would be lost, with 0 all would come again.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._last_us = 0
        self._offset_us: int | None = None

    def read(
        self,
        handle: Any,  # noqa: ANN401 - a handle of pynvml
        residents: Collection[int],
        offset_us: int,
    ) -> tuple[dict[int, int], dict[int, int]] | None:
        """Return percent × samples by pid: of residents, and of others, since the last call.

        Args:
            handle: of the GPU.
            residents: pids of which it is known that they have used the GPU.
            offset_us: wall clock less monotonic clock, µs: the samples follow the wall clock.

        Returns:
            None where this GPU has no samples.

        Raises:
            Denied, Failed, Outdated: as the library.
        """
        if self._offset_us is not None and offset_us < self._offset_us - BACK_US:
            self._last_us = max(0, self._last_us + offset_us - self._offset_us)
        self._offset_us = offset_us
        busy: dict[int, int] = {}
        strays: dict[int, int] = {}
        try:
            rows = self._library.ask("nvmlDeviceGetProcessUtilization", handle, self._last_us)
        except NothingFound:
            return busy, strays
        except Unsupported:
            return None
        newest_us = self._last_us
        for row in rows:
            pid, at_us, percent = _ROW.unpack(row)
            if percent > MOST_PERCENT or at_us <= self._last_us or pid == 0:
                continue  # drivers also return rows that were never written
            newest_us = max(newest_us, at_us)
            if percent:
                found = busy if pid in residents else strays
                found[pid] = found.get(pid, 0) + percent
        self._last_us = newest_us
        return busy, strays
