"""Two exporters on one machine, one killed again and again: both have the same accounts.

The machine's counters tick with its real load (`fakes.ticker`); the processes are real.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fakes.nvml import FakeNvml, Gpu, GpuProcess
from fakes.ticker import DRAM, PACKAGE, ZONES, Ticker
from jobwatt.store import Store
from servers import JOBWATT, STOP_SECONDS, answers, eventually, free_port, get

pytestmark = pytest.mark.stack

INTERVAL = 0.5
KILLS = 20
MOST_UP, MOST_DOWN = 1.5, 0.8
"""Seconds; a run may be killed before it is ready."""

STEADY = """
import time
while True:
    time.sleep(0.02)
    end = time.process_time() + 0.01
    while time.process_time() < end: pass
"""
IN_TURN = """
import sys, time
mine = int(sys.argv[1])
while True:
    if int(time.monotonic()) % 2 == mine:
        for _ in range(20000): pass
    else:
        time.sleep(0.01)
"""
"""Two of these are never busy at the same time."""

BRIEF = """
import time
while time.process_time() < 1.0: pass
"""

BRIEF_CHILDREN = """
import os, sys
def child(end):
    while time.process_time() < end: pass
    os._exit(0)
import time
sys.stdin.read(1)
for n in range(10**9):
    pid = os.fork() or child(0.02 + n % 4 * 0.01)
    os.waitpid(pid, 0)
    time.sleep(0.02)
"""
"""20 to 50 ms each: most are never seen."""

POD = "11111111-2fa1-11d2-883f-0016d3cca427"

Series = Mapping[tuple[str, ...], Decimal]


class Page:
    """What an exporter showed at a scrape, exactly as it is printed."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, dict[tuple[tuple[str, str], ...], Decimal]] = {}
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            # The parser for the labels; its float values have fewer digits than the page.
            (family,) = text_string_to_metric_families(f"{line}\n")
            (sample,) = family.samples
            labels = tuple(sorted(sample.labels.items()))
            self._samples.setdefault(sample.name, {})[labels] = Decimal(line.rpartition(" ")[2])

    def by(self, name: str, *keys: str, **labels: str) -> dict[tuple[str, ...], Decimal]:
        """Sums of a metric's series with these labels, by the values of `keys`."""
        sums: dict[tuple[str, ...], Decimal] = {}
        for pairs, value in self._samples.get(name, {}).items():
            have = dict(pairs)
            if labels.items() <= have.items():
                key = tuple(have[k] for k in keys)
                sums[key] = sums.get(key, Decimal(0)) + value
        return sums

    def imbalances(self) -> list[Decimal]:
        """What the two identities of each device are off by."""
        rests = [
            self.by("jobwatt_device_idle_energy_joules_total", "device"),
            self.by("jobwatt_device_unattributed_energy_joules_total", "device"),
        ]
        processes = [
            self.by("jobwatt_process_energy_joules_total", "device"),
            self.by("jobwatt_process_other_energy_joules_total", "device"),
            self.by("jobwatt_retired_energy_joules_total", "device", level="process"),
        ]
        jobs = [
            self.by("jobwatt_job_energy_joules_total", "device"),
            self.by("jobwatt_retired_energy_joules_total", "device", level="job"),
        ]
        measured = self.by("jobwatt_device_energy_joules_total", "device")
        return [
            uj - sum(part.get(device, Decimal(0)) for part in (*rests, *level))
            for device, uj in measured.items()
            for level in (processes, jobs)
        ]

    def counters(self) -> dict[tuple[str, ...], Decimal]:
        """All that must never go back: no series of these goes away within this test."""
        shown = {}
        for name, keys in (
            ("jobwatt_device_energy_joules_total", ("device",)),
            ("jobwatt_device_idle_energy_joules_total", ("device",)),
            ("jobwatt_device_unattributed_energy_joules_total", ("device",)),
            ("jobwatt_process_energy_joules_total", ("pid", "comm", "job_uid", "device")),
            ("jobwatt_process_other_energy_joules_total", ("device",)),
            ("jobwatt_job_energy_joules_total", ("job_uid", "device")),
            ("jobwatt_job_cpu_seconds_total", ("job_uid",)),
            ("jobwatt_account_energy_joules_total", ("account", "component")),
            ("jobwatt_retired_energy_joules_total", ("level", "device")),
            ("jobwatt_rapl_energy_joules_total", ("domain",)),
        ):
            shown.update({(name, *key): value for key, value in self.by(name, *keys).items()})
        return shown

    def since(self) -> dict[tuple[str, ...], Decimal]:
        """When each job's counter began."""
        return self.by("jobwatt_job_measured_since_timestamp_seconds", "job_uid")


