"""The state directory: whether totals can be kept over a restart of the exporter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from jobwatt.doctor.finding import Finding, Group, Level

__all__ = ["check_state"]


def check_state(folder: Path) -> Iterator[Finding]:
    """Check that the directory can be written, or made, without doing either."""
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        why = "is no directory"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        why = "may not be written"
    else:
        message = str(folder) if nearest == folder else f"{folder}, which will be made"
        yield Finding(Level.OK, Group.STATE, "directory", message)
        return
    yield Finding(
        Level.NOTE,
        Group.STATE,
        "directory",
        f"{nearest} {why}: totals would start at 0 with each start of the exporter",
        "give the exporter a directory of its own:\n"
        f"  sudo install -d -o {os.geteuid()} {folder}\n"
        "or name another one:\n"
        "  jobwatt serve --state.directory=$HOME/.local/state/jobwatt",
    )
