"""The same rules where a site has outgrown one Prometheus: agent, remote write, vmalert.

Nodes whose truth is known are scraped twice: by a Prometheus that evaluates the rules as shipped,
and by one in agent mode that sends to VictoriaMetrics, over which vmalert evaluates the same files.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from fakes.nodes import Nodes, TimedJob
from servers import ROOT, Prometheus, answers, eventually, free_port, running, vmalert

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

RULES = ROOT / "prometheus/rules"
SCRAPE_SECONDS = 5.0
INTERVAL_SECONDS = 15.0
DELAY_SECONDS = 30.0
"""vmalert's -rule.evalDelay, by default."""

LINKS = 6
"""Counter, snapshot, delta on a node, of a job, sum, ratio: each is an evaluation late there."""

SLACK_SECONDS = 10.0

LATE_SECONDS = 60.0
"""What a busy machine may need more."""

JOBS = (
    # None begins before all pages have been scraped: a PUE that nobody has seen yet is 1.
    # Two nodes that end one after the other; a job shorter than a scrape; one of 45 s.
    TimedJob("n1", "slurm:1", 21, 40, 111.111, gpus=2, idle_watts=60, budget=20_000),
    TimedJob("n2", "slurm:1", 21, 20, 222.222, gpus=1, idle_watts=60, budget=20_000),
    TimedJob("n1", "run:short", 24, 1.7, 50),
    TimedJob("n3", "slurm:2", 18, 45, 400, gpus=4, idle_watts=70),
    # Two hours old, at its end, and seen on one node after the other.
    TimedJob("n1", "slurm:3", -7200, 7190, 10, budget=143_800),
    TimedJob("n2", "slurm:3", -7200, 7190, 5, unseen=40),
)
GRID = """\
jobwatt_grid_carbon_intensity_grams_per_kwh\
{grid_zone="FR",provider="rte",kind="average",boundary="direct",year=""} 36
jobwatt_site_pue_ratio{grid_zone="FR"} 1.2
jobwatt_site_electricity_price_per_kwh{grid_zone="FR",currency="EUR"} 0.2
"""

# By hand. slurm:1: 4,444.44 + 4,444.44 J; slurm:2: 18,000 J; run:short: 85 J.
TRUTH = {
    "energy_joules:delta": {"slurm:1": 8888.88, "slurm:2": 18000, "run:short": 85},
    "facility_energy_joules:delta": {"slurm:1": 10666.656, "slurm:2": 21600, "run:short": 102},
    "carbon_grams:delta": {"slurm:1": 0.10666656, "slurm:2": 0.216, "run:short": 0.00102},
    "cost:delta": {"slurm:1": 0.000592592, "slurm:2": 0.0012, "run:short": 0.000005667},
    "gpu_idle_energy_joules:delta": {"slurm:1": 3600, "slurm:2": 3150},
    "full_energy_joules:delta": {"slurm:1": 12488.88, "slurm:2": 21150, "run:short": 85},
    "gpu_seconds:delta": {"slurm:1": 100, "slurm:2": 180},
    "cpu_seconds:delta": {"slurm:1": 60, "slurm:2": 45, "run:short": 1.7},
}


@dataclass(frozen=True, slots=True)
class Answers:
    """Each storage's totals: by recorded series and job."""

    prometheus: dict[str, dict[str, float]]
    victoria: dict[str, dict[str, float]]

    @property
    def are_alike(self) -> bool:
        """Whether both know as much."""
        return self.victoria == {
            name: pytest.approx(by_job, rel=1e-6) for name, by_job in self.prometheus.items()
        }


def totals(server: Prometheus) -> dict[str, dict[str, float]]:
    """What a report would ask; a job without any is left out."""
    found: dict[str, dict[str, float]] = {}
    for name in TRUTH:
        expr = f"sum by (job_uid) (sum_over_time(job_uid:jobwatt_job_{name}[1h])) > 0"
        rows = server.query(expr)
        found[name] = {row["metric"]["job_uid"]: float(row["value"][1]) for row in rows}
    rows = server.query("job_uid:jobwatt_job_energy_budget:used_ratio")
    found["used_ratio"] = {row["metric"]["job_uid"]: float(row["value"][1]) for row in rows}
    return found


def write(path: Path, tree: object) -> Path:
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    """Both storages, asked once all that the jobs used has passed through the rules."""
    folder = tmp_path_factory.mktemp("remote")
    victoria, alerting, agent, prometheus = (f"127.0.0.1:{free_port()}" for _ in range(4))
    with ExitStack() as held:

        def start(name: str, address: str, page: str, *command: str | Path) -> None:
            held.enter_context(running(command, folder / f"{name}.log"))
            eventually(lambda: answers(f"http://{address}{page}"), 60, f"{name} is not ready")

        start(
            "victoria",
            victoria,
            "/health",
            "victoria-metrics",
            f"-storageDataPath={folder / 'victoria'}",
            f"-httpListenAddr={victoria}",
        )
        nodes = held.enter_context(Nodes(JOBS, zone="FR", grid=GRID))
        scraping = {"scrape_configs": nodes.scrape_configs(SCRAPE_SECONDS)}
        patterns = [str(RULES / kind / "*.yml") for kind in ("recording", "alerts")]
        sending = {"remote_write": [{"url": f"http://{victoria}/api/v1/write"}]}
        start(
            "prometheus",
            prometheus,
            "/-/ready",
            "prometheus",
            f"--config.file={write(folder / 'rules.yml', scraping | {'rule_files': patterns})}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address={prometheus}",
        )
        start(
            "agent",
            agent,
            "/-/ready",
            "prometheus",
            "--enable-feature=agent",
            f"--config.file={write(folder / 'agent.yml', scraping | sending)}",
            f"--storage.agent.path={folder / 'agent'}",
            f"--web.listen-address={agent}",
        )
        start(
            "vmalert",
            alerting,
            "/health",
            vmalert(),
            *(f"-rule={pattern}" for pattern in patterns),
            f"-datasource.url=http://{victoria}",
            f"-remoteWrite.url=http://{victoria}",
            f"-remoteRead.url=http://{victoria}",
            "-notifier.blackhole",
            f"-httpListenAddr={alerting}",
        )
        last = max(job.begin + job.seconds for job in JOBS)
        done = nodes.began + last + DELAY_SECONDS + LINKS * INTERVAL_SECONDS + SLACK_SECONDS
        time.sleep(max(0.0, done - time.time()))
        servers = Prometheus(f"http://{prometheus}"), Prometheus(f"http://{victoria}")
        found = Answers(*map(totals, servers))
        while not found.are_alike and time.time() < done + LATE_SECONDS:
            time.sleep(1)
            found = Answers(*map(totals, servers))
        yield found


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_totals_are_the_truth_in_both(answered: Answers, name: str) -> None:
    """Jobs shorter than a scrape and nodes that end one by one included."""
    for found in (answered.prometheus, answered.victoria):
        assert found[name] == pytest.approx(TRUTH[name], rel=1e-4)
    assert answered.victoria[name] == pytest.approx(answered.prometheus[name], rel=1e-6)


def test_budgets_are_the_same_in_both(answered: Answers) -> None:
    """Kept as a running sum, which must take no delta twice, and what an old node shows once."""
    for found in (answered.prometheus, answered.victoria):
        truth = {"slurm:1": 0.444444, "slurm:3": 0.75}
        assert found["used_ratio"] == pytest.approx(truth, rel=1e-6)
