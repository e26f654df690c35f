"""A usage probe that only knows who lives."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from jobwatt.model import Process, Row, Rows, Usage


@dataclass
class FakeProbe:
    """Answers what a test has put in; `gone` are those that have ended."""

    processes: Collection[Process] = field(default_factory=list)
    gone: Collection[Process] = field(default_factory=list)
    method = "fake"

    @property
    def claimants(self) -> Collection[Process]:
        """Those with an environment."""
        return [process for process in self.processes if process.environment]

    def find(self, pid: int) -> Process | None:
        """The process with this pid."""
        everyone = {process.pid: process for process in (*self.gone, *self.processes)}
        return everyone.get(pid)

    def refresh(self, process: Process) -> None:
        """Nothing new is known."""

    def dump(self, now_ns: int) -> dict[str, Row]:
        """Return nothing: this node has no past."""
        del now_ns
        return {}

    def restore(self, rows: Rows) -> None:
        """Do nothing."""
        del rows

    def look(self, now_ns: int) -> Usage:
        """Nobody runs."""
        del now_ns
        return Usage()
