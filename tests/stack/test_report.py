"""`jobwatt report` over a real Prometheus whose past is made up, so that the truth is known."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fakes.history import (
    GRAMS_PER_JOULE,
    PRICE_PER_JOULE,
    History,
    PastJob,
    prometheus_over,
    victoria_over,
)
from servers import JOBWATT, prometheus3

pytestmark = pytest.mark.stack

DAY = 86_400
FROM = 1_700_006_400
"""A midnight (UTC), on which a sample of every running job lies."""

TO = FROM + 2 * DAY
HOSTILE = 'run:a"b\\c\n|{}=~.*$é日'
NAMES = {"kind": "slurm", "job_name": "bert", "user": "alice", "account": "nlp", "queue": "gpu"}


def on(start: float, end: float, *nodes: str) -> dict[str, tuple[float, float]]:
    return dict.fromkeys(nodes or ("n1:9743",), (FROM + start, FROM + end))


MANY = {f"n{i}:9743": (FROM + 7200.0, FROM + 7300.0 + 5 * i) for i in range(64)}

JOBS = [
    PastJob("slurm:1", on(3607, 3652), {"cpu": 100.0, "dram": 10.0}, names=NAMES),
    PastJob("slurm:2", MANY, {"gpu": 200.0}, names=NAMES | {"user": "bob"}),
    PastJob("slurm:3", on(-1000, 500), {"cpu": 50.0}, currency="EUR"),
    PastJob("slurm:4", on(2 * DAY - 600, 2 * DAY + 3600), {"cpu": 80.0}, currency="CHF"),
    PastJob("slurm:5", on(-400, -100), {"cpu": 70.0}),
    PastJob(HOSTILE, on(10_000, 10_100), {"cpu": 20.0}, names={"job_name": "=1|2", "user": "x\ny"}),
    PastJob("slurm:6", on(20_000, 21_200), {"cpu": 10.0}, measured_from=600.0),
    PastJob("slurm:7", on(30_000, 30_100), {"cpu": 10.0}, is_recorded=False),
    PastJob("slurm:8", on(40_000, 40_100), {"cpu": 30.0}, deadline=FROM + 40_100.0),
    PastJob(
        "slurm:9",
        on(DAY - 307, DAY + 308),
        {"cpu": 40.0, "gpu": 300.0},
        gpus=2,
        gpu_idle_watts=120.0,
        currency="EUR",
        names=NAMES,
    ),
    PastJob("slurm:1", on(3600, 3700), {"cpu": 10.0}, cluster="b", has_carbon=False),
    PastJob("slurm:10", on(50_000, 50_200), {"cpu": 25.0}, estimated=True),
]


def past(*, recorded: bool = True) -> History:
    """These jobs, and two nodes' devices: 100 W, of them 60 W idle and 10 W unattributed."""
    history = History(TO + 3600)
    for job in JOBS:
        history.add_job(job)
    for node, begin, end in (("n1:9743", -3600, 2 * DAY + 3600), ("n2:9743", 6000, 9000)):
        here = {"instance": node, "component": "cpu", "device": "package-0"}
        for at in range(FROM + begin, FROM + end + 1, 300):
            for name, watts in (("", 100), ("_idle", 60), ("_unattributed", 10)):
                metric = f"jobwatt_device{name}_energy_joules_total"
                history.add(metric, here, at, 1e9 + watts * (at - FROM))
            history.add("jobwatt_build_info", {"instance": node, "version": "1"}, at, 1)
    if not recorded:
        for key in [key for key in history.series if key[0].startswith("job_uid:")]:
            del history.series[key]
    return history


SITES = {
    "Prometheus 2": prometheus_over,
    "Prometheus 3": lambda past, folder: prometheus_over(past, folder, prometheus3()),
    "Prometheus 3 that refuses a day of a series": lambda past, folder: prometheus_over(
        past, folder, prometheus3(), "--query.max-samples=200"
    ),
    "VictoriaMetrics": victoria_over,
}


