"""Jobs of schedulers that leave cgroups.

Where several nest (Slurm in a pod, a pod in a job) the outermost has the process: it is who
reserved the machine. A cgroup is believed only where its directory belongs to root: users make
cgroups of any name below what has been delegated to them, but none that is root's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jobwatt.workloads.contract import Facts, OwnerOf, Scheduler, trees

__all__ = ["SchedulerResolver"]


def _nobody(job_uid: str, uid: int) -> None:
    """Take no notice."""


class SchedulerResolver:
    """Resolves to the outermost job that a scheduler's cgroup names.

    Args:
        schedulers: all kinds that are looked for.
        owner_of: who owns a cgroup's directory.
        saw: told of each process that a cgroup gave to a job: its job and its uid.
    """

    def __init__(
        self,
        schedulers: Sequence[Scheduler],
        owner_of: OwnerOf,
        saw: Callable[[str, int], None] = _nobody,
    ) -> None:
        self._schedulers = schedulers
        self._owner_of = owner_of
        self._saw = saw

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
                    self._saw(claim.job_uid, facts.uid)
                    return claim.job_uid
        return None
