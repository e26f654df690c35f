"""All devices that hardware monitoring measures; a `BlockingMeter`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobwatt.errors import Absent, ReadError
from jobwatt.gpus import GpuState
from jobwatt.host.drm import read_cards, read_driver_version
from jobwatt.host.hwmon import read_chips
from jobwatt.host.kfd import read_kfd_gpus, read_kfd_memory
from jobwatt.host.procfs import Procfs
from jobwatt.host.topology import Topology
from jobwatt.meters.hwmon import amdgpu, intel
from jobwatt.meters.hwmon.amdgpu import AmdGpu, find_amd_gpus
from jobwatt.meters.hwmon.grace import find_grace_sockets
from jobwatt.meters.hwmon.intel import IntelGpu, find_intel_gpus
from jobwatt.meters.hwmon.part import Clock, Part, Sums
from jobwatt.meters.hwmon.users import GpuUsers
from jobwatt.model import Device, Fault, Reading, Report, Source

__all__ = ["HwmonMeter"]

RESCAN_READS = 60
"""Devices come and go with their drivers: they are looked for anew after so many reads."""


class HwmonMeter:
    """Reads AMD's and Intel's GPUs and NVIDIA's Grace; one that fails does not stop the others.

    Intel's counters must be read at least once a minute (see `intel`), and power often enough to
    be integrated: `OwnThread` reads every five seconds at the least.
    """

    name = "hwmon"
    sources: Sequence[Source] = (Source.HWMON,)

    def __init__(
        self,
        sysfs: Path,
        procfs: Procfs,
        topology: Topology,
        *,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        """Take the machine; nothing is read before the first `read`."""
        self._sysfs = sysfs
        self._procfs = procfs
        self._topology = topology
        self._clock = clock
        self._parts: dict[str, Part] = {}
        self._missing: dict[str, Part] = {}
        self._sums: Sums = {}
        self._scan_faults: tuple[Fault, ...] = ()
        self._kfd_gpus: Mapping[str, str] = {}
        self._users: GpuUsers | None = None
        self._failing: set[str] = set()
        self._reads_left = 0

    def read(self) -> Sequence[Report]:
        """Read all devices; no report where this machine has none."""
        if self._reads_left <= 0 or not self._parts:
            self._scan()
            self._reads_left = RESCAN_READS
        self._reads_left -= 1
        if not (self._parts or self._missing or self._scan_faults):
            return ()
        now_ns = self._clock()
        readings: list[Reading] = []
        faults = list(self._scan_faults)
        for part in self._parts.values():
            try:
                reading = part.read(self._clock)
            except ReadError as error:
                faults.append(Fault(part.device.name, error.reason, str(error)))
            else:
                if reading is not None:
                    readings.append(reading)
        faults += [_absent(part.device) for part in self._missing.values()]
        failing = {fault.what for fault in faults}
        if failing - self._failing:
            self._reads_left = 0  # its driver may have come back under another number
        self._failing = failing
        limits = {p.device: p.limit_uw for p in self._parts.values() if p.limit_uw is not None}
        gpus = self._read_gpus(now_ns)
        return (Report(Source.HWMON, now_ns, tuple(readings), tuple(faults), limits, gpus),)

    def _read_gpus(self, now_ns: int) -> dict[Device, GpuState]:
        gpus = [part for part in self._parts.values() if isinstance(part, AmdGpu | IntelGpu)]
        if not gpus:
            self._users = None
            return {}
        if self._users is None:
            self._users = GpuUsers(self._procfs)
        in_queues = read_kfd_memory(self._sysfs, self._kfd_gpus)
        uses = self._users.look(now_ns, [gpu.card for gpu in gpus], in_queues)
        return {gpu.device: gpu.state(*uses[gpu.card.address]) for gpu in gpus}

    # --- devices --------------------------------------------------------------------------------

    def _scan(self) -> None:
        """Look for devices; those that have left are missing."""
        try:
            chips, cards = read_chips(self._sysfs), read_cards(self._sysfs)
        except ReadError as error:
            self._scan_faults = (Fault(self.name, error.reason, str(error)),)
            return
        self._scan_faults = ()
        drivers = (amdgpu.DRIVER, *intel.DRIVERS)
        loaded = {card.driver for card in cards}.intersection(drivers)
        versions = {
            name: read_driver_version(self._sysfs, self._procfs.root, name) for name in loaded
        }
        found: list[Part] = [
            *find_amd_gpus(cards, chips, versions.get(amdgpu.DRIVER, ""), self._sums),
            *find_intel_gpus(cards, chips, versions),
            *find_grace_sockets(chips, self._topology, self._sums),
        ]
        known = self._missing | self._parts
        self._parts = {part.key: part for part in found}
        self._missing = {key: part for key, part in known.items() if key not in self._parts}
        self._kfd_gpus = read_kfd_gpus(self._sysfs) if amdgpu.DRIVER in loaded else {}


def _absent(device: Device) -> Fault:
    message = f"{device.name}: it has left, or its driver has; it is looked for now and then"
    return Fault(device.name, Absent.reason, message)
