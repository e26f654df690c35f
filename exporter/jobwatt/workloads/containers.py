"""Containers that no scheduler owns: `container:<64 hex>`, for LXC `container:<name>`.

The outermost counts: what runs in a container is its. The process that watches a container
(conmon) lives as long as it, for it alone, and counts with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from jobwatt.workloads.contract import Claim, Facts, OwnerOf, trees

__all__ = ["ContainerResolver", "find_container"]

_ID = re.compile(
    r"(?:[a-z]+-)*([0-9a-f]{64})(?:\.scope)?"  # docker-…, libpod-…, cri-containerd-…, crio-conmon-…
    r"|[^:]*:[a-z-]+:([0-9a-f]{64})",  # <slice>:<runtime>:<id>, where their drivers differ
)
_LXC = re.compile(r"lxc\.(?:payload|monitor)\.(.+)", re.DOTALL)
_LXC_FOLDERS = ("lxc", "lxc.payload", "lxc.monitor")
_NAME = re.compile(r"[A-Za-z0-9][\w.@+-]{0,63}", re.ASCII)


def find_container(parts: Sequence[str]) -> Claim | None:
    """Return the outermost container in a path."""
    for at, part in enumerate(parts):
        if found := _ID.fullmatch(part):
            return Claim(f"container:{found[1] or found[2]}", at + 1)
        if lxc := _LXC.fullmatch(part):
            name = lxc[1]
        elif at and parts[at - 1] in _LXC_FOLDERS:
            name = part
        else:
            continue
        if _NAME.fullmatch(name):
            return Claim(f"container:{name}", at + 1)
    return None


class ContainerResolver:
    """Resolves to the container.

    Users may make containers (rootless podman), and cgroups that look like some. Theirs are
    admitted like jobs that are known by the environment alone: a bounded number for each.

    Args:
        maker_of: who made a cgroup (its directory may belong to whoever is root inside).
        admit: returns what the container that this uid made is accounted as, None where another's
            has that name.
    """

    def __init__(self, maker_of: OwnerOf, admit: Callable[[str, int], str | None]) -> None:
        self._maker_of = maker_of
        self._admit = admit

    def job_uid(self, facts: Facts) -> str | None:
        """Return the container of the first tree that shows one."""
        barren: set[tuple[str, ...]] = set()
        for controller, parts in trees(facts.cgroups):
            claim = None if parts in barren else find_container(parts)
            if claim is None:
                barren.add(parts)
                continue
            maker = self._maker_of(controller, parts[: claim.depth])
            if (job_uid := self._admit(claim.job_uid, maker)) is not None:
                return job_uid
        return None
