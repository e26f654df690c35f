"""The powercap tree of RAPL zones (Linux Documentation/power/powercap/powercap.rst)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from jobwatt.errors import Absent, ReadError, translated
from jobwatt.host.files import read_integer, read_integer_line, read_text

__all__ = ["Zone", "read_energy", "read_energy_line", "read_zones"]

_ZONE = re.compile(r"intel-rapl(-mmio)?((?::\d+)+)$")
_CONTROL_TYPE = re.compile(r"intel-rapl(-mmio)?$")


@dataclass(frozen=True, slots=True)
class Zone:
    """One RAPL zone as its folder describes it.

    Attributes:
        key: the folder's name, `intel-rapl:0:1`.
        path: the folder.
        name: `package-0`, `core`, `uncore`, `dram`, `psys`, `package-0-die-1`.
        parent: key of the zone that contains it, None at the top.
        mmio: reached through MMIO instead of MSR.
        range_uj: the value after which `energy_uj` starts again at 0; None where unreadable.
        limits_uw: power limits by constraint name (`long_term`, …), those in force only.
    """

    key: str
    path: Path
    name: str
    parent: str | None
    mmio: bool
    range_uj: int | None
    limits_uw: dict[str, int]


def read_zones(sysfs: Path) -> list[Zone]:
    """Read the tree below `<sysfs>/class/powercap`, in the order of its numbers.

    A zone without a name is left out; one without readable energy is not.

    Raises:
        Absent: this machine has no powercap class.
        Denied, Failed: it has one that cannot be listed.
    """
    folders: dict[str, Path] = {}
    pending = [sysfs / "class/powercap"]
    while pending:
        folder = pending.pop()
        try:
            names = os.listdir(folder)
        except OSError as error:
            if not folders:
                raise translated(error, folder) from error
            continue  # a zone that leaves while it is looked at
        for name in names:
            match = _ZONE.match(name)
            if match and name not in folders:
                folders[name] = folder / name
            if (match and folders[name] == folder / name) or _CONTROL_TYPE.match(name):
                pending.append(folder / name)
    zones = [zone for key, path in folders.items() if (zone := _read_zone(key, path))]
    return sorted(zones, key=lambda zone: _order(zone.key))


def read_energy(zone_path: Path | str) -> int:
    """Read a zone's `energy_uj`; raises Absent, Denied, Failed."""
    return read_integer(f"{zone_path}/energy_uj")


def read_energy_line(zone_path: Path | str) -> tuple[int, bool]:
    """Read a zone's `energy_uj`, and whether its line has an end; raises as `read_energy`."""
    return read_integer_line(f"{zone_path}/energy_uj")


def _order(key: str) -> tuple[bool, list[int]]:
    control_type, *numbers = key.split(":")
    return "mmio" in control_type, [int(number) for number in numbers]


def _read_zone(key: str, path: Path) -> Zone | None:
    try:
        name = read_text(path / "name")
    except ReadError:
        return None
    try:
        range_uj = read_integer(path / "max_energy_range_uj") or None
    except ReadError:
        range_uj = None
    above, _, _ = key.rpartition(":")
    return Zone(
        key=key,
        path=path,
        name=name,
        parent=above if ":" in above else None,
        mmio="mmio" in key,
        range_uj=range_uj,
        limits_uw=_read_limits(path),
    )


def _read_limits(path: Path) -> dict[str, int]:
    limits: dict[str, int] = {}
    for number in range(8):
        try:
            name = read_text(path / f"constraint_{number}_name")
        except Absent:
            break
        except ReadError:
            continue
        try:
            limit = read_integer(path / f"constraint_{number}_power_limit_uw")
        except ReadError:
            continue
        if limit:  # 0: no limit is set
            limits[name] = limit
    return limits
