"""The page in a real browser, below a path prefix, under its own content security policy."""

from __future__ import annotations

import copy
import json
import math
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from jobwatt.cli.top_jobs import span_text
from jobwatt.exposition.page import CONTENT_SECURITY_POLICY, page

pytestmark = pytest.mark.stack

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--force-prefers-reduced-motion",
]
PREFIX = "/node-7/"
HOSTILE = '<script>alert(1)</script>"\n'
COMMANDS = [
    ("python", "alice", "slurm:48213", 148.2, 1_912_000.0),
    ("python", "alice", "slurm:48213", 146.9, 1_893_500.5),
    ("pt_data_worker", "alice", "slurm:48213", 12.4, 88_100.0),
    (HOSTILE, "mallory", "session:mallory", 9.61, 1_200.0),
    (
        "gmx",
        "bob",
        "k8s:chem-group/Job/md-relax-300k:0d2c6a0e-6f4c-4f1e-9d4a-9f1f6b1b1e55",
        7.8,
        310_000.0,
    ),
    ("java", "svc-kafka", "systemd:kafka.service", 3.11, 640_000.0),
    ("kworker/u128:3", "root", "system", 0.92, 912.0),
    ("dockerd", "root", "systemd:docker.service", 0.61, 24_500.0),
    ("prometheus", "prom", "systemd:prometheus.service", 0.44, 51_000.0),
    ("sshd", "root", "systemd:ssh.service", 0.08, 410.0),
    ("jobwatt", "jobwatt", "systemd:jobwatt.service", 0.02, 96.0),
    ("cron", "root", "systemd:cron.service", 0.0, 33.1),
]


def made_up_status(*, source: str = "rapl", points: int = 150) -> dict[str, Any]:
    """A server of two sockets with DRAM, twelve processes, and a history of some minutes."""
    now = time.time()
    devices = []
    history: dict[str, list[float | None]] = {}
    for component, number, idle, busy, limit in (
        ("cpu", 0, 41.3, 128.0, 205.0),
        ("cpu", 1, 39.8, 61.0, 205.0),
        ("dram", 0, 9.1, 14.0, None),
        ("dram", 1, 8.7, 6.0, 28.5),
    ):
        name = f"{'package' if component == 'cpu' else 'dram'}-{number}"
        history[name] = [
            idle
            + busy
            * (0.72 + 0.2 * math.sin(i / 11 + number) + 0.06 * math.sin(i * 1.7 + number))
            * (1 if i > 40 + 10 * number else 0.25)
            for i in range(points)
        ]
        devices.append(
            {
                "component": component,
                "device": name,
                "source": source,
                "model": "Intel(R) Xeon(R) Gold 6248 CPU @ 2.50GHz" if component == "cpu" else "",
                "power_watts": history[name][-1] if points else idle + busy,
                "limit_watts": limit,
                "idle_watts": idle,
                "idle_method": "observed" if number else "fitted",
                "energy_joules": 3_412_345.678901 * (1 + number) / (1 if component == "cpu" else 9),
                "idle_joules": 1_412_345.0 * (1 + number) / (1 if component == "cpu" else 9),
                "unattributed_joules": 12_345.0,
                "other_joules": 201_000.0,
                "retired_joules": 0.0,
                "gap_seconds": 0.0,
            }
        )
    processes = [
        {
            "pid": 48_000 + 37 * number,
            "comm": comm,
            "user": user,
            "job_uid": job_uid,
            "power_watts": power,
            "energy_joules": energy,
            "components": {"cpu": energy * 0.91, "dram": energy * 0.09},
        }
        for number, (comm, user, job_uid, power, energy) in enumerate(COMMANDS)
    ]
    return {
        "version": "0.1.0",
        "time": now,
        "interval": 1.0,
        "started": now - 93_000,
        "node": {
            "cpus": 80,
            "grid_zone": "FR",
            "cpu_time_method": "cpu_clock",
            "processes": 812,
        },
        "sources": [{"source": source, "up": True, "errors": {"failed": 2}}],
        "devices": devices,
        "processes": processes,
        "health": {
            "sample_seconds": 0.00142,
            "samples_missed": 3,
            "cpu_seconds": 132.0,
            "cpu_ratio": 0.00142,
            "resident_bytes": 33_400_000,
            "checkpoint": now - 4,
            "series": 14,
            "series_dropped": {},
        },
        "history": {
            "times": [now - 2 * (points - 1 - i) for i in range(points)],
            "devices": history,
        },
    }


