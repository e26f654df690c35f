from __future__ import annotations

from collections.abc import Sequence

import pytest

from jobwatt.workloads.contract import Claim, Facts, split_path
from jobwatt.workloads.slurm import SlurmEnvironment, SlurmScheduler

SLUID = "sEKNKTV3WPV500"
V2 = "/system.slice/slurmstepd.scope"
ASKED: list[tuple[str, tuple[str, ...]]] = []


def id_of_sluid(controller: str, parts: Sequence[str]) -> str | None:
    ASKED.append((controller, tuple(parts)))
    return "3385" if parts[-1] == SLUID else None


SLURM = SlurmScheduler(id_of_sluid)


def find(path: str, scheduler: SlurmScheduler = SLURM) -> Claim | None:
    return scheduler.find("", split_path(path))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        # Version 1, one and several slurmd.
        ("/slurm/uid_1000/job_7/step_0/task_0", Claim("slurm:7", 3)),
        ("/slurm/uid_0/job_7/step_batch", Claim("slurm:7", 3)),
        ("/slurm/uid_1000/job_7", Claim("slurm:7", 3)),
        (
            "/slurm_node17/uid_1000/job_4294967295/step_4294967294/task_1",
            Claim("slurm:4294967295", 3),
        ),
        ("/slurm_gpu-a.example/uid_1000/job_7/step_extern", Claim("slurm:7", 3)),
        # Version 2: steps of all kinds are the job's.
        (f"{V2}/job_7/step_0/user/task_0", Claim("slurm:7", 3)),
        (f"{V2}/job_7/step_0/user/task_special", Claim("slurm:7", 3)),
        (f"{V2}/job_7/step_0/slurm", Claim("slurm:7", 3)),
        (f"{V2}/job_7/step_batch/user/task_0", Claim("slurm:7", 3)),
        (f"{V2}/job_7/step_extern/user/task_0", Claim("slurm:7", 3)),
        (f"{V2}/job_7/step_interactive/user/task_0", Claim("slurm:7", 3)),
        (f"{V2}/job_7/step_TBD/user/task_0", Claim("slurm:7", 3)),
        (f"{V2}/job_7", Claim("slurm:7", 3)),
        (f"{V2}/job_7/step_0/user/task_0 (deleted)", Claim("slurm:7", 3)),
        # Element 3 of an array and component 1 of a heterogeneous job: their own ids, as ever.
        (f"{V2}/job_1003/step_0/user/task_0", Claim("slurm:1003", 3)),
        # Several slurmd, and a slice of the site's own.
        ("/system.slice/node1_slurmstepd.scope/job_7/step_0/user/task_0", Claim("slurm:7", 3)),
        ("/system.slice/a_b_slurmstepd.scope/job_7/step_0/user/task_0", Claim("slurm:7", 3)),
        ("/slurm.slice/slurmstepd.scope/job_7/step_0/user/task_0", Claim("slurm:7", 3)),
        ("/a.slice/a-b.slice/slurmstepd.scope/job_7/step_0", Claim("slurm:7", 4)),
        ("/slurmstepd.scope/job_7/step_0", Claim("slurm:7", 2)),
        # 26.05: a SLUID.
        (f"{V2}/{SLUID}/step_0/user/task_0", Claim("slurm:3385", 3)),
        (f"{V2}/{SLUID}/step_batch/slurm", Claim("slurm:3385", 3)),
        (f"/system.slice/n1_slurmstepd.scope/{SLUID}/step_0", Claim("slurm:3385", 3)),
        (f"{V2}/s5K1KKYAYG5D00/step_0/user/task_0", Claim("slurm:s5K1KKYAYG5D00", 3)),
        # slurmd in a container: the path goes on below it.
        (f"/lxc.payload.n1{V2}/job_7/step_0", Claim("slurm:7", 4)),
        # A container that a job started.
        (f"{V2}/job_7/step_0/user/task_0/docker/{'e' * 64}", Claim("slurm:7", 3)),
        # The outermost of two.
        (f"{V2}/job_7/step_0/user/task_0{V2}/job_8/step_0", Claim("slurm:7", 3)),
    ],
)
def test_jobs(path: str, expected: Claim) -> None:
    """Job and depth, whatever the version, the step or the number of slurmd."""
    assert find(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/system.slice/slurmd.service",
        V2,
        f"{V2}/system",
        f"{V2}/job_",
        f"{V2}/job_0",
        f"{V2}/job_07",
        f"{V2}/job_7x",
        f"{V2}/job_-7",
        f"{V2}/job_٧",
        f"{V2}/job_7\n",
        f"{V2}/job_12345678901",
        f"{V2}/sEKNKTV3WPV50",
        f"{V2}/sEKNKTV3WPV5000",
        f"{V2}/seknktv3wpv500",
        f"{V2}/sEKNKTV3WPV50I",
        "/job_7/step_0",
        "/slurm/job_7/step_0",
        "/slurm/uid_x/job_7",
        "/slurm/uid_1000",
        "/slurmx/uid_1000/job_7",
        "/xslurmstepd.scope/job_7",
    ],
)
def test_what_is_none(path: str) -> None:
    """Daemons' own cgroups and look-alikes are no jobs."""
    assert find(path) is None


def test_a_sluid_is_looked_up_by_its_own_cgroup() -> None:
    """The callable is given the tree and the path down to the SLUID."""
    ASKED.clear()
    SLURM.find("cpuset", split_path(f"{V2}/{SLUID}/step_0/user/task_0"))
    assert ASKED == [("cpuset", ("system.slice", "slurmstepd.scope", SLUID))]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"{V2}/job_7/step_0", "slurm:7:r2"),
        (f"{V2}/{SLUID}/step_0", "slurm:3385:r1"),
        (f"{V2}/job_8/step_0", "slurm:8"),
        (f"{V2}/s5K1KKYAYG5D00/step_0", "slurm:s5K1KKYAYG5D00"),
    ],
)
def test_requeues_are_told_by_whoever_knows(path: str, expected: str) -> None:
    """Each run of a requeued job is a job of its own, where something root's tells."""
    runs = {("7", ""): 2, ("3385", SLUID): 1}
    scheduler = SlurmScheduler(id_of_sluid, lambda job_id, sluid: runs.get((job_id, sluid), 0))
    claim = find(path, scheduler)
    assert claim is not None
    assert claim.job_uid == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", "slurm:7"),
        ("4294967295", "slurm:4294967295"),
        ("", None),
        ("0", None),
        ("007", None),
        ("7 ", None),
        ("7\n", None),
        ("7_1", None),
        ("-7", None),
        ("٧", None),
        ("9" * 1000, None),
    ],
)
def test_the_environment(value: str, expected: str | None) -> None:
    """Nothing but a job id is one."""
    facts = Facts({}, 1000, {"SLURM_JOB_ID": value})
    assert SlurmEnvironment().job_uid(facts) == expected


def test_which_run_it_is_the_environment_does_not_tell() -> None:
    """Something root's does."""
    environment = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "5"}
    facts = Facts({}, 1000, environment)
    assert SlurmEnvironment().job_uid(facts) == "slurm:7"
    runs = {("7", ""): 2}
    by_file = SlurmEnvironment(lambda job_id, sluid: runs.get((job_id, sluid), 0))
    assert by_file.job_uid(facts) == "slurm:7:r2"


def test_without_a_variable() -> None:
    """A process that names no job has none."""
    assert SlurmEnvironment().job_uid(Facts({}, 1000)) is None
