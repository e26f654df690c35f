"""What jobs' own cgroups tell: how many CPUs they are limited to, how much memory they hold."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping

from jobwatt.errors import ReadError
from jobwatt.host.cgroupfs import Cgroupfs
from jobwatt.host.cpu_limits import CONTROLLERS, read_cpu_limit
from jobwatt.host.memory_stat import MEMORY, read_anonymous
from jobwatt.workloads.contract import SYSTEM, Facts, split_path

__all__ = ["OwnCgroups", "own_depth"]

_MOST_FOLDERS, _MOST_PLACES = 64, 1024
"""Of a job: cgroups that are its own, and places of its processes that were looked at."""


class _Held:
    """A job's own cgroups (controller and folder), and where processes of it have been seen.

    `memory` has the folders that count its memory, None where some of its processes are in none.
    """

    __slots__ = ("by_cgroup", "cpus", "folders", "memory", "places", "settled")

    def __init__(self) -> None:
        self.by_cgroup = False
        self.cpus: float | None = None
        self.folders: dict[tuple[str, str], None] = {}
        self.memory: dict[str, None] | None = {}
        self.places: set[tuple[str, ...]] = set()
        self.settled = False


class OwnCgroups:
    """The CPUs that jobs hold, as far as these are less than the machine's, and their memory.

    A job's own cgroup is the outermost that leads to it by name alone. One job may have several on
    a node (pods of one training): their cpusets unite, their quotas add up.
    """

    def __init__(
        self, cgroupfs: Cgroupfs, job_uid_of: Callable[[Facts], str], machine_cpus: int
    ) -> None:
        self._cgroupfs = cgroupfs
        self._job_uid_of = job_uid_of
        self._machine_cpus = machine_cpus
        self._held: dict[str, _Held] = {}
        self._turn: deque[str] = deque()

    def note(self, job_uid: str, cgroups: Mapping[str, str]) -> bool:
        """Take notice of where a process of a job is; return whether a cgroup names the job."""
        if job_uid == SYSTEM:
            return False
        held = self._held.get(job_uid)
        if held is None:
            held = self._held[job_uid] = _Held()
            self._turn.append(job_uid)
        place = tuple(cgroups.values())
        if place in held.places or len(held.places) >= _MOST_PLACES:
            return held.by_cgroup
        held.places.add(place)
        before = len(held.folders)
        for controller, path in cgroups.items():
            depth = own_depth(self._job_uid_of, job_uid, controller, path)
            if depth is None:
                continue
            held.by_cgroup = True
            if controller in CONTROLLERS and len(held.folders) < _MOST_FOLDERS:
                self._keep(held, controller, split_path(path)[:depth])
        self._note_memory(held, job_uid, cgroups)
        if len(held.folders) != before:
            held.cpus = self._read(held)
        return held.by_cgroup

    def cpus(self, job_uid: str) -> float | None:
        """Return how many CPUs a job holds, None where nothing is reserved for it."""
        held = self._held.get(job_uid)
        return None if held is None else held.cpus

    def forget(self, job_uid: str) -> None:
        """Drop a job without processes."""
        if self._held.pop(job_uid, None) is not None:
            self._turn.remove(job_uid)

    def review(self) -> str | None:
        """Read one job's limits again, each in its turn; return whose, None without any."""
        if not self._turn:
            return None
        self._turn.rotate(-1)
        job_uid = self._turn[-1]
        held = self._held[job_uid]
        held.cpus = self._read(held)
        return job_uid

    def anonymous_bytes(self, job_uid: str) -> int | None:
        """Return the anonymous memory of all processes of a job, None where that is not counted.

        It costs a read of each of its cgroups.
        """
        held = self._held.get(job_uid)
        if held is None or not held.memory:
            return None
        amounts = [read_anonymous(folder) for folder in held.memory if os.path.isdir(folder)]  # noqa: PTH112
        return sum(amount for amount in amounts if amount) if None not in amounts else None

    def hasten(self, job_uid: str) -> None:
        """Let a job be the next whose turn it is: once, when its processes are no longer young."""
        held = self._held.get(job_uid)
        if held is not None and not held.settled:
            held.settled = True
            self._turn.remove(job_uid)
            self._turn.appendleft(job_uid)

    def _note_memory(self, held: _Held, job_uid: str, cgroups: Mapping[str, str]) -> None:
        if held.memory is None:
            return
        controller = MEMORY if MEMORY in cgroups else ""
        path = cgroups.get(controller, "/")
        depth = own_depth(self._job_uid_of, job_uid, controller, path)
        if depth is None or len(held.memory) >= _MOST_FOLDERS:
            held.memory = None
            return
        try:
            held.memory[self._cgroupfs.folder(controller, split_path(path)[:depth])] = None
        except ReadError:
            held.memory = None  # outside of our namespace

    def _keep(self, held: _Held, controller: str, parts: tuple[str, ...]) -> None:
        try:
            held.folders[controller, self._cgroupfs.folder(controller, parts)] = None
        except ReadError:
            return  # outside of our namespace

    def _read(self, held: _Held) -> float | None:
        cpuset: frozenset[int] = frozenset()
        quotas: dict[str, list[float | None]] = {}
        for controller, folder in list(held.folders):
            if not os.path.isdir(folder):  # noqa: PTH112 - no Path on a hot path
                del held.folders[controller, folder]
                continue
            limit = read_cpu_limit(controller, folder)
            cpuset |= limit.cpuset
            if controller != "cpuset":
                quotas.setdefault(controller, []).append(limit.quota)
        amounts = [float(len(cpuset))] if cpuset else []
        amounts += [
            sum(quota for quota in of_tree if quota is not None)
            for of_tree in quotas.values()
            if None not in of_tree
        ]
        least = min(amounts, default=None)
        return least if least is not None and least < self._machine_cpus else None


def own_depth(
    job_uid_of: Callable[[Facts], str], job_uid: str, controller: str, path: str
) -> int | None:
    """Return how many parts of a path lead to the job's own cgroup, None if none do."""
    walked = ""
    for depth, part in enumerate(split_path(path), 1):
        walked += f"/{part}"
        if job_uid_of(Facts({controller: walked}, -1)) == job_uid:
            return depth
    return None
