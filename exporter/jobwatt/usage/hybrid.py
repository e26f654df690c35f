"""Jobs that are groups of version 1 while version 2 has their processes in a service.

On systemd's hybrid layout Slurm, Docker and the kubelet's cgroupfs driver make groups in the trees
of version 1 alone: of version 2 a job's processes stay in slurmd.service. What the service used
beyond its live processes is then mostly its jobs': each job's own counter tells how much of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from jobwatt.errors import ReadError
from jobwatt.host.cgroupfs import Cgroupfs
from jobwatt.model import UNDECIDED, Process, Usage
from jobwatt.usage.groups import MOST_CREDIT_NS, CpuUsage, Group
from jobwatt.usage.own_cgroups import own_depth
from jobwatt.workloads.contract import SYSTEM, Facts, split_path

__all__ = ["HybridJobs"]

_V1, _V2 = "cpuacct", ""


@dataclass(slots=True, eq=False)
class _Job:
    """A job's own cgroup of version 1.

    Attributes:
        job_uid: its owner.
        usage: its counter.
        used_ns: the counter's last value, None before the first.
        owed_ns: what it counted beyond its processes' clocks and what was booked for it; < 0 where
            the clocks, read later, ran ahead.
        unseen_ns: what was booked at the last settlement.
        hosts: the groups that its processes are, or were, in.
    """

    job_uid: str
    usage: CpuUsage
    used_ns: int | None = None
    owed_ns: int = 0
    unseen_ns: int = 0
    hosts: dict[Group, None] = field(default_factory=dict)


class HybridJobs:
    """Takes out of services' rests what their jobs' own counters tell. No work on other machines.

    The service's counter stays the measure: nothing is counted twice, and a job with processes in
    several services is paid out of each.
    """

    def __init__(self, cgroupfs: Cgroupfs, job_uid_of: Callable[[Facts], str]) -> None:
        trees = {hierarchy.controller: hierarchy for hierarchy in cgroupfs.hierarchies}
        self._tree = trees.get(_V1) if _V2 in trees else None
        self._job_uid_of = job_uid_of
        self._jobs: dict[tuple[str, ...], _Job] = {}
        self._job_of: dict[Process, _Job] = {}

    def place(self, process: Process, cgroups: Mapping[str, str], group: Group) -> None:
        """Note in whose group of version 1 a process of `group` is."""
        if self._tree is None:
            return
        job = self._find(process.job_uid, cgroups)
        if job is None:
            self._job_of.pop(process, None)
        else:
            self._job_of[process] = job
            job.hosts[group] = None

    def settle(self, usage: Usage, rests: Mapping[Group, int], *, full: bool, first: bool) -> None:
        """Book what is jobs' of the groups' `rests`, which are booked to the groups' owners.

        Counters are read where there is something to book, and all at a `full` look.
        """
        if not self._jobs:
            return
        for process in usage.cpu_ns.keys() & self._job_of.keys():
            self._job_of[process].owed_ns -= usage.cpu_ns[process]
        left = dict(rests)
        for path, job in list(self._jobs.items()):
            if full:
                job.hosts = {host: None for host in job.hosts if host.usage is not None}
            elif not first and left.keys().isdisjoint(job.hosts):
                continue
            is_new = job.used_ns is None
            if not self._read(job, first=first):
                del self._jobs[path]
            self._book(usage, job, left)
            if is_new:  # it may be older than we thought: no debt of its hosts
                job.owed_ns = min(0, job.owed_ns)

    def forget(self, processes: Iterable[Process]) -> None:
        """Let go of processes that have ended and are settled."""
        for process in processes:
            self._job_of.pop(process, None)

    def _find(self, job_uid: str, cgroups: Mapping[str, str]) -> _Job | None:
        """Return the job of the process with this owner; None where version 2 tells it as well."""
        paths = {tree: cgroups.get(tree, "/") for tree in (_V1, _V2)}
        if self._tree is None or "/" in paths.values():
            return None
        told, host = (self._job_uid_of(Facts({tree: path}, -1)) for tree, path in paths.items())
        if told in {SYSTEM, UNDECIDED, host} or job_uid == host:
            return None
        depth = own_depth(self._job_uid_of, told, _V1, paths[_V1])
        parts = split_path(paths[_V1])[:depth]
        job = self._jobs.get(parts)
        if job is not None and _is_there(job):
            job.job_uid = told
            return job
        try:
            counter = self._tree.open_usage("/".join(parts))
        except ReadError:
            return None
        if job is not None:  # made again under its name
            job.usage.close()
        job = self._jobs[parts] = _Job(told, counter)
        return job

    def _read(self, job: _Job, *, first: bool) -> bool:
        """Take in what a job's counter moved; whether its group is still there."""
        before = job.used_ns
        try:
            job.used_ns = job.usage.read()
        except ReadError:
            job.usage.close()
            job.owed_ns = job.unseen_ns  # as much as it can have used since
            return False
        if first:
            job.owed_ns = 0
        else:
            # New to us: all that it ever used, as far as its hosts can explain it.
            job.owed_ns += job.used_ns - (before or 0)
        return True

    def _book(self, usage: Usage, job: _Job, left: dict[Group, int]) -> None:
        job.unseen_ns = 0
        for host in [host for host in job.hosts if host in left]:
            moved = min(job.owed_ns, left[host])
            if moved <= 0:
                continue
            left[host] -= moved
            job.owed_ns -= moved
            job.unseen_ns += moved
            host.exited_ns -= moved
            usage.exited_ns[job.job_uid] = usage.exited_ns.get(job.job_uid, 0) + moved
            if host.job_uid is None:
                usage.unseen_ns -= moved
            else:
                usage.exited_ns[host.job_uid] -= moved
                if not usage.exited_ns[host.job_uid]:
                    del usage.exited_ns[host.job_uid]
        job.owed_ns = max(-MOST_CREDIT_NS, min(MOST_CREDIT_NS, job.owed_ns))


def _is_there(job: _Job) -> bool:
    try:
        job.usage.read()
    except ReadError:
        return False
    return True
