"""Slurm's jobs.

Cgroup paths: cgroups.html and cgroup_v2.html of its manual; cgroup.conf(5), CgroupJobIdPaths. Every
element of an array and every component of a heterogeneous job has a job id of its own, and that is
the one in the path. Steps (a number, `batch`, `extern`, `interactive`, `TBD`) are parts of the job.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from jobwatt.workloads.contract import Claim, Facts

__all__ = ["VARIABLES", "SlurmEnvironment", "SlurmScheduler"]

VARIABLES = ("SLURM_JOB_ID",)

_ID = r"([1-9]\d{0,9})"
_JOB_ID = re.compile(_ID, re.ASCII)
_JOB = re.compile(rf"job_{_ID}", re.ASCII)
_SLUID = re.compile(r"s[0-9A-HJKMNP-TV-Z]{13}")
_USER = re.compile(r"uid_\d+", re.ASCII)
_V1_ROOT = re.compile(r"slurm(_.+)?", re.DOTALL)
_SCOPE = "slurmstepd.scope"
"""Several slurmd on a machine have their node's name and `_` before it."""


def _first_run(job_id: str, sluid: str) -> int:
    """Know of no requeue."""
    del job_id, sluid
    return 0


class SlurmScheduler:
    """Finds `slurm:<job id>`, or `slurm:<job id>:r<n>` for the n-th requeue.

    Args:
        id_of_sluid: returns the job id of the cgroup of that controller and path whose name is a
            SLUID (the default from 26.05 on, out of which nobody can tell the id), None where it
            is not known: the job then goes by its SLUID.
        restarts: returns how often the job was requeued, by its id and its SLUID ("" where the
            path has the id). The environment's word for it is the user's: not asked.
    """

    def __init__(
        self,
        id_of_sluid: Callable[[str, Sequence[str]], str | None],
        restarts: Callable[[str, str], int] = _first_run,
    ) -> None:
        self._id_of_sluid = id_of_sluid
        self._restarts = restarts

    def find(self, controller: str, parts: Sequence[str]) -> Claim | None:
        """Return the outermost job in a path."""
        for at, part in enumerate(parts[:-1]):
            if part == _SCOPE or part.endswith(f"_{_SCOPE}"):
                if job := _JOB.fullmatch(parts[at + 1]):
                    return Claim(self._name(job[1]), at + 2)
                if _SLUID.fullmatch(parts[at + 1]):
                    return Claim(self._name_of_sluid(controller, parts[: at + 2]), at + 2)
            elif (
                at + 2 < len(parts)
                and _V1_ROOT.fullmatch(part)
                and _USER.fullmatch(parts[at + 1])
                and (job := _JOB.fullmatch(parts[at + 2]))
            ):
                return Claim(self._name(job[1]), at + 3)
        return None

    def _name_of_sluid(self, controller: str, parts: Sequence[str]) -> str:
        sluid = parts[-1]
        job_id = self._id_of_sluid(controller, parts)
        return f"slurm:{sluid}" if job_id is None else self._name(job_id, sluid)

    def _name(self, job_id: str, sluid: str = "") -> str:
        return _run(job_id, self._restarts(job_id, sluid))


class SlurmEnvironment:
    """Resolves by the environment alone, for sites where Slurm makes no cgroups.

    Args:
        restarts: as of `SlurmScheduler`: SLURM_RESTART_COUNT is the user's, too.
    """

    def __init__(self, restarts: Callable[[str, str], int] = _first_run) -> None:
        self._restarts = restarts

    def job_uid(self, facts: Facts) -> str | None:
        """Return the latest run of the job that the environment names."""
        job_id = facts.environment.get("SLURM_JOB_ID", "")
        return _run(job_id, self._restarts(job_id, "")) if _JOB_ID.fullmatch(job_id) else None


def _run(job_id: str, restarts: int) -> str:
    return f"slurm:{job_id}:r{restarts}" if restarts else f"slurm:{job_id}"
