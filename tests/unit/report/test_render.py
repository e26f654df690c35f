from __future__ import annotations

import csv
import io
import json
import re
import time
from dataclasses import replace

import pytest
from rich.cells import cell_len

from jobwatt.report.collect import Report, Site, Wanted
from jobwatt.report.jobs import Job, Names, Node
from jobwatt.report.render_data import as_csv, as_json
from jobwatt.report.render_markdown import as_markdown
from jobwatt.report.render_table import as_table
from jobwatt.report.rows import Figures, grouped, ordered, total
from jobwatt.report.timerange import Window
from servers import ROOT

WINDOW = Window(1_700_006_400_000, 1_700_092_800_000)
START = WINDOW.start


def job(job_uid: str, joules: float, name: str = "", **names: str) -> Job:
    return Job(
        "",
        job_uid,
        names=Names("slurm", name, **names),
        nodes={"n1": Node(START + 60, START + 60, START + 3660)},
        energy={"cpu": joules / 4, "gpu": joules * 3 / 4},
        sums={
            "carbon": joules / 1e4,
            "gpu_seconds": 7200.0,
            "gpu_idle": joules / 3,
            "estimated": joules if name == "guess" else 0.0,
            "full_energy": joules * 1.5,
        },
        cost={"EUR": joules / 1e6},
    )


JOBS = [
    job("slurm:4711", 7.2e6, "bert", user="alice", account="nlp"),
    job("slurm:4712", 3.6e6, "guess", user="bob", account="nlp"),
    job("slurm:4713", 3.6e3, "日本語" * 30, user="a\nb\x1b[31m", account="|x|"),
]


def report(*, jobs: list[Job] = JOBS, by: str = "job", top: int | None = None) -> Report:
    rows = ordered(grouped(jobs, by, WINDOW), "energy")
    shown = rows if top is None else rows[:top]
    return Report(
        wanted=Wanted(WINDOW, by=by, top=top),
        prometheus="http://prometheus.example",
        method="recorded",
        rows=shown,
        others=total([row.figures for row in rows[len(shown) :]]),
        total=total([row.figures for row in rows]),
        site=Site(measured=20e6, jobs=10.8036e6, idle=7e6, unattributed=2e6),
        notes=["something is missing"],
    )


def test_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Literally."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert as_table(report(jobs=JOBS[:2]), 80) == (
        "JobWatt report by job, from http://prometheus.example\n"
        "2023-11-15 00:00:00+00:00 to 2023-11-16 00:00:00+00:00\n"
        "\n"
        "JOB         NAME   USER   STATE    ENERGY       CARBON       COST  GPU-HOURS\n"
        "slurm:4711  bert   alice  ended  2.00 kWh        720 g   7.20 EUR       2.00\n"
        "slurm:4712  guess  bob    ended  1.00 kWh  ~     360 g   3.60 EUR       2.00\n"
        "----------------------------------------------------------------------------\n"
        "TOTAL 2                          3.00 kWh  ~  1.080 kg  10.80 EUR       4.00\n"
        "\n"
        "all devices 5.56 kWh = jobs 3.00 kWh (54.0 %) + idle 1.94 kWh (35.0 %) +\n"
        "  unattributed 555.56 Wh (10.0 %) + difference 54.56 Wh (1.0 %)\n"
        "~ part of it is estimated, not measured\n"
        "note: something is missing\n"
        "no room for ACCOUNT, KIND, CPU, GPU, WITH IDLE, GPU IDLE, MEASURED; --format csv\n"
        "  has all\n"
    )


@pytest.mark.parametrize("width", [20, 40, 60, 80, 132, 200])
@pytest.mark.parametrize("by", ["job", "user"])
def test_lines_fit(width: int, by: str) -> None:
    """Wide characters count twice; only figures and the names of sums may need more."""
    lines = as_table(report(by=by, top=2), width).splitlines()
    assert max(map(cell_len, lines)) <= max(width, 27)
    assert "\x1b" not in "".join(lines)


def test_narrow_table_says_what_it_leaves_out() -> None:
    """The least important first."""
    text = as_table(report(), 60)
    assert "no room for NAME, ACCOUNT" in text
    assert text.splitlines()[3].split() == ["JOB", "USER", "ENERGY", "CARBON", "COST"]


