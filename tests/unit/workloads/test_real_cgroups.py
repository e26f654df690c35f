"""The whole way: real processes in real cgroups, some of them made by users, named to mislead."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from jobwatt.app import Parts, host_parts
from jobwatt.config import Config

CGROUPS = Path("/sys/fs/cgroup")
TOP = f"jobwatt-test-{os.getpid()}-jobs"
ADA, BOB = 60001, 60002
UID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
ID, OTHER = "e" * 64, "1" * 64
SLURM = "slurmstepd.scope/job_7/step_0/user/task_0"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Node:
    """A part of this machine's version 2 tree, processes in it, and what JobWatt makes of them."""

    def __init__(self, stack: ExitStack, config: Config) -> None:
        self.top = CGROUPS / "unified" / TOP
        self.top.mkdir()
        self._stack = stack
        self._parts: Parts = host_parts(config)

    def make(self, path: str, owners: Mapping[str, int] | None = None) -> Path:
        """Make a cgroup; give parts of its path away."""
        (self.top / path).mkdir(parents=True, exist_ok=True)
        for part, uid in (owners or {}).items():
            os.chown(self.top / part, uid, uid)
        return self.top / path

    def run(
        self, path: str = "", uid: int = 0, environment: Mapping[str, str | bytes] | None = None
    ) -> int:
        """Start a process that sleeps, in a cgroup; return its pid."""
        process = subprocess.Popen(["sleep", "60"], env=dict(environment or {}), user=uid)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        (self.top / path / "cgroup.procs").write_text(str(process.pid))
        wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
        return process.pid

    def jobs(self, *pids: int) -> list[str]:
        """Look; return the owner of each process."""
        self._parts.usage.look(time.monotonic_ns())
        found = {process.pid: process.job_uid for process in self._parts.usage.processes}
        return [found[pid] for pid in pids]

    def refusals(self) -> Mapping[str, int]:
        assert self._parts.owners is not None
        return self._parts.owners.refusals

    def remove(self) -> None:
        for folder, _, _ in os.walk(self.top, topdown=False):
            Path(folder).rmdir()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """No hardware, the machine's own cgroups."""
    return Config(path_sysfs=tmp_path, path_cgroupfs=CGROUPS, cpu_estimate="off")


@pytest.fixture
def node(config: Config) -> Iterator[Node]:
    with ExitStack() as stack:
        made = Node(stack, config)
        stack.callback(made.remove)  # after the processes
        yield made


@pytest.mark.parametrize(
    ("path", "roots", "users"),
    [
        (SLURM, "slurm:7", f"session:{ADA}"),
        (f"kubepods/burstable/pod{UID}/{ID}", f"k8s:{UID}", f"container:{ID}"),
        ("pbs_jobs.service/jobid/7.srv", "pbs:7.srv", f"session:{ADA}"),
        (f"docker/{ID}", f"container:{ID}", "system"),
        ("lxc.payload.web/init.scope", "container:web", f"session:{ADA}"),
        ("ssh.service/child", "systemd:ssh.service", f"session:{ADA}"),
        (f"user-{BOB}.slice/session-1.scope", f"session:{BOB}", f"session:{ADA}"),
    ],
)
def test_roots_cgroups_are_believed_and_users_are_not(
    node: Node, path: str, roots: str, users: str
) -> None:
    """The same names, made by root, and in a subtree that was given to a user."""
    node.make(path)
    parts = f"home/{path}".split("/")
    node.make(f"home/{path}", {"/".join(parts[: at + 1]): ADA for at in range(len(parts))})
    pids = node.run(path, ADA), node.run(f"home/{path}", ADA)
    assert node.jobs(*pids) == [roots, users]


def test_environments_are_not_believed_outside_of_cgroups(node: Node) -> None:
    """Schedulers that leave cgroups are not asked any other way; within, they alone are."""
    node.make(SLURM)
    outside = node.run("", ADA, {"SLURM_JOB_ID": "7", "PBS_JOBID": "7.srv"})
    inside = node.run(SLURM, ADA, {"SLURM_JOB_ID": "8", "JOBWATT_JOB": "mine", "LSB_JOBID": "9"})
    assert node.jobs(outside, inside) == ["system", "slurm:7"]


