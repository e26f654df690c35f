"""What is watched while the exporter runs: the GPU itself, and the exporter's pages."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pynvml

from hardware.answers import VALUE_TYPES
from hardware.page import Page, parse_page
from jobwatt.meters.nvml.meter import NvmlMeter

ROOT = Path(__file__).resolve().parents[2]

POLL_SECONDS = 0.02
SAMPLES_SECONDS = 0.25
LOOK_SECONDS = 0.25
AFTER_SAMPLE_SECONDS = 0.2
START_SECONDS = 60
STOP_SECONDS = 15

MOST_PERCENT = 100
FIELD_INSTANT, SCOPE_GPU = 186, 0  # nvml.h: NVML_FI_DEV_POWER_INSTANT, NVML_POWER_SCOPE_GPU
NOT_FOUND = 6

_SAMPLED = re.compile(rb"^jobwatt_last_sample_timestamp_seconds (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Busy:
    """One sample of the driver's: a process, %, and when (monotonic seconds)."""

    at: float
    pid: int
    sm: int


@dataclass
class Observed:
    """All that was seen; times in monotonic seconds.

    Attributes:
        interval: of the exporter's samples.
        phases: name, start and end.
        power: watts; `instant` says whether of a moment, or an average.
        counter: joules since the driver was loaded; empty where there is no counter.
        samples: SM utilisation by process.
        odd_samples: rows that cannot be.
        refused: what NVML did not answer, and how often.
        pages: each sample of the exporter's once, in order, with the time of its sample.
        workers: pid, start and end by name.
        shown: whether the driver listed each worker by the pid that we know.
    """

    interval: float = 1.0
    phases: list[tuple[str, float, float]] = field(default_factory=list)
    power: list[tuple[float, float]] = field(default_factory=list)
    instant: bool = True
    counter: list[tuple[float, float]] = field(default_factory=list)
    samples: list[Busy] = field(default_factory=list)
    odd_samples: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    pages: list[tuple[float, Page]] = field(default_factory=list)
    workers: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    shown: dict[str, bool] = field(default_factory=dict)


class Repeated(threading.Thread):
    """Does something again and again until stopped; what goes wrong in it is told then."""

    def __init__(self, act: Callable[[], None], seconds: float) -> None:
        super().__init__(daemon=True)
        self._act = act
        self._seconds = seconds
        self._stop_now = threading.Event()
        self._trouble: BaseException | None = None

    def run(self) -> None:
        due = time.monotonic()
        try:
            while not self._stop_now.is_set():
                self._act()
                due = max(due + self._seconds, time.monotonic())
                self._stop_now.wait(due - time.monotonic())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever stops it
            self._trouble = error

    def end(self) -> None:
        self._stop_now.set()
        self.join(STOP_SECONDS)
        if self._trouble is not None:
            raise self._trouble

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Gpu:
    """One GPU, asked without the exporter's code."""

    def __init__(self, index: int, seen: Observed) -> None:
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        self._seen = seen
        self._counts = self._has_counter()
        seen.instant = self._instant() is not None
        # Only what is newer than now: what went on before belongs to nobody here.
        self._last_us = time.time_ns() // 1000
        self._wall_less_monotonic = time.time() - time.monotonic()
        self.uuid: str = pynvml.nvmlDeviceGetUUID(self._handle)
        self.name: str = pynvml.nvmlDeviceGetName(self._handle)

    @property
    def is_divided(self) -> bool:
        """Whether MIG is on."""
        try:
            return bool(pynvml.nvmlDeviceGetMigMode(self._handle)[0])
        except pynvml.NVMLError:
            return False

    def residents(self) -> list[int]:
        """Pids that hold a context."""
        pids: list[int] = []
        for kind in ("Compute", "Graphics", "MPSCompute"):
            try:
                found = getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses")(self._handle)
            except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):
                continue
            pids += [process.pid for process in found]
        return sorted(set(pids))

    def poll(self) -> None:
        """Read power and the counter, as near to each other as possible."""
        with self._noting("polling"):
            self._poll()

    def read_samples(self) -> None:
        """Read who was busy since the last time."""
        with self._noting("samples"):
            self._read_samples()

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Count what NVML refuses."""
        try:
            yield
        except pynvml.NVMLError as error:
            key = f"{what}: {error}"
            self._seen.refused[key] = self._seen.refused.get(key, 0) + 1

    def _poll(self) -> None:
        at = time.monotonic()
        watts = self._instant() if self._seen.instant else self._average()
        if watts is not None:
            self._seen.power.append(((at + time.monotonic()) / 2, watts))
        if self._counts:
            at = time.monotonic()
            millijoules = pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            self._seen.counter.append(((at + time.monotonic()) / 2, millijoules / 1000))

    def _read_samples(self) -> None:
        try:
            rows = pynvml.nvmlDeviceGetProcessUtilization(self._handle, self._last_us)
        except pynvml.NVMLError as error:
            if error.value in {0, NOT_FOUND, pynvml.NVML_ERROR_NOT_SUPPORTED}:
                return
            raise
        newest = self._last_us
        for row in rows:
            if row.smUtil > MOST_PERCENT:
                self._seen.odd_samples += 1
            elif row.timeStamp > self._last_us and row.pid:
                newest = max(newest, row.timeStamp)
                at = row.timeStamp / 1e6 - self._wall_less_monotonic
                self._seen.samples.append(Busy(at, row.pid, row.smUtil))
        self._last_us = newest

    def _has_counter(self) -> bool:
        try:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except pynvml.NVMLError:
            return False
        return True

    def _instant(self) -> float | None:
        try:
            (value,) = pynvml.nvmlDeviceGetFieldValues(self._handle, [(FIELD_INSTANT, SCOPE_GPU)])
        except pynvml.NVMLError:
            return None
        if value.nvmlReturn != 0 or value.valueType >= len(VALUE_TYPES):
            return None
        return float(getattr(value.value, VALUE_TYPES[value.valueType])) / 1000

    def _average(self) -> float:
        return float(pynvml.nvmlDeviceGetPowerUsage(self._handle)) / 1000


class Looker:
    """The exporter's own NVML meter in this process, for the time that its looks take."""

    def __init__(self, meter: NvmlMeter) -> None:
        self._meter = meter
        self.milliseconds: list[float] = []
        self.cpu_milliseconds: list[float] = []

    def look(self) -> None:
        begin, cpu = time.perf_counter_ns(), time.thread_time_ns()
        self._meter.read()
        self.cpu_milliseconds.append((time.thread_time_ns() - cpu) / 1e6)
        self.milliseconds.append((time.perf_counter_ns() - begin) / 1e6)


