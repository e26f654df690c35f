from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from jobwatt import app
from jobwatt.cli import top as top_module
from jobwatt.cli.top_cells import new_table
from jobwatt.cli.top_jobs import span_text
from jobwatt.cli.top_names import names_of
from jobwatt.cli.top_view import Frame, Page, ProcessRow, visible
from jobwatt.config import Config
from jobwatt.errors import RunError, UsageError
from jobwatt.model import Component, Device, Source
from jobwatt.snapshot import DeviceView, Health, NodeInfo, SeriesLabels, SeriesView, Snapshot


def device(name: str = "package-0", **changes: object) -> dict[str, Any]:
    """A device of a status."""
    return {
        "component": "cpu",
        "device": name,
        "source": "rapl",
        "model": "Xeon",
        "power_watts": 102.5,
        "limit_watts": 205.0,
        "idle_watts": 41.3,
        "energy_joules": 7200.0,
    } | changes


def process(pid: int, comm: str, power: float, energy: float = 50.0) -> dict[str, Any]:
    """A process of a status."""
    return {
        "pid": pid,
        "comm": comm,
        "user": "alice",
        "job_uid": "slurm:7",
        "power_watts": power,
        "energy_joules": energy,
    }


def made_up(**changes: object) -> dict[str, Any]:
    """A status of one package and three processes."""
    return {
        "time": 1_700_000_000.0,
        "node": {"processes": 412},
        "sources": [{"source": "rapl", "up": True, "errors": {}}],
        "devices": [device()],
        "processes": [
            process(11, "python", 60.0),
            process(12, "java", 2.5, 900.0),
            process(13, "sshd", 0.01),
        ],
    } | changes


