"""What JobWatt costs, beside other exporters in the same run: `make bench`.

Every exporter runs alone, with its defaults, on the same crowd of processes in cgroups, over the
same powercap tree, and is scraped every 15 s. CPU time is what the kernel charges to the whole
process; figures are medians. Machines are noisy: read the ratios.

    bench.py [--processes 100,1000,10000] [--seconds 60] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobwatt.host.procfs import Procfs

HERE = Path(__file__).parent
GROUPS_PER_PROCESS = 1 / 20
BUSY_PERCENT = 60
SCRAPE_SECONDS = 15
BURST = 60
"""Scrapes in a row at the end, for the latencies."""


@dataclass(frozen=True)
class Exporter:
    """One exporter: how it is started on a port, with a powercap tree and a configuration."""

    name: str
    command: Callable[[int, Path], list[str]]


@dataclass(frozen=True)
class Cost:
    """What one exporter cost at one size of the crowd."""

    cpu_per_minute: float
    resident_mib: float
    scrape_cpu_ms: float
    p50_ms: float
    p99_ms: float
    series: int


def jobwatt(port: int, folder: Path) -> list[str]:
    """JobWatt with its defaults."""
    return [
        str(Path(sys.executable).with_name("jobwatt")),
        "serve",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--path.sysfs={folder / 'sys'}",
        "--path.cgroupfs=/sys/fs/cgroup",
        f"--state.directory={folder / 'state'}",
        "--log.level=warning",
    ]


def node_exporter(port: int, folder: Path) -> list[str]:
    """Debian's node exporter, RAPL only."""
    return [
        "prometheus-node-exporter",
        f"--web.listen-address=127.0.0.1:{port}",
        "--collector.disable-defaults",
        "--collector.rapl",
        f"--path.sysfs={folder / 'sys'}",
    ]


def process_exporter(port: int, folder: Path) -> list[str]:
    """Debian's process exporter, a group for each pid: what per-process labels need."""
    names = folder / "process-exporter.yml"
    names.write_text("process_names:\n  - name: '{{.PID}}:{{.Comm}}'\n    cmdline: ['.*']\n")
    return [
        "prometheus-process-exporter",
        f"-web.listen-address=127.0.0.1:{port}",
        f"-config.path={names}",
        "-threads=false",
    ]


EXPORTERS = (
    Exporter("JobWatt", jobwatt),
    Exporter("node_exporter (RAPL only)", node_exporter),
    Exporter("process-exporter (by pid)", process_exporter),
)


@contextmanager
def powercap_tree() -> Iterator[Path]:
    """A folder with a ticking two-socket RAPL tree."""
    folder = Path(tempfile.mkdtemp(prefix="jobwatt-bench-"))
    zones = []
    for package in (0, 1):
        for key, name in ((f"intel-rapl:{package}", f"package-{package}"),):
            zones += [(key, name), (f"{key}:0", "dram")]
    base = folder / "sys/class/powercap"
    for key, name in zones:
        (base / key).mkdir(parents=True)
        (base / key / "name").write_text(f"{name}\n")
        (base / key / "max_energy_range_uj").write_text("262143328850\n")
        (base / key / "energy_uj").write_text("0\n")
    stop = threading.Event()

    def tick() -> None:
        start = time.monotonic()
        while not stop.wait(0.1):
            for number, (key, _) in enumerate(zones):
                energy = int((time.monotonic() - start) * (40 + number) * 1e6)
                fresh = base / key / "energy_uj.new"
                fresh.write_text(f"{energy}\n")
                fresh.rename(base / key / "energy_uj")

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield folder
    finally:
        stop.set()
        thread.join()
        shutil.rmtree(folder)


