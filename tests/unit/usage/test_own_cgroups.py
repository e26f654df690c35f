"""How many CPUs and how much memory jobs hold, by the cgroups that are their own."""

import shutil
from pathlib import Path

import pytest

from jobwatt.host.cgroupfs import Cgroupfs
from jobwatt.usage.own_cgroups import OwnCgroups
from jobwatt.workloads.contract import SYSTEM, Facts

MACHINE = 8


def job_uid_of(facts: Facts) -> str:
    """A job is what `job_<name>` names; two pods may be of one."""
    for path in facts.cgroups.values():
        for part in path.split("/"):
            if part.startswith(("job_", "pod_")):
                return part.partition("-")[0]
    return SYSTEM


@pytest.fixture
def reserved(tmp_path: Path) -> OwnCgroups:
    return OwnCgroups(Cgroupfs((), trees={"": tmp_path}), job_uid_of, MACHINE)


def limit(root: Path, path: str, cpuset: str = "0-7", quota: str = "max") -> None:
    folder = root / path.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpuset.cpus.effective").write_text(f"{cpuset}\n")
    (folder / "cpu.max").write_text(f"{quota} 100000\n")


@pytest.mark.parametrize(
    ("cpuset", "quota", "cpus"),
    [
        ("0-7", "max", None),
        ("0-3", "max", 4.0),
        ("0-7", "250000", 2.5),
        ("0-3", "250000", 2.5),
        ("0-1", "250000", 2.0),
        ("0-7", "900000", None),
        ("", "max", None),
    ],
)
def test_the_smaller_of_both_where_smaller_than_the_machine(
    tmp_path: Path, reserved: OwnCgroups, cpuset: str, quota: str, cpus: float | None
) -> None:
    """The job's own cgroup counts, not that of its step."""
    limit(tmp_path, "/slurm/job_7", cpuset, quota)
    limit(tmp_path, "/slurm/job_7/step_0", "0", "100000")
    limit(tmp_path, "/slurm", "0", "100000")
    assert reserved.note("job_7", {"": "/slurm/job_7/step_0/task_0"})
    assert reserved.cpus("job_7") == cpus


def test_a_job_that_only_its_environment_names_holds_none(
    tmp_path: Path, reserved: OwnCgroups
) -> None:
    """Its cgroup is somebody else's; the system's is nobody's."""
    limit(tmp_path, "/user.slice", "0-1")
    assert not reserved.note("run:bert", {"": "/user.slice/x"})
    assert not reserved.note(SYSTEM, {"": "/user.slice"})
    assert (reserved.cpus("run:bert"), reserved.cpus(SYSTEM)) == (None, None)


def test_several_groups_of_one_job_add_up(tmp_path: Path, reserved: OwnCgroups) -> None:
    """Quotas add, cpusets unite; one without a limit leaves the job without."""
    limit(tmp_path, "/pods/pod_a-1", "0-1", "150000")
    limit(tmp_path, "/pods/pod_a-2", "2-3", "100000")
    for path in ("/pods/pod_a-1/c", "/pods/pod_a-2/c", "/pods/pod_a-1/d"):
        assert reserved.note("pod_a", {"": path})
    assert reserved.cpus("pod_a") == 2.5
    limit(tmp_path, "/pods/pod_a-3", "0-7", "max")
    reserved.note("pod_a", {"": "/pods/pod_a-3"})
    assert reserved.cpus("pod_a") is None
    shutil.rmtree(tmp_path / "pods/pod_a-3")
    assert reserved.review() == "pod_a"
    assert reserved.cpus("pod_a") == 2.5


def test_limits_are_read_again_in_turn(tmp_path: Path, reserved: OwnCgroups) -> None:
    """One job at a time."""
    assert reserved.review() is None
    for name in ("job_1", "job_2"):
        limit(tmp_path, f"/{name}", "0-1")
        reserved.note(name, {"": f"/{name}"})
        limit(tmp_path, f"/{name}", "0-2")
    assert [reserved.review(), reserved.cpus("job_1"), reserved.cpus("job_2")] == [
        "job_1",
        3.0,
        2.0,
    ]
    assert [reserved.review(), reserved.cpus("job_2")] == ["job_2", 3.0]
    reserved.forget("job_1")
    reserved.forget("job_1")
    assert [reserved.review(), reserved.cpus("job_1")] == ["job_2", None]


