"""The cgroup trees: which are mounted, and the CPU time that a cgroup has used.

Version 2 has it in `cpu.stat` (Linux Documentation/admin-guide/cgroup-v2.rst), also where the cpu
controller is not enabled; version 1 in `cpuacct.usage`. A hybrid machine has both.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobwatt.errors import Absent, Failed, ReadError, translated
from jobwatt.host.files import is_integer, list_folder, read_bytes

__all__ = [
    "CgroupOwners",
    "Cgroupfs",
    "CpuUsageFile",
    "Hierarchy",
    "find_cgroupfs",
    "parse_cpu_stat",
]

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

    def identity(self) -> int:
        """Return what no other cgroup of this boot has: kernfs never uses an inode's number again.

        0 where it cannot be told.
        """
        try:
            return os.fstat(self._fd).st_ino
        except OSError:
            return 0

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
    the trees in which that is not the root; `trees` the root folder of every tree that is mounted,
    also of those that count no CPU time.
    """

    hierarchies: tuple[Hierarchy, ...]
    namespace_roots: dict[str, str] = field(default_factory=dict)
    trees: Mapping[str, Path] = field(default_factory=dict)

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

    def folder(self, controller: str, parts: Sequence[str]) -> str:
        """Return the folder of the cgroup with this path; raises Absent where it is not in sight.

        Absent is also what lies outside of a namespace whose place in the tree is not known.
        """
        root = self.trees.get(controller.removeprefix("name="))
        if root is None or ".." in parts:
            raise Absent(f"cgroup {controller}:{'/'.join(parts)}: not below {root}")
        return "/".join((str(root), *parts))

    def read_owner(self, controller: str, parts: Sequence[str]) -> int:
        """Return the uid that owns a cgroup's folder; raises Absent, Denied, Failed."""
        folder = self.folder(controller, parts)
        try:
            return os.stat(folder).st_uid  # noqa: PTH116 - no Path on a hot path
        except OSError as error:
            raise translated(error, folder) from error

    def open_root_usage(self) -> CpuUsageFile | None:
        """Open the CPU time of all tasks of the machine, exact to the nanosecond (v1 only).

        The root of v2 has a `cpu.stat` as well, but made of clock ticks.
        """
        for hierarchy in self.hierarchies:
            if hierarchy.controller == "cpuacct":
                return hierarchy.open_usage("/")
        return None


class CgroupOwners:
    """Who owns cgroups, also for a moment after they are gone.

    A process is often looked at while its cgroup is being removed: what was known of it holds.
    """

    _MOST = 4096

    def __init__(self, cgroupfs: Cgroupfs) -> None:
        self._cgroupfs = cgroupfs
        self._last: dict[tuple[str, tuple[str, ...]], int] = {}

    def uid(self, controller: str, parts: Sequence[str]) -> int:
        """Return the uid that owns a cgroup's folder, -1 where that cannot be known."""
        key = (controller, tuple(parts))
        try:
            uid = self._cgroupfs.read_owner(controller, parts)
        except Absent:
            return self._last.get(key, -1)
        except ReadError:
            return -1
        if key not in self._last and len(self._last) >= self._MOST:
            del self._last[next(iter(self._last))]
        self._last[key] = uid
        return uid

    def maker(self, controller: str, parts: Sequence[str]) -> int:
        """Return the uid that can have made a cgroup: the owner of the nearest above that is there.

        -1 where none of its tree is in sight. A cgroup's own folder may have been given away, to
        whoever is root in a container.
        """
        for depth in range(len(parts) - 1, -1, -1):
            try:
                return self._cgroupfs.read_owner(controller, parts[:depth])
            except Absent:
                continue
            except ReadError:
                break
        return -1


def find_cgroupfs(base: Path, pid: int | None = None) -> Cgroupfs:
    """Find what is mounted below `base`: v2 alone, v1 alone, or both (hybrid).

    `pid` is a process of our own cgroup, to be found in the trees if we are in a namespace.
    """
    found: list[Hierarchy] = []
    trees: dict[str, Path] = {}
    for root in (base, base / "unified"):
        if (root / "cgroup.controllers").is_file():
            found.append(Hierarchy("", root, "cpu.stat", parse_cpu_stat))
            trees[""] = root
            break
    for name in _V1_FOLDERS:
        if (base / name / "cpuacct.usage").is_file():
            found.append(Hierarchy("cpuacct", base / name, "cpuacct.usage", parse_cpuacct_usage))
            break
    if trees.get("") != base:
        trees |= _find_v1_trees(base)
    roots: dict[str, str] = {}
    if pid is not None:
        for hierarchy in found:
            if path := _find_process(hierarchy.root, pid):
                roots[hierarchy.controller] = path
    return Cgroupfs(tuple(found), roots, trees)


def _find_v1_trees(base: Path) -> dict[str, Path]:
    """Return the folders of version 1 by controller; several may share one: `cpu,cpuacct`."""
    try:
        names = list_folder(base)
    except ReadError:
        return {}
    return {
        controller: base / name
        for name in names
        if name != "unified" and (base / name).is_dir()
        for controller in name.split(",")
    }


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
