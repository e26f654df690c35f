"""What jobs' live processes show of them: how many, whose, since when, their memory, their CPUs."""

from __future__ import annotations

import time
from collections.abc import Mapping

from jobwatt.host.procfs import TICKS
from jobwatt.model import UNDECIDED, JobPresence, Process
from jobwatt.records import is_scheduled, kind_of
from jobwatt.units import NS
from jobwatt.usage.contract import RecordSource
from jobwatt.usage.entry import Entry
from jobwatt.usage.own_cgroups import OwnCgroups

__all__ = ["Presences", "beyond_shared"]

REVIEW_NS, REVIEW_LEAST_NS = 120 * NS, 5 * NS
"""How often each job's limits are read again, and one job's at least; one at most at a look."""

SANDBOX = "pause"
"""Name of the process that a pod begins with (Kubernetes' build/pause)."""


class Presences:
    """The jobs that have live processes, and the memory of all.

    Attributes:
        jobs: by `job_uid`.
        memory: bytes, by `job_uid` and the packages that processes may run on.
    """

    def __init__(self, own_cgroups: OwnCgroups, records: RecordSource | None) -> None:
        self._own_cgroups = own_cgroups
        self._records = records
        self.jobs: dict[str, JobPresence] = {}
        self.memory: dict[tuple[str, frozenset[int] | None], int] = {}
        self._review_due = 0.0

    def count_in(self, process: Process) -> None:
        """Count a process into what is known of its job."""
        if process.job_uid != UNDECIDED:
            presence = self.jobs.get(process.job_uid)
            if presence is None:
                user, uid = ("", -1) if _is_sandbox(process) else (process.user, process.uid)
                presence = JobPresence(0, _started(process), user, uid)
                self.jobs[process.job_uid] = presence
            presence.processes += 1
        if process.memory_bytes:
            place = process.job_uid, process.packages
            self.memory[place] = self.memory.get(place, 0) + process.memory_bytes

    def count_out(self, job_uid: str, packages: frozenset[int] | None, memory_bytes: int) -> None:
        """Count a process that had these out of what is known of its job."""
        if job_uid != UNDECIDED:
            presence = self.jobs[job_uid]
            presence.processes -= 1
            if not presence.processes:
                del self.jobs[job_uid]
                self._own_cgroups.forget(job_uid)
        if memory_bytes:
            place = job_uid, packages
            self.memory[place] -= memory_bytes
            if not self.memory[place]:
                del self.memory[place]

    def attend(self, process: Process, cgroups: Mapping[str, str]) -> None:
        """Learn of a job what this process of it shows."""
        if process.job_uid == UNDECIDED:
            return
        presence = self.jobs[process.job_uid]
        if not _is_sandbox(process):
            _note_user(presence, process)
        by_cgroup = self._own_cgroups.note(process.job_uid, cgroups)
        presence.cpus = self._own_cgroups.cpus(process.job_uid)
        if process.uid not in {0, presence.uid}:
            return  # who may run something within a job does not speak for it
        if presence.record is None and process.environment and self._records is not None:
            presence.record = self._records.told_by(process, by_cgroup=by_cgroup)

    def review(self, span_ns: int, entries: Mapping[Process, Entry]) -> None:
        """Read one job's limits and memory anew, where `span_ns` after the last look one is due."""
        self._review_due += span_ns * max(len(self.jobs) / REVIEW_NS, 1 / REVIEW_LEAST_NS)
        if self._review_due < 1:
            return
        self._review_due = min(self._review_due - 1, 1.0)
        job_uid = self._own_cgroups.review()
        if job_uid is not None and job_uid in self.jobs:
            self.jobs[job_uid].cpus = self._own_cgroups.cpus(job_uid)
            of_job = (entry for entry in entries.values() if entry.process.job_uid == job_uid)
            self._part_memory(job_uid, list(of_job))

    def _part_memory(self, job_uid: str, entries: list[Entry]) -> None:
        """Charge a job's processes together for no more memory than its cgroups hold.

        What several of them share, forked workers their parent's data, counts in each one's own.
        """
        wholes = [entry.process.memory_bytes + entry.shared_bytes for entry in entries]
        whole = sum(wholes)
        held = self._own_cgroups.anonymous_bytes(job_uid) if len(entries) > 1 else None
        held = min(held, whole) if held else whole  # nothing held: not counted with those below
        for entry, mine in zip(entries, wholes, strict=True):
            if not mine:
                continue
            process, before = entry.process, entry.process.memory_bytes
            process.memory_bytes = max(1, mine * held // whole)
            entry.shared_bytes = mine - process.memory_bytes
            place = job_uid, process.packages
            self.memory[place] = self.memory.get(place, 0) + process.memory_bytes - before


def beyond_shared(entry: Entry | None, anonymous_bytes: int) -> int:
    """Return what a process is charged for of its anonymous memory; None: one that is new."""
    if entry is None:
        return anonymous_bytes
    entry.shared_bytes = min(entry.shared_bytes, anonymous_bytes)
    return anonymous_bytes - entry.shared_bytes


def _is_sandbox(process: Process) -> bool:
    """Whether a process only keeps a pod's namespaces, under a user of the runtime's choice."""
    return process.comm == SANDBOX and kind_of(process.job_uid) == "k8s"


def _note_user(presence: JobPresence, process: Process) -> None:
    """Note whose a job is: its first process's, of a scheduled one the first that is not root's.

    Root starts what is others': that first process may be its user's a moment later.
    """
    if presence.first is None or not presence.user:
        presence.first = process
    else:
        may_be = process is presence.first or is_scheduled(process.job_uid)
        if presence.uid != 0 or process.uid <= 0 or not may_be:
            return
    presence.user, presence.uid = process.user, process.uid


def _started(process: Process) -> float:
    """Return the Unix time of a process's start."""
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - process.start_ticks / TICKS
    return time.time() - max(0.0, age)
