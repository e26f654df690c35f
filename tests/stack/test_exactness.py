"""The totals that the recording rules give are what the jobs have used, whatever happens.

Real Prometheus servers of both majors scrape simulated nodes whose truth is known, at 7.5 times
the pace of a real site; `make bench-exactness` does the same without hurry: docs/exactness.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fleet_cases import CASES, Case
from fleets import METHODS, TOTAL, Site, lived

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

PACE = 2 / 15
TOLERANCE = 1e-3
REPLICAS = ("2", "2 restarted", "3")
WIDE = "slurm:64"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site after twelve minutes in a minute and a half."""
    with lived(tmp_path_factory.mktemp("exactness"), PACE) as site:
        yield site


@pytest.mark.parametrize("replica", REPLICAS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_job_s_total_is_what_it_used(site: Site, case: Case, replica: str) -> None:
    """Each job's, on servers of both majors, and on one that was away for five minutes."""
    totals = site.by_job(site.replicas[replica], TOTAL)
    assert case.jobs
    for job_uid in case.jobs:
        assert totals.get(job_uid) == pytest.approx(site.joules[job_uid], rel=TOLERANCE), job_uid


def test_two_replicas_read_as_one_give_the_same_totals(site: Site) -> None:
    """The larger of both totals of a job is its total: none counts what did not happen."""
    expr = TOTAL.replace("sum by (job_uid) (", "sum by (job_uid) (max without (replica) (") + ")"
    seen = site.both.query("group by (replica) (last_over_time(up[10m]))")
    assert {one["metric"]["replica"] for one in seen} == {"2", "2 restarted"}
    totals = site.by_job(site.both, expr)
    assert totals == pytest.approx(site.joules, rel=TOLERANCE)


@pytest.mark.parametrize("replica", REPLICAS)
def test_carbon_and_cost_are_those_of_each_node_s_zone(site: Site, replica: str) -> None:
    """A job on nodes in two grids counts each with its own intensity, PUE and price."""
    api = site.replicas[replica]
    carbon = "sum by (job_uid) (sum_over_time(job_uid:jobwatt_job_carbon_grams:delta[$range]))"
    cost = "sum by (job_uid) (sum_over_time(job_uid:jobwatt_job_cost:delta[$range]))"
    assert site.by_job(api, carbon) == pytest.approx(site.grams, rel=TOLERANCE)
    assert site.by_job(api, cost) == pytest.approx(site.cost, rel=TOLERANCE)


@pytest.mark.parametrize("replica", REPLICAS)
def test_a_budget_knows_the_nodes_that_have_left_the_job(site: Site, replica: str) -> None:
    """The used part is that of all 64 nodes, on a server that was away for five minutes, too."""
    ratio = "max_over_time(job_uid:jobwatt_job_energy_budget:used_ratio[$range])"
    used = site.by_job(site.replicas[replica], ratio)
    assert used == {WIDE: pytest.approx(site.joules[WIDE] / 10_000_000, rel=TOLERANCE)}


def test_increase_is_not_exact(site: Site) -> None:
    """Why there are rules: it loses the first sample of each series, and all of most short jobs."""
    joules = site.by_job(site.replicas["2"], METHODS["`increase`"])
    shortest = next(case for case in CASES if case.name == "3 s jobs").jobs
    assert sum(joules.get(uid, 0.0) for uid in shortest) < 0.2 * sum(
        site.joules[uid] for uid in shortest
    )
