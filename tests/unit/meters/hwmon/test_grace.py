from __future__ import annotations

from pathlib import Path

import pytest

from fakes.devices import Devices, write
from fakes.monitored import Machine
from jobwatt.meters.hwmon.grace import measures_packages
from jobwatt.model import Component, Counter, Device, Source
from jobwatt.units import UJ

RAILS = {"Module": 500, "Grace": 150, "CPU": 90, "SysIO": 10}


def add_socket(devices: Devices, socket: int, levels: dict[str, int]) -> list[Path]:
    return [
        devices.power_meter(10 * socket + at, f"{level} Power Socket {socket}", watts * UJ)
        for at, (level, watts) in enumerate(levels.items(), start=1)
    ]


def test_four_rails_are_one_package(tmp_path: Path) -> None:
    """The Grace level is the package; levels nest and are never added."""
    machine = Machine(tmp_path)
    meters = add_socket(machine, 0, RAILS)
    write(meters[1], {"power1_cap": str(300 * UJ)})
    machine.read()
    report = machine.read(2)
    device = Device(Component.CPU, "package-0", Source.HWMON, 0, "NVIDIA Grace")
    counter = Counter("grace:0", device, limit_uw=300 * UJ)
    assert [(r.counter, r.value_uj) for r in report.readings] == [(counter, 300 * UJ)]
    assert (report.limits_uw, report.gpus, report.faults) == ({device: 300 * UJ}, {}, ())


def test_without_the_grace_level_the_cores_count(tmp_path: Path) -> None:
    """The CPU level stands in for a missing Grace level, socket by socket."""
    machine = Machine(tmp_path, packages=(0, 1))
    add_socket(machine, 0, {"CPU": 90, "SysIO": 10})
    add_socket(machine, 1, RAILS)
    machine.read()
    assert machine.energy() == {"package-0": 90 * UJ, "package-1": 150 * UJ}


@pytest.mark.parametrize(
    ("packages", "names"),
    [
        ((0, 1), ["package-0", "package-1"]),
        ((36, 3180), ["package-36", "package-3180"]),
        ((0,), ["package-0", "package-1"]),
    ],
)
def test_packages_have_the_kernels_numbers(
    tmp_path: Path, packages: tuple[int, ...], names: list[str]
) -> None:
    """Where the kernel numbers the packages otherwise, sockets are matched in their order."""
    machine = Machine(tmp_path, packages)
    for socket in (0, 1):
        add_socket(machine, socket, RAILS)
    assert list(machine.energy()) == names


@pytest.mark.parametrize("levels", [{"Module": 500}, {"SysIO": 10}, {"Total": 5}, {}])
def test_other_meters_are_no_package(tmp_path: Path, levels: dict[str, int]) -> None:
    """A module, a rail of the chip's edge or something unknown is no CPU package."""
    machine = Machine(tmp_path)
    add_socket(machine, 0, levels)
    assert (machine.meter.read(), measures_packages(machine.sysfs)) == ((), False)


def test_a_meter_without_power_or_name_is_left_out(tmp_path: Path) -> None:
    """Firmware that describes half a meter has none."""
    machine = Machine(tmp_path)
    first, second = add_socket(machine, 0, {"Grace": 150, "CPU": 90})
    (first / "power1_average").unlink()
    (second / "power1_oem_info").unlink()
    assert machine.meter.read() == ()


def test_no_power_is_a_failure(tmp_path: Path) -> None:
    """A CPU that answers draws something: 0 W is no measurement."""
    machine = Machine(tmp_path)
    add_socket(machine, 0, {"Grace": 0})
    assert (machine.energy(), machine.faults()) == ({}, [("package-0", "failed")])


def test_a_kernel_may_lay_it_out_otherwise(tmp_path: Path) -> None:
    """The attributes may stand in the chip's own folder."""
    devices = Devices(tmp_path)
    devices.chip(0, "power_meter", power1_average="5", power1_oem_info="CPU Power Socket 0")
    assert measures_packages(devices.sysfs) is True


def test_what_cannot_be_listed_measures_nothing(tmp_path: Path) -> None:
    """The question at the start has an answer, whatever the tree looks like."""
    (tmp_path / "class").mkdir()
    (tmp_path / "class/hwmon").symlink_to("hwmon")
    assert measures_packages(tmp_path) is False
    assert measures_packages(tmp_path / "nowhere") is False
