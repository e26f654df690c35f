from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from fakes.probe import FakeProbe
from jobwatt.accounting import Accountant
from jobwatt.attribution.policy import DramPolicy
from jobwatt.ledger import Ledger, SeriesRules
from jobwatt.model import (
    Component,
    Counter,
    Device,
    Fault,
    IdleMethod,
    IdlePower,
    Process,
    RaplDomain,
    Reading,
    Report,
    Source,
    Usage,
)
from jobwatt.snapshot import DeviceView

S = 1_000_000_000
J = 1_000_000
RANGE = 65_712 * J
CPU = Device(Component.CPU, "package-0", Source.RAPL, 0)
DRAM = Device(Component.DRAM, "dram-0", Source.RAPL, 0)
PACKAGE = Counter("intel-rapl:0", CPU, RaplDomain("package", "0"), RANGE, 200 * J, 250 * J)
MEMORY = Counter("intel-rapl:0:0", DRAM, RaplDomain("dram", "0"), RANGE, 200 * J, 250 * J)
CORE = Counter("intel-rapl:0:1", None, RaplDomain("core", "0"), RANGE)


class Books:
    """An accountant and a clock."""

    def __init__(self, idle: dict[str, float] | None = None, *, least_uj: int = 0) -> None:
        self.ledger = Ledger(SeriesRules(least_uj=least_uj))
        self.accountant = Accountant(self.ledger, idle or {}, DramPolicy.MEMORY)
        self.now = 0

    def sample(
        self,
        readings: dict[Counter, int | None],
        usage: Usage | None = None,
        *,
        seconds: int = 1,
    ) -> None:
        """Take readings; None stands for one that failed."""
        self.now += seconds * S
        good = tuple(Reading(c, uj) for c, uj in readings.items() if uj is not None)
        bad = tuple(Fault(c.key, "failed", "no") for c, uj in readings.items() if uj is None)
        usage = usage or Usage()
        usage.capacity_ns = usage.capacity_ns or {0: seconds * S}
        usage.busy_ns = usage.busy_ns or {0: sum(usage.cpu_ns.values())}
        report = Report(Source.RAPL, self.now, good, bad)
        self.accountant.book(self.now, [report], usage, FakeProbe(list(usage.cpu_ns)))

    def device(self, name: str = "package-0") -> DeviceView:
        return self.ledger.devices[name].view()

    def series(self, pid: int, index: int = 0) -> int:
        return sum(s.energy_uj[index] for s in self.ledger.series_views() if s.labels.pid == pid)

    def imbalance(self) -> list[int]:
        missing = []
        for index, view in enumerate(self.ledger.device_views()):
            series = sum(
                s.energy_uj[index] for s in self.ledger.series_views() if index < len(s.energy_uj)
            )
            parts = view.idle_uj + view.unattributed_uj + view.other_uj + view.retired_uj
            missing.append(view.energy_uj - parts - series)
        return missing


def test_a_device_begins_at_0() -> None:
    """Not at the hardware's raw value."""
    books = Books()
    books.sample({PACKAGE: 5000 * J, CORE: 1000 * J})
    assert books.device().energy_uj == 0
    assert books.device().power_uw is None
    books.sample({PACKAGE: 5050 * J, CORE: 1020 * J})
    assert books.device().energy_uj == 50 * J
    assert books.device().power_uw == 50 * J
    assert books.ledger.domains_uj == {
        RaplDomain("package", "0"): 50 * J,
        RaplDomain("core", "0"): 20 * J,
    }


def test_configured_idle_power_is_by_pattern_first_match() -> None:
    """Patterns are tried in their order."""
    books = Books({"package-0": 30.0, "package-*": 20.0})
    books.sample({PACKAGE: 0})
    books.sample({PACKAGE: 50 * J}, Usage({Process(1, 0): S}))
    assert books.device().idle_power == IdlePower(30 * J, IdleMethod.CONFIGURED)
    assert books.device().idle_uj == 30 * J


def test_idle_is_learned_from_quiet_seconds() -> None:
    """Before, idle counts nothing; then it is what was observed."""
    books = Books()
    for second in range(10):
        books.sample({PACKAGE: 40 * J * second})
    assert books.device().idle_power is None
    books.sample({PACKAGE: 400 * J})
    assert books.device().idle_power == IdlePower(40 * J, IdleMethod.OBSERVED)
    books.sample({PACKAGE: 440 * J})
    assert books.device().idle_uj == 80 * J


def test_a_failed_reading_loses_no_energy_and_no_claim() -> None:
    """The next good one is divided by all who were busy since the last."""
    books = Books({"*": 10.0})
    early, late = Process(1, 0), Process(2, 0)
    books.sample({PACKAGE: 0})
    books.sample({PACKAGE: 10 * J + 2}, Usage({early: 1, late: 1}))  # both get a series
    books.sample({PACKAGE: None}, Usage({early: 3 * S}))
    assert books.device().power_uw is None
    assert books.accountant.health.up == {"rapl": False}
    books.sample({PACKAGE: 110 * J + 2}, Usage({late: S}))
    assert books.accountant.health.up == {"rapl": True}
    assert books.device().power_uw == 50 * J
    assert (books.series(1), books.series(2)) == (60 * J, 20 * J)
    assert books.accountant.health.errors["rapl", "failed"] == 1
    assert books.imbalance() == [0]


