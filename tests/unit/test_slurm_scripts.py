"""Slurm's Prolog and Epilog, run as slurmd runs them, and read as the exporter reads them."""

import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobwatt.host.job_files import JobFiles
from jobwatt.records import Budget, BudgetOrigin, JobRecord

SCRIPTS = Path(__file__).parents[2] / "deploy/slurm"

SHELLS = [
    shell
    for shell in (
        ["sh"],
        ["bash", "--posix"],
        ["busybox", "sh"],
        ["ksh"],
        ["zsh", "--emulate", "sh"],
    )
    if shutil.which(shell[0])
]

JOB = {
    "SLURMD_NODENAME": "n1",
    "SLURM_CLUSTER_NAME": "alps",
    "SLURM_CONF": "/etc/slurm/slurm.conf",
    "SLURM_JOBID": "4711",
    "SLURM_JOB_ACCOUNT": "vision",
    "SLURM_JOB_COMMENT": "night run jobwatt:budget=25kWh",
    "SLURM_JOB_CPUS_PER_NODE": "32(x2)",
    "SLURM_JOB_END_TIME": "1800086400",
    "SLURM_JOB_GID": "1000",
    "SLURM_JOB_GPUS": "0,1",
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_JOB_PARTITION": "gpu",
    "SLURM_JOB_RESTART_COUNT": "0",
    "SLURM_JOB_START_TIME": "1800000000",
    "SLURM_JOB_UID": "1000",
    "SLURM_JOB_USER": "ada",
    "SLURM_JOB_WORK_DIR": "/home/ada",
    "SLURM_UID": "1000",
}
"""What slurmd gives a Prolog: no PATH, no HOME, no locale."""


class Node:
    """A node with a folder for its jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = JobFiles(folder, lambda uid: {1000: "ada"}.get(uid, str(uid)))

    def run(
        self,
        script: str,
        changed: Mapping[str, str | bytes],
        shell: Sequence[str] = ("sh",),
        most_bytes: int | None = None,
    ) -> None:
        """Run a script as slurmd does; it must always end well."""
        environment: dict[str, str | bytes] = {
            **JOB,
            "SLURM_SCRIPT_CONTEXT": f"{script.removesuffix('.sh')}_slurmd",
            "JOBWATT_JOB_DIRECTORY": str(self.folder),
            **changed,
        }

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes or 0, most_bytes or 0))

        result = subprocess.run(
            [*shell, str(SCRIPTS / script)],
            env=environment,
            cwd="/",
            capture_output=True,
            check=False,
            preexec_fn=None if most_bytes is None else limit,
        )
        assert result.returncode == 0, result.stderr

    def prolog(self, **changed: str | bytes) -> None:
        self.run("prolog.sh", changed)

    def epilog(self, **changed: str | bytes) -> None:
        self.run("epilog.sh", {"SLURM_JOB_EXIT_CODE2": "0:0", **changed})

    def tree(self, job_id: str = "4711") -> dict[str, Any]:
        data = (self.folder / f"{job_id}.json").read_bytes()
        tree = json.loads(data.decode(errors="replace"))
        assert isinstance(tree, dict)
        return tree

    @property
    def records(self) -> dict[str, JobRecord]:
        return dict(self.files.refresh())

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "run/jobwatt/jobs")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_a_job_from_its_prolog_to_its_epilog(node: Node, shell: list[str]) -> None:
    """What slurmd knows of it, its end, and how it ended."""
    node.run("prolog.sh", {}, shell)
    assert node.tree() == {
        "version": 1,
        "id": "4711",
        "restarts": 0,
        "cluster": "alps",
        "uid": 1000,
        "user": "ada",
        "account": "vision",
        "partition": "gpu",
        "comment": "night run jobwatt:budget=25kWh",
        "cpus_per_node": "32(x2)",
        "gpus": "0,1",
        "started": 1800000000,
        "deadline": 1800086400,
    }
    opened = JobRecord(
        user="ada",
        account="vision",
        queue="gpu",
        started=1_800_000_000.0,
        deadline=1_800_086_400.0,
        budget=Budget(90e6, BudgetOrigin.COMMENT),
        cpus=32.0,
        gpus=(0, 1),
    )
    assert node.records == {"slurm:4711": opened}
    before = int(time.time())
    node.run("epilog.sh", {"SLURM_JOB_EXIT_CODE2": "1:9"}, shell)
    tree = node.tree()
    assert before <= tree["ended"] <= time.time()
    assert tree["exit_code"] == "1:9"
    assert node.names == ["4711.json"]


def test_nobody_but_root_may_read_or_write_them(node: Node) -> None:
    """A comment is its user's business; the folder above stays open for others."""
    node.prolog()
    node.epilog()
    modes = {
        name: stat.S_IMODE((node.folder / name).stat().st_mode) for name in ("4711.json", ".", "..")
    }
    assert modes == {"4711.json": 0o600, ".": 0o700, "..": 0o755}