def drawn(
    status: Mapping[str, Any],
    *,
    width: int = 120,
    height: int = 25,
    encoding: str = "utf-8",
    **changes: Any,  # noqa: ANN401 - any field of a frame
) -> list[str]:
    """The lines of a frame, without what pads them."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, height=height)
    frame = Frame(Page.parse(status), "node7", by="power", rows=20)
    console.print(replace(frame, **changes))
    file.seek(0)
    lines = [line.rstrip() for line in file.read().splitlines()]
    assert max(map(len, lines)) <= width
    return lines


# --- frames ----------------------------------------------------------------------------------


def test_frame() -> None:
    """Head, devices, processes by power."""
    lines = drawn(made_up())

    assert lines[0].startswith("JobWatt  node7  102.5 W  412 processes  ")
    assert lines[1].split() == ["DEVICE", "SOURCE", "POWER", "LIMIT", "IDLE", "ENERGY", "MODEL"]
    assert lines[2] == (
        "package-0  rapl    102.5 W  ━━━━━━━━────────  205.0 W  41.3 W  2.00 Wh  Xeon"
    )
    assert lines[3] == ""
    assert [line.split()[-1] for line in lines[5:]] == ["python", "java", "sshd"]
    assert lines[5] == ("60.0 W  ━━━━━━━━━━━━━━━━   50.00 J   11  alice  slurm:7  python")


def test_by_energy() -> None:
    """The other order, and no more rows than asked for."""
    lines = drawn(made_up(), by="energy", rows=2)

    assert [line.split()[-1] for line in lines[5:]] == ["java", "python"]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_one_line_each_in_any_width(width: int) -> None:
    """A long name costs its own end only."""
    status = made_up(processes=[process(1, "x" * 300, 1.0), process(2, "y", 0.5)])

    lines = drawn(status, width=width, arguments=lambda _: "--flag " * 50)

    assert len(lines) == 7
    assert "1.00 W" in lines[5]


def test_hostile_names() -> None:
    """Neither markup nor control characters nor turned text reach the terminal."""
    comm = "[red]\x1b[2J\n\u202e<script>\x07"

    (line,) = drawn(made_up(processes=[process(1, comm, 1.0)]))[5:]

    assert line.endswith(r"[red]\x1b[2J\n\u202e<script>\x07")


def test_ascii_terminal() -> None:
    """A terminal without UTF-8 gets the same in ASCII."""
    status = made_up(processes=[process(1, "naïve-日本", 1.0)])

    lines = drawn(status, encoding="ascii")

    assert lines[2].split()[4] == "########........"
    assert lines[5].endswith(r"na\xefve-\u65e5\u672c")


@pytest.mark.parametrize(
    ("source", "says"),
    [("estimate", "ESTIMATED, not measured"), ("simulated", "SIMULATED, made up")],
)
def test_what_is_not_measured_is_marked(source: str, says: str) -> None:
    """In the head, by name."""
    lines = drawn(made_up(devices=[device(source=source), device("dram-0")]))

    assert "~205.0 W" in lines[0]
    assert lines[1] == f"package-0: {says}"


def test_what_is_not_known_is_no_zero() -> None:
    """A dash for what is unknown, words where nothing is known."""
    unknown = device(power_watts=None, limit_watts=None, idle_watts=None)
    down = [{"source": "rapl", "up": False, "errors": {"denied": 1}}]

    lines = drawn(made_up(devices=[unknown], sources=down, processes=[]))

    assert "power not known" in lines[0]
    assert lines[1] == "rapl cannot be read in full: see jobwatt doctor"
    assert lines[3].split() == ["package-0", "rapl", "-", "-", "-", "2.00", "Wh", "Xeon"]
    assert lines[-1].endswith("no process is listed yet")


def test_no_device() -> None:
    """A node where nothing is measured says so."""
    assert any("nothing is measured here" in line for line in drawn(made_up(devices=[])))


def test_fits_into_the_terminal() -> None:
    """In the live view the frame is never higher than the screen."""
    many = [process(pid, "p", 1.0) for pid in range(50)]

    lines = drawn(made_up(processes=many), rows=50, fill=True, height=20, notes=["lost"])

    assert len(lines) == 20


@pytest.mark.parametrize("broken", [{}, {"time": "soon"}, made_up(devices=[{}]), {"time": None}])
def test_no_status(broken: dict[str, Any]) -> None:
    """What is no status is one error, whatever is wrong with it."""
    with pytest.raises(ValueError, match=r"."):
        Page.parse(broken)


def test_visible_keeps_what_can_be_seen() -> None:
    """Letters of any script stay."""
    assert visible("père 日本 \t", plain=False) == "père 日本 \\t"


# --- GPUs ------------------------------------------------------------------------------------

GIB = 2**30


def gpu(index: int | None, **changes: object) -> dict[str, Any]:
    """A GPU of a status, which a job keeps busy."""
    return (
        device(
            f"GPU-{index or 0:08x}-9bca-4e51-87a4-2f7f13df02a1",
            component="gpu",
            source="nvml_energy",
            model="NVIDIA H100 80GB HBM3",
            power_watts=350.0,
            limit_watts=700.0,
        )
        | {
            "index": index,
            "utilization_ratio": 0.93,
            "memory_used_bytes": 71 * GIB,
            "memory_total_bytes": 80 * GIB,
            "temperature_celsius": 56.0,
            "throttled": [],
            "contexts": 1,
            "holders": [{"job_uid": "slurm:7", "pids": [11]}],
            "instances": [],
        }
        | changes
    )


def gpu_lines(*gpus: dict[str, Any], width: int = 150, **changes: Any) -> list[str]:  # noqa: ANN401
    """The lines of the GPUs, below a package's."""
    lines = drawn(made_up(devices=[device(), *gpus]), width=width, **changes)
    start = lines.index("") + 1
    return lines[start + 1 : lines.index("", start)]


def test_gpus_have_a_table_of_their_own() -> None:
    """Below the other devices; wide and on 80 columns."""
    lines = drawn(made_up(devices=[device(), gpu(3)]), width=150)

    assert lines[2].startswith("package-0")
    assert lines[4].split() == [
        *("GPU", "MODEL", "POWER", "LIMIT", "BUSY", "MEMORY", "TEMP", "ENERGY", "HELD", "BY")
    ]
    assert lines[5] == (
        "3    H100 80GB HBM3  350.0 W  ━━━━━━━━────────  700.0 W   93%  71.0/80.0 GiB  56 °C  "
        "2.00 Wh  slurm:7"
    )
    assert gpu_lines(gpu(3), width=80) == [
        "3    H100 80GB…  350.0 W  700.0 W   93%  71.0/80.0 GiB  slurm:7"
    ]
    assert gpu_lines(gpu(3), width=60) == ["3    350.0 W   93%  slurm:7"]


def test_only_gpus() -> None:
    """A node on which nothing else is measured has no empty table above."""
    lines = drawn(made_up(devices=[gpu(0)]))

    assert lines[1].startswith("GPU")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"contexts": 0, "holders": []}, "free"),
        ({"contexts": None, "holders": []}, "-"),
        ({"contexts": None, "holders": None}, "-"),
        ({"utilization_ratio": 0.0}, "idle: slurm:7"),
        ({"contexts": 3, "holders": []}, "3 unseen"),
        ({"contexts": 2}, "slurm:7, 1 unseen"),
        ({"contexts": 0, "holders": [{"job_uid": "slurm:7", "pids": []}]}, "slurm:7"),
        (
            {"holders": [{"job_uid": "container:5f0c", "pids": [1]}, {"job_uid": "a", "pids": []}]},
            "a, container:5f0c",
        ),
        ({"holders": [{"job_uid": "[red]\x1b", "pids": [1]}]}, r"[red]\x1b"),
    ],
)
def test_who_holds_a_gpu(changes: dict[str, object], says: str) -> None:
    """Held, held but idle, free and unknown are told apart; names are no markup."""
    (line,) = gpu_lines(gpu(0, **changes))

    assert line.endswith(f"2.00 Wh  {says}")