def test_a_site_may_trust_the_environment_of_a_jobs_own_user(config: Config) -> None:
    """And of nobody else, whoever came first."""
    trusting = replace(config, job_trust_environment="same-uid")
    with ExitStack() as stack:
        node = Node(stack, trusting)
        stack.callback(node.remove)
        claim = {"SLURM_JOB_ID": "7"}
        early = node.run("", BOB, claim)
        without = node.run("", BOB, {"SLURM_JOB_ID": "8"})
        assert node.jobs(early, without) == ["slurm:7", "slurm:8"]
        node.make(SLURM)
        inside, outside, late = (
            node.run(SLURM, ADA),
            node.run("", ADA, claim),
            node.run("", BOB, claim),
        )
        assert node.jobs(inside, outside, late) == ["slurm:7", "slurm:7", "system"]


def test_a_trusted_environment_does_not_outdo_a_prolog(config: Config, tmp_path: Path) -> None:
    """Its file has the job's user, and which run of the job it is; not who comes first."""
    folder = tmp_path / "jobs"
    folder.mkdir(mode=0o700)
    trusting = replace(config, job_trust_environment="same-uid", job_directory=folder)
    with ExitStack() as stack:
        node = Node(stack, trusting)
        stack.callback(node.remove)
        (folder / "7.json").write_text(f'{{"id": "7", "restarts": 1, "uid": {ADA}}}')
        (folder / "7.json").chmod(0o600)
        claim = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "3"}
        early = node.run("", BOB, claim)
        assert node.jobs(early) == ["system"]
        own = node.run("", ADA, claim)
        assert node.jobs(early, own) == ["system", "slurm:7:r1"]
        assert node.refusals() == {"job_cap": 0, "job_owner": 1}


def test_a_declared_job_is_its_first_users(node: Node) -> None:
    """Another user's is what the order gives next; who is in a container may declare too."""
    node.make(f"x.service/docker/{ID}")
    named = {"JOBWATT_JOB": "bert"}
    first = node.run("", ADA, named)
    assert node.jobs(first) == ["run:bert"]
    node.make("y.service")
    node.make(f"user.slice/user-{BOB}.slice/session-1.scope")
    pids = [
        node.run(path, uid, named)
        for path, uid in (
            (f"x.service/docker/{ID}", ADA),
            (f"x.service/docker/{ID}", BOB),
            ("y.service", BOB),
            (f"user.slice/user-{BOB}.slice/session-1.scope", BOB),
            ("", BOB),
        )
    ]
    expected = ["run:bert", f"container:{ID}", "systemd:y.service", f"session:{BOB}", "system"]
    assert node.jobs(*pids) == expected
    assert node.refusals() == {"job_cap": 0, "job_owner": 1}


def test_a_user_has_so_many_jobs(config: Config) -> None:
    """What does not fit counts as the session, in whatever cgroup."""
    with ExitStack() as stack:
        node = Node(stack, replace(config, job_max_per_user=2))
        stack.callback(node.remove)
        pids = [node.run("", ADA, {"JOBWATT_JOB": f"n{at}"}) for at in range(4)]
        jobs = node.jobs(*pids)
        assert jobs == ["run:n0", "run:n1", f"session:{ADA}", f"session:{ADA}"]
        assert node.refusals() == {"job_cap": 2, "job_owner": 0}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'a"b\n\xff{}', 'run:a"b\\n\ufffd{}'),
        (b"x" * 100_000, None),
        (b" ", "system"),
    ],
)
def test_hostile_names(node: Node, value: bytes, expected: str | None) -> None:
    """Quotes, newlines, invalid UTF-8, a name as long as the kernel takes one."""
    (job,) = node.jobs(node.run("", ADA, {"JOBWATT_JOB": value}))
    if expected is not None:
        assert job == expected
    assert (len(job) < 140, job.isprintable()) == (True, True)


def test_a_huge_environment_is_kept_in_its_named_part(node: Node) -> None:
    """A megabyte of others leaves one value."""
    others = {f"V{at}": "x" * 100_000 for at in range(10)}
    pid = node.run("", ADA, {"JOBWATT_JOB": "bert", **others})
    assert node.jobs(pid) == ["run:bert"]
    (process,) = [p for p in node._parts.usage.processes if p.pid == pid]
    assert dict(process.environment) == {"JOBWATT_JOB": "bert"}
    assert process not in node._parts.usage.claimants
