"""systemd units, and the sessions of users.

Cgroup paths: systemd.slice(5), and Documentation CGROUP_DELEGATION. Everything below
`user-<uid>.slice` is the user's session; elsewhere the outermost service or scope is the unit, so
that what it delegates (containers, nested units) stays its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from jobwatt.workloads.contract import Facts, OwnerOf, split_path

__all__ = ["SystemdResolver"]

_USER_SLICE = re.compile(r"user-(\d+)\.slice", re.ASCII)
_UNIT_SUFFIXES = (".service", ".scope", ".socket", ".mount", ".swap")


def _unknown(controller: str, parts: Sequence[str]) -> int:
    """Know nobody."""
    del controller, parts
    return -1


class SystemdResolver:
    """Resolves to `session:<user>` or `systemd:<unit>`.

    Args:
        user_name: returns the name of a user or its number as text.
        maker_of: who made a cgroup. What a user made in one of his own is no unit, whatever it is
            called, but his session's.
    """

    def __init__(self, user_name: Callable[[int], str], maker_of: OwnerOf = _unknown) -> None:
        self._user_name = user_name
        self._maker_of = maker_of

    def job_uid(self, facts: Facts) -> str | None:
        """Return the session or unit of the first tree in which the process is in one."""
        for controller in ("", "name=systemd", "cpuacct"):
            parts = split_path(facts.cgroups.get(controller, "/"))
            for at, part in enumerate(parts):
                user = _USER_SLICE.fullmatch(part)
                if user is None and not part.endswith(_UNIT_SUFFIXES):
                    continue
                maker = self._maker_of(controller, parts[: at + 1])
                if maker > 0:
                    return f"session:{self._user_name(maker)}"
                if user is None:
                    return f"systemd:{part}"
                return f"session:{self._user_name(int(user[1]))}"
        return None
