"""A machine with fake NVIDIA GPUs, and the meter that reads them on the driver's own clock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fakes.nvml import FakeNvml, Gpu
from jobwatt.gpus import GpuState, GpuUse
from jobwatt.meters.nvml.library import Library
from jobwatt.meters.nvml.meter import NvmlMeter
from jobwatt.model import Device, Report, Source


class Nvidia:
    """GPUs, the sysfs beside them, and their meter; time passes with every look.

    Attributes:
        restarts: the versions for which the meter asked for another process.
    """

    def __init__(
        self,
        root: Path,
        *gpus: Gpu,
        without: Sequence[str] = (),
        driver: str = "590.48.01",
        foreign: bool = False,
    ) -> None:
        self.sysfs = root / "sys"
        self.set_kernel_driver(driver)
        self.fake = FakeNvml(root / "driver", gpus, driver=driver, without=without)
        self.restarts: list[str] = []
        self.meter = NvmlMeter(
            self.sysfs,
            foreign=foreign,
            library=Library(str(self.fake.library)),
            clock=self.fake.now_ns,
            wall=lambda: self.fake.wall_us() * 1000,
            must_restart=self.restarts.append,
        )
        self.reports: Sequence[Report] = ()

    def set_kernel_driver(self, version: str) -> None:
        """Load the kernel module of this version."""
        folder = self.sysfs / "module/nvidia"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "version").write_text(f"{version}\n")

    def look(self, seconds: float = 1) -> Nvidia:
        """Let time pass, then read; what was read is shown by the properties below."""
        if seconds:
            self.fake.advance(seconds)
        self.reports = self.meter.read()
        return self

    @property
    def energy(self) -> dict[str, int]:
        """Counters in µJ, by device."""
        readings = [reading for report in self.reports for reading in report.readings]
        return {r.counter.device.name: r.value_uj for r in readings if r.counter.device}

    @property
    def lost_ns(self) -> dict[str, int]:
        """Time whose energy is in no reading, by device."""
        readings = [reading for report in self.reports for reading in report.readings]
        return {r.counter.device.name: r.lost_ns for r in readings if r.counter.device}

    @property
    def devices(self) -> dict[str, Device]:
        """All devices that were read."""
        readings = [reading for report in self.reports for reading in report.readings]
        return {r.counter.device.name: r.counter.device for r in readings if r.counter.device}

    @property
    def faults(self) -> list[tuple[str, str]]:
        """What could not be read, and why."""
        return [(fault.what, fault.reason) for report in self.reports for fault in report.faults]

    @property
    def sources(self) -> list[Source]:
        """The sources that were reported on."""
        return [report.source for report in self.reports]

    @property
    def limits(self) -> dict[str, int]:
        """Enforced limits in µW, by device."""
        return {d.name: uw for report in self.reports for d, uw in report.limits_uw.items()}

    @property
    def states(self) -> dict[str, GpuState]:
        """What the GPUs showed, by device."""
        return {d.name: state for report in self.reports for d, state in report.gpus.items()}

    @property
    def state(self) -> GpuState:
        """What the only GPU showed."""
        (state,) = self.states.values()
        return state

    @property
    def use(self) -> GpuUse:
        """Who used the only GPU."""
        assert self.state.use is not None
        return self.state.use
