"""docs/grid.md says what is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobwatt.config import load_config
from jobwatt.exposition.catalog import GRID_METRICS
from jobwatt.grid.contract import Reason
from jobwatt.grid.schedule import parse_week
from jobwatt.grid_app import PROVIDERS, make_plan
from servers import ROOT

PAGE = (ROOT / "docs/grid.md").read_text()
CONFIGURATION, SCHEDULE = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def first_cells() -> set[str]:
    """What stands in code in the first column of a table."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    return {word for row in rows for word in re.findall(r"`([^`]*)`", row.split("|")[1])}


def test_reasons_and_providers_are_told() -> None:
    """Each has a row, and no row is about another one."""
    providers = {"owid", *PROVIDERS}
    keys = {"country", "pue", "price", "currency", "providers"}
    metrics = {cell for cell in first_cells() if cell.startswith("jobwatt_")}
    assert first_cells() - metrics == {str(reason) for reason in Reason} | providers | keys
    assert metrics <= {spec.name for spec in GRID_METRICS}


def test_the_example_works(tmp_path: Path) -> None:
    """As it stands there, with the tokens where it says."""
    token = tmp_path / "token"
    token.write_text("x")
    path = tmp_path / "jobwatt.yml"
    path.write_text(CONFIGURATION.replace("/etc/jobwatt/electricity_maps", str(token)))
    config = load_config({"config.file": str(path)}, {}, command="grid")
    plan = make_plan(config, {"WATTTIME_PASSWORD": "x"})
    assert [(feed.zone, feed.provider.name) for feed in plan.feeds] == [
        ("FR", "rte_eco2mix"),
        ("US-CAL-CISO", "electricity_maps"),
        ("US-CAL-CISO", "watttime"),
    ]


def test_the_schedule_works() -> None:
    """A Wednesday at noon in Paris."""
    assert parse_week(SCHEDULE.encode()).at(1_714_557_600.0) == pytest.approx(58)
