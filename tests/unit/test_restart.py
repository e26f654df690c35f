"""What a restart of the exporter, or of the machine, does to the accounts."""

import json

import pytest

from fakes.probe import FakeProbe
from jobwatt.accounting import Accountant
from jobwatt.attribution.policy import Posting
from jobwatt.ledger import Ledger, SeriesRules
from jobwatt.model import (
    Component,
    Counter,
    Device,
    IdleMethod,
    IdlePower,
    Process,
    RaplDomain,
    Reading,
    Report,
    Rows,
    Source,
    Usage,
)
from jobwatt.snapshot import DeviceView

S = 1_000_000_000
J = 1_000_000
CPU = Device(Component.CPU, "package-0", Source.RAPL, 0, "A CPU")
PACKAGE = Counter(
    "intel-rapl:0", CPU, RaplDomain("package", "0"), 65_712 * J, 200 * J, lasting=True
)
BOOT = "b00t"


class Run:
    """One run of the exporter, on a machine that a test holds."""

    def __init__(self, rows: Rows | None = None, boot: str = BOOT, now: int = 0) -> None:
        self.accountant = Accountant(Ledger(SeriesRules(least_uj=0)), {})
        self.boot = boot
        if rows is not None:
            self.accountant.restore(rows, boot, now)

    def sample(
        self, second: int, value: int, used: dict[Process, int] | None = None, **usage: object
    ) -> None:
        seen = Usage(used or {}, capacity_ns={0: S}, busy_ns={0: S}, **usage)  # type: ignore[arg-type]
        report = Report(Source.RAPL, second * S, (Reading(PACKAGE, value),))
        self.accountant.book(second * S, [report], seen, FakeProbe(list(used or {})))

    def rows(self) -> Rows:
        """What the disk has, and gives back."""
        dumped = self.accountant.dump(self.boot)
        return {key: tuple(json.loads(json.dumps(row))) for key, row in dumped.items()}

    @property
    def cpu(self) -> DeviceView:
        return self.accountant.ledger.devices["package-0"].view()

    def series(self) -> dict[int, int]:
        views = self.accountant.ledger.series_views()
        return {view.labels.pid: view.energy_uj[0] for view in views}

    def imbalance(self) -> int:
        cpu = self.cpu
        parts = cpu.idle_uj + cpu.unattributed_uj + cpu.other_uj + cpu.retired_uj
        return cpu.energy_uj - parts - sum(self.series().values())


def first_run(process: Process) -> Run:
    """10 J to other, 30 J to the process's series, at 40 J on the device."""
    run = Run()
    run.sample(1, 1000 * J)
    run.sample(2, 1010 * J, {process: S})
    run.sample(3, 1040 * J, {process: S})
    return run


def test_all_counters_go_on_together() -> None:
    """Devices, series and domains: what a page has shown is shown again."""
    before = first_run(Process(7, 55, "train"))
    after = Run(before.rows())
    after.sample(4, 1040 * J)
    assert (after.cpu.energy_uj, after.cpu.other_uj) == (40 * J, 10 * J)
    assert after.series() == {7: 30 * J}
    assert after.accountant.ledger.domains_uj == {RaplDomain("package", "0"): 40 * J}
    assert after.imbalance() == 0


def test_energy_used_while_no_exporter_ran_is_recovered() -> None:
    """The hardware has counted on; nobody saw who it was."""
    before = first_run(Process(7, 55))
    after = Run(before.rows())
    after.sample(10, 1340 * J)
    assert after.cpu.energy_uj == 340 * J
    assert after.cpu.unattributed_uj == 300 * J
    assert after.imbalance() == 0


def test_so_long_an_absence_that_the_counter_may_have_wrapped_is_a_gap() -> None:
    """The least that it can have been, and its seconds."""
    after = Run(first_run(Process(7, 55)).rows())
    after.sample(1003, 1340 * J)
    assert after.cpu.energy_uj == 340 * J
    assert after.cpu.gap_ns == 1000 * S


def test_a_process_that_lives_on_goes_on() -> None:
    """The same pid and start: its series counts at once."""
    after = Run(first_run(Process(7, 55, "train")).rows())
    alive = Process(7, 55, "renamed")
    after.sample(4, 1040 * J, {alive: 0})
    after.sample(5, 1060 * J, {alive: S})
    assert after.series() == {7: 50 * J}
    assert after.imbalance() == 0


def test_a_process_that_has_ended_lingers_and_retires() -> None:
    """Its end was while nobody looked: it lingers from the start on."""
    after = Run(first_run(Process(7, 55)).rows(), now=3 * S)
    after.sample(4, 1040 * J)
    after.sample(122, 1040 * J)
    assert after.series() == {7: 30 * J}
    after.sample(124, 1040 * J)
    assert after.series() == {}
    assert after.cpu.retired_uj == 30 * J


