"""`jobwatt grid` as a user starts it, with providers that answer and fail, seen by Prometheus."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import sync_playwright
from prometheus_client.parser import text_string_to_metric_families

from fakes import grid_sites
from fakes.grid_sites import PASSWORD, TOKEN, USER, Reply, Site, serving
from servers import JOBWATT, Prometheus, answers, eventually, free_port, get, running

pytestmark = pytest.mark.stack

CHROMIUM = "/usr/bin/chromium"
SECRETS = (TOKEN, PASSWORD, "bearer.0.sig-nature")


@dataclass
class Providers:
    """Everything that `jobwatt grid` polls here."""

    em: Site
    uk: Site
    rte: Site
    wt: Site


@pytest.fixture
def providers() -> Iterator[Providers]:
    """Sites that answer well, unless a test gives them trouble."""
    with contextlib.ExitStack() as held:
        yield Providers(
            *(
                held.enter_context(serving(site))
                for site in (
                    grid_sites.electricity_maps({"US-CAL-CISO": 245, "GB": 190}),
                    grid_sites.uk_carbon_intensity(266, None),
                    grid_sites.rte_eco2mix(22),
                    grid_sites.watttime(900.5),
                )
            )
        )


def configuration(folder: Path, sites: Providers) -> Path:
    """The operator's file; the same could be given to `jobwatt serve`."""
    token = folder / "em.token"
    token.write_text(f"{TOKEN}\n")
    schedule = folder / "campus.yml"
    schedule.write_text('{time_zone: Europe/Paris, grams_per_kwh: {daily: {"00:00": 35}}}')
    path = folder / "jobwatt.yml"
    path.write_text(f"""
grid: {{zone: FR}}
sample: {{interval: 1s}}
zones:
  FR: {{pue: 1.2, price: 0.18, currency: EUR, providers: [rte_eco2mix]}}
  GB: {{pue: 1.3, price: 0.24, currency: GBP, providers: [uk_carbon_intensity, electricity_maps]}}
  US-CAL-CISO: {{providers: [electricity_maps, watttime: {{region: CAISO_NORTH}}]}}
  campus: {{country: FR, providers: [schedule: {{file: {schedule}}}]}}
  hut: {{providers: [constant: {{grams_per_kwh: 24, year: 2024}}]}}
providers:
  electricity_maps: {{url: "{sites.em.url}", token_file: {token}, timeout: 1s}}
  uk_carbon_intensity: {{url: "{sites.uk.url}", timeout: 1s}}
  rte_eco2mix: {{url: "{sites.rte.url}", timeout: 1s}}
  watttime: {{url: "{sites.wt.url}", user: {USER}, password_env: WT_PASSWORD, timeout: 1s}}
account_budgets:
  - {{account: vision, period: month, budget: 2MWh}}
""")
    return path


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WT_PASSWORD", PASSWORD)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextlib.contextmanager
def grid(folder: Path, config: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A running `jobwatt grid`: its address and process."""
    address = f"127.0.0.1:{free_port()}"
    command: list[str | Path] = [JOBWATT, "grid", f"--config.file={config}"]
    command += [f"--web.listen-address={address}", "--log.level=debug"]
    with running(command, folder / "grid.log") as process:
        eventually(lambda: answers(f"http://{address}/-/ready"), 20, "it is not ready")
        yield f"http://{address}", process


Labels = tuple[tuple[str, str], ...]


def page(url: str) -> dict[tuple[str, Labels], float]:
    status, body = get(f"{url}/metrics")
    assert status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def intensities(url: str) -> dict[tuple[str, str, str, str, str], float]:
    """By zone, provider, kind, boundary and year."""
    names = ("grid_zone", "provider", "kind", "boundary", "year")
    found = {}
    for (name, labels), value in page(url).items():
        if name == "jobwatt_grid_carbon_intensity_grams_per_kwh":
            by_name = dict(labels)
            found[tuple(by_name[label] for label in names)] = value
    return found  # type: ignore[return-value] # five of them


def ups(url: str) -> dict[tuple[str, str], float]:
    return {
        (dict(labels)["grid_zone"], dict(labels)["provider"]): value
        for (name, labels), value in page(url).items()
        if name == "jobwatt_grid_up"
    }


EVERYTHING = {
    ("FR", "rte_eco2mix", "average", "direct", ""): 22.0,
    ("FR", "owid", "average", "lifecycle", "2024"): 44.2,
    ("GB", "uk_carbon_intensity", "average", "direct", ""): 266.0,
    ("GB", "electricity_maps", "average", "lifecycle", ""): 190.0,
    ("GB", "owid", "average", "lifecycle", "2024"): 210.9,
    ("US-CAL-CISO", "electricity_maps", "average", "lifecycle", ""): 245.0,
    ("US-CAL-CISO", "watttime", "marginal", "direct", ""): 900.5 * 0.453592,
    ("US-CAL-CISO", "owid", "average", "lifecycle", "2024"): 383.5,
    ("campus", "schedule", "average", "lifecycle", ""): 35.0,
    ("campus", "owid", "average", "lifecycle", "2024"): 44.2,
    ("hut", "constant", "average", "lifecycle", "2024"): 24.0,
}


def test_prometheus_gets_everything(tmp_path: Path, providers: Providers) -> None:
    """Every value of every zone arrives, and none that is secret is anywhere."""
    with grid(tmp_path, configuration(tmp_path, providers)) as (url, process):
        eventually(lambda: len(intensities(url)) == len(EVERYTHING), 20, "not all have answered")
        assert intensities(url) == pytest.approx(EVERYTHING)
        assert set(ups(url).values()) == {1.0}
        target = url.removeprefix("http://")
        config = tmp_path / "prometheus.yml"
        jobs = [{"job_name": "jobwatt-grid", "static_configs": [{"targets": [target]}]}]
        config.write_text(
            yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs})
        )
        address = f"127.0.0.1:{free_port()}"
        command = ["prometheus", f"--config.file={config}", f"--web.listen-address={address}"]
        command += [f"--storage.tsdb.path={tmp_path / 'data'}"]
        with running(command, tmp_path / "prometheus.log"):
            prometheus = Prometheus(f"http://{address}")
            eventually(lambda: answers(f"{prometheus.url}/-/ready"), 30, "Prometheus is not ready")
            eventually(lambda: prometheus.query("jobwatt_site_pue_ratio"), 20, "nothing is scraped")
            asked = prometheus.query("jobwatt_grid_carbon_intensity_grams_per_kwh")
            assert len(asked) == len(EVERYTHING)
            assert {series["metric"]["job"] for series in asked} == {"jobwatt-grid"}
            for expr, value in (
                ('jobwatt_site_pue_ratio{grid_zone="GB"}', 1.3),
                ('jobwatt_site_electricity_price_per_kwh{grid_zone="FR",currency="EUR"}', 0.18),
                (
                    'jobwatt_account_energy_budget_joules{account="vision",period="month"}',
                    7.2e9,
                ),
                ("sum(jobwatt_grid_errors_total)", 0.0),
                ("count(jobwatt_grid_errors_total)", 5 * 13.0),
            ):
                assert prometheus.value(expr) == value, expr
            age = "time() - jobwatt_grid_data_timestamp_seconds"
            assert all(float(s["value"][1]) < 7200 for s in prometheus.query(age))
        shown = get(f"{url}/")[1] + get(f"{url}/metrics")[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    log = (tmp_path / "grid.log").read_bytes()
    assert log.endswith(b"msg=stopping\n")
    for secret in SECRETS:
        assert secret.encode() not in log + shown
    arguments = "\0".join(map(str, process.args))  # type: ignore[arg-type]
    assert not any(secret in arguments for secret in SECRETS)


def test_a_slow_provider_delays_nobody(tmp_path: Path, providers: Providers) -> None:
    """While one does not answer, the others do, and a scrape takes no longer."""
    providers.em.trouble = Reply(200, {}, wait=60.0)
    providers.wt.trouble = Reply(200, b"{" * 4000, drip=0.05)
    with grid(tmp_path, configuration(tmp_path, providers)) as (url, process):
        eventually(lambda: len(intensities(url)) == 8, 20, "the others have not answered")
        slow = {"electricity_maps", "watttime"}
        assert intensities(url) == {k: v for k, v in EVERYTHING.items() if k[1] not in slow}
        eventually(lambda: list(ups(url).values()).count(0.0) == 3, 20, "no timeout")
        found = page(url)
        assert found[_error("electricity_maps", "timeout")] == 2
        assert found[_error("watttime", "timeout")] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def _error(provider: str, reason: str) -> tuple[str, Labels]:
    return "jobwatt_grid_errors_total", (("provider", provider), ("reason", reason))


def test_each_fails_in_its_own_way(tmp_path: Path, providers: Providers) -> None:
    """The table is there for all of them; the page says what is wrong."""
    providers.em.trouble = Reply(401, {"error": "Invalid auth-token"})
    providers.uk.trouble = Reply(200, b"<html>maintenance</html>")
    providers.rte.trouble = Reply(429, b"", {"Retry-After": "3600"})
    providers.wt.trouble = Reply(503, b"")
    with grid(tmp_path, configuration(tmp_path, providers)) as (url, _):
        eventually(lambda: list(ups(url).values()).count(0.0) == 5, 20, "not all have failed")
        found = page(url)
        for provider, reason, count in (
            ("electricity_maps", "denied", 2.0),
            ("uk_carbon_intensity", "malformed", 1.0),
            ("rte_eco2mix", "rate_limited", 1.0),
            ("watttime", "server_error", 1.0),
        ):
            assert found[_error(provider, reason)] == count
        live = {labels[1] for labels in intensities(url) if labels[4] == ""}
        assert live == {"schedule"}
        shown = get(f"{url}/")[1].decode()
        for said in ("401 Unauthorized", "not JSON", "429 Too Many Requests", "503 Service"):
            assert said in shown
    assert TOKEN not in shown + (tmp_path / "grid.log").read_text()


def test_the_page_in_a_browser(tmp_path: Path, providers: Providers) -> None:
    """It is readable, wide and narrow, under its own policy, without an error."""
    providers.rte.trouble = Reply(503, b"")
    with grid(tmp_path, configuration(tmp_path, providers)) as (url, _), sync_playwright() as tool:
        eventually(lambda: len(ups(url)) == 6, 20, "not all have been asked")
        browser = tool.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        with contextlib.closing(browser):
            shown = browser.new_page(viewport={"width": 1100, "height": 900})
            said: list[str] = []
            shown.on("console", lambda message: said.append(message.text))
            shown.on("pageerror", lambda error: said.append(str(error)))
            for scheme, width in (("light", 1100), ("dark", 390)):
                shown.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                shown.set_viewport_size({"width": width, "height": 900})
                shown.goto(url)
                wide = shown.evaluate("document.documentElement.scrollWidth")
                assert wide <= width
                if folder := os.environ.get("JOBWATT_PICTURES"):
                    shown.screenshot(path=f"{folder}/grid-{scheme}.png", full_page=True)
            zone = shown.locator("section", has=shown.get_by_role("heading", name="FR"))
            assert "44.2 g/kWh" in zone.inner_text()
            assert zone.locator("tr.used td").first.inner_text() == "owid"
            assert "503 Service Unavailable" in zone.inner_text()
            assert shown.get_by_role("link", name="metrics").get_attribute("href") == "./metrics"
            assert said == []


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [JOBWATT, "grid", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ) | environment,
        timeout=30,
    )


def test_exit_codes(tmp_path: Path) -> None:
    """2 for what is wrong in flags and files, 1 where it cannot listen."""
    config = tmp_path / "jobwatt.yml"
    config.write_text("zones: {Frankreich: {}}")
    wrong = command(f"--config.file={config}")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "did you mean FR (France)" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
    assert command().returncode == 2
    assert command("--grid.zone=FR").returncode == 2  # a node's, not this command's
    config.write_text("zones: {FR: {}}")
    assert command(f"--config.file={config}", "--web.listen-address=x").returncode == 2
    with serving(Site(lambda _: Reply(404))) as taken:
        address = taken.url.removeprefix("http://")
        busy = command(f"--config.file={config}", f"--web.listen-address={address}")
    assert (busy.returncode, address.rpartition(":")[2] in busy.stderr) == (1, True)