GIB = 2**30
JOB = "k8s:chem-group/Job/md-relax-300k:0d2c6a0e-6f4c-4f1e-9d4a-9f1f6b1b1e55"
PARTS: list[dict[str, Any]] = [
    {"uuid": f"MIG-{n:08x}-0000-5000-8000-000000000000", "name": name, "pids": pids}
    | {"memory_used_bytes": used, "energy_joules": 5_000.0 * n}
    for n, name, pids, used in ((1, "1g.10gb", [48_037], 3 * GIB), (2, "2g.20gb", [], 0))
]
GPUS: list[dict[str, Any]] = [
    {"throttled": ["sw_power_cap"], "power_watts": 698.0, "temperature_celsius": 71.0},
    {"holders": [{"job_uid": HOSTILE, "pids": [48_111]}]},
    {"holders": [{"job_uid": f"slurm:{n}", "pids": [n, n + 9]} for n in range(5)], "contexts": 10},
    {"utilization_ratio": 0.0, "power_watts": 70.4, "holders": [{"job_uid": JOB, "pids": [1]}]},
    {"utilization_ratio": 0.0, "power_watts": 69.0, "holders": [], "contexts": 0},
    {"holders": [], "contexts": 2},
    {
        "instances": PARTS,
        "utilization_ratio": None,
        "holders": [{"job_uid": "slurm:48213", "pids": [48_037]}],
    },
    dict.fromkeys(
        (
            *("power_watts", "limit_watts", "utilization_ratio", "memory_used_bytes"),
            *("temperature_celsius", "throttled", "contexts", "holders", "instances"),
        )
    ),
]
"""Of eight GPUs: throttled, with a hostile name, crowded, held but idle, free, used by unseen
processes, divided by MIG, not answering."""


def with_gpus(status: dict[str, Any]) -> dict[str, Any]:
    """The same node with eight GPUs; the first process has a context on the first."""
    times = status["history"]["times"]
    for index, changes in enumerate(GPUS):
        uuid = f"GPU-{0x51431193 * (index + 1) % 2**32:08x}-9bca-4e51-87a4-2f7f13df02a1"
        gpu = copy.deepcopy(status["devices"][0]) | {
            "component": "gpu",
            "device": uuid,
            "source": "nvml_energy",
            "model": "NVIDIA H100 80GB HBM3",
            "power_watts": 612.0,
            "limit_watts": 700.0,
            "idle_watts": 69.8,
            "index": index,
            "uuid": uuid,
            "pci_bus_id": f"0000:{0x1B + 16 * index:02x}:00.0",
            "driver": "590.48.01",
            "architecture": "Hopper",
            "utilization_ratio": 0.97,
            "memory_used_bytes": 71 * GIB,
            "memory_total_bytes": 80 * GIB,
            "temperature_celsius": 57.0,
            "throttled": [],
            "contexts": 1,
            "holders": [{"job_uid": "slurm:48213", "pids": [48_000]}],
            "methods": {"exclusive": 1_000.0},
            "instances": [],
        }
        status["devices"].append(gpu | changes)
        status["history"]["devices"][uuid] = [
            None if index == 7 and at > 90 else 70 + (0 if index in {3, 4} else 540 * (at > 30))
            for at in range(len(times))
        ]
    for process in status["processes"][:3]:
        joules = process["energy_joules"]
        process["components"] = {"cpu": joules * 0.02, "dram": 0.0, "gpu": joules * 0.98}
    return status


class Node(ThreadingHTTPServer):
    """Serves the page and whatever status it was given last."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status: dict[str, Any] | int = made_up_status()
        self.url = f"http://127.0.0.1:{self.server_port}{PREFIX}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that hangs up is no failure."""


