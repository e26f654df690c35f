"""Every joule of a GPU is on one account, whatever GPUs, drivers and processes do."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.probe import FakeProbe
from jobwatt.accounting import Accountant
from jobwatt.gpus import GpuInfo, GpuInstance, GpuMethod, GpuState, GpuUse
from jobwatt.ledger import Ledger, SeriesRules
from jobwatt.model import (
    Component,
    Counter,
    Device,
    Fault,
    Process,
    Reading,
    Report,
    Source,
    Usage,
)
from jobwatt.snapshot import DeviceView

S = 1_000_000_000
J = 1_000_000
GIB = 1 << 30
DEVICES = [Device(Component.GPU, f"GPU-{number}", Source.NVML_ENERGY) for number in range(2)]
COUNTERS = [
    Counter(f"nvml:{device.name}", device, limit_uw=700 * J, peak_uw=700 * J, lasting=True)
    for device in DEVICES
]
SLOTS = range(1, 7)
"""Places for processes, one after the other: each has a pid of its own."""

STRANGER = 999

slots = st.sampled_from([*SLOTS, STRANGER])
amounts = st.dictionaries(slots, st.integers(0, 700), max_size=4)


@dataclass(frozen=True)
class Look:
    """What a driver tells of a GPU, or of an instance, with processes by slot."""

    residents: Mapping[int, int | None]
    busy: Mapping[int, int] | None
    strays: Mapping[int, int]
    unknown: int
    measure: GpuMethod


@dataclass(frozen=True)
class Part:
    """An instance as a driver tells of it."""

    uuid: str
    size: int
    activity: float | None
    look: Look


@dataclass(frozen=True)
class OneGpu:
    """What befalls a GPU in a step.

    Attributes:
        is_read, is_told: its energy; its processes.
        look: None: nothing is known of its processes.
        parts: None: it is not divided.
    """

    watts: int
    is_read: bool
    is_told: bool
    is_reset: bool
    is_foreign: bool
    look: Look | None
    parts: tuple[Part, ...] | None


@dataclass(frozen=True)
class Step:
    """What happens between two samples."""

    seconds: int
    gpus: tuple[OneGpu, OneGpu]
    ended: frozenset[int]
    moved: frozenset[int]
    is_silent: bool
    is_late: bool
    is_restarted: bool


looks = st.builds(
    Look,
    st.dictionaries(slots, st.none() | st.integers(0, 80 * GIB), max_size=4),
    st.none() | amounts,
    amounts,
    st.integers(0, 1000),
    st.sampled_from([GpuMethod.SM_UTILIZATION, GpuMethod.ENGINE_TIME]),
)
parts = st.lists(
    st.builds(Part, st.sampled_from("xyz"), st.integers(0, 60), st.none() | st.floats(0, 1), looks),
    max_size=3,
    unique_by=lambda part: part.uuid,
).map(tuple)
mostly = st.sampled_from([True, True, True, False])
seldom = mostly.map(lambda yes: not yes)
gpus = st.builds(
    OneGpu,
    st.integers(0, 700),
    mostly,
    mostly,
    seldom,
    seldom,
    st.none() | looks,
    st.none() | parts,
)
steps = st.builds(
    Step,
    st.integers(0, 40),
    st.tuples(gpus, gpus),
    st.frozensets(st.sampled_from(SLOTS), max_size=2),
    st.frozensets(st.sampled_from(SLOTS), max_size=1),
    seldom,
    seldom,
    seldom,
)

RULES = SeriesRules(least_uj=100 * J, most=3, linger_ns=20 * S)


@dataclass
class World:
    """Two GPUs, their users, and the accounts."""

    idle: Mapping[str, float]
    accountant: Accountant = field(init=False)
    now: int = 1000 * S
    shown_uj: list[int] = field(default_factory=lambda: [5000 * J, 0])
    spent_uj: list[int] = field(default_factory=lambda: [0, 0])
    resets: list[int] = field(default_factory=lambda: [0, 0])
    people: dict[int, Process] = field(default_factory=dict)
    gone: list[Process] = field(default_factory=list)
    born: int = 0
    held_back: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.accountant = Accountant(Ledger(RULES), self.idle)

    def pid(self, slot: int) -> int:
        """The pid of who is in a slot now."""
        if slot == STRANGER:
            return STRANGER
        if slot not in self.people:
            self.born += 1
            self.people[slot] = Process(1000 + self.born, self.born, f"p{slot}", user="u")
        return self.people[slot].pid

    def live(self, step: Step) -> None:
        """Let a step pass, and book it."""
        self.now += step.seconds * S
        for slot in step.moved & self.people.keys():
            self.people[slot].job_uid = f"run:{self.now}"
        report = self.report(step)
        ended = [self.people.pop(slot) for slot in step.ended & self.people.keys()]
        for process in ended:
            process.alive = False
        self.gone = [*self.gone[-5:], *ended]
        reports = [] if step.is_silent else [report]
        if step.is_late and reports:
            self.held_back += reports
            reports = []
        elif reports:
            reports, self.held_back = [*self.held_back, *reports], []
        if step.is_restarted:
            self.restart()
        probe = FakeProbe(list(self.people.values()), self.gone)
        self.accountant.book(self.now, reports, Usage(ended=ended), probe)

    def restart(self) -> None:
        """Another run goes on with what the first has written down."""
        self.held_back = []
        rows = self.accountant.dump("boot")
        self.accountant = Accountant(Ledger(RULES), self.idle)
        self.accountant.restore(rows, "boot", self.now)

    def report(self, step: Step) -> Report:
        """What the driver tells."""
        readings, faults, states = [], [], {}
        for number, gpu in enumerate(step.gpus):
            spent = gpu.watts * step.seconds * J
            self.spent_uj[number] += spent
            self.shown_uj[number] += spent
            if gpu.is_reset:
                self.shown_uj[number] = 0
                self.resets[number] += 1
            if gpu.is_read:
                readings.append(Reading(COUNTERS[number], self.shown_uj[number], self.now))
            else:
                faults.append(Fault(DEVICES[number].name, "failed", "no"))
            if gpu.is_told:
                states[DEVICES[number]] = self.state(gpu, step.seconds)
        return Report(Source.NVML_ENERGY, self.now, tuple(readings), tuple(faults), gpus=states)

    def state(self, gpu: OneGpu, seconds: int) -> GpuState:
        """What the driver tells of one GPU."""
        instances = tuple(
            GpuInstance(part.uuid, "1g", part.size, self.use(part.look), part.activity)
            for part in gpu.parts or ()
        )
        return GpuState(
            GpuInfo(uuid="u", mig=gpu.parts is not None),
            seconds * S,
            None if gpu.look is None else self.use(gpu.look),
            gpu.is_foreign,
            instances,
        )

    def use(self, look: Look) -> GpuUse:
        """A look with pids instead of slots."""
        residents = {self.pid(slot): size for slot, size in look.residents.items()}
        busy = look.busy
        return GpuUse(
            residents,
            frozenset(residents),
            None if busy is None else {self.pid(slot): n for slot, n in busy.items()},
            {self.pid(slot): n for slot, n in look.strays.items()},
            look.measure,
            look.unknown,
        )

    # --- what is shown -------------------------------------------------------------------------

    def views(self) -> tuple[DeviceView, ...]:
        """The devices' accounts."""
        return self.accountant.ledger.device_views()

    def of_series(self, index: int) -> int:
        """Energy of a device in all series."""
        views = self.accountant.ledger.series_views()
        return sum(view.energy_uj[index] for view in views if index < len(view.energy_uj))

    def totals(self) -> dict[tuple[str, ...], int]:
        """All that may only rise."""
        found: dict[tuple[str, ...], int] = {}
        for view in self.views():
            name = view.device.name
            found[name, "energy"] = view.energy_uj
            found[name, "idle"] = view.idle_uj
            found[name, "unattributed"] = view.unattributed_uj
            found[name, "other"] = view.other_uj
            found[name, "retired"] = view.retired_uj
            found |= {(name, "method", key): uj for key, uj in view.methods_uj.items()}
            found |= {(name, "part", key): uj for key, uj in view.parts_uj.items()}
        return found


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    """Say nothing of thousands of faults."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(steps, max_size=20),
    st.sampled_from([{}, {"GPU-0": 70.0}, {"*": 70.0}, {"*": 5000.0}]),
)
def test_whatever_gpus_do_the_sums_close(history: list[Step], idle: dict[str, float]) -> None:
    """Residents, samples, MIG, faults, resets, deaths, late and missing reports, restarts."""
    world = World(idle)
    before: dict[tuple[str, ...], int] = {}
    for step in history:
        world.live(step)
        for index, view in enumerate(world.views()):
            processes = world.of_series(index) + view.other_uj + view.retired_uj
            assert view.energy_uj == processes + view.idle_uj + view.unattributed_uj
            assert sum(view.methods_uj.values()) == processes
            assert sum(view.parts_uj.values()) <= view.energy_uj - view.idle_uj
        after = world.totals()
        assert all(after.get(key, 0) >= uj for key, uj in before.items())
        before = after
    for view in world.views():
        assert view.energy_uj <= world.spent_uj[DEVICES.index(view.device)]


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, min_size=2, max_size=15))
def test_without_resets_no_joule_is_lost(history: list[Step]) -> None:
    """From the first reading to the last, all that was drawn is on the account."""
    world = World({"*": 70.0})
    at_first: dict[str, int] = {}
    for step in history:
        calm = tuple(replace(gpu, is_reset=False) for gpu in step.gpus)
        world.live(replace(step, gpus=calm, is_restarted=False))  # type: ignore[arg-type]
        for number, gpu in enumerate(calm):
            if gpu.is_read and not step.is_silent:
                at_first.setdefault(DEVICES[number].name, world.spent_uj[number])
    good = OneGpu(100, True, True, False, False, None, None)
    world.live(Step(1, (good, good), frozenset(), frozenset(), False, False, False))
    for view in world.views():
        spent_uj = world.spent_uj[DEVICES.index(view.device)]
        assert view.energy_uj == spent_uj - at_first.get(view.device.name, spent_uj)
