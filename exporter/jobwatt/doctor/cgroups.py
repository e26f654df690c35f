"""Cgroups: which version, and whether they count CPU time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jobwatt.doctor.finding import Finding, Group, Level
from jobwatt.errors import ReadError
from jobwatt.host.cgroupfs import Hierarchy, find_cgroupfs
from jobwatt.host.files import list_folder
from jobwatt.host.procfs import Procfs

__all__ = ["check_cgroups"]


def check_cgroups(cgroupfs: Path, procfs: Procfs) -> Iterator[Finding]:
    """Check the trees, and whether the paths of processes can be found in them."""
    hierarchies = find_cgroupfs(cgroupfs).hierarchies
    if not hierarchies:
        yield _explain_none(cgroupfs)
        return
    controllers = {hierarchy.controller for hierarchy in hierarchies}
    version = "v2" if controllers == {""} else "v1 and v2" if "" in controllers else "v1"
    yield _finding(Level.OK, "version", version)
    for hierarchy in hierarchies:
        yield _check_counter(hierarchy)
    try:
        paths = procfs.read_cgroup(1)
    except ReadError:
        return
    if any(path.startswith("/..") for path in paths.values()):
        yield _finding(
            Level.NOTE,
            "namespace",
            "a container's: the paths of other processes lead out of it",
            "run in the host's cgroup namespace:\n  docker run --cgroupns=host …",
        )


def _finding(level: Level, subject: str, message: str, remedy: str | None = None) -> Finding:
    return Finding(level, Group.CGROUPS, subject, message, remedy)


def _check_counter(hierarchy: Hierarchy) -> Finding:
    """Read the counter at the tree's root as the exporter reads those below."""
    try:
        usage = hierarchy.open_usage("/")
        try:
            usage.read()
        finally:
            usage.close()
    except ReadError as error:
        return _finding(Level.PROBLEM, hierarchy.file_name, str(error))
    return _finding(Level.OK, hierarchy.file_name, f"CPU time, below {hierarchy.root}")


def _explain_none(cgroupfs: Path) -> Finding:
    try:
        names = list_folder(cgroupfs)
    except ReadError:
        names = []
    if names:
        why = f"nothing below {cgroupfs} counts CPU time"
        remedy = (
            "boot with cgroup v2 (or with v1's cpuacct), by the kernel's command line:\n"
            "  systemd.unified_cgroup_hierarchy=1"
        )
    else:
        why = f"none is mounted at {cgroupfs}"
        remedy = (
            "mount the host's and name them:\n"
            "  docker run -v /sys:/host/sys:ro … jobwatt serve --path.sysfs=/host/sys"
        )
    message = f"{why}: what comes and goes between two samples is nobody's"
    return _finding(Level.NOTE, "version", message, remedy)
