"""PBS' jobs, where its cgroups hook runs: `pbs:<id>`, with the server's name as PBS prints it.

Paths: pbs_cgroups.PY of OpenPBS; `jobid` under v1, `jobs` under v2; `pbspro` in older versions,
there also as a slice with systemd's escapes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jobwatt.workloads.contract import Claim, Facts

__all__ = ["VARIABLES", "PbsEnvironment", "PbsScheduler"]

VARIABLES = ("PBS_JOBID",)

_ID = re.compile(r"\d{1,15}(\[\d{0,10}\])?(\.[A-Za-z0-9][A-Za-z0-9._-]{0,127})?", re.ASCII)
_ROOT = re.compile(r"(pbs_jobs|pbspro|pbs)(\.service)?")
_FOLDERS = ("jobid", "jobs")
_SLICE = re.compile(r"pbspro-(.+)\.slice")
_ESCAPE = re.compile(r"\\x([0-7][0-9a-f])")


class PbsScheduler:
    """Finds PBS' jobs."""

    def find(self, controller: str, parts: Sequence[str]) -> Claim | None:
        """Return the outermost job in a path."""
        del controller
        for at, part in enumerate(parts[:-1]):
            if part == "pbspro.slice" and (job := _SLICE.fullmatch(parts[at + 1])):
                job_id, depth = _unescape(job[1]), at + 2
            elif _ROOT.fullmatch(part):
                depth = at + (3 if parts[at + 1] in _FOLDERS else 2)
                job_id = parts[depth - 1] if depth <= len(parts) else ""
            else:
                continue
            if _ID.fullmatch(job_id):
                return Claim(f"pbs:{job_id}", depth)
        return None


class PbsEnvironment:
    """Resolves by the environment alone, for sites where PBS makes no cgroups."""

    def job_uid(self, facts: Facts) -> str | None:
        """Return the job that the environment names."""
        job_id = facts.environment.get("PBS_JOBID", "")
        return f"pbs:{job_id}" if _ID.fullmatch(job_id) else None


def _unescape(name: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), name)