class Watched:
    """An exporter with a state of its own, whose page is read all the time."""

    def __init__(
        self,
        name: str,
        folder: Path,
        options: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._environment = {**os.environ, **(environment or {})}
        self.folder = folder / name
        self.folder.mkdir()
        self.state = self.folder / "state"
        self._url = f"http://127.0.0.1:{free_port()}"
        self._command = [JOBWATT, "serve", *options, f"--state.directory={self.state}"]
        self._command.append(f"--web.listen-address={self._url.removeprefix('http://')}")
        self._log = (self.folder / "log.txt").open("wb")
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)
        self.pages: list[Page] = []
        self.faults: list[str] = []

    def start(self) -> None:
        """Start it, or start it again."""
        self._process = subprocess.Popen(
            self._command, stdout=self._log, stderr=self._log, env=self._environment
        )
        if not self._thread.is_alive():
            self._thread.start()

    def wait_until_ready(self) -> None:
        """Return once it has sampled."""
        eventually(lambda: answers(f"{self._url}/-/ready"), 20, f"{self.folder}/log.txt")

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        assert self._process is not None
        assert self._process.poll() is None, self.log
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(STOP_SECONDS)

    def close(self) -> None:
        """Stop it, and looking at it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_SECONDS)
        self._log.close()

    def page(self) -> Page:
        """The page of a sample that begins from now on."""
        before = time.time()
        eventually(lambda: self.pages and _sampled(self.pages[-1]) > before, 20, self.log)
        return self.pages[-1]

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def _watch(self) -> None:
        text = ""
        while not self._stop.wait(0.05):
            try:
                status, body = get(f"{self._url}/metrics")
            except (OSError, http.client.HTTPException):
                continue
            if status == http.client.OK and body.decode() != text:
                text = body.decode()
                self._take(Page(text))

    def _take(self, page: Page) -> None:
        self.faults += [f"imbalance of {rest} J" for rest in page.imbalances() if rest]
        if self.pages:
            last, now = self.pages[-1].counters(), page.counters()
            self.faults += [
                f"{key} went from {value} to {now.get(key)}"
                for key, value in last.items()
                if key not in now or now[key] < value
            ]
            since = page.since()
            self.faults += [
                f"{key} is measured since {since.get(key)}, not {value}"
                for key, value in self.pages[-1].since().items()
                if since.get(key) != value
            ]
        self.pages.append(page)


def _sampled(page: Page) -> float:
    return float(page.by("jobwatt_last_sample_timestamp_seconds")[()])


def kept_joules(state: Path) -> dict[tuple[str, ...], Decimal]:
    """Energy of devices and jobs as a state on disk has it: looked at in a copy."""
    with tempfile.TemporaryDirectory() as folder:
        for path in state.glob("state.sqlite*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, folder)
        store = Store(Path(folder))
        rows = store.rows
        store.close()
    names = {index: rows[f"device {index}"][0] for index, *_ in rows.get("devices", ())}
    kept = {("device", names[index]): uj for index, uj, *_ in rows.get("devices", ())}
    for number, _, _, _, *energy_uj in rows.get("jobs", ()):
        job_uid = rows[f"job {number}"][0]
        kept |= {(job_uid, names[index]): uj for index, uj in enumerate(energy_uj)}
    return {key: Decimal(uj) / 1_000_000 for key, uj in kept.items()}


def shown_joules(page: Page) -> dict[tuple[str, ...], Decimal]:
    """The same as a page showed it."""
    devices = page.by("jobwatt_device_energy_joules_total", "device")
    jobs = page.by("jobwatt_job_energy_joules_total", "job_uid", "device")
    return {("device", *key): uj for key, uj in devices.items()} | jobs


@pytest.fixture
def options(tmp_path: Path) -> Iterator[list[str | Path]]:
    """Options for a machine whose counters tick."""
    config = tmp_path / "jobwatt.yml"
    idle = {zone.device: zone.idle_watts for zone in ZONES}
    config.write_text(yaml.safe_dump({"idle_power": idle, "process": {"min_joules": 1}}))
    with Ticker(tmp_path / "sys") as ticker:
        yield [
            f"--config.file={config}",
            f"--path.sysfs={ticker.sysfs}",
            "--path.cgroupfs=/sys/fs/cgroup",
            "--dram.policy=cpu",
            f"--sample.interval={INTERVAL}s",
        ]


@contextlib.contextmanager
def job(name: str, code: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that declares a job."""
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, env={"JOBWATT_JOB": name}) as process:
        yield process
        process.kill()


@contextlib.contextmanager
def pod(uid: str, code: str) -> Iterator[None]:
    """A process in a pod's cgroup."""
    top = Path("/sys/fs/cgroup/unified") / f"jobwatt-test-{secrets.token_hex(4)}"
    folder = top / "kubepods" / f"pod{uid}"
    folder.mkdir(parents=True)
    try:
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
            (folder / "cgroup.procs").write_text(str(process.pid))
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            yield
            process.kill()
        eventually(lambda: not (folder / "cgroup.procs").read_text(), 5, "an empty cgroup")
    finally:
        for path in (folder, folder.parent, top):
            path.rmdir()