HOSTILE = [
    'quotes " and \\ backslashes \\" \\\\" \\u0041 /',
    '"\n,"ended": 5\n,"account": "rival"\n}\n',
    '", "account": "rival", "x": "',
    "$(touch /tmp/owned) `id` ${IFS} '; rm -rf / #",
    "tab\t return\r bell\a escape\x1b delete\x7f ünïcode 電力",
    "%s%n%d & \\& \\1 \\n",
    "-n -e \\c",
]


@pytest.mark.parametrize("comment", HOSTILE)
def test_whatever_a_comment_holds_it_is_a_string(node: Node, comment: str) -> None:
    """Byte by byte what its user wrote, and nothing else changes by it, in the Epilog neither."""
    node.prolog(SLURM_JOB_COMMENT=comment, SLURM_JOB_NAME=comment)
    tree = node.tree()
    assert (tree["comment"], tree["name"], tree["account"]) == (comment, comment, "vision")
    assert "ended" not in tree
    node.epilog(SLURM_JOB_COMMENT=comment)
    assert {**node.tree(), "ended": 0} == {**tree, "ended": 0, "exit_code": "0:0"}


def test_bytes_that_are_no_text_are_no_harm(node: Node) -> None:
    """Invalid UTF-8, every byte there is, and a comment as long as they come."""
    node.prolog(SLURM_JOB_COMMENT=bytes(range(1, 256)) + b"\xff" * 100_000)
    assert node.records["slurm:4711"].account == "vision"
    node.prolog(SLURM_JOB_COMMENT="\x01" * 100_000, SLURM_JOB_NAME="\x02" * 100_000)
    assert node.records["slurm:4711"].account == "vision"


def test_a_requeued_job_is_another_run(node: Node) -> None:
    """Twice the same id: the second run's file replaces the first's, with its own name and end."""
    node.prolog()
    node.epilog()
    assert list(node.records) == ["slurm:4711"]
    node.prolog(SLURM_JOB_RESTART_COUNT="1", SLURM_JOB_START_TIME="1800009000")
    (uid, record), *_ = node.records.items()
    assert (uid, record.started, record.ended) == ("slurm:4711:r1", 1_800_009_000.0, None)
    assert node.files.restarts("4711", "") == 1
    node.epilog(SLURM_JOB_RESTART_COUNT="1")
    assert "ended" in node.tree()
    node.prolog(SLURM_JOB_RESTART_COUNT="2")
    assert list(node.records) == ["slurm:4711:r2"]


def test_an_epilog_that_runs_again_changes_nothing(node: Node) -> None:
    """The first end is the end."""
    node.prolog()
    node.epilog()
    tree = node.tree()
    node.epilog(SLURM_JOB_EXIT_CODE2="9:9")
    assert node.tree() == tree


def test_an_epilog_without_a_prolog_writes_it_all(node: Node) -> None:
    """But no start that it does not know."""
    node.epilog(SLURM_JOB_START_TIME="")
    tree = node.tree()
    assert (tree["account"], "started" in tree, "ended" in tree) == ("vision", False, True)


