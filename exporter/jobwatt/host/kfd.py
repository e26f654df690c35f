"""AMD's compute driver (KFD): which processes hold memory on which GPU.

Linux drivers/gpu/drm/amd/amdkfd: kfd_topology.c, kfd_process.c. Its pids are those of the first
PID namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jobwatt.errors import Failed, ReadError
from jobwatt.host.files import is_integer, list_folder, read_bytes, read_integer
from jobwatt.host.procfs import decode

__all__ = ["parse_node_address", "read_kfd_gpus", "read_kfd_memory"]

_ROOT = "class/kfd/kfd"

_DOMAINS = 1 << 32


def parse_node_address(data: bytes) -> str:
    """Return the PCI address in a node's `properties`.

    `location_id` is bus and function in 16 bits; above them stands the number of a partition.

    Raises:
        Failed: the node has no place on the bus.
    """
    numbers: dict[str, int] = {}
    for line in data.split(b"\n"):
        key, _, value = line.strip().partition(b" ")
        if is_integer(value):
            numbers[decode(key)] = int(value)
    location, domain = numbers.get("location_id"), numbers.get("domain", 0)
    if location is None or domain >= _DOMAINS:
        raise Failed(f"not a node's properties: {data[:60]!r}")
    bus, function = location >> 8 & 0xFF, location & 0xFF
    return f"{domain:04x}:{bus:02x}:{function >> 3:02x}.{function & 7}"


def read_kfd_gpus(sysfs: Path) -> dict[str, str]:
    """Return the PCI address of each GPU by KFD's id of it; empty without KFD."""
    base = sysfs / _ROOT / "topology/nodes"
    gpus: dict[str, str] = {}
    try:
        nodes = list_folder(base)
    except ReadError:
        return gpus
    for node in nodes:
        try:
            gpu_id = read_integer(base / node / "gpu_id")
            if gpu_id:  # 0 is a CPU's
                gpus[str(gpu_id)] = parse_node_address(read_bytes(base / node / "properties"))
        except ReadError:
            continue
    return gpus


def read_kfd_memory(sysfs: Path, gpus: Mapping[str, str]) -> dict[str, dict[int, int]]:
    """Return the bytes that each process holds on each GPU: `{PCI address: {pid: bytes > 0}}`.

    A process that uses one GPU is shown with 0 bytes on all others.
    """
    base = f"{sysfs}/{_ROOT}/proc"
    memory: dict[str, dict[int, int]] = {}
    try:
        pids = list_folder(base)
    except ReadError:
        return memory
    for pid in filter(str.isdecimal, pids):
        for gpu_id, address in gpus.items():
            try:
                size = read_integer(f"{base}/{pid}/vram_{gpu_id}")
            except ReadError:
                continue
            if size:
                held = memory.setdefault(address, {})
                held[int(pid)] = held.get(int(pid), 0) + size
    return memory
