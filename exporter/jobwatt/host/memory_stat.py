"""How much anonymous memory a cgroup holds: each page once, whoever shares it.

Version 2: `anon` of `memory.stat` (Linux Documentation/admin-guide/cgroup-v2.rst); version 1:
`total_rss` (cgroup-v1/memory.rst). Both are with all groups below.
"""

from __future__ import annotations

from jobwatt.errors import ReadError
from jobwatt.host.files import is_integer, read_bytes

__all__ = ["MEMORY", "parse_anonymous", "read_anonymous"]

MEMORY = "memory"
"""The controller of version 1 in whose tree it is."""


def parse_anonymous(data: bytes) -> int | None:
    """Return the bytes that a `memory.stat` tells of, None where it does not."""
    for line in data.split(b"\n"):
        key, _, value = line.partition(b" ")
        if key in {b"anon", b"total_rss"} and is_integer(value):
            return int(value)
    return None


def read_anonymous(folder: str) -> int | None:
    """Read a cgroup's; None where the controller is not enabled there."""
    try:
        return parse_anonymous(read_bytes(f"{folder}/memory.stat"))
    except ReadError:
        return None
