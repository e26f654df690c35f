"""LSF's jobs, by their environment: `lsf:<id>`, an array's element `lsf:<id>[<index>]`."""

from __future__ import annotations

import re

from jobwatt.workloads.contract import Facts

__all__ = ["VARIABLES", "LsfResolver"]

VARIABLES = ("LSB_JOBID", "LSB_JOBINDEX")

_NUMBER = re.compile(r"[1-9]\d{0,14}", re.ASCII)


class LsfResolver:
    """Resolves by `LSB_JOBID`, which an array's elements share, and `LSB_JOBINDEX`."""

    def job_uid(self, facts: Facts) -> str | None:
        """Return the job that the environment names; index 0 is no array's."""
        job_id = facts.environment.get("LSB_JOBID", "")
        if not _NUMBER.fullmatch(job_id):
            return None
        index = facts.environment.get("LSB_JOBINDEX", "")
        return f"lsf:{job_id}[{index}]" if _NUMBER.fullmatch(index) else f"lsf:{job_id}"
