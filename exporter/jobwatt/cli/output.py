"""What a command writes: files, and tables that are no terminal's."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

__all__ = ["PIPE_COLUMNS", "checked_output", "write_whole"]

PIPE_COLUMNS = 160
"""The width of what is no terminal's, where COLUMNS does not tell."""


def checked_output(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Find out before the command runs, not hours later."""
    del ctx, param
    if value is not None:
        if value.is_dir():
            raise click.BadParameter(f"{value} is a folder")
        if not os.access(value.parent, os.W_OK | os.X_OK):
            raise click.BadParameter(f"cannot write to the folder {value.parent}")
    return value


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once: nobody sees half of it.

    Raises:
        OSError: it cannot be written.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        # Lines end as the text says: CSV's with both characters.
        with os.fdopen(
            descriptor, "w", encoding="utf-8", errors="surrogateescape", newline=""
        ) as file:
            file.write(text)
            os.fchmod(descriptor, 0o666 & ~_umask())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
