"""Whole machines: a recorded tree goes in, the page that Prometheus would see comes out.

Each folder beside this file is one machine: `sys/`, `proc/`, `etc/` and `run/` as far as JobWatt
reads them, `steps.json` for what happens on it, `metrics.prom` for its page. See README.md.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fakes.nvml import FakeNvml, GpuProcess, Instance
from fakes.nvml.profiles import H100
from jobwatt.app import host_parts, make_sampler
from jobwatt.config import Config
from jobwatt.exposition.render import Renderer
from jobwatt.host.cgroupfs import Cgroupfs
from jobwatt.meters.nvml.library import Library
from jobwatt.meters.nvml.meter import NvmlMeter
from jobwatt.meters.own_thread import OwnThread
from jobwatt.model import Report
from jobwatt.snapshot import Snapshot
from jobwatt.units import NS, UJ

HERE = Path(__file__).parent
MACHINES = sorted(path.parent.name for path in HERE.glob("*/steps.json"))

START_NS = 1000 * NS
START_WALL = 1_800_000_000.0
TICKS = 100
"""Clock ticks a second in the recorded trees."""

ALWAYS = ("device_idle", "device_unattributed")

XE_HERTZ = 19_200_000
"""The clock of Intel's xe driver, in whose cycles it tells engine time."""

_UTIME = 11
"""Field of /proc/PID/stat, counted after the name."""

Sample = tuple[str, dict[str, str], float]