def test_another_process_under_the_pid_of_an_earlier_one_is_another() -> None:
    """The start tells them apart."""
    after = Run(first_run(Process(7, 55, "train")).rows())
    other = Process(7, 99, "other")
    after.sample(4, 1040 * J, {other: 0})
    after.sample(5, 1060 * J, {other: S})
    views = after.accountant.ledger.series_views()
    assert {v.labels.comm: v.energy_uj[0] for v in views} == {"train": 30 * J, "other": 0}
    assert after.imbalance() == 0


def test_after_a_reboot_hardware_counters_begin_anew_and_ours_go_on() -> None:
    """Nothing is computed across the boot, no process is taken for one of before."""
    after = Run(first_run(Process(7, 55, "train")).rows(), boot="another")
    alike = Process(7, 55, "train2")
    after.sample(1, 5 * J, {alike: 0})
    assert after.cpu.energy_uj == 40 * J
    after.sample(2, 25 * J, {alike: S})
    assert after.cpu.energy_uj == 60 * J
    views = after.accountant.ledger.series_views()
    assert {v.labels.comm: v.energy_uj[0] for v in views} == {"train": 30 * J, "train2": 0}
    assert after.imbalance() == 0


def test_learned_idle_power_holds_for_a_boot() -> None:
    """Firmware may have changed between two."""
    rows = {**first_run(Process(7, 55)).rows(), "idle": ((0, 9 * J, "observed"),)}
    assert Run(rows).accountant.idle_power(CPU) == IdlePower(9 * J, IdleMethod.OBSERVED)
    assert Run(rows, boot="another").accountant.idle_power(CPU) is None


def test_another_source_of_a_device_has_an_account_of_its_own() -> None:
    """A joule that was measured does not become an estimate, and is not lost."""
    ledger = Run(first_run(Process(7, 55)).rows()).accountant.ledger
    estimate = Device(Component.CPU, "package-0", Source.ESTIMATE, 0)
    ledger.post(estimate, Posting(5 * J, 0, 5 * J, {}, {}))
    rows = {key: tuple(json.loads(json.dumps(row))) for key, row in ledger.dump().items()}
    later = Ledger(SeriesRules())
    later.restore(rows, 0, 0.0, same_boot=True)
    shown = [(v.device.source, v.energy_uj, v.resting) for v in later.device_views()]
    assert shown == [(Source.RAPL, 40 * J, True), (Source.ESTIMATE, 5 * J, False)]
    assert later.account(CPU).energy_uj == 40 * J
    assert [view.resting for view in later.device_views()] == [False, True]


def test_time_that_was_estimated_is_not_measured_again() -> None:
    """The hardware went on counting while an estimate stood in for it."""
    after = Run(first_run(Process(7, 55)).rows())
    estimate = Device(Component.CPU, "package-0", Source.ESTIMATE, 0)
    for second, uj in ((4, 0), (5, 20 * J)):
        report = Report(Source.ESTIMATE, second * S, (Reading(Counter("e", estimate), uj),))
        after.accountant.book(second * S, [report], Usage(), FakeProbe())
    after.sample(6, 1500 * J)
    after.sample(7, 1510 * J)
    energy = {v.device.source: v.energy_uj for v in after.accountant.ledger.device_views()}
    assert energy == {Source.RAPL: 50 * J, Source.ESTIMATE: 20 * J}


@pytest.mark.parametrize(
    "rows",
    [
        {"devices": ((0, 1),), "device 0": ("package-0", "cpu", "rapl", 0, "")},
        {"devices": ((0, *range(8)),), "device 0": ("package-0", "cpu", "magic", 0, "")},
        {"devices": ((1, *range(8)),), "device 1": ("package-0", "cpu", "rapl", 0, "")},
        {"devices": ((0, *range(8)),)},
        {"active": (3,)},
        {"series": ((1, 5),), "series 1": (7, 2, "a")},
        {"domains": (("package",),)},
        {"devices": (5,)},
        {"devices": ((0, 7, *[0] * 8),), "device 0": ("package-0", "cpu", "rapl", 0, "")},
    ],
)
def test_rows_of_another_making_are_refused(rows: Rows) -> None:
    """Who asked begins at 0 then, and says so."""
    with pytest.raises((ValueError, TypeError, LookupError)):
        Run(rows)


def test_energy_of_a_device_that_is_not_there_is_refused() -> None:
    """Its row is missing: what series and jobs have of it would be in no device's sum."""
    rows = {**first_run(Process(1, 0)).rows(), "devices": (), "active": ()}
    with pytest.raises(ValueError, match="a device that is not there"):
        Run(rows)
