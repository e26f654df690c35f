"""The files of a scheduler's Prolog: whom they are believed, and when they are read."""

import json
import os
import time
from pathlib import Path

import pytest

from jobwatt.errors import Failed
from jobwatt.host import job_files
from jobwatt.host.job_files import JobFile, JobFiles, parse_job_file
from jobwatt.records import Budget, BudgetOrigin, JobRecord

SLUID, LATER = "s0123456789ABC", "s0123456789ABD"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "jobs"
    path.mkdir(mode=0o700)
    return path


def write(folder: Path, job_id: str, **members: object) -> Path:
    """Write a file as the Prolog does: by rename."""
    path = folder / f"{job_id}.json"
    half = folder / f".{job_id}.1"
    half.write_text(json.dumps({"id": job_id, **members}))
    half.chmod(0o600)
    half.rename(path)
    return path


def names(files: JobFiles) -> dict[str, str]:
    return {uid: record.name for uid, record in files.refresh().items()}


def test_all_that_a_file_tells() -> None:
    """Each member where it belongs; what nobody asked for is ignored."""
    data = {
        "version": 1,
        "id": "7",
        "restarts": 2,
        "sluid": SLUID,
        "uid": 1000,
        "user": "ada",
        "name": "bert",
        "account": "vision",
        "partition": "gpu",
        "comment": "jobwatt:budget=25kWh",
        "cpus_per_node": "32(x2)",
        "gpus": "0-1",
        "started": 1_800_000_000,
        "deadline": 1_800_086_400,
        "ended": 1_800_003_600,
        "exit_code": "0:0",
        "news": [{}],
    }
    record = JobRecord(
        "bert",
        "ada",
        "vision",
        "gpu",
        "",
        1.8e9,
        1_800_003_600.0,
        1_800_086_400.0,
        Budget(90e6, BudgetOrigin.COMMENT),
        (),
        32.0,
        (0, 1),
    )
    file = parse_job_file(json.dumps(data).encode())
    assert file == JobFile("7", 2, SLUID, 1000, record)
    assert file.job_uid == "slurm:7:r2"


def test_members_of_another_kind_are_not_there() -> None:
    """A file of a later release, or one that somebody edited, is still read."""
    odd = {
        "id": "7",
        "restarts": -1,
        "sluid": "x",
        "uid": True,
        "user": 5,
        "account": None,
        "started": "soon",
        "deadline": 1e30,
        "ended": 10**40,
        "gpus": [0],
        "cpus_per_node": 7,
    }
    assert parse_job_file(json.dumps(odd).encode()) == JobFile("7")


