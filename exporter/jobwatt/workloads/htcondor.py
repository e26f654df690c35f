"""HTCondor's jobs: `htcondor:<cluster>.<proc>`.

Its cgroups are named by slot, not by job, and no variable has the job's id: `_CONDOR_JOB_AD` names
the file that has it (manual: Services for Running Jobs). That file lies in the job's own folder and
is its user's, so this counts as known by the environment alone.
"""

from __future__ import annotations

from collections.abc import Callable

from jobwatt.workloads.contract import Facts

__all__ = ["VARIABLES", "HtcondorResolver"]

VARIABLES = ("_CONDOR_JOB_AD",)


class HtcondorResolver:
    """Resolves by the job ad.

    Args:
        id_of_ad: returns `(cluster, proc)` of the ad in the file with this name; None where it
            is not known, or not yet: a process is asked again while it is young.
    """

    def __init__(self, id_of_ad: Callable[[str], tuple[int, int] | None]) -> None:
        self._id_of_ad = id_of_ad

    def job_uid(self, facts: Facts) -> str | None:
        """Return the job whose ad the environment names."""
        name = facts.environment.get("_CONDOR_JOB_AD", "")
        found = self._id_of_ad(name) if name else None
        return None if found is None else f"htcondor:{found[0]}.{found[1]}"