def test_throttled_gpu_is_marked() -> None:
    """Beside its temperature."""
    assert "56 °C throttled" in gpu_lines(gpu(0, throttled=["hw_thermal_slowdown"]))[0]


def test_mig_instances_are_parts() -> None:
    """One line each, with who is in it; other pids are unseen."""
    parts = [
        {"name": "1g.10gb", "memory_used_bytes": 2 * GIB, "pids": [11]},
        {"name": "2g.20gb", "memory_used_bytes": None, "pids": [12, 13]},
        {"name": "3g.40gb", "memory_used_bytes": 0, "pids": []},
        {"name": "1g.10gb", "memory_used_bytes": 0, "pids": None},
    ]
    whole = gpu(0, instances=parts, utilization_ratio=None, contexts=3)

    lines = [line.split() for line in gpu_lines(whole)[1:]]

    assert lines == [
        ["MIG", "1g.10gb", "2.0", "GiB", "slurm:7"],
        ["MIG", "2g.20gb", "-", "2", "unseen"],
        ["MIG", "3g.40gb", "0.0", "GiB", "free"],
        ["MIG", "1g.10gb", "0.0", "GiB", "-"],
    ]
    assert [line.split() for line in gpu_lines(whole, width=60)[1:]] == [
        ["1g.10gb", "slurm:7"],
        ["2g.20gb", "2", "unseen"],
        ["3g.40gb", "free"],
        ["1g.10gb", "-"],
    ]


def test_gpu_without_an_index_has_its_short_name() -> None:
    """As those of AMD and Intel; a PCI address stays whole."""
    addressed = gpu(None) | {"device": "0000:03:00.0"}

    assert gpu_lines(gpu(None))[0].startswith("GPU-00000000  ")
    assert gpu_lines(addressed)[0].startswith("0000:03:00.0  ")


def test_gpu_of_an_earlier_exporter() -> None:
    """It told no more than of any device."""
    known = gpu(0)
    old = {name: known[name] for name in device()}

    assert gpu_lines(old)[0].split()[-5:] == ["-", "-", "2.00", "Wh", "-"]


def test_processes_tell_their_part_on_gpus() -> None:
    """Energy, and on which GPUs they have a context."""
    both = [{"job_uid": "slurm:7", "pids": [11]}]
    busy = process(11, "python", 60.0) | {"components": {"cpu": 10.0, "gpu": 40.0}}
    status = made_up(
        devices=[gpu(0, holders=both), gpu(4, holders=both)],
        processes=[busy, process(12, "java", 2.5)],
    )

    first, second = drawn(status, width=80)[-2:]

    assert first == "60.0 W  50.00 J  40.00 J  0,4   11  alice  slurm:7  python"
    assert second == "2.50 W  50.00 J        -        12  alice  slurm:7  java"
    assert "ON GPUS" not in "".join(drawn(status, width=60))


def test_simulated_gpus_are_counted_in_the_head() -> None:
    """Eight UUIDs would fill it."""
    made = [gpu(index, source="simulated") for index in range(8)]

    assert drawn(made_up(devices=[device(source="simulated"), *made]))[1] == (
        "package-0, 8 GPUs: SIMULATED, made up"
    )


def test_gpus_fit_into_the_terminal() -> None:
    """In the live view they cost processes, one line each."""
    many = [process(pid, "p", 1.0) for pid in range(50)]
    status = made_up(processes=many, devices=[device(), *(gpu(index) for index in range(8))])

    assert len(drawn(status, rows=50, fill=True, height=24, width=80)) == 24


# --- jobs ------------------------------------------------------------------------------------

NOW = 1_700_000_000.0


def job(job_uid: str, power: float, joules: float, **changes: object) -> dict[str, Any]:
    """A job of a status that has run for ten minutes."""
    return {
        "job_uid": job_uid,
        "name": "",
        "user": "alice",
        "account": "none",
        "queue": "",
        "k8s_namespace": "",
        "power_watts": power,
        "energy_joules": joules,
        "components": {"cpu": joules * 0.1, "gpu": joules * 0.9},
        "cpu_seconds": 3000.0,
        "gpus": 0,
        "cpus": None,
        "budget_joules": None,
        "started": NOW - 600,
        "measured_since": NOW - 600,
        "deadline": None,
        "ended": None,
    } | changes