def test_a_slurm_that_tells_little_gives_a_short_file(node: Node) -> None:
    """An older one has no account and no times for a Prolog: the start is now."""
    kept = {"SLURM_JOB_ID", "SLURM_JOB_UID", "SLURM_JOB_USER", "SLURM_SCRIPT_CONTEXT"}
    before = int(time.time())
    node.prolog(**dict.fromkeys(JOB.keys() - kept, ""))
    tree = node.tree()
    assert before <= tree.pop("started") <= time.time()
    assert tree == {"version": 1, "id": "4711", "uid": 1000, "user": "ada"}


def test_all_jobs_of_a_node_may_begin_and_end_at_once(node: Node) -> None:
    """Each file is whole at any moment, and no job's end is lost."""
    ids = [str(number) for number in range(1, 41)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda job_id: node.prolog(SLURM_JOB_ID=job_id), ids))
        assert len(node.records) == 40
        list(pool.map(lambda job_id: node.epilog(SLURM_JOB_ID=job_id), ids * 2))
    assert len(node.names) == 40
    assert all("ended" in node.tree(job_id) for job_id in ids)


@pytest.mark.parametrize("script", ["prolog.sh", "epilog.sh"])
@pytest.mark.parametrize("job_id", ["", "../../etc/passwd", "7 8", "-7", "07", "7\n8", "*"])
def test_what_is_no_job_id_names_no_file(node: Node, script: str, job_id: str) -> None:
    """Nothing is written."""
    node.run(script, {"SLURM_JOB_ID": job_id})
    assert not node.folder.exists()


def test_a_folder_that_cannot_be_made_fails_no_job(tmp_path: Path) -> None:
    """Nor one that is a file, and a full disk leaves no half of a file."""
    (tmp_path / "file").write_text("")
    blocked = Node(tmp_path / "file/jobs")
    blocked.prolog()
    blocked.epilog()
    full = Node(tmp_path / "jobs")
    full.prolog()
    before = full.tree()
    full.run("prolog.sh", {"SLURM_JOB_RESTART_COUNT": "1"}, most_bytes=16)
    full.run("epilog.sh", {}, most_bytes=16)
    assert full.tree() == before
    assert full.names == ["4711.json"]


def test_files_of_jobs_that_ended_long_ago_are_removed(node: Node) -> None:
    """Not those of jobs that still run, however old."""
    for job_id in ("1", "2"):
        node.prolog(SLURM_JOB_ID=job_id)
    node.epilog(SLURM_JOB_ID="1")
    (node.folder / ".3.999").write_text("half a fi")
    long_ago = time.time() - 3 * 86400
    for path in node.folder.iterdir():
        os.utime(path, (long_ago, long_ago))
    node.prolog(SLURM_JOB_ID="4")
    node.epilog(SLURM_JOB_ID="4")
    assert node.names == ["2.json", "4.json"]


def test_of_many_files_the_oldest_that_have_ended_are_removed(node: Node) -> None:
    """A thousand stay: a folder of short jobs does not grow for a day."""
    node.prolog(SLURM_JOB_ID="1")
    node.epilog(SLURM_JOB_ID="1")
    closed = (node.folder / "1.json").read_text()
    node.prolog(SLURM_JOB_ID="2")
    now = time.time()
    for job_id in range(3, 1101):
        (node.folder / f"{job_id}.json").write_text(closed)
    for path in node.folder.iterdir():
        os.utime(path, (now - 5000 + int(path.stem),) * 2)
    node.prolog(SLURM_JOB_ID="1101")
    node.epilog(SLURM_JOB_ID="1101")
    left = sorted(int(name.removesuffix(".json")) for name in node.names)
    assert left == [2, *range(102, 1102)]


def test_shellcheck_finds_nothing() -> None:
    """Both are POSIX shell."""
    scripts = [str(SCRIPTS / name) for name in ("prolog.sh", "epilog.sh")]
    result = subprocess.run(
        ["shellcheck", "--shell=sh", "--severity=style", *scripts],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert (result.stdout + result.stderr, result.returncode) == ("", 0)


def test_both_are_programs() -> None:
    """By their names slurmd starts them."""
    for name in ("prolog.sh", "epilog.sh"):
        assert (SCRIPTS / name).stat().st_mode & 0o111 == 0o111
