"""The totals that the recording rules give are what the jobs have used, whatever happens.

Real Prometheus servers of both majors scrape simulated nodes whose truth is known, at 7.5 times the
pace of a real site; `tests/benchmarks/exactness.py` does the same without hurry.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fleets import CASES, METHODS, TOTAL, Case, Site, lived

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

PACE = 2 / 15
TOLERANCE = 1e-3
REPLICAS = ("2", "2 restarted", "3")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site after twelve minutes in a minute and a half."""
    with lived(tmp_path_factory.mktemp("exactness"), PACE) as site:
        yield site


@pytest.mark.parametrize("replica", REPLICAS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_job_s_total_is_what_it_used(site: Site, case: Case, replica: str) -> None:
    """Each job's, on a Prometheus that ran all the time, one that was killed, and the next major."""
    totals = site.by_job(site.replicas[replica], TOTAL)
    for job_uid in case.jobs:
        assert totals.get(job_uid) == pytest.approx(site.joules[job_uid], rel=TOLERANCE), job_uid
