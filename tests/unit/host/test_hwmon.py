from __future__ import annotations

from pathlib import Path

import pytest

from fakes.devices import Devices
from jobwatt.errors import Absent, Failed
from jobwatt.host.hwmon import Chip, read_chips


@pytest.fixture
def devices(tmp_path: Path) -> Devices:
    """Return an empty machine."""
    return Devices(tmp_path)


def test_chips_know_their_device(devices: Devices) -> None:
    """A chip has the name that its driver gives it and the device behind the link, by number."""
    card = devices.card(0, "0000:03:00.0", "amdgpu")
    other = devices.chip(10, "nvme")
    chip = devices.chip(9, "amdgpu", card)
    assert read_chips(devices.sysfs) == [Chip("amdgpu", chip, card), Chip("nvme", other, None)]


def test_attributes_in_the_folder_of_the_device(devices: Devices) -> None:
    """Where an old driver keeps the attributes with the device, that folder is the chip's."""
    device = devices.power_meter(1, "Grace Power Socket 0", 5)
    (chip,) = read_chips(devices.sysfs)
    assert (chip.name, chip.path, chip.read("power1_average")) == ("power_meter", device, 5)


def test_a_chip_without_a_name_is_left_out(devices: Devices) -> None:
    """What says nothing of itself is nothing known."""
    (devices.chip(0, "x") / "name").unlink()
    assert read_chips(devices.sysfs) == []


def test_without_the_class_there_are_none(tmp_path: Path) -> None:
    """A machine without the class has no chips."""
    assert read_chips(tmp_path) == []


def test_a_class_that_cannot_be_listed_fails(tmp_path: Path) -> None:
    """Something else in its place is a failure, not an empty class."""
    (tmp_path / "class").mkdir()
    (tmp_path / "class/hwmon").symlink_to("hwmon")
    with pytest.raises(Failed):
        read_chips(tmp_path)


def test_reading(devices: Devices) -> None:
    """An attribute is a number, absent, or something that cannot be read."""
    devices.chip(0, "x", power1_average="35000000", power1_cap="no")
    (chip,) = read_chips(devices.sysfs)
    assert (chip.has("power1_average"), chip.has("power1_input")) == (True, False)
    assert chip.read("power1_average") == 35_000_000
    with pytest.raises(Failed):
        chip.read("power1_cap")
    with pytest.raises(Absent):
        chip.read("power1_input")


def test_inputs_by_label(devices: Devices) -> None:
    """The input with the first of the labels is found; a label without an input is none."""
    values = {"temp1_label": "mem", "temp1_input": "1", "temp2_label": "edge", "temp2_input": "2"}
    devices.chip(0, "x", None, **values, temp3_label="junction")
    (chip,) = read_chips(devices.sysfs)
    assert chip.labelled("temp", ("edge", "mem")) == "temp2_input"
    assert chip.labelled("temp", ("pkg", "mem")) == "temp1_input"
    assert chip.labelled("temp", ("junction",)) is None
    assert chip.labelled("energy", ("card",)) is None


def test_a_label_that_cannot_be_read_is_none(devices: Devices) -> None:
    """A label that fails stops no other."""
    folder = devices.chip(0, "x", temp2_label="edge", temp2_input="2")
    (folder / "temp1_label").mkdir()
    assert read_chips(devices.sysfs)[0].labelled("temp", ("edge",)) == "temp2_input"
