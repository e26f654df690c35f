"""Jobs of version 1 below a service of version 2, each with its own counter."""

import shutil
from pathlib import Path

import pytest

from jobwatt.host.cgroupfs import find_cgroupfs
from jobwatt.model import Process, Usage
from jobwatt.usage.groups import Group
from jobwatt.usage.hybrid import HybridJobs
from jobwatt.workloads.contract import SYSTEM, Facts

MS = 1_000_000


def job_uid_of(facts: Facts) -> str:
    """A job is what `job_<name>` names, a service what ends so; the job is more."""
    names = [part for path in facts.cgroups.values() for part in path.split("/")]
    for kind in ("job_", ""):
        for name in names:
            if kind and name.startswith(kind):
                return name
            if not kind and name.endswith(".service"):
                return name
    return SYSTEM


class Node:
    """A hybrid machine whose version 1 tests turn; services and processes are told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "unified").mkdir()
        (root / "unified/cgroup.controllers").write_text("")
        self.used: dict[str, int] = {}
        self.counts("", 0)
        self.jobs = HybridJobs(find_cgroupfs(root), job_uid_of)
        self.slurmd, self.user = Group("slurmd.service", Counting()), Group(None, Counting())
        self.pid = 0

    def counts(self, path: str, ns: int) -> None:
        folder = self.root / f"cpuacct/{path}"
        folder.mkdir(parents=True, exist_ok=True)
        self.used[path] = self.used.get(path, 0) + ns
        (folder / "cpuacct.usage").write_text(f"{self.used[path]}\n")

    def process(self, v1: str, v2: str = "/slurmd.service", group: Group | None = None) -> Process:
        self.pid += 1
        cgroups = {"": v2, "cpuacct": v1}
        process = Process(self.pid, 0, job_uid=job_uid_of(Facts(cgroups, -1)))
        self.jobs.place(process, cgroups, group or self.slurmd)
        return process

    def settle(
        self,
        rests: dict[Group, int],
        cpu_ns: dict[Process, int] | None = None,
        *,
        full: bool = False,
        first: bool = False,
    ) -> Usage:
        usage = Usage(cpu_ns=cpu_ns or {})
        for group, ns in rests.items():
            group.exited_ns = ns
            if group.job_uid is None:
                usage.unseen_ns += ns
            else:
                usage.exited_ns[group.job_uid] = ns
        self.jobs.settle(usage, rests, full=full, first=first)
        return usage


class Counting:
    """A counter that nobody asks."""

    def read(self) -> int:
        return 0

    def close(self) -> None:
        """Hold nothing."""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_each_job_has_what_its_own_counter_tells(node: Node) -> None:
    """Beyond the clocks of its live processes; what is left is the service's own."""
    node.counts("slurm/job_1", 0)
    node.counts("slurm/job_2", 0)
    a, b = node.process("/slurm/job_1/step_0"), node.process("/slurm/job_2")
    node.settle({}, first=True)
    node.counts("slurm/job_1", 50 * MS)
    node.counts("slurm/job_2", 30 * MS)
    usage = node.settle({node.slurmd: 75 * MS}, {a: 10 * MS, b: 5 * MS})
    assert usage.exited_ns == {"job_1": 40 * MS, "job_2": 25 * MS, "slurmd.service": 10 * MS}
    assert node.slurmd.exited_ns == 10 * MS


def test_a_job_in_two_services_is_paid_out_of_each(node: Node) -> None:
    """As one that was adopted from a login; the sum stays what the services counted."""
    node.counts("slurm/job_1", 0)
    node.process("/slurm/job_1")
    node.process("/slurm/job_1/extern", "/user.service", node.user)
    node.settle({}, first=True)
    node.counts("slurm/job_1", 50 * MS)
    usage = node.settle({node.slurmd: 20 * MS, node.user: 40 * MS})
    assert (usage.exited_ns, usage.unseen_ns) == ({"job_1": 50 * MS}, 10 * MS)


def test_what_a_service_has_not_counted_yet_is_paid_later(node: Node) -> None:
    """And clocks that ran ahead of the job's counter are settled; nothing twice."""
    node.counts("slurm/job_1", 0)
    a = node.process("/slurm/job_1")
    node.settle({}, first=True)
    node.counts("slurm/job_1", 50 * MS)
    assert node.settle({node.slurmd: 45 * MS}).exited_ns == {"job_1": 45 * MS}
    assert node.settle({node.slurmd: 9 * MS}).exited_ns == {
        "job_1": 5 * MS,
        "slurmd.service": 4 * MS,
    }
    assert node.settle({}, {a: 6 * MS}).exited_ns == {}  # not counted yet
    node.counts("slurm/job_1", 7 * MS)
    assert node.settle({node.slurmd: 3 * MS}).exited_ns == {
        "job_1": 1 * MS,
        "slurmd.service": 2 * MS,
    }


def test_a_job_that_is_new_to_us_leaves_no_debt(node: Node) -> None:
    """Its counter may be old: what its service cannot explain now it will not later."""
    node.counts("slurm/job_1", 500 * MS)
    node.process("/slurm/job_1")
    assert node.settle({node.slurmd: 45 * MS}).exited_ns == {"job_1": 45 * MS}
    assert node.settle({node.slurmd: 9 * MS}).exited_ns == {"slurmd.service": 9 * MS}


def test_a_job_whose_group_is_gone_is_paid_as_much_as_it_used_before(node: Node) -> None:
    """Once; under the same name it is another."""
    node.counts("slurm/job_1", 0)
    node.process("/slurm/job_1")
    node.settle({}, first=True)
    node.counts("slurm/job_1", 20 * MS)
    node.settle({node.slurmd: 20 * MS})
    gone = node.root / "cpuacct/slurm/job_1/cpuacct.usage"
    gone.write_text("")  # as a removed group refuses to be read
    assert node.settle({node.slurmd: 90 * MS}).exited_ns == {
        "job_1": 20 * MS,
        "slurmd.service": 70 * MS,
    }
    assert node.settle({node.slurmd: 9 * MS}).exited_ns == {"slurmd.service": 9 * MS}
    shutil.rmtree(gone.parent)
    node.used["slurm/job_1"] = 0
    node.counts("slurm/job_1", 3 * MS)
    node.process("/slurm/job_1")
    assert node.settle({node.slurmd: 9 * MS}).exited_ns == {
        "job_1": 3 * MS,
        "slurmd.service": 6 * MS,
    }


def test_a_job_that_version_2_tells_as_well_is_left_to_it(node: Node) -> None:
    """So is who is in no group of version 1, or in a service's."""
    node.counts("slurm/job_1", 0)
    node.counts("other.service", 0)
    node.process("/slurm/job_1", "/job_1")
    node.process("/")
    node.process("/other.service")
    node.process("/not/there/job_9")
    node.settle({}, first=True)
    node.counts("slurm/job_1", 50 * MS)
    assert node.settle({node.slurmd: 9 * MS}).exited_ns == {"slurmd.service": 9 * MS}


def test_who_ended_and_services_that_are_gone_are_forgotten(node: Node) -> None:
    """Nothing is held of them."""
    node.counts("slurm/job_1", 0)
    a = node.process("/slurm/job_1")
    node.slurmd.close()
    node.settle({}, full=True)
    node.jobs.forget([a])
    (job,) = node.jobs._jobs.values()
    assert (job.hosts, node.jobs._job_of) == ({}, {})