@pytest.fixture(scope="module", params=list(SITES))
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Each of these with the same past."""
    with SITES[request.param](past(), tmp_path_factory.mktemp("site")) as url:
        yield url


def time_text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def reported(
    url: str, *arguments: str, begin: float = FROM, end: float = TO, kind: str = "json"
) -> str:
    command: Sequence[str | Path] = [
        JOBWATT,
        "report",
        f"--prometheus.url={url}",
        f"--from={time_text(begin)}",
        f"--to={time_text(end)}",
        f"--format={kind}",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def rows(url: str, *arguments: str, begin: float = FROM, end: float = TO) -> dict[Any, Any]:
    """Rows of a report by job, by cluster and job_uid."""
    page = json.loads(reported(url, *arguments, begin=begin, end=end))
    return {(row["cluster"], row["job_uid"]): row for row in page["rows"]}


def test_energy_is_exact(site: str) -> None:
    """Of jobs shorter than two scrapes, of many nodes, over borders, with any name."""
    found = rows(site)
    assert {key: row["energy_joules"] for key, row in found.items()} == {
        (None, "slurm:1"): pytest.approx(45 * 110),
        (None, "slurm:2"): pytest.approx(sum(200 * (100 + 5 * i) for i in range(64))),
        (None, "slurm:3"): pytest.approx(500 * 50),
        (None, "slurm:4"): pytest.approx(600 * 80),
        (None, HOSTILE): pytest.approx(100 * 20),
        (None, "slurm:6"): pytest.approx(600 * 10),
        (None, "slurm:7"): None,
        (None, "slurm:8"): pytest.approx(100 * 30),
        (None, "slurm:9"): pytest.approx(615 * 340),
        ("b", "slurm:1"): pytest.approx(100 * 10),
        (None, "slurm:10"): pytest.approx(200 * 25),
    }


def test_all_figures_of_a_job(site: str) -> None:
    """Literally."""
    row = rows(site, "--job=slurm:9")[None, "slurm:9"]
    energy = 615 * 340.0
    assert row == {
        "cluster": None,
        "job_uid": "slurm:9",
        "kind": "slurm",
        "job_name": "bert",
        "user": "alice",
        "account": "nlp",
        "queue": "gpu",
        "namespace": None,
        "state": "ended",
        "started": FROM + DAY - 307,
        "ended": FROM + DAY + 308,
        "nodes": 1,
        "jobs": 1,
        "began_before": 0,
        "goes_on": 0,
        "energy_joules": pytest.approx(energy),
        "components": {"cpu": pytest.approx(615 * 40), "gpu": pytest.approx(615 * 300)},
        "full_energy_joules": pytest.approx(energy + 615 * 120),
        "estimated_joules": 0.0,
        "gpu_idle_joules": pytest.approx(615 * 120),
        "gpu_idle_ratio": pytest.approx(120 / 460),
        "gpu_seconds": pytest.approx(1230),
        "cpu_seconds": pytest.approx(1230),
        "carbon_grams": pytest.approx(energy * GRAMS_PER_JOULE),
        "cost": {"EUR": pytest.approx(energy * PRICE_PER_JOULE)},
        "node_seconds": pytest.approx(615),
        "measured_ratio": pytest.approx(1),
    }


def test_touching_ranges_add_up(site: str) -> None:
    """A sample on the border between them is in one of them, and in one only."""
    whole = rows(site)
    parts = [rows(site, begin=FROM, end=FROM + DAY), rows(site, begin=FROM + DAY, end=TO)]
    for key, row in whole.items():
        joules = [part[key]["energy_joules"] for part in parts if key in part]
        if row["energy_joules"] is not None:
            assert sum(joules) == pytest.approx(row["energy_joules"])
    assert [part[None, "slurm:9"]["energy_joules"] for part in parts] == [
        pytest.approx(307 * 340),
        pytest.approx(308 * 340),
    ]
    assert (None, "slurm:1") not in parts[1]


def test_lives(site: str) -> None:
    """States, and what is cut by the range; a job that only lingers in it is not of it."""
    found = rows(site)
    of = {uid: found[None, uid] for uid in ("slurm:3", "slurm:4", "slurm:6", "slurm:8")}
    assert {uid: row["state"] for uid, row in of.items()} == {
        "slurm:3": "ended",
        "slurm:4": "running",
        "slurm:6": "ended",
        "slurm:8": "deadline",
    }
    assert [row["began_before"] for row in of.values()] == [1, 0, 0, 0]
    assert [row["goes_on"] for row in of.values()] == [0, 1, 0, 0]
    assert [row["node_seconds"] for row in of.values()] == [500, 600, 1200, 100]
    assert [row["measured_ratio"] for row in of.values()] == [1, 1, 0.5, 1]
    assert (None, "slurm:5") not in found
    assert found[None, "slurm:2"]["nodes"] == 64


def test_groups_and_sums(site: str) -> None:
    """By user; what is left off is summed up, and all rows are the total."""
    page = json.loads(reported(site, "--by=user", "--top=1"))
    assert [(row["user"], row["jobs"]) for row in page["rows"]] == [("bob", 1)]
    assert page["others"]["jobs"] == 10
    total = 45 * 110 + 3_296_000 + 25_000 + 48_000 + 2000 + 6000 + 3000 + 209_100 + 1000 + 5000
    assert page["total"]["energy_joules"] == pytest.approx(total)
    assert page["others"]["energy_joules"] == pytest.approx(total - 3_296_000)
    assert page["total"]["cost"] == {
        "CHF": pytest.approx(48_000 * PRICE_PER_JOULE),
        "EUR": pytest.approx(234_100 * PRICE_PER_JOULE),
    }
    assert page["total"]["estimated_joules"] == pytest.approx(5000)


def test_devices_energy_closes(site: str) -> None:
    """Jobs, idle, unattributed and what is left of measured, named so."""
    page = json.loads(reported(site))
    assert page["method"] == "recorded"
    measured = page["site"].pop("measured_joules")
    # The second node came after the range's begin, and went before its end.
    assert measured == pytest.approx(100 * 2 * DAY + 100 * 3000)
    assert page["site"]["idle_joules"] == pytest.approx(60 * 2 * DAY + 60 * 3000)
    assert page["site"]["unattributed_joules"] == pytest.approx(10 * 2 * DAY + 10 * 3000)
    assert page["site"]["jobs_joules"] == page["total"]["energy_joules"]
    assert sum(page["site"].values()) == pytest.approx(measured)


def test_notes(site: str) -> None:
    """What the sums do not have."""
    notes = json.loads(reported(site))["notes"]
    assert "the energy of 1 job is not known, and in no sum" in notes
    assert "the carbon of 1 job (1000.00 J) is not known, and in no sum" in notes
    assert "1 job began before the range: only energy within it is told" in notes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--user=bob",), {(None, "slurm:2")}),
        (("--user=bob", "--user=x\ny"), {(None, "slurm:2"), (None, HOSTILE)}),
        (("--account=nlp", "--queue=gpu", "--job=slurm:1"), {(None, "slurm:1")}),
        (("--cluster=b",), {("b", "slurm:1")}),
        (("--kind=slurm", "--account=none"), set()),
        ((f"--job={HOSTILE}", "--job=slurm:8"), {(None, HOSTILE), (None, "slurm:8")}),
        (("--job=slurm:*",), set()),
    ],
)
def test_filters(site: str, arguments: Sequence[str], expected: set[object]) -> None:
    """Exact values, never patterns; several of one filter are alternatives."""
    assert rows(site, *arguments).keys() == expected


def test_csv(site: str) -> None:
    """As many lines as jobs, whatever these are called; no cell is a formula."""
    found = list(csv.DictReader(io.StringIO(reported(site, kind="csv"), newline="")))
    assert len(found) == 11
    hostile = next(line for line in found if line["job_uid"] == HOSTILE)
    assert hostile["job_name"] == "'=1|2"
    assert (hostile["energy_joules"], hostile["cost_EUR"]) == ("2000.0", "")


def test_markdown(site: str) -> None:
    """A name cannot leave its cell."""
    lines = reported(site, kind="markdown").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 11 + 1
    assert {line.replace(r"\|", "").count("|") for line in table} == {table[1].count("|")}


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
def test_table(site: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fits; the biggest first, all others in one row, and the sum."""
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = reported(site, "--top=3", kind="table").splitlines()
    assert max(map(len, lines)) <= columns
    start = next(i for i, line in enumerate(lines) if line.startswith("JOB "))
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == [
        "slurm:2",
        "slurm:9",
        "slurm:4",
    ]
    assert set(lines[start + 4]) == {"-"}
    assert lines[start + 5].startswith("8 others")
    assert lines[start + 6].startswith("TOTAL 11")


