"""The way from an exporter to an alert, on real servers: tools/stack.py over a made-up node."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fakes.webhook import Webhook
from servers import ROOT, Prometheus, answers, eventually, free_port, prometheus3

pytestmark = pytest.mark.stack

STACK = ROOT / "tools/stack.py"
DASHBOARD = ROOT / "grafana/dashboards/node.json"
READY_SECONDS = 60
DATA_SECONDS = 40
ALERT_SECONDS = 40
STOP_SECONDS = 20

FAST = ["--scrape-interval=1s", "--evaluation-interval=1s", "--for=2s"]


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """A receiver of alerts."""
    with Webhook() as server:
        yield server


class Stack:
    """A running tools/stack.py on free ports."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        ports = {name: free_port() for name in ("exporter", "grid", "prometheus", "alertmanager")}
        self.url = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        command = [sys.executable, str(STACK), f"--folder={folder / 'stack'}"]
        command += [f"--{name}-port={port}" for name, port in ports.items()]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen([*command, *arguments], stdout=out, stderr=err)
        self._seen: list[psutil.Process] = []

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_until_ready(self) -> None:
        """Return once it has printed its addresses."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self.err
            return "Ctrl-C" in self.out

        eventually(is_ready, READY_SECONDS, "the stack is not ready")
        self._seen = psutil.Process(self.process.pid).children(recursive=True)

    def server(self, name: str) -> psutil.Process:
        """The process of a server, known by its command line."""
        (found,) = [p for p in self._seen if any(name in word for word in p.cmdline()[:3])]
        return found

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(STOP_SECONDS)

    def left_over(self) -> list[psutil.Process]:
        """Its servers that still run."""
        return [process for process in self._seen if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    """Whether it still does something: who adopts it may be slow to bury it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def running_stack(folder: Path, *arguments: str) -> Iterator[Stack]:
    """A stack, ended in the end whatever happens."""
    stack = Stack(folder, *arguments)
    try:
        yield stack
    finally:
        if stack.process.poll() is None:
            stack.process.terminate()
            stack.wait()


