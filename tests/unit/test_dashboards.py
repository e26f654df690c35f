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
    """Every name is in the catalog."""
    assert metrics(expr)
    assert metrics(expr) <= {spec.name for spec in METRICS}


@pytest.mark.parametrize("expr", QUERIES)
def test_queries_are_about_the_chosen_node(expr: str) -> None:
    """No panel shows another node's series."""
    selectors = re.findall(r"(?:jobwatt|process)_\w+({[^}]*})?", expr)
    assert set(selectors) == {'{cluster=~"$cluster",instance="$instance"}'}


@pytest.mark.parametrize("expr", QUERIES)
def test_rates_follow_the_scrape_interval(expr: str) -> None:
    """A rate takes Grafana's interval, and only what grows for the whole range takes the range."""
    for function, window in re.findall(r"\b(\w+)\((?:jobwatt|process)_\w+{[^}]*}\[([^]]+)\]", expr):
        assert (function, window) in {
            ("rate", "$__rate_interval"),
            ("increase", "$__rate_interval"),
            ("increase", "$__range"),
        }


@pytest.mark.parametrize("expr", QUERIES)
def test_only_counters_are_rated_and_steps_never(expr: str) -> None:
    """A rate of a gauge means nothing, nor does one of a counter that steps."""
    counters = {spec.name for spec in METRICS if spec.kind == "counter"}
    counters.remove("jobwatt_retired_energy_joules_total")
    for node in nodes(expr):
        if isinstance(node, promql_parser.MatrixSelector):
            assert node.vector_selector.name in counters


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