class Exporter:
    """`jobwatt serve` as a child, scraped once a sample."""

    def __init__(self, folder: Path, environment: Mapping[str, str], interval: float) -> None:
        folder.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._interval = interval
        self._log = folder / "log"
        self._last = b""
        self._wall_less_monotonic = time.time() - time.monotonic()
        self._marks: list[tuple[float, float]] = []
        path = f"{ROOT / 'exporter'}{os.pathsep}{environment.get('PYTHONPATH', '')}"
        command = [
            sys.executable,
            *("-m", "jobwatt", "serve"),
            f"--web.listen-address=127.0.0.1:{self._port}",
            f"--state.directory={folder / 'state'}",
            f"--sample.interval={interval}s",
            "--process.min-joules=0.001",
        ]
        with self._log.open("wb") as output:
            self._child = subprocess.Popen(
                command,
                env={**environment, "PYTHONPATH": path.rstrip(os.pathsep)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Self:
        deadline = time.monotonic() + START_SECONDS
        while self._fetch("/-/ready")[0] != http.client.OK:
            if self._child.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise SystemExit(f"the exporter does not start:\n{self.log}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._child.terminate()
        try:
            self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def scrape(self) -> tuple[float, bytes] | None:
        """Return the page and the time of its sample (monotonic), None if it is an old one."""
        status, page = self._fetch("/metrics")
        match = _SAMPLED.search(page)
        if status != http.client.OK or match is None or match[1] == self._last:
            return None
        self._last = match[1]
        return float(match[1]) - self._wall_less_monotonic, page

    def until_next(self, sampled: float) -> float:
        """Seconds until the sample after that of time `sampled` can be scraped."""
        return sampled + self._interval + AFTER_SAMPLE_SECONDS - time.monotonic()

    def mark(self) -> None:
        """Note time and CPU time so far."""
        cpu_ns = time.clock_gettime_ns((~self._child.pid << 3) | 2)
        self._marks.append((time.monotonic(), cpu_ns / 1e6))

    def cpu_ms_per_sample(self) -> float:
        """CPU time between the first and the last mark."""
        (begin, before), (end, after) = self._marks[0], self._marks[-1]
        return (after - before) / ((end - begin) / self._interval)

    def _fetch(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()


class Scraper(threading.Thread):
    """Keeps every sample of an exporter's; scrapes a second exporter as often, for its cost."""

    def __init__(self, exporter: Exporter, other: Exporter, device: str, seen: Observed) -> None:
        super().__init__(daemon=True)
        self._exporter, self._other = exporter, other
        self._device = device
        self._seen = seen
        self._stop_now = threading.Event()
        self._texts: list[tuple[float, bytes]] = []

    @property
    def last(self) -> float:
        """When the sample of the newest page was taken."""
        return self._texts[-1][0] if self._texts else 0.0

    def run(self) -> None:
        wait = 0.0
        while not self._stop_now.wait(wait):
            found = self._exporter.scrape()
            if found is None:
                wait = 0.1
                continue
            self._texts.append(found)
            self._other.scrape()
            wait = max(0.0, self._exporter.until_next(found[0]))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_now.set()
        self.join(STOP_SECONDS)
        pages = ((at, text.decode()) for at, text in self._texts)
        self._seen.pages = [(at, parse_page(text, self._device)) for at, text in pages]


class Worker:
    """A process that uses the GPU."""

    def __init__(self, kind: str, part: float, uuid: str) -> None:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": uuid}
        command = [sys.executable, str(Path(__file__).with_name("worker.py")), kind, str(part)]
        self._child = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.pid = self._child.pid
        assert self._child.stdout is not None
        if self._child.stdout.readline().strip() != b"ready":
            self.kill()
            raise SystemExit(f"the {kind} worker did not start")
        self.start = time.monotonic()

    def kill(self) -> float:
        """End it at once, wherever it is; return when."""
        at = time.monotonic()
        self._child.kill()
        self._child.communicate()
        return at


def machine_facts(index: int) -> dict[str, str]:
    """What the report names the machine by; nothing that tells whose it is."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "?",
    )
    cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return {
        "GPU": pynvml.nvmlDeviceGetName(handle),
        "driver": str(pynvml.nvmlSystemGetDriverVersion()),
        "CUDA": f"{cuda // 1000}.{cuda % 1000 // 10}",
        "GPUs": str(pynvml.nvmlDeviceGetCount()),
        "CPU": f"{cpu} ({os.cpu_count()} threads)",
        "kernel": os.uname().release,
        "Python": sys.version.split()[0],
    }
