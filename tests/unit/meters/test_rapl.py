from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from jobwatt.errors import Absent, Denied
from jobwatt.host.powercap import Zone
from jobwatt.meters.rapl import RESCAN_READS, RaplMeter, select_zones
from jobwatt.model import Component, Counter, Device, RaplDomain, Reading, Source
from jobwatt.units import UJ

RANGE = 262143328850


def zone(key: str, name: str) -> Zone:
    above = key.rpartition(":")[0]
    return Zone(key, Path(key), name, above if ":" in above else None, "mmio" in key, RANGE, {})


def chosen(names: dict[str, str], energies: dict[str, int] | None = None) -> list[tuple[str, ...]]:
    zones = [zone(key, name) for key, name in names.items()]
    values = dict.fromkeys(names, 0) if energies is None else energies
    return [
        (found.zone.key, found.domain.domain, found.domain.package)
        for found in select_zones(zones, values)
    ]


class Tree:
    """A flat powercap tree in a temporary folder."""

    def __init__(self, sysfs: Path) -> None:
        self.sysfs = sysfs
        self.base = sysfs / "class/powercap"
        self.base.mkdir(parents=True)

    def write(self, key: str, name: str, energy: str, **files: str) -> Path:
        folder = self.base / key
        folder.mkdir(exist_ok=True)
        values = {"name": name, "energy_uj": energy, "max_energy_range_uj": str(RANGE)} | files
        for file_name, value in values.items():
            (folder / file_name).write_text(f"{value}\n")
        return folder

    def limits(self, long_term: int, short_term: int) -> dict[str, str]:
        return {
            "constraint_0_name": "long_term",
            "constraint_0_power_limit_uw": str(long_term),
            "constraint_1_name": "short_term",
            "constraint_1_power_limit_uw": str(short_term),
        }


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return an empty powercap tree."""
    return Tree(tmp_path)


def shown(meter: RaplMeter) -> dict[str, int]:
    return {reading.counter.key: reading.value_uj for reading in meter.read(0)[0].readings}


def test_a_client_with_psys() -> None:
    """Zones mean what their names say, whatever their numbers."""
    names = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "uncore",
        "intel-rapl:1": "psys",
    }
    assert chosen(names, dict.fromkeys(names, 7)) == [
        ("intel-rapl:0", "package", "0"),
        ("intel-rapl:0:0", "core", "0"),
        ("intel-rapl:0:1", "uncore", "0"),
        ("intel-rapl:1", "psys", ""),
    ]


def test_a_server_whose_numbers_are_shuffled() -> None:
    """A dram zone belongs to the package that it lies in, by name and not by number."""
    names = {
        "intel-rapl:0": "package-1",
        "intel-rapl:0:0": "dram",
        "intel-rapl:1": "package-0",
        "intel-rapl:1:0": "dram",
    }
    assert chosen(names) == [
        ("intel-rapl:0", "package", "1"),
        ("intel-rapl:0:0", "dram", "1"),
        ("intel-rapl:1", "package", "0"),
        ("intel-rapl:1:0", "dram", "0"),
    ]


def test_mmio_mirrors_msr() -> None:
    """An MMIO zone beside its MSR zone is left out, with all inside it; whatever it shows."""
    names = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "dram",
        "intel-rapl-mmio:0": "package-0",
        "intel-rapl-mmio:0:0": "dram",
    }
    energies = {key: at * 10**9 for at, key in enumerate(names)}
    assert chosen(names, energies) == [
        ("intel-rapl:0", "package", "0"),
        ("intel-rapl:0:0", "dram", "0"),
    ]


def test_mmio_alone_counts() -> None:
    """Where MSR has no such zone, the MMIO zone is the counter."""
    names = {"intel-rapl:0": "package-0", "intel-rapl-mmio:0": "package-1"}
    assert chosen(names) == [
        ("intel-rapl:0", "package", "0"),
        ("intel-rapl-mmio:0", "package", "1"),
    ]


def test_dies_with_one_counter_are_one() -> None:
    """Dies that show the same are one package's; what lies in the mirror is left out too."""
    names = {
        "intel-rapl:0": "package-0-die-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:1": "package-0-die-1",
        "intel-rapl:1:0": "core",
    }
    energies = {
        "intel-rapl:0": 500 * UJ,
        "intel-rapl:0:0": 100 * UJ,
        "intel-rapl:1": 520 * UJ,
        "intel-rapl:1:0": 900 * UJ,
    }
    assert chosen(names, energies) == [
        ("intel-rapl:0", "package", "0"),
        ("intel-rapl:0:0", "core", "0"),
    ]