def expressions(panels: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Title and expression of every query of a dashboard, also within rows."""
    for panel in panels:
        for target in panel.get("targets", ()):
            if "expr" in target:
                yield panel["title"], target["expr"]
        yield from expressions(panel.get("panels", ()))


def filled_in(expr: str, instance: str) -> str:
    """An expression as Grafana would send it."""
    values = {
        "__rate_interval": "10s",
        "__interval": "5s",
        "__range": "30s",
        "cluster": ".*",
        "instance": instance,
    }
    filled = re.sub(r"\$(\w+)|\$\{(\w+)\}", lambda m: values[m[1] or m[2]], expr)
    assert "$" not in filled
    return filled


@pytest.mark.parametrize("version", ["2", "3"])
def test_from_the_exporter_to_the_alert(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """Rules and dashboards have data; an exporter that is killed is told of; nothing stays."""
    program = "prometheus" if version == "2" else str(prometheus3() / "prometheus")
    # The made-up node's idle power is learned within a minute; that is longer than we wait.
    config = tmp_path / "jobwatt.yml"
    config.write_text('idle_power: {"*": 5}')
    monkeypatch.setenv("JOBWATT_CONFIG_FILE", str(config))
    with running_stack(
        tmp_path,
        "--simulate=two-socket-server",
        "--keep-going",
        f"--webhook={webhook.url}",
        f"--prometheus={program}",
        *FAST,
    ) as stack:
        stack.wait_until_ready()
        for url in stack.url.values():
            assert url in stack.out
            assert answers(f"{url}/-/ready")
        prometheus = Prometheus(stack.url["prometheus"])
        assert prometheus.get("status/buildinfo")["version"].startswith(f"{version}.")
        instance = stack.url["exporter"].removeprefix("http://")
        assert_rules_have_data(prometheus, instance)
        assert_dashboard_has_data(prometheus, instance)
        assert webhook.firing(alertname="JobWattExporterDown", instance=instance) is None

        stack.server("simulate").kill()
        alert = eventually(
            lambda: webhook.firing(alertname="JobWattExporterDown", instance=instance),
            ALERT_SECONDS,
            "no alert has arrived",
        )
        assert alert is not None
        assert alert["labels"]["severity"] == "warning"
        assert alert["annotations"]["summary"] == "A JobWatt exporter cannot be scraped."
        assert instance in alert["annotations"]["description"]
        assert alert["annotations"]["runbook_url"].endswith("/JobWattExporterDown.md")
        assert "exporter was killed by SIGKILL" in stack.err

        stack.process.terminate()
        assert stack.wait() == 0
        assert stack.left_over() == []


# A made-up node has no estimate, budgets, accounts or held GPUs; its zone has no price.
HAVE_DATA = (
    "account:jobwatt_account_energy_joules:delta",
    "cluster:jobwatt_device_power_watts",
    "grid_zone:jobwatt_carbon_intensity_grams_per_kwh",
    "job_uid:jobwatt_job_carbon_grams:delta",
    "job_uid:jobwatt_job_cpu_seconds:delta",
    "job_uid:jobwatt_job_full_energy_joules:delta",
    "job_uid:jobwatt_job_info:names",
    "job_uid:jobwatt_job_power_watts",
    "user:jobwatt_job_energy_joules:delta",
)


def assert_rules_have_data(prometheus: Prometheus, instance: str) -> None:
    """Every rule is evaluated without an error, and what can be recorded of this node is there."""
    for name in HAVE_DATA:
        eventually(lambda name=name: prometheus.query(name), DATA_SECONDS, f"{name} has no data")  # type: ignore[misc]
    groups = prometheus.get("rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    power = prometheus.value(
        f'sum(instance:jobwatt_device_power_watts{{instance="{instance}"}})'
        " / sum(cluster:jobwatt_device_power_watts)"
    )
    assert power == pytest.approx(1)


def assert_dashboard_has_data(prometheus: Prometheus, instance: str) -> None:
    """No panel of the node's dashboard is empty on a healthy node."""
    pending = {
        (title, filled_in(expr, instance))
        for title, expr in expressions(json.loads(DASHBOARD.read_text())["panels"])
    }
    assert pending
    deadline = time.monotonic() + DATA_SECONDS
    while pending and time.monotonic() < deadline:
        pending = {(title, expr) for title, expr in pending if not prometheus.query(expr)}
        time.sleep(0.5)
    assert sorted(pending) == []


def test_a_server_that_ends_stops_the_stack(tmp_path: Path) -> None:
    """It says which and why, with the end of its log, and leaves nothing behind."""
    with running_stack(tmp_path, "--simulate=laptop") as stack:
        stack.wait_until_ready()
        stack.server("alertmanager").kill()
        assert stack.wait() == 1
        assert "alertmanager was killed by SIGKILL; the end of " in stack.err
        assert "Listening on" in stack.err
        assert stack.left_over() == []


def test_a_server_that_does_not_start_stops_the_stack(tmp_path: Path) -> None:
    """Before anybody waits for it."""
    with running_stack(tmp_path, "--simulate=nowhere") as stack:
        assert stack.wait() == 1
        assert "exporter ended with 2" in stack.err
        assert "'nowhere' is not one of" in stack.err


def test_a_zone_that_the_grid_exporter_lacks_is_told(tmp_path: Path) -> None:
    """With those that it has, before anything is started: its carbon would be missing."""
    with running_stack(tmp_path, "--grid-zone=FR") as stack:
        assert stack.wait() == 1
        assert stack.err == (
            "--grid-zone FR is not in deploy/docker/grid/zones.yml, which has WORLD: choose one of "
            "them, or add FR there\n"
        )
        assert not (tmp_path / "stack").exists()


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    """With the flag that takes another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with running_stack(tmp_path, f"--prometheus-port={port}") as stack:
            assert stack.wait() == 1
            assert f"port {port} cannot be had" in stack.err
            assert "--prometheus-port" in stack.err


def test_a_folder_has_one_stack(tmp_path: Path) -> None:
    """The second would write into the first one's data: it is told the way out, and ends."""
    folder = tmp_path / "stack"
    folder.mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with running_stack(tmp_path) as stack:
            assert stack.wait() == 1
            assert f"another stack runs in {folder}" in stack.err
            assert "--folder" in stack.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_stack(tmp_path: Path, number: signal.Signals) -> None:
    """Neither by Ctrl-C, nor where it has no chance to clean up; it measures this machine."""
    with running_stack(tmp_path) as stack:
        stack.wait_until_ready()
        assert answers(f"{stack.url['exporter']}/metrics")
        stack.process.send_signal(number)
        assert stack.wait() == (0 if number == signal.SIGINT else -signal.SIGKILL)
        eventually(lambda: not stack.left_over(), STOP_SECONDS, "a server outlives the stack")
