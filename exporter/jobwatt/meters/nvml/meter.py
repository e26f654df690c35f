"""All NVIDIA GPUs of the machine; a `BlockingMeter`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from jobwatt.errors import Absent, ReadError
from jobwatt.gpus import GpuState
from jobwatt.host.files import read_text
from jobwatt.meters.nvml.device import NvmlDevice
from jobwatt.meters.nvml.library import Library, Mismatch, NoDriver, Outdated
from jobwatt.model import Device, Fault, Reading, Report, Source
from jobwatt.units import NS

__all__ = ["NvmlMeter"]

log = logging.getLogger(__name__)

LEAST_WAIT_NS, MOST_WAIT_NS = 10 * NS, 60 * NS
"""Between two attempts to mend what is wrong with the library, or to find a missing GPU."""


class NvmlMeter:
    """Reads every GPU that NVML shows; one that fails does not stop the others."""

    name = "NVML"

    def __init__(
        self,
        sysfs: Path,
        *,
        foreign: bool = False,
        library: Library | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], int] = time.time_ns,
        must_restart: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take the machine; nothing is asked before the first read.

        Args:
            sysfs: for what the kernel knows of the driver and of sleeping GPUs.
            foreign: the driver tells pids of another namespace than the procfs shows.
            library: NVML.
            clock: monotonic time, nanoseconds.
            wall: Unix time, nanoseconds.
            must_restart: called with the driver's version when only a new process can go on: the
                library was of another version than the kernel module, and that has changed.
        """
        self._sysfs = sysfs
        self._foreign = foreign
        self._library = library or Library()
        self._clock = clock
        self._wall = wall
        self._must_restart = must_restart
        self._devices: dict[str, NvmlDevice] = {}
        self._missing: list[Fault] = []
        self._due_ns = 0
        self._wait_ns = LEAST_WAIT_NS
        self._is_outdated = False
        self._trouble: ReadError | None = None
        self._mismatched: str | None = None

    @property
    def sources(self) -> Sequence[Source]:
        """The sources of the GPUs seen so far."""
        seen = dict.fromkeys(gpu.device.source for gpu in self._devices.values())
        return tuple(seen) or (Source.NVML_ENERGY,)

    def read(self) -> Sequence[Report]:
        """Read all GPUs; no report where there is no NVIDIA driver."""
        try:
            self._start()
        except NoDriver:
            if not self._devices:
                return ()
            return self._all_unread("the driver's library has gone", Absent.reason)
        except ReadError as error:
            return self._all_unread(str(error), error.reason)
        if not self._devices and not self._missing:
            return ()
        return self._look()

    # --- the library ----------------------------------------------------------------------------

    def _start(self) -> None:
        """Start the library where it is not, anew where a look asked for it; find the GPUs.

        A library that works is left alone as far as possible: where nobody else has it open, the
        driver forgets its counters when it is shut down.
        """
        now_ns = self._clock()
        if now_ns < self._due_ns:
            if not self._library.started and self._trouble is not None:
                raise self._trouble
        elif self._is_outdated or not self._library.started:
            self._due_ns = now_ns + (self._wait_ns if self._library.started else LEAST_WAIT_NS)
            self._wait_ns = min(2 * self._wait_ns, MOST_WAIT_NS)
            self._is_outdated = False
            self._library.stop()
            self._watch_for_another_driver()
            self._attempt(self._library.start)
            self._attempt(self._find_gpus)
        elif self._missing:
            self._due_ns = now_ns + MOST_WAIT_NS
            self._attempt(self._find_gpus)

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except ReadError as error:
            if isinstance(error, Mismatch) and self._mismatched is None:
                self._mismatched = self._driver_of_kernel()
            self._trouble = error
            self._library.stop()
            raise
        self._trouble = None

    def _watch_for_another_driver(self) -> None:
        """The library that this process has loaded stays: only another process gets a new one."""
        if self._mismatched is not None and self._driver_of_kernel() != self._mismatched:
            self._must_restart(self._driver_of_kernel())

    def _driver_of_kernel(self) -> str:
        try:
            return read_text(self._sysfs / "module/nvidia/version")
        except ReadError:
            return ""

    def _find_gpus(self) -> None:
        ask = self._library.ask
        driver = str(ask("nvmlSystemGetDriverVersion"))
        found: dict[str, NvmlDevice] = {}
        self._missing = []
        for index in range(ask("nvmlDeviceGetCount")):
            try:
                handle = ask("nvmlDeviceGetHandleByIndex", index)
                fresh = NvmlDevice(self._library, handle, index, driver, self._sysfs)
            except ReadError as error:
                self._is_outdated |= isinstance(error, Outdated)
                self._missing.append(Fault(f"GPU {index}", error.reason, f"GPU {index}: {error}"))
                continue
            known = self._devices.get(fresh.name)
            if known is not None and known.device == fresh.device:
                known.renew(handle, index, driver)
                fresh = known
            found[fresh.name] = fresh
        for name, gpu in self._devices.items():
            if name not in found:
                found[name] = gpu
                self._missing.append(
                    Fault(name, Absent.reason, f"{name} is no longer there (see its kernel log)")
                )
        self._devices = found

    # --- looking --------------------------------------------------------------------------------

    def _look(self) -> Sequence[Report]:
        readings: dict[Source, list[Reading]] = {}
        faults: dict[Source, list[Fault]] = {source: [] for source in self.sources}
        states: dict[Source, dict[Device, GpuState]] = {}
        limits: dict[Source, dict[Device, int]] = {}
        outdated = False
        away = {fault.what for fault in self._missing}
        for gpu in self._devices.values():
            source = gpu.device.source
            if gpu.name in away or gpu.is_asleep:
                continue
            try:
                self._look_at(
                    gpu,
                    readings.setdefault(source, []),
                    faults[source],
                    states.setdefault(source, {}),
                )
            except Outdated as error:
                faults[source].append(Fault(gpu.name, error.reason, f"{gpu.name}: {error}"))
                outdated = True
            if gpu.limit_uw is not None:
                limits.setdefault(source, {})[gpu.device] = gpu.limit_uw
        self._is_outdated |= outdated
        if not outdated:
            self._wait_ns = LEAST_WAIT_NS
        for fault in self._missing:
            gone = self._devices.get(fault.what)
            source = gone.device.source if gone is not None else Source.NVML_ENERGY
            faults.setdefault(source, []).append(fault)
        now_ns = self._clock()
        return [
            Report(
                source,
                now_ns,
                tuple(readings.get(source, ())),
                tuple(found),
                limits.get(source, {}),
                states.get(source, {}),
            )
            for source, found in faults.items()
        ]

    def _look_at(
        self,
        gpu: NvmlDevice,
        readings: list[Reading],
        faults: list[Fault],
        states: dict[Device, GpuState],
    ) -> None:
        """Look at one GPU; raises Outdated."""
        try:
            readings.append(gpu.read_energy(self._clock))
        except Outdated:
            raise
        except ReadError as error:
            faults.append(Fault(gpu.name, error.reason, f"{gpu.name}: {error}"))
        now_ns = self._clock()
        offset_us = (self._wall() - now_ns) // 1000
        state = gpu.read_state(now_ns, offset_us, faults)
        states[gpu.device] = replace(state, foreign=self._foreign)

    def _all_unread(self, message: str, reason: str) -> Sequence[Report]:
        now_ns = self._clock()
        fault = Fault(self.name, reason, message)
        return [Report(source, now_ns, faults=(fault,)) for source in self.sources]