class Machine:
    """A copy of a recorded machine on which time passes as its steps say.

    A step has `seconds`, how often it is repeated (`times`), and what goes on meanwhile: `watts`
    by zone; CPUs in use by CPU (`busy`), by pid (`processes`) and by cgroup (`cgroups`); and the
    zones that show nothing at its end (`unreadable`). `watts` also moves hwmon chips, `engines` the
    engine time in the fdinfo of `pid/fd`, `gpus` the fake NVML (power and SM utilisation), `files`
    sets anything else. A step of 0 seconds is the state at the start.
    """

    def __init__(self, name: str, root: Path) -> None:
        shutil.copytree(HERE / name, root, symlinks=True)
        self.root = root
        for path in (root / "run").rglob("*"):  # whatever the umask of who checked it out
            path.chmod(0o700 if path.is_dir() else 0o600)
        self.driver = make_driver(root)
        self.now_ns = START_NS
        self.steps: list[dict[str, Any]] = json.loads((root / "steps.json").read_text())
        self._zones = {path.parent.name: path for path in root.glob("sys/class/**/energy_uj")}
        self._zones |= {path.parent.name: path for path in root.glob("sys/devices/**/energy_uj")}
        self._energy = {key: int(path.read_text()) for key, path in self._zones.items()}
        if self.steps[0]["seconds"] == 0:
            self._pass(self.steps.pop(0))
        config = Config(
            path_procfs=root / "proc",
            path_sysfs=root / "sys",
            path_rootfs=root,
            state_directory=root / "state",
        )
        parts = host_parts(config)
        self.sampler = make_sampler(config, parts)
        for index, meter in enumerate(parts.meters):
            if isinstance(meter, OwnThread):
                parts.meters[index] = Direct(meter, self)  # type: ignore[index]
        self.sampler._clock = lambda: self.now_ns
        self.sampler._wall = lambda: START_WALL + (self.now_ns - START_NS) / NS

    def live(self) -> Snapshot:
        """Sample at the start and after each step; return the last snapshot."""
        snapshot = self.sampler.sample()
        for step in self.steps:
            for _ in range(step.get("times", 1)):
                snapshot = self.step(step)
        return snapshot

    def step(self, step: dict[str, Any]) -> Snapshot:
        """Let one step pass, then sample."""
        self._pass(step)
        return self.sampler.sample()

    def _pass(self, step: dict[str, Any]) -> None:
        seconds = step["seconds"]
        self.now_ns += seconds * NS
        if self.driver is not None:
            for index, does in step.get("gpus", {}).items():
                self._drive(self.driver, int(index), does)
            self.driver.advance(seconds)
        self._spend(step, seconds)
        self._work(step, seconds)
        for path, text in step.get("files", {}).items():
            (self.root / path).write_text(f"{text}\n")

    def _spend(self, step: dict[str, Any], seconds: float) -> None:
        """Move what counts energy, or shows power."""
        for key, watts in step.get("watts", {}).items():
            if key.startswith("hwmon"):
                self._add_hwmon(key, watts, seconds)
                continue
            size = int((self._zones[key].parent / "max_energy_range_uj").read_text())
            self._energy[key] = (self._energy[key] + round(watts * seconds * UJ)) % size
        for key, path in self._zones.items():
            hidden = key in step.get("unreadable", [])
            path.write_text("" if hidden else f"{self._energy[key]}\n")

    def _work(self, step: dict[str, Any], seconds: float) -> None:
        """Move what tells who was busy."""
        for cpu, cpus in step.get("busy", {}).items():
            self._add_ticks(self.root / "proc/stat", f"cpu{cpu} ".encode(), 0, cpus * seconds)
        for pid, cpus in step.get("processes", {}).items():
            self._add_ticks(self.root / f"proc/{pid}/stat", b") ", _UTIME, cpus * seconds)
        for path, cpus in step.get("cgroups", {}).items():
            self._add_usage(path, cpus * seconds)
        for client, classes in step.get("engines", {}).items():
            self._add_engines(client, classes, seconds)

    def _add_hwmon(self, chip: str, watts: float, seconds: float) -> None:
        """Show a power, and add it up where the chip has an energy counter."""
        folder = self.root / "sys/class/hwmon" / chip
        for base in (folder, folder / "device"):
            for path in base.glob("energy*_input"):
                path.write_text(f"{int(path.read_text()) + round(watts * seconds * UJ)}\n")
            if (base / "power1_average").exists():
                (base / "power1_average").write_text(f"{round(watts * UJ)}\n")

    def _add_engines(self, client: str, classes: dict[str, float], seconds: float) -> None:
        """Add engine time to a DRM client's fdinfo: nanoseconds, or cycles of a 19.2 MHz clock."""
        pid, fd = client.split("/")
        path = self.root / f"proc/{pid}/fdinfo/{fd}"
        lines = []
        for line in path.read_text().splitlines():
            key, _, value = line.partition(":\t")
            engine = key.rpartition("-")[2]
            if key == f"drm-engine-{engine}" and engine in classes:
                value = f"{int(value.split()[0]) + round(classes[engine] * seconds * NS)} ns"
            elif key == f"drm-cycles-{engine}" and engine in classes:
                value = str(int(value) + round(classes[engine] * seconds * XE_HERTZ))
            elif key == f"drm-total-cycles-{engine}":
                value = str(int(value) + round(seconds * XE_HERTZ))
            lines.append(f"{key}:\t{value}\n")
        path.write_text("".join(lines))

    @staticmethod
    def _drive(driver: FakeNvml, index: int, does: dict[str, Any]) -> None:
        """Set what a GPU draws, who starts on it, and how busy its instances are, from now on."""
        driver.set_power(index, round(does["watts"] * 1000))
        for pid, facts in does.get("starts", {}).items():
            instance, memory = facts.get("instance"), facts["mib"] << 20
            process = GpuProcess(int(pid), memory_bytes=memory, sm=facts["sm"], instance=instance)
            driver.start_process(index, process)
        for number, percent in does.get("instances", {}).items():
            driver.set_gpm(index, graphics=percent, sm=percent, gpu_instance=int(number))

    def _add_ticks(self, path: Path, after: bytes, field: int, seconds: float) -> None:
        """Add CPU time to a field of a stat file, counted behind the last `after`."""
        before, found, rest = path.read_bytes().rpartition(after)
        fields = rest.split(b" ")
        fields[field] = str(int(fields[field]) + round(seconds * TICKS)).encode()
        path.write_bytes(before + found + b" ".join(fields))

    def _add_usage(self, cgroup: str, seconds: float) -> None:
        """Add CPU time to a cgroup and all above it."""
        root = self.root / "sys/fs/cgroup"
        folder = root / cgroup
        while folder != root.parent:
            path = folder / "cpu.stat"
            first, *others = path.read_text().splitlines(keepends=True)
            usage = int(first.split()[1]) + round(seconds * UJ)
            path.write_text(f"usage_usec {usage}\n{''.join(others)}")
            folder = folder.parent


