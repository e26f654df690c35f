"""The CPU time of many processes at once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

from jobwatt.errors import ReadError
from jobwatt.host.procfs import Procfs

__all__ = ["GONE", "CpuTimeReader", "ProcessClocks", "StatFiles", "choose_reader"]

GONE = -1
"""Stands for the CPU time of a process that has ended."""

_PID_BITS = 32
_PID_MASK = (1 << _PID_BITS) - 1


class CpuTimeReader(Protocol):
    """Reads the on-CPU time of whole thread groups."""

    @property
    def method(self) -> str:
        """How, for people."""
        ...

    def key(self, pid: int, start_ticks: int) -> int:
        """Return what `read` takes for this process."""
        ...

    def read(self, keys: Iterable[int]) -> list[int]:
        """Return nanoseconds since each process's start, `GONE` for those that have ended."""
        ...


class ProcessClocks:
    """The process CPU clock: nanoseconds, one system call, no permission needed.

    The clock id is that of clock_getcpuclockid(3): `(~pid << 3) | CPUCLOCK_SCHED`
    (include/linux/posix-timers_types.h). Python takes it as it is, for any process.
    """

    method = "process CPU clocks"

    def key(self, pid: int, start_ticks: int) -> int:
        """Return the clock id."""
        del start_ticks  # who has the pid next is noticed by the youngest pid
        return (~pid << 3) | 2

    def read(self, keys: Iterable[int]) -> list[int]:
        """Read the clocks."""
        pending = iter(keys)
        times: list[int] = []
        while True:
            try:
                # extend() keeps what came before an error, and the iterator is past the culprit.
                times.extend(map(time.clock_gettime_ns, pending))
            except OSError:
                times.append(GONE)
            else:
                return times


class StatFiles:
    """utime + stime of /proc/PID/stat: clock ticks, for a procfs of another PID namespace."""

    method = "/proc/PID/stat"

    def __init__(self, procfs: Procfs) -> None:
        self._procfs = procfs

    def key(self, pid: int, start_ticks: int) -> int:
        """Return both in one number; a start of 0 is not known."""
        return start_ticks << _PID_BITS | pid

    def read(self, keys: Iterable[int]) -> list[int]:
        """Read the files; a pid that has another start by now belongs to another process."""
        return [self._read(key & _PID_MASK, key >> _PID_BITS) for key in keys]

    def _read(self, pid: int, start_ticks: int) -> int:
        try:
            stat = self._procfs.read_process_stat(pid)
        except ReadError:
            return GONE
        return stat.cpu_ns if start_ticks in {0, stat.start_ticks} else GONE


def choose_reader(procfs: Procfs) -> CpuTimeReader:
    """Return the best reader for this procfs: clocks where its pids are our own."""
    return ProcessClocks() if procfs.is_own() else StatFiles(procfs)
