"""What a real Prometheus gets out of an exporter is what the hardware was given.

`jobwatt serve` reads counters that tick with this machine's real load (`fakes.ticker`), while real
processes burn CPU time, come and go.
"""

from __future__ import annotations

import collections
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fakes.ticker import PACKAGE, ZONES, Ticker, Zone
from servers import JOBWATT, Prometheus, answers, eventually, free_port, get, running

pytestmark = pytest.mark.stack

INTERVAL = 0.5
WINDOW_SECONDS = 12.0
PAGES = 20
UJ = 1_000_000

FULL = "while True: pass"
HALF = """
import time
while True:
    end = time.perf_counter() + 0.02
    while time.perf_counter() < end: pass
    time.sleep(0.02)
"""
LIVES = (0.05, 1.3)
"""Seconds: too short for a sample to see it, and long enough for a series that soon ends."""

Sample = tuple[dict[str, str], float]
Page = dict[str, list[Sample]]


@contextlib.contextmanager
def exporter(folder: Path, sysfs: Path, **process: float | str) -> Iterator[str]:
    """A `jobwatt serve` on the fake counters and the real processes; its address."""
    config = folder / "jobwatt.yml"
    idle = {zone.device: zone.idle_watts for zone in ZONES}
    config.write_text(yaml.safe_dump({"idle_power": idle, "process": process}))
    address = f"127.0.0.1:{free_port()}"
    command: list[str | Path] = [JOBWATT, "serve", f"--config.file={config}"]
    command += [
        f"--path.sysfs={sysfs}",
        "--path.cgroupfs=/sys/fs/cgroup",
        f"--state.directory={folder / 'state'}",
        f"--sample.interval={INTERVAL}s",
        f"--web.listen-address={address}",
    ]
    with running(command, folder / "exporter.log"):
        eventually(lambda: answers(f"http://{address}/-/ready"), 20, "the exporter is not ready")
        yield f"http://{address}"


@contextlib.contextmanager
def burner(code: str) -> Iterator[int]:
    """A process that burns CPU time; its pid."""
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def churn() -> Iterator[None]:
    """Processes that come and go."""
    stop = threading.Event()

    def run(seconds: float) -> None:
        while not stop.is_set():
            burning = ["timeout", str(seconds), "sh", "-c", "while :; do :; done"]
            subprocess.run(burning, check=False)

    threads = [threading.Thread(target=run, args=(seconds,)) for seconds in LIVES]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def ticker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ticker]:
    """Counters that tick."""
    with Ticker(tmp_path_factory.mktemp("fake") / "sys") as ticker:
        yield ticker


@dataclass(frozen=True, slots=True)
class Site:
    """Prometheus over one node on which two processes burn CPU time."""

    prometheus: Prometheus
    exporter: str
    burners: dict[str, int]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, ticker: Ticker) -> Iterator[Site]:
    """A Prometheus that scrapes an exporter every second."""
    folder = tmp_path_factory.mktemp("site")
    with contextlib.ExitStack() as held:
        burners = {
            "full": held.enter_context(burner(FULL)),
            "half": held.enter_context(burner(HALF)),
        }
        for pid in burners.values():
            ticker.follow(pid)
        url = held.enter_context(exporter(folder, ticker.sysfs, min_joules=1))
        target = url.removeprefix("http://")
        config = folder / "prometheus.yml"
        config.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s"},
                    "scrape_configs": [
                        {"job_name": "jobwatt", "static_configs": [{"targets": [target]}]}
                    ],
                }
            )
        )
        address = f"127.0.0.1:{free_port()}"
        held.enter_context(
            running(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={address}",
                ],
                folder / "prometheus.log",
            )
        )
        eventually(lambda: answers(f"http://{address}/-/ready"), 30, "Prometheus is not ready")
        yield Site(Prometheus(f"http://{address}"), url, burners)


def window(site: Site, series: str) -> tuple[float, float]:
    """Times of the first and the last scrape of a series, once they are far enough apart."""

    def find() -> tuple[float, float] | None:
        found = site.prometheus.query(f"{series}[10m]")
        if not found:
            return None
        times = [at for at, _ in found[0]["values"]]
        return (times[0], times[-1]) if times[-1] - times[0] >= WINDOW_SECONDS else None

    result = eventually(find, 40, f"{series} is not scraped")
    assert result is not None
    return result


def increase(site: Site, series: str, start: float, end: float) -> float:
    """What a counter gained between two scrapes, to the last digit."""
    return site.prometheus.value(f"sum({series} @ {end:.3f}) - sum({series} @ {start:.3f})")


def sampled(site: Site, scraped: float) -> tuple[float, float]:
    """Between which moments the counters were read that a scrape shows."""
    end = site.prometheus.value(f"jobwatt_last_sample_timestamp_seconds @ {scraped:.3f}")
    took = site.prometheus.value(f"jobwatt_sample_duration_seconds @ {scraped:.3f}")
    return end - took - 0.001, end


