"""`jobwatt serve` on the fake driver, in real time: what its page shows is what the GPU drew.

One life of a GPU, told by several tests: two processes work on it, the driver hangs, and is well
again. Its power is 0 W between these, so that two pages can be compared to the joule.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fakes.nvml import FakeNvml, Gpu, GpuProcess
from servers import JOBWATT, answers, eventually, free_port, get, running

pytestmark = pytest.mark.stack

INTERVAL = 0.5
SETTLE_SECONDS = 5 * INTERVAL
"""Until a page is of a time after a change."""

UUID = "GPU-00000000-0000-0000-0000-000000000100"
IDLE_WATTS = 70.0
UJ = 1_000_000
ENERGY = "jobwatt_device_energy_joules_total"
MOST_SECONDS = 2.0
"""Between two samples, however busy the machine that runs this."""

SCRAPE_SECONDS = 1.0

Page = dict[str, list[tuple[dict[str, str], float]]]


def total_uj(page: Page, name: str, **labels: str) -> int:
    """The sum of the samples that have these labels, in microjoules."""
    found = page.get(name, ())
    return sum(round(value * UJ) for has, value in found if labels.items() <= has.items())


def value(page: Page, name: str, **labels: str) -> float | None:
    """The one sample that has these labels, None where there is none."""
    found = [value for has, value in page.get(name, ()) if labels.items() <= has.items()]
    return found[0] if found else None


def imbalance(page: Page) -> dict[str, int]:
    """What is missing in the identity of each device, in microjoules."""
    missing = {}
    for labels, _ in page[ENERGY]:
        device = labels["device"]
        parts = (
            total_uj(page, "jobwatt_process_energy_joules_total", device=device),
            total_uj(page, "jobwatt_process_other_energy_joules_total", device=device),
            total_uj(page, "jobwatt_retired_energy_joules_total", level="process", device=device),
            total_uj(page, "jobwatt_device_idle_energy_joules_total", device=device),
            total_uj(page, "jobwatt_device_unattributed_energy_joules_total", device=device),
        )
        missing[device] = total_uj(page, ENERGY, device=device) - sum(parts)
    return missing


@dataclass
class Node:
    """The exporter, the driver that it reads, and two processes on the GPU."""

    url: str
    driver: FakeNvml
    busy: int
    calm: int
    pages: list[Page] = field(default_factory=list)
    slowest: float = 0.0

    def scrape(self) -> Page:
        """The page as it is now; how long it took is remembered."""
        began = time.monotonic()
        status, body = get(f"{self.url}/metrics")
        self.slowest = max(self.slowest, time.monotonic() - began)
        assert status == 200
        page: Page = {}
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                page.setdefault(sample.name, []).append((sample.labels, sample.value))
        self.pages.append(page)
        return page

    def run(self, watts: float, busy: int, calm: int) -> None:
        """Let the GPU draw this much from now on, and the processes be so busy, in %."""
        self.driver.set_sm(0, self.busy, busy)
        self.driver.set_sm(0, self.calm, calm)
        self.driver.set_power(0, round(watts * 1000))

    def rest(self) -> Page:
        """Let the GPU draw nothing, and return a page of then."""
        self.run(0, 0, 0)
        time.sleep(SETTLE_SECONDS)
        return self.scrape()

    def of_process(self, page: Page, pid: int) -> int:
        """What a process has used of the GPU."""
        name = "jobwatt_process_energy_joules_total"
        return total_uj(page, name, device=UUID, pid=str(pid))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """An exporter on a machine with one GPU, which two processes hold."""
    folder = tmp_path_factory.mktemp("gpu")
    with ExitStack() as held:
        sleepers = [held.enter_context(subprocess.Popen(["sleep", "600"])) for _ in range(2)]
        for sleeper in sleepers:
            held.callback(sleeper.kill)
        busy, calm = (sleeper.pid for sleeper in sleepers)
        gpu = Gpu(uuid=UUID, power_mw=0, processes=(GpuProcess(busy), GpuProcess(calm)))
        driver = FakeNvml(folder / "driver", [gpu], virtual=False)
        held.callback(driver.release)
        config = folder / "jobwatt.yml"
        settings = {"idle_power": {"GPU-*": IDLE_WATTS}, "process": {"min_joules": 1}}
        config.write_text(yaml.safe_dump(settings))
        address = f"127.0.0.1:{free_port()}"
        environment = [f"{name}={text}" for name, text in driver.environment({}).items()]
        command: list[str | Path] = ["env", *environment, JOBWATT, "serve"]
        command += [
            f"--config.file={config}",
            f"--state.directory={folder / 'state'}",
            f"--sample.interval={INTERVAL}s",
            f"--web.listen-address={address}",
        ]
        held.enter_context(running(command, folder / "exporter.log"))
        eventually(lambda: answers(f"http://{address}/-/ready"), 20, "the exporter is not ready")
        node = Node(f"http://{address}", driver, busy, calm)
        eventually(lambda: value(node.scrape(), ENERGY, device=UUID) == 0, 10, "no GPU is shown")
        yield node


@dataclass(frozen=True)
class Work:
    """Two pages, and the moments between which all that they tell apart was drawn."""

    before: Page
    after: Page
    since_ns: int
    until_ns: int


@pytest.fixture(scope="module")
def work(node: Node) -> Work:
    """Nine seconds in which both processes work, once they have series of their own."""
    node.run(200, 50, 50)
    time.sleep(2)
    before = node.rest()
    since_ns = node.driver.now_ns()
    node.run(370, 60, 20)
    time.sleep(5)
    node.run(370, 0, 50)
    time.sleep(2)
    node.run(370, 30, 30)
    time.sleep(2)
    after = node.rest()
    return Work(before, after, since_ns, node.driver.now_ns())


def test_energy_is_what_was_drawn(node: Node, work: Work) -> None:
    """To the half percent, and in truth to the last millijoule that the driver counts."""
    drawn = node.driver.energy_uj(0, work.since_ns, work.until_ns)
    shown = total_uj(work.after, ENERGY, device=UUID) - total_uj(work.before, ENERGY, device=UUID)
    assert drawn > 3000 * UJ
    assert shown == pytest.approx(drawn, rel=0.005)
    assert abs(shown - drawn) <= 2000


def test_each_process_has_its_share(node: Node, work: Work) -> None:
    """By how long it kept the GPU busy, of what is not idle; nothing is nobody's."""
    truth = node.driver.truth(0, round(IDLE_WATTS * 1000), work.since_ns, work.until_ns)
    for pid in (node.busy, node.calm):
        shown = node.of_process(work.after, pid) - node.of_process(work.before, pid)
        assert shown == pytest.approx(truth.by_pid[pid], rel=0.05)
    name = "jobwatt_device_unattributed_energy_joules_total"
    nobodys = total_uj(work.after, name, device=UUID) - total_uj(work.before, name, device=UUID)
    assert nobodys <= 0.02 * truth.total