def test_dies_with_one_counter_are_one_also_while_it_wraps() -> None:
    """A counter that begins again between the two readings is still one counter."""
    names = {"intel-rapl:0": "package-0-die-0", "intel-rapl:1": "package-0-die-1"}
    energies = {"intel-rapl:0": RANGE - 5, "intel-rapl:1": 7}
    assert chosen(names, energies) == [("intel-rapl:0", "package", "0")]


def test_dies_with_counters_of_their_own_are_two() -> None:
    """Dies that show something else each count."""
    names = {"intel-rapl:0": "package-0-die-0", "intel-rapl:1": "package-0-die-1"}
    energies = {"intel-rapl:0": 500 * UJ, "intel-rapl:1": 520 * UJ + 1}
    assert chosen(names, energies) == [
        ("intel-rapl:0", "package", "0"),
        ("intel-rapl:1", "package", "0"),
    ]


@pytest.mark.parametrize("name", ["", "package-x", "package-0-die-", "gpu", "core-0", "package-0 "])
def test_unknown_names_are_left_out(name: str) -> None:
    """A zone that means nothing known is not guessed at."""
    assert chosen({"intel-rapl:0": name}) == []


def test_a_part_outside_of_a_package_is_left_out() -> None:
    """A dram zone that lies in no package belongs to nobody."""
    assert chosen({"intel-rapl:0": "dram", "intel-rapl:1": "psys", "intel-rapl:1:0": "core"}) == [
        ("intel-rapl:1", "psys", "")
    ]


def test_counters_know_their_limits(tree: Tree) -> None:
    """A counter carries its range and its package's limits; psys and core are no devices."""
    tree.write("intel-rapl:0", "package-0", "5", **tree.limits(28 * UJ, 60 * UJ))
    tree.write("intel-rapl:0:0", "dram", "6")
    tree.write("intel-rapl:0:1", "core", "7")
    package = Device(Component.CPU, "package-0", Source.RAPL, 0, "M")
    dram = Device(Component.DRAM, "dram-0", Source.RAPL, 0)
    limits: dict[str, Any] = {
        "range_uj": RANGE,
        "limit_uw": 28 * UJ,
        "peak_uw": 60 * UJ,
        "lasting": True,
    }
    report = RaplMeter(tree.sysfs, "M").read(0)[0]
    assert report.readings == (
        Reading(Counter("intel-rapl/package-0", package, RaplDomain("package", "0"), **limits), 5),
        Reading(Counter("intel-rapl/package-0/dram", dram, RaplDomain("dram", "0"), **limits), 6),
        Reading(Counter("intel-rapl/package-0/core", None, RaplDomain("core", "0"), **limits), 7),
    )
    assert (report.faults, report.limits_uw) == ((), {package: 28 * UJ})


def test_limits_of_dies_add_up(tree: Tree) -> None:
    """A package of two dies may use what both may."""
    tree.write("intel-rapl:0", "package-0-die-0", "0", **tree.limits(200 * UJ, 0))
    tree.write("intel-rapl:1", "package-0-die-1", str(900 * UJ), **tree.limits(150 * UJ, 0))
    assert list(RaplMeter(tree.sysfs).read(0)[0].limits_uw.values()) == [350 * UJ]


def test_one_zone_that_fails_stops_no_other(tree: Tree) -> None:
    """What cannot be read is a fault; the rest are readings."""
    tree.write("intel-rapl:0", "package-0", "5")
    tree.write("intel-rapl:1", "package-1", "")
    tree.write("intel-rapl:2", "package-2", "7")
    (tree.base / "intel-rapl:2/energy_uj").unlink()
    meter = RaplMeter(tree.sysfs)
    faults = [(fault.what, fault.reason) for fault in meter.read(0)[0].faults]
    assert shown(meter) == {"intel-rapl/package-0": 5}
    assert faults == [("intel-rapl/package-1", "failed"), ("intel-rapl/package-2", "absent")]


