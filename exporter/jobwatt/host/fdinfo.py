"""Who holds graphics cards: the open DRM files of processes.

Linux Documentation/gpu/drm-usage-stats.rst. Both /proc/PID/fd and /proc/PID/fdinfo belong to the
process's owner, and to who may trace it (CAP_SYS_PTRACE).
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from jobwatt.errors import Failed, translated
from jobwatt.host.files import is_integer, read_bytes
from jobwatt.host.procfs import Procfs, decode

__all__ = ["DrmClient", "list_drm_files", "parse_fdinfo", "read_fdinfo"]

_NODE = re.compile(r"/dri/((?:card|renderD)\d+)$", re.ASCII)

_UNITS = {b"KiB": 1024, b"MiB": 1024**2, b"GiB": 1024**3}

_LOCAL = ("vram", "local")
"""Regions on the card itself are called vram (amdgpu), vram0 (xe) or local0 (i915)."""


@dataclass(frozen=True, slots=True)
class DrmClient:
    """What the driver tells of an open file; several descriptors may be one client.

    Attributes:
        address: PCI address of the card, "" where the driver does not tell.
        client_id: unique on its card.
        driver: `amdgpu`, `i915`, `xe`, …
        engine_ns: time that each class of engines worked for this client.
        cycles: the same in cycles of the card's clock, and what that clock showed:
            `{class: (busy, total)}`.
        capacity: engines in a class; one where it is not told.
        memory_bytes: memory that it holds on the card, or anywhere where the card has none of its
            own; None where the driver does not tell.
    """

    address: str
    client_id: int
    driver: str
    engine_ns: dict[str, int] = field(default_factory=dict)
    cycles: dict[str, tuple[int, int]] = field(default_factory=dict)
    capacity: dict[str, int] = field(default_factory=dict)
    memory_bytes: int | None = None


def parse_fdinfo(data: bytes) -> DrmClient | None:
    """Parse /proc/PID/fdinfo/FD; None for a file that is no DRM client's.

    Raises:
        Failed: a DRM driver's file whose numbers cannot be read.
    """
    values: dict[str, bytes] = {}
    for line in data.split(b"\n"):
        key, colon, value = line.partition(b":")
        if colon and key.startswith(b"drm-"):
            values[decode(key[4:])] = value.strip()
    if "driver" not in values or "client-id" not in values:
        return None
    engines = _numbers(values, "engine-")
    capacity = _numbers(values, "engine-capacity-")
    total = _numbers(values, "total-cycles-")
    busy = _numbers(values, "cycles-")
    return DrmClient(
        address=decode(values.get("pdev", b"")),
        client_id=_number("client-id", values["client-id"]),
        driver=decode(values["driver"]),
        engine_ns={name: ns for name, ns in engines.items() if not name.startswith("capacity-")},
        cycles={name: (busy[name], total[name]) for name in busy if name in total},
        capacity=capacity,
        memory_bytes=_memory(values),
    )


def read_fdinfo(procfs: Procfs, pid: int, fd: str) -> DrmClient | None:
    """Read /proc/PID/fdinfo/FD; raises Absent, Denied, Failed."""
    return parse_fdinfo(read_bytes(f"{procfs.root}/{pid}/fdinfo/{fd}"))


def list_drm_files(
    procfs: Procfs, pid: int, known: Container[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """List the descriptors of a process, and those of files below /dev/dri: `{fd: card0}`.

    What `known` contains is not looked at again.

    Raises:
        Absent, Denied, Failed: the process has ended, is somebody else's, or cannot be read.
    """
    folder = f"{procfs.root}/{pid}/fd"
    try:
        fds = os.listdir(folder)
    except OSError as error:
        raise translated(error, folder) from error
    found: dict[str, str] = {}
    for fd in fds:
        if fd in known:
            continue
        try:
            target = os.readlink(f"{folder}/{fd}")  # noqa: PTH115 - thousands of them
        except OSError:
            continue  # closed since
        if "/dri/" in target and (match := _NODE.search(target)):
            found[fd] = match[1]
    return fds, found


def _numbers(values: Mapping[str, bytes], prefix: str) -> dict[str, int]:
    return {
        key.removeprefix(prefix): _number(key, value)
        for key, value in values.items()
        if key.startswith(prefix)
    }


def _number(key: str, value: bytes) -> int:
    """Return a number, whatever unit follows it."""
    number = value.split(maxsplit=1)[0] if value else b""
    if not is_integer(number):
        raise Failed(f"drm-{key[:40]}: not a number: {value[:40]!r}")
    return int(number)


def _size(key: str, value: bytes) -> int:
    number = _number(key, value)
    unit = value.split(maxsplit=1)[1:]
    if unit and unit[0] not in _UNITS:
        raise Failed(f"drm-{key[:40]}: not a size: {value[:40]!r}")
    return number * (_UNITS[unit[0]] if unit else 1)


def _memory(values: Mapping[str, bytes]) -> int | None:
    """Return the memory on the card, else all of it: of what is resident, else of what is asked."""
    for prefix in ("resident-", "memory-", "total-"):
        regions = {
            key.removeprefix(prefix): _size(key, value)
            for key, value in values.items()
            if key.startswith(prefix) and not key.startswith("total-cycles-")
        }
        if regions:
            local = [size for name, size in regions.items() if name.startswith(_LOCAL)]
            return sum(local or regions.values())
    return None
