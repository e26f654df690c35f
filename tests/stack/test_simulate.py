"""`jobwatt simulate` as a reader runs it who wants to see a busy node."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.stack


@pytest.fixture(params=["slurm-node", "k8s-node"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a made-up node that has just begun to answer."""
    command = [sys.executable, "-m", "jobwatt", "simulate", f"--scenario={request.param}"]
    with subprocess.Popen(
        [*command, "--web.listen-address=127.0.0.1:0"], stderr=subprocess.PIPE, text=True
    ) as exporter:
        try:
            assert exporter.stderr is not None
            found = next(filter(None, (re.search(r"127\.0\.0\.1:\d+", x) for x in exporter.stderr)))
            yield f"http://{found[0]}"
        finally:
            exporter.terminate()
            assert exporter.wait(20) == 0


def read(url: str) -> str:
    """Return what is answered there."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        text: str = answer.read().decode()
    return text


def of_one_sample(url: str) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Return the status, and the metrics by name, of the same sample."""
    while True:
        status = json.loads(read(f"{url}/api/v1/status"))
        families = text_string_to_metric_families(read(f"{url}/metrics"))
        metrics = {sample.name: family.samples for family in families for sample in family.samples}
        if metrics["jobwatt_last_sample_timestamp_seconds"][0].value == status["time"]:
            return status, metrics


def test_a_busy_node_at_once(url: str) -> None:
    """A quarter of an hour of history, jobs near and over their budgets, some that have ended."""
    status, metrics = of_one_sample(url)

    jobs = status["jobs"]
    budgets = [job["energy_joules"] / job["budget_joules"] for job in jobs if job["budget_joules"]]
    assert sum(job["ended"] is None for job in jobs) > 15
    assert sum(job["ended"] is not None for job in jobs) > 8
    assert max(budgets) > 1
    assert any(0.8 < ratio < 1 for ratio in budgets)
    assert len(status["history"]["times"]) == 120
    # What people see is what Prometheus sees.
    energy: dict[str, float] = {}
    for sample in metrics["jobwatt_job_energy_joules_total"]:
        job_uid = sample.labels["job_uid"]
        assert sample.labels["source"] == "simulated"
        energy[job_uid] = energy.get(job_uid, 0.0) + sample.value
    assert {job["job_uid"]: pytest.approx(job["energy_joules"]) for job in jobs} == energy
