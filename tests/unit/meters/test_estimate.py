from __future__ import annotations

from pathlib import Path

import pytest

from jobwatt.host.procfs import Procfs
from jobwatt.host.topology import Topology
from jobwatt.meters.estimate import EstimateMeter
from jobwatt.model import Component, Device, Report, Source
from jobwatt.units import NS, UJ


class Node:
    """A proc filesystem and a clock to be moved by hand; a busy package needs 35 W, an idle 7.4."""

    def __init__(self, root: Path, packages: dict[int, int]) -> None:
        self.root = root
        self.now_ns = 0
        self.ticks = dict.fromkeys(packages, 0)
        (root / "cpuinfo").write_text("model name\t: Test CPU\n")
        self.write()
        self.meter = EstimateMeter(Procfs(root), Topology(packages), tdp_watts=35.0)

    def write(self) -> None:
        lines = [f"cpu{cpu} {ticks} 0 0 9\n" for cpu, ticks in self.ticks.items()]
        (self.root / "stat").write_text("cpu 0 0 0 0\n" + "".join(lines))

    def run(self, seconds: float, **busy: float) -> None:
        """Let time pass while each named CPU is busy for a part of it."""
        self.now_ns += round(seconds * NS)
        for cpu in self.ticks:
            self.ticks[cpu] += round(busy.get(f"cpu{cpu}", 0) * seconds * 100)
        self.write()

    def joules(self) -> dict[str, float]:
        return {reading.counter.key: reading.value_uj / UJ for reading in self.look().readings}

    def look(self) -> Report:
        (report,) = self.meter.read(self.now_ns)
        return report


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Return a node of one package with two CPUs."""
    return Node(tmp_path, {0: 0, 1: 0})


def test_it_starts_at_nothing(node: Node) -> None:
    """Before any time has passed nothing has been used, whatever was used before."""
    node.ticks[0] = 99999
    node.write()
    assert node.joules() == {"estimate:package-0": 0.0}


def test_an_idle_package(node: Node) -> None:
    """An idle package takes its idle power."""
    node.look()
    node.run(10)
    assert node.joules() == {"estimate:package-0": 74.0}


def test_a_busy_package(node: Node) -> None:
    """A fully busy package takes its full power."""
    node.look()
    node.run(10, cpu0=1, cpu1=1)
    assert node.joules() == {"estimate:package-0": 350.0}


def test_power_is_linear_between(node: Node) -> None:
    """Half busy is half way between idle and full."""
    node.look()
    node.run(10, cpu1=1)
    assert node.joules() == {"estimate:package-0": 212.0}


def test_more_than_busy_is_busy(node: Node) -> None:
    """Clock ticks that come late do not make a package more than busy."""
    node.look()
    node.run(10, cpu0=3, cpu1=1)
    assert node.joules() == {"estimate:package-0": 350.0}


def test_energy_only_grows(node: Node) -> None:
    """A CPU time that goes back, and a clock that stands still, take nothing away."""
    node.look()
    node.run(10)
    node.look()
    node.ticks = {0: -500, 1: 0}
    node.run(0)
    assert node.joules() == {"estimate:package-0": 74.0}
    node.run(10)
    assert node.joules() == {"estimate:package-0": 148.0}


def test_two_packages(tmp_path: Path) -> None:
    """Each package follows its own CPUs; all are devices with a model."""
    node = Node(tmp_path, {0: 0, 1: 1, 2: 0, 3: 1})
    node.look()
    node.run(10, cpu1=1, cpu3=1)
    assert node.joules() == {"estimate:package-0": 74.0, "estimate:package-1": 350.0}
    devices = [reading.counter.device for reading in node.look().readings]
    assert devices == [
        Device(Component.CPU, "package-0", Source.ESTIMATE, 0, "Test CPU"),
        Device(Component.CPU, "package-1", Source.ESTIMATE, 1, "Test CPU"),
    ]


def test_a_cpu_that_comes_online(node: Node) -> None:
    """A CPU that was not there before, or that no package has, is left out of the interval."""
    node.look()
    node.ticks |= {7: 0}
    node.run(10, cpu0=1, cpu1=1, cpu7=1)
    assert node.joules() == {"estimate:package-0": 350.0}


def test_unread_times_are_caught_up(node: Node) -> None:
    """While /proc/stat cannot be read there is a fault and no reading; the next covers it."""
    node.look()
    (node.root / "stat").unlink()
    node.now_ns += 5 * NS
    report = node.look()
    assert report.readings == ()
    assert [(fault.what, fault.reason) for fault in report.faults] == [("cpu times", "absent")]
    node.run(5)
    assert node.joules() == {"estimate:package-0": 74.0}
