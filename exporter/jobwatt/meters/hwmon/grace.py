"""NVIDIA's Grace CPU: power meters that the firmware describes (ACPI).

NVIDIA Grace Performance Tuning Guide, "Power Telemetry"; Linux drivers/hwmon/acpi_power_meter.c.
Each socket has up to four, named in `power1_oem_info`. They nest: "Module Power Socket 0" (with a
GPU beside the CPU, its memory and the losses of the regulators) contains "Grace Power Socket 0"
(CPU, memory), which contains "CPU Power Socket 0" (cores) and "SysIO Power Socket 0". A package is
its Grace level, the CPU level where that is missing; the module is never a device, since its GPU
is measured by NVML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jobwatt.errors import Failed, ReadError
from jobwatt.host.files import read_text
from jobwatt.host.hwmon import Chip, read_chips
from jobwatt.host.topology import Topology
from jobwatt.meters.hwmon.part import Clock, Integrated, Sums, limit
from jobwatt.model import Component, Device, Reading, Source

__all__ = ["GraceSocket", "find_grace_sockets", "measures_packages"]

CHIP = "power_meter"

POWER = "power1_average"

MODEL = "NVIDIA Grace"

_METER = re.compile(r"(Grace|CPU) Power Socket (\d{1,4})", re.ASCII)

LEVELS = ("Grace", "CPU")
"""What may stand for a package, best first."""


class GraceSocket(Integrated):
    """A CPU package."""

    def __init__(self, chip: Chip, package: int, sums: Sums) -> None:
        device = Device(Component.CPU, f"package-{package}", Source.HWMON, package, MODEL)
        super().__init__(f"grace:{package}", device, limit(chip, "power1_cap"), sums)
        self._chip = chip

    def read(self, clock: Clock) -> Reading | None:
        """Read its power; raises Absent, Denied, Failed."""
        power_uw = self._chip.read(POWER)
        if not power_uw:  # the firmware has no value yet; no CPU that answers draws nothing
            raise Failed(f"{self._chip.path}/{POWER}: 0")
        return self.add(power_uw, clock())


def find_grace_sockets(chips: Sequence[Chip], topology: Topology, sums: Sums) -> list[GraceSocket]:
    """Return the sockets, numbered as the kernel numbers the packages of its CPUs."""
    chosen = _choose(chips)
    packages = sorted(topology.packages)
    if len(packages) != len(chosen) or not chosen.keys() - topology.packages:
        packages = sorted(chosen)
    return [
        GraceSocket(chosen[socket], package, sums)
        for socket, package in zip(sorted(chosen), packages, strict=True)
    ]


def measures_packages(sysfs: Path) -> bool:
    """Whether there are CPU packages here that this meter measures."""
    try:
        return bool(_choose(read_chips(sysfs)))
    except ReadError:
        return False


def _choose(chips: Sequence[Chip]) -> dict[int, Chip]:
    """Return the meter of each socket."""
    meters: dict[tuple[str, int], Chip] = {}
    for chip in chips:
        if chip.name != CHIP or not chip.has(POWER):
            continue
        try:
            match = _METER.fullmatch(read_text(chip.path / "power1_oem_info"))
        except ReadError:
            continue
        if match:
            meters.setdefault((match[1], int(match[2])), chip)
    sockets = {socket for _, socket in meters}
    return {
        socket: next(meters[level, socket] for level in LEVELS if (level, socket) in meters)
        for socket in sorted(sockets)
    }
