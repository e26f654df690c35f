"""A cgroup for one run of a job, as `systemd-run --scope` would make it, where that is allowed.

Its CPU time is complete: it includes processes that live between two looks. Nothing here fails for
want of permission: a run goes without.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from jobwatt.errors import ReadError
from jobwatt.host.cgroupfs import Cgroupfs, Hierarchy
from jobwatt.host.files import list_folder, read_bytes
from jobwatt.host.procfs import Procfs

__all__ = ["PREFIX", "RunCgroup", "make_run_cgroup", "run_of_folder"]

PREFIX = "jobwatt-run-"


def run_of_folder(name: str) -> str | None:
    """Return the value of JOBWATT_JOB that a folder is named after, None for one of others."""
    return (name.removeprefix(PREFIX) or None) if name.startswith(PREFIX) else None


class RunCgroup:
    """One such cgroup; made by `make_run_cgroup`."""

    def __init__(self, hierarchy: Hierarchy, above: Path, path: str, lock: int) -> None:
        self._hierarchy = hierarchy
        self._above = above
        self._path = path
        self._lock = lock  # for as long as it is in use
        self._folder = hierarchy.root / path.lstrip("/")

    @contextlib.contextmanager
    def entered(self) -> Iterator[bool]:
        """Be in it for a moment, so that a child is born there; gives whether that is so."""
        inside = _move(self._folder)
        try:
            yield inside
        finally:
            if inside:
                _move(self._above)

    def pids(self) -> set[int]:
        """Return its processes."""
        try:
            return set(map(int, read_bytes(self._folder / "cgroup.procs").split()))
        except (ReadError, ValueError):
            return set()

    def used_ns(self) -> int | None:
        """Return the CPU time so far, None where it cannot be read."""
        try:
            usage = self._hierarchy.open_usage(self._path)
        except ReadError:
            return None
        try:
            return usage.read()
        except ReadError:
            return None
        finally:
            usage.close()

    def remove(self) -> None:
        """Remove it; where a process is left in it, a later run does."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()
        os.close(self._lock)


def make_run_cgroup(procfs: Procfs, cgroupfs: Cgroupfs, run: str) -> RunCgroup | None:
    """Make a cgroup below our own, in the tree in which processes here are told apart.

    None where this user may not, or where no tree counts CPU time.
    """
    try:
        paths = cgroupfs.resolve(procfs.read_cgroup(os.getpid()))
    except ReadError:
        return None
    if not cgroupfs.hierarchies:
        return None
    hierarchy, own = cgroupfs.place(paths) or (cgroupfs.hierarchies[0], "/")
    above = hierarchy.root / own.lstrip("/")
    _sweep(above)
    folder = above / f"{PREFIX}{run}"
    try:
        folder.mkdir(exist_ok=True)  # others of the same run may be in it
        lock = _open_locked(folder, fcntl.LOCK_SH)
    except OSError:
        return None
    return RunCgroup(hierarchy, above, f"{own.rstrip('/')}/{folder.name}", lock)


def _sweep(above: Path) -> None:
    """Remove what earlier runs had to leave behind; what is in use is locked, or not empty."""
    try:
        names = list_folder(above)
    except ReadError:
        return
    for name in names:
        if not name.startswith(PREFIX):
            continue
        with contextlib.suppress(OSError):
            lock = _open_locked(above / name, fcntl.LOCK_EX)
            try:
                (above / name).rmdir()
            finally:
                os.close(lock)


def _open_locked(folder: Path, how: int) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _move(folder: Path) -> bool:
    try:
        (folder / "cgroup.procs").write_text("0")
    except OSError:
        return False
    return True