def test_an_end_before_the_start_is_none() -> None:
    """A clock was set meanwhile."""
    file = parse_job_file(b'{"id": "7", "started": 200, "ended": 100}')
    assert (file.record.started, file.record.ended) == (200.0, None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"{}",
        b'{"id": 7}',
        b'{"id": "07"}',
        b'{"id": "../7"}',
        b'{"id": "7", "uid": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_what_is_no_such_file_is_refused(data: bytes) -> None:
    """In one word."""
    with pytest.raises(Failed):
        parse_job_file(data)


def test_jobs_come_change_and_go_with_their_files(folder: Path) -> None:
    """Each is read when it has changed."""
    files = JobFiles(folder)
    assert names(files) == {}
    seven = write(folder, "7", name="a")
    assert names(files) == {"slurm:7": "a"}
    write(folder, "8", name="b")
    write(folder, "7", name="c")
    assert names(files) == {"slurm:7": "c", "slurm:8": "b"}
    seven.unlink()
    assert names(files) == {"slurm:8": "b"}


def test_a_folder_at_rest_costs_one_look(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even that many: it is not listed again until its time of change moves."""
    write(folder, "7", name="a")
    os.utime(folder, (time.time() - 10,) * 2)
    files = JobFiles(folder)
    assert names(files) == {"slurm:7": "a"}
    monkeypatch.setattr(os, "scandir", lambda _: pytest.fail("listed again"))
    assert names(files) == {"slurm:7": "a"}
    assert files.restarts("7", "") == 0


def test_a_change_within_one_tick_of_the_clock_is_seen(folder: Path) -> None:
    """The time of change is coarse: a young folder is listed again."""
    files = JobFiles(folder)
    write(folder, "7", name="a")
    before = folder.stat().st_mtime_ns
    assert names(files) == {"slurm:7": "a"}
    write(folder, "7", name="b")
    os.utime(folder, ns=(before, before))
    assert names(files) == {"slurm:7": "b"}


def test_a_folder_may_come_later_and_go(tmp_path: Path) -> None:
    """The first job makes it."""
    folder = tmp_path / "jobs"
    files = JobFiles(folder)
    assert names(files) == {}
    folder.mkdir(mode=0o700)
    path = write(folder, "7", name="a")
    assert names(files) == {"slurm:7": "a"}
    path.unlink()
    folder.rmdir()
    assert names(files) == {}


def test_only_what_nobody_else_can_write_is_believed(folder: Path) -> None:
    """Modes, owners, links, other kinds of files, and ids that are another's."""
    files = JobFiles(folder)
    write(folder, "1", name="good")
    write(folder, "2").chmod(0o620)
    write(folder, "3").chmod(0o602)
    (folder / "4.json").symlink_to(folder / "1.json")
    os.mkfifo(folder / "5.json")
    write(folder, "66").rename(folder / "6.json")
    (folder / "7.json").write_bytes(b"\xff{")
    (folder / "7.json").chmod(0o600)
    (folder / "8.json").mkdir()
    write(folder, "9").rename(folder / "09.json")
    if os.getuid() == 0:
        os.chown(write(folder, "10"), 12345, 0)
    assert names(files) == {"slurm:1": "good"}


def test_a_folder_that_others_can_write_is_not_believed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They could put any file of root's there; it is said once."""
    write(folder, "7", name="a")
    folder.chmod(0o770)
    files = JobFiles(folder)
    assert names(files) == {}
    assert names(files) == {}
    assert len(caplog.records) == 1
    folder.chmod(0o750)
    write(folder, "8", name="b")
    assert names(files) == {"slurm:7": "a", "slurm:8": "b"}


def test_the_user_is_the_one_of_the_uid(folder: Path) -> None:
    """Under the name that all else on the node has for it."""
    write(folder, "7", uid=1000, user="ada@ldap")
    write(folder, "8", user="bob")
    users = JobFiles(folder, lambda uid: f"user{uid}").refresh()
    assert {uid: r.user for uid, r in users.items()} == {"slurm:7": "user1000", "slurm:8": "bob"}


def test_whose_each_run_is(folder: Path) -> None:
    """By its uid, where the file has one."""
    files = JobFiles(folder)
    write(folder, "7", uid=1000, restarts=1)
    write(folder, "8", user="bob")
    told = [files.uid_of(job) for job in ("slurm:7", "slurm:7:r1", "slurm:8", "run:x")]
    assert told == [None, 1000, None, None]


def test_runs_of_a_job_are_told_apart(folder: Path) -> None:
    """By the count of the latest file, and by the SLUID where paths have it."""
    files = JobFiles(folder)
    assert files.restarts("7", "") == 0
    write(folder, "7", sluid=SLUID)
    assert (files.restarts("7", ""), files.restarts("7", SLUID)) == (0, 0)
    assert (files.id_of_sluid(SLUID), files.id_of_sluid(LATER)) == ("7", None)
    write(folder, "7", sluid=LATER, restarts=1)
    assert files.restarts("7", "") == 1
    assert files.restarts("7", SLUID) == 0  # still on its way out
    assert files.restarts("7", LATER) == 1
    assert files.restarts("7", "s0000000000000") == 0
    assert files.id_of_sluid(SLUID) == "7"
    write(folder, "8", restarts=3)
    assert files.restarts("8", SLUID[:-1] + "Z") == 3  # its file tells no SLUID


def test_however_many_files_there_are_each_live_job_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And those that ended last, whatever the order of the folder; what does not is said once."""
    monkeypatch.setattr(job_files, "MOST_ENDED", 3)
    for number in range(1, 13):
        ended = {} if number % 2 else {"ended": 1_800_000_000 + number}
        write(folder, str(number), sluid=f"s00000000000{number:02}", **ended)
    files = JobFiles(folder)
    counted = {f"slurm:{number}" for number in (1, 3, 5, 7, 9, 11, 8, 10, 12)}
    assert files.refresh().keys() == counted
    read: list[str] = []

    def read_bytes(path: str, most: int) -> bytes:
        del most
        read.append(Path(path).name)
        return b"{}"

    monkeypatch.setattr(job_files, "read_bytes", read_bytes)
    write(folder, "13")
    assert files.refresh().keys() == counted
    assert read == ["13.json"]
    (said,) = [r.getMessage() for r in caplog.records if "ended jobs" in r.getMessage()]
    assert said == (
        f"{folder} has files of more than 3 ended jobs: the oldest are not used; the Epilog "
        "removes them (deploy/slurm)"
    )


def test_a_run_that_was_replaced_is_known_for_a_while(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bounded number of them, beside all that have files."""
    monkeypatch.setattr(job_files, "MOST_ENDED", 2)
    files = JobFiles(folder)
    sluids = [f"s000000000000{number}" for number in range(6)]
    for sluid in sluids:
        write(folder, "7", sluid=sluid)
        files.refresh()
    assert [files.id_of_sluid(sluid) for sluid in sluids] == [None, None, None, "7", "7", "7"]
