"""Energy counters: which there are, whether they can be read, and whether they make sense."""

from __future__ import annotations

import sys
import time
from collections import Counter as Count
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobwatt.attribution.counters import UNKNOWN_LIMIT_UW
from jobwatt.config import Config
from jobwatt.doctor.finding import Finding, Group, Level, many
from jobwatt.doctor.machine import AMD_VENDORS, Machine
from jobwatt.errors import Absent, Denied, ReadError
from jobwatt.host.files import list_folder
from jobwatt.host.hwmon import read_chips
from jobwatt.host.powercap import Zone, read_energy, read_zones
from jobwatt.meters.hwmon.grace import MODEL, GraceSocket, find_grace_sockets
from jobwatt.meters.rapl import RaplZone, select_zones
from jobwatt.meters.tdp import power_of_model
from jobwatt.units import UJ, energy_text, power_text

__all__ = ["check_energy"]

MOVE_SECONDS = 0.05
"""RAPL counters move about every millisecond: after this a live one has."""

FEW_SAMPLES = 4
"""An interval should fit so many times between two wraps: a late sample is then no gap."""

AMD_KERNEL = (5, 11)
"""The first kernel whose powercap driver knows AMD's processors (Linux commit 43756a298928)."""

SUMMED = ("package", "dram")
"""Domains that are devices; the others are shown raw."""


def check_energy(config: Config, machine: Machine) -> Iterator[Finding]:
    """Check powercap, each zone, NVIDIA's Grace, then what stands in for packages unread."""
    try:
        look = _look(read_zones(config.path_sysfs))
    except Absent:
        look = _look([])
    except ReadError as error:
        yield _finding(Level.PROBLEM, "powercap", str(error), _remedy(error))
        yield from _check_estimate(config, machine)
        return
    if look.zones:
        in_use = f"{many(len(look.zones), 'RAPL zone')}, {len(look.chosen)} in use"
        yield _finding(Level.OK, "powercap", in_use)
        for zone in look.zones.values():
            yield _check_zone(zone, look, config.sample_interval)
        yield from _check_coverage(machine, look.chosen.values())
    sockets = _find_grace(config.path_sysfs, machine)
    for socket in sockets:
        yield _check_grace(socket)
    if not look.zones and not sockets:
        message, remedy = _why_no_zones(config.path_sysfs, machine)
        yield _finding(Level.PROBLEM, "powercap", message, remedy)
    if not look.reads_a_package and not sockets:
        yield from _check_estimate(config, machine)


def _finding(level: Level, subject: str, message: str, remedy: str | None = None) -> Finding:
    return Finding(level, Group.ENERGY, subject, message, remedy)


# --- no zones -----------------------------------------------------------------------------------


def _why_no_zones(sysfs: Path, machine: Machine) -> tuple[str, str | None]:
    """Return the likeliest reason that there is no RAPL zone, and the remedy if there is one."""
    folder = sysfs / "class/powercap"
    try:
        names = [name for name in list_folder(folder) if name.startswith("intel-rapl")]
    except ReadError:
        names = []
    reason: tuple[str, str | None]
    if names and not any((folder / name).exists() for name in names):
        reason = (
            "RAPL zones are named and lead nowhere: a container runtime masks them",
            (
                "mount the host's whole /sys (its class/powercap is links only) and name it:\n"
                "  docker run -v /sys:/host/sys:ro … jobwatt serve --path.sysfs=/host/sys"
            ),
        )
    elif machine.virtual:
        reason = (
            "no RAPL in this virtual machine: hypervisors do not pass it on",
            "measure on the host, where the virtual machine is a process",
        )
    elif machine.knows_vendor and machine.vendor not in {"GenuineIntel", *AMD_VENDORS}:
        reason = "no RAPL: only processors of Intel and AMD have it", None
    elif machine.vendor in AMD_VENDORS and () < machine.kernel_version < AMD_KERNEL:
        reason = (
            f"no RAPL: Linux {machine.kernel} has no driver for AMD's",
            f"run Linux {AMD_KERNEL[0]}.{AMD_KERNEL[1]} or later",
        )
    elif names or (sysfs / "module/intel_rapl_msr").exists():
        reason = "the RAPL driver is loaded and finds no zone on this processor", None
    else:
        reason = (
            "no RAPL: its driver is not loaded",
            (
                "load the driver, now and at each start:\n"
                "  sudo modprobe intel_rapl_msr\n"
                "  echo intel_rapl_msr | sudo tee /etc/modules-load.d/jobwatt.conf"
            ),
        )
    return reason


