"""Flux' jobs, by their environment: `flux:<id>`.

The id is in F58 as `flux jobs` prints it, but always with an ASCII `f`, which every flux command
takes as well: the locale of a job must not make two jobs of one.
"""

from __future__ import annotations

import re

from jobwatt.workloads.contract import Facts

__all__ = ["VARIABLES", "FluxResolver"]

VARIABLES = ("FLUX_ENCLOSING_ID", "FLUX_JOB_ID")
"""An instance within a job (`flux batch`) gives its jobs ids of its own: the job around it counts,
as far as the environment tells."""

_F58 = re.compile(r"[ƒf]([1-9A-HJ-NP-Za-km-z]{1,12})")


class FluxResolver:
    """Resolves by the id of the enclosing instance's job, else by the job's own."""

    def job_uid(self, facts: Facts) -> str | None:
        """Return the job that the environment names."""
        for name in VARIABLES:
            if job := _F58.fullmatch(facts.environment.get(name, "")):
                return f"flux:f{job[1]}"
        return None
