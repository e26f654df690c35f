"""Jobs that their users declare: `run:<value of JOBWATT_JOB>`, also for children, who inherit it.

The value is anybody's: it is cut to a length, and shown in printable characters only.
"""

from __future__ import annotations

import hashlib

from jobwatt.workloads.contract import Facts

__all__ = ["VARIABLES", "DeclaredResolver", "declared_uid"]

VARIABLES = ("JOBWATT_JOB",)

MOST_CHARACTERS = 128
_DIGEST = 8


def declared_uid(name: str) -> str | None:
    """Return the `job_uid` of a declared name; None for an empty one.

    What is not printable is shown as Python escapes it. A name that is too long ends in a digest of
    its rest, so that names that only differ there stay two.
    """
    name = name.strip()
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    if len(text) > MOST_CHARACTERS:
        digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:_DIGEST]
        text = f"{text[: MOST_CHARACTERS - _DIGEST - 1]}~{digest}"
    return f"run:{text}" if text else None


class DeclaredResolver:
    """Resolves by `JOBWATT_JOB`."""

    def job_uid(self, facts: Facts) -> str | None:
        """Return the job that the environment declares."""
        return declared_uid(facts.environment.get("JOBWATT_JOB", ""))