def test_plain_table() -> None:
    """A terminal without UTF-8 gets ASCII."""
    assert as_table(report(), 80, plain=True).isascii()


def test_sums_below() -> None:
    """What is not shown, then all; where the devices' energy went; marks; notes."""
    lines = as_table(report(top=1), 200).splitlines()
    assert lines[6].split()[:4] == ["2", "others", "1.00", "kWh"]
    assert lines[7].split()[:4] == ["TOTAL", "3", "3.00", "kWh"]
    assert lines[9] == (
        "all devices 5.56 kWh = jobs 3.00 kWh (54.0 %) + idle 1.94 kWh (35.0 %) + "
        "unattributed 555.56 Wh (10.0 %) + difference 54.56 Wh (1.0 %)"
    )
    assert lines[10:] == [
        "~ part of it is estimated, not measured",
        "note: something is missing",
    ]


def test_what_is_not_known_is_a_dash() -> None:
    """And never 0."""
    lines = as_table(report(jobs=[JOBS[0], Job("", "slurm:5")]), 200).splitlines()
    assert lines[5].split() == ["slurm:5", "unknown", *"-" * 9]
    assert "-" in as_table(replace(report(jobs=[Job("", "x")]), site=None), 80).splitlines()[4]


def test_json() -> None:
    """Base units, null for what is not known, and a version of its own."""
    page = json.loads(as_json(report(top=1)))
    assert page["schema_version"] == 1
    assert (page["from"], page["to"], page["by"]) == (1_700_006_400, 1_700_092_800, "job")
    assert page["rows"][0]["energy_joules"] == 7.2e6
    assert page["rows"][0]["queue"] is None
    assert page["others"]["jobs"] == 2
    assert page["total"]["components"] == {"cpu": 2_700_900.0, "gpu": 8_102_700.0}
    assert page["site"]["difference_joules"] == pytest.approx(196_400)
    assert page["notes"] == ["something is missing"]


def test_json_of_a_group() -> None:
    """Its key is named by what it is grouped by; one without a name is null."""
    page = json.loads(as_json(report(jobs=[*JOBS, Job("", "x")], by="account")))
    assert {row["account"] for row in page["rows"]} == {"nlp", "|x|", None}


def test_csv_keys() -> None:
    """Stable: docs/report.md lists them."""
    line = as_csv(report()).splitlines()[0]
    assert line == (
        "cluster,job_uid,kind,job_name,user,account,queue,namespace,state,started,ended,nodes,"
        "jobs,began_before,goes_on,energy_joules,full_energy_joules,estimated_joules,"
        "gpu_idle_joules,gpu_idle_ratio,gpu_seconds,cpu_seconds,carbon_grams,node_seconds,"
        "measured_ratio,cpu_joules,dram_joules,gpu_joules,cost_EUR"
    )
    assert as_csv(report(jobs=[])).count("\r\n") == 1


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1", "@x", "\tx"])
def test_csv_has_no_formulas(name: str) -> None:
    """A spreadsheet shows the name of a job and does not run it."""
    text = as_csv(report(jobs=[job("slurm:1", 1.0, name)]))
    (line,) = csv.DictReader(io.StringIO(text, newline=""))
    assert line["job_name"] == f"'{name}"


def test_markdown_keeps_names_in_their_cells() -> None:
    """Neither a bar nor HTML, a link or a line's end does more than stand there."""
    hostile = job("slurm:1", 1.0, "<b>[x](http://y)|`z`", user="a\nb")
    table = [line for line in as_markdown(report(jobs=[hostile])).splitlines() if line[:1] == "|"]
    assert len(table) == 4
    assert r"\<b\>\[x\](http\://y)\|\`z\`" in table[2]
    assert r"a\\nb" in table[2]


def test_empty_report() -> None:
    """No rows, and a total of none."""
    text = as_table(replace(report(jobs=[]), others=Figures()), 80)
    assert "TOTAL 0" in text


def test_keys_are_documented() -> None:
    """All that a program may find is in docs/report.md."""
    text = (ROOT / "docs/report.md").read_text()
    told = set(re.findall(r"`([a-z_]+)`", text))
    page = json.loads(as_json(report()))
    for part in (page, page["rows"][0], page["site"], page["total"]):
        assert part.keys() <= told
    assert set(as_csv(report()).splitlines()[0].split(",")) - told == {"cost_EUR"}
