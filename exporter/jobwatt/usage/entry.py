"""What is known of a live process beyond who it is."""

from __future__ import annotations

from dataclasses import dataclass

from jobwatt.model import Process
from jobwatt.usage.groups import Group

__all__ = ["Entry"]


@dataclass(slots=True, eq=False)
class Entry:
    """A live process.

    Attributes:
        process: who it is.
        group: where its CPU time is told.
        visited_ns: when it was looked at last.
        visited_time_ns: its CPU time then.
        cgroups: where it was then.
        shared_bytes: of its anonymous memory, what others of its job are charged for.
    """

    process: Process
    group: Group
    visited_ns: int
    visited_time_ns: int
    cgroups: dict[str, str]
    shared_bytes: int = 0
