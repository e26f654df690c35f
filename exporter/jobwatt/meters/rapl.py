"""Energy of CPU packages and DRAM from RAPL's counters, through Linux' powercap tree.

Zones are known by their names, not by their numbers. Devices are `package-N` and the `dram` beside
it; `core` and `uncore` lie inside a package and `psys` around it, so they are shown raw and never
added. Zones that show another zone's counter again are left out: MMIO beside MSR, and the dies of
processors that have one counter a package.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter as Count
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobwatt.errors import Denied, Failed, ReadError
from jobwatt.host.powercap import Zone, read_energy, read_energy_line, read_zones
from jobwatt.model import Component, Counter, Device, Fault, RaplDomain, Reading, Report, Source
from jobwatt.units import UJ

__all__ = ["RaplMeter", "RaplZone", "select_zones"]

_PACKAGE = re.compile(r"package-(\d+)(?:-die-\d+)?$")
_PSYS = re.compile(r"psys(?:-\d+)?$")

MIRROR_UJ = 20 * UJ
"""Two counters this close together, after all the energy since power-on, are one counter."""

RESCAN_READS = 60
"""Zones come and go with drivers and sockets: the tree is read anew after so many reads."""

DENIED_REMEDY = (
    "energy_uj is readable by root only (CVE-2020-8694): run as root, or give the exporter "
    "CAP_DAC_READ_SEARCH (systemd: AmbientCapabilities=CAP_DAC_READ_SEARCH)"
)


@dataclass(frozen=True, slots=True)
class RaplZone:
    """A zone and what it stands for."""

    zone: Zone
    domain: RaplDomain


class RaplMeter:
    """Reads every RAPL zone below `<sysfs>/class/powercap`."""

    source = Source.RAPL

    def __init__(self, sysfs: Path, cpu_model: str = "") -> None:
        """Look for zones.

        Raises:
            Absent: there are none on this machine.
            Denied, Failed: the tree itself cannot be read.
        """
        self._sysfs = sysfs
        self._cpu_model = cpu_model
        self._counters: list[tuple[str, Counter]] = []
        self._limits: dict[Device, int] = {}
        self._lines: set[str] = set()
        self._reads = 0
        self._failing = 0
        self._scan()

    @property
    def has_zones(self) -> bool:
        """Whether there is anything to read: the powercap class may be empty."""
        return bool(self._counters)

    def read(self, now_ns: int) -> Sequence[Report]:
        """Read all zones; one that cannot be read does not stop the others."""
        self._reads += 1
        if self._reads % RESCAN_READS == 0:
            with contextlib.suppress(ReadError):  # the reads below tell what is wrong
                self._scan()
        readings: list[Reading] = []
        faults: list[Fault] = []
        for path, counter in self._counters:
            try:
                readings.append(Reading(counter, self._read(path)))
            except ReadError as error:
                remedy = f"; {DENIED_REMEDY}" if isinstance(error, Denied) else ""
                faults.append(Fault(counter.key, error.reason, f"{error}{remedy}"))
        if len(faults) < self._failing:
            self._reads = -1  # a zone that answers again may be a mirror: look before it counts
        self._failing = len(faults)
        return (Report(self.source, now_ns, tuple(readings), tuple(faults), self._limits),)

    def _read(self, path: str) -> int:
        """Read a counter; a line without the end that it used to have was cut off."""
        value, whole = read_energy_line(path)
        if whole:
            self._lines.add(path)
        elif path in self._lines:
            raise Failed(f"{path}/energy_uj: half a number: {value}")
        return value

    def _scan(self) -> None:
        zones = read_zones(self._sysfs)
        all_keys = set(_keys(zones).values())
        found = [
            (str(z.zone.path), self._counter(z, zones))
            for z in select_zones(zones, _energies(zones))
        ]
        keys = {counter.key for _, counter in found}
        # A zone that has left stays on the list: its absence shows, and it may come back.
        gone = [
            (path, counter)
            for path, counter in self._counters
            if counter.key not in keys | all_keys
        ]
        self._counters = found + gone
        self._limits = {}
        for path, counter in found:
            limit = next(z.limits_uw.get("long_term") for z in zones if str(z.path) == path)
            if counter.device is not None and limit:
                self._limits[counter.device] = self._limits.get(counter.device, 0) + limit

    def _counter(self, found: RaplZone, zones: Iterable[Zone]) -> Counter:
        zone, domain = found.zone, found.domain
        above = {z.key: z for z in zones}
        package = zone
        while package.parent in above:
            package = above[package.parent]
        limits = package.limits_uw
        return Counter(
            key=_keys(zones)[zone.key],
            device=self._device(domain),
            domain=domain,
            range_uj=zone.range_uj,
            limit_uw=limits.get("long_term"),
            peak_uw=max([*limits.values(), *zone.limits_uw.values()], default=None),
            lasting=True,
        )

    def _device(self, domain: RaplDomain) -> Device | None:
        if domain.domain not in {"package", "dram"} or not domain.package:
            return None
        number = int(domain.package)
        if domain.domain == "dram":
            return Device(Component.DRAM, f"dram-{number}", self.source, number)
        name = f"package-{number}"
        return Device(Component.CPU, name, self.source, number, self._cpu_model)


def select_zones(zones: list[Zone], energies: dict[str, int]) -> list[RaplZone]:
    """Return the zones that count, each with its meaning; mirrors and unknown zones are left out.

    Args:
        zones: all zones, MSR before MMIO.
        energies: what each readable zone shows, by key: µJ.
    """
    by_key = {zone.key: zone for zone in zones}
    chosen: list[RaplZone] = []
    mirrors: set[str] = set()
    for zone in zones:
        domain = _domain(zone, by_key)
        if domain is None:
            continue
        same = [other for other in chosen if other.domain == domain]
        inside_mirror = zone.parent in mirrors and bool(same)
        if inside_mirror or any(_mirrors(zone, other.zone, energies) for other in same):
            mirrors.add(zone.key)
        else:
            chosen.append(RaplZone(zone, domain))
    return chosen


def _mirrors(zone: Zone, other: Zone, energies: dict[str, int]) -> bool:
    if zone.mmio != other.mmio:
        return True
    if zone.key not in energies or other.key not in energies:
        return False
    apart = abs(energies[zone.key] - energies[other.key])
    if zone.range_uj is not None:  # one may have been read just before a wrap, the other after
        apart = min(apart, abs(zone.range_uj - apart))
    return apart <= MIRROR_UJ


def _domain(zone: Zone, by_key: dict[str, Zone]) -> RaplDomain | None:
    """Return what a zone measures, by its name and the package that it lies in."""
    if _PSYS.match(zone.name):
        return RaplDomain("psys", "")
    if match := _PACKAGE.match(zone.name):
        return RaplDomain("package", match[1])
    if zone.name not in {"core", "uncore", "dram"}:
        return None
    above = by_key.get(zone.parent or "")
    while above is not None:
        if match := _PACKAGE.match(above.name):
            return RaplDomain(zone.name, match[1])
        above = by_key.get(above.parent or "")
    return None


def _keys(zones: Iterable[Zone]) -> dict[str, str]:
    """Return what each zone is called in all runs, by its folder.

    Folders are numbered as drivers find them; names tell what they are. Where two have the same
    names the folder has to do.
    """
    zones = list(zones)
    by_key = {zone.key: zone for zone in zones}
    keys: dict[str, str] = {}
    for zone in zones:
        control_type, _, _ = zone.key.partition(":")
        names = [zone.name]
        above = by_key.get(zone.parent or "")
        while above is not None:
            names.append(above.name)
            above = by_key.get(above.parent or "")
        keys[zone.key] = "/".join((control_type, *reversed(names)))
    times = Count(keys.values())
    return {folder: name if times[name] == 1 else folder for folder, name in keys.items()}


def _energies(zones: list[Zone]) -> dict[str, int]:
    energies: dict[str, int] = {}
    for zone in zones:
        try:
            energies[zone.key] = read_energy(zone.path)
        except ReadError:
            continue
    return energies
