from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from jobwatt.host import slurmstepd
from jobwatt.host.cgroupfs import find_cgroupfs
from jobwatt.host.procfs import Procfs
from jobwatt.host.slurmstepd import StepTitles, parse_title

SLUID = "sEKNKTV3WPV500"
PATH = ("system.slice", "slurmstepd.scope", SLUID)


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("slurmstepd: [3385.0]", "3385"),
        ("slurmstepd: [3385.batch]", "3385"),
        ("slurmstepd: [3385.extern]", "3385"),
        ("slurmstepd: [3385]", "3385"),
        ("slurmstepd: [3385+1.0]", None),
        ("/usr/sbin/slurmstepd", None),
        ("/usr/sbin/slurmstepd infinity", None),
        ("xslurmstepd: [3385.0]", None),
        ("slurmstepd: [0.0]", None),
        ("slurmstepd: [", None),
        ("", None),
    ],
)
def test_titles(title: str, expected: str | None) -> None:
    """What a step's daemon calls itself, and nothing that only looks like it."""
    assert parse_title(title) == expected


class Node:
    """A node with one job: its cgroups, and processes by pid."""

    def __init__(self, root: Path) -> None:
        self.cgroups, self.proc = root / "cgroup", root / "proc"
        self.job = self.cgroups.joinpath(*PATH)
        self.proc.mkdir()
        self.job.mkdir(parents=True)
        (self.cgroups / "cgroup.controllers").write_text("")
        self.titles = StepTitles(find_cgroupfs(self.cgroups), Procfs(self.proc))

    def add(self, pid: int, title: str, place: str, uid: int = 0) -> None:
        (self.job / place).mkdir(parents=True, exist_ok=True)
        with (self.job / place / "cgroup.procs").open("a") as procs:
            procs.write(f"{pid}\n")
        (self.proc / str(pid)).mkdir()
        (self.proc / str(pid) / "cmdline").write_text(f"{title}\0")
        os.chown(self.proc / str(pid), uid, -1)

    def job_id(self) -> str | None:
        return self.titles.id_of_sluid("", PATH)


def test_the_steps_daemon_tells_the_job(tmp_path: Path) -> None:
    """Whichever step has one."""
    node = Node(tmp_path)
    (node.job / "step_0").mkdir()
    node.add(7, "slurmstepd: [3385.0]", "step_extern/slurm")
    assert node.job_id() == "3385"


def test_what_is_known_stays_known(tmp_path: Path) -> None:
    """A SLUID is one job's for ever, also when its steps are gone."""
    node = Node(tmp_path)
    assert node.job_id() is None
    node.add(7, "slurmstepd: [3385.0]", "step_0/slurm")
    assert node.job_id() == "3385"
    shutil.rmtree(node.job)
    assert node.job_id() == "3385"


def test_users_cannot_tell(tmp_path: Path) -> None:
    """Neither a task with such a title, nor another user's process among the daemons."""
    node = Node(tmp_path)
    node.add(7, "slurmstepd: [1.0]", "step_0/user/task_0")
    node.add(8, "slurmstepd: [2.0]", "step_0/slurm", uid=1000)
    node.add(9, "sleep", "step_0/slurm")
    assert node.job_id() is None


def test_a_job_that_is_gone(tmp_path: Path) -> None:
    """Processes and cgroups that leave meanwhile say nothing."""
    node = Node(tmp_path)
    node.add(7, "slurmstepd: [3385.0]", "step_0/slurm")
    shutil.rmtree(node.proc / "7")
    assert node.job_id() is None
    shutil.rmtree(node.job)
    assert node.job_id() is None


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes; it can be asked for again."""
    monkeypatch.setattr(slurmstepd, "_MOST_REMEMBERED", 1)
    node = Node(tmp_path)
    node.add(7, "slurmstepd: [3385.0]", "step_0/slurm")
    other = (*PATH[:-1], "s5K1KKYAYG5D00")
    node.cgroups.joinpath(*other).symlink_to(node.job)
    answers = [node.titles.id_of_sluid("", path) for path in (PATH, other, PATH)]
    assert (answers, len(node.titles._known)) == (["3385"] * 3, 1)
