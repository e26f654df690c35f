"""Hardware monitoring chips (Linux Documentation/hwmon/sysfs-interface.rst)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobwatt.errors import Absent, ReadError
from jobwatt.host.files import list_folder, read_integer, read_text

__all__ = ["Chip", "read_chips"]


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip as its folder describes it.

    Attributes:
        name: what its driver calls it, `amdgpu`; not unique.
        path: the folder of its attributes, without links: a number that another chip gets later
            does not lead there.
        device: the folder of the device that it monitors, without links; None where it has none.
    """

    name: str
    path: Path
    device: Path | None

    def has(self, attribute: str) -> bool:
        """Whether it shows this attribute; asks the file system only, never the device."""
        return (self.path / attribute).exists()

    def read(self, attribute: str) -> int:
        """Read a number: µW, µJ, thousandths of a degree; raises Absent, Denied, Failed."""
        return read_integer(f"{self.path}/{attribute}")

    def labelled(self, kind: str, labels: Sequence[str]) -> str | None:
        """Return the input of this kind (`temp`, `energy`) that bears the first of these labels."""
        found: dict[str, str] = {}
        for path in sorted(self.path.glob(f"{kind}[0-9]*_label")):
            try:
                label = read_text(path)
            except ReadError:
                continue
            found.setdefault(label, path.name.removesuffix("label") + "input")
        chosen = [found[label] for label in labels if label in found]
        return chosen[0] if chosen and self.has(chosen[0]) else None


def read_chips(sysfs: Path) -> list[Chip]:
    """Read all chips below `<sysfs>/class/hwmon`, in the order of their numbers.

    Drivers of old keep the attributes, the name among them, in the folder of the device. What has
    no name is left out.

    Raises:
        Denied, Failed: the class is there and cannot be listed.
    """
    base = sysfs / "class/hwmon"
    try:
        names = list_folder(base)
    except Absent:
        return []
    chips: list[Chip] = []
    for key in sorted(names, key=lambda name: (len(name), name)):
        folder = base / key
        linked = folder / "device"
        for path in (folder, linked):
            try:
                name = read_text(path / "name")
            except ReadError:
                continue
            device = Path(os.path.realpath(linked)) if linked.exists() else None
            chips.append(Chip(name, Path(os.path.realpath(path)), device))
            break
    return chips
