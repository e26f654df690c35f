"""What identification asks of a resolver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Facts", "Resolver", "resolve"]

SYSTEM = "system"
"""Owner of what nobody claims."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a process when its owner is looked for.

    Attributes:
        cgroups: its paths by controller, "" for v2 (see `parse_cgroup`).
        uid: its real user id.
    """

    cgroups: dict[str, str]
    uid: int


class Resolver(Protocol):
    """Claims processes for one kind of workload."""

    def job_uid(self, facts: Facts) -> str | None:
        """Return the job that owns the process, None if it is none of this kind."""
        ...


def resolve(facts: Facts, resolvers: tuple[Resolver, ...]) -> str:
    """Return the owner: the first resolver that claims the process has it, else `system`."""
    for resolver in resolvers:
        if (job_uid := resolver.job_uid(facts)) is not None:
            return job_uid
    return SYSTEM
