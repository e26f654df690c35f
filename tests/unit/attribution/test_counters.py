import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobwatt.attribution.counters import Advance, CounterTrack
from jobwatt.model import Counter

S = 1_000_000_000
J = 1_000_000


def track(range_uj: int | None = 1000 * J, limit_uw: int | None = 100 * J) -> CounterTrack:
    return CounterTrack(Counter("c", None, range_uj=range_uj, limit_uw=limit_uw))


def test_the_first_reading_is_where_counting_begins() -> None:
    """What a counter showed before JobWatt looked is nobody's here."""
    assert track().advance(500 * J, 0) is None


def test_counts_the_difference() -> None:
    """30 J in one second."""
    t = track()
    t.advance(500 * J, 0)
    assert t.advance(530 * J, S) == Advance(30 * J, S)


def test_counts_a_wrap_once() -> None:
    """A counter that went back has gone over its range."""
    t = track()
    t.advance(990 * J, 0)
    assert t.advance(20 * J, S) == Advance(30 * J, S, wrapped=True)


def test_a_missed_reading_is_in_the_next() -> None:
    """Nothing is lost while a counter cannot be read."""
    t = track()
    t.advance(0, 0)
    assert t.advance(200 * J, 4 * S) == Advance(200 * J, 4 * S)


def test_a_reading_at_the_same_time_says_nothing() -> None:
    """Two readings need time between them."""
    t = track()
    t.advance(0, S)
    assert t.advance(5, S) is None
    assert t.advance(5, 2 * S) == Advance(5, S)


def test_a_time_in_which_two_wraps_fit_is_a_gap() -> None:
    """At twice 100 W, 10 s hold two ranges of 1000 J."""
    t = track()
    t.advance(0, 0)
    assert t.advance(300 * J, 10 * S) == Advance(300 * J, 10 * S, gap=True)


def test_a_time_in_which_two_wraps_do_not_fit_is_no_gap() -> None:
    """One nanosecond less."""
    t = track()
    t.advance(0, 0)
    assert t.advance(300 * J, 10 * S - 1) == Advance(300 * J, 10 * S - 1)


def test_an_unknown_limit_is_judged_at_500_watts() -> None:
    """Without a limit two ranges of 1000 J fit into 4 s."""
    t = track(limit_uw=None)
    t.advance(0, 0)
    assert t.advance(10 * J, 4 * S) == Advance(10 * J, 4 * S, gap=True)


def test_a_false_reading_loses_nothing() -> None:
    """A half-written number is set aside; the next good one covers its time."""
    t = track(range_uj=262_143 * J)
    t.advance(123_456 * J, 0)
    assert t.advance(1234 * J, S) is None
    assert t.doubtful
    assert t.advance(123_516 * J, 2 * S) == Advance(60 * J, 2 * S)
    assert not t.doubtful


def test_a_reset_is_told_by_the_reading_after_it() -> None:
    """The time before the reset is lost and counted, the time since is not."""
    t = track(range_uj=262_143 * J)
    t.advance(123_456 * J, 0)
    assert t.advance(10 * J, S) is None
    assert t.advance(40 * J, 2 * S) == Advance(30 * J, S, reset=True, lost_ns=S)


def test_garbage_after_garbage_is_still_no_energy() -> None:
    """Only two readings that fit each other count."""
    t = track(range_uj=262_143 * J)
    t.advance(123_456 * J, 0)
    assert t.advance(7, S) is None
    assert t.advance(50_000 * J, 2 * S) is None
    assert t.advance(123_556 * J, 3 * S) == Advance(100 * J, 3 * S)


def test_a_value_beyond_the_range_is_false() -> None:
    """No counter shows more than its own range."""
    t = track()
    t.advance(0, 0)
    assert t.advance(1001 * J, S) is None
    assert t.advance(50 * J, 2 * S) == Advance(50 * J, 2 * S)


def test_a_counter_without_range_never_wraps() -> None:
    """Going back can only be a reset."""
    t = track(range_uj=None)
    t.advance(500 * J, 0)
    assert t.advance(0, S) is None
    assert t.advance(20 * J, 2 * S) == Advance(20 * J, S, reset=True, lost_ns=S)


@pytest.mark.parametrize("watts", [0, 1, 250, 399])
def test_short_bursts_above_the_limit_are_real(watts: int) -> None:
    """Turbo exceeds the sustained limit for a while."""
    t = track(range_uj=262_143 * J)
    t.advance(0, 0)
    assert t.advance(watts * J, S) == Advance(watts * J, S)


@given(
    st.integers(0, 262_143 * J - 1),
    st.lists(st.tuples(st.integers(0, 300 * J), st.integers(1, 60)), min_size=1, max_size=50),
)
def test_any_history_of_a_wrapping_counter_is_followed_exactly(
    start: int, steps: list[tuple[int, int]]
) -> None:
    """However it wraps, the energy found is the energy spent."""
    size = 262_143 * J
    t = track(range_uj=size, limit_uw=150 * J)
    t.advance(start, 0)
    spent, found, now = start, 0, 0
    for power_uw, seconds in steps:
        spent += power_uw * seconds
        now += seconds * S
        advance = t.advance(spent % size, now)
        assert advance is not None
        found += advance.uj
    assert found == spent - start


@given(st.lists(st.integers(0, 300_000 * J), min_size=2, max_size=40))
def test_no_sequence_of_readings_yields_an_impossible_power(values: list[int]) -> None:
    """Whatever is read, no interval implies more than the highest power held possible."""
    t = track(range_uj=262_143 * J, limit_uw=250 * J)
    for second, value in enumerate(values):
        advance = t.advance(value, second * S)
        if advance is not None:
            assert 0 <= advance.uj <= 1000 * J * (advance.span_ns + S) // S
