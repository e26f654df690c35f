from __future__ import annotations

from collections.abc import Sequence

import pytest

from jobwatt.workloads.contract import Facts
from jobwatt.workloads.declared import DeclaredResolver
from jobwatt.workloads.owners import JobOwners, OwnedResolver
from jobwatt.workloads.run_cgroup import RunCgroupResolver

ALICE, BOB = 1000, 1001
HOME = "/user.slice/user-1000.slice/user@1000.service/app.slice"


class Machine:
    """Resolvers with one book of owners; `owner` made all cgroups."""

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.asked: list[tuple[str, ...]] = []
        owners = JobOwners(3, lambda uid: f"u{uid}")
        self.cgroup = RunCgroupResolver(self._owner_of, owners)
        self.environment = OwnedResolver(DeclaredResolver(), owners, root_gives_way=False)

    def _owner_of(self, controller: str, parts: Sequence[str]) -> int:
        assert controller in {"", "cpuacct"}
        self.asked.append(tuple(parts))
        return self.owner


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"{HOME}/jobwatt-run-bert-1", "run:bert-1"),
        (f"{HOME}/jobwatt-run-bert-1/deeper/still", "run:bert-1"),
        (f"{HOME}/jobwatt-run-outer/jobwatt-run-inner", "run:inner"),
        ("/jobwatt-run-bert-1 (deleted)", "run:bert-1"),
        (f"{HOME}/jobwatt-run-", None),
        (f"{HOME}/my-jobwatt-run-x", None),
        (HOME, None),
        ("/", None),
    ],
)
@pytest.mark.parametrize("controller", ["", "cpuacct"])
def test_paths(path: str, expected: str | None, controller: str) -> None:
    """The innermost run has a process, and a cgroup's unseen ones."""
    assert Machine(ALICE).cgroup.job_uid(Facts({controller: path}, -1)) == expected


def test_the_folder_of_the_run_is_asked_for() -> None:
    """Not one above, which is root's, nor one below."""
    machine = Machine(ALICE)
    machine.cgroup.job_uid(Facts({"": "/a/jobwatt-run-x/b"}, ALICE))

    assert machine.asked == [("a", "jobwatt-run-x")]


def test_same_job_as_by_the_environment() -> None:
    """Of the same user: live processes and those that nobody saw add up."""
    machine = Machine(ALICE)
    facts = Facts({"": HOME}, ALICE, {"JOBWATT_JOB": "bert-1"})

    assert machine.environment.job_uid(facts) == "run:bert-1"
    assert machine.cgroup.job_uid(Facts({"": f"{HOME}/jobwatt-run-bert-1"}, -1)) == "run:bert-1"


def test_nobody_claims_anothers_job() -> None:
    """A folder of any name is nothing but its owner's word."""
    machine = Machine(BOB)
    machine.environment.job_uid(Facts({"": HOME}, ALICE, {"JOBWATT_JOB": "bert-1"}))

    assert machine.cgroup.job_uid(Facts({"": "/x/jobwatt-run-bert-1"}, -1)) is None


def test_unknown_owner_claims_nothing() -> None:
    """A folder that has gone before anybody looked."""
    assert Machine(-1).cgroup.job_uid(Facts({"": "/jobwatt-run-x"}, ALICE)) is None


def test_jobs_of_a_user_are_bounded() -> None:
    """Folders make no more jobs than environments do."""
    machine = Machine(ALICE)
    found = [machine.cgroup.job_uid(Facts({"": f"/jobwatt-run-{n}"}, -1)) for n in range(5)]

    assert found == ["run:0", "run:1", "run:2", "session:u1000", "session:u1000"]
