"""The rules as they are committed: sound, named well, tested, and with a runbook each."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobwatt.exposition.catalog import METRICS
from servers import ROOT, prometheus3

PROMETHEUS = ROOT / "prometheus"
RUNBOOKS = ROOT / "docs/runbooks"
RUNBOOK_URL = "https://github.com/jobwatt/jobwatt/blob/main/docs/runbooks/"

CONTRACT = {
    "instance:jobwatt_device_power_watts": {"cluster", "instance", "component"},
    "cluster:jobwatt_device_power_watts": {"cluster", "component"},
}
"""The recorded series that others rely on, with the labels that they keep."""

RULE_FILES = sorted(PROMETHEUS.glob("rules/*/*.yml"))
TEST_FILES = sorted(PROMETHEUS.glob("tests/*.yml"))

Rule = dict[str, Any]


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def groups(kind: str) -> list[dict[str, Any]]:
    return [
        group for path in RULE_FILES if path.parent.name == kind for group in load(path)["groups"]
    ]


RECORDS: list[Rule] = [rule for group in groups("recording") for rule in group["rules"]]
ALERTS: list[Rule] = [rule for group in groups("alerts") for rule in group["rules"]]


def name(rule: Rule) -> str:
    severity = rule.get("labels", {}).get("severity")
    return f"{rule['alert']}-{severity}" if "alert" in rule else str(rule["record"])


each_record = pytest.mark.parametrize("rule", RECORDS, ids=name)
each_alert = pytest.mark.parametrize("rule", ALERTS, ids=name)


@pytest.fixture(scope="module", params=["2", "3"])
def promtool(request: pytest.FixtureRequest) -> str:
    """Debian's promtool 2.x, and one of 3.x that is fetched where it is not there yet."""
    if request.param == "2":
        found = shutil.which("promtool")
        assert found, "promtool is missing: make packages"
        return found
    return str(prometheus3() / "promtool")


def succeeds(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_configuration(promtool: str) -> None:
    """With all rules that it names, without a lint."""
    succeeds(promtool, "check", "config", PROMETHEUS / "prometheus.yml")
    succeeds(promtool, "check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES)


def test_rules_do_what_they_are_for(promtool: str) -> None:
    """The cases of prometheus/tests."""
    succeeds(promtool, "test", "rules", *TEST_FILES)


def test_alertmanager_takes_its_configuration() -> None:
    """By its own tool."""
    succeeds("amtool", "check-config", PROMETHEUS / "alertmanager.yml")


def test_every_rule_is_loaded() -> None:
    """No file lies beside the patterns of prometheus.yml."""
    patterns = load(PROMETHEUS / "prometheus.yml")["rule_files"]
    assert sorted(p for pattern in patterns for p in PROMETHEUS.glob(pattern)) == RULE_FILES
    assert sorted(PROMETHEUS.rglob("rules/**/*.yml")) == RULE_FILES


def test_groups_state_their_interval() -> None:
    """Deltas depend on it; it is not left to the site's default."""
    for group in groups("recording") + groups("alerts"):
        assert group["name"].startswith("jobwatt-")
        assert re.fullmatch(r"\d+[sm]", group["interval"])


def test_recorded_series_are_the_contract() -> None:
    """All of them, once."""
    assert sorted(rule["record"] for rule in RECORDS) == sorted(CONTRACT)


@each_record
def test_records_are_named_by_level_metric_operations(rule: Rule) -> None:
    """The level is what the sum keeps; a metric that is already at its meaning has no operation."""
    level, metric, *operations = rule["record"].split(":")
    assert re.fullmatch(r"jobwatt_[a-z_]+", metric)
    assert len(operations) <= 1
    assert not metric.endswith("_total")
    kept = {
        label.strip()
        for labels in re.findall(r"^\s*(?:sum|max) by \(([^)]*)\)", rule["expr"])
        for label in labels.split(",")
    }
    assert kept == CONTRACT[rule["record"]]
    assert level in kept


def test_metrics_exist() -> None:
    """What a rule asks for is in the catalog, or recorded by another."""
    known = {spec.name for spec in METRICS} | set(CONTRACT)
    for rule in RECORDS + ALERTS:
        words = set(re.findall(r"[a-z_:]*jobwatt_[a-z_:]+", rule["expr"]))
        assert words <= known, name(rule)


@each_alert
def test_alerts_say_what_they_must(rule: Rule) -> None:
    """Severity, a sentence that never varies, one that names the case, a runbook, and patience."""
    annotations = rule["annotations"]
    assert re.fullmatch(r"JobWatt([A-Z][a-z]+)+", rule["alert"])
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["for"]
    assert re.fullmatch(r"[A-Z][^{}]*\.", annotations["summary"])
    assert re.search(r"{{.*}}.*\.$", annotations["description"])
    assert annotations["runbook_url"] == f"{RUNBOOK_URL}{rule['alert']}.md"


@each_alert
def test_alerts_have_a_runbook(rule: Rule) -> None:
    """It tells what it means, what it harms, how to find the cause, and what helps."""
    lines = (RUNBOOKS / f"{rule['alert']}.md").read_text().splitlines()
    assert lines[0] == f"# {rule['alert']}"
    headings = [line for line in lines if line.startswith("## ")]
    assert headings == ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"]


def test_runbooks_have_an_alert() -> None:
    """None is left over."""
    assert {path.stem for path in RUNBOOKS.glob("JobWatt*.md")} == {r["alert"] for r in ALERTS}


def cases(kind: str) -> list[dict[str, Any]]:
    return [
        case for path in TEST_FILES for test in load(path)["tests"] for case in test.get(kind, ())
    ]


@each_record
def test_records_are_tested(rule: Rule) -> None:
    """With a value that must come out."""
    found = [case for case in cases("promql_expr_test") if rule["record"] in case["expr"]]
    assert any(case["exp_samples"] for case in found)


@each_alert
def test_alerts_are_tested(rule: Rule) -> None:
    """In a case in which they fire, and in one in which they do not."""
    found = [case for case in cases("alert_rule_test") if case["alertname"] == rule["alert"]]
    severities = [alert["exp_labels"]["severity"] for case in found for alert in case["exp_alerts"]]
    assert rule["labels"]["severity"] in severities
    assert any(not case["exp_alerts"] for case in found)


def test_alertmanager_names_alerts_that_exist() -> None:
    """An inhibition of nothing would go unnoticed."""
    text = (PROMETHEUS / "alertmanager.yml").read_text()
    assert set(re.findall(r"JobWatt[A-Za-z]+", text)) <= {rule["alert"] for rule in ALERTS}
