"""Who has exited and is not reaped: nothing of it runs any more, though it is listed."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, KeysView, Mapping

from jobwatt.errors import ReadError
from jobwatt.host.procfs import Procfs
from jobwatt.model import Process
from jobwatt.usage.cpu_time import CpuTimeReader
from jobwatt.usage.entry import Entry

__all__ = ["Zombies"]

MOST_STOPPED = 4
"""How many that have stopped running are asked in a look whether they have exited."""


class Zombies:
    """Finds zombies among those that have stopped running, and knows them until they are reaped."""

    def __init__(self, procfs: Procfs, reader: CpuTimeReader) -> None:
        self._procfs = procfs
        self._reader = reader
        self._starts: dict[int, int] = {}
        self._stopped: dict[Process, None] = {}

    @property
    def pids(self) -> KeysView[int]:
        """The pids of all that are known, now and later."""
        return self._starts.keys()

    def note(self, pid: int, start_ticks: int) -> None:
        """Take in one that has exited."""
        self._starts[pid] = start_ticks

    def note_stopped(
        self,
        before: Mapping[Process, int],
        used: Mapping[Process, int],
        entries: Mapping[Process, Entry],
    ) -> None:
        """Take notice of who of `entries` ran at the look before, and has not `used` any since."""
        for process in self._stopped.keys() & used.keys():
            del self._stopped[process]
        for process in before.keys() - used.keys():
            if process in entries:
                self._stopped[process] = None

    def find(self, entries: Mapping[Process, Entry]) -> Iterator[Entry]:
        """Return those that have exited and that are told to their end: these are taken in.

        To exit takes CPU time: who ran, and has stopped, is asked once.
        """
        for _ in range(min(MOST_STOPPED, len(self._stopped))):
            process = next(iter(self._stopped))
            del self._stopped[process]
            entry = entries[process]
            if self._has_exited(process) and self._is_told(entry):
                self._starts[process.pid] = process.start_ticks
                yield entry

    def forget(self, process: Process) -> None:
        """Let go of one that has ended: it is not asked."""
        self._stopped.pop(process, None)

    def forget_reaped(self, pids: Collection[int], given_out: Collection[int]) -> None:
        """Drop those that are not listed any more, so that whoever has the pid now is met.

        Of those whose pid may have been `given_out` anew the start tells.
        """
        for pid, start_ticks in list(self._starts.items()):
            if pid not in pids or (pid in given_out and not self._has_start(pid, start_ticks)):
                del self._starts[pid]

    def _has_exited(self, process: Process) -> bool:
        with contextlib.suppress(ReadError):
            stat = self._procfs.read_process_stat(process.pid)
            return stat.exited and stat.start_ticks == process.start_ticks
        return False

    def _is_told(self, entry: Entry) -> bool:
        """Whether all that a process ran is told; if not, it stops once more when the rest is."""
        group = entry.group
        at = group.processes.index(entry.process)
        if self._reader.read([group.keys[at]]) == [group.times[at]]:
            return True
        group.runners = None
        return False

    def _has_start(self, pid: int, start_ticks: int) -> bool:
        try:
            return self._procfs.read_process_stat(pid).start_ticks == start_ticks
        except ReadError:
            return False