BERT = job("slurm:7", 512.0, 3.24e6, name="bert", account="nlp", queue="gpu", gpus=2, cpus=64) | {
    "budget_joules": 3.6e6,
    "deadline": NOW + 86_400,
}
OVER = job("slurm:8", 90.0, 1.8e6, name="sdxl", budget_joules=1.5e6)
DONE = job("slurm:6", 0.0, 7.2e4, name="smoke", ended=NOW - 45, started=NOW - 75)


def job_lines(*jobs: dict[str, Any], **changes: Any) -> list[str]:  # noqa: ANN401
    """The lines of the jobs, below the heading."""
    lines = drawn(made_up(jobs=list(jobs)), view="jobs", **changes)
    return lines[3:]


def test_jobs_come_first() -> None:
    """Live ones by power, the ended below; then devices and processes, where there is room."""
    lines = drawn(made_up(jobs=[DONE, OVER, BERT]), width=80)

    assert lines[0].startswith("JobWatt  node7  102.5 W  2 jobs  412 processes  ")
    assert lines[1:6] == [
        "  POWER     ENERGY  BUDGET  GPUS    CPUS  TIME  USER   JOB",
        "512.0 W  900.00 Wh     90%     2  5.0/64   10m  alice  bert slurm:7",
        " 90.0 W  500.00 Wh   120%!     -     5.0   10m  alice  sdxl slurm:8",
        "  ended   20.00 Wh       -     -       -   30s  alice  smoke slurm:6",
        "",
    ]
    assert lines[6].startswith("DEVICE")
    assert lines[-1].endswith("sshd")


def test_jobs_alone() -> None:
    """The view for a small terminal has the node's power in one line."""
    lines = drawn(made_up(jobs=[BERT], devices=[device(), gpu(0)]), view="jobs", width=60)

    assert lines[1:] == [
        "CPU 102.5 W  GPU 350.0 W",
        "  POWER     ENERGY  BUDGET  JOB",
        "512.0 W  900.00 Wh     90%  bert slurm:7",
    ]


def test_jobs_tell_more_in_wide_terminals() -> None:
    """Bars, the component that used the most, the end, account and queue."""
    names = {"queue": "batch", "k8s_namespace": "chem", "deadline": NOW - 1}

    lines = job_lines(BERT, job("k8s:u", 1.0, 9.0, **names), DONE, width=170)

    assert lines[0] == (
        "512.0 W  ━━━━━━━━━━━━━━━━  900.00 Wh  gpu 90%   ━━━━━━━─  90%     2  5.0/64   10m  in 24h"
        "   alice  nlp      gpu         bert slurm:7"
    )
    assert lines[1].split() == [
        *("1.00", "W", "────────────────", "9.00", "J", "gpu", "90%", "-", "-", "5.0", "10m"),
        *("overdue", "alice", "chem/batch", "k8s:u"),
    ]
    assert "45s ago" in lines[2]


@pytest.mark.parametrize("width", [40, 60, 80, 112, 200])
def test_job_is_one_line_in_any_width(width: int) -> None:
    """Names cost their own ends only, and are neither markup nor control characters."""
    hostile = job(
        "run:" + "y" * 200, 2.0, 5.0, name="[red]\x1b[2J\n\u202e" + "x" * 300, user="u" * 99
    )

    lines = job_lines(hostile, BERT, width=width)

    assert len(lines) == 2
    assert lines[1].startswith(" 2.00 W")
    if width == 200:
        assert r"[red]\x1b[2J\n\u202exxx" in lines[1]


def test_jobs_in_ascii_without_colours() -> None:
    """A budget that is used up has a mark."""
    (line,) = job_lines(OVER, width=150, encoding="ascii")

    assert "######## 120%!" in line


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("power", ["bert", "sdxl", "plain"]),
        ("energy", ["plain", "bert", "sdxl"]),
        ("budget", ["sdxl", "bert", "plain"]),
    ],
)
def test_order_of_jobs(by: str, names: list[str]) -> None:
    """A job without a budget comes last by budget."""
    plain = job("slurm:9", 1.0, 9e6, name="plain")

    assert [line.split()[-2] for line in job_lines(plain, OVER, BERT, by=by)] == names


