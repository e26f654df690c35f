from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from jobwatt.host.users import UserNames, parse_passwd


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b"root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000::/:/bin/sh\n",
            {0: "root", 1000: "ada"},
        ),
        (b"first:x:5:5\nsecond:x:5:5\n", {5: "first"}),
        (b"# comment\n\n+::::::\nx:y\nb:x:-1:0\n:x:7:7\n", {}),
        (b"na\xff:x:8:8\n", {8: "na\N{REPLACEMENT CHARACTER}"}),
        (b"big:x:" + b"9" * 5000 + b":0\nada:x:1:1\n", {1: "ada"}),
        (b"", {}),
    ],
)
def test_passwd(data: bytes, expected: dict[int, str]) -> None:
    """Names come by uid; what is no entry is left out."""
    assert parse_passwd(data) == expected


def test_a_mounted_root(tmp_path: Path) -> None:
    """The names are those of the host's root, not of the container's."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("hostroot:x:0:0::/:/bin/sh\n")
    users = UserNames(tmp_path)
    assert (users.name(0), users.name(1000)) == ("hostroot", "1000")


def test_a_root_without_passwd(tmp_path: Path) -> None:
    """Without the file every user is a number."""
    assert UserNames(tmp_path).name(0) == "0"


@pytest.mark.parametrize("rootfs", [None, Path("/")])
def test_the_machines_own_users(rootfs: Path | None) -> None:
    """Without another root the machine's own name service answers."""
    uid = os.getuid()
    assert UserNames(rootfs).name(uid) == pwd.getpwuid(uid).pw_name


@pytest.mark.parametrize("uid", [-1, 2**31, 2**64, 3_999_999_999])
def test_a_uid_without_a_name(uid: int) -> None:
    """A uid that nobody has, or that cannot be, is its number."""
    assert UserNames().name(uid) == str(uid)


def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name service may be slow: it is asked once a uid."""
    asked: list[int] = []

    def look_up(uid: int) -> pwd.struct_passwd:
        asked.append(uid)
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", look_up)
    users = UserNames()
    assert [users.name(7), users.name(7)] == ["7", "7"]
    assert asked == [7]
