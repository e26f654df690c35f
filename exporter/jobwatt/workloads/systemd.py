"""systemd units, and the sessions of users.

Cgroup paths: systemd.slice(5), and Documentation CGROUP_DELEGATION. Everything below
`user-<uid>.slice` is the user's session; elsewhere the outermost service or scope is the unit, so
that what it delegates (containers, nested units) stays its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from jobwatt.workloads.contract import Facts

__all__ = ["SystemdResolver"]

_USER_SLICE = re.compile(r"user-(\d+)\.slice")
_UNIT_SUFFIXES = (".service", ".scope", ".socket", ".mount", ".swap")


class SystemdResolver:
    """Resolves to `session:<user>` or `systemd:<unit>`."""

    def __init__(self, user_name: Callable[[int], str]) -> None:
        """Take `user_name(uid)`, the name of a user or its number as text."""
        self._user_name = user_name

    def job_uid(self, facts: Facts) -> str | None:
        """Return the session or unit of the first tree in which the process is in one."""
        for controller in ("", "name=systemd", "cpuacct"):
            parts = facts.cgroups.get(controller, "/").split("/")
            for part in parts:
                if match := _USER_SLICE.fullmatch(part):
                    return f"session:{self._user_name(int(match[1]))}"
                if part.endswith(_UNIT_SUFFIXES):
                    return f"systemd:{part}"
        return None
