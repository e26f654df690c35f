from __future__ import annotations

from jobwatt.workloads.contract import Facts
from jobwatt.workloads.htcondor import HtcondorResolver

AD = "/var/lib/condor/execute/dir_4711/.job.ad"
RESOLVER = HtcondorResolver({AD: (1234, 0)}.get)


def test_the_ad_tells_the_job() -> None:
    """Cluster and proc, as condor_q prints them."""
    facts = Facts({}, 1000, {"_CONDOR_JOB_AD": AD})
    assert RESOLVER.job_uid(facts) == "htcondor:1234.0"


def test_without_an_ad_that_can_be_read() -> None:
    """None named, or none known (yet): no job."""
    environments: tuple[dict[str, str], ...] = (
        {},
        {"_CONDOR_JOB_AD": ""},
        {"_CONDOR_JOB_AD": "/x"},
    )
    assert [RESOLVER.job_uid(Facts({}, 1000, e)) for e in environments] == [None, None, None]
