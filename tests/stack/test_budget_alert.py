"""A budget overrun rings: from nodes through the shipped rules and routes to a webhook."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from fakes.nodes import Nodes, TimedJob
from fakes.webhook import Webhook
from servers import ROOT, answers, eventually, free_port, running

pytestmark = pytest.mark.stack

ARRIVAL_SECONDS = 150
"""Two evaluations every 15 s, 30 s of patience, 10 s of Alertmanager's, on a busy machine."""

QUIET_SECONDS = 45
"""Until JobWattJobBudgetNear, which fires half a minute later, would have arrived as well."""

JOBS = (
    # It exceeds its budget in two nodes' sum only, before the rules look twice.
    TimedJob("n1", "slurm:7", begin=0, seconds=400, watts=300, budget=1000),
    TimedJob("n2", "slurm:7", begin=0, seconds=400, watts=300, budget=1000),
    TimedJob("n1", "slurm:8", begin=0, seconds=400, watts=1, budget=1e6),
)


@pytest.mark.timeout(300)
def test_one_budget_alert_arrives_once_with_its_text(tmp_path: Path) -> None:
    """Of all that is said of this job, one message; rules and routes are the shipped ones."""
    alerting = yaml.safe_load((ROOT / "prometheus/alertmanager.yml").read_text())
    (receiver,) = alerting["receivers"]
    alertmanager, prometheus = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with ExitStack() as held:
        webhook = held.enter_context(Webhook())
        receiver["webhook_configs"] = [{"url": webhook.url, "send_resolved": False}]
        (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(alerting))
        nodes = held.enter_context(Nodes(JOBS))
        shipped = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text())
        config = {
            "rule_files": [str(ROOT / "prometheus" / path) for path in shipped["rule_files"]],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
            "scrape_configs": nodes.scrape_configs(seconds=1),
        }
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        held.enter_context(
            running(
                [
                    "prometheus-alertmanager",
                    f"--config.file={tmp_path / 'alertmanager.yml'}",
                    f"--storage.path={tmp_path / 'alertmanager'}",
                    f"--web.listen-address={alertmanager}",
                    "--cluster.listen-address=",
                ],
                tmp_path / "alertmanager.log",
            )
        )
        held.enter_context(
            running(
                [
                    "prometheus",
                    f"--config.file={tmp_path / 'prometheus.yml'}",
                    f"--storage.tsdb.path={tmp_path / 'data'}",
                    f"--web.listen-address={prometheus}",
                ],
                tmp_path / "prometheus.log",
            )
        )
        for server in (alertmanager, prometheus):
            eventually(lambda at=server: answers(f"http://{at}/-/ready"), 60, server)  # type: ignore[misc]
        eventually(lambda: webhook.messages, ARRIVAL_SECONDS, "no alert has arrived")
        time.sleep(QUIET_SECONDS)
    (message,) = webhook.messages
    assert message["groupLabels"] == {
        "alertname": "JobWattJobBudgetExceeded",
        "job_uid": "slurm:7",
    }
    (alert,) = message["alerts"]
    assert alert["status"] == "firing"
    assert alert["labels"] == {
        "alertname": "JobWattJobBudgetExceeded",
        "job_uid": "slurm:7",
        "severity": "warning",
    }
    annotations = alert["annotations"]
    assert annotations["summary"] == "A job has used more energy than its budget."
    told = re.fullmatch(
        r"The job slurm:7 \(made-up\) of ada has used ([\d.]+)% of the energy that it may use in "
        r"all, on all of its nodes\. JobWatt does not stop it\.",
        annotations["description"],
    )
    assert told is not None, annotations["description"]
    assert float(told[1]) >= 100
    assert annotations["runbook_url"].endswith("/JobWattJobBudgetExceeded.md")
