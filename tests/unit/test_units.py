from __future__ import annotations

import pytest

from jobwatt.units import (
    duration_seconds,
    duration_text,
    energy_joules,
    energy_text,
    joules,
    mean_power_uw,
    power_text,
    watts,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90.0),
        ("10m", 600.0),
        ("500ms", 0.5),
        ("1m30s", 90.0),
        ("1h", 3600.0),
        ("2d", 172800.0),
        ("1w", 604800.0),
        ("1.5h", 5400.0),
        ("0", 0.0),
        ("2.5", 2.5),
        (" 5s ", 5.0),
        ("1e3", 1000.0),
    ],
)
def test_durations(text: str, expected: float) -> None:
    """Durations are numbers with units, or seconds."""
    assert duration_seconds(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "s", "5x", "5 s", "-5", "-5s", "5s!", "nan", "inf", "1e400", "5.s", ".5s"),
        "9" * 400,
    ],
)
def test_what_is_no_duration(text: str) -> None:
    """Anything else is refused with an example of how to write it."""
    with pytest.raises(ValueError, match="is no duration; write it like 90s"):
        duration_seconds(text)


@pytest.mark.parametrize("text", ["9" * 400 + "s", "101000w"])
def test_what_is_too_long(text: str) -> None:
    """Nothing that JobWatt waits for takes a century."""
    with pytest.raises(ValueError, match="is too long"):
        duration_seconds(text)


def test_joules_and_watts_are_exact_to_the_microjoule() -> None:
    """A large total keeps its microjoules."""
    assert (joules(8_999_999_999_000_001), watts(1_500_000)) == (8_999_999_999.000001, 1.5)


@pytest.mark.parametrize(
    ("uj", "span_ns", "expected"),
    [(45_000_000, 1_000_000_000, 45_000_000), (1, 2_000_000_000, 0), (7, 500_000_000, 14)],
)
def test_mean_power(uj: int, span_ns: int, expected: int) -> None:
    """Energy over time is power, in whole microwatts."""
    assert mean_power_uw(uj, span_ns) == expected


@pytest.mark.parametrize(
    ("uj", "expected"),
    [
        (0, "0.00 J"),
        (3_210_000, "3.21 J"),
        (3_599_000_000, "3599.00 J"),
        (3_600_000_000, "1.00 Wh"),
        (4_320_000_000_000, "1.20 kWh"),
        (3_600_000_000_000_000, "1.00 MWh"),
    ],
)
def test_energy_text(uj: int, expected: str) -> None:
    """An energy for people has a fitting unit."""
    assert energy_text(uj) == expected


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(0.0, "0.00 W"), (0.42, "0.42 W"), (85.14, "85.1 W"), (1200.0, "1.20 kW")],
)
def test_power_text(amount: float, expected: str) -> None:
    """A power for people has a fitting unit."""
    assert power_text(amount) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, "0.00 s"),
        (1.234, "1.23 s"),
        (59.94, "59.9 s"),
        (187.2, "3 m 07 s"),
        (3600.0, "1 h 00 m"),
        (7512.0, "2 h 05 m"),
        (90_061.0, "1 d 01 h"),
    ],
)
def test_durations_for_people(seconds: float, expected: str) -> None:
    """Two units are enough."""
    assert duration_text(seconds) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("25kWh", 90e6),
        ("2 kWh", 7.2e6),
        (" 500Wh ", 1.8e6),
        ("1.5MWh", 5.4e9),
        ("90MJ", 90e6),
        ("3kJ", 3000.0),
        ("0.5J", 0.5),
        ("1e3J", 1000.0),
        ("7200000.0J", 7.2e6),
    ],
)
def test_energies(text: str, expected: float) -> None:
    """Energies are numbers with units."""
    assert energy_joules(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no energy; write it like 2kWh"),
        ("kWh", "is no energy"),
        ("-2kWh", "is no energy"),
        ("2,5kWh", "is no energy"),
        ("nanJ", "is no energy"),
        ("2kWh!", "is no energy"),
        ("٢kWh", "is no energy"),
        ("2", "has no unit; write it like 2kWh or 2MJ"),
        ("2kwh", "did you mean 2kWh?"),
        ("2mj", "'mj' is none of J, kJ, MJ, Wh, kWh, MWh; did you mean 2MJ?"),
        ("2kW", "'kW' is none of J"),
        ("0kWh", "must be more than 0"),
        ("1e99MWh", "must be at most 1e[+]15 J"),
        ("9" * 400 + "MWh", "must be at most"),
        ("x" * 1000, "is no energy"),
    ],
)
def test_what_is_no_energy(text: str, says: str) -> None:
    """Is refused with what is wrong, in few words."""
    with pytest.raises(ValueError, match=says.replace("?", "[?]")) as error:
        energy_joules(text)
    assert len(str(error.value)) < 120
