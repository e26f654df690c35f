"""`jobwatt run` with a real exporter on counters that tick with this machine's real load.

Each CPU second costs what `fakes.ticker` says, so a command's energy is known from its CPU time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from fakes.ticker import DRAM, PACKAGE, ZONES, Ticker
from jobwatt import app
from jobwatt.config import Config
from servers import JOBWATT, answers, eventually, free_port, get, running

pytestmark = pytest.mark.stack

INTERVAL = 0.5
TOLERANCE = 0.05

BURN = """
import sys, time
end = time.process_time() + float(sys.argv[1])
while time.process_time() < end: pass
"""
BURSTS = 'for i in $(seq 30); do timeout 0.03 sh -c "while :; do :; done"; done; true'
DAEMON = f"""
import os, subprocess, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-c", {BURN!r}, "3"])
    os._exit(0)
os.wait()
"""


def may_make_cgroups() -> bool:
    """Whether this user may make cgroups here."""
    made = app.run_cgroup(Config(), f"try-{os.getpid()}")
    if made is not None:
        made.remove()
    return made is not None


@pytest.fixture(scope="module")
def ticker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ticker]:
    """Counters that tick."""
    with Ticker(tmp_path_factory.mktemp("fake") / "sys") as ticker:
        yield ticker


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, ticker: Ticker) -> list[str | Path]:
    """Options of the exporter and of the command: the same machine."""
    config = tmp_path_factory.mktemp("settings") / "jobwatt.yml"
    idle = {zone.device: zone.idle_watts for zone in ZONES}
    config.write_text(yaml.safe_dump({"idle_power": idle}))
    return [
        f"--config.file={config}",
        f"--path.sysfs={ticker.sysfs}",
        "--path.cgroupfs=/sys/fs/cgroup",
        "--dram.policy=cpu",
        f"--sample.interval={INTERVAL}s",
    ]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, options: list[str | Path]) -> Iterator[str]:
    """An exporter."""
    folder = tmp_path_factory.mktemp("site")
    address = f"127.0.0.1:{free_port()}"
    command: list[str | Path] = [JOBWATT, "serve", *options]
    command += [f"--state.directory={folder / 'state'}", f"--web.listen-address={address}"]
    with running(command, folder / "exporter.log"):
        eventually(lambda: answers(f"http://{address}/-/ready"), 20, "the exporter is not ready")
        time.sleep(2 * INTERVAL)
        yield f"http://{address}"


def receipt_of(
    url: str, options: list[str | Path], output: Path, *command: str | Path
) -> dict[str, Any]:
    """Run a command; what it has cost."""
    subprocess.run(
        [JOBWATT, "run", *options, f"--exporter={url}", "--json", f"--output={output}", *command],
        check=True,
        timeout=60,
        stderr=subprocess.DEVNULL,
    )
    receipt: dict[str, Any] = json.loads(output.read_text())
    return receipt


def assert_right(receipt: dict[str, Any], cpu_seconds: float) -> None:
    """The energy is what the CPU time costs, within the tolerance."""
    expected = {
        "cpu": PACKAGE.joules_per_busy_second * cpu_seconds,
        "dram": DRAM.joules_per_busy_second * cpu_seconds,
    }
    assert receipt["components"] == pytest.approx(expected, rel=TOLERANCE)
    assert receipt["energy_joules"] == pytest.approx(sum(expected.values()), rel=TOLERANCE)
    assert receipt["sources"] == pytest.approx({"rapl": receipt["energy_joules"]})
    assert receipt["measured_ratio"] == 1.0


def test_receipt_is_what_the_command_used(
    url: str, options: list[str | Path], tmp_path: Path
) -> None:
    """Of a machine on which others are busy, too; the exporter's page has the same job."""
    with subprocess.Popen(["timeout", "60", sys.executable, "-c", "while True: pass"]) as other:
        receipt = receipt_of(
            url, options, tmp_path / "r.json", "--name=burn", sys.executable, "-c", BURN, "4"
        )
        other.terminate()

    assert receipt["cpu_seconds_used"] == pytest.approx(4, abs=0.3)
    assert_right(receipt, receipt["cpu_seconds_used"])
    assert receipt["measured_by"] == "exporter"
    assert receipt["coverage"]["ratio"] == pytest.approx(1, abs=0.001)
    assert receipt["coverage"]["missing"] == receipt["notes"] == []
    assert not receipt["coverage"]["still_running"]
    page = get(f"{url}/metrics")[1].decode()
    assert f'jobwatt_job_cpu_seconds_total{{job_uid="{receipt["job_uid"]}"}}' in page