class Direct:
    """A blocking meter without its thread, on the machine's clock."""

    def __init__(self, own_thread: OwnThread, machine: Machine) -> None:
        self._meter = cast("Any", own_thread._meter)
        self._meter._clock = lambda: machine.now_ns
        self._meter._wall = lambda: round(START_WALL * NS) + machine.now_ns - START_NS
        driver = machine.driver
        if isinstance(self._meter, NvmlMeter):
            self._meter._foreign = False
            soname = "no-such-library.so" if driver is None else str(driver.library)
            self._meter._library = Library(soname)

    def read(self, now_ns: int) -> Sequence[Report]:
        """Read on the spot."""
        del now_ns
        reports: Sequence[Report] = self._meter.read()
        return reports


def make_driver(root: Path) -> FakeNvml | None:
    """Return the fake driver that `nvml.json` describes: GPUs by profile, with MIG instances."""
    if not (root / "nvml.json").exists():
        return None
    gpus = []
    for facts in json.loads((root / "nvml.json").read_text()):
        instances = tuple(Instance(**instance) for instance in facts.pop("instances", ()))
        if instances:
            facts["instances"] = instances
        gpus.append(replace(H100.idle, refresh_ms=0, processes=(), **facts))
    folder = root / "driver"
    folder.mkdir()
    return FakeNvml(folder, gpus)


@pytest.fixture
def machine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    """Return the machine that the test names, its `denied` files unreadable."""
    name = request.param
    assert isinstance(name, str)
    deny(tmp_path / name, HERE / name / "denied", monkeypatch)
    # On the machine its cgroups are root's, here they are the tester's.
    monkeypatch.setattr(Cgroupfs, "read_owner", lambda *_: 0)
    machine = Machine(name, tmp_path / name)
    with machine.driver.installed() if machine.driver else contextlib.nullcontext():
        yield machine