class _Handler(BaseHTTPRequestHandler):
    server: Node

    def do_GET(self) -> None:
        if self.path == PREFIX:
            headers = {
                "Content-Type": "text/html; charset=utf-8",
                "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            }
            self._answer(200, page(), headers)
        elif self.path == f"{PREFIX}api/v1/status" and not isinstance(self.server.status, int):
            body = json.dumps(self.server.status).encode()
            self._answer(200, body, {"Content-Type": "application/json"})
        else:
            self._answer(
                self.server.status if isinstance(self.server.status, int) else 404, b"", {}
            )

    def _answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def node() -> Iterator[Node]:
    """A server with a page and a made-up status."""
    with Node() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    if not CHROMIUM.exists():
        pytest.skip("needs /usr/bin/chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=CHROMIUM_FLAGS, env={**os.environ, "TZ": "UTC"}
        )
        yield launched
        launched.close()


class Visit:
    """An opened page, with all that went wrong in it and all that it asked for."""

    def __init__(
        self, browser: Browser, node: Node, width: int, scheme: Literal["dark", "light"]
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self.errors.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(node.url)

    def _note(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.errors.append(text)


@pytest.fixture(
    params=[(1440, "light"), (1440, "dark"), (360, "light"), (360, "dark")],
    ids=["wide-light", "wide-dark", "narrow-light", "narrow-dark"],
)
def visit(request: pytest.FixtureRequest, browser: Browser, node: Node) -> Iterator[Visit]:
    """The page in every width and colour scheme."""
    width, scheme = request.param
    visit = Visit(browser, node, width, scheme)
    yield visit
    visit.context.close()


@pytest.fixture
def wide(browser: Browser, node: Node) -> Iterator[Visit]:
    """The page on a desk."""
    visit = Visit(browser, node, 1440, "light")
    yield visit
    visit.context.close()


def shown_overflow(page: Page) -> int:
    """How many pixels the page is wider than its window."""
    excess = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert isinstance(excess, int)
    return excess


def test_everything_is_shown(visit: Visit, node: Node, tmp_path: Path) -> None:
    """Figures, devices, processes and health are there; nothing foreign is asked for."""
    page = visit.page
    expect(page.locator("#state")).to_have_text("Live")
    assert isinstance(node.status, dict)
    total = sum(device["power_watts"] for device in node.status["devices"])
    expect(page.locator("#total")).to_have_text(f"{total:.1f}\u00a0W")
    expect(page.locator("#provenance")).to_contain_text("CPU and DRAM: measured by")
    expect(page.locator("#notices")).to_be_hidden()
    expect(page.locator("#devices tbody tr")).to_have_count(4)
    expect(page.locator("#devices tbody tr").nth(0)).to_contain_text("package-0")
    expect(page.locator("#devices tbody tr").nth(0)).to_contain_text("of 205.0\u00a0W")
    expect(page.locator("#devices tbody tr").nth(2)).to_contain_text("limit not known")
    expect(page.locator("#processes tbody tr")).to_have_count(12)
    expect(page.locator("#processes tbody tr").nth(0)).to_contain_text("slurm:48213")
    expect(page.locator("#processes tbody tr").nth(3)).to_contain_text(
        '<script>alert(1)</script>"\\n'
    )
    expect(page.locator("#chart .area")).to_have_count(4)
    expect(page.locator("#sources")).to_contain_text("2 × failed")
    expect(page.locator("#health")).to_contain_text("1.42\u00a0ms")
    expect(page.get_by_role("table", name="Devices").get_by_role("row")).to_have_count(5)
    assert page.get_by_role("link", name="Metrics").evaluate("a => a.href") == f"{node.url}metrics"
    assert shown_overflow(page) <= 0
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert visit.errors == []
    assert {url.startswith((node.url, "data:")) for url in visit.requests} == {True}


def test_follows_the_node(wide: Visit, node: Node) -> None:
    """New figures replace the old ones without a reload."""
    expect(wide.page.locator("#state")).to_have_text("Live")
    status = made_up_status()
    for device in status["devices"]:
        device["power_watts"] = 500.0
    status["processes"] = status["processes"][:2]
    node.status = status
    expect(wide.page.locator("#total")).to_have_text("2.00\u00a0kW")
    expect(wide.page.locator("#processes tbody tr")).to_have_count(2)
    assert wide.errors == []


def test_says_that_the_connection_is_lost(wide: Visit, node: Node, tmp_path: Path) -> None:
    """Old figures stay, marked as old, and come back to life with the exporter."""
    page = wide.page
    expect(page.locator("#state")).to_have_text("Live")
    total = page.locator("#total").inner_text()
    node.status = 500
    expect(page.locator("#state")).to_have_text("Connection lost")
    expect(page.locator("#now-title")).to_contain_text("Power at ")
    expect(page.locator("body")).to_have_attribute("data-state", "lost")
    expect(page.locator("#total")).to_have_text(total)
    page.screenshot(path=tmp_path / "lost.png", full_page=True)
    node.status = made_up_status()
    expect(page.locator("#state")).to_have_text("Live")


def test_says_that_sampling_has_stopped(wide: Visit, node: Node) -> None:
    """An exporter that answers with an old sample is not shown as live."""
    stale = made_up_status()
    stale["time"] -= 60
    node.status = stale
    expect(wide.page.locator("#state")).to_have_text("Sampling has stopped")


@pytest.mark.parametrize(
    ("source", "says"), [("simulated", "figures are made up"), ("estimate", "not measured")]
)
def test_what_is_not_measured_is_marked(
    wide: Visit, node: Node, tmp_path: Path, source: str, says: str
) -> None:
    """An estimate or a simulation cannot be taken for a measurement."""
    node.status = made_up_status(source=source)
    expect(wide.page.locator("#notices")).to_contain_text(says)
    expect(wide.page.locator("#total")).to_contain_text("≈")
    expect(wide.page.locator("#devices .badge.doubt")).to_have_count(4)
    wide.page.screenshot(path=tmp_path / "doubt.png", full_page=True)
    assert wide.errors == []


def test_young_exporter(wide: Visit, node: Node, tmp_path: Path) -> None:
    """No history, no process and no power known: said in words, not drawn as zero."""
    status = copy.deepcopy(made_up_status(points=0))
    status["processes"] = []
    status["sources"] = [{"source": "rapl", "up": False, "errors": {"denied": 1}}]
    for device in status["devices"]:
        device |= {"power_watts": None, "idle_watts": None, "idle_method": None}
    status["health"] |= {"checkpoint": None, "cpu_ratio": None}
    node.status = status
    page = wide.page
    expect(page.locator("#missing")).to_have_text("power not known yet")
    expect(page.locator("#total")).to_have_text("—")
    expect(page.locator("#chart-empty")).to_be_visible()
    expect(page.locator("#processes-empty")).to_be_visible()
    expect(page.locator("#notices")).to_contain_text("jobwatt doctor")
    expect(page.locator("#devices tbody tr").nth(0)).to_contain_text("power not known")
    page.screenshot(path=tmp_path / "young.png", full_page=True)
    status["devices"] = []
    expect(page.locator("#devices-empty")).to_be_visible()
    assert wide.errors == []


def test_history_can_be_read(wide: Visit, node: Node, tmp_path: Path) -> None:
    """The pointer and the arrow keys read any moment of the chart."""
    page = wide.page
    expect(page.locator("#reading")).to_contain_text("now · ")
    chart = page.locator("#chart")
    chart.hover(position={"x": 300, "y": 100})
    expect(page.locator("#reading")).not_to_contain_text("now")
    expect(page.locator("#chart .cursor")).to_have_count(1)
    page.screenshot(path=tmp_path / "hover.png")
    page.mouse.move(1, 1)
    expect(page.locator("#reading")).to_contain_text("now · ")
    chart.focus()
    page.keyboard.press("Home")
    expect(chart).to_have_attribute("aria-valuenow", "0")
    page.keyboard.press("ArrowRight")
    expect(chart).to_have_attribute("aria-valuenow", "1")
    assert isinstance(node.status, dict)
    first = node.status["history"]["devices"]["package-0"][1]
    expect(page.locator("#legend li").nth(0)).to_have_text(f"package-0{first:.1f}\u00a0W")
    assert wide.errors == []


def test_order_of_processes(wide: Visit) -> None:
    """The table follows the reader's order."""
    rows = wide.page.locator("#processes tbody tr")
    expect(rows.nth(4)).to_contain_text("gmx")
    order = wide.page.get_by_role("group", name="Order processes by")
    order.get_by_role("button", name="Energy").click()
    expect(rows.nth(2)).to_contain_text("java")
    table = wide.page.get_by_role("table", name="Top processes")
    expect(table.get_by_role("columnheader", name="Energy")).to_have_attribute(
        "aria-sort", "descending"
    )


# --- GPUs ----------------------------------------------------------------------------------------


@pytest.fixture
def gpu_visit(request: pytest.FixtureRequest, browser: Browser, node: Node) -> Iterator[Visit]:
    """The page of a node with GPUs, in every width and colour scheme."""
    node.status = with_gpus(made_up_status())
    width, scheme = request.param
    visit = Visit(browser, node, width, scheme)
    yield visit
    visit.context.close()


EVERY_LOOK = pytest.mark.parametrize(
    "gpu_visit",
    [(1440, "light"), (1440, "dark"), (1000, "dark"), (390, "light"), (360, "dark")],
    indirect=True,
    ids=["wide-light", "wide-dark", "middle-dark", "narrow-light", "narrowest-dark"],
)
WIDE = pytest.mark.parametrize("gpu_visit", [(1440, "light")], indirect=True, ids=["wide"])


@EVERY_LOOK
def test_gpus_are_shown(gpu_visit: Visit, tmp_path: Path) -> None:
    """A row each, with who holds it; names of strangers stay text; nothing sticks out."""
    page = gpu_visit.page
    rows = page.locator("#gpus tbody tr")
    expect(rows).to_have_count(10)
    first = rows.nth(0)
    expect(first).to_contain_text("GPU\u00a00")
    expect(first).to_contain_text("698.0\u00a0W")
    expect(first).to_contain_text("of 700.0\u00a0W")
    expect(first).to_contain_text("97\u00a0%")
    expect(first).to_contain_text("71.0 of 80.0\u00a0GiB")
    expect(first).to_contain_text("71\u00a0°C")
    expect(first.locator(".throttled")).to_have_text("power limit")
    expect(first.locator(".c-held")).to_contain_text("slurm:48213PID\u00a048000")
    held = [rows.nth(index).locator(".c-held") for index in range(10)]
    expect(held[1]).to_contain_text('<script>alert(1)</script>"\\n')
    expect(held[2].locator("li")).to_have_text(
        ["slurm:02\u00a0processes", "slurm:12\u00a0processes", "and 3 more"]
    )
    expect(held[3].locator(".badge")).to_have_text("idle")
    expect(held[4].locator(".badge")).to_have_text("free")
    expect(held[5]).to_contain_text("2\u00a0processes unseen")
    expect(held[9]).to_have_text("—")
    expect(page.locator("#gpus-hint")).to_have_text(
        "1 free · 1 held but idle · 8\u00a0× NVIDIA H100 80GB HBM3 · driver 590.48.01"
    )
    assert shown_overflow(page) <= 0
    page.screenshot(path=tmp_path / "gpus.png", full_page=True)
    assert gpu_visit.errors == []


@WIDE
def test_mig_instances_are_parts(gpu_visit: Visit) -> None:
    """Rows of their own below their GPU, which itself names nobody then."""
    rows = gpu_visit.page.locator("#gpus tbody tr")
    expect(rows.nth(6).locator(".c-held")).to_have_text("")
    expect(gpu_visit.page.locator("#gpus tr.part")).to_have_count(2)
    expect(rows.nth(7)).to_contain_text("1g.10gb")
    expect(rows.nth(7)).to_contain_text("MIG-00000001")
    expect(rows.nth(7)).to_contain_text("3.0\u00a0GiB")
    expect(rows.nth(7).locator(".c-held")).to_have_text("slurm:48213PID\u00a048037")
    expect(rows.nth(7).locator("th")).to_have_attribute("title", PARTS[0]["uuid"])
    expect(rows.nth(8).locator(".c-held .badge")).to_have_text("free")


@WIDE
def test_long_names_of_gpus_are_in_the_title(gpu_visit: Visit) -> None:
    """The row has the beginning of the UUID only."""
    name = gpu_visit.page.locator("#gpus tbody th").first
    expect(name).to_contain_text("GPU-51431193")
    expect(name).not_to_contain_text("9bca")
    expect(name).to_have_attribute(
        "title",
        "GPU-51431193-9bca-4e51-87a4-2f7f13df02a1 · 0000:1b:00.0 · NVIDIA H100 80GB HBM3 · Hopper "
        "· driver 590.48.01",
    )


@WIDE
def test_many_gpus_are_one_area_of_the_chart(gpu_visit: Visit) -> None:
    """Eight tones of one colour could not be told apart."""
    page = gpu_visit.page
    expect(page.locator("#chart .area")).to_have_count(5)
    expect(page.locator("#legend li").last).to_contain_text("8\u00a0GPUs")
    expect(page.locator("#gpus .spark")).to_have_count(10)


@WIDE
def test_few_gpus_are_areas_of_their_own(gpu_visit: Visit, node: Node) -> None:
    """Up to four of a component."""
    assert isinstance(node.status, dict)
    node.status = node.status | {"devices": node.status["devices"][:6]}
    expect(gpu_visit.page.locator("#chart .area")).to_have_count(6)
    expect(gpu_visit.page.locator("#legend li").last).to_contain_text("GPU\u00a01")


@WIDE
def test_other_devices_keep_their_table(gpu_visit: Visit, node: Node) -> None:
    """It is named by what is in it, and goes where there is nothing else than GPUs."""
    page = gpu_visit.page
    expect(page.get_by_role("table", name="CPU and DRAM").get_by_role("row")).to_have_count(5)
    assert isinstance(node.status, dict)
    node.status = node.status | {"devices": node.status["devices"][4:]}
    expect(page.locator("#devices-card")).to_be_hidden()


@WIDE
def test_processes_tell_what_they_draw_from_gpus(gpu_visit: Visit, node: Node) -> None:
    """Which GPUs, and from the second look on how much of the power goes there."""
    page = gpu_visit.page
    cell = page.locator("#processes tbody tr").nth(0).locator(".c-gpu")
    expect(cell).to_have_text("GPU\u00a00 · —")
    expect(page.locator("#processes tbody tr").nth(4).locator(".c-gpu")).to_have_text("")
    status = copy.deepcopy(node.status)
    assert isinstance(status, dict)
    status["time"] += 2
    process = status["processes"][0]
    process["components"]["cpu"] += 60.0
    process["components"]["gpu"] += 240.0
    process["energy_joules"] += 300.0
    node.status = status
    expect(cell).to_have_text("GPU\u00a00 · 118.6\u00a0W")
    parts = page.locator("#processes tbody tr").nth(0).locator(".bar i")
    expect(parts.nth(1)).to_have_class("tone gpu")
    assert gpu_visit.errors == []


def test_node_without_gpus_shows_none(wide: Visit) -> None:
    """Neither the table nor the column."""
    expect(wide.page.locator("#devices tbody tr")).to_have_count(4)
    expect(wide.page.locator("#gpus-card")).to_be_hidden()
    expect(wide.page.locator("#gpu-column")).to_be_hidden()


# --- jobs ----------------------------------------------------------------------------------------

ARRAY = [f"slurm:9000{n}" for n in range(7)]


def job(job_uid: str, power: float, joules: float, **changes: object) -> dict[str, Any]:
    """A live job that holds nothing."""
    now = time.time()
    return {
        "job_uid": job_uid,
        "kind": job_uid.partition(":")[0],
        "name": "",
        "user": "alice",
        "account": "none",
        "queue": "",
        "k8s_namespace": "",
        "power_watts": power,
        "energy_joules": joules,
        "components": {"cpu": joules * 0.25, "dram": 0.0, "gpu": joules * 0.75},
        "sources": {"rapl": joules},
        "cpu_seconds": 3000.0,
        "gpus": 0,
        "gpu_idle_joules": 0.0,
        "cpus": None,
        "budget_joules": None,
        "budget_origin": None,
        "budget_errors": [],
        "started": now - 650,
        "measured_since": now - 600,
        "deadline": None,
        "ended": None,
    } | changes


def with_jobs(status: dict[str, Any]) -> dict[str, Any]:
    """The same node with jobs: near their budget, beyond it, idle, without names, ended."""
    now = status["time"]
    bert = {"name": "bert-large", "account": "nlp", "queue": "gpu", "deadline": now + 7_259}
    held = {"gpus": 4, "cpus": 16.0, "gpu_idle_joules": 72_000.0}
    status["jobs"] = [
        job("session:mallory", 9.7, 2_000.0, user="mallory", name=HOSTILE, account="x" * 300),
        job("slurm:48213", 512.0, 3_960_000.0, **bert, **held)
        | {"budget_joules": 4_500_000.0, "budget_origin": "comment"},
        job(JOB, 60.0, 900_000.0, name="\u202emd-relax", k8s_namespace="chem-group", gpus=1)
        | {"account": "chem-group"}
        | {"budget_joules": 720_000.0, "budget_origin": "annotation"},
        job("systemd:kafka.service", 3.1, 640_000.0, user="svc-kafka", name=None, account=None)
        | {"measured_since": now}
        | {"budget_errors": [{"origin": "environment", "reason": "'\u202e25' has no unit"}]},
        job("slurm:48100", 0.0, 36_000.0, name="smoke", ended=now - 31, started=now - 90.9),
        *(job(uid, 0.0, 7.0, name="sweep", ended=now - 60) for uid in ARRAY),
    ]
    return status


@pytest.fixture
def job_visit(request: pytest.FixtureRequest, browser: Browser, node: Node) -> Iterator[Visit]:
    """The page of a node with jobs and GPUs, in every width and colour scheme."""
    node.status = with_jobs(with_gpus(made_up_status()))
    width, scheme = request.param
    visit = Visit(browser, node, width, scheme)
    yield visit
    visit.context.close()


EVERY_JOB_LOOK = pytest.mark.parametrize(
    "job_visit",
    [(1440, "light"), (1440, "dark"), (1000, "dark"), (760, "light"), (390, "light")],
    indirect=True,
    ids=["wide-light", "wide-dark", "middle-dark", "least-table", "narrow-light"],
)
NARROW_JOBS = pytest.mark.parametrize("job_visit", [(390, "light")], indirect=True, ids=["narrow"])
WIDE_JOBS = pytest.mark.parametrize("job_visit", [(1440, "light")], indirect=True, ids=["wide"])
SPACE = "\u00a0"


@EVERY_JOB_LOOK
def test_jobs_are_shown(job_visit: Visit, tmp_path: Path) -> None:
    """By power, with budget, time and what they hold; the ended below; names stay text."""
    page = job_visit.page
    rows = page.locator("#jobs tbody tr")
    expect(page.locator("#jobs-count")).to_have_text("4 live · 8 ended lately · 1 over budget")
    expect(rows).to_have_count(3 + 1 + 5)
    bert, relax, hostile, section, smoke = (rows.nth(index) for index in range(5))
    expect(bert).to_contain_text("bert-large")
    expect(bert).to_contain_text("slurm:48213")
    expect(bert).to_contain_text("nlp · gpu")
    expect(bert).to_contain_text(f"512.0{SPACE}W")
    expect(bert).to_contain_text(f"1.10{SPACE}kWh")
    expect(bert.locator(".c-budget")).to_have_class("c-budget set near")
    expect(bert.locator(".c-budget")).to_contain_text(f"88{SPACE}%of 1.25{SPACE}kWh")
    expect(bert.locator(".c-held")).to_contain_text("5.0 of 16" + SPACE + "CPUs busy")
    expect(bert.locator(".c-time")).to_have_text(f"10{SPACE}min2{SPACE}h{SPACE}00{SPACE}min left")
    expect(relax).to_contain_text("\\u202emd-relax")
    expect(relax.locator(".c-who")).to_have_text("alicechem-group")
    expect(relax.locator(".c-budget")).to_have_class("c-budget set over")
    expect(relax.locator(".c-budget")).to_contain_text(f"125{SPACE}%over 200{SPACE}Wh")
    expect(relax.locator(".c-held")).to_contain_text(f"GPU{SPACE}3idle")
    expect(hostile).to_contain_text('<script>alert(1)</script>"\\n')
    expect(section).to_have_text("Ended lately: final totals")
    expect(smoke).to_contain_text(f"ended10.00{SPACE}Wh")
    expect(smoke.locator(".c-time")).to_contain_text("59" + SPACE + "s3")
    expect(page.get_by_role("table", name="Jobs").get_by_role("columnheader")).to_have_count(7)
    assert shown_overflow(page) <= 0
    rows.nth(0).get_by_role("button").click()
    expect(page.locator("#jobs .detail")).to_have_count(1)
    assert shown_overflow(page) <= 0
    page.screenshot(path=tmp_path / "jobs.png", full_page=True)
    assert job_visit.errors == []


@NARROW_JOBS
def test_narrow_job_without_an_account(job_visit: Visit) -> None:
    """Its user stands alone; what there is beside one stands behind a dot."""
    page = job_visit.page
    rows = page.locator("#jobs tbody tr")
    shown = "div => getComputedStyle(div, '::before').content"
    lone, named = (rows.filter(has_text=text) for text in ("slurm:48100", "slurm:48213"))

    expect(lone.locator(".c-who")).to_have_text("alice")
    expect(lone.locator(".c-who div").nth(1)).to_be_hidden()
    expect(named.locator(".c-who div").nth(1)).to_be_visible()
    assert named.locator(".c-who div").nth(1).evaluate(shown) == '" · "'


def test_times_are_those_of_top(wide: Visit) -> None:
    """What has passed, or is left, is rounded down: one rule in two languages."""
    spans = (-3, 0.9, 99.9, 100, 899.9, 5999, 6000, 27_899, 35_999, 36_000, 359_999, 360_000)

    said = wide.page.evaluate("spans => spans.map(duration)", list(spans))

    assert [_short(text) for text in said] == [span_text(seconds) for seconds in spans]
    assert [said[place] for place in (2, 4, 7, 11)] == [
        f"99{SPACE}s",
        f"14{SPACE}min",
        f"7{SPACE}h{SPACE}44{SPACE}min",
        f"4{SPACE}days",
    ]


def _short(text: str) -> str:
    return text.replace(SPACE, "").replace("min", "m").replace("days", "d")


@WIDE_JOBS
def test_job_opens_to_its_processes(job_visit: Visit, node: Node) -> None:
    """By keyboard; it stays open, and focused, while figures and order change."""
    page = job_visit.page
    toggle = page.get_by_role("button", name="bert-large")
    toggle.focus()
    page.keyboard.press("Enter")
    expect(toggle).to_have_attribute("aria-expanded", "true")
    detail = page.locator("#jobs .detail")
    expect(detail.locator("code")).to_have_text("slurm:48213")
    expect(detail).to_contain_text("by comment")
    expect(detail).to_contain_text(f"20.00{SPACE}Wh, not part of its own")
    lines = detail.locator(".own li")
    expect(lines).to_have_count(1 + 3 + 1)
    expect(lines.nth(1)).to_contain_text(f"python48000148.2{SPACE}W531.11{SPACE}Wh")
    # 3,960,000 J less those of its three processes.
    expect(lines.nth(4)).to_contain_text(f"18.44{SPACE}Wh")
    status = copy.deepcopy(node.status)
    assert isinstance(status, dict)
    status["time"] += 2
    status["jobs"][1] |= {"power_watts": 30.0, "cpu_seconds": 3024.0}
    node.status = status
    row = page.locator("#jobs tbody tr").nth(1)
    expect(row).to_contain_text("bert-large")
    expect(row.locator(".c-held")).to_contain_text("12 of 16" + SPACE + "CPUs busy")
    expect(page.locator("#jobs tbody tr").nth(2)).to_have_class("detail")
    expect(toggle).to_be_focused()
    page.keyboard.press("Enter")
    expect(detail).to_have_count(0)
    assert job_visit.errors == []


@WIDE_JOBS
def test_a_budget_that_is_none_is_told(job_visit: Visit) -> None:
    """Where it stood and why, in the row and below it."""
    page = job_visit.page
    page.locator("#more-live").click()
    row = page.locator("#jobs tbody tr", has_text="systemd:kafka.service")
    budget = row.locator(".c-budget")
    expect(budget).to_have_text("not valid")
    told = "environment: '\\u202e25' has no unit"
    expect(budget).to_have_attribute("title", f"{told}; no budget")
    row.get_by_role("button").click()
    expect(page.locator("#jobs .detail")).to_contain_text(f"Budget not valid{told}")
    assert job_visit.errors == []


@WIDE_JOBS
def test_name_of_a_job_can_be_copied(job_visit: Visit) -> None:
    """All of it, however little of it the row has."""
    page = job_visit.page
    page.locator("#jobs .toggle").nth(1).click()
    page.get_by_role("button", name="Copy").click()
    assert page.evaluate("getSelection().toString()") == JOB


@WIDE_JOBS
def test_order_of_jobs(job_visit: Visit) -> None:
    """By energy, or by the part of the budget that is used."""
    page = job_visit.page
    rows = page.locator("#jobs tbody tr")
    order = page.get_by_role("group", name="Order jobs by")
    order.get_by_role("button", name="Budget").click()
    expect(rows.nth(0)).to_contain_text("md-relax")
    expect(page.locator("#jobs th[aria-sort]")).to_have_text("Budget")
    order.get_by_role("button", name="Energy").click()
    expect(rows.nth(1)).to_contain_text("md-relax")
    expect(page.locator("#processes th[aria-sort]")).to_have_text("Power")


@WIDE_JOBS
def test_all_jobs_can_be_seen(job_visit: Visit) -> None:
    """What holds and draws next to nothing, and all that have ended, is a button away."""
    page = job_visit.page
    rows = page.locator("#jobs tbody tr")
    expect(rows).to_have_count(9)
    expect(rows.filter(has_text="kafka")).to_have_count(0)
    page.get_by_role("button", name="Show all 4 live").click()
    expect(rows.nth(3)).to_contain_text("systemd:kafka.service")
    expect(rows.nth(3).locator(".c-held")).to_contain_text("—" + SPACE + "CPUs busy")
    page.get_by_role("button", name="Show all 8 ended").click()
    expect(rows).to_have_count(4 + 1 + 8)
    page.get_by_role("button", name="Show fewer of 8 ended").click()
    expect(rows).to_have_count(10)


def test_exporter_of_an_earlier_version(wide: Visit) -> None:
    """Its status tells of no jobs."""
    expect(wide.page.locator("#jobs-empty")).to_be_visible()
    expect(wide.page.locator("#jobs")).to_be_hidden()
    assert wide.errors == []
