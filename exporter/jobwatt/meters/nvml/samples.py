"""The driver's samples of which process kept a GPU busy."""

from __future__ import annotations

import struct
from typing import Any

from jobwatt.meters.nvml.library import Library, NothingFound, Unsupported
from jobwatt.units import NS

__all__ = ["KEPT_NS", "ProcessSamples"]

_ROW = struct.Struct("@IQI12x")
"""nvml.h: nvmlProcessUtilizationSample_t: pid, timestamp, SM utilisation; the rest is not needed.

The attributes of pynvml's structures cost 0.3 µs each, and there are hundreds of rows a second.
"""

KEPT_NS = 10 * NS
"""The driver keeps about a hundred samples: ten seconds."""

MOST_PERCENT = 100

BACK_US = 500_000
"""A wall clock that goes back by more has been set."""

AHEAD_US = 1_000_000
"""A sample from further in the future is none: one that believed it would see no other."""


class ProcessSamples:
    """One GPU's samples, each told once.

    The driver is always asked for what is newer than the newest sample that it has shown: with the
    present time samples that are still on their way would be lost, with 0 all would come again.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._last_us = 0
        self._offset_us: int | None = None

    def read(self, handle: Any, now_ns: int, offset_us: int) -> dict[int, int] | None:  # noqa: ANN401
        """Return percent × samples by pid since the last call.

        Args:
            handle: of the GPU.
            now_ns: monotonic time.
            offset_us: wall clock less monotonic clock, µs: the samples follow the wall clock.

        Returns:
            None where this GPU has no samples.

        Raises:
            Denied, Failed, Outdated: as the library.
        """
        if self._offset_us is not None and offset_us < self._offset_us - BACK_US:
            self._last_us = max(0, self._last_us + offset_us - self._offset_us)
        self._offset_us = offset_us
        try:
            rows = self._library.ask("nvmlDeviceGetProcessUtilization", handle, self._last_us)
        except NothingFound:
            return {}
        except Unsupported:
            return None
        found: dict[int, int] = {}
        newest_us, future_us = self._last_us, now_ns // 1000 + offset_us + AHEAD_US
        for row in rows:
            pid, at_us, percent = _ROW.unpack(row)
            if pid == 0 or percent > MOST_PERCENT or not self._last_us < at_us <= future_us:
                continue  # drivers also return rows that were never written, or long ago
            newest_us = max(newest_us, at_us)
            if percent:
                found[pid] = found.get(pid, 0) + percent
        self._last_us = newest_us
        return found
