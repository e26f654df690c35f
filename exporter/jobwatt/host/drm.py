"""Graphics cards: the DRM class and the PCI devices behind it (Linux Documentation/gpu)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from jobwatt.errors import Absent, ReadError
from jobwatt.host.files import list_folder, read_text

__all__ = ["Card", "read_cards", "read_driver_version"]

_CARD = re.compile(r"card\d+", re.ASCII)
_NODE = re.compile(r"(?:card|renderD)\d+", re.ASCII)
_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.ASCII)

ASLEEP = {"suspended", "suspending"}
"""What power/runtime_status says of a device that a read would wake."""


@dataclass(frozen=True, slots=True)
class Card:
    """A graphics card on the PCI bus.

    Attributes:
        address: on the bus, `0000:03:00.0`.
        path: the folder of the PCI device, without links.
        driver: the kernel module that drives it, "" where none does.
        nodes: its files below /dev/dri, `card0` and `renderD128`.
    """

    address: str
    path: Path
    driver: str
    nodes: frozenset[str]

    @property
    def is_asleep(self) -> bool:
        """Whether runtime power management has put it to sleep."""
        try:
            return read_text(self.path / "power/runtime_status") in ASLEEP
        except ReadError:
            return False

    def read(self, attribute: str) -> str:
        """Read an attribute of the PCI device as text, "" where it cannot be read."""
        try:
            return read_text(self.path / attribute)
        except ReadError:
            return ""

    @property
    def ids(self) -> str:
        """Its PCI vendor and device, `1002:744c`; "" where the kernel does not tell."""
        vendor, device = (self.read(name).removeprefix("0x") for name in ("vendor", "device"))
        return f"{vendor}:{device}" if vendor and device else ""


def read_cards(sysfs: Path) -> list[Card]:
    """Read all cards below `<sysfs>/class/drm` that are PCI devices, in the order of the bus.

    Raises:
        Denied, Failed: the class is there and cannot be listed.
    """
    base = sysfs / "class/drm"
    try:
        names = list_folder(base)
    except Absent:
        return []
    cards: dict[str, Card] = {}
    for name in filter(_CARD.fullmatch, names):
        path = Path(os.path.realpath(base / name / "device"))
        if _PCI.fullmatch(path.name):
            cards.setdefault(path.name, Card(path.name, path, _driver(path), _nodes(path)))
    return [cards[address] for address in sorted(cards)]


def read_driver_version(sysfs: Path, procfs: Path, driver: str) -> str:
    """Return a module's version; of one that is part of the kernel the kernel's; else ""."""
    for path in (sysfs / "module" / driver / "version", procfs / "sys/kernel/osrelease"):
        try:
            return read_text(path)
        except ReadError:
            continue
    return ""


def _driver(path: Path) -> str:
    try:
        return os.path.basename(os.readlink(path / "driver"))  # noqa: PTH115, PTH119 - of a link's text
    except OSError:
        return ""


def _nodes(path: Path) -> frozenset[str]:
    try:
        return frozenset(filter(_NODE.fullmatch, list_folder(path / "drm")))
    except ReadError:
        return frozenset()