def test_without_an_exporter(options: list[str | Path], tmp_path: Path) -> None:
    """The command measures by itself, and says so."""
    receipt = receipt_of(
        "http://127.0.0.1:1", options, tmp_path / "r.json", sys.executable, "-c", BURN, "2"
    )

    assert receipt["measured_by"] == "jobwatt run"
    assert_right(receipt, receipt["cpu_seconds_used"])
    assert len(receipt["coverage"]["missing"]) == 1
    assert "does not answer" in receipt["coverage"]["missing"][0]


@pytest.mark.parametrize("by", ["exporter", "itself"])
def test_bursts(url: str, options: list[str | Path], tmp_path: Path, by: str) -> None:
    """Processes that live between two samples count where the run has a cgroup of its own."""
    if not may_make_cgroups():
        pytest.skip("this user may not make cgroups")
    address = url if by == "exporter" else "http://127.0.0.1:1"

    receipt = receipt_of(address, options, tmp_path / "r.json", "sh", "-c", BURSTS)

    assert receipt["coverage"]["own_cgroup"]
    assert receipt["cpu_seconds"] == pytest.approx(receipt["cpu_seconds_used"], rel=0.02)
    # The run is a second long and the counters tick every 50 ms: one tick at each end.
    assert receipt["energy_joules"] == pytest.approx(32 * receipt["cpu_seconds_used"], rel=0.12)


def test_shorter_than_a_sample(url: str, options: list[str | Path], tmp_path: Path) -> None:
    """A command that no sample has seen is found by its cgroup."""
    if not may_make_cgroups():
        pytest.skip("this user may not make cgroups")

    receipt = receipt_of(url, options, tmp_path / "r.json", sys.executable, "-c", BURN, "0.2")

    assert receipt["cpu_seconds"] == pytest.approx(receipt["cpu_seconds_used"], rel=0.02)
    # The counters tick too seldom to say it better for so short a time.
    assert receipt["energy_joules"] == pytest.approx(32 * receipt["cpu_seconds"], rel=0.4)
    assert not receipt["coverage"]["still_running"]


def test_daemon_belongs_to_the_job(url: str, options: list[str | Path], tmp_path: Path) -> None:
    """What goes on after the command's end is told, and still counted in the exporter."""
    receipt = receipt_of(url, options, tmp_path / "r.json", sys.executable, "-c", DAEMON)

    assert receipt["coverage"]["still_running"]
    assert "still run" in receipt["notes"][0]

    def job() -> dict[str, Any]:
        told = json.loads(get(f"{url}/api/v1/status")[1])
        found: dict[str, Any] = next(j for j in told["jobs"] if j["job_uid"] == receipt["job_uid"])
        return found

    eventually(lambda: job()["cpu_seconds"] > 3, 30, "the daemon is not followed")
    time.sleep(2 * INTERVAL)
    assert job()["energy_joules"] == pytest.approx(32 * job()["cpu_seconds"], rel=TOLERANCE)


def test_no_cgroup_is_left(url: str, options: list[str | Path], tmp_path: Path) -> None:
    """Also not by a command that was killed."""
    output = tmp_path / "r.json"
    command = [JOBWATT, "run", *options, f"--exporter={url}", "--id=gone", "--json"]
    command += [f"--output={output}", "sleep", "60"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        (child,) = eventually(psutil.Process(process.pid).children, 10)
        eventually(lambda: child.name() == "sleep", 10)
        child.send_signal(signal.SIGKILL)
        assert process.wait(20) == 128 + 9

    assert json.loads(output.read_text())["signal"] == "SIGKILL"
    assert not list(Path("/sys/fs/cgroup").rglob("jobwatt-run-gone"))
