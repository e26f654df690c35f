from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from jobwatt.meters.own_thread import OwnThread
from jobwatt.model import Report, Source
from jobwatt.units import NS

LONG = 30.0
"""Seconds that no test waits to the end."""

SHORT = 0.02


class Driver:
    """A blocking meter in the hands of a test: it may hang, and may have nothing."""

    name = "driver"
    sources = (Source.NVML_ENERGY, Source.NVML_POWER)

    def __init__(self) -> None:
        self.now_ns = 1000 * NS
        self.reads = 0
        self.is_there = True
        self.error: Exception | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.begun = threading.Semaphore(0)
        self.is_over = False

    def read(self) -> Sequence[Report]:
        """One report a source, numbered by their times."""
        self.reads += 1
        self.begun.release()
        self.may_go_on.wait()
        while self.is_over:
            threading.Event().wait()
        if self.error is not None:
            raise self.error
        return [Report(source, self.reads) for source in self.sources if self.is_there]


@pytest.fixture
def driver() -> Iterator[Driver]:
    """Return a driver whose thread does nothing any more once the test is over."""
    driver = Driver()
    yield driver
    driver.is_over = True
    driver.may_go_on.set()


Make = Callable[..., OwnThread]


@pytest.fixture
def make(driver: Driver) -> Make:
    """Return what makes a meter of the driver, that is read unasked only where a test says so."""

    def make(period: float = LONG, patience: float = LONG, absent: float = LONG) -> OwnThread:
        return OwnThread(
            driver,
            period_seconds=period,
            patience_seconds=patience,
            stalled_seconds=10,
            absent_seconds=absent,
            clock=lambda: driver.now_ns,
        )

    return make


def times(reports: Sequence[Report]) -> list[int]:
    return [report.at_ns for report in reports]


