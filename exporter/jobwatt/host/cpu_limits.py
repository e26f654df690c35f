"""How many CPUs a cgroup may use: its cpuset and its quota.

Version 2: `cpuset.cpus.effective`, `cpu.max` (Linux Documentation/admin-guide/cgroup-v2.rst);
version 1: `cpuset.effective_cpus`, `cpu.cfs_quota_us` (cgroup-v1/cpusets.rst, sched-bwc.rst).
"""

from __future__ import annotations

from dataclasses import dataclass

from jobwatt.errors import ReadError
from jobwatt.host.cpulist import parse_cpulist
from jobwatt.host.files import is_integer, read_bytes

__all__ = ["CONTROLLERS", "CpuLimit", "parse_cpu_max", "parse_cpu_quota", "read_cpu_limit"]

CONTROLLERS = ("", "cpuset", "cpu")
"""In whose trees there are limits; "" is v2."""


@dataclass(frozen=True, slots=True)
class CpuLimit:
    """The CPUs that a cgroup may run on (empty: not told), and how many at once (None: any)."""

    cpuset: frozenset[int] = frozenset()
    quota: float | None = None


def parse_cpu_max(data: bytes) -> float | None:
    """Parse a v2 `cpu.max`: `<quota or max> <period>` in microseconds."""
    words = data.split()
    return parse_cpu_quota(words[0], words[1]) if len(words) > 1 else None


def parse_cpu_quota(quota: bytes, period: bytes) -> float | None:
    """Return the CPUs of a quota in a period, None without one (`max`, or -1 in version 1)."""
    quota, period = quota.strip(), period.strip()
    if not (is_integer(quota) and is_integer(period)) or not int(quota) or not int(period):
        return None
    return int(quota) / int(period)


def read_cpu_limit(controller: str, folder: str) -> CpuLimit:
    """Read the limit of the cgroup in this folder, of a tree of `CONTROLLERS`."""
    if controller == "":
        cpuset = _read(f"{folder}/cpuset.cpus.effective")
        return CpuLimit(_parse_cpuset(cpuset), parse_cpu_max(_read(f"{folder}/cpu.max")))
    if controller == "cpuset":
        cpuset = _read(f"{folder}/cpuset.effective_cpus") or _read(f"{folder}/cpuset.cpus")
        return CpuLimit(_parse_cpuset(cpuset))
    quota = _read(f"{folder}/cpu.cfs_quota_us")
    return CpuLimit(quota=parse_cpu_quota(quota, _read(f"{folder}/cpu.cfs_period_us")))


def _parse_cpuset(data: bytes) -> frozenset[int]:
    return parse_cpulist(data.decode("ascii", errors="replace"))


def _read(path: str) -> bytes:
    """Return a file's content; nothing where the controller is not enabled there."""
    try:
        return read_bytes(path)
    except ReadError:
        return b""
