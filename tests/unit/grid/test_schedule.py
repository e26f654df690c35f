"""The operator's schedule: hours of the week to g/kWh, by local time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from jobwatt.grid.contract import Boundary, GridError, Kind, Reason
from jobwatt.grid.schedule import Schedule, parse_week

WEEK = b"""
time_zone: Europe/Paris
boundary: direct
grams_per_kwh:
  mon-fri: {00:00: 35, "06:00": 58, 22:00: 41.5}
  sat: {"00:00": 33}
  sun: {"12:30": 20, "00:00": 32}
"""
PARIS = ZoneInfo("Europe/Paris")


def at(text: str, zone: ZoneInfo = PARIS) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("moment", "grams_per_kwh"),
    [
        ("2024-05-01T00:00", 35.0),  # a Wednesday
        ("2024-05-01T05:59", 35.0),
        ("2024-05-01T06:00", 58.0),
        ("2024-05-01T21:59", 58.0),
        ("2024-05-01T22:00", 41.5),
        ("2024-05-01T23:59", 41.5),
        ("2024-05-03T23:59", 41.5),
        ("2024-05-04T00:00", 33.0),
        ("2024-05-05T12:29", 32.0),
        ("2024-05-05T12:30", 20.0),
        ("2024-05-06T00:00", 35.0),
    ],
)
def test_each_value_holds_until_the_next(moment: str, grams_per_kwh: float) -> None:
    """By the local day and time."""
    assert parse_week(WEEK).at(at(moment)) == grams_per_kwh


def test_the_clocks_change() -> None:
    """06:00 is 06:00 on the day that has 23 hours and on the one that has 25."""
    week = parse_week(
        b'{time_zone: Europe/Paris, grams_per_kwh: {daily: {"00:00": 1, "06:00": 2}}}'
    )
    for day in ("2024-03-31", "2024-10-27"):
        assert week.at(at(f"{day}T06:00") - 60) == 1
        assert week.at(at(f"{day}T06:00")) == 2


def test_a_schedule_is_live(tmp_path: Path) -> None:
    """Its value is of now, and a file that is replaced counts at once."""
    file = tmp_path / "schedule.yml"
    file.write_bytes(WEEK)
    now = at("2024-05-01T12:00")
    value = Schedule(file).intensity(now)
    assert (value.grams_per_kwh, value.kind, value.boundary) == (58, Kind.AVERAGE, Boundary.DIRECT)
    assert (value.time, value.year) == (now, "")
    file.write_bytes(WEEK.replace(b"58", b"59"))
    assert Schedule(file).intensity(now).grams_per_kwh == 59
    file.write_bytes(b"time_zone: UTC")
    with pytest.raises(GridError, match=r"schedule\.yml: grams_per_kwh: write") as caught:
        Schedule(file).intensity(now)
    assert caught.value.reason is Reason.MALFORMED
    file.unlink()
    with pytest.raises(GridError, match="No such file") as caught:
        Schedule(file).intensity(now)
    assert caught.value.reason is Reason.UNREADABLE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the keys of a schedule are time_zone, boundary, grams_per_kwh, and no others"),
        ("- a", "the keys of a schedule"),
        ("{time_zone: UTC, hours: {}}", "the keys of a schedule"),
        ("a: [", "not YAML"),
        ("? [a]\n: b", "not YAML"),
        ("\xff", "the keys of a schedule"),
        ("grams_per_kwh: {}", "time_zone is missing"),
        ("time_zone: Europe/Pairs", "time_zone: 'Europe/Pairs' is not known here"),
        ("time_zone: Europe", "time_zone: 'Europe' is not known here"),
        ("time_zone: /etc/passwd", "time_zone: '/etc/passwd' is not known here"),
        ("time_zone: ../../x", "time_zone: '../../x' is not known here"),
        ("{time_zone: UTC, boundary: all}", "boundary: 'all' is neither lifecycle nor direct"),
        ("{time_zone: UTC, time_zone: Europe/Paris}", "line 1: the key 'time_zone' stands twice"),
        ("{time_zone: UTC, grams_per_kwh: 5}", "grams_per_kwh: write it like"),
        ('{time_zone: UTC, grams_per_kwh: {mon-fri: {"00:00": 1}}}', "nothing for sat, sun"),
        (
            '{time_zone: UTC, grams_per_kwh: {daily: {"00:00": 1}, sun: {"00:00": 1}}}',
            "sun stands there twice",
        ),
        ('{time_zone: UTC, grams_per_kwh: {fri-mon: {"00:00": 1}}}', "'fri-mon' is not daily"),
        ('{time_zone: UTC, grams_per_kwh: {monday: {"00:00": 1}}}', "'monday' is not daily"),
        ("{time_zone: UTC, grams_per_kwh: {daily: 5}}", "daily: write it like"),
        ("{time_zone: UTC, grams_per_kwh: {daily: {}}}", "daily: it does not begin at 00:00"),
        ('{time_zone: UTC, grams_per_kwh: {daily: {"01:00": 1}}}', "does not begin at 00:00"),
        ('{time_zone: UTC, grams_per_kwh: {daily: {"24:00": 1}}}', "'24:00' is no time"),
        ('{time_zone: UTC, grams_per_kwh: {daily: {"0": 1}}}', "'0' is no time"),
        ('{time_zone: UTC, grams_per_kwh: {daily: {"00:00": much}}}', "'much' is not a number"),
        ('{time_zone: UTC, grams_per_kwh: {daily: {"00:00": -1}}}', "'-1' is not a number"),
        ('{time_zone: UTC, grams_per_kwh: {daily: {"00:00": 3001}}}', "'3001' is not a number"),
        ('{time_zone: UTC, grams_per_kwh: {daily: {"00:00": nan}}}', "'nan' is not a number"),
        ('{time_zone: UTC, grams_per_kwh: {daily: {"00:00": [1]}}}', "['1'] is not a number"),
    ],
)
def test_what_is_no_schedule(text: str, said: str) -> None:
    """The error names the place and the remedy."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared below
        parse_week(text.encode())
    assert said in str(caught.value)