def until(what: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + LONG
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_an_answer_that_comes_at_once_is_of_now(driver: Driver, make: Make) -> None:
    """The driver is asked at every sample, once."""
    meter = make()
    assert [times(meter.read(second)) for second in range(3)] == [[1, 1], [2, 2], [3, 3]]


def test_nothing_is_asked_before_the_first_sample(driver: Driver, make: Make) -> None:
    """No thread runs where nobody samples."""
    make(period=0)
    assert driver.reads == 0


def test_a_sample_waits_no_longer_than_its_patience(driver: Driver, make: Make) -> None:
    """Once a question; while it is open nobody waits at all."""
    meter = make(patience=SHORT)
    driver.may_go_on.clear()
    began = time.monotonic()
    assert [list(meter.read(second)) for second in range(100)] == [[]] * 100
    assert time.monotonic() - began < 100 * SHORT
    assert driver.reads == 1


def test_a_late_answer_is_there_at_the_next_sample(driver: Driver, make: Make) -> None:
    """With that sample's own: none is lost, none is told twice."""
    meter = make(patience=SHORT)
    driver.may_go_on.clear()
    assert list(meter.read(0)) == []
    driver.may_go_on.set()
    until(meter._answered.is_set)
    meter._patience = LONG
    assert times(meter.read(1)) == [1, 1, 2, 2]
    assert times(meter.read(2)) == [3, 3]


def test_a_driver_that_hangs_shows(driver: Driver, make: Make) -> None:
    """After ten seconds, at each sample, on each of its sources; before, it may just be slow."""
    meter = make(patience=SHORT)
    driver.may_go_on.clear()
    meter.read(0)
    driver.now_ns += 10 * NS
    assert list(meter.read(10 * NS)) == []
    driver.now_ns += 1
    for second in (11, 12):
        reports = meter.read(second * NS)
        assert [report.source for report in reports] == list(driver.sources)
        assert times(reports) == [second * NS] * 2
        assert {(f.what, f.reason) for r in reports for f in r.faults} == {("driver", "timeout")}
        assert not any(report.readings for report in reports)
    assert driver.reads == 1


def test_a_driver_that_answers_again_has_healed(driver: Driver, make: Make) -> None:
    """What it was asked before is told, and what it is asked now."""
    meter = make(patience=SHORT)
    driver.may_go_on.clear()
    meter.read(0)
    driver.now_ns += 60 * NS
    assert [fault.reason for fault in meter.read(60 * NS)[0].faults] == ["timeout"]
    driver.may_go_on.set()
    until(meter._answered.is_set)
    meter._patience = LONG
    reports = [report for second in (61, 62) for report in meter.read(second * NS)]
    assert times(reports) == [1, 1, 2, 2, 3, 3]
    assert not any(report.faults for report in reports)


def test_a_driver_that_hangs_unasked_shows_too(driver: Driver, make: Make) -> None:
    """Between two samples that are far apart."""
    meter = make(period=0.001, patience=SHORT)
    meter.read(0)
    driver.may_go_on.clear()
    until(lambda: driver.begun.acquire(blocking=False) and meter._busy_since_ns is not None)
    until(lambda: not meter.read(1))
    driver.now_ns += 11 * NS
    until(lambda: [report for report in meter.read(2) if report.faults])


def test_between_samples_the_driver_is_read_unasked(driver: Driver, make: Make) -> None:
    """Drivers forget, and power must be read often; every report is there in its order."""
    meter = make(period=0.001)
    seen = times(meter.read(0))
    until(lambda: driver.reads > 20)
    seen += times(meter.read(1))
    assert seen == [number for number in range(1, len(seen) // 2 + 1) for _ in driver.sources]
    assert len(seen) > 40


def test_nothing_is_lost_or_doubled_however_samples_fall(driver: Driver, make: Make) -> None:
    """Asked and unasked, fast and slow."""
    meter = make(period=0.0005, patience=0.0005)
    seen: list[int] = []
    for number in range(200):
        seen += times(meter.read(number))
        time.sleep(0.0001 * (number % 7))
    meter._period = LONG
    until(lambda: times_again(meter, seen) == driver.reads)
    assert seen == [number for number in range(1, driver.reads + 1) for _ in driver.sources]


def times_again(meter: OwnThread, seen: list[int]) -> int:
    """Add what has come meanwhile; return the last number."""
    seen += [report.at_ns for report in list(meter._reports)]
    for _ in range(len(meter._reports)):
        meter._reports.popleft()
    return seen[-1]


class AskedTooLate(threading.Event):
    """What the thread waits for, when it is asked just after it has ceased to wait."""

    def __init__(self, answered: threading.Event) -> None:
        super().__init__()
        self._answered = answered

    def wait(self, timeout: float | None = None) -> bool:
        """Time out, and be asked."""
        found = super().wait(timeout)
        if not found and self._answered.is_set():
            self._answered.clear()
            self.set()
        return found


def test_a_question_that_comes_with_an_unasked_reading_is_answered(
    driver: Driver, make: Make
) -> None:
    """Else nobody would ever ask again."""
    meter = make(period=SHORT)
    meter._asked = AskedTooLate(meter._answered)
    meter.read(0)
    for _ in range(3):
        before = driver.reads
        until(lambda before=before: driver.reads > before + 1)  # type: ignore[misc]
        assert meter._answered.wait(LONG)


def test_where_there_is_nothing_the_driver_is_left_alone(driver: Driver, make: Make) -> None:
    """For half a minute, also by the thread itself."""
    meter = make(period=0.001, absent=10)
    driver.is_there = False
    assert list(meter.read(driver.now_ns)) == []
    time.sleep(0.05)
    driver.now_ns += 9 * NS
    assert [list(meter.read(driver.now_ns)) for _ in range(5)] == [[]] * 5
    assert driver.reads == 1
    driver.now_ns += NS
    meter.read(driver.now_ns)
    assert driver.reads == 2


def test_what_comes_later_is_found(driver: Driver, make: Make) -> None:
    """And read at every sample from then on."""
    meter = make(absent=10)
    driver.is_there = False
    meter.read(driver.now_ns)
    driver.is_there = True
    driver.now_ns += 10 * NS
    assert times(meter.read(driver.now_ns)) == [2, 2]
    assert times(meter.read(driver.now_ns)) == [3, 3]


def test_what_comes_later_is_found_unasked(driver: Driver, make: Make) -> None:
    """The thread looks for it even where samples are further apart."""
    meter = make(period=LONG, absent=SHORT)
    driver.is_there = False
    meter.read(driver.now_ns)
    driver.is_there = True
    until(lambda: meter.read(driver.now_ns))


def test_reports_are_handed_over_though_the_devices_have_gone(driver: Driver, make: Make) -> None:
    """What was read before they went is no part of the waiting."""
    meter = make(period=0.001)
    meter.read(0)
    until(lambda: len(meter._reports) > 4)
    driver.is_there = False
    until(lambda: meter._next_ns is not None)
    assert meter.read(driver.now_ns)


def test_an_error_that_nobody_foresaw_ends_the_program(
    driver: Driver, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not just the thread: a GPU that is no longer measured would go unnoticed."""
    ended = threading.Event()
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()
        threading.Event().wait()

    monkeypatch.setattr(os, "_exit", end)
    driver.error = ZeroDivisionError()
    make(patience=SHORT).read(0)
    assert ended.wait(LONG)
    assert codes == [1]
    assert "driver: reading failed; please report this" in caplog.text
