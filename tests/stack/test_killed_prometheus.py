"""A Prometheus that is killed between a node's failure and its own next evaluation.

It had no time to note that the node's series have ended, and finds the last snapshots by looking
back for five minutes when it is there again: what they differ by must not be counted twice.
"""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fakes.nodes import Nodes, TimedJob
from fleets import DELTA, JOBS, at_pace, recording_rules
from servers import Prometheus, answers, eventually, free_port, running

pytestmark = pytest.mark.stack

PACE = 0.2
"""Rules every 3 s."""

ATTEMPTS = 8
JOB = TimedJob("n1", "slurm:7", 0.0, 3600.0, 100.0)
SNAPSHOT = 'device:jobwatt_job_energy_joules:snapshot{job_uid="slurm:7"}'


def configure(folder: Path, nodes: Nodes) -> None:
    folder.mkdir()
    for path in recording_rules():
        (folder / path.name).write_text(at_pace(path, PACE))
    config = {
        "rule_files": [path.name for path in recording_rules()],
        "scrape_configs": nodes.scrape_configs(0.5),
    }
    text = yaml.safe_dump(config).replace("0.5s", "500ms")
    (folder / "prometheus.yml").write_text(text)


@contextlib.contextmanager
def prometheus(folder: Path) -> Iterator[tuple[Prometheus, subprocess.Popen[bytes]]]:
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, folder / f"{time.time()}.log") as process:
        api = Prometheus(f"http://127.0.0.1:{port}")
        eventually(lambda: answers(f"{api.url}/-/ready"), 30, "Prometheus is not ready")
        yield api, process


def last_evaluation(api: Prometheus) -> str:
    (group,) = [group for group in api.get("rules")["groups"] if group["name"] == JOBS]
    return str(group["lastEvaluation"])


def wait_for_evaluations(api: Prometheus, count: int) -> str:
    """The last of so many more."""
    for _ in range(count):
        before = last_evaluation(api)
        eventually(lambda before=before: last_evaluation(api) != before, 30)  # type: ignore[misc]
    return last_evaluation(api)


def killed_in_time(folder: Path) -> bool:
    """Whether a node failed and was seen to, and Prometheus was killed before it evaluated."""
    with Nodes([JOB]) as nodes:
        configure(folder, nodes)
        with prometheus(folder) as (api, process):
            seen = wait_for_evaluations(api, 4)
            nodes.shutdown()
            nodes.server_close()
            eventually(lambda: api.query('up{instance="n1"} == 0'), 30)
            in_time = last_evaluation(api) == seen
            process.kill()
    return in_time


def test_nothing_is_counted_twice(tmp_path: Path) -> None:
    """The rules add up to what the last page before the failure showed, however often they run."""
    attempts = (tmp_path / str(number) for number in range(ATTEMPTS))
    folder = next(folder for folder in attempts if killed_in_time(folder))
    with prometheus(folder) as (api, _):
        wait_for_evaluations(api, 3)
        assert api.query(SNAPSHOT)  # it looks back to them
        total = api.value(f"sum(sum_over_time({DELTA}[10m]))")
        assert total == pytest.approx(api.value(f"max_over_time({SNAPSHOT}[10m])"), abs=1e-6)