def test_idle_gpus_of_a_job() -> None:
    """Counted where some of them, and said where all of them do nothing."""
    held = [{"job_uid": "slurm:7", "pids": []}]
    idle, busy = gpu(0, utilization_ratio=0.0, holders=held), gpu(1, holders=held)

    some = drawn(made_up(jobs=[BERT], devices=[idle, busy]), view="jobs", width=80)
    both = drawn(made_up(jobs=[BERT | {"gpus": 1}], devices=[idle]), view="jobs", width=80)

    assert "1 GPU held but idle" in some[1]
    assert "2, 1 idle" in some[3]
    assert "1 idle" in both[3]


def test_busy_cpus_since_the_frame_before() -> None:
    """A frame after another tells what is busy now; a new job has its mean."""
    before = Page.parse(made_up(time=NOW - 10, jobs=[BERT | {"cpu_seconds": 2600.0}]))

    first, second = job_lines(BERT, OVER, width=80, before=before)

    assert "40.0/64" in first
    assert " 5.0 " in second


def test_busy_cpus_of_a_job_that_has_just_been_found() -> None:
    """There is no time yet to measure them by."""
    young = {"measured_since": NOW - 0.01, "started": NOW - 0.01}

    first, second = job_lines(BERT | young, OVER | young, width=80)

    assert "-/64    0s" in first
    assert first.split()[5:7] == ["2", "-/64"]
    assert second.split()[5:8] == ["-", "-", "0s"]


def test_jobs_fit_into_the_terminal() -> None:
    """Some of the ended are shown, the rest is counted."""
    live = [job(f"slurm:{n}", 1.0 + n, 5.0) for n in range(30)]
    gone = [job(f"slurm:9{n}", 0.0, 5.0, ended=NOW - n) for n in range(8)]

    lines = drawn(
        made_up(jobs=live + gone), view="jobs", rows=99, fill=True, height=20, keys="q", width=80
    )

    assert len(lines) == 20
    assert sum("ended" in line for line in lines[3:18]) == 5
    assert lines[18:] == ["20 more live, 3 more ended", "q"]


def test_job_of_an_earlier_exporter() -> None:
    """It told neither names nor budgets, or no jobs at all."""
    told = ("job_uid", "user", "power_watts", "energy_joules", "components", "cpu_seconds", "gpus")
    old = {name: BERT[name] for name in (*told, "started", "measured_since", "ended")}

    assert job_lines(old, width=80)[0].endswith("alice  slurm:7")
    assert drawn(made_up(), view="jobs") == drawn(made_up())


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(0.9, "0s"), (99.9, "99s"), (100, "1m"), (5999, "99m"), (6000, "1h40m"), (36000, "10h")],
)
def test_spans_are_short(seconds: float, says: str) -> None:
    """At most five characters."""
    assert span_text(seconds) == says
    assert span_text(99 * 3600 * 2) == "8d"


@pytest.mark.parametrize(
    ("keys", "view", "by"),
    [
        ("p", "processes", "power"),
        ("\t", "processes", "power"),
        ("\t\t", "jobs", "power"),
        ("eb", "jobs", "budget"),
        ("bw?x", "jobs", "power"),
        ("pj", "jobs", "power"),
    ],
)
def test_keys(keys: str, view: str, by: str) -> None:
    """Views and orders; what means nothing changes nothing."""
    choice = top_module.Choice("jobs", "power")
    for key in keys:
        choice = choice.after(key)

    assert choice == top_module.Choice(view, by)


def test_all_keys_that_are_read_count(terminal: Terminal, exporter: Exporter) -> None:
    """Some that come together, with a sequence between them: in order, up to the last."""
    exporter.answer = (200, json.dumps(made_up(jobs=[BERT, OVER])).encode())
    terminal.until(lambda: "sdxl" in terminal.shown)

    def newest() -> str:
        return terminal.shown.rpartition("\x1b[H")[2]

    os.write(terminal.ours, b"p")
    terminal.until(lambda: "COMMAND" in newest())
    os.write(terminal.ours, b"pj\x1b[Bb")
    terminal.until(lambda: "BUDGET" in newest() and "bert" in newest())

    assert newest().index("sdxl") < newest().index("bert")


# --- names that are cut ----------------------------------------------------------------------


