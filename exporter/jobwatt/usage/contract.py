"""What the sampler asks of a usage probe."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from jobwatt.model import Process, Usage

__all__ = ["UsageProbe"]


class UsageProbe(Protocol):
    """Tells who was busy. Called once a sample from the sampler's thread."""

    @property
    def method(self) -> str:
        """How CPU time is read, for people."""
        ...

    @property
    def processes(self) -> Collection[Process]:
        """All live processes known."""
        ...

    @property
    def claimants(self) -> Collection[Process]:
        """Live processes whose environment names GPUs."""
        ...

    def find(self, pid: int) -> Process | None:
        """Return the process that has this pid, or had it until lately; None where unknown."""
        ...

    def refresh(self, process: Process) -> None:
        """Read anew what may have changed about a process, before it is written down for good."""
        ...

    def look(self, now_ns: int) -> Usage:
        """Return the use since the previous look; the first look returns none."""
        ...
