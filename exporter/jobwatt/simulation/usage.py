"""Who was busy on a made-up node, as a look at /proc and cgroups would find it.

Like a real look it sees only the processes that live at that moment. Those that have ended since
the last one are told with what they still used; the time of those that came and went in between is
known by their owner alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from jobwatt.model import JobPresence, Process, Row, Rows, Usage
from jobwatt.records import JobRecord
from jobwatt.simulation.node import SimulatedNode
from jobwatt.simulation.runs import record_of
from jobwatt.simulation.tasks import Task
from jobwatt.units import NS

__all__ = ["SimulatedUsage"]

REMEMBERED_NS = 60 * NS
"""A process that has ended is found by its pid for so long after, a job told of."""


class SimulatedUsage:
    """Looks at the node; one probe a node, since a process's end is told once."""

    method = "simulated"

    def __init__(self, node: SimulatedNode, wall: Callable[[], float] = time.time) -> None:
        self._node = node
        self._wall = wall
        self._zero: float | None = None
        self._records: dict[str, JobRecord] = {}
        self._over: deque[tuple[int, str]] = deque()
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
        usage = Usage(records=self._hear_scheduler())
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
            self._see_in_job(task, usage.jobs)
            place = task.process.job_uid, task.process.packages
            held = usage.memory_bytes.get(place, 0)
            usage.memory_bytes[place] = held + task.process.memory_bytes
        self._forget()
        self._look_at_packages(usage)
        return usage

    def _hear_scheduler(self) -> dict[str, JobRecord]:
        """Return what schedulers tell of jobs: of those that run, and for a while of the others."""
        now_ns = self._node.now_ns
        if self._zero is None:
            self._zero = self._wall() - now_ns / NS
        for run in self._node.runs:
            if run.job_uid not in self._records:
                self._records[run.job_uid] = record_of(run, self._zero, ended=False)
        for run in self._node.take_ended_runs():
            self._records[run.job_uid] = record_of(run, self._zero, ended=True)
            self._over.append((now_ns, run.job_uid))
        while self._over and self._over[0][0] + REMEMBERED_NS < now_ns:
            del self._records[self._over.popleft()[1]]
        return dict(self._records)

    def _see_in_job(self, task: Task, jobs: dict[str, JobPresence]) -> None:
        process, job = task.process, task.workload.job
        presence = jobs.get(process.job_uid)
        if presence is None:
            started = self._wall() - self._node.age_seconds(task)
            cpus = None if job is None else job.cpus
            presence = jobs[process.job_uid] = JobPresence(0, started, process.user, cpus=cpus)
        presence.processes += 1

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
