from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jobwatt.host.cgroupfs import find_cgroupfs
from jobwatt.host.procfs import Procfs
from jobwatt.host.run_cgroup import RunCgroup, make_run_cgroup, run_of_folder

HERE = "/user.slice/shell"


def make(root: Path, run: str = "bert-1", cgroup: str = f"0::{HERE}\n") -> RunCgroup | None:
    """A run's cgroup in a tree of version 2."""
    tree, proc = root / "cgroup", root / "proc" / str(os.getpid())
    (tree / HERE.lstrip("/")).mkdir(parents=True, exist_ok=True)
    (tree / "cgroup.controllers").touch()
    proc.mkdir(parents=True, exist_ok=True)
    (proc / "cgroup").write_text(cgroup)
    return make_run_cgroup(Procfs(root / "proc"), find_cgroupfs(tree), run)


def folders(root: Path) -> list[str]:
    """The runs' cgroups in the tree."""
    return sorted(str(p.relative_to(root / "cgroup")) for p in root.rglob("jobwatt-run-*"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("jobwatt-run-x", "x"), ("jobwatt-run-", None), ("run-x.scope", None), ("", None)],
)
def test_names(name: str, expected: str | None) -> None:
    """A folder says whose it is."""
    assert run_of_folder(name) == expected


def test_below_our_own(tmp_path: Path) -> None:
    """It is made where we are, and removed in the end."""
    cgroup = make(tmp_path)

    assert cgroup is not None
    assert folders(tmp_path) == ["user.slice/shell/jobwatt-run-bert-1"]
    (tmp_path / "cgroup/user.slice/shell/jobwatt-run-bert-1/cpu.stat").write_text("usage_usec 7\n")
    assert cgroup.used_ns() == 7000
    (tmp_path / "cgroup/user.slice/shell/jobwatt-run-bert-1/cpu.stat").unlink()
    assert cgroup.used_ns() is None
    assert cgroup.pids() == set()
    cgroup.remove()
    assert folders(tmp_path) == []


def test_in_and_out(tmp_path: Path) -> None:
    """We are in it for a moment only."""
    cgroup = make(tmp_path)
    assert cgroup is not None
    above = tmp_path / "cgroup/user.slice/shell"

    with cgroup.entered() as inside:
        assert inside
        assert (above / "jobwatt-run-bert-1/cgroup.procs").read_text() == "0"
        assert not (above / "cgroup.procs").exists()

    assert (above / "cgroup.procs").read_text() == "0"
    (above / "jobwatt-run-bert-1/cgroup.procs").write_text("12\n13\n")
    assert cgroup.pids() == {12, 13}


def test_what_cannot_be_entered(tmp_path: Path) -> None:
    """The command then runs where we are."""
    cgroup = make(tmp_path)
    assert cgroup is not None
    (tmp_path / "cgroup/user.slice/shell/jobwatt-run-bert-1").rmdir()

    with cgroup.entered() as inside:
        assert not inside
    cgroup.remove()


def test_not_permitted(tmp_path: Path) -> None:
    """No place, no tree, no folder: no cgroup."""
    nowhere = Procfs(tmp_path / "none")
    assert make_run_cgroup(nowhere, find_cgroupfs(tmp_path), "x") is None
    assert make(tmp_path, cgroup="0::/not/there\n") is None
    (tmp_path / "cgroup" / HERE.lstrip("/") / "jobwatt-run-bert-1").touch()
    assert make(tmp_path) is None


def test_those_of_the_same_run_share_it(tmp_path: Path) -> None:
    """Several runners on one node may be given one id."""
    first, second = make(tmp_path), make(tmp_path)
    assert first is not None
    assert second is not None
    first.remove()
    second.remove()


def test_what_was_left_behind_is_swept(tmp_path: Path) -> None:
    """By a later run, unless another is using it, or it is not empty."""
    above = tmp_path / "cgroup" / HERE.lstrip("/")
    (above / "jobwatt-run-old").mkdir(parents=True)
    (above / "jobwatt-run-busy/x").mkdir(parents=True)
    (above / "other").mkdir()
    # A lock belongs to an open file: another process's, or another opening of ours.
    used = make(tmp_path, "used")

    assert make(tmp_path, "new") is not None
    names = [Path(folder).name for folder in folders(tmp_path)]
    assert names == ["jobwatt-run-busy", "jobwatt-run-new", "jobwatt-run-used"]
    assert (above / "other").is_dir()
    assert used is not None


def test_lock_is_not_inherited(tmp_path: Path) -> None:
    """What the command leaves running must not keep it."""
    assert make(tmp_path) is not None

    listed = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, check=True)

    assert b"jobwatt-run" not in listed.stdout