def _check_estimate(config: Config, machine: Machine) -> Iterator[Finding]:
    """Say what stands in for the packages' counters."""
    if config.cpu_estimate == "off":
        yield _finding(
            Level.NOTE,
            "estimate",
            "off: CPU energy is absent",
            "estimate it from the CPU's model and load:\n  jobwatt serve --cpu.estimate=auto",
        )
        return
    for package, threads in sorted(Count(machine.topology.package_of.values()).items()):
        power = power_of_model(machine.cpu_model, threads, config.cpu_tdp)
        yield _finding(
            Level.NOTE,
            f"package-{package}",
            f'estimated (source="estimate"): {power_text(power.idle_watts)} idle to '
            f"{power_text(power.full_watts)} at full load; {power.basis}",
        )


# --- Grace --------------------------------------------------------------------------------------


def _find_grace(sysfs: Path, machine: Machine) -> list[GraceSocket]:
    try:
        return find_grace_sockets(read_chips(sysfs), machine.topology, {})
    except ReadError:
        return []


def _check_grace(socket: GraceSocket) -> Finding:
    name = socket.device.name
    try:
        socket.read(time.monotonic_ns)
    except ReadError as error:
        return _finding(Level.PROBLEM, name, f"{MODEL}: {error}", _remedy(error))
    message = f"{MODEL}: its firmware's power is read and summed (hwmon); a GPU beside it is not in"
    return _finding(Level.OK, name, message)


# --- zones --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Look:
    """What the zones showed.

    Attributes:
        zones: all of them, by key.
        chosen: those that count, by key.
        energies: what each readable one shows, in microjoules.
        failures: why the others cannot be read.
        still: those whose counter did not move.
    """

    zones: Mapping[str, Zone]
    chosen: Mapping[str, RaplZone]
    energies: Mapping[str, int]
    failures: Mapping[str, ReadError]
    still: frozenset[str]

    @property
    def reads_a_package(self) -> bool:
        return any(
            found.domain.domain == "package" and key in self.energies
            for key, found in self.chosen.items()
        )

    def outwards(self, zone: Zone) -> list[Zone]:
        """Return the zone and those that it lies in, the outermost last."""
        line = [zone]
        while (above := self.zones.get(line[-1].parent or "")) is not None:
            line.append(above)
        return line


def _look(zones: list[Zone]) -> _Look:
    energies, failures = _read(zones)
    if energies:
        time.sleep(MOVE_SECONDS)
    later, _ = _read(zone for zone in zones if zone.key in energies)
    return _Look(
        zones={zone.key: zone for zone in zones},
        chosen={found.zone.key: found for found in select_zones(zones, energies)},
        energies=energies,
        failures=failures,
        still=frozenset(key for key, value in later.items() if value == energies[key]),
    )


def _read(zones: Iterable[Zone]) -> tuple[dict[str, int], dict[str, ReadError]]:
    energies: dict[str, int] = {}
    failures: dict[str, ReadError] = {}
    for zone in zones:
        try:
            energies[zone.key] = read_energy(zone.path)
        except ReadError as error:
            failures[zone.key] = error
    return energies, failures


def _check_zone(zone: Zone, look: _Look, interval_seconds: float) -> Finding:
    """Check what a zone is, whether it can be read, and what it shows."""
    found = look.chosen.get(zone.key)
    if found is None:
        return _finding(Level.NOTE, zone.key, _why_left_out(zone, look))
    if zone.key in look.failures:
        error = look.failures[zone.key]
        why = "may not be read" if isinstance(error, Denied) else str(error)
        return _finding(Level.PROBLEM, zone.key, f"{_meaning(found)}: {why}", _remedy(error))
    level, message, remedy = _check_value(found, look)
    if level is not Level.PROBLEM and found.domain.domain in SUMMED:
        wrap_level, wraps, remedy = _check_wrap(found, look, interval_seconds)
        level = max(level, wrap_level, key=list(Level).index)
        message = f"{message}; {wraps}"
    return _finding(level, zone.key, f"{_meaning(found)}: {message}", remedy)


def _meaning(found: RaplZone) -> str:
    """Return what a zone is, for people; a device by its name on the page."""
    domain, package = found.domain.domain, found.domain.package
    if domain in SUMMED:
        return f"device {domain}-{package}"
    place = f" of package {package}" if package else ""
    return f"{domain}{place}, shown raw, never added"


