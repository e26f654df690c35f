"""A machine whose hardware monitoring is read by a clock that the test moves."""

from __future__ import annotations

from pathlib import Path

from fakes.devices import Devices
from jobwatt.gpus import GpuState
from jobwatt.host.procfs import Procfs
from jobwatt.host.topology import Topology
from jobwatt.meters.hwmon.meter import HwmonMeter
from jobwatt.model import Report
from jobwatt.units import NS

START_NS = 1000 * NS


class Machine(Devices):
    """Devices, and their meter."""

    def __init__(self, root: Path, packages: tuple[int, ...] = (0,)) -> None:
        super().__init__(root)
        self.now_ns = START_NS
        topology = Topology(dict(enumerate(packages)))
        self.meter = HwmonMeter(
            self.sysfs, Procfs(self.procfs), topology, clock=lambda: self.now_ns
        )

    def read(self, seconds: float = 1) -> Report:
        """Let time pass, then read the one report."""
        self.now_ns += round(seconds * NS)
        (report,) = self.meter.read()
        return report

    def energy(self, seconds: float = 1) -> dict[str, int]:
        """Let time pass, then read the energies by device."""
        readings = self.read(seconds).readings
        return {r.counter.device.name: r.value_uj for r in readings if r.counter.device}

    def states(self, seconds: float = 1) -> dict[str, GpuState]:
        """Let time pass, then read what the GPUs show, by device."""
        return {device.name: state for device, state in self.read(seconds).gpus.items()}

    def faults(self, seconds: float = 1) -> list[tuple[str, str]]:
        """Let time pass, then read what cannot be read."""
        return [(fault.what, fault.reason) for fault in self.read(seconds).faults]
