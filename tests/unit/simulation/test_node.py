from __future__ import annotations

from collections import Counter as Count
from dataclasses import replace

import pytest

from jobwatt.attribution.counters import CounterTrack
from jobwatt.meters.contract import Meter
from jobwatt.model import Component, Report, Source, Usage
from jobwatt.simulation.load import Steady
from jobwatt.simulation.meter import SimulatedMeter
from jobwatt.simulation.node import SimulatedNode
from jobwatt.simulation.scenarios import (
    LAPTOP,
    ROOT,
    SCENARIOS,
    TWO_SOCKET_SERVER,
    Hardware,
    Lifetime,
    Package,
    PowerModel,
    Scenario,
    Workload,
)
from jobwatt.simulation.usage import SimulatedUsage
from jobwatt.units import NS, UJ, mean_power_uw
from jobwatt.usage.contract import UsageProbe

HOUR = 3600
START_NS = 5_000 * NS
"""Monotonic clocks do not start at 0."""


class Bench:
    """A node with its meter and its usage, on a clock that a test moves."""

    def __init__(self, scenario: Scenario, seed: int = 1) -> None:
        self.now_ns = START_NS
        self.node = SimulatedNode(scenario, lambda: self.now_ns, seed)
        self.meter: Meter = SimulatedMeter(self.node)
        self.usage: UsageProbe = SimulatedUsage(self.node)

    def look(self, age_seconds: float) -> tuple[Report, Usage]:
        self.now_ns = START_NS + round(age_seconds * NS)
        (report,) = self.meter.read(self.now_ns)
        return report, self.usage.look(self.now_ns)


def small(*workloads: Workload, packages: int = 2, threads: int = 4) -> Scenario:
    """Return a scenario with a few threads and the given work."""
    package = Package(threads, PowerModel(10, 50, 50), PowerModel(2, 6))
    return Scenario("small", "", Hardware("CPU", "RAM", (package,) * packages), workloads)


def picture(report: Report, usage: Usage) -> object:
    """Return what two equal looks have in common: processes by what names them."""
    return (
        [reading.value_uj for reading in report.readings],
        [(p.pid, p.start_ticks, p.comm, ns, p.memory_bytes) for p, ns in usage.cpu_ns.items()],
        usage.exited_ns,
        usage.memory_bytes,
        [p.pid for p in usage.ended],
        usage.busy_ns,
        usage.capacity_ns,
    )


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_the_same_seed_lives_the_same_life(scenario: Scenario) -> None:
    """Two nodes of one seed show the same at each moment."""
    one, other = Bench(scenario, seed=7), Bench(scenario, seed=7)

    for second in range(0, 300, 3):
        assert picture(*one.look(second)) == picture(*other.look(second))


def test_another_seed_lives_another_life() -> None:
    """The seed matters."""
    one, other = Bench(LAPTOP, seed=1), Bench(LAPTOP, seed=2)

    assert picture(*one.look(60)) != picture(*other.look(60))


def test_looking_changes_nothing() -> None:
    """Counters depend on the time alone, not on how often the node is looked at."""
    often, seldom = Bench(TWO_SOCKET_SERVER), Bench(TWO_SOCKET_SERVER)
    for tenth in range(1, 1000):
        often.look(tenth / 10 + 0.01)

    assert often.look(100.1)[0] == seldom.look(100.1)[0]
    assert {p.pid for p in often.usage.processes} == {p.pid for p in seldom.usage.processes}