def _why_left_out(zone: Zone, look: _Look) -> str:
    def place(one: Zone) -> list[str]:
        # Dies of one package mirror each other: package-0-die-1 is package-0 again.
        return [above.name.partition("-die-")[0] for above in look.outwards(one)]

    for key, other in look.chosen.items():
        if place(other.zone) == place(zone):
            return f"{zone.name}: shows {key} ({other.zone.name}) once more, left out"
    return f"{zone.name}: not a domain that JobWatt knows, left out"


def _remedy(error: ReadError) -> str | None:
    """Return what gives the right to read energy counters, where that is what is missing."""
    if not isinstance(error, Denied):
        return None
    return (
        "energy counters are root's (CVE-2020-8694); one of these opens them:\n"
        "run as root, in a container as well (no capability is needed then):\n"
        "  sudo jobwatt serve\n"
        "let systemd give the one capability (sudo systemctl edit jobwatt):\n"
        "  [Service]\n"
        "  AmbientCapabilities=CAP_DAC_READ_SEARCH\n"
        "give it to this Python, and so to all that runs with it:\n"
        f"  sudo setcap cap_dac_read_search=ep {Path(sys.executable).resolve()}"
    )


_Verdict = tuple[Level, str, str | None]


def _check_value(found: RaplZone, look: _Look) -> _Verdict:
    """Check what a zone shows."""
    energy_uj, size = look.energies[found.zone.key], found.zone.range_uj
    still = found.zone.key in look.still and found.domain.domain in SUMMED
    if size is not None and energy_uj > size:
        more = f"shows {energy_text(energy_uj)}, more than its range of {energy_text(size)}"
        return Level.PROBLEM, more, None
    if still and energy_uj == 0 and found.domain.domain == "package":
        return Level.PROBLEM, "stands at 0: this processor does not count", None
    if still:
        return Level.NOTE, f"readable, but did not move within {MOVE_SECONDS:g} s", None
    return Level.OK, "readable", None


def _check_wrap(found: RaplZone, look: _Look, interval_seconds: float) -> _Verdict:
    """Check that a counter is read often enough to see each wrap (as `CounterTrack` judges it)."""
    size = found.zone.range_uj
    if size is None:
        return Level.NOTE, "its range is not told: a wrap will count as a reset", None
    told_uw = look.outwards(found.zone)[-1].limits_uw.get("long_term")
    limit_uw = told_uw or UNKNOWN_LIMIT_UW
    wrap_seconds = size / limit_uw
    at = f"{limit_uw / UJ:g} W{'' if told_uw else ' (assumed)'}"
    wraps = f"wraps every {_span(wrap_seconds)} at {at}"
    sooner = (
        "sample more often:\n"
        f"  jobwatt serve --sample.interval={_setting(wrap_seconds / FEW_SAMPLES)}"
    )
    interval = f"the sampling interval of {_span(interval_seconds)}"
    if interval_seconds >= wrap_seconds:
        return Level.PROBLEM, f"{wraps}, no later than {interval}", sooner
    if interval_seconds > wrap_seconds / FEW_SAMPLES:
        return Level.NOTE, f"{wraps}: {interval} leaves a gap when a few are late", sooner
    return Level.OK, wraps, None


def _check_coverage(machine: Machine, chosen: Iterable[RaplZone]) -> Iterator[Finding]:
    """Check that what was found is the whole machine."""
    domains = {(found.domain.domain, found.domain.package) for found in chosen}
    counted = sum(domain == "package" for domain, _ in domains)
    present = len(machine.topology.packages)
    if counted < present:
        message = f"RAPL counts {counted} of the machine's {many(present, 'package')}"
        yield _finding(Level.PROBLEM, "packages", message)
    if not any(domain == "dram" for domain, _ in domains):
        why = "AMD's processors have" if machine.vendor in AMD_VENDORS else "this processor has"
        yield _finding(Level.NOTE, "dram", f"{why} no DRAM domain: its energy is absent")


def _span(seconds: float) -> str:
    """Return a time for people: `0.5 s`, `164 s`, `12.5 min`."""
    return f"{seconds / 60:.1f} min" if seconds >= 300 else f"{seconds:.3g} s"  # noqa: PLR2004


def _setting(seconds: float) -> str:
    """Return a time as a setting, rounded down, at least 100 ms."""
    return f"{int(seconds)}s" if seconds >= 1 else f"{max(100, int(seconds * 1000))}ms"
