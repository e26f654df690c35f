"""The machine's tree of groups: where a process belongs, and who owns what is there.

A group is made when the first process is met in it, with all groups above it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator

from jobwatt.errors import ReadError
from jobwatt.host.cgroupfs import Cgroupfs, Hierarchy
from jobwatt.model import UNDECIDED
from jobwatt.usage.groups import CpuUsage, Group, KeptGroup
from jobwatt.usage.past import PastGroup
from jobwatt.workloads.contract import SYSTEM, Facts

__all__ = ["GroupTree"]


class GroupTree:
    """All groups, from the one of all processes down.

    Attributes:
        root: the group of all processes.
    """

    def __init__(
        self, cgroupfs: Cgroupfs, job_uid_of: Callable[[Facts], str], task_time: CpuUsage
    ) -> None:
        """Make the root; `task_time` is the machine's own, for where there are no cgroups."""
        self._cgroupfs = cgroupfs
        self._job_uid_of = job_uid_of
        self.root = _make_root(cgroupfs, task_time)
        self._undecided: list[tuple[Group, Facts]] = []
        self._made: list[Group] | None = None
        self._numbered = 0

    def __iter__(self) -> Iterator[Group]:
        """All groups, those above before those below."""
        pending = [self.root]
        while pending:
            group = pending.pop()
            yield group
            pending += group.children.values()

    def place(self, cgroups: dict[str, str]) -> Group:
        """Return the group of a process, made with all groups above it where it is new."""
        place = self._cgroupfs.place(cgroups)
        if place is None:
            return self.root
        return self._reach(*place)

    def decide(self) -> None:
        """Ask again for the owners of groups that were undecided."""
        waiting, self._undecided = self._undecided, []
        for group, facts in waiting:
            self._own(group, facts)

    def take_made(self) -> Collection[Group]:
        """Return the groups with a counter made since the last call; none at the first."""
        made, self._made = self._made or (), []
        return made

    def take_up(self, groups: Collection[PastGroup]) -> None:
        """Make the groups of an earlier run anew, with their counters as they stood.

        Those that are gone are there for this look, for those above them to be `blurred`.
        """
        hierarchies = {hierarchy.controller: hierarchy for hierarchy in self._cgroupfs.hierarchies}
        gone: dict[tuple[str, str], Group] = {}
        for past in groups:
            controller, path = past.kept.controller, past.kept.path
            hierarchy = hierarchies.get(controller)
            if hierarchy is None:
                continue
            above, _, name = path.rpartition("/")
            parent = gone.get((controller, above))
            if parent is None:
                parent = self._reach(hierarchy, above) if above else self.root
                group = self._make_group(hierarchy, path)
                if group.kept is not None and group.kept.identity == past.kept.identity:
                    group.used_ns, group.credit_ns = past.used_ns, past.credit_ns
                    parent.children[f"{controller}:{name}"] = group
                    continue
                group.close()
            group = gone[controller, path] = Group(past.job_uid)
            parent.children[f"{controller}:{name}/{id(group)}"] = group

    def blurred(self) -> set[Group]:
        """Return the groups in which others' groups may have come and gone unseen.

        There some are, or were, that are not their owner's; and what nobody claims may hold any.
        """
        return {
            group
            for group in self
            if group.job_uid == SYSTEM
            or any(child.job_uid != group.job_uid for child in group.children.values())
        }

    def _reach(self, hierarchy: Hierarchy, path: str) -> Group:
        parts = path.strip("/").split("/")
        group: Group | None = self.root
        for part in parts:
            group = group.children.get(f"{hierarchy.controller}:{part}") if group else None
        if group is not None and not _is_gone(group):
            return group
        group, walked = self.root, ""
        for part in parts:
            walked += f"/{part}"
            name = f"{hierarchy.controller}:{part}"
            child = group.children.get(name)
            if child is not None and _is_gone(child):
                # A service that was started again, say: what is left of the old one is told apart.
                group.children[f"{name}/{id(child)}"] = child
                child = None
            if child is None:
                child = self._make_group(hierarchy, walked)
                group.children[name] = child
            group = child
        return group

    def _make_group(self, hierarchy: Hierarchy, path: str) -> Group:
        group = Group(None)
        with contextlib.suppress(ReadError):
            usage = group.usage = hierarchy.open_usage(path)
            self._numbered += 1
            controller, identity = hierarchy.controller, usage.identity()
            group.kept = KeptGroup(self._numbered, controller, path, identity)
            if self._made is not None:
                self._made.append(group)
        self._own(group, Facts({hierarchy.controller: path}, -1))
        return group

    def _own(self, group: Group, facts: Facts) -> None:
        """Find a group's owner; one that is undecided is asked for again at the next look."""
        job_uid = self._job_uid_of(facts)
        if job_uid == UNDECIDED:
            self._undecided.append((group, facts))
        else:
            group.job_uid = job_uid


def _make_root(cgroupfs: Cgroupfs, task_time: CpuUsage) -> Group:
    """Return the group of all processes.

    Its counter is exact under cgroup v1. Under v2 the groups below are exact and complete. Without
    cgroups the machine's clock ticks have to do, whose rest is nobody's.
    """
    try:
        usage = cgroupfs.open_root_usage()
    except ReadError:
        usage = None
    if usage is not None:
        return Group(SYSTEM, usage)
    return Group(None, None if cgroupfs.hierarchies else task_time, exact=False)


def _is_gone(group: Group) -> bool:
    """Whether the cgroup of a group has been removed; another may have been made in its place."""
    if group.usage is None:
        return False
    try:
        group.usage.read()
    except ReadError:
        return True
    return False
