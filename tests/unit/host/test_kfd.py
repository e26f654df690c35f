from __future__ import annotations

from pathlib import Path

import pytest

from fakes.devices import Devices, write
from jobwatt.errors import Failed
from jobwatt.host.kfd import parse_node_address, read_kfd_gpus, read_kfd_memory


@pytest.mark.parametrize(
    ("properties", "address"),
    [
        (b"location_id 768\n", "0000:03:00.0"),
        (b"simd_count 4\nlocation_id 33539\ndomain 1\n", "0001:83:00.3"),
        (b"location_id 1073742592\ndomain 0\n", "0000:03:00.0"),
    ],
)
def test_addresses(properties: bytes, address: str) -> None:
    """A node lies on the bus where its location says, whatever its partition."""
    assert parse_node_address(properties) == address


@pytest.mark.parametrize(
    "properties", [b"", b"domain 0\n", b"location_id x", b"location_id 1\ndomain 99999999999"]
)
def test_nodes_without_a_place_fail(properties: bytes) -> None:
    """A node that is nowhere on the bus is no GPU."""
    with pytest.raises(Failed):
        parse_node_address(properties)


def test_memory_by_card(tmp_path: Path) -> None:
    """A process holds what it has on each GPU; nothing is no holding; parts of a card add up."""
    devices = Devices(tmp_path)
    gpus = {"4660": 768, "22136": 33536, "22137": 0x10000000 + 33536}
    devices.kfd(
        gpus,
        {70: {"4660": 5, "22136": 0}, 71: {"22136": 6, "22137": 1}, 72: {"1": 3}},
    )
    write(devices.sysfs / "class/kfd/kfd/topology/nodes/9", {"gpu_id": "x", "properties": ""})
    write(devices.sysfs / "class/kfd/kfd/proc/x", {"vram_4660": "9"})
    found = read_kfd_gpus(devices.sysfs)
    assert found == {"4660": "0000:03:00.0", "22136": "0000:83:00.0", "22137": "0000:83:00.0"}
    assert read_kfd_memory(devices.sysfs, found) == {
        "0000:03:00.0": {70: 5},
        "0000:83:00.0": {71: 7},
    }


def test_without_kfd_there_is_nothing(tmp_path: Path) -> None:
    """A machine without the driver has no such GPUs."""
    assert read_kfd_gpus(tmp_path) == {}
    assert read_kfd_memory(tmp_path, {"1": "0000:03:00.0"}) == {}
