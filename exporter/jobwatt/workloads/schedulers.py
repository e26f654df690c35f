"""Jobs of schedulers that leave cgroups.

Where several nest (Slurm in a pod, a pod in a job) the outermost has the process: it is who
reserved the machine. A cgroup is believed only where its directory belongs to root: users make
cgroups of any name below what has been delegated to them, but none that is root's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jobwatt.model import UNDECIDED
from jobwatt.workloads.contract import Facts, OwnerOf, Scheduler, trees

__all__ = ["SchedulerResolver"]


def _nobody(job_uid: str, uid: int) -> None:
    """Take no notice."""


def _itself(job_uid: str) -> str:
    return job_uid


class SchedulerResolver:
    """Resolves to the outermost job that a scheduler's cgroup names.

    Args:
        schedulers: all kinds that are looked for.
        owner_of: who owns a cgroup's directory.
        saw: told of each process that a cgroup gave to a job: its job and its uid.
        job_of: returns the job that what a cgroup names is a part of; `UNDECIDED` while that will
            be known in a moment.
    """

    def __init__(
        self,
        schedulers: Sequence[Scheduler],
        owner_of: OwnerOf,
        saw: Callable[[str, int], None] = _nobody,
        job_of: Callable[[str], str] = _itself,
    ) -> None:
        self._schedulers = schedulers
        self._owner_of = owner_of
        self._saw = saw
        self._job_of = job_of

    def job_uid(self, facts: Facts) -> str | None:
        """Return the job of the first tree that has one to believe."""
        barren: set[tuple[str, ...]] = set()  # under version 1 a dozen trees have the same path
        for controller, parts in trees(facts.cgroups):
            if parts in barren:
                continue
            claims = [s.find(controller, parts) for s in self._schedulers]
            found = sorted((c for c in claims if c is not None), key=lambda claim: claim.depth)
            if not found:
                barren.add(parts)
            for claim in found:
                if self._owner_of(controller, parts[: claim.depth]) == 0:
                    job_uid = self._job_of(claim.job_uid)
                    if job_uid != UNDECIDED:
                        self._saw(job_uid, facts.uid)
                    return job_uid
        return None
