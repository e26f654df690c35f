"""Which CPUs there are and to which package each belongs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from jobwatt.errors import ReadError
from jobwatt.host.cpulist import parse_cpulist
from jobwatt.host.files import read_integer, read_text

__all__ = ["Topology", "read_topology"]


@dataclass(frozen=True, slots=True)
class Topology:
    """Online CPUs by package: `{cpu: package}`."""

    package_of: dict[int, int]

    @property
    def packages(self) -> frozenset[int]:
        """All packages that have an online CPU."""
        return frozenset(self.package_of.values())

    def packages_allowed(self, cpus: frozenset[int]) -> frozenset[int] | None:
        """Return the packages on which these CPUs lie; None for all of them (or none known)."""
        if len(self.packages) == 1:
            return None
        allowed = frozenset(self.package_of[cpu] for cpu in cpus if cpu in self.package_of)
        return allowed if allowed and allowed != self.packages else None


def read_topology(sysfs: Path) -> Topology:
    """Read `devices/system/cpu`; without it, all of the machine's CPUs make package 0."""
    base = sysfs / "devices/system/cpu"
    try:
        cpus = parse_cpulist(read_text(base / "online"))
    except ReadError:
        cpus = frozenset()
    if not cpus:
        cpus = frozenset(
            int(entry.name[3:])
            for entry in base.glob("cpu[0-9]*")
            if entry.name[3:].isdigit() and (entry / "topology").is_dir()
        ) or frozenset(range(os.cpu_count() or 1))
    packages: dict[int, int] = {}
    for cpu in sorted(cpus):
        try:
            packages[cpu] = read_integer(base / f"cpu{cpu}/topology/physical_package_id")
        except ReadError:
            packages[cpu] = 0
    return Topology(packages)
