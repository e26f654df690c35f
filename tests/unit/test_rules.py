"""The rules as they are committed: sound, named well, tested, and with a runbook each."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobwatt.exposition.catalog import METRICS
from jobwatt.grid.table import NAME as TABLE
from jobwatt.grid_app import PROVIDERS
from servers import ROOT, prometheus3

PROMETHEUS = ROOT / "prometheus"
RUNBOOKS = ROOT / "docs/runbooks"
RULES_PAGE = ROOT / "docs/rules.md"
RUNBOOK_URL = "https://github.com/jobwatt/jobwatt/blob/main/docs/runbooks/"

JOB = {"cluster", "job_uid"}
ON_NODE = {"cluster", "instance", "job_uid"}
NAMES = {"user", "account", "queue", "k8s_namespace"}

CONTRACT = {
    "job_uid:jobwatt_job_energy_joules:delta": JOB | {"component"},
    "job_uid:jobwatt_job_carbon_grams:delta": JOB,
    "job_uid:jobwatt_job_cost:delta": JOB | {"currency"},
    "job_uid:jobwatt_job_full_energy_joules:delta": JOB,
    "job_uid:jobwatt_job_power_watts": JOB | {"component"},
    "job_uid:jobwatt_job_energy_budget:used_ratio": JOB,
    "account:jobwatt_account_energy_joules:delta": {"cluster", "account", "component"},
    "grid_zone:jobwatt_carbon_intensity_grams_per_kwh": {"grid_zone", "provider"},
    "instance:jobwatt_device_power_watts": {"cluster", "instance", "component"},
    "cluster:jobwatt_device_power_watts": {"cluster", "component"},
}
"""The recorded series that others rely on, with the labels that they keep."""

REPORTED = {
    "job_uid:jobwatt_job_estimated_energy_joules:delta": JOB,
    "job_uid:jobwatt_job_gpu_idle_energy_joules:delta": JOB,
    "job_uid:jobwatt_job_gpu_seconds:delta": JOB,
    "job_uid:jobwatt_job_cpu_seconds:delta": JOB,
    "job_uid:jobwatt_job_info:names": JOB | NAMES | {"kind", "job_name"},
    "user:jobwatt_job_energy_joules:delta": {"cluster", "component"} | NAMES,
}
"""What reports and long-term questions ask for besides: docs/rules.md."""

INTERNAL = {
    "instance:jobwatt_job_energy_joules:delta": ON_NODE | {"component", "source"},
    "instance:jobwatt_device_idle_energy_joules:delta": {"cluster", "instance", "component"},
    "job_uid:jobwatt_job_facility_energy_joules:delta": JOB | {"grid_zone"},
    "job_uid:jobwatt_job_energy_joules:sum": JOB,
    "global:jobwatt_job_energy_joules:sum_since": set(),
    "grid_zone:jobwatt_carbon_intensity_grams_per_kwh:snapshot": {"grid_zone", "provider"},
    "account:jobwatt_account_energy_joules:month_sum": {"account", "month"},
    "account:jobwatt_account_energy_budget:watts": {"account", "period"},
    "device:jobwatt_job_energy_joules:snapshot": ON_NODE | {"component", "device", "source"},
    "instance:jobwatt_job_measured_since_timestamp_seconds:snapshot": ON_NODE,
    "instance:jobwatt_job_gpu_idle_energy_joules:snapshot": ON_NODE,
    "instance:jobwatt_job_cpu_seconds:snapshot": ON_NODE,
    "instance:jobwatt_job_gpus:snapshot": ON_NODE,
    "instance:jobwatt_job_gpus:snapshot_time": ON_NODE,
    "global:jobwatt_job_measured_since_timestamp_seconds:snapshot_time": set(),
    "device:jobwatt_device_idle_energy_joules:snapshot": {
        "cluster",
        "instance",
        "component",
        "device",
    },
    "instance:jobwatt_account_energy_joules:snapshot": {
        "cluster",
        "instance",
        "account",
        "component",
    },
}
"""What other rules are made from."""

RECORDED = CONTRACT | REPORTED | INTERNAL

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


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_rules_do_what_they_are_for(promtool: str, path: Path) -> None:
    """The cases of prometheus/tests."""
    succeeds(promtool, "test", "rules", path)


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


def test_recorded_series_are_the_ones_that_are_told() -> None:
    """All of them, once; and docs/rules.md says what each series and each alert means."""
    assert sorted(rule["record"] for rule in RECORDS) == sorted(RECORDED)
    told = re.findall(r"^\| `([\w:]+)`", RULES_PAGE.read_text(), re.MULTILINE)
    assert sorted(told) == sorted({*RECORDED, *(rule["alert"] for rule in ALERTS)})


@each_record
def test_records_are_named_by_level_metric_operations(rule: Rule) -> None:
    """The level is a label that is kept; what is already at its meaning has no operation."""
    level, metric, *operations = rule["record"].split(":")
    assert re.fullmatch(r"jobwatt_[a-z_]+", metric)
    assert len(operations) <= 1
    assert not metric.endswith("_total")
    assert level in (RECORDED[rule["record"]] or {"global"})


@each_record
def test_records_keep_the_labels_that_are_told(rule: Rule) -> None:
    """In some case each of them is there, and in none is another."""
    found = {
        label
        for case in cases("promql_expr_test")
        if rule["record"] in case["expr"]
        for sample in case["exp_samples"]
        for label in re.findall(r"(\w+)=", sample["labels"])
    }
    told = RECORDED[rule["record"]]
    assert told - {"cluster", "k8s_namespace"} <= found <= told


def asked(expr: str) -> set[str]:
    """The metrics and recorded series in an expression."""
    return set(re.findall(r"[a-z_:]*jobwatt_[a-z_:]+", expr))


def test_a_counter_is_read_once() -> None:
    """Into its snapshot: a page that comes in between two rules would be in one of them alone."""
    read = [word for rule in RECORDS for word in set(re.findall(r"\w+_total\b", rule["expr"]))]
    read.remove("jobwatt_job_energy_joules_total")  # for power
    assert len(set(read)) == len(read) > 4


def questions(path: Path) -> list[str]:
    """The queries that a page tells, a paragraph each."""
    blocks = re.findall(r"^ *```promql\n(.*?)^ *```$", path.read_text(), re.DOTALL | re.MULTILINE)
    return [query for block in blocks for query in block.split("\n\n")]


def test_questions_are_sound(promtool: str, tmp_path: Path) -> None:
    """Each query that a page tells can be asked, of series that there are."""
    pages = [RULES_PAGE, *sorted(RUNBOOKS.glob("*.md"))]
    found = [query for page in pages for query in questions(page)]
    assert len(found) > 40
    rules = [{"record": f"query:number:{n}", "expr": query} for n, query in enumerate(found)]
    path = tmp_path / "questions.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "told", "rules": rules}]}))
    succeeds(promtool, "check", "rules", "--lint=none", path)
    known = {spec.name for spec in METRICS} | set(RECORDED)
    assert {word for query in found for word in asked(query)} <= known


def test_every_rule_is_used() -> None:
    """By the contract, reports, dashboards, questions that are told, alerts, or a rule in use."""
    used = set(CONTRACT)
    for path in (*(ROOT / "exporter").rglob("*.py"), *(ROOT / "grafana/source").glob("*.py")):
        used |= asked(path.read_text())
    for path in (RULES_PAGE, *RUNBOOKS.glob("*.md")):
        used |= {word for question in questions(path) for word in asked(question)}
    for rule in ALERTS:
        used |= asked(rule["expr"]) | asked(rule["annotations"]["description"])
    for rule in reversed(RECORDS):
        if rule["record"] in used or ":snapshot" in rule["record"]:
            used |= asked(rule["expr"])
    assert {rule["record"] for rule in RECORDS} - used == set()


def test_rules_stand_after_what_they_are_made_from() -> None:
    """In one group, so that none sees another's result an evaluation late."""
    for group in groups("recording"):
        seen: set[str] = set()
        for rule in group["rules"]:
            now = re.sub(r"last_over_time\([a-z_:]+\[1[hd]\] offset 1s\)", "", rule["expr"])
            assert {word for word in asked(now) if ":" in word} <= seen
            seen.add(rule["record"])


