"""Builds the fake libnvidia-ml.so.1 with gcc, once for each source."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import struct
import subprocess
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

SONAME = "libnvidia-ml.so.1"
SOURCE = Path(__file__).with_name("nvml.c")
CACHE = Path(__file__).parents[3] / ".cache/fake-nvml"
FLAGS = (
    "-shared",
    "-fPIC",
    "-O1",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Werror",
    f"-Wl,-soname,{SONAME}",
)
COUNTER = struct.Struct("56sQ")
"""One slot of the table of calls: a function's name, and how often it was called."""


class BuildError(Exception):
    """The library could not be built."""


def functions() -> tuple[str, ...]:
    """Every NVML function that the source names."""
    names = set(re.findall(r"\bnvml[A-Z]\w+", SOURCE.read_text()))
    return tuple(sorted(name for name in names if not name.endswith("_t")))


@functools.cache
def build(without: tuple[str, ...] = ()) -> Path:
    """Build the library, unless that has been done before, and say where it lies.

    Args:
        without: patterns of functions that it shall not export, as a driver that is too old for
            them.
    """
    missing = [name for name in functions() if any(fnmatchcase(name, glob) for glob in without)]
    recipe = "\n".join((SOURCE.read_text(), *FLAGS, *missing))
    folder = CACHE / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    if not (folder / SONAME).exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            fresh = Path(scratch) / "built"
            fresh.mkdir()
            _compile(fresh, missing)
            try:
                fresh.rename(folder)
            except OSError:  # another process was faster
                if not (folder / SONAME).exists():
                    raise
    return folder / SONAME


def _compile(folder: Path, missing: list[str]) -> None:
    gcc = shutil.which(os.environ.get("CC", "gcc"))
    if gcc is None:
        raise BuildError("the fake NVML is a C library: install gcc, or name a compiler in CC")
    flags = list(FLAGS)
    if missing:
        hidden = folder / "hidden.map"
        hidden.write_text(f"{{ local: {' '.join(f'{name};' for name in missing)} }};\n")
        flags.append(f"-Wl,--version-script={hidden}")
    command = [gcc, *flags, "-o", str(folder / SONAME), str(SOURCE), "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stderr}")