def shown_names(names: Sequence[str], width: int, encoding: str = "utf-8") -> list[str]:
    """Names as a column of this width shows them."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    table = new_table()
    table.add_column("")
    for name in names_of(Text(name) for name in names):
        table.add_row(name)
    Console(file=file, width=width).print(table)
    file.seek(0)
    return [line.rstrip() for line in file.read().splitlines()[1:]]


@pytest.mark.parametrize(
    ("names", "width", "shown"),
    [
        (["system", "session:erin"], 12, ["system", "session:erin"]),
        # A number at the end tells more than what is before it.
        (
            ["sweep slurm:8150016", "sweep slurm:8150017"],
            17,
            ["sweep sl…:8150016", "sweep sl…:8150017"],
        ),
        (["slurm:8139874:r1"], 10, ["slur…74:r1"]),
        # Else it is the start, unless others begin so, too.
        (["systemd:prometheus-node-exporter.service"], 17, ["systemd:promethe…"]),
        (
            ["systemd:systemd-journald.service", "systemd:systemd-networkd.service"],
            17,
            ["sys…journald.ser…", "sys…networkd.ser…"],
        ),
        (
            ["systemd:apt-daily-a.timer", "systemd:apt-daily-b.timer", "systemd:getty.service"],
            12,
            ["sys…-a.timer", "sys…-b.timer", "systemd:get…"],
        ),
        (["k8s:ml/Job/bert:aaaa-1", "k8s:ml/Job/bert:bbbb-1"], 10, ["k8s:…aaa-1", "k8s:…bbb-1"]),
        (["宽宽宽宽宽宽7", "宽宽宽宽宽8"], 9, ["宽宽…宽7", "宽宽…宽8"]),
    ],
)
def test_names_are_cut_where_it_costs_least(names: list[str], width: int, shown: list[str]) -> None:
    """What tells two apart stays."""
    assert shown_names(names, width) == shown


@given(
    st.lists(st.text("ab:-7", min_size=1, max_size=40), min_size=2, max_size=12, unique=True),
    st.integers(6, 30),
)
def test_names_that_are_cut_stay_apart(names: list[str], width: int) -> None:
    """No two read the same, and none is longer than its column."""
    shown = shown_names(names, width)

    assert len(set(shown)) == len(names)
    assert all(len(text) <= width for text in shown)


def test_names_are_cut_in_ascii() -> None:
    """The mark is one that such a terminal has."""
    assert shown_names(["sweep slurm:8150016"], 12, "ascii") == ["sweep~150016"]


@pytest.mark.parametrize("width", [30, 40, 60, 76, 80, 112])
def test_rows_can_be_told_apart_in_any_width(width: int) -> None:
    """Other columns leave before a name is cut to nothing."""
    array = [
        job(f"slurm:815{n:04}", 10.0, 5.0, name="hparam-sweep", cpus=128, user="u" * 10)
        for n in range(9)
    ]
    devices = [
        device(f"{part}-{n}", source="simulated") for n in (0, 1) for part in ("package", "dram")
    ]

    lines = drawn(made_up(jobs=array, devices=devices), view="all", width=width)

    start = next(place for place, line in enumerate(lines) if line.endswith("JOB"))
    shown = [line.split()[-1] for line in lines[start + 1 : start + 10]]
    assert sorted(text[-5:] for text in shown) == [f"5000{n}" for n in range(9)]
    below = lines.index("")
    names = [line.split()[0] for line in lines[below + 2 : below + 6]]
    assert names == ["package-0", "dram-0", "package-1", "dram-1"]
    assert any("━" in line for line in lines) is (width == 112)


# --- details of local processes --------------------------------------------------------------


def test_arguments_of_a_local_process() -> None:
    """The command line behind the name."""
    with subprocess.Popen(["cat", "-u"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        # Its command line is there for sure once it answers.
        child.stdin.write(b"there?\n")
        child.stdin.flush()
        child.stdout.readline()
        row = ProcessRow(child.pid, "cat", "me", "system", 1.0, 1.0)
        assert top_module._arguments(row) == "-u"
        assert top_module._arguments(replace(row, comm="other")) == ""
    assert top_module._arguments(row) == ""


def test_unreadable_process_costs_its_own_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal is no failure of the frame."""

    def refuse(_: psutil.Process) -> list[str]:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "cmdline", refuse)
    own = ProcessRow(os.getpid(), psutil.Process().name(), "me", "system", 1.0, 1.0)

    assert top_module._arguments(own) == ""


# --- where statuses come from ----------------------------------------------------------------