def test_progress_is_for_terminals(site: str) -> None:
    """On stderr, and gone at the end."""
    master, terminal = pty.openpty()
    arguments = [f"--prometheus.url={site}", f"--to={time_text(TO)}"]
    command: Sequence[str | Path] = [JOBWATT, "report", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=terminal, env=os.environ | {"TERM": "xterm"}
    ) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                shown += os.read(master, 4096)
            except OSError:
                break
        assert process.stdout is not None
        assert b"TOTAL" in process.stdout.read()
    os.close(master)
    assert b"asking Prometheus: 100 %" in shown
    assert shown.endswith(b"\r\x1b[K")


@pytest.fixture(scope="module")
def without_rules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes and records nothing."""
    folder = tmp_path_factory.mktemp("plain")
    with prometheus_over(past(recorded=False), folder) as url:
        yield url


def test_without_rules(without_rules: str) -> None:
    """The counters' highest values, exact for jobs within the range; and it says so."""
    page = json.loads(reported(without_rules))
    assert page["method"] == "counters"
    assert "energy is not recorded here" in page["notes"][-1]
    found = {(row["cluster"], row["job_uid"]): row for row in page["rows"]}
    expected = {(j.cluster or None, j.job_uid): j for j in JOBS if j.job_uid != "slurm:5"}
    assert found.keys() == expected.keys()
    for key, job in expected.items():
        spans = [(min(b, TO) - max(a + job.measured_from, FROM)) for a, b in job.nodes.values()]
        truth = sum(spans) * sum(job.watts.values())
        # Of one that began before, what it used up to its first sample in the range is not known.
        slack = 15 * 50 if job.job_uid == "slurm:3" else 1e-6
        assert found[key]["energy_joules"] == pytest.approx(truth, abs=slack)
        assert (found[key]["carbon_grams"], found[key]["cost"]) == (None, {})
    assert found[None, "slurm:9"]["gpu_idle_joules"] == pytest.approx(615 * 120)
    assert found[None, "slurm:10"]["estimated_joules"] == pytest.approx(5000)