@pytest.mark.parametrize("zone", ZONES, ids=lambda zone: zone.device)
def test_energy_is_what_was_put_in(site: Site, ticker: Ticker, zone: Zone) -> None:
    """End minus start, through a wrap of the package's counter."""
    series = f'jobwatt_device_energy_joules_total{{device="{zone.device}"}}'
    start, end = window(site, series)
    least_0, most_0 = ticker.energy_bounds(zone.device, *sampled(site, start))
    least_1, most_1 = ticker.energy_bounds(zone.device, *sampled(site, end))
    measured = increase(site, series, start, end)
    slack = 1e-5  # of floating point
    assert least_1 - most_0 - slack <= measured <= most_1 - least_0 + slack
    assert measured == pytest.approx((least_1 + most_1 - least_0 - most_0) / 2, rel=0.005)
    wraps = site.prometheus.value(f'jobwatt_meter_wraps_total{{device="{zone.device}"}}')
    assert wraps == (1 if zone is PACKAGE else 0)


@pytest.mark.parametrize("which", ["full", "half"])
def test_share_of_a_process(site: Site, ticker: Ticker, which: str) -> None:
    """Its part of the active energy is its part of the CPU time of all tasks."""
    pid = site.burners[which]
    series = f'jobwatt_process_energy_joules_total{{pid="{pid}",device="package-0"}}'
    start, end = window(site, series)
    device = increase(site, 'jobwatt_device_energy_joules_total{device="package-0"}', start, end)
    idle = increase(site, 'jobwatt_device_idle_energy_joules_total{device="package-0"}', start, end)
    seconds = sampled(site, end)[1] - sampled(site, start)[1]
    assert idle == pytest.approx(PACKAGE.idle_watts * seconds, rel=0.02)
    share = ticker.share(pid, sampled(site, start)[1], sampled(site, end)[1])
    assert increase(site, series, start, end) == pytest.approx(share * (device - idle), rel=0.05)


def read_page(url: str) -> Page:
    status, body = get(f"{url}/metrics")
    assert status == 200
    page: Page = collections.defaultdict(list)
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            page[sample.name].append((sample.labels, sample.value))
    return page


def microjoules(page: Page, name: str, zone: Zone, **more: str) -> int:
    """Sum of a device's series that have these labels."""
    labels = {"device": zone.device} | more
    return sum(round(value * UJ) for found, value in page[name] if labels.items() <= found.items())


def test_the_page_adds_up(ticker: Ticker, tmp_path: Path) -> None:
    """Each device is its processes, idle and unattributed, to the microjoule, at any scrape.

    Processes gain and lose their series all the time: by ending, and by a cap of four.
    """
    pages: dict[float, Page] = {}
    with (
        exporter(tmp_path, ticker.sysfs, min_joules=0.2, max=4, linger="1s") as url,
        churn(),
        burner(FULL),
    ):
        deadline = time.monotonic() + 60
        while len(pages) < PAGES:
            assert time.monotonic() < deadline
            page = read_page(url)
            pages[page["jobwatt_last_sample_timestamp_seconds"][0][1]] = page
            time.sleep(INTERVAL / 3)
    for page in pages.values():
        for zone in ZONES:
            parts = {
                name: microjoules(page, f"jobwatt_{name}_energy_joules_total", zone)
                for name in ("process", "process_other", "device_idle", "device_unattributed")
            }
            parts["retired"] = microjoules(
                page, "jobwatt_retired_energy_joules_total", zone, level="process"
            )
            whole = microjoules(page, "jobwatt_device_energy_joules_total", zone)
            assert sum(parts.values()) == whole, parts
    last = pages[max(pages)]
    for name in ("process", "process_other", "retired", "device_idle"):
        assert microjoules(last, f"jobwatt_{name}_energy_joules_total", PACKAGE) > 0


def test_a_scrape_changes_nothing(site: Site) -> None:
    """Two scrapers that never stop see the same page between two samples."""
    pages: dict[bytes, set[tuple[bytes, int]]] = collections.defaultdict(set)
    end = time.monotonic() + 4 * INTERVAL

    def scrape(who: int) -> None:
        while time.monotonic() < end:
            _, body = get(f"{site.exporter}/metrics")
            sample = body.partition(b"\njobwatt_last_sample_timestamp_seconds ")[2]
            pages[sample.partition(b"\n")[0]].add((body, who))

    scrapers = [threading.Thread(target=scrape, args=(who,)) for who in range(2)]
    for thread in scrapers:
        thread.start()
    for thread in scrapers:
        thread.join()
    assert len(pages) >= 2
    for seen in pages.values():
        assert len({body for body, _ in seen}) == 1
    assert any(len(seen) == 2 for seen in pages.values())
