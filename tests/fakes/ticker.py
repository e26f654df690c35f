"""A fake /sys whose RAPL counters tick with what this machine really does, and know their truth.

The power is made up: so much when idle, and so much more for each CPU second of tasks. What makes
it move is the real load out of /proc/stat, so that real processes cause it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

TICK_SECONDS = 0.05
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
UJ = 1_000_000


@dataclass(frozen=True, slots=True)
class Zone:
    """One counter: what it is called, and the power that it shows."""

    device: str
    folder: str
    name: str
    idle_watts: float
    joules_per_busy_second: float
    range_uj: int
    begins_at_uj: int


PACKAGE = Zone("package-0", "intel-rapl:0", "package-0", 20.0, 30.0, 65_712_999_613, 65_612_999_613)
"""It wraps after its first 100 J."""

DRAM = Zone("dram-0", "intel-rapl:0:0", "dram", 3.0, 2.0, 65_712_999_613, 17_000_000)

ZONES = (PACKAGE, DRAM)


@dataclass(frozen=True, slots=True)
class Tick:
    """What holds from this tick on.

    Attributes:
        begun, done: Unix time before and after the counters were written.
        put_in_uj: all energy so far, by device.
        cpu_seconds: CPU time of the processes that are followed, by pid.
        task_seconds: CPU time of all tasks of this machine.
    """

    begun: float
    done: float
    put_in_uj: dict[str, int]
    cpu_seconds: dict[int, float]
    task_seconds: float


class Ticker:
    """Moves the counters below `sysfs` for as long as it is open."""

    def __init__(self, sysfs: Path, zones: Iterable[Zone] = ZONES) -> None:
        self._zones = tuple(zones)
        self.sysfs = sysfs
        self._powercap = sysfs / "class/powercap"
        self._followed: list[psutil.Process] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        self.ticks: list[Tick] = []

    def __enter__(self) -> Self:
        (self._powercap / "intel-rapl").mkdir(parents=True)
        for zone in self._zones:
            folder = self._powercap / zone.folder
            folder.mkdir()
            (folder / "name").write_text(f"{zone.name}\n")
            (folder / "max_energy_range_uj").write_text(f"{zone.range_uj}\n")
            self._write(zone, 0)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def follow(self, pid: int) -> None:
        """Note the CPU time of a process from the next tick on."""
        self._followed = [*self._followed, psutil.Process(pid)]

    def energy_bounds(self, device: str, start: float, end: float) -> tuple[float, float]:
        """Least and most joules that a reader can have seen put in, who read at some time between.

        The counters stand still between two ticks, so most often both are the same.
        """
        seen = [tick.put_in_uj[device] for tick in self.ticks if tick.done <= start]
        maybe = [tick.put_in_uj[device] for tick in self.ticks if tick.begun <= end]
        return seen[-1] / UJ, maybe[-1] / UJ

    def share(self, pid: int, start: float, end: float) -> float:
        """The part of all tasks' CPU time between two moments that a process had."""
        first, last = self._at(start), self._at(end)
        used = last.cpu_seconds[pid] - first.cpu_seconds[pid]
        return used / (last.task_seconds - first.task_seconds)

    def _at(self, moment: float) -> Tick:
        return min(self.ticks, key=lambda tick: abs(tick.begun - moment))

    def _run(self) -> None:
        put_in = {zone.device: 0.0 for zone in self._zones}
        before, busy_before = time.monotonic(), busy_seconds()
        while not self._stop.wait(TICK_SECONDS):
            now, busy = time.monotonic(), busy_seconds()
            for zone in self._zones:
                idle = zone.idle_watts * (now - before)
                put_in[zone.device] += idle + zone.joules_per_busy_second * (busy - busy_before)
            before, busy_before = now, busy
            total = {device: round(joules * UJ) for device, joules in put_in.items()}
            cpu_seconds = {process.pid: _cpu_seconds(process) for process in self._followed}
            begun = time.time()
            for zone in self._zones:
                self._write(zone, total[zone.device])
            self.ticks.append(Tick(begun, time.time(), total, cpu_seconds, busy))

    def _write(self, zone: Zone, put_in_uj: int) -> None:
        """Show a counter's value, at once: nobody sees half of it."""
        path = self._powercap / zone.folder / "energy_uj"
        new = path.with_name(".energy_uj")
        new.write_text(f"{(zone.begins_at_uj + put_in_uj) % zone.range_uj}\n")
        new.rename(path)


def busy_seconds() -> float:
    """CPU time of all tasks of this machine: user, nice and system."""
    first = Path("/proc/stat").read_text().partition("\n")[0]
    return sum(int(field) for field in first.split()[1:4]) / CLOCK_TICKS


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
