from __future__ import annotations

import pytest

from jobwatt.workloads.contract import Claim, Facts, split_path
from jobwatt.workloads.pbs import PbsEnvironment, PbsScheduler


def find(path: str) -> Claim | None:
    return PbsScheduler().find("", split_path(path))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/pbs_jobs.service/jobid/2404743.opbs", Claim("pbs:2404743.opbs", 3)),
        ("/pbs_jobs.service/jobs/12345.pbs", Claim("pbs:12345.pbs", 3)),
        (
            "/system.slice/pbs_jobs.service/jobid/7.head.example.org",
            Claim("pbs:7.head.example.org", 4),
        ),
        ("/pbs_jobs.service/jobid/7[3].gadi-pbs", Claim("pbs:7[3].gadi-pbs", 3)),
        ("/pbs_jobs.service/jobid/12345", Claim("pbs:12345", 3)),
        ("/pbs_jobs.service/jobid/7.srv/child", Claim("pbs:7.srv", 3)),
        ("/pbspro.service/jobid/7.srv", Claim("pbs:7.srv", 3)),
        ("/pbspro/7.srv", Claim("pbs:7.srv", 2)),
        ("/pbspro.slice/pbspro-7.srv.slice", Claim("pbs:7.srv", 2)),
        (r"/pbspro.slice/pbspro-7\x5b3\x5d.gadi\x2dpbs.slice", Claim("pbs:7[3].gadi-pbs", 2)),
    ],
)
def test_jobs(path: str, expected: Claim) -> None:
    """The id is what PBS prints, of all generations of its hook."""
    assert find(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/pbs_jobs.service",
        "/pbs_jobs.service/jobid",
        "/pbs_jobs.service/jobid/x",
        "/pbs_jobs.service/jobid/7.a\nb",
        "/pbs_jobs.service/jobid/7.a b",
        "/pbs_jobs.service/jobid/" + "7" * 99,
        "/jobid/7.srv",
        "/system.slice/pbs.service/log/7.srv",
        "/pbspro.slice/pbspro-x.slice",
        "/pbspro.slice/7.srv",
        "/xpbs_jobs.service/jobid/7.srv",
    ],
)
def test_what_is_none(path: str) -> None:
    """Daemons' own cgroups and look-alikes are no jobs."""
    assert find(path) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("12345.pbs", "pbs:12345.pbs"),
        ("7[3].head", "pbs:7[3].head"),
        ("", None),
        ("7.", None),
        ('7"}', None),
        ("7.a\n", None),
        (f"7.{'a' * 500}", None),
    ],
)
def test_the_environment(value: str, expected: str | None) -> None:
    """Nothing but a job id is one."""
    assert PbsEnvironment().job_uid(Facts({}, 1000, {"PBS_JOBID": value})) == expected