def deny(root: Path, names: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let opening the files that `names` lists fail as it does for a user without the right.

    root may open everything, whatever a file's mode says, so the mode alone would show nothing.
    """
    if not names.exists():
        return
    denied = {f"{root}/{line}" for line in names.read_text().splitlines()}
    really_open = os.open

    def guarded(path: Any, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401 - as os.open has it
        if os.path.realpath(path) in denied:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return really_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", guarded)


def rendered(snapshot: Snapshot) -> str:
    """Return the page as Prometheus would get it."""
    body, _ = Renderer().render(snapshot, "", "")
    return body.decode()


def lasting(page: str) -> str:
    """Return a page without what differs from run to run, and from release to release.

    Left out: the samples (not the HELP and TYPE) of `process_*`, the exporter's own CPU time,
    memory and start; of `jobwatt_sample_duration_seconds`; of `jobwatt_build_info`; and of the
    jobs' start, which is told by the clock of the machine that runs the tests.
    """
    passing = (
        "process_",
        "jobwatt_sample_duration_seconds ",
        "jobwatt_build_info{",
        "jobwatt_job_start_timestamp_seconds{",
    )
    return "".join(line for line in page.splitlines(keepends=True) if not line.startswith(passing))


def samples_of(page: str) -> Iterator[Sample]:
    """Return name, labels and value of every sample on a page."""
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def microjoules(page: str, names: set[str], labels: dict[str, str] | None = None) -> dict[str, int]:
    """Return the sum of the named energy counters by device, of those with these labels."""
    sums: dict[str, int] = {}
    for name, has, value in samples_of(page):
        if name in names and (labels or {}).items() <= has.items():
            sums[has["device"]] = sums.get(has["device"], 0) + round(value * UJ)
    return sums


def test_every_machine_is_whole() -> None:
    """Each folder has a page, steps, and words on what it is."""
    wanted = {"README.md", "metrics.prom", "steps.json"}
    folders = [path for path in HERE.iterdir() if (path / "sys").is_dir()]
    missing = {path.name: wanted - {file.name for file in path.iterdir()} for path in folders}
    assert missing == {name: set() for name in MACHINES}


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
def test_the_page_is_the_golden_one(machine: Machine, request: pytest.FixtureRequest) -> None:
    """The machine's page is the one that was read and approved."""
    golden = HERE / machine.root.name / "metrics.prom"
    actual = lasting(rendered(machine.live()))
    if request.config.getoption("--update-golden"):
        golden.write_text(actual, encoding="utf-8")
    assert golden.read_text(encoding="utf-8").splitlines() == actual.splitlines()


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
def test_promtool_has_no_complaint(machine: Machine) -> None:
    """Every page passes `promtool check metrics`."""
    page = rendered(machine.live())
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
def test_the_identity_of_the_page_holds(machine: Machine) -> None:
    """Every device's energy is processes, or jobs, + retired + idle + unattributed, exactly."""
    page = rendered(machine.live())
    energy = microjoules(page, {"jobwatt_device_energy_joules_total"})
    levels = {"process": ("process", "process_other"), "job": ("job",)}
    for level, names in levels.items():
        parts = {f"jobwatt_{n}_energy_joules_total" for n in (*names, *ALWAYS)}
        retired = microjoules(page, {"jobwatt_retired_energy_joules_total"}, {"level": level})
        divided = microjoules(page, parts)
        assert {device: divided[device] + retired[device] for device in divided} == energy


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
def test_a_second_scrape_sees_the_same(machine: Machine) -> None:
    """A scrape changes nothing: two of them get the same page."""
    snapshot = machine.live()
    assert rendered(snapshot) == rendered(snapshot)


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
def test_accounts_are_the_sum_of_their_jobs(machine: Machine) -> None:
    """Each job is in one account, by the microjoule."""
    page = rendered(machine.live())
    sums = [
        sum(round(value * UJ) for name, _, value in samples_of(page) if name == metric)
        for metric in ("jobwatt_account_energy_joules_total", "jobwatt_job_energy_joules_total")
    ]
    assert sums[0] == sums[1]


@pytest.mark.parametrize("machine", ["slurm-node"], indirect=True)
def test_a_prolog_tells_when_a_job_started(machine: Machine) -> None:
    """Its scheduler's time, not that of its first process."""
    page = rendered(machine.live())
    starts = {
        labels["job_uid"]: value
        for name, labels, value in samples_of(page)
        if name == "jobwatt_job_start_timestamp_seconds"
    }
    assert starts["slurm:4711:r1"] == START_WALL - 10
    assert starts["slurm:4712"] != START_WALL - 10


@pytest.mark.parametrize("machine", ["one-zone-failing"], indirect=True)
def test_a_device_that_was_never_read_has_no_energy(machine: Machine) -> None:
    """A zone that never answered is no device with 0 J: its energy is absent."""
    energy = microjoules(rendered(machine.live()), {"jobwatt_device_energy_joules_total"})
    assert energy == {"package-0": 490_000_000, "dram-0": 63_000_000, "dram-1": 56_000_000}


@pytest.mark.parametrize("machine", ["permission-denied"], indirect=True)
def test_an_estimate_is_never_called_measured(machine: Machine) -> None:
    """What is estimated because RAPL is denied says so on every sample of it."""
    page = rendered(machine.live())
    with_device = [labels for _, labels, _ in samples_of(page) if "device" in labels]
    sources = {labels["source"] for labels in with_device if "source" in labels}
    assert sources == {"estimate"}


@pytest.mark.parametrize("machine", ["permission-denied"], indirect=True)
def test_a_package_is_estimated_or_measured_never_both(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once RAPL may be read after all, the package's energy is RAPL's alone."""
    machine.live()
    monkeypatch.undo()
    quiet = {"seconds": 1, "watts": {"intel-rapl:0": 80.0}}
    pages = [rendered(machine.step(quiet)) for _ in range(10)]
    energy = {"jobwatt_device_energy_joules_total"}
    for source, joules in (("rapl", 400), ("estimate", 0)):
        before, after = (microjoules(page, energy, {"source": source}) for page in pages[4::5])
        assert after["package-0"] - before["package-0"] == joules * UJ


@pytest.mark.parametrize("machine", ["permission-denied"], indirect=True)
def test_an_estimate_loses_nothing(machine: Machine) -> None:
    """What is estimated adds up over the samples, also while RAPL is there and denied."""
    energy = microjoules(rendered(machine.live()), {"jobwatt_device_energy_joules_total"})
    watts = 120 * (0.74 / 3.5 + (1 - 0.74 / 3.5) / 2)
    assert energy == {"package-0": pytest.approx(4 * watts * UJ, abs=4)}
