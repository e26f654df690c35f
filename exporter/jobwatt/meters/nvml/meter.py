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


SLOW_NS = NS // 2
"""After so long a look ends where it is, and the next one goes on there."""


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
        self._pending: set[str] = set()
        self._by_handle: dict[int, NvmlDevice] = {}
        self._driver: str | None = None
        self._is_mismatched = False

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
            self._restart()
        elif self._missing:
            self._due_ns = now_ns + MOST_WAIT_NS
            self._look_for_the_missing()
        elif not self._devices:  # the library knows those that were there when it was started
            self._due_ns = now_ns + MOST_WAIT_NS
            self._restart()

    def _restart(self) -> None:
        self._is_outdated = False
        self._stop()
        if self._driver is None:
            self._driver = self._driver_of_kernel()
        self._watch_for_another_driver()
        try:
            self._library.start()
            self._find_gpus()
        except ReadError as error:
            self._trouble = error
            self._stop()
            if isinstance(error, Mismatch):
                self._is_mismatched = True
                self._watch_for_another_driver()
            raise
        self._trouble = None
        self._is_mismatched = False
        self._driver = self._driver_of_kernel()

    def _stop(self) -> None:
        self._library.stop()
        self._by_handle.clear()

    def _look_for_the_missing(self) -> None:
        """Find the GPUs again; where that fails the others are read all the same."""
        try:
            self._find_gpus()
        except Outdated:
            self._is_outdated = True
        except ReadError as error:
            log.debug("NVML: %s", error)

    def _watch_for_another_driver(self) -> None:
        """Ask for a restart once the kernel's driver is another than when the library was loaded.

        The library that this process has loaded stays: only another process gets a new one.
        """
        version = self._driver_of_kernel()
        if self._is_mismatched and version and version != self._driver:
            self._driver = version
            self._must_restart(version)

    def _driver_of_kernel(self) -> str:
        try:
            return read_text(self._sysfs / "module/nvidia/version")
        except ReadError:
            return ""

    def _find_gpus(self) -> None:
        ask = self._library.ask
        driver = str(ask("nvmlSystemGetDriverVersion"))
        found: dict[str, NvmlDevice] = {}
        missing: list[Fault] = []
        for index in range(ask("nvmlDeviceGetCount")):
            try:
                gpu = self._find_gpu(index, driver)
            except ReadError as error:
                self._is_outdated |= isinstance(error, Outdated)
                missing.append(Fault(f"GPU {index}", error.reason, f"GPU {index}: {error}"))
            else:
                found[gpu.name] = gpu
        for name, gpu in self._devices.items():
            if name not in found:
                found[name] = gpu
                message = f"{name} is no longer there (see its kernel log)"
                missing.append(Fault(name, Absent.reason, message))
        self._devices, self._missing = found, missing

    def _find_gpu(self, index: int, driver: str) -> NvmlDevice:
        """Return a GPU; one that has been asked already since the library began is left alone."""
        handle = self._library.ask("nvmlDeviceGetHandleByIndex", index)
        address = self._library.address(handle)
        gpu = self._by_handle.get(address)
        if gpu is None:
            gpu = NvmlDevice(self._library, handle, index, driver, self._sysfs)
            known = self._devices.get(gpu.name)
            if known is not None and known.device.source is gpu.device.source:
                known.renew(handle, index, driver)
                gpu = known
            self._by_handle[address] = gpu
        return gpu

    # --- looking --------------------------------------------------------------------------------

    def _look(self) -> Sequence[Report]:
        readings: dict[Source, list[Reading]] = {}
        faults: dict[Source, list[Fault]] = {source: [] for source in self.sources}
        states: dict[Source, dict[Device, GpuState]] = {}
        limits: dict[Source, dict[Device, int]] = {}
        outdated = False
        away = {fault.what for fault in self._missing}
        begin_ns, seen = self._clock(), list[Device]()
        pending = [gpu for gpu in self._devices.values() if gpu.name in self._pending]
        is_whole = not pending
        pending = pending or list(self._devices.values())
        while pending and (not seen or self._clock() - begin_ns < SLOW_NS):
            gpu = pending.pop(0)
            source = gpu.device.source
            seen.append(gpu.device)
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
        self._pending = {gpu.name for gpu in pending}
        covers = None
        if pending or not is_whole:
            covers = frozenset(seen)
        self._is_outdated |= outdated
        if not self._is_outdated:
            self._wait_ns = LEAST_WAIT_NS
        for fault in self._missing:
            gone = self._devices.get(fault.what)
            faults[self.sources[0] if gone is None else gone.device.source].append(fault)
        now_ns = self._clock()
        return [
            Report(
                source,
                now_ns,
                tuple(readings.get(source, ())),
                tuple(found),
                limits.get(source, {}),
                states.get(source, {}),
                covers,
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
        gpu.is_slow = self._clock() - now_ns > SLOW_NS
        states[gpu.device] = replace(state, foreign=self._foreign)

    def _all_unread(self, message: str, reason: str) -> Sequence[Report]:
        now_ns = self._clock()
        fault = Fault(self.name, reason, message)
        return [Report(source, now_ns, faults=(fault,)) for source in self.sources]
