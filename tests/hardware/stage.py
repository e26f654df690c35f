"""Where the check takes place: on this machine's GPU, or on a fake one."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jobwatt.meters.nvml.library import SONAME

if TYPE_CHECKING:
    from fakes.nvml import FakeNvml

IDLE_MW = 70_000
ALONE_MW, TOGETHER_MW = 430_000, 550_000
LEFT_MW = 90_000
"""For a while after the last process has gone."""

LOADS = {"A": (90, 60), "B": (45, 20)}
"""SM utilisation of each worker, alone and beside the other."""

JUMP_MJ = 800_000
FAULTS = ("counter", "lost")
"""The counter runs ahead of power; the counter ceases to answer."""

TICK_SECONDS = 0.25
SWING_MW = (0, 20_000, 40_000, 20_000, 0, -20_000, -40_000, -20_000)
"""A load is never steady."""


class Stage:
    """This machine as it is."""

    soname = SONAME

    def environment(self) -> dict[str, str]:
        """For a child that shall find the GPU."""
        return dict(os.environ)

    def began(self, name: str, pid: int) -> None:
        """A worker is at work."""

    def ended(self, name: str, pid: int) -> None:
        """A worker is gone."""

    def write_truth(self, folder: Path, phases: list[tuple[str, float, float]]) -> None:
        """Write what is known for sure."""


class FakeStage(Stage):
    """A fake GPU in real time: its power follows who is at work on it."""

    def __init__(self, folder: Path, fault: str | None) -> None:
        from dataclasses import replace  # noqa: PLC0415 - with what it is needed for

        from fakes.nvml import FakeNvml  # noqa: PLC0415 - needs a compiler
        from fakes.nvml.profiles import H100  # noqa: PLC0415

        gpu = replace(H100.idle, power_mw=IDLE_MW, utilization=None, processes=())
        self.fake: FakeNvml = FakeNvml(folder, [gpu], virtual=False)
        self.soname = str(self.fake.library)
        self._fault = fault
        self._base_mw = IDLE_MW
        self._alive: dict[str, int] = {}
        self._pids: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ticks = 0

    def environment(self) -> dict[str, str]:
        return self.fake.environment()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let this process, too, see the fake, and let power swing."""
        thread = threading.Thread(target=self._drive, daemon=True)
        with self.fake.installed():
            thread.start()
            try:
                yield
            finally:
                self._stop.set()
                thread.join()

    def began(self, name: str, pid: int) -> None:
        from fakes.nvml import GpuProcess  # noqa: PLC0415

        with self._lock:
            self._alive[name] = self._pids[name] = pid
            self.fake.start_process(0, GpuProcess(pid, memory_bytes=4 << 30))
            self._balance()
            if self._fault == "counter":
                self._fault = None
                self._jump()

    def ended(self, name: str, pid: int) -> None:
        with self._lock:
            del self._alive[name]
            self.fake.stop_process(0, pid)
            self._balance()
            if self._fault == "lost":
                self._fault = None
                self.fake.fault("nvmlDeviceGetTotalEnergyConsumption", 999)

    def write_truth(self, folder: Path, phases: list[tuple[str, float, float]]) -> None:
        truth = {}
        for name, start, end in phases:
            span = (round(start * 1e9), round(end * 1e9))
            exact = self.fake.truth(0, IDLE_MW, *span)
            by_pid = {who: exact.by_pid.get(pid, 0) / 1e6 for who, pid in self._pids.items()}
            truth[name] = {"joules": exact.total / 1e6, "by_worker": by_pid}
        (folder / "truth.json").write_text(f"{json.dumps(truth, indent=1)}\n")

    def _balance(self) -> None:
        """Set load and power to who is there."""
        for name, pid in self._alive.items():
            self.fake.set_sm(0, pid, LOADS[name][len(self._alive) - 1])
        self._base_mw = (IDLE_MW, ALONE_MW, TOGETHER_MW)[len(self._alive)]
        if not self._alive:
            self._base_mw = LEFT_MW
        self.fake.set_power(0, self._base_mw)

    def _jump(self) -> None:
        """Let the counter run ahead of what was used."""
        device = self.fake._devices[0]
        moment = self.fake._moment()
        counted = self.fake.energy_uj(0, until_ns=moment) // 1000
        device.epochs.append((moment, counted + JUMP_MJ))
        self.fake.write()

    def _drive(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            with self._lock:
                self._ticks += 1
                if self._alive:
                    swing = SWING_MW[self._ticks % len(SWING_MW)]
                    self.fake.set_power(0, self._base_mw + swing)


def hidden(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child that finds no NVIDIA driver: the first library is no library."""
    folder.mkdir(parents=True)
    (folder / SONAME).touch()
    paths = [str(folder), environment.get("LD_LIBRARY_PATH", "")]
    return {**environment, "LD_LIBRARY_PATH": os.pathsep.join(path for path in paths if path)}
