"""The accounts of jobs: what each has used on this node, from its first to its last process.

Part of the ledger: it belongs to the sampler's thread and does no I/O. All amounts are integer
microjoules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jobwatt.model import JobPresence, Row, Rows, Usage
from jobwatt.snapshot import JobView
from jobwatt.units import NS

__all__ = ["NO_ACCOUNT", "JobAccount", "JobBook"]

POWER_TIME_CONSTANT_NS = 5 * NS
"""The power shown for people is smoothed over about this."""

NO_ACCOUNT = "none"
"""Account of a job that no scheduler owns, or whose account is not known."""


@dataclass(slots=True, eq=False)
class JobAccount:
    """One job on this node.

    Attributes:
        energy_uj: by device, in the order of the ledger's accounts; it may be shorter.
        gpu_idle_uj: its part of the idle energy of the GPUs that it holds: a view, the energy
            stays idle.
        gpus: how many it holds now.
        started: Unix time of its first process.
        measured_since: Unix time at which this account was opened at 0.
        ended: Unix time since which it has no process, None while it has.
    """

    job_uid: str
    number: int
    user: str
    started: float
    measured_since: float
    energy_uj: list[int] = field(default_factory=list)
    cpu_ns: int = 0
    gpu_idle_uj: int = 0
    gpus: int = 0
    ended: float | None = None
    ended_ns: int = 0
    fresh_uj: int = 0
    power_uw: float = 0.0

    def add(self, index: int, uj: int) -> None:
        """Add energy of a device."""
        if index >= len(self.energy_uj):
            self.energy_uj.extend([0] * (index + 1 - len(self.energy_uj)))
        self.energy_uj[index] += uj
        self.fresh_uj += uj

    def view(self) -> JobView:
        """Return the account as it is now."""
        return JobView(
            self.job_uid,
            self.user,
            tuple(self.energy_uj),
            self.cpu_ns,
            self.gpu_idle_uj,
            self.gpus,
            round(self.power_uw),
            self.started,
            self.measured_since,
            self.ended,
        )


@dataclass
class JobBook:
    """All jobs of the node, live ones and those that linger after their end."""

    linger_ns: int = 600 * NS
    jobs: dict[str, JobAccount] = field(default_factory=dict)
    _opened: int = 0
    _wall: float = 0.0

    def begin(self, wall: float, usage: Usage) -> None:
        """Open the jobs that are there now, and add the CPU time of all.

        Args:
            wall: Unix time.
            usage: who was busy since the interval before.
        """
        self._wall = wall
        for job_uid, presence in usage.jobs.items():
            if job_uid not in self.jobs:
                self._open(job_uid, presence)
        for process, time_ns in usage.cpu_ns.items():
            self.account(process.job_uid).cpu_ns += time_ns
        for job_uid, time_ns in usage.exited_ns.items():
            self.account(job_uid).cpu_ns += time_ns

    def account(self, job_uid: str) -> JobAccount:
        """Return a job's account, opened where it is new: nobody has seen it live."""
        job = self.jobs.get(job_uid)
        return job if job is not None else self._open(job_uid, None)

    def close(
        self, now_ns: int, span_ns: int, present: Mapping[str, JobPresence]
    ) -> Iterable[JobAccount]:
        """End what has no process any more; return, and drop, what has lingered long enough."""
        step = 1 - math.exp(-max(1, span_ns) / POWER_TIME_CONSTANT_NS)
        gone: list[JobAccount] = []
        for job in self.jobs.values():
            job.power_uw += (job.fresh_uj * NS / max(1, span_ns) - job.power_uw) * step
            job.fresh_uj = 0
            if job.job_uid in present:
                job.ended = None
            elif job.ended is None:
                job.ended, job.ended_ns, job.gpus, job.power_uw = self._wall, now_ns, 0, 0.0
            elif job.ended_ns <= now_ns - self.linger_ns:
                gone.append(job)
        for job in gone:
            del self.jobs[job.job_uid]
        return gone

    def _open(self, job_uid: str, presence: JobPresence | None) -> JobAccount:
        self._opened += 1
        user = presence.user if presence else ""
        started = presence.started if presence else self._wall
        job = JobAccount(job_uid, self._opened, user, started, self._wall)
        self.jobs[job_uid] = job
        return job

    # --- state ----------------------------------------------------------------------------------

    def dump(self) -> dict[str, Row]:
        """Return the jobs as rows; names have rows of their own, which are written once."""
        rows: dict[str, Row] = {
            f"job {job.number}": (job.job_uid, job.user, job.started, job.measured_since)
            for job in self.jobs.values()
        }
        rows["jobs"] = tuple(
            (job.number, job.ended, job.cpu_ns, job.gpu_idle_uj, *job.energy_uj)
            for job in self.jobs.values()
        )
        return rows

    def restore(self, rows: Rows, now_ns: int, wall: float) -> None:
        """Take back the jobs of an earlier run; those that are gone by now end at its first sample.

        Raises:
            ValueError, TypeError, LookupError: the rows are not those of `dump`.
        """
        for number, ended, cpu_ns, gpu_idle_uj, *energy_uj in rows.get("jobs", ()):
            job_uid, user, started, since = rows[f"job {number}"]
            self._opened = max(self._opened, int(number))
            job = JobAccount(str(job_uid), int(number), str(user), float(started), float(since))
            job.energy_uj = [int(uj) for uj in energy_uj]
            job.cpu_ns, job.gpu_idle_uj = int(cpu_ns), int(gpu_idle_uj)
            if ended is not None:
                job.ended = float(ended)
                job.ended_ns = now_ns - round(max(0.0, wall - job.ended) * NS)
            self.jobs[job.job_uid] = job
