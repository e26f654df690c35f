"""What the sampler relies on, held against every meter that there is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fakes.monitored import Machine
from fakes.nvidia import Nvidia
from fakes.nvml import WITHOUT_ENERGY, Gpu, GpuProcess, Instance
from jobwatt.attribution.gpu import gpu_weights
from jobwatt.host.procfs import Procfs
from jobwatt.host.topology import Topology
from jobwatt.meters.contract import Meter
from jobwatt.meters.estimate import EstimateMeter
from jobwatt.meters.own_thread import BlockingMeter, OwnThread
from jobwatt.meters.rapl import RaplMeter
from jobwatt.model import Component, Counter, Process, Report
from jobwatt.simulation.meter import SimulatedMeter
from jobwatt.simulation.node import SimulatedNode
from jobwatt.simulation.scenarios import SCENARIOS
from jobwatt.units import NS, UJ

LONG = 3600.0
"""Seconds that no test waits to the end."""

READS = 25


@dataclass
class Subject:
    """A meter on a machine that a test holds.

    Attributes:
        spend: lets time pass, in which every device draws 100 W; returns the monotonic time.
        damage: makes everything unreadable; None: nothing can.
        repair: takes that back.
    """

    meter: Meter
    spend: Callable[[float], int]
    damage: Callable[[], None] | None = None
    repair: Callable[[], None] = lambda: None

    def read(self, seconds: float = 1) -> Sequence[Report]:
        """Let time pass, then read."""
        return self.meter.read(self.spend(seconds))


def threaded(meter: BlockingMeter, clock: Callable[[], int]) -> OwnThread:
    """A blocking meter as the sampler has it, answering whenever it is asked and only then."""
    return OwnThread(
        meter, period_seconds=LONG, patience_seconds=LONG, absent_seconds=0, clock=clock
    )


def rapl(root: Path, stack: ExitStack) -> Subject:
    """Two packages, one with DRAM, and what is shown raw."""
    base = root / "class/powercap"
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:1:0": "core",
    }
    spent = {key: (number + 1) * 1000 * UJ for number, key in enumerate(zones)}
    now = [1000 * NS]

    def show() -> None:
        for key, uj in spent.items():
            (base / key / "energy_uj").write_text(f"{uj}\n")

    def spend(seconds: float) -> int:
        now[0] += round(seconds * NS)
        for key in spent:
            spent[key] += round(100 * UJ * seconds)
        if base.exists():
            show()
        return now[0]

    for key, name in zones.items():
        (base / key).mkdir(parents=True)
        (base / key / "name").write_text(f"{name}\n")
        (base / key / "max_energy_range_uj").write_text("262143328850\n")
    show()
    aside = root / "aside"
    return Subject(RaplMeter(root), spend, lambda: _move(base, aside), lambda: _move(aside, base))


def estimate(root: Path, stack: ExitStack) -> Subject:
    """Two packages of two CPUs."""
    now, stat = [1000 * NS], root / "stat"
    (root / "cpuinfo").write_text("model name\t: Test CPU\n")

    def spend(seconds: float) -> int:
        now[0] += round(seconds * NS)
        ticks = now[0] * 100 // NS
        if not stat.is_dir():
            stat.write_text("".join(f"cpu{cpu} {ticks} 0 0 9\n" for cpu in range(4)))
        return now[0]

    spend(0)
    meter = EstimateMeter(Procfs(root), Topology({0: 0, 1: 0, 2: 1, 3: 1}))

    def damage() -> None:
        stat.unlink()
        stat.mkdir()

    return Subject(meter, spend, damage, stat.rmdir)


def simulated(root: Path, stack: ExitStack) -> Subject:
    """A GPU server that is made up."""
    now = [1000 * NS]

    def spend(seconds: float) -> int:
        now[0] += round(seconds * NS)
        return now[0]

    node = SimulatedNode(SCENARIOS["gpu-server"], seed=1, clock=lambda: now[0])
    return Subject(SimulatedMeter(node), spend)


def hwmon(root: Path, stack: ExitStack) -> Subject:
    """GPUs of AMD and Intel, and a Grace."""
    machine = Machine(root)
    amd = machine.card(0, "0000:03:00.0", "amdgpu")
    machine.chip(0, "amdgpu", amd, power1_average=str(100 * UJ))
    intel = machine.card(1, "0000:83:00.0", "xe")
    counter = machine.chip(1, "xe", intel, energy1_input="5000000", energy1_label="card")
    machine.power_meter(2, "Grace Power Socket 0", 100 * UJ)

    def spend(seconds: float) -> int:
        machine.now_ns += round(seconds * NS)
        path = counter / "energy1_input"
        if path.exists():
            path.write_text(f"{int(path.read_text()) + round(100 * UJ * seconds)}\n")
        return machine.now_ns

    shown, aside = machine.sysfs / "devices", root / "aside"
    return Subject(
        threaded(machine.meter, lambda: machine.now_ns),
        spend,
        lambda: _move(shown, aside),
        lambda: _move(aside, shown),
    )


def nvml(root: Path, stack: ExitStack) -> Subject:
    """GPUs with and without a counter, one of them divided, and processes."""
    gpu = Gpu(uuid="GPU-a", power_mw=100_000, refresh_ms=0, processes=(GpuProcess(7, sm=40),))
    instances = (Instance("MIG-1", 1), None, Instance("MIG-2", 2))
    nvidia = Nvidia(
        root,
        gpu,
        replace(gpu, uuid="GPU-b", bus_id="00000000:41:00.0", unsupported=WITHOUT_ENERGY),
        replace(gpu, uuid="GPU-c", bus_id="00000000:61:00.0", instances=instances),
    )
    stack.enter_context(nvidia.fake.installed())

    def spend(seconds: float) -> int:
        nvidia.fake.advance(seconds)
        return nvidia.fake.now_ns()

    return Subject(
        threaded(nvidia.meter, nvidia.fake.now_ns),
        spend,
        lambda: nvidia.fake.fault("nvml*", 999),
        nvidia.fake.heal,
    )


METERS = (rapl, estimate, simulated, hwmon, nvml)


def _move(source: Path, target: Path) -> None:
    shutil.move(source, target)


@pytest.fixture(params=METERS, ids=lambda make: make.__name__)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    """Return each meter in its turn."""
    with ExitStack() as stack:
        yield request.param(tmp_path, stack)


def counters(reports: Sequence[Report]) -> list[Counter]:
    return [reading.counter for report in reports for reading in report.readings]


def test_a_machine_in_order_has_readings_and_no_faults(subject: Subject) -> None:
    """From the first read on."""
    for _ in range(READS):
        reports = subject.read()
        assert counters(reports)
        assert not [fault for report in reports for fault in report.faults]


def test_every_report_is_of_one_source(subject: Subject) -> None:
    """What it reads, limits and shows is of devices of that source; one report each."""
    for _ in range(3):
        reports = subject.read()
        sources = [report.source for report in reports]
        assert len(sources) == len(set(sources))
        for report in reports:
            devices = {c.device for c in counters([report]) if c.device is not None}
            devices |= report.limits_uw.keys() | report.gpus.keys()
            assert {device.source for device in devices} == {report.source}


def test_counters_have_keys_of_their_own(subject: Subject) -> None:
    """The same ones at every read, for the same devices."""
    found = [counters(subject.read()) for _ in range(READS)]
    for some in found:
        keys = [counter.key for counter in some]
        assert len(keys) == len(set(keys))
        assert {c.key: c.device for c in some} == {c.key: c.device for c in found[0]}


def test_devices_have_names_of_their_own(subject: Subject) -> None:
    """A part of the node is one device."""
    devices = {c.device for c in counters(subject.read()) if c.device is not None}
    assert len({device.name for device in devices}) == len(devices)


def test_values_are_whole_microjoules_within_the_range(subject: Subject) -> None:
    """Never below 0."""
    for _ in range(READS):
        for report in subject.read():
            for reading in report.readings:
                assert isinstance(reading.value_uj, int)
                assert 0 <= reading.value_uj <= (reading.counter.range_uj or reading.value_uj)
                assert reading.lost_ns == 0


def test_counters_that_do_not_wrap_do_not_fall(subject: Subject) -> None:
    """And rise, while something is drawn."""
    first = {r.counter.key: r for report in subject.read() for r in report.readings}
    before = first
    for _ in range(READS):
        after = {r.counter.key: r for report in subject.read() for r in report.readings}
        for key, reading in after.items():
            if reading.counter.range_uj is None:
                assert reading.value_uj >= before[key].value_uj
        before = after
    assert all(before[key].value_uj != reading.value_uj for key, reading in first.items())


def test_time_does_not_go_back(subject: Subject) -> None:
    """Neither a report's nor that of any of its readings, and none is of the future."""
    last: dict[str, int] = {}
    for _ in range(READS):
        now_ns = subject.spend(1)
        for report in subject.meter.read(now_ns):
            assert last.get(report.source, 0) < report.at_ns <= now_ns
            last[report.source] = report.at_ns
            for reading in report.readings:
                at_ns = report.at_ns if reading.at_ns is None else reading.at_ns
                key = reading.counter.key
                assert last.get(key, 0) < at_ns <= now_ns
                last[key] = at_ns


def test_gpus_are_gpus(subject: Subject) -> None:
    """What is shown beside energy is of GPUs; nothing is known of the time before the first."""
    for number in range(3):
        for report in subject.read():
            assert {device.component for device in report.gpus} <= {Component.GPU}
            for state in report.gpus.values():
                assert number or gpu_weights(state, lambda pid: Process(pid, 1)).processes == {}
                assert state.span_ns == (NS if number else 0)


def test_what_cannot_be_read_is_a_fault_and_heals(subject: Subject) -> None:
    """It never raises, never shows 0 J, and keeps on naming its sources."""
    if subject.damage is None:
        pytest.skip("nothing can fail here")
    before = subject.read()
    keys = {counter.key for counter in counters(before)}
    subject.damage()
    for _ in range(READS):
        reports = subject.read()
        assert {report.source for report in reports} == {report.source for report in before}
        assert counters(reports) == []
        for report in reports:
            assert report.faults
            assert all(fault.what and fault.reason and fault.message for fault in report.faults)
    subject.repair()
    for _ in range(70):
        reports = subject.read()
    assert {counter.key for counter in counters(reports)} == keys
    assert not [fault for report in reports for fault in report.faults]
