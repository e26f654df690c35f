"""Slurm's own processes, whose titles tell the job of a cgroup that is named by a SLUID.

Each step has a `slurmstepd: [<job id>.<step>]` in its `slurm/` folder, where no task of a user is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobwatt.errors import ReadError
from jobwatt.host.cgroupfs import Cgroupfs
from jobwatt.host.files import list_folder, read_bytes
from jobwatt.host.procfs import Procfs

__all__ = ["StepTitles", "parse_title"]

_TITLE = re.compile(r"slurmstepd: \[([1-9]\d{0,9})[.\]]", re.ASCII)
_MOST_REMEMBERED = 1024
_MOST_ASKED = 8


def parse_title(title: str) -> str | None:
    """Return the job id in a step daemon's title, None where it has none."""
    match = _TITLE.match(title)
    return match[1] if match else None


class StepTitles:
    """Job ids by cgroup."""

    def __init__(self, cgroupfs: Cgroupfs, procfs: Procfs) -> None:
        self._cgroupfs = cgroupfs
        self._procfs = procfs
        self._known: dict[str, str] = {}

    def id_of_sluid(self, controller: str, parts: Sequence[str]) -> str | None:
        """Return the job id of the cgroup whose name is a SLUID, None while no step tells it."""
        sluid = parts[-1]
        if sluid not in self._known:
            job_id = self._look(controller, parts)
            if job_id is None:
                return None
            if len(self._known) >= _MOST_REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[sluid] = job_id
        return self._known[sluid]

    def _look(self, controller: str, parts: Sequence[str]) -> str | None:
        try:
            folder = self._cgroupfs.folder(controller, parts)
            steps = [name for name in list_folder(folder) if name.startswith("step_")]
        except ReadError:
            return None
        for pid in self._pids(folder, steps):
            try:
                job_id = parse_title(self._procfs.read_title(pid))
            except ReadError:
                continue
            if job_id is not None and self._procfs.read_owner(pid) == 0:
                return job_id
        return None

    def _pids(self, folder: str, steps: Sequence[str]) -> Iterator[int]:
        for step in steps[:_MOST_ASKED]:
            try:
                pids = read_bytes(Path(folder, step, "slurm/cgroup.procs")).split()
            except ReadError:
                continue
            yield from map(int, pids[:_MOST_ASKED])