def test_a_gap_is_unattributed() -> None:
    """Two wraps may have passed: the least that it can have been is nobody's."""
    books = Books({"*": 10.0})
    books.sample({PACKAGE: 0})
    books.sample({PACKAGE: 1000 * J}, Usage({Process(1, 0): S}), seconds=400)
    view = books.device()
    assert (view.energy_uj, view.unattributed_uj, view.idle_uj) == (1000 * J, 1000 * J, 0)
    assert view.gap_ns == 400 * S


def test_an_implausible_reading_is_a_fault_and_no_energy() -> None:
    """It counts as an error of its source, and waits."""
    books = Books()
    books.sample({PACKAGE: 50_000 * J})
    books.sample({PACKAGE: 17})
    assert books.accountant.health.errors["rapl", "implausible"] == 1
    assert books.device().energy_uj == 0
    books.sample({PACKAGE: 50_100 * J})
    assert books.device().energy_uj == 100 * J
    assert books.device().resets == 0


def test_a_device_whose_zone_has_left_waits() -> None:
    """Its total stays, its power is absent, its energy comes with the next reading."""
    books = Books()
    books.sample({PACKAGE: 0, MEMORY: 0})
    books.sample({PACKAGE: 10 * J, MEMORY: 5 * J})
    books.sample({PACKAGE: 20 * J})
    assert books.device("dram-0").power_uw is None
    books.sample({PACKAGE: 30 * J, MEMORY: 15 * J})
    assert books.device("dram-0").energy_uj == 15 * J
    assert books.imbalance() == [0, 0]


def test_two_dies_make_one_package() -> None:
    """Counters that name the same device add up."""
    die = Counter("intel-rapl:1", CPU, RaplDomain("package", "0"), RANGE, 200 * J, 250 * J)
    books = Books()
    books.sample({PACKAGE: 0, die: 100 * J})
    books.sample({PACKAGE: 30 * J, die: 120 * J})
    assert books.device().energy_uj == 50 * J
    assert books.device().power_uw == 50 * J


def test_dram_follows_memory() -> None:
    """Who holds three quarters of the memory pays three quarters."""
    big, small = Process(1, 0, memory_bytes=300), Process(2, 0, memory_bytes=100)
    books = Books({"*": 0.0})
    usage = {"memory_bytes": {("system", None): 400}}
    books.sample({PACKAGE: 0, MEMORY: 0})
    books.sample({PACKAGE: 2, MEMORY: 0}, Usage({big: 1, small: 1}, **usage))  # type: ignore[arg-type]
    books.sample({PACKAGE: 2, MEMORY: 8 * J}, Usage({}, **usage))  # type: ignore[arg-type]
    assert (books.series(1, 1), books.series(2, 1)) == (6 * J, 2 * J)


@dataclass(frozen=True)
class Second:
    """What happens in one interval of a random history."""

    power: tuple[int, int]
    read: tuple[bool, bool]
    seconds: int
    busy: dict[int, int]
    exited: int
    unseen: int
    ended: frozenset[int]


seconds = st.builds(
    Second,
    st.tuples(st.integers(0, 300 * J), st.integers(0, 60 * J)),
    st.tuples(st.booleans(), st.booleans()),
    st.integers(0, 100),
    st.dictionaries(st.integers(1, 8), st.integers(1, 4 * S), max_size=8),
    st.integers(0, S),
    st.integers(0, S),
    st.frozensets(st.integers(1, 8), max_size=3),
)


@given(
    st.lists(seconds, max_size=40),
    st.sampled_from([{}, {"package-*": 40.0}, {"*": 500.0}]),
    st.integers(0, RANGE),
)
def test_whatever_happens_the_sums_close_and_nothing_is_lost(
    history: list[Second], idle: dict[str, float], start: int
) -> None:
    """Wraps, failed reads, churn, long and missing intervals: each microjoule is on one account."""
    books = Books(idle, least_uj=J)
    spent = {PACKAGE: start, MEMORY: start}
    last_good: dict[Counter, int] = {}
    first_good: dict[Counter, int] = {}
    alive: dict[int, Process] = {}
    gap = False
    for second in history:
        readings: dict[Counter, int | None] = {}
        for counter, power, read in zip(spent, second.power, second.read, strict=True):
            spent[counter] += power * second.seconds
            readings[counter] = spent[counter] % RANGE if read else None
            if read:
                first_good.setdefault(counter, spent[counter])
                last_good[counter] = spent[counter]
        for pid in second.busy:
            alive.setdefault(pid, Process(pid, books.now, memory_bytes=pid * 1000))
        usage = Usage(
            {alive[pid]: ns for pid, ns in second.busy.items()},
            {"system": second.exited} if second.exited else {},
            second.unseen,
            {("system", None): sum(p.memory_bytes for p in alive.values())},
            ended=[alive.pop(pid) for pid in second.ended & alive.keys()],
        )
        books.sample(readings, usage, seconds=second.seconds)
        gap |= any(view.gap_ns for view in books.ledger.device_views())
        assert books.imbalance() == [0] * len(books.ledger.devices)
    for counter, last in last_good.items():
        assert counter.device is not None
        found = books.device(counter.device.name).energy_uj
        true = last - first_good[counter]
        if gap:
            assert found <= true
        else:
            assert found == true
