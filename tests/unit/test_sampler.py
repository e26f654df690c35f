import threading
from dataclasses import dataclass, field

from fakes.probe import FakeProbe
from jobwatt.accounting import Accountant
from jobwatt.ledger import Ledger
from jobwatt.model import Component, Counter, Device, Reading, Report, Source, Usage
from jobwatt.sampler import Sampler
from jobwatt.snapshot import NodeInfo, Snapshot

S = 1_000_000_000
J = 1_000_000
COUNTER = Counter("sim", Device(Component.CPU, "package-0", Source.SIMULATED, 0))


@dataclass
class Clock:
    """A monotonic clock that moves when it is told to."""

    ns: int = 0

    def __call__(self) -> int:
        return self.ns


@dataclass
class Meter:
    """40 W; a read may take its time, or wait for another thread."""

    clock: Clock
    source = Source.SIMULATED
    slow_ns: list[int] = field(default_factory=list)

    def read(self, now_ns: int) -> list[Report]:
        value = self.clock.ns * 40 * J // S
        if self.slow_ns:
            self.clock.ns += self.slow_ns.pop(0)
        return [Report(Source.SIMULATED, now_ns, (Reading(COUNTER, value),))]


class Stop(threading.Event):
    """Waits by moving the clock; stops after so many waits."""

    def __init__(self, clock: Clock, waits: int) -> None:
        super().__init__()
        self.clock = clock
        self.left = waits
        self.at: list[int] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        assert timeout >= 0
        self.clock.ns += round(timeout * S)
        self.at.append(self.clock.ns)
        self.left -= 1
        if self.left == 0:
            self.set()
        return self.is_set()


def sampler(clock: Clock, meter: Meter) -> Sampler:
    node = NodeInfo("1", 2, "", "fake", 1.0, 0.0)
    accountant = Accountant(Ledger(), {})
    return Sampler([meter], FakeProbe(), accountant, node, clock=clock, wall=lambda: clock.ns / S)


def test_samples_on_a_schedule_that_does_not_drift() -> None:
    """A sample that takes 0.3 s is followed by a wait of 0.7 s."""
    clock = Clock()
    meter = Meter(clock, slow_ns=[300_000_000] * 5)
    stop = Stop(clock, 5)
    sampler(clock, meter).run(stop)
    assert stop.at == [1 * S, 2 * S, 3 * S, 4 * S, 5 * S]


def test_meters_come_first_but_for_the_first_sample() -> None:
    """The first look at all processes takes long; what it sees belongs to the energy beside it."""
    clock, order = Clock(), []

    class NotedMeter(Meter):
        def read(self, now_ns: int) -> list[Report]:
            order.append("meter")
            return super().read(now_ns)

    class NotedProbe(FakeProbe):
        def look(self, now_ns: int) -> Usage:
            order.append("usage")
            return super().look(now_ns)

    node = NodeInfo("1", 2, "", "fake", 1.0, 0.0)
    taken = Sampler([NotedMeter(clock)], NotedProbe(), Accountant(Ledger(), {}), node, clock=clock)
    taken.sample()
    taken.sample()
    assert order == ["usage", "meter", "meter", "usage"]


def test_counts_samples_that_it_missed_and_loses_no_energy() -> None:
    """A read that hangs for 3.5 s costs three samples; the next one has their energy."""
    clock = Clock()
    meter = Meter(clock, slow_ns=[0, 3_500_000_000])
    stop = Stop(clock, 4)
    taken = sampler(clock, meter)
    taken.run(stop)
    assert stop.at == [1 * S, 5 * S, 6 * S, 7 * S]
    snapshot = taken.snapshot
    assert snapshot is not None
    assert snapshot.health.samples_missed == 3
    assert snapshot.devices[0].energy_uj == 6 * 40 * J


def test_a_snapshot_does_not_change() -> None:
    """Who holds one sees what was true when it was taken."""
    clock = Clock()
    taken = sampler(clock, Meter(clock))
    first = taken.sample()
    before = repr(first)
    clock.ns += S
    second = taken.sample()
    assert repr(first) == before
    assert taken.snapshot is second


def test_keeps_ten_minutes_of_power() -> None:
    """A point every five seconds, the oldest leave."""
    clock = Clock()
    taken = sampler(clock, Meter(clock))
    snapshot: Snapshot = taken.sample()
    for _ in range(1200):
        clock.ns += S
        snapshot = taken.sample()
    assert len(snapshot.history) == 120
    assert {point.power_uw for point in snapshot.history} == {(40 * J,)}
    assert snapshot.history[-1].time - snapshot.history[0].time == 119 * 5
