from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobwatt.report.timerange import (
    MOST_WINDOWS,
    Window,
    first_length_ms,
    moment,
    moment_text,
    windows,
)

NOW = 1_700_000_000.7


@pytest.fixture
def paris(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine in Paris."""
    monkeypatch.setenv("TZ", "Europe/Paris")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def utc(*fields: int) -> float:
    return datetime(*fields, tzinfo=UTC).timestamp()  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("now", 1_700_000_000),
        ("now-7d", 1_700_000_000 - 7 * 86400),
        ("now-7", 1_699_999_993),
        ("now - 1h30m", 1_700_000_000 - 5400),
        ("2026-11-01T08:00:00Z", utc(2026, 11, 1, 8)),
        ("2026-11-01T08:00:00.9+02:00", utc(2026, 11, 1, 6)),
        ("2026-11-01", utc(2026, 10, 31, 23)),
        ("2026-07-01", utc(2026, 6, 30, 22)),
        (" 2026-07-01 08:30 ", utc(2026, 7, 1, 6, 30)),
    ],
)
def test_moments(paris: None, text: str, seconds: float) -> None:
    """Whole seconds; what says no offset is local, with the offset of that day."""
    assert moment(text, NOW) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "now+1h", "now-", "2026-13-01", "99999-01-01", "7d", "0001-01-01"],
)
def test_what_is_no_moment(text: str) -> None:
    """It says how to write one."""
    with pytest.raises(ValueError, match=r"write it like|is no duration"):
        moment(text, NOW)


def test_moment_is_shown_with_its_offset(paris: None) -> None:
    """So that nobody has to know the zone of who made the report."""
    assert moment_text(utc(2026, 11, 1, 8)) == "2026-11-01 09:00:00+01:00"


@given(
    st.integers(0, 2_000_000_000),
    st.integers(1, 400 * 86400),
    st.integers(1, 40 * 86400),
)
def test_windows_tile(start: int, length: int, most: int) -> None:
    """Each begins where the one before ends, none is longer than allowed, all are whole seconds."""
    if length / most > 5000:
        most = -(-length // 5000)
    whole = Window(start * 1000, (start + length) * 1000)
    found = windows(whole, most * 1000)
    assert found[0].start_ms == whole.start_ms
    assert found[-1].end_ms == whole.end_ms
    assert all(one.end_ms == two.start_ms for one, two in pairwise(found))
    assert all(0 < one.length_ms <= most * 1000 for one in found)
    assert all(one.start_ms % 1000 == one.end_ms % 1000 == 0 for one in found)


@given(st.integers(1, 3000 * 86400))
def test_a_long_range_is_asked_for_in_few_windows(length: int) -> None:
    """A day each, or an eighth of the whole."""
    whole = Window(0, length * 1000)
    assert len(windows(whole, first_length_ms(whole))) <= MOST_WINDOWS


def test_windows_of_three_days() -> None:
    """Literally."""
    day = 86_400_000
    assert windows(Window(5000, 5000 + 3 * day), day) == [
        Window(5000, 5000 + day),
        Window(5000 + day, 5000 + 2 * day),
        Window(5000 + 2 * day, 5000 + 3 * day),
    ]
