"""Who was busy on a made-up node, as a look at /proc and cgroups would find it.

Like a real look it sees only the processes that live at that moment. Those that have ended since
the last one are told with what they still used; the time of those that came and went in between is
known by their owner alone.
"""

from __future__ import annotations

import time
from collections import deque

from jobwatt.model import JobPresence, Process, Row, Rows, Usage
from jobwatt.simulation.node import SimulatedNode
from jobwatt.simulation.tasks import Task
from jobwatt.units import NS

__all__ = ["SimulatedUsage"]

REMEMBERED_NS = 60 * NS
"""A process that has ended is found by its pid for so long after."""


class SimulatedUsage:
    """Looks at the node; one probe a node, since a process's end is told once."""

    method = "simulated"

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self._known: dict[Task, int] = {}
        self._by_pid: dict[int, Process] = {}
        self._gone: deque[tuple[int, Process]] = deque()
        self._packages = dict(enumerate(node.scenario.hardware.packages))
        self._busy_ns: dict[int, int] = {}
        self._last_ns: int | None = None

    @property
    def processes(self) -> list[Process]:
        """All live processes known."""
        return [task.process for task in self._known]

    @property
    def claimants(self) -> list[Process]:
        """Live processes whose environment names GPUs."""
        return [process for process in self.processes if process.environment]

    def find(self, pid: int) -> Process | None:
        """Return the process that has this pid, or had it within the last minute."""
        return self._by_pid.get(pid)

    def refresh(self, process: Process) -> None:
        """Do nothing: these processes keep their names."""
        del process

    def dump(self, now_ns: int) -> dict[str, Row]:
        """Return nothing: this node has no past."""
        del now_ns
        return {}

    def restore(self, rows: Rows) -> None:
        """Do nothing."""
        del rows

    def look(self, now_ns: int) -> Usage:
        """Return the use since the previous look; the first look returns none."""
        self._node.advance(now_ns)
        usage = Usage()
        first = self._last_ns is None
        for task in self._node.take_ended():
            if not first:
                self._take_leave(task, usage)
        for task in self._node.tasks:
            time_ns = self._node.cpu_ns(task)
            used_ns = time_ns - self._known.get(task, 0)
            self._known[task] = time_ns
            self._by_pid[task.process.pid] = task.process
            if used_ns and not first:
                usage.cpu_ns[task.process] = used_ns
            task.process.memory_bytes = self._node.memory_bytes(task)
            presence = usage.jobs.setdefault(
                task.process.job_uid,
                JobPresence(0, time.time() - self._node.age_seconds(task), task.process.user),
            )
            presence.processes += 1
            place = task.process.job_uid, task.process.packages
            held = usage.memory_bytes.get(place, 0)
            usage.memory_bytes[place] = held + task.process.memory_bytes
        self._forget()
        self._look_at_packages(usage)
        return usage

    def _take_leave(self, task: Task, usage: Usage) -> None:
        task.process.alive = False
        before_ns = self._known.pop(task, None)
        used_ns = self._node.cpu_ns(task) - (before_ns or 0)
        if before_ns is not None:
            usage.ended.append(task.process)
            self._gone.append((self._node.now_ns, task.process))
            if used_ns:
                usage.cpu_ns[task.process] = used_ns
        elif used_ns:
            job_uid = task.process.job_uid
            usage.exited_ns[job_uid] = usage.exited_ns.get(job_uid, 0) + used_ns

    def _forget(self) -> None:
        """Forget the pids of processes that ended long ago, but not of their successors."""
        while self._gone and self._gone[0][0] + REMEMBERED_NS < self._node.now_ns:
            _, process = self._gone.popleft()
            if self._by_pid[process.pid] is process:
                del self._by_pid[process.pid]

    def _look_at_packages(self, usage: Usage) -> None:
        before_ns, before = self._last_ns, self._busy_ns
        self._last_ns = self._node.now_ns
        self._busy_ns = {package: self._node.busy_ns(package) for package in self._packages}
        if before_ns is None or self._last_ns == before_ns:
            return
        for package, spec in self._packages.items():
            usage.busy_ns[package] = self._busy_ns[package] - before[package]
            usage.capacity_ns[package] = spec.threads * (self._last_ns - before_ns)
