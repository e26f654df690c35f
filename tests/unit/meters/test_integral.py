from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobwatt.meters.integral import MOST_APART_NS, PowerIntegral
from jobwatt.units import NS, UJ


def test_the_first_reading_has_no_energy() -> None:
    """It only says where the line begins."""
    integral = PowerIntegral()
    assert (integral.add(100 * UJ, 5 * NS), integral.value_uj) == (0, 0)


def test_a_line_joins_two_readings() -> None:
    """100 W to 300 W within 2 s are 400 J."""
    integral = PowerIntegral()
    integral.add(100 * UJ, 0)
    assert integral.add(300 * UJ, 2 * NS) == 0
    assert integral.value_uj == 400 * UJ


def test_ten_seconds_are_joined_and_no_more() -> None:
    """Longer, and the time is lost; the next line begins at its end."""
    integral = PowerIntegral()
    integral.add(100 * UJ, 0)
    assert integral.add(100 * UJ, MOST_APART_NS) == 0
    assert integral.add(100 * UJ, 2 * MOST_APART_NS + 1) == MOST_APART_NS + 1
    assert integral.value_uj == 1000 * UJ
    assert integral.add(100 * UJ, 2 * MOST_APART_NS + 1 + NS) == 0
    assert integral.value_uj == 1100 * UJ


def test_a_time_that_has_passed_is_no_news() -> None:
    """Nor the same time again: the counter never falls."""
    integral = PowerIntegral()
    integral.add(100 * UJ, 10 * NS)
    assert (integral.add(900 * UJ, 10 * NS), integral.add(900 * UJ, 3 * NS)) == (0, 0)
    integral.add(100 * UJ, 11 * NS)
    assert integral.value_uj == 100 * UJ


def test_a_device_that_draws_nothing_is_measured() -> None:
    """0 W is a reading."""
    integral = PowerIntegral()
    integral.add(0, 0)
    integral.add(0, NS)
    integral.add(100 * UJ, 2 * NS)
    assert integral.value_uj == 50 * UJ


@given(st.lists(st.tuples(st.integers(0, 3000 * UJ), st.integers(1, 12 * NS)), max_size=50))
def test_nothing_is_lost_by_rounding(readings: list[tuple[int, int]]) -> None:
    """However many readings: the sum is exact to the microjoule, and never falls."""
    integral = PowerIntegral()
    now, exact, before, last = 0, 0, 0, None
    for power, span in readings:
        now += span
        lost = integral.add(power, now)
        assert lost == (span if last is not None and span > MOST_APART_NS else 0)
        if last is not None and not lost:
            exact += (last + power) * span
        last = power
        assert integral.value_uj == exact // (2 * NS) >= before
        before = integral.value_uj
