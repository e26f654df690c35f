"""The committed dashboards are what their source says, and ask for what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from jobwatt.exposition.catalog import METRICS

REPOSITORY = Path(__file__).parents[2]
GRAFANA = REPOSITORY / "grafana"
BUILD = GRAFANA / "source" / "build.py"
DASHBOARDS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((GRAFANA / "dashboards").glob("*.json"))
}
UIDS = {"node": "jobwatt-node"}
"""Addresses that people have bookmarked: a uid never changes."""

OF_PROMETHEUS = {"up"}
"""Series that Prometheus makes by itself."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GRAFANA_VALUES = {
    "$__rate_interval": "1m",
    "$__range": "1h",
    "$cluster": ".*",
    "$instance": "node-1:9743",
}

Json = dict[str, Any]


# --- helpers ------------------------------------------------------------------------------------


def build(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BUILD, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _panels() -> Iterator[Any]:
    """Every panel that shows data, under a name that a failing test can be found by."""
    for name, board in DASHBOARDS.items():
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield pytest.param(panel, id=f"{name}/{panel['title']}")


PANELS = list(_panels())


def _queries() -> Iterator[Any]:
    for parameter in PANELS:
        for target in parameter.values[0]["targets"]:
            yield pytest.param(target["expr"], id=f"{parameter.id}/{target['refId']}")


QUERIES = list(_queries())


def parsed(expr: str) -> promql_parser.Expr:
    """The expression as Prometheus gets it; a variable that nobody set is an error."""
    for variable, text in GRAFANA_VALUES.items():
        expr = expr.replace(variable, text)
    assert "$" not in expr
    return promql_parser.parse(expr)


def nodes(expr: str) -> list[promql_parser.Expr]:
    found: list[promql_parser.Expr] = []
    promql_parser.walk(parsed(expr), found.append)
    return found


def variables(board: Json) -> dict[str, Json]:
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def datasources(part: object) -> Iterator[object]:
    """Every datasource that is named anywhere below."""
    if isinstance(part, dict):
        if "datasource" in part:
            yield part["datasource"]
        for below in part.values():
            yield from datasources(below)
    elif isinstance(part, list):
        for below in part:
            yield from datasources(below)


def provisioned(kind: str) -> Json:
    (path,) = (GRAFANA / "provisioning" / kind).glob("*.yml")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content["apiVersion"] == 1
    (only,) = content[{"datasources": "datasources", "dashboards": "providers"}[kind]]
    assert isinstance(only, dict)
    return only


# --- generated files ----------------------------------------------------------------------------


def test_committed_dashboards_are_what_the_source_says() -> None:
    """Whoever edits the source commits the JSON with it."""
    result = build("--check")
    assert (result.stderr, result.returncode) == ("", 0)


def test_dashboards_are_built_alike_each_time(tmp_path: Path) -> None:
    """Nothing in them comes from chance, the clock or the machine."""
    assert build("--into", tmp_path).returncode == 0
    for name in DASHBOARDS:
        committed = GRAFANA / "dashboards" / f"{name}.json"
        assert (tmp_path / f"{name}.json").read_text() == committed.read_text()


def test_check_names_every_file_that_differs(tmp_path: Path) -> None:
    """Changed, missing and left over: each has its sentence, and the way out."""
    folder = tmp_path / "dashboards"
    shutil.copytree(GRAFANA / "dashboards", folder)
    (folder / "node.json").write_text("{}")
    (folder / "gone.json").write_text("{}")
    result = build("--check", "--into", folder)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "gone.json is nobody's: run `python grafana/source/build.py`",
        "node.json is not what grafana/source says: run `python grafana/source/build.py`",
    ]
    (folder / "node.json").unlink()
    assert "node.json is missing: run" in build("--check", "--into", folder).stderr
    assert (folder / "gone.json").read_text() == "{}"


# --- a dashboard as a whole ---------------------------------------------------------------------


