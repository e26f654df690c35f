"""What identification asks of a resolver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

__all__ = [
    "SYSTEM",
    "Claim",
    "Facts",
    "OwnerOf",
    "Resolver",
    "Scheduler",
    "resolve",
    "split_path",
    "trees",
]

SYSTEM = "system"
"""Owner of what nobody claims."""

OwnerOf = Callable[[str, Sequence[str]], int]
"""The uid that owns, or made, the cgroup with these parts of a path; -1 where unknown."""

_DELETED = " (deleted)"
_FIRST_TREES = ("", "name=systemd", "cpuacct")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a process, or of a cgroup alone, when its owner is looked for.

    Attributes:
        cgroups: its paths by controller, "" for v2 (see `parse_cgroup`).
        uid: its real user id; -1 where unknown, or for a cgroup.
        environment: of its variables, those that resolvers name (`VARIABLES`).
    """

    cgroups: Mapping[str, str]
    uid: int
    environment: Mapping[str, str] = field(default_factory=dict)


class Resolver(Protocol):
    """Claims processes for one kind of workload."""

    def job_uid(self, facts: Facts) -> str | None:
        """Return the job that owns the process, None if it is none of this kind."""
        ...


@dataclass(frozen=True, slots=True)
class Claim:
    """A job found in a cgroup path: its name, and how many parts lead to its own directory."""

    job_uid: str
    depth: int


class Scheduler(Protocol):
    """Knows its jobs by their cgroups."""

    def find(self, controller: str, parts: Sequence[str]) -> Claim | None:
        """Return the outermost job of this kind in a path, whoever made it; None without one."""
        ...


def resolve(facts: Facts, resolvers: Sequence[Resolver]) -> str:
    """Return the owner: the first resolver that claims the process has it, else `system`.

    `UNDECIDED` where the first that does will know in a moment.
    """
    for resolver in resolvers:
        if (job_uid := resolver.job_uid(facts)) is not None:
            return job_uid
    return SYSTEM


def split_path(path: str) -> tuple[str, ...]:
    """Return the parts of a cgroup path; none for the root.

    The kernel marks the path of a zombie whose cgroup is gone.
    """
    inner = path.removesuffix(_DELETED).strip("/")
    return tuple(inner.split("/")) if inner else ()


def trees(cgroups: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Return the paths below a root by controller: v2, systemd's own, CPU time's, the others."""
    rest = sorted(cgroups.keys() - set(_FIRST_TREES)) if len(cgroups) > 1 else cgroups
    for controller in dict.fromkeys((*_FIRST_TREES, *rest)):
        parts = split_path(cgroups.get(controller, "/"))
        if parts:
            yield controller, parts
