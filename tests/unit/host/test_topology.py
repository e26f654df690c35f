from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobwatt.host.topology import Topology, read_topology


def write_cpus(sysfs: Path, online: str | None, packages: dict[int, str]) -> None:
    base = sysfs / "devices/system/cpu"
    base.mkdir(parents=True)
    if online is not None:
        (base / "online").write_text(online)
    for cpu, package in packages.items():
        (base / f"cpu{cpu}/topology").mkdir(parents=True)
        (base / f"cpu{cpu}/topology/physical_package_id").write_text(package)


def test_two_packages(tmp_path: Path) -> None:
    """Online CPUs come with their package, offline ones do not come."""
    write_cpus(tmp_path, "0-2\n", {0: "0\n", 1: "1\n", 2: "0\n", 3: "1\n"})
    assert read_topology(tmp_path).package_of == {0: 0, 1: 1, 2: 0}


def test_without_a_list_of_online_cpus(tmp_path: Path) -> None:
    """Without the list, every CPU that has a topology counts."""
    write_cpus(tmp_path, None, {0: "0\n", 12: "1\n"})
    (tmp_path / "devices/system/cpu/cpufreq").mkdir()
    (tmp_path / "devices/system/cpu/cpu13").mkdir()
    assert read_topology(tmp_path).package_of == {0: 0, 12: 1}


@pytest.mark.parametrize("online", ["", "nonsense\n"])
def test_a_list_that_is_none(tmp_path: Path, online: str) -> None:
    """A list that cannot be understood is as good as none."""
    write_cpus(tmp_path, online, {0: "0\n"})
    assert read_topology(tmp_path).package_of == {0: 0}


def test_a_package_that_is_unknown_is_the_first(tmp_path: Path) -> None:
    """Arm and some virtual machines say -1, or nothing."""
    write_cpus(tmp_path, "0-1", {0: "-1\n"})
    assert read_topology(tmp_path).package_of == {0: 0, 1: 0}


def test_without_sysfs(tmp_path: Path) -> None:
    """Without the tree, all of the machine's CPUs make package 0."""
    count = os.cpu_count() or 1
    assert read_topology(tmp_path).package_of == dict.fromkeys(range(count), 0)


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [
        ({0, 2}, frozenset({0})),
        ({3}, frozenset({1})),
        ({0, 1}, None),
        (set(), None),
        ({99}, None),
        ({1, 99}, frozenset({1})),
    ],
)
def test_packages_allowed(cpus: set[int], expected: frozenset[int] | None) -> None:
    """An affinity names packages only where it leaves some out."""
    topology = Topology({0: 0, 1: 1, 2: 0, 3: 1})
    assert topology.packages_allowed(frozenset(cpus)) == expected


def test_one_package_needs_no_name() -> None:
    """On one package every affinity means all packages."""
    assert Topology({0: 0, 1: 0}).packages_allowed(frozenset({1})) is None


def test_this_machine() -> None:
    """The machine that runs the test has at least the CPUs that the test may use."""
    assert set(read_topology(Path("/sys")).package_of) >= os.sched_getaffinity(0)