def test_rules_that_came_later(tmp_path: Path) -> None:
    """Hours in which jobs ran unrecorded are told."""
    history = History(FROM + 6 * 3600)
    history.add_job(PastJob("slurm:1", on(0, 7200), {"cpu": 10.0}, is_recorded=False))
    history.add_job(PastJob("slurm:2", on(14_400, 18_000), {"cpu": 10.0}))
    with prometheus_over(history, tmp_path) as url:
        notes = json.loads(reported(url, end=FROM + 6 * 3600))["notes"]
    assert "the energy of 1 job is not known, and in no sum" in notes
    assert any("jobs ran for about 2 h 1" in note for note in notes)


def test_many_jobs(tmp_path: Path) -> None:
    """More than the server lets through at once: none is missed, none is there twice."""
    history = History(FROM + 1500)
    for number in range(300):
        seconds = 20 + number
        history.add_job(PastJob(f"slurm:{number}", on(60, 60 + seconds), {"cpu": 10.0}))
    with prometheus_over(history, tmp_path, None, "--query.max-samples=250") as url:
        page = json.loads(reported(url, "--no-devices", end=FROM + 1500))
    joules = {row["job_uid"]: row["energy_joules"] for row in page["rows"]}
    assert joules == {f"slurm:{n}": pytest.approx(10 * (20 + n)) for n in range(300)}
    assert page["total"]["jobs"] == 300
    assert page["site"] is None


def fails(url: str, *arguments: str) -> str:
    command: Sequence[str | Path] = [JOBWATT, "report", f"--prometheus.url={url}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_no_jobs_and_no_jobwatt(without_rules: str) -> None:
    """No job in the range is an empty report; no exporter in it is an error."""
    page = json.loads(reported(without_rules, begin=FROM + 60_000, end=FROM + 70_000))
    assert (page["rows"], page["total"]["jobs"]) == ([], 0)
    assert page["notes"] == ["no job matches in this range"]
    told = fails(without_rules, "--last=1h")
    assert "has no JobWatt data between" in told
    assert "does it scrape the exporters (port 9743)" in told
