"""The check of a real GPU, run as a whole on a fake one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hardware.gpu_check import main

pytestmark = pytest.mark.stack

SCRIPT = Path(__file__).with_name("gpu_check.py")
SHORT = ("--fake", "--seconds=5", "--idle-seconds=13")
RUNS: dict[str, tuple[str, ...]] = {
    "good": (),
    "counter": ("--fault=counter",),
    "lost": ("--fault=lost",),
}

IDLE_WATTS = 70.0

Run = tuple[int, str, Path]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """Exit code, output and folder of each run; they run side by side, each on its own GPU."""
    folder = tmp_path_factory.mktemp("gpu-check")
    children = {
        name: subprocess.Popen(
            [sys.executable, str(SCRIPT), f"--report={folder / name}", *SHORT, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, more in RUNS.items()
    }
    try:
        done = {}
        for name, child in children.items():
            output, _ = child.communicate(timeout=120)
            done[name] = child.returncode, output, folder / name
        yield done
    finally:
        for child in children.values():
            child.kill()
            child.communicate()


def loaded(folder: Path, name: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads((folder / name).read_text())


def failed(folder: Path) -> set[str]:
    """The checks that do not hold."""
    verdicts = loaded(folder, "report.json")["verdicts"]
    return {verdict["name"] for verdict in verdicts if verdict["holds"] is False}


def test_all_checks_hold_on_a_good_gpu(runs: dict[str, Run]) -> None:
    """And the report says so."""
    code, output, folder = runs["good"]
    assert (code, failed(folder)) == (0, set()), output
    report = (folder / "report.md").read_text()
    assert "All checks hold." in report
    assert report.count("| holds |") == 10
    assert "| GPU | NVIDIA H100 80GB HBM3 |" in report


def test_the_figures_are_the_truth(runs: dict[str, Run]) -> None:
    """Energy by counter, by integral and by exporter; shares; idle; what a dead process used."""
    _, output, folder = runs["good"]
    figures, truth = loaded(folder, "report.json")["figures"], loaded(folder, "truth.json")
    for phase in ("nobody", "one process", "two processes", "one again", "none"):
        found, true = figures["phases"][phase], truth[phase]["joules"]
        slack = 0.01 * true + 0.05 * 590
        assert found["counter_joules"] == pytest.approx(true, abs=slack), output
        assert found["integral_joules"] == pytest.approx(true, abs=slack), output
    assert figures["polling"]["hertz"] > 20
    assert figures["exporter"]["joules"] == pytest.approx(
        figures["exporter"]["counter_joules"], rel=0.005
    )
    assert figures["idle"]["learned_watts"] == pytest.approx(IDLE_WATTS, rel=0.01)
    assert figures["shares"]["A"]["share"] == pytest.approx(0.75, abs=0.02)
    assert figures["shares"]["B"]["share"] == pytest.approx(0.25, abs=0.02)
    assert figures["shares"]["A"]["mean_sm"] == pytest.approx(60, abs=3)
    assert set(figures["methods_of_two"]) == {"sm_utilization"}
    assert figures["unattributed_of_two_joules"] == pytest.approx(0, abs=0.001)
    death, owed = figures["death"], truth["death"]["by_worker"]["B"]
    assert death["joules"] == pytest.approx(owed, rel=0.1)
    assert death["expected_joules"] == pytest.approx(owed, rel=0.1)
    assert 0.2 < death["seconds_after_sample"] < 0.8
    assert death["tail_joules"] > 20


def test_every_call_is_timed(runs: dict[str, Run]) -> None:
    """Each function that a look needs, with its return codes, and a look as a whole."""
    report = loaded(runs["good"][2], "report.json")
    calls = report["calls"]
    assert {
        "nvmlInit",
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetProcessUtilization",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetMemoryInfo",
    } <= calls.keys()
    assert calls["nvmlDeviceGetTotalEnergyConsumption"]["count"] > 100
    assert set(calls["nvmlDeviceGetTotalEnergyConsumption"]["codes"]) == {"0"}
    assert set(calls["nvmlDeviceGetProcessUtilization"]["codes"]) == {"0", "6"}
    assert all(0 < row["p50"] <= row["p99"] <= row["max"] for row in calls.values())
    cost = report["cost"]
    assert cost["look_ms"]["p50"] >= calls["nvmlDeviceGetTotalEnergyConsumption"]["p50"] / 1000
    assert cost["with_gpu_ms"] > 0 < cost["without_gpu_ms"]


def test_answers_are_kept_without_who_gave_them(runs: dict[str, Run]) -> None:
    """By phase and question, with made-up UUIDs and pids."""
    _, _, folder = runs["good"]
    text = (folder / "answers.json").read_text()
    answers = json.loads(text)
    assert set(re.findall(r"GPU-[0-9a-f-]{36}", text)) == {
        "GPU-00000000-0000-0000-0000-000000000001"
    }
    energy = "nvmlDeviceGetTotalEnergyConsumption(gpu 0)"
    assert answers["none"][energy]["code"] == 0
    assert answers["none"][energy]["value"] > answers["nobody"][energy]["value"]
    busy = answers["two processes"]["nvmlDeviceGetProcessUtilization(gpu 0)"]["value"]
    assert {row["pid"] for row in busy} <= {4001, 4002}
    assert answers["nobody"]["nvmlDeviceGetProcessUtilization(gpu 0)"] == {"code": 6}
    resident = answers["two processes"]["nvmlDeviceGetComputeRunningProcesses_v3(gpu 0)"]["value"]
    assert [row["pid"] for row in resident] == [4001, 4002]
    assert answers["nobody"]["nvmlDeviceGetPowerUsage(gpu 0)"] == {"code": 0, "value": 70_000}


def test_a_counter_that_runs_ahead_is_found(runs: dict[str, Run]) -> None:
    """The exporter believes it; the integral of power does not."""
    code, output, folder = runs["counter"]
    assert code == 1, output
    assert failed(folder) == {"the energy counter agrees with the integral of power"}, output
    assert "Not all checks hold." in (folder / "report.md").read_text()


def test_a_counter_that_ceases_to_answer_is_found(runs: dict[str, Run]) -> None:
    """By the exporter's own page, too; what it shows still closes."""
    code, output, folder = runs["lost"]
    assert code == 1, output
    assert {"every reading succeeded", "power was polled often enough"} <= failed(folder), output
    assert "energy = processes + other + retired + idle + unattributed" not in failed(folder)


def test_where_there_is_no_gpu_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1, and no report."""
    monkeypatch.setattr("hardware.stage.Stage.soname", "libno-such-driver.so.1")
    assert main([f"--report={tmp_path / 'report'}"]) == 1
    assert "no NVIDIA GPU that answers here" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--worker=sleep"],
        ["--fake", "--worker=torch"],
        ["--fault=counter"],
        ["--seconds=1"],
        ["--gpu=-1"],
        ["--no-such-flag"],
    ],
)
def test_wrong_usage_ends_with_2(wrong: list[str], tmp_path: Path) -> None:
    """Before anything runs."""
    with pytest.raises(SystemExit) as ended:
        main([f"--report={tmp_path}", *wrong])
    assert ended.value.code == 2
