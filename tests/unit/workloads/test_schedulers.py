from __future__ import annotations

from collections.abc import Sequence

import pytest

from jobwatt.model import UNDECIDED
from jobwatt.workloads.contract import Facts, split_path, trees
from jobwatt.workloads.kubernetes import KubernetesScheduler
from jobwatt.workloads.pbs import PbsScheduler
from jobwatt.workloads.schedulers import SchedulerResolver
from jobwatt.workloads.slurm import SlurmScheduler

UID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
POD = f"/kubepods/burstable/pod{UID}/{'e' * 64}"
SLURM = "/system.slice/slurmstepd.scope/job_7/step_0/user/task_0"
PBS = "/pbs_jobs.service/jobid/7.srv"
ADA = "/user.slice/user-1000.slice/user@1000.service"
SCHEDULERS = (SlurmScheduler(lambda *_: None), KubernetesScheduler(), PbsScheduler())


def owner_of(controller: str, parts: Sequence[str]) -> int:
    """All is root's but what is below Ada's manager; nothing is known of the freezer's tree."""
    return -1 if controller == "freezer" else 1000 if "user@1000.service" in parts else 0


RESOLVER = SchedulerResolver(SCHEDULERS, owner_of)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (SLURM, "slurm:7"),
        (POD, f"k8s:{UID}"),
        (PBS, "pbs:7.srv"),
        (POD + SLURM, f"k8s:{UID}"),
        (SLURM + POD, "slurm:7"),
        (PBS + POD + SLURM, "pbs:7.srv"),
        (POD + PBS, f"k8s:{UID}"),
        ("/system.slice/ssh.service", None),
        ("/", None),
        (ADA + SLURM, None),
        (ADA + POD, None),
        (ADA + PBS, None),
        (SLURM + ADA + POD, "slurm:7"),
    ],
)
def test_the_outermost_that_is_roots(path: str, expected: str | None) -> None:
    """Schedulers nest in any order, and users cannot make their cgroups."""
    assert RESOLVER.job_uid(Facts({"": path}, 1000)) == expected


@pytest.mark.parametrize(
    ("cgroups", "expected"),
    [
        ({"": "/", "cpuset": SLURM}, "slurm:7"),
        ({"": "/system.slice/slurmd.service", "memory": "/slurm/uid_0/job_7"}, "slurm:7"),
        ({"cpuset": SLURM, "": POD}, f"k8s:{UID}"),
        ({"freezer": SLURM}, None),
        ({"freezer": SLURM, "pids": PBS}, "pbs:7.srv"),
        ({"": ADA + POD, "pids": PBS}, "pbs:7.srv"),
        ({}, None),
    ],
)
def test_all_trees_are_looked_at(cgroups: dict[str, str], expected: str | None) -> None:
    """A scheduler may divide only some of them; what cannot be checked is not believed."""
    assert RESOLVER.job_uid(Facts(cgroups, 1000)) == expected


def test_the_directory_that_counts_is_the_jobs() -> None:
    """What a job's user owns within it changes nothing."""
    asked: list[tuple[str, ...]] = []

    def note(controller: str, parts: Sequence[str]) -> int:
        del controller
        asked.append(tuple(parts))
        return 0

    SchedulerResolver(SCHEDULERS, note).job_uid(Facts({"": SLURM}, 1000))
    assert asked == [("system.slice", "slurmstepd.scope", "job_7")]


def test_who_is_in_a_job_is_told() -> None:
    """So that its user is known to those who trust the environment."""
    seen: list[tuple[str, int]] = []
    resolver = SchedulerResolver(SCHEDULERS, owner_of, lambda job, uid: seen.append((job, uid)))
    for facts in (Facts({"": SLURM}, 1000), Facts({"": "/"}, 1001), Facts({"": ADA + POD}, 1000)):
        resolver.job_uid(facts)
    assert seen == [("slurm:7", 1000)]


def test_paths_are_split() -> None:
    """The root has no parts; what the kernel adds for a removed cgroup is not its name."""
    paths = ("/", "", "/a/b", "/a (deleted)", "/a (deleted)/b")
    expected = [(), (), ("a", "b"), ("a",), ("a (deleted)", "b")]
    assert [split_path(path) for path in paths] == expected


def test_trees_come_in_order() -> None:
    """Version 2, systemd's, the one that counts CPU time, the others by name; no roots."""
    cgroups = {"pids": "/p", "cpuset": "/", "cpuacct": "/c", "name=systemd": "/s", "": "/u"}
    assert [name for name, _ in trees(cgroups)] == ["", "name=systemd", "cpuacct", "pids"]


def test_what_a_cgroup_names_may_be_a_part_of_a_job() -> None:
    """Nobody is asked about cgroups that are not believed, and an undecided one is not told."""
    asked: list[str] = []
    told: list[tuple[str, int]] = []
    jobs = iter([UNDECIDED, "k8s:ml/Job/bert"])

    def job_of(claim: str) -> str:
        asked.append(claim)
        return next(jobs)

    def saw(job_uid: str, uid: int) -> None:
        told.append((job_uid, uid))

    resolver = SchedulerResolver(SCHEDULERS, owner_of, saw, job_of)
    found = [resolver.job_uid(Facts({"": path}, 1000)) for path in (ADA + POD, POD, POD)]
    assert found == [None, UNDECIDED, "k8s:ml/Job/bert"]
    assert (asked, told) == ([f"k8s:{UID}"] * 2, [("k8s:ml/Job/bert", 1000)])
