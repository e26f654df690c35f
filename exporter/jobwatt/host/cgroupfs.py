"""The cgroup trees: which are mounted, and the CPU time that a cgroup has used.

Version 2 has it in `cpu.stat` (Linux Documentation/admin-guide/cgroup-v2.rst), also where the cpu
controller is not enabled; version 1 in `cpuacct.usage`. A hybrid machine has both.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from jobwatt.errors import Failed, ReadError, translated
from jobwatt.host.files import is_integer, read_bytes

__all__ = ["Cgroupfs", "CpuUsageFile", "Hierarchy", "find_cgroupfs", "parse_cpu_stat"]

_V1_FOLDERS = ("cpuacct", "cpu,cpuacct", "cpuacct,cpu", "cpu")
_USAGE_PREFIX = b"usage_usec "
_MOST_BYTES = 128
"""The first line is all that is wanted."""


def parse_cpu_stat(data: bytes) -> int:
    """Return `usage_usec` of a cgroup v2 `cpu.stat`, in nanoseconds."""
    line = data.partition(b"\n")[0]  # the kernel writes it first
    value = line.removeprefix(_USAGE_PREFIX) if line.startswith(_USAGE_PREFIX) else b""
    if not is_integer(value):
        raise Failed(f"no usage in cpu.stat: {data[:60]!r}")
    return int(value) * 1000


def parse_cpuacct_usage(data: bytes) -> int:
    """Return a cgroup v1 `cpuacct.usage`, in nanoseconds."""
    value = data.strip()
    if not is_integer(value):
        raise Failed(f"no usage in cpuacct.usage: {data[:60]!r}")
    return int(value)


class CpuUsageFile:
    """A cgroup's CPU time, read again and again through one descriptor."""

    __slots__ = ("_fd", "_parse", "_path")

    def __init__(self, path: Path, parse: Callable[[bytes], int]) -> None:
        """Open the file; raises Absent, Denied, Failed."""
        self._path = path
        self._parse = parse
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise translated(error, path) from error

    def read(self) -> int:
        """Return the CPU time so far in nanoseconds; raises Absent once the cgroup is gone."""
        try:
            return self._parse(os.pread(self._fd, _MOST_BYTES, 0))
        except OSError as error:
            raise translated(error, self._path) from error

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup tree that counts CPU time.

    `controller` is its name in /proc/PID/cgroup ("" for v2).
    """

    controller: str
    root: Path
    file_name: str
    parse: Callable[[bytes], int]

    def open_usage(self, path: str) -> CpuUsageFile:
        """Open the CPU time of the cgroup at `path`; raises Absent, Denied, Failed."""
        return CpuUsageFile(self.root / path.lstrip("/") / self.file_name, self.parse)


@dataclass(frozen=True, slots=True)
class Cgroupfs:
    """The trees of this machine, the one that says most of a process first.

    `namespace_roots` has, by controller, where the root of our cgroup namespace lies in a tree, for
    the trees in which that is not the root.
    """

    hierarchies: tuple[Hierarchy, ...]
    namespace_roots: dict[str, str] = field(default_factory=dict)

    def place(self, paths: dict[str, str]) -> tuple[Hierarchy, str] | None:
        """Return the tree and the path in which a process is best told apart; None for the root.

        On a hybrid machine one tree may be divided while the other is not.
        """
        for hierarchy in self.hierarchies:
            path = paths.get(hierarchy.controller, "/")
            if path != "/":
                return hierarchy, path
        return None

    def resolve(self, paths: dict[str, str]) -> dict[str, str]:
        """Return a process's paths from the trees' own roots.

        In a cgroup namespace (a container's) the kernel shows the paths of processes outside as
        relative to the namespace's root: `/../../system.slice/…` (cgroup_namespaces(7)).
        """
        if not self.namespace_roots:
            return paths
        return {
            controller: posixpath.normpath(f"{self.namespace_roots[controller]}{path}")
            if controller in self.namespace_roots
            else path
            for controller, path in paths.items()
        }

    def open_root_usage(self) -> CpuUsageFile | None:
        """Open the CPU time of all tasks of the machine, exact to the nanosecond (v1 only).

        The root of v2 has a `cpu.stat` as well, but made of clock ticks.
        """
        for hierarchy in self.hierarchies:
            if hierarchy.controller == "cpuacct":
                return hierarchy.open_usage("/")
        return None


def find_cgroupfs(base: Path, pid: int | None = None) -> Cgroupfs:
    """Find what is mounted below `base`: v2 alone, v1 alone, or both (hybrid).

    `pid` is a process of our own cgroup, to be found in the trees if we are in a namespace.
    """
    found: list[Hierarchy] = []
    for root in (base, base / "unified"):
        if (root / "cgroup.controllers").is_file():
            found.append(Hierarchy("", root, "cpu.stat", parse_cpu_stat))
            break
    for name in _V1_FOLDERS:
        if (base / name / "cpuacct.usage").is_file():
            found.append(Hierarchy("cpuacct", base / name, "cpuacct.usage", parse_cpuacct_usage))
            break
    roots: dict[str, str] = {}
    if pid is not None:
        for hierarchy in found:
            if path := _find_process(hierarchy.root, pid):
                roots[hierarchy.controller] = path
    return Cgroupfs(tuple(found), roots)


def _find_process(root: Path, pid: int) -> str:
    """Return the path of the cgroup that a process is directly in, "" for the root."""
    line = str(pid).encode()
    for folder, _, files in os.walk(root):
        if "cgroup.procs" not in files:
            continue
        try:
            pids = read_bytes(f"{folder}/cgroup.procs")
        except ReadError:
            continue
        if line in pids.split():
            return folder[len(str(root)) :]
    return ""
