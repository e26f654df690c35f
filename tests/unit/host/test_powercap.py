from __future__ import annotations

from pathlib import Path

import pytest

from jobwatt.errors import Absent, Failed
from jobwatt.host.powercap import Zone, read_energy, read_zones

RANGE = 262143328850

ZONES = {
    "intel-rapl:0": "package-0",
    "intel-rapl:0:0": "core",
    "intel-rapl:0:1": "dram",
    "intel-rapl:1": "psys",
    "intel-rapl-mmio:0": "package-0",
}


def write_zone(folder: Path, name: str, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    values = {"name": name, "energy_uj": "1", "max_energy_range_uj": str(RANGE)} | files
    for file_name, value in values.items():
        (folder / file_name).write_text(f"{value}\n")


def make_flat(sysfs: Path) -> None:
    """Write all zones as folders of the class, as recorded trees have them."""
    for key, name in ZONES.items():
        write_zone(sysfs / "class/powercap" / key, name)


def nested(key: str) -> str:
    control_type, *numbers = key.split(":")
    parts = [control_type]
    for number in numbers:
        last = parts[-1] if len(parts) > 1 else control_type
        parts.append(f"{last}:{number}")
    return "/".join(parts)


def make_linked(sysfs: Path) -> None:
    """Write the tree as the kernel has it, with its links back and forth."""
    devices, classes = sysfs / "devices/virtual/powercap", sysfs / "class/powercap"
    classes.mkdir(parents=True)
    for key, name in ZONES.items():
        folder = devices / nested(key)
        write_zone(folder, name)
        (folder / "device").symlink_to("..")
        (folder / "subsystem").symlink_to(classes)
        (classes / key).symlink_to(f"../../devices/virtual/powercap/{nested(key)}")
    for control_type in ("intel-rapl", "intel-rapl-mmio"):
        (devices / control_type / "subsystem").symlink_to(classes)
        (classes / control_type).symlink_to(f"../../devices/virtual/powercap/{control_type}")


def make_nested(sysfs: Path) -> None:
    """Write the zones below their control types only."""
    for key, name in ZONES.items():
        write_zone(sysfs / "class/powercap" / nested(key), name)


@pytest.mark.parametrize("make", [make_flat, make_linked, make_nested])
def test_every_layout_has_the_same_zones(tmp_path: Path, make: object) -> None:
    """Zones are found however they are laid out, each once, MSR before MMIO."""
    assert callable(make)
    make(tmp_path)
    zones = read_zones(tmp_path)
    assert [(z.key, z.name, z.parent, z.mmio) for z in zones] == [
        ("intel-rapl:0", "package-0", None, False),
        ("intel-rapl:0:0", "core", "intel-rapl:0", False),
        ("intel-rapl:0:1", "dram", "intel-rapl:0", False),
        ("intel-rapl:1", "psys", None, False),
        ("intel-rapl-mmio:0", "package-0", None, True),
    ]
    assert [read_energy(z.path) for z in zones] == [1] * 5


def test_zones_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Zone 10 comes after zone 9."""
    for number in (10, 9, 0):
        write_zone(tmp_path / f"class/powercap/intel-rapl:{number}", f"package-{number}")
    assert [z.name for z in read_zones(tmp_path)] == ["package-0", "package-9", "package-10"]


def test_other_control_types_are_left_out(tmp_path: Path) -> None:
    """Other kinds of zones, and what is called almost like RAPL, are none of it."""
    for name in (
        "dtpm",
        "dtpm:0",
        "intel-rapl-x:0",
        "intel-rapl:",
        "intel-rapl:a",
        "xintel-rapl:0",
    ):
        write_zone(tmp_path / "class/powercap" / name, "package-0")
    assert read_zones(tmp_path) == []


def test_a_zone_as_its_folder_describes_it(tmp_path: Path) -> None:
    """Name, range and the limits in force are read."""
    path = tmp_path / "class/powercap/intel-rapl:0"
    write_zone(
        path,
        "package-0",
        constraint_0_name="long_term",
        constraint_0_power_limit_uw="205000000",
        constraint_1_name="short_term",
        constraint_1_power_limit_uw="0",
        constraint_2_name="peak_power",
        constraint_2_power_limit_uw="376000000",
    )
    assert read_zones(tmp_path) == [
        Zone(
            key="intel-rapl:0",
            path=path,
            name="package-0",
            parent=None,
            mmio=False,
            range_uj=RANGE,
            limits_uw={"long_term": 205000000, "peak_power": 376000000},
        )
    ]


@pytest.mark.parametrize(("content", "expected"), [("", None), ("0", None), ("x", None), ("9", 9)])
def test_a_range_that_cannot_be_read_is_unknown(
    tmp_path: Path, content: str, expected: int | None
) -> None:
    """Without a range that makes sense, none is assumed."""
    write_zone(tmp_path / "class/powercap/intel-rapl:0", "package-0", max_energy_range_uj=content)
    assert [z.range_uj for z in read_zones(tmp_path)] == [expected]


def test_a_limit_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    """Constraints with nonsense leave the next one readable."""
    zone = tmp_path / "class/powercap/intel-rapl:0"
    (zone / "constraint_2_name").mkdir(parents=True)
    write_zone(
        zone,
        "package-0",
        constraint_0_name="long_term",
        constraint_0_power_limit_uw="much",
        constraint_1_name="short_term",
        constraint_1_power_limit_uw="7",
        constraint_3_name="peak_power",
        constraint_3_power_limit_uw="9",
    )
    assert [z.limits_uw for z in read_zones(tmp_path)] == [{"short_term": 7, "peak_power": 9}]


def test_a_zone_without_a_name_is_left_out(tmp_path: Path) -> None:
    """A zone that does not say what it is is none; one without energy is one."""
    make_flat(tmp_path)
    (tmp_path / "class/powercap/intel-rapl:0/name").unlink()
    (tmp_path / "class/powercap/intel-rapl:1/energy_uj").unlink()
    assert [z.key for z in read_zones(tmp_path)] == [
        "intel-rapl:0:0",
        "intel-rapl:0:1",
        "intel-rapl:1",
        "intel-rapl-mmio:0",
    ]


def test_a_link_to_nowhere_hides_no_other_zone(tmp_path: Path) -> None:
    """A zone that leaves while it is looked at leaves alone."""
    make_linked(tmp_path)
    (tmp_path / "class/powercap/intel-rapl:7").symlink_to("gone")
    assert len(read_zones(tmp_path)) == 5


def test_without_the_class_it_is_absent(tmp_path: Path) -> None:
    """A machine without powercap says so."""
    with pytest.raises(Absent):
        read_zones(tmp_path)


def test_an_empty_class_has_no_zones(tmp_path: Path) -> None:
    """A powercap class may hold nothing at all."""
    (tmp_path / "class/powercap").mkdir(parents=True)
    assert read_zones(tmp_path) == []


def test_energy_that_is_no_number_failed(tmp_path: Path) -> None:
    """A half-written counter is not 0."""
    write_zone(tmp_path, "package-0", energy_uj="")
    with pytest.raises(Failed):
        read_energy(tmp_path)