def test_the_methods_are_what_processes_have_got(work: Work) -> None:
    """SM utilisation, since there were two of them."""
    page = work.after
    name = "jobwatt_gpu_attributed_energy_joules_total"
    methods = {labels["method"] for labels, shown in page[name] if shown}
    assert methods == {"sm_utilization"}
    processes = total_uj(page, "jobwatt_process_energy_joules_total", device=UUID)
    processes += total_uj(page, "jobwatt_process_other_energy_joules_total", device=UUID)
    assert total_uj(page, name, device=UUID) == processes


def test_a_driver_that_hangs_delays_nobody_and_heals(node: Node, work: Work) -> None:
    """It shows as a timeout; once it answers again nothing of its energy is lost."""
    assert work.after
    before = node.scrape()
    assert value(before, "jobwatt_source_up", source="nvml_energy") == 1
    since_ns = node.driver.now_ns()
    node.driver.hang("nvmlDeviceGetTotalEnergyConsumption")
    node.run(370, 60, 20)
    hung_at = time.monotonic()
    node.slowest = 0.0
    stamps = []

    def is_down() -> bool:
        page = node.scrape()
        stamps.append(value(page, "jobwatt_last_sample_timestamp_seconds") or 0.0)
        return value(page, "jobwatt_source_up", source="nvml_energy") == 0

    eventually(is_down, 20, "a driver that hangs does not show")
    assert time.monotonic() - hung_at > 5
    page = node.scrape()
    errors = {"source": "nvml_energy", "reason": "timeout"}
    assert value(page, "jobwatt_source_errors_total", **errors)
    assert value(page, "jobwatt_device_power_watts", device=UUID) is None
    assert node.slowest < SCRAPE_SECONDS
    ages = [stamp - earlier for stamp, earlier in zip(stamps[1:], stamps, strict=False)]
    assert max(ages) < MOST_SECONDS
    assert stamps[-1] - stamps[0] > 5
    for component in {labels["component"] for labels, _ in before[ENERGY]} - {"gpu"}:
        assert total_uj(page, ENERGY, component=component) > total_uj(
            before, ENERGY, component=component
        )
    node.driver.release()
    eventually(
        lambda: value(node.scrape(), "jobwatt_source_up", source="nvml_energy") == 1,
        10,
        "a driver that answers again does not show",
    )
    after = node.rest()
    drawn = node.driver.energy_uj(0, since_ns)
    shown = total_uj(after, ENERGY, device=UUID) - total_uj(before, ENERGY, device=UUID)
    assert abs(shown - drawn) <= 2000


def test_the_identity_holds_on_every_page(node: Node, work: Work) -> None:
    """Exactly, for each device, whatever has happened."""
    assert work.after
    assert len(node.pages) > 10
    for page in node.pages:
        assert imbalance(page) == dict.fromkeys(imbalance(page), 0)
        assert ENERGY in page


def test_counters_never_fall(node: Node, work: Work) -> None:
    """From page to page."""
    assert work.after
    shown = [total_uj(page, ENERGY, device=UUID) for page in node.pages]
    assert shown == sorted(shown)
