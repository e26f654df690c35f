"""When providers are asked, what is kept of their answers, and what is shown of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from jobwatt.grid.board import Board, GridSnapshot, Reading, Value, in_use, shown
from jobwatt.grid.contract import Boundary, GridError, Intensity, Kind, Reason
from jobwatt.grid.poller import Feed, Poller

T = 1_714_557_600.0


def value(
    grams_per_kwh: float = 31.0,
    at: float | None = T,
    kind: Kind = Kind.AVERAGE,
    boundary: Boundary = Boundary.LIFECYCLE,
    year: str = "",
) -> Intensity:
    return Intensity(grams_per_kwh, kind, boundary, at, year)


@dataclass
class Scripted:
    """A provider that answers what it is told to."""

    name: str = "scripted"
    answer: Intensity | Exception = field(default_factory=value)

    def intensity(self, now: float) -> Intensity:
        assert now > 0
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Stage:
    """A poller of one provider, with a clock that the test moves and jitter in its middle."""

    def __init__(
        self, spread: Callable[[float, float], float] = lambda low, high: (low + high) / 2
    ) -> None:
        self.now = T
        self.provider = Scripted()
        self.board = Board(GridSnapshot("1", (), (), (Reading("FR", "scripted"),), ()))
        feed = Feed("FR", self.provider, 300.0)
        self.poller = Poller(feed, self.board, lambda: self.now, spread)

    @property
    def reading(self) -> Reading:
        (reading,) = self.board.snapshot.readings
        return reading

    @property
    def shown(self) -> list[float]:
        return [v.intensity.grams_per_kwh for v in shown(self.board.snapshot, self.now)]


def test_before_the_first_answer() -> None:
    """Nothing is known: not up, not down, no value."""
    stage = Stage()
    assert (stage.reading.up, stage.reading.intensity, stage.shown) == (None, None, [])


def test_a_value() -> None:
    """It is up, shown, and asked for again after the interval."""
    stage = Stage()
    assert stage.poller.poll() == 300.0
    assert (stage.reading.up, stage.reading.errors, stage.shown) == (True, {}, [31.0])


def test_the_last_value_stays_until_it_is_two_hours_old() -> None:
    """A failure changes nothing but `up`; then the value goes and its time stays."""
    stage = Stage()
    stage.poller.poll()
    stage.provider.answer = GridError(Reason.TIMEOUT, "slow")
    stage.now = T + 7200
    stage.poller.poll()
    assert (stage.reading.up, stage.reading.error, stage.shown) == (False, "slow", [31.0])
    stage.now = T + 7200.5
    assert stage.shown == []
    assert stage.reading.intensity == value()
    stage.provider.answer = value(40.0, T + 7000)
    stage.poller.poll()
    assert (stage.reading.up, stage.reading.error, stage.shown) == (True, "", [40.0])
    assert stage.reading.errors == {Reason.TIMEOUT: 1}


def test_a_value_that_is_old_already() -> None:
    """A provider that has stopped measuring is down, and its value is not shown."""
    stage = Stage()
    stage.now = T + 3 * 3600
    stage.poller.poll()
    assert (stage.reading.up, stage.shown) == (False, [])
    assert stage.reading.errors == {Reason.STALE: 1}
    assert stage.reading.error == "the newest value is 3.0 h old"


def test_an_answer_of_before_does_not_take_the_newers_place() -> None:
    """Servers behind one address may lag behind each other."""
    stage = Stage()
    stage.provider.answer = value(31.0, T)
    stage.poller.poll()
    stage.provider.answer = value(99.0, T - 900)
    stage.poller.poll()
    assert (stage.reading.up, stage.shown) == (True, [31.0])
    stage.provider.answer = value(32.0, T)
    stage.poller.poll()
    assert stage.shown == [32.0]


def test_an_implausible_value_is_not_shown() -> None:
    """A wrong unit counts as an error."""
    stage = Stage()
    stage.provider.answer = value(31_000.0)
    stage.poller.poll()
    assert (stage.reading.up, stage.shown) == (False, [])
    assert stage.reading.errors == {Reason.IMPLAUSIBLE: 1}


def test_pauses_double_up_to_a_quarter_of_an_hour() -> None:
    """From 15 s on; one good answer, and they begin anew."""
    stage = Stage()
    stage.provider.answer = GridError(Reason.SERVER_ERROR, "500")
    pauses = [stage.poller.poll() for _ in range(9)]
    assert pauses == [15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 900.0, 900.0]
    stage.provider.answer = value()
    assert stage.poller.poll() == 300.0
    stage.provider.answer = GridError(Reason.SERVER_ERROR, "500")
    assert stage.poller.poll() == 15.0


def test_pauses_differ() -> None:
    """Half to one and a half of a pause; the interval by a twentieth."""
    for low in (True, False):
        stage = Stage(lambda least, most, low=low: least if low else most)  # type: ignore[misc]
        assert stage.poller.poll() == pytest.approx(285.0 if low else 315.0)
        stage.provider.answer = GridError(Reason.TIMEOUT, "slow")
        assert stage.poller.poll() == (7.5 if low else 22.5)


@pytest.mark.parametrize(("asked", "pause"), [(None, 15.0), (3.0, 15.0), (3600.0, 3600.0)])
def test_who_asks_us_to_wait_is_heard(asked: float | None, pause: float) -> None:
    """`Retry-After` is the least pause."""
    stage = Stage()
    stage.provider.answer = GridError(Reason.RATE_LIMITED, "429", asked)
    assert stage.poller.poll() == pause


def test_a_long_outage_stays_a_number() -> None:
    """Thousands of failures later the pause is the same."""
    stage = Stage()
    stage.provider.answer = GridError(Reason.UNREACHABLE, "gone")
    assert {stage.poller.poll() for _ in range(3000)} >= {900.0}
    assert stage.reading.errors == {Reason.UNREACHABLE: 3000}


def test_an_error_nobody_foresaw(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, counted, and the polling goes on."""
    stage = Stage()
    stage.provider.answer = ZeroDivisionError("a bug")
    assert stage.poller.poll() == 15.0
    assert stage.reading.errors == {Reason.INTERNAL: 1}
    assert "scripted has failed; please report this" in caplog.text
    stage.provider.answer = value()
    stage.poller.poll()
    assert stage.shown == [31.0]


