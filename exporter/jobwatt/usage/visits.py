"""Whom to look at again: who is young, who runs, and everybody in turn.

A process may change its name, its user, its cgroup and its environment at any time. To read these
of all at every look would cost too much: what does not fit into a look waits for the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from jobwatt.host.procfs import TICKS
from jobwatt.model import Process
from jobwatt.units import NS
from jobwatt.usage.cpu_time import CpuTimeReader
from jobwatt.usage.entry import Entry

__all__ = ["Visits"]

YOUNG_NS = (1 * NS, 2 * NS, 5 * NS)
"""Ages at which a newcomer is identified again: after fork come exec, setuid, a cgroup."""

VISIT_AGAIN_NS = 60 * NS
"""Least time between two visits to a busy process."""

ROUND_SECONDS = 3600
"""Every process is visited at least about this often, also one that never runs."""

MOST_YOUNG, MOST_BUSY, MOST_ROUND = 32, 1, 10
"""Visits a look, by occasion: what does not fit waits for the next."""

MOST_PASSED = 50
"""How many that ran are passed over in a look, to find one who is due for a visit."""

MOST_CHECKED = 500
"""How many of the young are asked in a look whether they have run: that costs a microsecond."""


class Visits:
    """Knows who is due for a visit."""

    def __init__(self, reader: CpuTimeReader, grown_up: Callable[[str], None]) -> None:
        """Tell `grown_up` the job of each that is young no more, before its last visit as such."""
        self._reader = reader
        self._grown_up = grown_up
        self._young: deque[tuple[int, int, Process]] = deque()
        self._ran: dict[Process, int] = {}
        self._round: list[Process] = []
        self._round_due = 0.0

    def meet(self, process: Process, age_ticks: int, now_ns: int) -> None:
        """Take in a newcomer, if it is young."""
        if age_ticks < YOUNG_NS[-1] * TICKS // NS:
            self._young.append((now_ns + YOUNG_NS[0], 0, process))

    def note_ran(self, processes: Iterable[Process]) -> None:
        """Take notice of who ran in a look."""
        self._ran.update(dict.fromkeys(processes, 0))

    def forget(self, process: Process) -> None:
        """Let go of one that has ended."""
        self._ran.pop(process, None)

    def due(self, entries: Mapping[Process, Entry], now_ns: int, span_ns: int) -> Iterator[Entry]:
        """Return whom to visit at this look; a visit may end the process."""
        yield from self._young_due(entries, now_ns)
        yield from self._busy_due(entries, now_ns)
        if not self._round:
            self._round = list(entries)
        self._round_due += len(entries) * span_ns / (ROUND_SECONDS * NS)
        share = min(int(self._round_due), MOST_ROUND, len(self._round))
        self._round_due = min(self._round_due - share, MOST_ROUND)
        for _ in range(share):
            entry = entries.get(self._round.pop())
            if entry is not None:
                yield entry

    def _busy_due(self, entries: Mapping[Process, Entry], now_ns: int) -> Iterator[Entry]:
        visited = 0
        for _ in range(min(MOST_PASSED, len(self._ran))):
            process = next(iter(self._ran))
            del self._ran[process]
            entry = entries.get(process)
            if entry is not None and now_ns - entry.visited_ns >= VISIT_AGAIN_NS:
                yield entry
                visited += 1
                if visited == MOST_BUSY:
                    break

    def _young_due(self, entries: Mapping[Process, Entry], now_ns: int) -> Iterator[Entry]:
        visited = 0
        for _ in range(MOST_CHECKED):
            if not self._young or self._young[0][0] > now_ns or visited == MOST_YOUNG:
                break
            _, stage, process = self._young.popleft()
            entry = entries.get(process)
            if entry is None:
                continue
            if stage + 1 < len(YOUNG_NS):
                due = now_ns + YOUNG_NS[stage + 1] - YOUNG_NS[stage]
                self._young.append((due, stage + 1, process))
            else:
                self._grown_up(process.job_uid)
            if self._has_run(entry):
                yield entry
                visited += 1

    def _has_run(self, entry: Entry) -> bool:
        """Whether a process has run since the last visit: only then can it have changed itself."""
        process = entry.process
        key = self._reader.key(process.pid, process.start_ticks)
        return self._reader.read([key]) != [entry.visited_time_ns]
