"""Small reads of kernel files, with errors in the domain's words."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from jobwatt.errors import Failed, translated

__all__ = [
    "is_integer",
    "list_folder",
    "read_bytes",
    "read_foreign",
    "read_integer",
    "read_integer_line",
    "read_text",
]

_CHUNK = 65536
_MOST_DIGITS = 20


def read_bytes(path: Path | str, most: int | None = None) -> bytes:
    """Return a file's content; of what is longer than `most`, at least so much.

    Raises:
        Absent, Denied, Failed: see `jobwatt.errors`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, _CHUNK)
            if len(data) == _CHUNK:
                while (most is None or len(data) < most) and (chunk := os.read(fd, _CHUNK)):
                    data += chunk
            return data
        finally:
            os.close(fd)
    except OSError as error:
        raise translated(error, path) from error


def read_foreign(path: Path | str, most: int) -> bytes:
    """Return the first bytes of a file whose name came from a user; raises as `read_bytes`.

    Nothing but a regular file is read, and no link is followed in its last part.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        fd = os.open(path, flags)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Failed(f"{path}: not a regular file")
            return os.read(fd, most)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise translated(error, path) from error
        raise Failed(f"{path!r}: {error}") from error


def read_text(path: Path | str) -> str:
    """Return a file's content as text without the space around it; raises as `read_bytes`."""
    return read_bytes(path).decode(errors="replace").strip()


def is_integer(data: bytes) -> bool:
    """Whether data is a non-negative decimal integer as the kernel writes it, up to 64 bits.

    int() alone would take signs, underscores and other scripts' digits.
    """
    return data.isdigit() and len(data) <= _MOST_DIGITS


def read_integer(path: Path | str) -> int:
    """Return a file's one non-negative decimal integer; raises as `read_bytes`."""
    return read_integer_line(path)[0]


def read_integer_line(path: Path | str) -> tuple[int, bool]:
    """Return a file's integer, and whether its line has an end; raises as `read_bytes`."""
    data = read_bytes(path)
    number = data.strip()
    if not is_integer(number):
        raise Failed(f"{path}: not a number: {number[:40]!r}")
    return int(number), data.endswith(b"\n")


def list_folder(path: Path | str) -> list[str]:
    """Return the sorted names in a folder; raises as `read_bytes`."""
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        raise translated(error, path) from error