@contextmanager
def crowd(processes: int) -> Iterator[None]:
    """So many processes, one group for twenty of them."""
    groups = max(1, round(processes * GROUPS_PER_PROCESS))
    command = [sys.executable, str(HERE / "crowd.py"), str(processes), str(groups)]
    with subprocess.Popen(
        [*command, str(BUSY_PERCENT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as maker:
        assert maker.stdout is not None
        maker.stdout.readline()
        time.sleep(3)
        try:
            yield
        finally:
            maker.communicate()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """Return a process's CPU time, to the nanosecond."""
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9


def resident_mib(pid: int) -> float:
    """Return a process's resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def scrape(port: int) -> tuple[float, bytes]:
    """Fetch the metrics as Prometheus would, without compression; return milliseconds and page."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read()
    finally:
        connection.close()
    return (time.perf_counter() - start) * 1e3, page


def wait_until_up(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait for the first page."""
    deadline = time.monotonic() + 60
    while True:
        try:
            scrape(port)
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{process.args!r} does not serve") from None
            time.sleep(0.2)
        else:
            return


def measure(exporter: Exporter, folder: Path, seconds: int) -> Cost:
    """Run one exporter on the present crowd."""
    port = free_port()
    with subprocess.Popen(
        exporter.command(port, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until_up(port, process)
            time.sleep(15)  # identities have been read, caches are as they will be
            begin, cpu = time.monotonic(), cpu_seconds(process.pid)
            scrapes = 0
            while time.monotonic() - begin < seconds:
                due = begin + (scrapes + 1) * SCRAPE_SECONDS
                time.sleep(max(0.0, due - time.monotonic()))
                _, page = scrape(port)
                scrapes += 1
            minute = (cpu_seconds(process.pid) - cpu) / (time.monotonic() - begin) * 60
            memory = resident_mib(process.pid)
            begin, cpu = time.monotonic(), cpu_seconds(process.pid)
            times = sorted(scrape(port)[0] for _ in range(BURST))
            burst = cpu_seconds(process.pid) - cpu - (time.monotonic() - begin) * minute / 60
        finally:
            process.terminate()
    lines = [line for line in page.splitlines() if line and not line.startswith(b"#")]
    return Cost(
        cpu_per_minute=minute,
        resident_mib=memory,
        scrape_cpu_ms=max(0.0, burst / BURST * 1e3),
        p50_ms=statistics.median(times),
        p99_ms=times[round(0.99 * (BURST - 1))],
        series=len(lines),
    )


@dataclass(frozen=True)
class SampleCost:
    """CPU time of JobWatt's samples at a true 1 Hz, caches cold."""

    median_ms: float
    p99_ms: float
    clocks_us_a_process: float
    psutil_ms: float


def measure_samples(processes: int, folder: Path, seconds: int) -> SampleCost:
    """Take samples in a process of their own and time each; then what psutil would need."""
    arguments = [str(folder), str(seconds), str(processes)]
    done = subprocess.run(
        [sys.executable, str(HERE / "samples.py"), *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    median, p99, clocks, psutil_ms = (float(word) for word in done.stdout.split())
    return SampleCost(median, p99, clocks, psutil_ms)


@dataclass(frozen=True)
class GpuCost:
    """CPU time of samples with GPUs, in ms, and the library's part in it."""

    without_ms: float
    with_ms: float
    calls_ms: float
    calls: float

    @property
    def beyond_ms(self) -> float:
        """What GPUs add beyond the library's calls."""
        return self.with_ms - self.without_ms - self.calls_ms


def measure_gpus(folder: Path, seconds: int) -> GpuCost:
    """Take samples on eight fake GPUs with four processes each."""
    done = subprocess.run(
        [sys.executable, str(HERE / "gpu_samples.py"), str(folder), str(seconds)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )
    return GpuCost(*(float(word) for word in done.stdout.split()))


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def report(
    costs: dict[int, dict[str, Cost]],
    samples: dict[int, SampleCost],
    gpus: GpuCost,
    seconds: int,
) -> str:
    """Return docs/benchmarks.md."""
    rows = []
    for processes, by_name in costs.items():
        own = by_name["JobWatt"]
        for name, cost in by_name.items():
            rows.append(
                [
                    f"{processes:,}",
                    name,
                    f"{cost.cpu_per_minute:.3f}",
                    f"{cost.cpu_per_minute / own.cpu_per_minute:.2f}",
                    f"{cost.scrape_cpu_ms:.1f}",
                    f"{cost.p50_ms:.1f} / {cost.p99_ms:.1f}",
                    f"{cost.resident_mib:.0f}",
                    f"{cost.series:,}",
                ]
            )
    whole = table(
        [
            "processes",
            "exporter",
            "CPU s a minute",
            "÷ JobWatt",
            "CPU ms a scrape",
            "p50 / p99 of a scrape, ms",
            "RSS, MiB",
            "series",
        ],
        rows,
    )
    each = table(
        [
            "processes",
            "median ms a sample",
            "p99 ms",
            "clocks, µs a process",
            "the same through psutil, ms",
            "psutil ÷ JobWatt",
        ],
        [
            [
                f"{processes:,}",
                f"{cost.median_ms:.2f}",
                f"{cost.p99_ms:.2f}",
                f"{cost.clocks_us_a_process:.2f}",
                f"{cost.psutil_ms:.1f}",
                f"{cost.psutil_ms / cost.median_ms:.0f}",
            ]
            for processes, cost in samples.items()
        ],
    )
    of_gpus = table(
        ["ms a sample without GPUs", "with them", "calls", "ms in calls", "ms beyond the calls"],
        [
            [
                f"{gpus.without_ms:.2f}",
                f"{gpus.with_ms:.2f}",
                f"{gpus.calls:.0f}",
                f"{gpus.calls_ms:.2f}",
                f"{gpus.beyond_ms:.2f}",
            ]
        ],
    )
    cpu = Procfs(Path("/proc")).read_cpu_model()
    return f"""\
# Benchmarks

Written by `make bench` on {time.strftime("%Y-%m-%d")}: {os.cpu_count()} CPUs
({cpu}), Linux {platform.release()}, Python {platform.python_version()}.

A crowd of processes in cgroups of twenty, one in fifty of them busy ({BUSY_PERCENT} % of one CPU in
all); two packages and two DRAM domains in a ticking powercap tree. Each exporter ran alone with its
defaults for {seconds} s and was scraped every {SCRAPE_SECONDS} s; JobWatt sampled once a second
besides. Machines are noisy: the ratios say more than the figures.

## Whole exporters

{whole}
process-exporter reads every process at each scrape; node_exporter attributes nothing. Latencies are
of {BURST} scrapes in a row.

## One sample

CPU time of the sampling thread, one sample a second, caches cold. The clocks are those of all
processes, read in one go after a second's pause. psutil's column is `cpu_times()` of every process,
once, with `Process` objects that already exist.

{each}
## GPUs

Eight GPUs with four processes each, on the fake NVML of the tests; CPU time of the whole process,
one sample a second, caches cold.

{of_gpus}
What a real driver adds to its calls is not in this.
"""


def main() -> None:
    """Measure and print, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", default="100,1000,10000")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    costs: dict[int, dict[str, Cost]] = {}
    samples: dict[int, SampleCost] = {}
    for processes in (int(word) for word in arguments.processes.split(",")):
        with crowd(processes), powercap_tree() as folder:
            samples[processes] = measure_samples(processes, folder, min(arguments.seconds, 40))
            print(processes, samples[processes], file=sys.stderr)
            costs[processes] = {}
            for exporter in EXPORTERS:
                cost = measure(exporter, folder, arguments.seconds)
                costs[processes][exporter.name] = cost
                print(processes, exporter.name, cost, file=sys.stderr)
    with powercap_tree() as folder:
        gpus = measure_gpus(folder, min(arguments.seconds, 30))
    page = report(costs, samples, gpus, arguments.seconds)
    if arguments.write:
        arguments.write.write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main()