def test_time_never_goes_back() -> None:
    """A look with a time that has passed finds the node as it was."""
    bench = Bench(LAPTOP)
    report, _ = bench.look(10)

    late, usage = bench.look(9)

    assert late.readings == report.readings
    assert (usage.cpu_ns, usage.busy_ns, usage.capacity_ns) == ({}, {}, {})


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_an_hour_conserves_energy_and_time(scenario: Scenario) -> None:
    """All that meter and usage tell over an hour is what the node knows, and is possible."""
    bench = Bench(scenario)
    first, usage = bench.look(0)
    tracks = {r.counter: CounterTrack(r.counter) for r in first.readings}
    for reading in first.readings:
        assert tracks[reading.counter].advance(reading.value_uj, bench.now_ns) is None
    energy_uj: Count[str] = Count()
    powers: dict[str, list[float]] = {}
    cpu_ns = busy_ns = 0
    users, ended, exited, wraps = set(), 0, 0, 0
    for second in range(1, HOUR + 1):
        report, usage = bench.look(second)
        assert report.faults == ()
        for reading in report.readings:
            device = reading.counter.device
            assert device is not None
            advance = tracks[reading.counter].advance(reading.value_uj, bench.now_ns)
            assert advance is not None
            assert (advance.gap, advance.reset) == (False, False)
            energy_uj[device.name] += advance.uj
            wraps += advance.wrapped
            powers.setdefault(device.name, []).append(advance.uj / UJ)
        used_ns = sum(usage.cpu_ns.values()) + sum(usage.exited_ns.values())
        # Each figure is rounded down by itself, in the middle of a step.
        assert used_ns <= sum(usage.busy_ns.values()) + 1000
        for package, time_ns in usage.busy_ns.items():
            assert 0 <= time_ns <= usage.capacity_ns[package]
        assert usage.capacity_ns == {
            number: package.threads * NS
            for number, package in enumerate(scenario.hardware.packages)
        }
        cpu_ns += used_ns
        busy_ns += sum(usage.busy_ns.values())
        users |= {process.user for process in usage.cpu_ns}
        users |= {usage.records[job].user for job in usage.exited_ns if job in usage.records}
        ended += len(usage.ended)
        exited += len(usage.exited_ns)

    # The hour ends with a step, where nothing is in the air.
    assert {part.name: part.truth.energy_uj for part in bench.node.parts} == energy_uj
    assert cpu_ns == busy_ns
    jobs = [w.job for w in scenario.workloads if w.job is not None and not w.job.tells_times]
    unseen = {job.user.name for job in jobs if (job.lasts_seconds or HOUR) < 1}
    assert {w.user.name for w in scenario.workloads} - unseen == users - {""}
    assert ended > 50
    assert exited > 5
    for part in bench.node.parts:
        watts = powers[part.name]
        assert min(watts) > 0.9 * part.power.idle_watts
        assert max(watts) <= (part.power.limit_watts or part.power.full_watts) * 1.001
        if part.component is not Component.GPU:  # some of these are held by nobody
            assert max(watts) - min(watts) > 0.3 * (part.power.full_watts - part.power.idle_watts)
    assert wraps == sum(
        (part.energy_uj // size) - ((part.energy_uj - part.truth.energy_uj) // size)
        for part in bench.node.parts
        if (size := part.power.range_uj) is not None
    )


def test_idle_power_is_all_that_a_sleeping_node_draws() -> None:
    """Without work the energy is idle power × time, but for noise, and the truth says so."""
    bench = Bench(small(Workload("systemd", "system", ROOT, Steady(0))))

    bench.look(100)

    for part in bench.node.parts:
        assert part.truth.active_uj == {}
        assert (
            pytest.approx(part.power.idle_watts, rel=0.01)
            == mean_power_uw(part.truth.idle_uj, 100 * NS) / UJ
        )


def test_a_busy_package_draws_full_power_and_the_other_idles() -> None:
    """Work that is bound to a package heats that one alone, and its owner is known."""
    work = Workload("burn", "systemd:burn.service", ROOT, Steady(1), threads=99, package=1)
    bench = Bench(small(work))
    bench.look(0)

    _, usage = bench.look(100)

    idle, _, busy, _ = bench.node.parts
    assert (idle.name, busy.name) == ("package-0", "package-1")
    assert pytest.approx(10, rel=0.01) == idle.truth.energy_uj / UJ / 100
    assert pytest.approx(50, rel=0.02) == busy.truth.energy_uj / UJ / 100
    assert list(busy.truth.active_uj) == ["systemd:burn.service"]
    assert usage.busy_ns[0] == 0
    assert pytest.approx(0.99) == usage.busy_ns[1] / usage.capacity_ns[1]


def test_power_stays_within_the_limit() -> None:
    """Work that would draw more than the limit is held at it."""
    hot = Workload("burn", "system", ROOT, Steady(1), threads=99, intensity=2.0)
    bench = Bench(small(hot, packages=1))

    bench.look(100)

    assert pytest.approx(50) == bench.node.parts[0].truth.energy_uj / UJ / 100


def test_loose_work_goes_where_there_is_room() -> None:
    """What may run anywhere takes the CPUs that bound work leaves."""
    bound = Workload("bound", "system", ROOT, Steady(1), threads=99, package=0)
    loose = Workload("loose", "system", ROOT, Steady(1), threads=2)
    bench = Bench(small(bound, loose))
    bench.look(0)

    _, usage = bench.look(100)

    cpus = {process.comm: ns / (100 * NS) for process, ns in usage.cpu_ns.items()}
    assert pytest.approx({"bound": 3.96, "loose": 2}, rel=0.05) == cpus
    assert pytest.approx(2, rel=0.05) == usage.busy_ns[1] / (100 * NS)
    assert {"bound": frozenset({0}), "loose": None} == {
        process.comm: process.packages for process in bench.usage.processes
    }


def test_affinity_says_nothing_on_one_package() -> None:
    """A process bound to the only package is bound to all."""
    bench = Bench(small(Workload("bound", "system", ROOT, Steady(1), package=0), packages=1))
    bench.look(1)

    assert [process.packages for process in bench.usage.processes] == [None]


def test_processes_come_and_go_with_pids_of_their_own() -> None:
    """A successor is another process; the one that ended is told with its last CPU time."""
    brief = Workload("brief", "system", ROOT, Steady(1), lifetime=Lifetime((2, 3), (1, 2)))
    bench = Bench(small(brief))
    bench.look(0)
    pids, ended = [], []
    for half in range(1, 120):
        _, usage = bench.look(half / 2)
        for process in usage.ended:
            assert process not in bench.usage.processes
            assert usage.cpu_ns.get(process, 0) <= NS // 2
        ended += [process.pid for process in usage.ended]
        pids += [process.pid for process in bench.usage.processes]

    assert 10 < len(ended) < 25
    assert len(set(ended)) == len(ended)
    assert set(ended) <= set(pids)


def test_what_nobody_saw_live_is_known_by_its_owner_alone() -> None:
    """A life between two looks is in `exited_ns`, and in no list of processes."""
    lifetime = Lifetime((0.25, 0.5), (0.25, 0.5))
    bench = Bench(small(Workload("burst", "session:root", ROOT, Steady(1), lifetime=lifetime)))
    bench.look(0)

    _, usage = bench.look(60)

    assert list(usage.exited_ns) == ["session:root"]
    assert len(usage.ended) <= 1
    assert pytest.approx(sum(usage.busy_ns.values())) == (
        usage.exited_ns["session:root"] + sum(usage.cpu_ns.values())
    )


def test_pids_start_over_and_skip_the_living() -> None:
    """After the highest pid come low ones, but never one that is in use."""
    brief = Workload("brief", "system", ROOT, Steady(1), lifetime=Lifetime((1, 1), (0, 0)))
    bench = Bench(small(Workload("init", "system", ROOT, Steady(0)), brief))
    bench.look(10)
    (init,) = (task for task in bench.node.tasks if task.process.comm == "init")
    init.process.pid = 300
    bench.node._next_pid = 4_194_304  # the highest + 1

    bench.look(12)

    (pid,) = (p.pid for p in bench.usage.processes if p.comm == "brief")
    assert 301 <= pid < 400


def test_memory_grows_in_a_young_process() -> None:
    """A process that has just been born has not filled its memory yet."""
    brief = Workload(
        "brief", "system", ROOT, Steady(1), 1, 1000, package=1, lifetime=Lifetime((99, 99), (0, 0))
    )
    bench = Bench(small(brief, replace(brief, package=None, lifetime=None)))

    bench.look(0)
    _, young = bench.look(1)
    _, old = bench.look(60)

    here, anywhere = ("system", frozenset({1})), ("system", None)
    assert young.memory_bytes == {here: 420, anywhere: 1000}
    assert old.memory_bytes == {here: 1000, anywhere: 1000}


def test_a_process_keeps_its_name() -> None:
    """Asked again, it says the same."""
    bench = Bench(LAPTOP)
    bench.look(1)
    process = next(iter(bench.usage.processes))

    bench.usage.refresh(process)

    assert (process.pid, process.comm, process.job_uid) == (1, "systemd", "systemd:init.scope")


def test_the_first_look_tells_no_use() -> None:
    """As with a real machine, the first look is where counting starts."""
    bench = Bench(TWO_SOCKET_SERVER)

    _, usage = bench.look(30)

    assert (usage.cpu_ns, usage.exited_ns, usage.ended, usage.busy_ns) == ({}, {}, [], {})
    assert sum(usage.memory_bytes.values()) > 0
    assert len(bench.usage.processes) > 30
    assert bench.usage.method == "simulated"


def test_devices_are_named_by_the_contract() -> None:
    """Packages and the memory beside them, with models, ranges and limits."""
    report, _ = Bench(TWO_SOCKET_SERVER).look(1)

    devices = [reading.counter.device for reading in report.readings]
    assert [(d.component, d.name, d.package, d.model) for d in devices if d is not None] == [
        (Component.CPU, "package-0", 0, "Simulated server CPU"),
        (Component.DRAM, "dram-0", 0, "Simulated DDR4"),
        (Component.CPU, "package-1", 1, "Simulated server CPU"),
        (Component.DRAM, "dram-1", 1, "Simulated DDR4"),
    ]
    assert {Source.SIMULATED} == {device.source for device in devices if device is not None}
    assert {device.name: limit for device, limit in report.limits_uw.items()} == {
        "package-0": 250 * UJ,
        "package-1": 250 * UJ,
    }
    for reading in report.readings:
        assert reading.counter.range_uj is not None
        assert 0 <= reading.value_uj <= reading.counter.range_uj
        assert reading.counter.limit_uw == 250 * UJ
        assert reading.counter.domain is None


def test_a_laptop_has_no_dram_counter() -> None:
    """One package and nothing else."""
    report, _ = Bench(LAPTOP).look(1)

    assert [reading.counter.key for reading in report.readings] == ["simulated:package-0"]