def test_uids_are_stable() -> None:
    """Every dashboard is known here, at the address that it has always had."""
    assert {name: board["uid"] for name, board in DASHBOARDS.items()} == UIDS


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_dashboards_say_what_they_answer_and_link_to_each_other(board: Json) -> None:
    """A title, one question, the tag that the menu is made of, and links that keep the view."""
    assert board["title"].startswith("JobWatt / ")
    assert board["description"].endswith("?")
    assert board["tags"] == ["jobwatt"]
    (menu,) = board["links"]
    assert menu["tags"] == ["jobwatt"]
    assert menu["keepTime"]
    assert menu["includeVars"]


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_datasource_is_a_variable(board: Json) -> None:
    """A dashboard works in any Grafana: it names no data source but the reader's choice."""
    found = list(datasources(board))
    assert found
    assert [other for other in found if other != DATASOURCE] == []
    chosen = variables(board)["datasource"]
    assert (chosen["type"], chosen["query"]) == ("datasource", "prometheus")


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_clusters_are_optional(board: Json) -> None:
    """All matches also the series of a Prometheus that knows no clusters."""
    cluster = variables(board)["cluster"]
    assert (cluster["includeAll"], cluster["allValue"]) == (True, ".*")
    assert cluster["current"]["value"] == ["$__all"]


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_variables_ask_for_metrics_that_exist(board: Json) -> None:
    """Nodes and clusters are found by a metric of the catalog."""
    for variable in variables(board).values():
        if variable["type"] == "query":
            selector = re.fullmatch(r"label_values\((.+), \w+\)", variable["query"])
            assert selector
            assert metrics(selector[1]) <= {spec.name for spec in METRICS}


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_panels_fill_the_page_and_do_not_overlap(board: Json) -> None:
    """Each cell of the 24 columns belongs to exactly one panel."""
    cells = [
        (x, y)
        for panel in board["panels"]
        for position in [panel["gridPos"]]
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]
    assert len(set(cells)) == len(cells)
    height = max(y for _, y in cells) + 1
    assert set(cells) == {(x, y) for x in range(24) for y in range(height)}
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)


# --- panels and their queries -------------------------------------------------------------------


def metrics(expr: str) -> set[str]:
    """The names of all metrics in an expression."""
    selectors = [n for n in nodes(expr) if isinstance(n, promql_parser.VectorSelector)]
    ranges = [n for n in nodes(expr) if isinstance(n, promql_parser.MatrixSelector)]
    return {str(selector.name) for selector in (*selectors, *(r.vector_selector for r in ranges))}


@pytest.mark.parametrize("panel", PANELS)
def test_panels_have_title_description_and_unit(panel: Json) -> None:
    """No panel leaves the reader to guess."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]


@pytest.mark.parametrize("panel", PANELS)
def test_series_have_names(panel: Json) -> None:
    """Every series has a legend; a table has its labels as columns instead."""
    for target in panel["targets"]:
        assert target["legendFormat"] or target["format"] == "table"


@pytest.mark.parametrize("expr", QUERIES)
def test_queries_ask_for_metrics_that_exist(expr: str) -> None:
    """Every name is in the catalog, or Prometheus' own."""
    assert metrics(expr)
    assert metrics(expr) <= {spec.name for spec in METRICS} | OF_PROMETHEUS


@pytest.mark.parametrize("expr", QUERIES)
def test_queries_are_about_the_chosen_node(expr: str) -> None:
    """No panel shows another node's series."""
    selectors = re.findall(r"\b(?:jobwatt_\w+|process_\w+|up\b)({[^}]*})?", expr)
    assert set(selectors) == {'{cluster=~"$cluster",instance="$instance"}'}


ACROSS = {
    "counter": {"increase"},
    "gauge": {"avg_over_time", "count_over_time", "delta", "last_over_time"},
    "info": {"last_over_time"},
    "up": {"count_over_time", "sum_over_time"},
}
"""What may be done over time, by kind; a rate of a gauge means nothing."""

ALSO = {
    "process_cpu_seconds_total": {"rate"},
    "jobwatt_device_energy_joules_total": {"count_over_time", "last_over_time"},
}
"""Beyond that: how long it was there, and that it was."""


@pytest.mark.parametrize("expr", QUERIES)
def test_windows_are_grafanas_own(expr: str) -> None:
    """Its interval follows the scrape interval and the zoom; the range is the chosen one."""
    assert set(re.findall(r"\[([^]]+)\]", expr)) <= {"$__rate_interval", "$__range"}


