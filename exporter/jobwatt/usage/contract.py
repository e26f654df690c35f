"""What the sampler asks of a usage probe."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from jobwatt.model import Process, Row, Rows, Usage
from jobwatt.records import JobRecord

__all__ = ["RecordSource", "UsageProbe"]


class RecordSource(Protocol):
    """Tells of jobs what processes and cgroups do not show: names, budgets, exact times."""

    def refresh(self) -> Mapping[str, JobRecord]:
        """Return what is known for sure of jobs now, by `job_uid`.

        The same mapping while nothing has changed.
        """
        ...

    def told_by(self, process: Process, *, by_cgroup: bool) -> JobRecord | None:
        """Return what a process says of its job, None where it does not speak for it.

        `by_cgroup`: whether a cgroup names the job.
        """
        ...


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

    def dump(self, now_ns: int) -> Mapping[str, Row]:
        """Return what must outlive a restart on the same boot, as rows."""
        ...

    def restore(self, rows: Rows) -> None:
        """Go on from an earlier run's rows, before the first look.

        Raises:
            ValueError, TypeError, LookupError: the rows are not those of `dump`.
        """
        ...

    def look(self, now_ns: int) -> Usage:
        """Return the use since the previous look.

        The first look returns none; after `restore` it returns what those that are still there
        have used since the rows were dumped.
        """
        ...
