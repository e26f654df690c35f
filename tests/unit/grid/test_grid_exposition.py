"""What the grid exporter answers: the metrics and the page."""

from __future__ import annotations

import gzip
import html
import re

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from jobwatt.budgets import AccountBudget
from jobwatt.exposition.catalog import GRID_METRICS
from jobwatt.exposition.connection import Request
from jobwatt.exposition.grid_page import CONTENT_SECURITY_POLICY
from jobwatt.exposition.grid_routes import GridRoutes
from jobwatt.grid.board import Board, GridSnapshot, Reading, Site, Value
from jobwatt.grid.contract import Boundary, GridError, Intensity, Kind, Reason

T = 1_714_557_600.0
HOSTILE = '<script>alert(1)</script>"\\\n'
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def live(grams_per_kwh: float, kind: Kind = Kind.AVERAGE) -> Intensity:
    return Intensity(grams_per_kwh, kind, Boundary.DIRECT, T, note="forecast")


def board() -> Board:
    """Two zones, three live providers, a table and a budget."""
    table = Intensity(44.2, Kind.AVERAGE, Boundary.LIFECYCLE, year="2024", note="France")
    made = Board(
        GridSnapshot(
            "1.2.3",
            (Site("FR", 1.2, 0.18, "EUR"), Site("US-CAL-CISO")),
            (Value("FR", "owid", table),),
            (
                Reading("FR", "rte_eco2mix"),
                Reading("US-CAL-CISO", "watttime"),
                Reading("US-CAL-CISO", "electricity_maps"),
            ),
            (AccountBudget(HOSTILE, "month", 7.2e9),),
        )
    )
    made.succeeded("FR", "rte_eco2mix", live(22))
    made.succeeded("US-CAL-CISO", "watttime", live(408.5, Kind.MARGINAL))
    made.failed("US-CAL-CISO", "watttime", GridError(Reason.SERVER_ERROR, HOSTILE))
    return made


def ask(path: str, now: float = T + 60, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    snapshot = board().snapshot
    routes = GridRoutes(lambda: snapshot, "/metrics", lambda: now)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    response = routes.answer(Request("GET", path, "", given))
    return response.status, response.body, {**response.headers, "type": response.content_type}


def series(body: bytes) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def of(found: Series, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(value for _, value in labels): number
        for (metric, labels), number in found.items()
        if metric == name
    }


def test_metrics() -> None:
    """Every series, with its labels in the alphabet's order."""
    found = series(ask("/metrics")[1])
    assert of(found, "jobwatt_grid_carbon_intensity_grams_per_kwh") == {
        ("direct", "FR", "average", "rte_eco2mix", ""): 22.0,
        ("direct", "US-CAL-CISO", "marginal", "watttime", ""): 408.5,
        ("lifecycle", "FR", "average", "owid", "2024"): 44.2,
    }
    assert of(found, "jobwatt_site_pue_ratio") == {("FR",): 1.2}
    assert of(found, "jobwatt_site_electricity_price_per_kwh") == {("EUR", "FR"): 0.18}
    assert of(found, "jobwatt_account_energy_budget_joules") == {(HOSTILE, "month"): 7.2e9}
    assert of(found, "jobwatt_grid_up") == {
        ("FR", "rte_eco2mix"): 1.0,
        ("US-CAL-CISO", "watttime"): 0.0,
    }
    assert of(found, "jobwatt_grid_data_timestamp_seconds") == {
        ("FR", "rte_eco2mix"): T,
        ("US-CAL-CISO", "watttime"): T,
    }
    errors = of(found, "jobwatt_grid_errors_total")
    assert {labels: n for labels, n in errors.items() if n} == {("watttime", "server_error"): 1.0}
    assert len(errors) == 3 * len(Reason)
    assert of(found, "jobwatt_build_info") == {("1.2.3",): 1.0}


def test_old_values_leave_the_page() -> None:
    """After two hours the table is what is left; the times stay."""
    found = series(ask("/metrics", T + 7201)[1])
    assert of(found, "jobwatt_grid_carbon_intensity_grams_per_kwh") == {
        ("lifecycle", "FR", "average", "owid", "2024"): 44.2
    }
    assert len(of(found, "jobwatt_grid_data_timestamp_seconds")) == 2


def test_the_catalog_is_what_is_served() -> None:
    """Names, types, labels and help of every family."""
    body = ask("/metrics")[1].decode()
    families = {f.name: f for f in text_string_to_metric_families(body)}
    for spec in GRID_METRICS:
        family = families[spec.name.removesuffix("_total")]
        assert family.documentation == spec.help
        assert {frozenset(sample.labels) for sample in family.samples} == {frozenset(spec.labels)}
    assert len(families) == len(GRID_METRICS)


def test_openmetrics_and_gzip() -> None:
    """What the client accepts is what it gets."""
    _, plain, headers = ask("/metrics", accept=OPENMETRICS)
    assert headers["type"].startswith("application/openmetrics-text")
    names = {f.name for f in parse_openmetrics(plain.decode())}  # type: ignore[no-untyped-call]
    assert "jobwatt_grid_errors" in names
    _, packed, headers = ask("/metrics", accept=OPENMETRICS, accept_encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed) == plain


def test_two_scrapes_are_the_same() -> None:
    """A scrape changes nothing."""
    assert ask("/metrics")[1] == ask("/metrics")[1]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/-/healthy", 200, b"healthy\n"),
        ("/-/ready", 200, b"ready\n"),
        ("/x", 404, b"nothing here; metrics are at /metrics\n"),
    ],
)
def test_other_paths(path: str, status: int, body: bytes) -> None:
    """Probes, and nothing else."""
    assert ask(path)[:2] == (status, body)


def words(body: bytes) -> str:
    """The text of a page, without its markup."""
    text = body.decode().partition("<main>")[2].partition("</main>")[0]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def test_the_page() -> None:
    """Zones with the value in use, who gives it, and how old it is."""
    status, body, headers = ask("/")
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    shown = words(body)
    assert "FR PUE 1.2 · 0.18 EUR/kWh 22.0 g/kWh" in shown
    assert "rte_eco2mix 22.0 average, direct 1 m 00 s in use forecast" in shown
    assert "owid 44.2 average, lifecycle 2024 France" in shown
    assert "US-CAL-CISO no value" in shown
    assert "watttime 408 marginal, direct 1 m 00 s down" in shown
    assert "electricity_maps asking" in shown
    assert "each month 2.00 MWh" in shown
    assert "CC BY 4.0" in body.decode()


def test_the_page_falls_back_to_the_table() -> None:
    """What is too old says so, and is not in use."""
    shown = words(ask("/", T + 3 * 3600)[1])
    assert "FR PUE 1.2 · 0.18 EUR/kWh 44.2 g/kWh" in shown
    assert "rte_eco2mix 22.0 average, direct 3 h 00 m too old forecast" in shown
    assert "owid 44.2 average, lifecycle 2024 in use France" in shown


def test_the_page_is_closed() -> None:
    """Nothing of files or providers becomes markup; the policy allows one style and no script."""
    body = ask("/")[1].decode()
    assert "<script" not in body
    assert html.escape(HOSTILE) in body
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'; style-src 'sha256-")
    assert ask("/")[2]["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