@pytest.mark.parametrize("expr", QUERIES)
def test_functions_fit_the_kind_of_metric(expr: str) -> None:
    """A rate is one of a counter, and never of one that steps."""
    kinds = {spec.name: spec.kind for spec in METRICS} | {"up": "up"}
    for function, metric in re.findall(r"\b(\w+)\((\w+)(?:{[^}]*})?\[", expr):
        assert function in ACROSS[kinds[metric]] | ALSO.get(metric, set())
        assert metric != "jobwatt_retired_energy_joules_total"


# --- what panels say in bad hours ---------------------------------------------------------------

TARGET = 'job="jobwatt",instance="node-1:9743"'


def series(name: str, values: str, labels: str = "") -> Json:
    return {"series": f"{name}{{{TARGET}{labels}}}", "values": values}


def device(number: int, power: str, energy: str) -> list[Json]:
    """A package of which nothing is idle and all is known, scraped every 15 s."""
    labels = f',component="cpu",device="package-{number}"'
    measured = f'{labels},source="rapl"'
    return [
        series("jobwatt_device_power_watts", power, measured),
        series("jobwatt_device_energy_joules_total", energy, measured),
        series("jobwatt_process_other_energy_joules_total", energy, measured),
        series("jobwatt_device_idle_energy_joules_total", "0x200", labels),
        series("jobwatt_device_unattributed_energy_joules_total", "0x200", labels),
        series("jobwatt_device_idle_power_watts", "0x200", f'{labels},method="fitted"'),
    ]


def exporter(up: str, last_sample: str, source_up: str) -> list[Json]:
    return [
        series("up", up),
        series("jobwatt_build_info", last_sample.replace("+15", "").replace("0x", "1x"), ""),
        series("jobwatt_last_sample_timestamp_seconds", last_sample),
        series("jobwatt_source_up", source_up, ',source="rapl"'),
    ]


# Each hour is 10 minutes old, and good until minute 5.
HEALTHY = [*exporter("1x40", "0+15x40", "1x40"), *device(0, "100x40", "0+1500x40")]
STALLED = [
    *exporter("1x40", "0+15x20 300x20", "1x40"),
    *device(0, "100x40", "0+1500x20 30000x20"),
]
RECOVERED = [  # stalled from minute 5 to minute 8
    *exporter("1x40", "0+15x20 300x11 495+15x8", "1x40"),
    *device(0, "100x40", "0+1500x20 30000x11 49500+1500x8"),
]
DOWN = [
    *exporter("1x20 0x20", "0+15x20 stale", "1x20 stale"),
    *device(0, "100x20 stale", "0+1500x20 stale"),
]
UNREAD = [  # one of two devices, from minute 5 to minute 8
    *exporter("1x40", "0+15x40", "1x20 0x11 1x8"),
    *device(0, "100x40", "0+1500x40"),
    *device(1, "100x20 stale _x11 100x8", "0+1500x20 30000x11 49500+1500x8"),
]


def expression(title: str, ref: str) -> str:
    """A query of the dashboard Node, as Grafana would send it for ten minutes."""
    (panel,) = [p for p in DASHBOARDS["node"]["panels"] if p["title"] == title]
    (expr,) = [target["expr"] for target in panel["targets"] if target["refId"] == ref]
    for variable, text in (GRAFANA_VALUES | {"$__range": "10m"}).items():
        expr = expr.replace(variable, text)
    assert isinstance(expr, str)
    return expr


