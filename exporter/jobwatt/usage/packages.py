"""How busy each package was, and the machine as a whole, out of /proc/stat."""

from __future__ import annotations

from dataclasses import dataclass

from jobwatt.errors import ReadError
from jobwatt.host.procfs import CpuTimes, Procfs
from jobwatt.host.topology import Topology
from jobwatt.model import Usage

__all__ = ["PackageTimes", "TaskTime"]


@dataclass(slots=True)
class TaskTime:
    """CPU time of all tasks in clock ticks, as the last reading of /proc/stat had it."""

    total_ns: int = 0

    def read(self) -> int:
        """Return it, in nanoseconds."""
        return self.total_ns

    def close(self) -> None:
        """Hold nothing."""


class PackageTimes:
    """Reads what each package's CPUs have worked since the last reading.

    Attributes:
        times: the last reading; None before the first, and where it could not be read.
        task_time: of the whole machine.
    """

    def __init__(self, procfs: Procfs, topology: Topology) -> None:
        self._procfs = procfs
        self._topology = topology
        self.times: CpuTimes | None = None
        self.task_time = TaskTime()

    def read(self, usage: Usage, span_ns: int) -> None:
        """Tell how busy each package was in the `span_ns` since the last reading."""
        before = self.times
        try:
            self.times = self._procfs.read_cpu_times()
        except ReadError:
            self.times = None
            return
        self.task_time.total_ns = sum(self.times.busy_ns.values())
        if before is None or span_ns <= 0:
            return
        for cpu, busy_ns in self.times.busy_ns.items():
            package = self._topology.package_of.get(cpu)
            if package is None or cpu not in before.busy_ns:
                continue
            used_ns = max(0, busy_ns - before.busy_ns[cpu])
            usage.busy_ns[package] = usage.busy_ns.get(package, 0) + used_ns
            usage.capacity_ns[package] = usage.capacity_ns.get(package, 0) + span_ns
