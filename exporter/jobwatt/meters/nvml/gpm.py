"""How busy the instances of a GPU are, by its performance monitors (GPM; Hopper and later)."""

from __future__ import annotations

import math
from typing import Any

from jobwatt.errors import ReadError
from jobwatt.meters.nvml.library import Library, Unsupported

__all__ = ["Monitors"]

_SM_UTIL = 2  # nvml.h: NVML_GPM_METRIC_SM_UTIL, percent
_VERSION = 1  # nvml.h: NVML_GPM_METRICS_GET_VERSION


class Monitors:
    """The performance monitors of one GPU, sampled once a look."""

    def __init__(self, library: Library, handle: Any) -> None:  # noqa: ANN401 - a handle of pynvml
        self._library = library
        self._handle = handle
        self._before: dict[int, Any] = {}
        self._found: dict[int, float | None] = {}
        self._spare: list[Any] = []
        try:
            support = library.ask("nvmlGpmQueryDeviceSupport", handle)
            self.supported = bool(support.isSupportedDevice)
        except ReadError:
            self.supported = False

    def begin_look(self) -> None:
        """Begin another look; what an instance has not been asked in the last is forgotten."""
        for gone in self._before.keys() - self._found.keys():
            self._spare.append(self._before.pop(gone))
        self._found = {}

    def activity(self, gpu_instance: int) -> float | None:
        """Return how busy an instance's multiprocessors were since the look before, 0 to 1.

        Several compute instances may share it: they are told the same. None at the first look, and
        where the monitors do not tell.
        """
        if self.supported and gpu_instance not in self._found:
            self._found[gpu_instance] = self._sample(gpu_instance)
        return self._found.get(gpu_instance)

    def _sample(self, gpu_instance: int) -> float | None:
        ask = self._library.ask
        before = self._before.pop(gpu_instance, None)
        try:
            sample = self._spare.pop() if self._spare else ask("nvmlGpmSampleAlloc")
            try:
                ask("nvmlGpmMigSampleGet", self._handle, gpu_instance, sample)
            except ReadError:
                self._spare.append(sample)
                raise
            self._before[gpu_instance] = sample
            return None if before is None else self._busy(before, sample)
        except Unsupported:
            self.supported = False
            return None
        except ReadError:
            return None
        finally:
            if before is not None:
                self._spare.append(before)

    def _busy(self, before: Any, after: Any) -> float | None:  # noqa: ANN401 - as pynvml has it
        metrics = self._library.new("c_nvmlGpmMetricsGet_t")
        metrics.version = _VERSION
        metrics.numMetrics = 1
        metrics.sample1, metrics.sample2 = before, after
        metrics.metrics[0].metricId = _SM_UTIL
        self._library.ask("nvmlGpmMetricsGet", metrics)
        metric = metrics.metrics[0]
        if metric.nvmlReturn != 0 or not math.isfinite(metric.value):
            return None
        return float(metric.value) / 100