class Exporter(HTTPServer):
    """Answers the status, or whatever else it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: tuple[int, bytes] = (200, json.dumps(made_up()).encode())
        self.redirect = ""
        self.seen: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Exporter

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Authorization"]))
        code, body = self.server.answer
        self.send_response(code)
        if self.server.redirect:
            self.send_header("Location", self.server.redirect)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    """An exporter of this machine."""
    with Exporter() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(*arguments: str, **environment: str) -> Result:
    """Run the command as the shell would."""
    return CliRunner().invoke(top_module.top, arguments, env=environment)


def test_once(exporter: Exporter) -> None:
    """One frame of the exporter's status; below a path prefix, too."""
    result = run("--once", "--url", f"{exporter.url}/node7/", "-n", "1")

    assert result.exit_code == 0
    assert "python" in result.output
    assert "java" not in result.output
    assert {path for path, _ in exporter.seen} == {"/node7/api/v1/status"}


def test_no_terminal_is_once(exporter: Exporter) -> None:
    """A pipe gets one frame, and an address from the environment is one that was given."""
    result = run(JOBWATT_URL=exporter.url)

    assert result.exit_code == 0
    assert result.output.count("COMMAND") == 1


def test_password_goes_to_the_exporter_only(exporter: Exporter) -> None:
    """It is sent as basic auth and never printed."""
    exporter.answer = (401, b"")

    result = run("--url", exporter.url.replace("//", "//me:s%3Acret@"))

    assert isinstance(result.exception, RunError)
    assert "user:password@" in str(result.exception)
    assert "cret" not in str(result.exception)
    assert exporter.seen == [("/api/v1/status", "Basic bWU6czpjcmV0")]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((503, b""), "has no sample yet"),
        ((404, b""), "answers 404 Not Found"),
        ((200, b"<html>"), "not as JobWatt does"),
        ((200, b"[1]"), "not as JobWatt does"),
        ((200, b'{"devices": 1}'), "another version's status"),
    ],
)
def test_address_that_was_given_must_answer(
    exporter: Exporter, answer: tuple[int, bytes], says: str
) -> None:
    """There is no silent fallback to another machine's figures."""
    exporter.answer = answer

    result = run("--once", "--url", exporter.url)

    assert isinstance(result.exception, RunError)
    assert says in str(result.exception)


def test_exporter_that_sends_us_elsewhere(exporter: Exporter) -> None:
    """Nobody else is asked, but named."""
    exporter.answer = (301, b"")
    exporter.redirect = "https://node7.example/api/v1/status?token=s3cret"

    result = run("--once", "--url", exporter.url)

    assert str(result.exception) == (
        f"{exporter.url} sends us to https://node7.example; is the exporter running there?"
    )


def test_nobody_at_the_address_that_was_given() -> None:
    """The message names the address and what is wrong, without numbers of the system."""
    result = run("--once", "--url", "http://127.0.0.1:1")

    assert isinstance(result.exception, RunError)
    assert str(result.exception) == (
        "http://127.0.0.1:1 does not answer: Connection refused; is the exporter running there?"
    )


@pytest.mark.parametrize("url", ["file:///etc/passwd", "localhost:9743", "http://", "http://a:b"])
def test_no_address(url: str) -> None:
    """Only http and https are asked."""
    assert isinstance(run("--url", url).exception, UsageError)


@pytest.mark.parametrize("interval", ["0", "soon", "-1s"])
def test_no_interval(interval: str) -> None:
    """An interval must be a time that a terminal can follow."""
    result = run("--interval", interval)

    assert result.exit_code == 2
    assert "--interval" in result.output


