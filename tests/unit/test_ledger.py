from hypothesis import given
from hypothesis import strategies as st

from jobwatt.attribution.counters import Advance
from jobwatt.attribution.policy import Posting
from jobwatt.ledger import Ledger, SeriesRules
from jobwatt.model import Component, Device, Process, RaplDomain, Source, Usage
from jobwatt.snapshot import SeriesLabels, SeriesView

S = 1_000_000_000
J = 1_000_000
CPU = Device(Component.CPU, "package-0", Source.RAPL, 0)
DRAM = Device(Component.DRAM, "dram-0", Source.RAPL, 0)


def as_it_is(process: Process) -> None:
    """Nothing new is known of the process."""


class Bench:
    """A ledger, a clock, and short words for what a sample does."""

    def __init__(self, **rules: int) -> None:
        self.ledger = Ledger(SeriesRules(**rules))
        self.now = 0
        for device in (CPU, DRAM):
            self.ledger.account(device)

    def second(
        self,
        used: dict[Process, int] | None = None,
        *,
        ended: tuple[Process, ...] = (),
        seconds: int = 1,
        device: Device = CPU,
    ) -> None:
        self.now += seconds * S
        used = used or {}
        self.ledger.post(device, Posting(sum(used.values()), 0, 0, {}, used))
        self.ledger.close_interval(self.now, seconds * S, Usage(ended=list(ended)), as_it_is)

    def series(self) -> dict[int, SeriesView]:
        views = self.ledger.series_views()
        assert len({view.labels for view in views}) == len(views)
        return {view.labels.pid: view for view in views}

    def energy(self) -> dict[int, int]:
        return {pid: view.energy_uj[0] for pid, view in self.series().items()}

    def imbalance(self) -> list[int]:
        """What each device's accounts miss of its energy."""
        missing = []
        for index, view in enumerate(self.ledger.device_views()):
            series = sum(s.energy_uj[index] for s in self.ledger.series_views())
            parts = view.idle_uj + view.unattributed_uj + view.other_uj + view.retired_uj
            missing.append(view.energy_uj - parts - series)
        return missing


def test_books_every_part_of_a_posting() -> None:
    """Idle, unattributed, other and measured energy stand on their accounts."""
    bench = Bench()
    bench.ledger.post(CPU, Posting(10, 1, 2, {"x": 3}, {Process(1, 0): 4}))
    (cpu, _) = bench.ledger.device_views()
    assert (cpu.energy_uj, cpu.idle_uj, cpu.unattributed_uj, cpu.other_uj) == (10, 1, 2, 7)


def test_a_series_begins_at_0_once_its_process_has_used_enough() -> None:
    """What it used before stays in other."""
    bench, p = Bench(), Process(7, 0, "train", user="ada", job_uid="systemd:x.service")
    bench.second({p: 9 * J})
    assert bench.series() == {}
    bench.second({p: 1 * J})
    assert bench.energy() == {7: 0}
    bench.second({p: 5 * J})
    assert bench.energy() == {7: 5 * J}
    assert bench.ledger.devices["package-0"].other_uj == 10 * J
    assert bench.series()[7].labels == SeriesLabels(7, "train", "ada", "systemd:x.service")


def test_a_series_has_all_components() -> None:
    """It has a line for each device, and each counts by itself."""
    bench, p = Bench(least_uj=0), Process(7, 0)
    bench.second({p: 1})
    bench.second({p: 3}, device=DRAM)
    assert bench.series()[7].energy_uj == (0, 3)


def test_names_are_read_anew_before_they_are_frozen() -> None:
    """A shell that has become a training is listed as the training."""
    bench, p = Bench(least_uj=0), Process(7, 0, "sh")

    def refresh(process: Process) -> None:
        process.comm = "train"

    bench.ledger.post(CPU, Posting(5, 0, 0, {}, {p: 5}))
    bench.ledger.close_interval(S, S, Usage(), refresh)
    p.comm = "renamed later"
    assert bench.series()[7].labels.comm == "train"


def test_a_series_lingers_and_then_retires() -> None:
    """Two minutes at its final value; then its total steps to retired."""
    bench, p = Bench(least_uj=0), Process(7, 0)
    bench.second({p: 1})
    bench.second({p: 4})
    bench.second(ended=(p,))
    bench.second(seconds=119)
    assert bench.energy() == {7: 4}
    assert not bench.series()[7].alive
    bench.second()
    assert bench.energy() == {}
    assert bench.ledger.devices["package-0"].retired_uj == 4
    assert bench.imbalance() == [0, 0]


def test_the_same_labels_go_on_while_they_linger() -> None:
    """A pid that comes back with the same name, user and job continues its counter."""
    bench = Bench(least_uj=0)
    first, second = Process(7, 100, "a"), Process(7, 200, "a")
    bench.second({first: 1})
    bench.second({first: 4})
    bench.second({second: 6}, ended=(first,))
    bench.second({second: 5})
    assert bench.energy() == {7: 9}
    assert bench.imbalance() == [0, 0]


def test_another_job_ends_the_series_and_begins_another() -> None:
    """The process is the same, its labels are not."""
    bench, p = Bench(least_uj=0), Process(7, 0, job_uid="system")
    bench.second({p: 1})
    bench.second({p: 4})
    p.job_uid = "systemd:job.service"
    bench.second({p: 8})
    bench.second({p: 16})
    energies = {v.labels.job_uid: v.energy_uj[0] for v in bench.ledger.series_views()}
    assert energies == {"system": 12, "systemd:job.service": 16}
    assert bench.imbalance() == [0, 0]