def test_a_denied_zone_says_what_to_do(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right to read, the fault names the remedy."""
    tree.write("intel-rapl:0", "package-0", "5")
    really_open = os.open

    def guarded(path: str | Path, flags: int) -> int:
        if str(path).endswith("energy_uj"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return really_open(path, flags)

    monkeypatch.setattr(os, "open", guarded)
    meter = RaplMeter(tree.sysfs)
    (fault,) = meter.read(0)[0].faults
    assert meter.has_zones is True
    assert (fault.what, fault.reason) == ("intel-rapl/package-0", "denied")
    assert "CAP_DAC_READ_SEARCH" in fault.message


def test_a_zone_that_leaves_is_missed_and_may_come_back(tree: Tree) -> None:
    """A zone that has gone stays a fault over rescans, and counts again once it is back."""
    tree.write("intel-rapl:0", "package-0", "5")
    folder = tree.write("intel-rapl:1", "package-1", "6")
    meter = RaplMeter(tree.sysfs)
    for path in sorted(folder.iterdir()):
        path.unlink()
    folder.rmdir()
    for _ in range(2 * RESCAN_READS):
        report = meter.read(0)[0]
    assert [fault.what for fault in report.faults] == ["intel-rapl/package-1"]
    tree.write("intel-rapl:1", "package-1", "9")
    assert shown(meter) == {"intel-rapl/package-0": 5, "intel-rapl/package-1": 9}


def test_a_counter_is_known_by_names_and_not_by_numbers(tree: Tree) -> None:
    """Folders are numbered anew when the driver is loaded again."""
    tree.write("intel-rapl:0", "package-0", "5")
    tree.write("intel-rapl:1", "package-1", "6")
    before = shown(RaplMeter(tree.sysfs))
    tree.write("intel-rapl:0", "package-1", "6")
    tree.write("intel-rapl:1", "package-0", "5")
    assert shown(RaplMeter(tree.sysfs)) == before


def test_two_zones_of_one_name_are_known_by_their_folders(tree: Tree) -> None:
    """Better a number than one counter for two."""
    tree.write("intel-rapl:0", "package-0", "5")
    tree.write("intel-rapl:1", "package-0", str(900 * UJ))
    assert shown(RaplMeter(tree.sysfs)) == {"intel-rapl:0": 5, "intel-rapl:1": 900 * UJ}


def test_half_a_number_is_no_number(tree: Tree) -> None:
    """The kernel ends its lines; one without an end, where there was one, was cut off."""
    energy = tree.write("intel-rapl:0", "package-0", "502123456") / "energy_uj"
    meter = RaplMeter(tree.sysfs)
    meter.read(0)
    energy.write_text("502")
    (fault,) = meter.read(0)[0].faults
    assert fault.reason == "failed"
    energy.write_text("502123999\n")
    assert shown(meter) == {"intel-rapl/package-0": 502123999}


def test_a_zone_that_comes_later_is_found(tree: Tree) -> None:
    """The tree is looked at again after a while."""
    tree.write("intel-rapl:0", "package-0", "5")
    meter = RaplMeter(tree.sysfs)
    tree.write("intel-rapl:1", "package-1", "6")
    counts = [len(meter.read(0)[0].readings) for _ in range(RESCAN_READS)]
    assert counts == [1] * (RESCAN_READS - 1) + [2]


def test_a_mirror_that_could_not_be_read_at_first_is_found_out(tree: Tree) -> None:
    """A mirrored die that answers later is dropped again before it counts twice."""
    tree.write("intel-rapl:0", "package-0-die-0", str(500 * UJ))
    tree.write("intel-rapl:1", "package-0-die-1", "")
    meter = RaplMeter(tree.sysfs)
    meter.read(0)
    tree.write("intel-rapl:1", "package-0-die-1", str(500 * UJ))
    meter.read(0)
    assert shown(meter) == {"intel-rapl/package-0-die-0": 500 * UJ}


def test_without_powercap_it_is_absent(tmp_path: Path) -> None:
    """There is no meter where there is nothing to read."""
    with pytest.raises(Absent):
        RaplMeter(tmp_path)


def test_an_empty_class_has_no_zones(tree: Tree) -> None:
    """An empty powercap class makes a meter that has nothing."""
    meter = RaplMeter(tree.sysfs)
    assert (meter.has_zones, meter.read(0)[0].readings) == (False, ())


def test_a_class_that_may_not_be_listed_is_denied(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A masked tree is there and cannot be read."""

    def refuse(*_: object) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(Denied):
        RaplMeter(tree.sysfs)
