"""Cgroups that `jobwatt run` makes: `jobwatt-run-<value of JOBWATT_JOB>`.

They say whose the CPU time of processes is that nobody saw live. Anybody may make such a folder
below a cgroup that is delegated to him, so it claims for the user who made it and for nobody else,
under the rules of environments (see `owners`): another user's job cannot be named, and nobody can
put another user's processes there.
"""

from __future__ import annotations

from jobwatt.host.run_cgroup import run_of_folder
from jobwatt.workloads.contract import Facts, OwnerOf, trees
from jobwatt.workloads.declared import declared_uid
from jobwatt.workloads.owners import JobOwners

__all__ = ["RunCgroupResolver"]


class RunCgroupResolver:
    """Resolves to the innermost run in a path, as the one that a nested environment names.

    Args:
        owner_of: who owns a cgroup's directory.
        owners: whose jobs are that only users vouch for.
    """

    def __init__(self, owner_of: OwnerOf, owners: JobOwners) -> None:
        self._owner_of = owner_of
        self._owners = owners

    def job_uid(self, facts: Facts) -> str | None:
        """Return the run of the first tree that has one."""
        for controller, parts in trees(facts.cgroups):
            for at in range(len(parts), 0, -1):
                run = run_of_folder(parts[at - 1])
                job_uid = None if run is None else declared_uid(run)
                if job_uid is not None:
                    return self._owners.admit(job_uid, self._owner_of(controller, parts[:at]))
        return None