def test_the_log_says_it_once(caplog: pytest.LogCaptureFixture) -> None:
    """When it breaks, when it breaks otherwise, and when it is back."""
    caplog.set_level(logging.INFO)
    stage = Stage()
    for answer in ("gone", "gone", "gone", "500", None, None):
        stage.provider.answer = GridError(Reason.UNREACHABLE, answer) if answer else value()
        stage.poller.poll()
    assert [record.getMessage() for record in caplog.records] == [
        "FR: scripted: gone",
        "FR: scripted: 500",
        "FR: scripted is back",
    ]


def test_it_stops_when_told() -> None:
    """Also in the middle of a pause."""
    stage = Stage()
    stop = threading.Event()
    thread = threading.Thread(target=stage.poller.run, args=(stop,), daemon=True)
    thread.start()
    stop.set()
    thread.join(5)
    assert not thread.is_alive()


def test_a_picture_never_changes() -> None:
    """Who has taken a snapshot keeps it; other readings are untouched by a change."""
    board = Board(
        GridSnapshot("1", (), (), (Reading("FR", "a"), Reading("FR", "b"), Reading("DE", "a")), ())
    )
    before = board.snapshot
    board.succeeded("FR", "b", value())
    board.failed("DE", "a", GridError(Reason.DENIED, "401"))
    assert [reading.up for reading in before.readings] == [None, None, None]
    assert [reading.up for reading in board.snapshot.readings] == [None, True, False]


def test_many_pollers_lose_nothing() -> None:
    """Each of them counts its own errors while the others do."""
    names = [f"p{number}" for number in range(8)]
    board = Board(GridSnapshot("1", (), (), tuple(Reading("FR", name) for name in names), ()))

    def fail(name: str) -> None:
        for _ in range(200):
            board.failed("FR", name, GridError(Reason.TIMEOUT, "slow"))

    threads = [threading.Thread(target=fail, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = [reading.errors for reading in board.snapshot.readings]
    assert counts == [{Reason.TIMEOUT: 200}] * 8


def test_the_one_in_use() -> None:
    """Averages only; live before the table, lifecycle before direct, then by two letters."""
    table = Value("FR", "owid", value(at=None, year="2024"))
    marginal = Value("FR", "watttime", value(kind=Kind.MARGINAL))
    direct = Value("FR", "a_direct", value(boundary=Boundary.DIRECT))
    second = Value("FR", "z", value())
    first = Value("FR", "b", value())
    everything = [table, marginal, direct, second, first]
    order = []
    while (used := in_use(everything)) is not None:
        order.append(used.provider)
        everything.remove(used)
    assert order == ["b", "z", "a_direct", "owid"]
    assert everything == [marginal]