def test_the_busier_takes_the_place_of_the_least_busy() -> None:
    """At the cap a series is retired to make room, and that is counted."""
    bench = Bench(least_uj=0, most=2)
    a, b, c = Process(1, 0), Process(2, 0), Process(3, 0)
    for _ in range(5):
        bench.second({a: 5 * J, b: 1 * J})
    bench.second({a: 5 * J, b: 1 * J, c: 3 * J})
    assert bench.energy() == {1: 25 * J, 2: 5 * J}
    for _ in range(3):
        bench.second({a: 5 * J, b: 1 * J, c: 3 * J})
    assert set(bench.energy()) == {1, 3}
    assert bench.ledger.dropped == {"process_cap": 2, "account_cap": 0}
    assert bench.imbalance() == [0, 0]


def test_equals_do_not_swap_for_ever() -> None:
    """One who is as busy as the least busy waits, and is counted once."""
    bench = Bench(least_uj=0, most=1)
    a, b = Process(1, 0), Process(2, 0)
    bench.second({a: J})
    for _ in range(100):
        bench.second({a: J, b: J})
    assert set(bench.energy()) == {1}
    assert bench.ledger.dropped == {"process_cap": 1, "account_cap": 0}


def test_a_cap_of_0_lists_nobody() -> None:
    """All processes are other then."""
    bench = Bench(least_uj=0, most=0)
    bench.second({Process(1, 0): 5 * J})
    assert bench.energy() == {}
    assert bench.imbalance() == [0, 0]


def test_memory_alone_can_earn_a_series() -> None:
    """A process that only holds memory has used what its bytes cost."""
    bench = Bench()
    p, q = Process(1, 0, memory_bytes=900), Process(2, 0, memory_bytes=100)
    bench.ledger.weigh_memory([p, q])
    for _ in range(12):
        bench.now += S
        bench.ledger.post(DRAM, Posting(J, 0, 0, {"x": J}, {}))
        bench.ledger.charge_memory(J, 1000)
    bench.ledger.weigh_memory([p, q])
    bench.ledger.close_interval(bench.now, S, Usage(), as_it_is)
    assert bench.energy() == {1: 0}
    assert bench.imbalance() == [0, 0]


def test_notes_wraps_resets_and_gaps() -> None:
    """A gap counts its own time, a reset the time before it."""
    ledger = Ledger()
    ledger.note(CPU, Advance(1, 5 * S, wrapped=True, gap=True))
    ledger.note(CPU, Advance(1, 5 * S, reset=True, lost_ns=2 * S))
    view = ledger.device_views()[0]
    assert (view.wraps, view.resets, view.gap_ns) == (1, 1, 7 * S)


def test_domains_add_up_by_name() -> None:
    """Two zones of one domain are one total."""
    ledger = Ledger()
    ledger.add_domain(RaplDomain("core", "0"), 2)
    ledger.add_domain(RaplDomain("core", "0"), 3)
    assert ledger.domains_uj == {RaplDomain("core", "0"): 5}


def test_power_follows_the_last_seconds_and_falls_to_nothing() -> None:
    """It is shown to people, not summed."""
    bench, p = Bench(least_uj=0), Process(7, 0)
    for _ in range(60):
        bench.second({p: 20 * J})
    assert abs(bench.series()[7].power_uw - 20 * J) < J // 100
    for _ in range(60):
        bench.second()
    assert bench.series()[7].power_uw < J // 100


processes = st.integers(1, 6)
steps = st.lists(
    st.tuples(
        st.dictionaries(processes, st.integers(0, 30 * J), max_size=6),
        st.sets(processes, max_size=2),
        st.sets(processes, max_size=2),
        st.integers(1, 90),
        st.sampled_from([CPU, DRAM]),
    ),
    max_size=40,
)


@given(steps, st.integers(0, 4), st.integers(0, 12 * J))
def test_any_life_of_processes_keeps_the_accounts_closed(
    history: list[tuple[dict[int, int], set[int], set[int], int, Device]],
    most: int,
    least_uj: int,
) -> None:
    """Births, deaths, pids used again, job changes, caps: the identity of the page holds."""
    bench = Bench(most=most, least_uj=least_uj)
    alive: dict[int, Process] = {}
    before: dict[SeriesLabels, tuple[int, ...]] = {}
    for used, ended, moved, seconds, device in history:
        for pid in used:
            alive.setdefault(pid, Process(pid, bench.now))
        for pid in moved & alive.keys():
            alive[pid].job_uid = f"systemd:{bench.now}.service"
        gone = tuple(alive[pid] for pid in ended & alive.keys())
        bench.second(
            {alive[pid]: uj for pid, uj in used.items()},
            ended=gone,
            seconds=seconds,
            device=device,
        )
        for process in gone:
            del alive[process.pid]
        assert bench.imbalance() == [0, 0]
        views = bench.ledger.series_views()
        assert len({view.labels for view in views}) == len(views) <= most
        for view in views:
            for new, old in zip(view.energy_uj, before.get(view.labels, ()), strict=False):
                assert new >= old or new == 0  # its linger over, the labels begin anew
        before = {view.labels: view.energy_uj for view in views}
