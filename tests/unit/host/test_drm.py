from __future__ import annotations

from pathlib import Path

import pytest

from fakes.devices import Devices, link, write
from jobwatt.errors import Failed
from jobwatt.host.drm import Card, read_cards, read_driver_version
from jobwatt.host.files import list_folder


@pytest.fixture
def devices(tmp_path: Path) -> Devices:
    """Return an empty machine."""
    return Devices(tmp_path)


def test_cards_in_the_order_of_the_bus(devices: Devices) -> None:
    """A card is a PCI device with a driver and nodes, whatever its number."""
    second = devices.card(0, "0000:83:00.0", "xe")
    first = devices.card(1, "0000:03:00.0", "amdgpu")
    assert read_cards(devices.sysfs) == [
        Card("0000:03:00.0", first, "amdgpu", frozenset({"card1", "renderD129"})),
        Card("0000:83:00.0", second, "xe", frozenset({"card0", "renderD128"})),
    ]


def test_connectors_and_platform_devices_are_no_cards(devices: Devices) -> None:
    """Outputs of a card, and cards that are not on the PCI bus, are left out."""
    card = devices.card(0, "0000:03:00.0", "amdgpu")
    write(card / "drm/card0/card0-DP-1", {"status": "connected"})
    link(devices.sysfs / "class/drm/card0-DP-1", card / "drm/card0/card0-DP-1")
    virtual = devices.sysfs / "devices/platform/amdgpu_xcp_0"
    write(virtual / "drm/card5", {"dev": "226:5"})
    link(virtual / "drm/card5/device", virtual)
    link(devices.sysfs / "class/drm/card5", virtual / "drm/card5")
    assert [found.address for found in read_cards(devices.sysfs)] == ["0000:03:00.0"]


def test_a_card_without_driver_and_nodes(devices: Devices) -> None:
    """What is missing is empty."""
    path = devices.card(0, "0000:03:00.0", "amdgpu")
    (path / "driver").unlink()
    (card,) = read_cards(devices.sysfs)
    assert (card.driver, card.ids, card.read("unique_id")) == ("", "", "")
    assert Card("0000:03:00.0", path, "", frozenset()).is_asleep is False


def test_a_card_whose_nodes_leave_meanwhile(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that goes while it is looked at has no nodes."""
    devices.card(0, "0000:03:00.0", "amdgpu")

    def leaving(path: Path) -> list[str]:
        if path.name == "drm" and path.parent.name != "class":
            raise Failed(str(path))
        return list_folder(path)

    monkeypatch.setattr("jobwatt.host.drm.list_folder", leaving)
    assert [card.nodes for card in read_cards(devices.sysfs)] == [frozenset()]


def test_ids(devices: Devices) -> None:
    """Vendor and device are those of the PCI bus."""
    devices.card(0, "0000:03:00.0", "amdgpu", vendor="0x1002", device="0x744c")
    assert read_cards(devices.sysfs)[0].ids == "1002:744c"


@pytest.mark.parametrize(
    ("status", "asleep"),
    [("active", False), ("suspended", True), ("suspending", True), ("unsupported", False)],
)
def test_sleep(devices: Devices, status: str, asleep: bool) -> None:
    """A card that power management has put to sleep says so."""
    devices.card(0, "0000:03:00.0", "amdgpu", **{"power/runtime_status": status})
    assert read_cards(devices.sysfs)[0].is_asleep is asleep


def test_without_the_class_there_are_none(tmp_path: Path) -> None:
    """A machine without the class has no cards."""
    assert read_cards(tmp_path) == []


def test_a_class_that_cannot_be_listed_fails(tmp_path: Path) -> None:
    """Something else in its place is a failure, not an empty class."""
    (tmp_path / "class").mkdir()
    (tmp_path / "class/drm").symlink_to("drm")
    with pytest.raises(Failed):
        read_cards(tmp_path)


def test_versions(devices: Devices) -> None:
    """A module has its own version, else the kernel's, else none."""
    assert read_driver_version(devices.sysfs, devices.procfs, "amdgpu") == ""
    write(devices.procfs / "sys/kernel", {"osrelease": "6.12.1"})
    write(devices.sysfs / "module/amdgpu", {"version": "6.10.5"})
    assert read_driver_version(devices.sysfs, devices.procfs, "amdgpu") == "6.10.5"
    assert read_driver_version(devices.sysfs, devices.procfs, "xe") == "6.12.1"