def test_proxy_is_not_asked_for_this_machine(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes often have a proxy for the outer world."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)

    assert top_module.from_exporter(exporter.url).read() == made_up()


def test_whose_processes() -> None:
    """Only a local exporter's pids are this machine's."""
    urls = ["http://localhost:1", "http://127.0.0.9:1", "http://[::1]:1", "http://node8:9743"]

    assert [top_module.from_exporter(url).is_local for url in urls] == [True, True, True, False]


# --- own measurement -------------------------------------------------------------------------


class FakeSampler:
    """Each second one process uses 30 J."""

    def __init__(self) -> None:
        self.samples = 0

    def sample(self) -> Snapshot:
        """Look again, a second later."""
        uj = self.samples * 30_000_000
        self.samples += 1
        labels = SeriesLabels(2**22 + 1, "train", "alice", "system")
        package = Device(Component.CPU, "package-0", Source.RAPL)
        return Snapshot(
            time=float(self.samples),
            monotonic_ns=self.samples * 1_000_000_000,
            node=NodeInfo("0", 4, "", "cpu_clock", 1.0, 0.0),
            devices=(DeviceView(package, uj, 0, 0, 0, 0, 40_000_000, None, None, 0, 0, 0),),
            domains_uj=(),
            # Smoothed power has not risen yet.
            series=(SeriesView(labels, (uj,), 1, alive=True),),
            health=Health({"rapl": True}, {}, {}, 0, 0.0, 99, None, 0.0, 0),
            history=(),
        )


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """This machine measured by a fake, and nothing at the default address."""
    configs: list[Config] = []

    def local_sampler(config: Config) -> FakeSampler:
        configs.append(config)
        return FakeSampler()

    def nobody(_: str) -> Mapping[str, Any]:
        raise top_module._NoExporterError("nobody")

    monkeypatch.setattr(app, "local_sampler", local_sampler)
    monkeypatch.setattr(top_module, "_fetch", nobody)
    monkeypatch.setattr(top_module, "LISTING_SECONDS", 0.0)
    monkeypatch.setattr(top_module, "FIRST_LOOK_SECONDS", 0.0)
    monkeypatch.delenv("JOBWATT_URL", raising=False)
    return configs


def test_measures_by_itself(own: list[Config]) -> None:
    """Without an exporter at the default address; it says so, and power is right at once."""
    result = run("--once", "--cpu.tdp", "65", "--interval", "3s")

    assert result.exit_code == 0
    assert "no exporter at http://localhost:9743: measured by this command" in result.output
    assert "30.0 W" in result.output.splitlines()[-1]
    assert "train" in result.output
    assert own == [Config(cpu_tdp=65.0, process_min_joules=0.0, sample_interval=3.0)]


def test_does_not_measure_for_another_address(own: list[Config]) -> None:
    """Also not where the address that was given is the default."""
    result = run("--once", "--url", top_module.DEFAULT_URL)

    assert isinstance(result.exception, RunError)
    assert own == []


def test_own_measurement_goes_on(own: list[Config]) -> None:
    """Each read is the power since the read before."""
    origin = top_module.from_this_machine(Config(), 1.0)
    origin.read()

    (process,) = origin.read()["processes"]

    assert (process["power_watts"], process["energy_joules"]) == (30.0, 90.0)


# --- live ------------------------------------------------------------------------------------


class Terminal:
    """The command in a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        code = "from jobwatt.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "top", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
            start_new_session=True,
        )
        self.shown = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.ours, 65536)
            except OSError:
                return
            self.shown += data.decode(errors="replace")

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something, not for ever."""
        deadline = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < deadline, self.shown
            time.sleep(0.02)

    def close(self) -> None:
        """End what is left of it."""
        self.process.kill()
        self.process.wait()
        os.close(self.theirs)
        self._reader.join(5)
        os.close(self.ours)


@pytest.fixture
def terminal(exporter: Exporter) -> Iterator[Terminal]:
    """The live view of the exporter."""
    opened = Terminal("--url", exporter.url, "--interval", "200ms")
    yield opened
    opened.close()


@pytest.mark.parametrize("way", ["q", "SIGINT", "SIGTERM"])
def test_ends_cleanly(terminal: Terminal, way: str) -> None:
    """The screen and the keyboard are given back as they were."""
    terminal.until(lambda: "python" in terminal.shown)
    if way == "q":
        os.write(terminal.ours, b"xq")
    else:
        terminal.process.send_signal(2 if way == "SIGINT" else 15)

    assert terminal.process.wait(20) == 0
    terminal.until(
        lambda: terminal.shown.rstrip().endswith(("\x1b[?1049l\x1b[?25h", "\x1b[?1049l"))
    )
    assert termios.tcgetattr(terminal.theirs) == terminal.before


def test_keys_change_the_view(terminal: Terminal, exporter: Exporter) -> None:
    """Jobs at first; p shows processes; a sequence of a special key is none of ours."""
    exporter.answer = (200, json.dumps(made_up(jobs=[BERT])).encode())
    terminal.until(lambda: "slurm:7" in terminal.shown and "CPUS" in terminal.shown)
    os.write(terminal.ours, b"\x1b[B")
    os.write(terminal.ours, b"p")
    terminal.until(lambda: "COMMAND" in terminal.shown.rpartition("CPUS")[2])
    os.write(terminal.ours, b"j")
    terminal.until(lambda: "CPUS" in terminal.shown.rpartition("COMMAND")[2])

    assert terminal.process.poll() is None


def test_follows_the_exporter(terminal: Terminal, exporter: Exporter) -> None:
    """New figures come by themselves; a lost exporter is told and may come back."""
    terminal.until(lambda: "python" in terminal.shown)
    exporter.answer = (500, b"")
    terminal.until(lambda: "old figures" in terminal.shown)
    status = made_up(processes=[process(99, "newcomer", 3.0)])
    exporter.answer = (200, json.dumps(status).encode())
    terminal.until(lambda: "newcomer" in terminal.shown)

    assert terminal.process.poll() is None
