from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobwatt.errors import Absent, Denied, Failed, ReadError
from jobwatt.host.files import list_folder, read_bytes, read_foreign, read_integer, read_text


def test_read_bytes_returns_the_whole_file(tmp_path: Path) -> None:
    """A file longer than one read comes whole."""
    content = bytes(range(256)) * 1000
    (tmp_path / "long").write_bytes(content)
    assert read_bytes(tmp_path / "long") == content


def test_read_bytes_of_exactly_one_chunk(tmp_path: Path) -> None:
    """A file as long as one read comes whole."""
    (tmp_path / "chunk").write_bytes(b"x" * 65536)
    assert len(read_bytes(tmp_path / "chunk")) == 65536


def test_read_text_strips_and_replaces(tmp_path: Path) -> None:
    """Space around the text goes, invalid UTF-8 is replaced."""
    (tmp_path / "name").write_bytes(b"  package-\xff\n")
    assert read_text(tmp_path / "name") == "package-\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"0\n", 0),
        (b"240422366267\n", 240422366267),
        (b"18446744073709551615", 18446744073709551615),
    ],
)
def test_read_integer(tmp_path: Path, content: bytes, expected: int) -> None:
    """A decimal number is read, up to the largest of 64 bits."""
    (tmp_path / "energy_uj").write_bytes(content)
    assert read_integer(tmp_path / "energy_uj") == expected


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"-1", b"+1", b"1_0", b"1 2", b"0x10", b"1.5", "٣".encode(), b"9" * 5000, b"\xff"],
)
def test_read_integer_refuses(tmp_path: Path, content: bytes) -> None:
    """What is no plain decimal number failed, and the message names the file."""
    path = tmp_path / "energy_uj"
    path.write_bytes(content)
    with pytest.raises(Failed, match="energy_uj: not a number"):
        read_integer(path)


def test_list_folder_is_sorted(tmp_path: Path) -> None:
    """The names in a folder come in order."""
    for name in ("b", "a", "c"):
        (tmp_path / name).touch()
    assert list_folder(tmp_path) == ["a", "b", "c"]


def test_what_is_missing_is_absent(tmp_path: Path) -> None:
    """A file or folder that is not there is absent."""
    kinds: list[type[ReadError]] = []
    for read in (read_bytes, read_text, read_integer, list_folder):
        with pytest.raises(ReadError) as caught:
            read(tmp_path / "nothing")
        kinds.append(caught.type)
    assert kinds == [Absent] * 4


def test_a_path_through_a_file_is_absent(tmp_path: Path) -> None:
    """A file where a folder should be means that there is nothing below."""
    (tmp_path / "file").touch()
    with pytest.raises(Absent):
        read_bytes(tmp_path / "file/energy_uj")


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    """Reading a folder as a file failed."""
    with pytest.raises(Failed):
        read_bytes(tmp_path)


def test_what_may_not_be_read_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """EACCES is said in the domain's words, with the file's name."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Denied, match="/sys/x: Permission denied"):
        read_bytes("/sys/x")


def test_no_descriptor_is_lost_when_a_read_fails(tmp_path: Path) -> None:
    """A failed read closes its file."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with pytest.raises(Failed):
            read_bytes(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_read_bytes_stops_when_it_has_enough(tmp_path: Path) -> None:
    """Of megabytes only the first chunks are read."""
    (tmp_path / "long").write_bytes(b"x" * 1_000_000)
    assert len(read_bytes(tmp_path / "long", 100_000)) == 131_072


def test_a_foreign_file_is_read_to_a_limit(tmp_path: Path) -> None:
    """And no further."""
    (tmp_path / "ad").write_bytes(b"x" * 1000)
    assert read_foreign(tmp_path / "ad", 10) == b"x" * 10


def test_what_a_user_may_put_in_a_files_place_is_not_read(tmp_path: Path) -> None:
    """Links, pipes, folders, devices and names that are none: at once, and without waiting."""
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    places = [str(tmp_path / name) for name in ("link", "pipe", "folder")]
    for path in (*places, "/dev/zero", "/a\0b"):
        with pytest.raises(Failed):
            read_foreign(path, 10)
    with pytest.raises(Absent):
        read_foreign(tmp_path / "none", 10)