def test_an_exporter_that_is_killed_20_times_has_the_accounts_of_one_that_is_not(
    tmp_path: Path, options: list[str | Path]
) -> None:
    """Within one sample's energy; every page of both is exact, and no total ever goes back."""
    steady, killed = Watched("steady", tmp_path, options), Watched("killed", tmp_path, options)
    with contextlib.ExitStack() as stack:
        for exporter in (steady, killed):
            stack.callback(exporter.close)
            exporter.start()
        for exporter in (steady, killed):
            exporter.wait_until_ready()
        begun = steady.page(), killed.page()
        with job("brief", BRIEF) as brief:
            brief.wait(30)
        ended = steady.page(), killed.page()
        with (
            job("steady", STEADY),
            job("even", IN_TURN, "0"),
            job("odd", IN_TURN, "1"),
            pod(POD, BRIEF_CHILDREN),
        ):
            chance = random.Random(20)  # noqa: S311 - for the same kills each time
            time.sleep(2 * INTERVAL)
            for _ in range(KILLS):
                killed.kill()
                # What the last page showed is in the state.
                shown, kept = shown_joules(killed.pages[-1]), kept_joules(killed.state)
                assert {key: uj for key, uj in shown.items() if kept[key] < uj} == {}
                time.sleep(chance.uniform(0, MOST_DOWN))
                killed.start()
                time.sleep(chance.uniform(0, MOST_UP))
            killed.wait_until_ready()
            time.sleep(2 * INTERVAL)
        last = steady.page(), killed.page()

    assert (steady.faults, killed.faults) == ([], [])
    assert "level=warning" not in killed.log
    for zone in (PACKAGE, DRAM):
        watts = zone.joules_per_busy_second
        sample = (zone.idle_watts + watts * (os.cpu_count() or 1)) * INTERVAL
        one, other = gained(begun, last, "device", zone.device)
        assert one == pytest.approx(other, abs=sample)
        for name in ("run:brief", "run:steady", "run:even", "run:odd", f"k8s:{POD}"):
            one, other = gained(begun, last, name, zone.device)
            assert one == pytest.approx(other, abs=watts * INTERVAL), name
        # What has ended before is left alone.
        assert gained(ended, last, "run:brief", zone.device)[1] == 0


def gained(then: Sequence[Page], now: Sequence[Page], *key: str) -> tuple[float, float]:
    """What a device or a job has got between two pages, in both exporters."""
    a, b = (
        float(shown_joules(page)[key] - shown_joules(before).get(key, Decimal(0)))
        for before, page in zip(then, now, strict=True)
    )
    return a, b


def test_a_process_that_is_alone_on_a_gpu_pays_for_the_time_without_an_exporter(
    tmp_path: Path,
) -> None:
    """All that its GPU drew above idle, over three kills; nothing is nobody's."""
    gpu, idle_watts, watts = "GPU-00000000-0000-0000-0000-000000000100", 70.0, 370.0
    config = tmp_path / "jobwatt.yml"
    config.write_text(yaml.safe_dump({"idle_power": {"GPU-*": idle_watts}}))
    with contextlib.ExitStack() as stack:
        training = stack.enter_context(job("training", "import time; time.sleep(600)"))
        gpus = [Gpu(uuid=gpu, power_mw=0, processes=(GpuProcess(training.pid, sm=90),))]
        driver = FakeNvml(tmp_path / "driver", gpus, virtual=False)
        stack.callback(driver.release)
        options = [f"--config.file={config}", f"--sample.interval={INTERVAL}s"]
        exporter = Watched("exporter", tmp_path, options, driver.environment({}))
        stack.callback(exporter.close)
        exporter.start()
        exporter.wait_until_ready()
        driver.set_power(0, round(watts * 1000))
        time.sleep(4 * INTERVAL)
        for _ in range(3):
            exporter.kill()
            time.sleep(2)
            exporter.start()
            exporter.wait_until_ready()
            time.sleep(4 * INTERVAL)
        page = exporter.page()
    of_job = shown_joules(page)["run:training", gpu]
    measured = page.by("jobwatt_device_energy_joules_total", "device")[(gpu,)]
    idle = page.by("jobwatt_device_idle_energy_joules_total", "device")[(gpu,)]
    held = page.by("jobwatt_job_gpu_idle_energy_joules_total", "job_uid")[("run:training",)]
    assert exporter.faults == []
    assert measured > watts * 3 * 2
    assert of_job == measured - idle
    assert held == idle