def test_version_1_has_a_tree_for_each(tmp_path: Path) -> None:
    """Any tree proves that the job is there; two of them have limits."""
    trees = {name: tmp_path / name for name in ("cpuset", "cpu", "freezer")}
    reserved = OwnCgroups(Cgroupfs((), trees=trees), job_uid_of, MACHINE)
    for name in trees:
        (tmp_path / name / "job_7").mkdir(parents=True)
    (tmp_path / "cpuset/job_7/cpuset.cpus").write_text("0-5\n")
    (tmp_path / "cpu/job_7/cpu.cfs_quota_us").write_text("300000\n")
    (tmp_path / "cpu/job_7/cpu.cfs_period_us").write_text("100000\n")
    assert reserved.note("job_7", {"freezer": "/job_7", "memory": "/"})
    assert reserved.cpus("job_7") is None
    assert reserved.note("job_7", {"cpuset": "/job_7/a", "cpu": "/job_7", "memory": "/"})
    assert reserved.cpus("job_7") == 3.0


def test_a_group_out_of_sight_holds_none(reserved: OwnCgroups) -> None:
    """Outside of our namespace."""
    assert reserved.note("job_7", {"": "/../job_7"})
    assert reserved.cpus("job_7") is None


def test_the_places_of_a_job_are_bounded(tmp_path: Path, reserved: OwnCgroups) -> None:
    """Users may make cgroups without end."""
    for number in range(2000):
        reserved.note("job_7", {"": f"/job_7/{number}"})
    assert len(reserved._held["job_7"].places) == 1024


def hold(root: Path, path: str, stat: str) -> None:
    (root / path).mkdir(parents=True, exist_ok=True)
    (root / path / "memory.stat").write_text(stat)


def test_the_memory_of_a_jobs_own_groups_adds_up(tmp_path: Path, reserved: OwnCgroups) -> None:
    """That of a group that is gone is no more; where one does not count it nobody knows."""
    hold(tmp_path, "pods/pod_a-1", "anon 1000\n")
    hold(tmp_path, "pods/pod_a-2", "anon 200\n")
    for path in ("/pods/pod_a-1/c", "/pods/pod_a-2/c"):
        reserved.note("pod_a", {"": path})
    assert reserved.anonymous_bytes("pod_a") == 1200
    shutil.rmtree(tmp_path / "pods/pod_a-2")
    assert reserved.anonymous_bytes("pod_a") == 1000
    hold(tmp_path, "pods/pod_a-1", "")
    assert reserved.anonymous_bytes("pod_a") is None
    assert reserved.anonymous_bytes("pod_b") is None


def test_the_memory_of_a_job_with_processes_elsewhere_is_not_known(
    tmp_path: Path, reserved: OwnCgroups
) -> None:
    """Its groups do not have all of it; nor is it known where the tree is out of sight."""
    hold(tmp_path, "job_7", "anon 1000\n")
    reserved.note("job_7", {"": "/job_7"})
    assert reserved.anonymous_bytes("job_7") == 1000
    reserved.note("job_7", {"": "/user.slice"})
    reserved.note("job_7", {"": "/job_7/step_0"})
    assert reserved.anonymous_bytes("job_7") is None
    reserved.note("job_8", {"": "/../job_8"})
    reserved.note("job_9", {"": "/job_9", "memory": "/job_9"})
    assert (reserved.anonymous_bytes("job_8"), reserved.anonymous_bytes("job_9")) == (None, None)


def test_a_job_whose_processes_have_settled_is_next_once(
    tmp_path: Path, reserved: OwnCgroups
) -> None:
    """Whatever comes after waits for its turn."""
    for name in ("job_1", "job_2", "job_3"):
        reserved.note(name, {"": f"/{name}"})
    reserved.hasten("job_3")
    assert reserved.review() == "job_3"
    reserved.hasten("job_3")
    reserved.hasten("gone")
    assert [reserved.review() for _ in range(3)] == ["job_1", "job_2", "job_3"]
