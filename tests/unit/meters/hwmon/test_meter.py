from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fakes.devices import write
from fakes.monitored import Machine
from jobwatt.meters.hwmon.meter import RESCAN_READS
from jobwatt.model import Source
from jobwatt.units import UJ

ADDRESS = "0000:03:00.0"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine without any device."""
    return Machine(tmp_path)


def add_gpu(machine: Machine, number: int = 0, watts: int = 100) -> Path:
    card = machine.card(number, ADDRESS, "amdgpu")
    return machine.chip(number, "amdgpu", card, power1_average=str(watts * UJ))


def remove(machine: Machine, chip: Path) -> None:
    card = chip.parent.parent
    shutil.rmtree(card)
    for name in ("drm", "hwmon"):
        shutil.rmtree(machine.sysfs / "class" / name)


def test_a_machine_without_devices_has_no_report(machine: Machine) -> None:
    """Nothing to measure is no error."""
    assert (machine.meter.read(), machine.meter.sources) == ((), (Source.HWMON,))


def test_a_device_that_comes_later_is_found(machine: Machine) -> None:
    """A driver that is loaded later is found at the next read where there was none before."""
    assert machine.meter.read() == ()
    add_gpu(machine)
    assert machine.energy() == {ADDRESS: 0}


def test_a_second_device_is_found_after_a_while(machine: Machine) -> None:
    """The tree is looked at again after some reads."""
    add_gpu(machine)
    machine.read()
    card = machine.card(1, "0000:83:00.0", "amdgpu")
    machine.chip(1, "amdgpu", card, power1_average="5")
    counts = [len(machine.read().readings) for _ in range(RESCAN_READS)]
    assert counts == [1] * (RESCAN_READS - 1) + [2]


def test_a_device_that_leaves_is_missed_and_may_come_back(machine: Machine) -> None:
    """Its absence shows for as long as it lasts; back under another number it goes on."""
    chip = add_gpu(machine)
    machine.read()
    assert machine.energy() == {ADDRESS: 100 * UJ}
    remove(machine, chip)
    absent = [machine.faults() for _ in range(RESCAN_READS + 2)]
    assert absent == [[(ADDRESS, "absent")]] * (RESCAN_READS + 2)
    add_gpu(machine, number=4)
    machine.energy()
    assert (machine.energy(), machine.faults()) == ({ADDRESS: 200 * UJ}, [])


def test_a_driver_that_is_loaded_anew_is_found_at_once(machine: Machine) -> None:
    """A chip under another number is found at the read after the one that failed."""
    chip = add_gpu(machine)
    machine.read()
    remove(machine, chip)
    add_gpu(machine, number=7)
    machine.read()
    assert machine.energy() == {ADDRESS: 200 * UJ}


def test_chips_that_swap_their_numbers_are_not_mistaken(machine: Machine) -> None:
    """After a driver was loaded anew another card may have the number: it is not read for this."""
    chip = add_gpu(machine, number=0)
    card = machine.card(1, "0000:83:00.0", "amdgpu")
    other = machine.chip(1, "amdgpu", card, power1_average=str(7 * UJ))
    machine.read()
    for number, (old, new) in enumerate(((other, "hwmon0"), (chip, "hwmon1"))):
        old.rename(old.with_name(new))
        link = machine.sysfs / f"class/hwmon/hwmon{number}"
        link.unlink()
        link.symlink_to(old.with_name(new))
    machine.read()
    machine.read()
    assert machine.energy() == {ADDRESS: 300 * UJ, "0000:83:00.0": 21 * UJ}


def test_a_lasting_failure_is_not_looked_for_at_every_read(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes on failing in the same way costs no look for devices at each read."""
    write(add_gpu(machine), {"power1_average": ""})
    scans: list[int] = []
    really_scan = machine.meter._scan

    def counting() -> None:
        scans.append(1)
        really_scan()

    monkeypatch.setattr(machine.meter, "_scan", counting)
    for _ in range(RESCAN_READS):
        machine.read()
    assert len(scans) == 2


def test_a_class_that_cannot_be_listed_is_a_fault(machine: Machine) -> None:
    """It is not the same as a machine without devices; known ones go on being read."""
    add_gpu(machine)
    machine.read()
    classes = machine.sysfs / "class"
    (classes / "hwmon").rename(classes / "hidden")
    (classes / "hwmon").symlink_to("hwmon")
    machine.meter._reads_left = 0
    assert machine.faults() == [("hwmon", "failed")]
    (classes / "hwmon").unlink()
    (classes / "hidden").rename(classes / "hwmon")
    assert (machine.faults(), machine.energy()) == ([], {ADDRESS: 300 * UJ})


def test_all_vendors_make_one_report(machine: Machine) -> None:
    """Whatever hardware monitoring tells is one source."""
    add_gpu(machine)
    card = machine.card(1, "0000:83:00.0", "xe")
    machine.chip(1, "xe", card, energy1_input="7")
    machine.power_meter(2, "Grace Power Socket 0", 5)
    report = machine.read()
    names = [reading.counter.device.name for reading in report.readings if reading.counter.device]
    assert (report.source, names) == (Source.HWMON, [ADDRESS, "0000:83:00.0", "package-0"])