BAD_HOURS: list[tuple[list[Json], str, str, str, Json]] = [
    (HEALTHY, "Power now", "A", "10m", {"{}": 100}),
    (STALLED, "Power now", "A", "10m", {"{}": -1}),
    (DOWN, "Power now", "A", "10m", {"{}": -1}),
    ([], "Power now", "A", "10m", {"{}": -1}),
    (HEALTHY, "Power by source", "A", "10m", {'{source="rapl"}': 100}),
    (STALLED, "Power by source", "A", "10m", {"{}": -1}),
    (HEALTHY, "Last sample", "A", "10m", {"{}": 1}),
    (STALLED, "Last sample", "A", "6m", {"{}": 1}),
    (STALLED, "Last sample", "A", "10m", {"{}": 2}),
    (DOWN, "Last sample", "A", "10m", {"{}": 0}),
    ([], "Last sample", "A", "10m", {"{}": 0}),
    (HEALTHY, "Last sample", "B", "10m", {"{}": 0}),
    (STALLED, "Last sample", "B", "10m", {"{}": 300}),
    (DOWN, "Last sample", "B", "10m", {"{}": 300}),
    ([], "Last sample", "B", "10m", {"{}": -1}),
    (HEALTHY, "Sources", "A", "10m", {"{}": 0}),
    (UNREAD, "Sources", "A", "6m", {"{}": 1}),
    (STALLED, "Sources", "A", "10m", {"{}": -1}),
    (DOWN, "Sources", "A", "10m", {"{}": -3}),
    ([], "Sources", "A", "10m", {"{}": -3}),
    (DOWN, "Idle share", "A", "10m", {"{}": 0}),
    (DOWN, "Sources over time", "B", "10m", {"{}": 0}),
    (DOWN, "Trouble in the range", "A", "10m", {"{}": 20}),
    (DOWN, "Trouble in the range", "B", "10m", {"{}": 300}),
    (STALLED, "Trouble in the range", "A", "10m", {"{}": 0}),
    (STALLED, "Trouble in the range", "B", "10m", {"{}": 300}),
    # All of it is of other processes (C). One device of two is left; the other comes back without
    # what it used meanwhile.
    (UNREAD, "Where the power goes", "C", "5m", {"{}": 200}),
    (UNREAD, "Where the power goes", "C", "7m", {"{}": 100}),
    (UNREAD, "Where the power goes", "C", "8m15s", {"{}": 100}),
    (UNREAD, "Where the power goes", "C", "10m", {"{}": 200}),
    (STALLED, "Where the power goes", "C", "7m", {}),
    (RECOVERED, "Where the power goes", "C", "7m", {}),
    (RECOVERED, "Where the power goes", "C", "8m15s", {"{}": 100}),
    (RECOVERED, "Where the power goes", "C", "10m", {"{}": 100}),
    (DOWN, "Where the power goes", "C", "10m", {}),
]


def come_out(folder: Path, cases: list[tuple[list[Json], str, str, Json]]) -> None:
    """Let promtool compare: series, expression, time, and what must come out."""
    tests = [
        {
            "interval": "15s",
            "input_series": history,
            "promql_expr_test": [
                {
                    "expr": expr,
                    "eval_time": at,
                    "exp_samples": [{"labels": k, "value": v} for k, v in expected.items()],
                }
            ],
        }
        for history, expr, at, expected in cases
    ]
    path = folder / "cases.yml"
    path.write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": tests}))
    command = ["promtool", "test", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_figures_are_honest_in_bad_hours(tmp_path: Path) -> None:
    """Stalled, down, unread, never there: nothing old is shown as now, no spike is invented."""
    come_out(
        tmp_path,
        [(hour, expression(title, ref), at, out) for hour, title, ref, at, out in BAD_HOURS],
    )


def test_unread_device_is_a_gap_and_not_zero(tmp_path: Path) -> None:
    """It is not a number: its line is interrupted, its row says so."""
    come_out(
        tmp_path,
        [
            # Only what is not a number differs from itself.
            (UNREAD, f"count(({expr}) != ({expr})) or vector(0)", at, {"{}": unread})
            for expr in (expression("Power by device", "A"), expression("Devices", "A"))
            for at, unread in (("5m", 0), ("7m", 1), ("10m", 0))
        ],
    )


# --- provisioning -------------------------------------------------------------------------------


def test_provisioned_datasource_is_the_one_that_dashboards_begin_with() -> None:
    """A fresh Grafana shows figures without a click."""
    source = provisioned("datasources")
    assert (source["type"], source["uid"]) == ("prometheus", "prometheus")
    assert source["url"] == "http://prometheus:9090"
    for board in DASHBOARDS.values():
        assert variables(board)["datasource"]["current"]["value"] == source["uid"]


def test_provisioned_scrape_interval_is_that_of_prometheus() -> None:
    """`$__rate_interval` is made of it: too short a one leaves gaps, too long a one blurs."""
    path = REPOSITORY / "prometheus" / "prometheus.yml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    interval = provisioned("datasources")["jsonData"]["timeInterval"]
    assert interval == config["global"]["scrape_interval"]


def test_provisioned_dashboards_are_read_from_where_they_are_mounted() -> None:
    """Files only: what is edited in the browser would be lost."""
    provider = provisioned("dashboards")
    assert (provider["folder"], provider["type"]) == ("JobWatt", "file")
    assert provider["options"] == {"path": "/etc/jobwatt/dashboards"}
    assert provider["allowUiUpdates"] is False