def test_providers_differ_in_what_the_rules_compare() -> None:
    """The first two letters choose between them."""
    names = [*PROVIDERS, TABLE]
    assert len({provider[:2] for provider in names}) == len(names)


def test_marginal_providers_are_left_out_by_name() -> None:
    """While one has no series, nothing else tells that its intensities are never in use."""
    grid = ROOT / "exporter/jobwatt/grid"
    marginal = [path.stem for path in grid.glob("*.py") if "Kind.MARGINAL" in path.read_text()]
    stale = next(rule["expr"] for rule in ALERTS if rule["alert"] == "JobWattCarbonDataStale")
    assert re.findall(r'provider!="(\w+)"', stale) == marginal


def test_metrics_exist() -> None:
    """What a rule asks for is in the catalog, or recorded by another."""
    known = {spec.name for spec in METRICS} | set(RECORDED)
    for rule in RECORDS + ALERTS:
        assert asked(rule["expr"]) <= known, name(rule)


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
    names = [rule["alert"] for rule in ALERTS]
    config = load(PROMETHEUS / "alertmanager.yml")
    matchers = [matcher for route in config["route"]["routes"] for matcher in route["matchers"]]
    for rule in config["inhibit_rules"]:
        matchers += rule["source_matchers"] + rule["target_matchers"]
    for matcher in matchers:
        label, operator, value = matcher.split(" ", 2)
        if label == "alertname":
            pattern = value.strip('"')
            pattern = pattern if operator == "=~" else re.escape(pattern)
            for part in re.split(r"\|(?![^(]*\))", pattern):
                assert any(re.fullmatch(part, name) for name in names), part


@pytest.mark.parametrize(
    ("labels", "own"),
    [
        (["alertname=JobWattJobBudgetNear", "severity=info"], True),
        (["alertname=JobWattAccountBudgetBurn", "severity=warning"], True),
        (["alertname=JobWattGpuHeldIdle", "severity=warning"], True),
        (["alertname=JobWattExporterDown", "severity=warning"], False),
        (["alertname=JobWattMeterGaps", "severity=info"], False),
    ],
)
def test_alerts_are_routed(labels: list[str], own: bool) -> None:
    """To the one receiver that is there; a job's or an account's in a message of its own."""
    path = PROMETHEUS / "alertmanager.yml"
    command = ["amtool", "config", "routes", "test", "--tree", "--verify.receivers=site"]
    done = subprocess.run(
        [*command, f"--config.file={path}", *labels], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ("JobWattGpuHeldIdle" in done.stdout) == own
    assert {"job_uid", "account"} <= set(load(path)["route"]["routes"][0]["group_by"])


def test_operator_has_the_same_rules() -> None:
    """The PrometheusRule is made of the rules, and applied by its kustomization."""
    folder = ROOT / "deploy/kubernetes/rules"
    succeeds(sys.executable, ROOT / "tools/kubernetes_rules.py", "--check")
    assert load(folder / "kustomization.yaml")["resources"] == ["prometheusrule.yaml"]
    groups_there = load(folder / "prometheusrule.yaml")["spec"]["groups"]
    assert sorted(map(str, groups_there)) == sorted(
        map(str, groups("recording") + groups("alerts"))
    )
