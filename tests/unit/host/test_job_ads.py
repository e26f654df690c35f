from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobwatt.host import job_ads
from jobwatt.host.job_ads import JobAds, parse_job_ad

AD = b'Arguments = "x"\nClusterId = 1234\nOwner = "ada"\nProcId = 5\n'


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (AD, (1234, 5)),
        (b"clusterid=7\r\nprocid = 0", (7, 0)),
        (b"ClusterId = 7", None),
        (b"ProcId = 7", None),
        (b"AutoClusterId = 7\nProcId = 0", None),
        (b'ClusterId = "7"\nProcId = 0', None),
        (b"ClusterId = -7\nProcId = 0", None),
        (b"ClusterId = " + b"9" * 5000 + b"\nProcId = 0", None),
        (b"\xff\xfe", None),
        (b"", None),
    ],
)
def test_ads(data: bytes, expected: tuple[int, int] | None) -> None:
    """Cluster and proc, or nothing."""
    assert parse_job_ad(data) == expected


def make(root: Path, folder: str, data: bytes = AD) -> str:
    """Write an ad below a host's root; return its name there."""
    path = root / "execute" / folder / ".job.ad"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return f"/{path.relative_to(root)}"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_ad_is_read_in_the_background(tmp_path: Path) -> None:
    """Nobody waits: who asks again later gets it."""
    ads = JobAds(tmp_path)
    name = make(tmp_path, "dir_4711")
    first = ads.id_of_ad(name)
    wait_for(lambda: ads.id_of_ad(name) is not None)
    assert (first, ads.id_of_ad(name)) == (None, (1234, 5))


def test_an_ad_that_is_gone_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another job may get a folder of the same name."""
    monkeypatch.setattr(job_ads, "_AGAIN_SECONDS", 0.01)
    ads = JobAds(tmp_path)
    name = make(tmp_path, "dir_4711")
    wait_for(lambda: ads.id_of_ad(name) is not None)
    (tmp_path / name[1:]).unlink()
    wait_for(lambda: name not in ads._known)


def test_a_pipe_in_its_place_holds_nobody_up(tmp_path: Path) -> None:
    """Nor does what is no ad."""
    ads = JobAds(tmp_path)
    (tmp_path / "dir_1").mkdir()
    os.mkfifo(tmp_path / "dir_1/.job.ad")
    bad, good = make(tmp_path, "dir_2", b"x"), make(tmp_path, "dir_3")
    ads.id_of_ad("/x/../dir_1/.job.ad")
    ads.id_of_ad(bad)
    (tmp_path / "execute/dir_1").symlink_to(tmp_path / "dir_1")
    ads.id_of_ad("/execute/dir_1/.job.ad")
    wait_for(lambda: ads.id_of_ad(good) is not None)
    assert ads.id_of_ad(bad) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "execute/dir_1/.job.ad",
        "/execute/dir_x/.job.ad",
        "/execute/../dir_1/.job.ad",
        "/execute/dir_1/.job.ad\n",
        "/execute/a\0b/dir_1/.job.ad",
        f"/{'x/' * 1000}dir_1/.job.ad",
    ],
)
def test_names_that_are_no_ads(tmp_path: Path, name: str) -> None:
    """Nothing else on the machine is opened at a user's word."""
    ads = JobAds(tmp_path)
    ads.id_of_ad(name)
    assert (ads._thread, ads._asked) == (None, set())


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes; it can be asked for again."""
    monkeypatch.setattr(job_ads, "_MOST_REMEMBERED", 1)
    ads = JobAds(tmp_path)
    for name in [make(tmp_path, f"dir_{number}") for number in range(3)]:
        wait_for(lambda name=name: ads.id_of_ad(name) is not None)  # type: ignore[misc]
    assert len(ads._known) == 1
