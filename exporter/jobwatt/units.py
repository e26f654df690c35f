"""Units: integer microjoules and nanoseconds inside, joules and watts at the edge."""

from __future__ import annotations

import math
import re

__all__ = [
    "NS",
    "UJ",
    "carbon_text",
    "duration_seconds",
    "duration_text",
    "energy_joules",
    "energy_text",
    "few_digits",
    "joules",
    "mean_power_uw",
    "power_text",
    "smoothing_step",
    "watts",
]

UJ = 1_000_000
"""Microjoules in a joule, microwatts in a watt."""

NS = 1_000_000_000
"""Nanoseconds in a second."""

POWER_TIME_CONSTANT_NS = 5 * NS
"""The power shown for people is smoothed over about this."""

MOST_SECONDS = 100 * 366 * 86400.0

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")

_ENERGY_UNITS = {"J": 1.0, "kJ": 1e3, "MJ": 1e6, "Wh": 3600.0, "kWh": 3.6e6, "MWh": 3.6e9}
_ENERGY = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d{1,2})?)\s*([^\W\d_]*)", re.ASCII)
MOST_JOULES = 1e15
"""More than a big power station makes in a week."""

_MOST_SHOWN = 40


def joules(uj: int) -> float:
    """Return microjoules as joules, exact to the microjoule below 2**53 µJ (9 GJ)."""
    return uj / UJ


def watts(uw: int) -> float:
    """Return microwatts as watts."""
    return uw / UJ


def mean_power_uw(uj: int, span_ns: int) -> int:
    """Return the mean power in µW of `uj` microjoules spent within `span_ns` nanoseconds."""
    return uj * NS // span_ns


def smoothing_step(span_ns: int) -> float:
    """Return how far a power shown for people moves to its newest value after `span_ns`."""
    return 1 - math.exp(-max(1, span_ns) / POWER_TIME_CONSTANT_NS)


def duration_seconds(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `1m30s`, `500ms` or a bare number of seconds.

    Raises:
        ValueError: the text is no duration.
    """
    stripped = text.strip()
    try:
        seconds = float(stripped)
    except ValueError:
        pass
    else:
        if 0 <= seconds <= MOST_SECONDS:
            return seconds
    parts = _DURATION.findall(stripped)
    if not parts or "".join(n + u for n, u in parts) != stripped:
        raise ValueError(f"{text!r} is no duration; write it like 90s, 10m or 500ms")
    seconds = sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
    if seconds > MOST_SECONDS:
        raise ValueError(f"{text[:20]!r}… is too long: more than a century")
    return seconds


def duration_text(seconds: float) -> str:
    """Return a duration for people: `0.42 s`, `3 m 07 s`, `2 h 05 m`, `3 d 01 h`."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"  # noqa: PLR2004
    whole = round(seconds)
    for size, unit, part_size, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "m")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part_size:02} {part}"
    return f"{whole // 60} m {whole % 60:02} s"


def energy_joules(text: str) -> float:
    """Return the joules of an energy such as `25kWh`, `90 MJ` or `1.5Wh`.

    Raises:
        ValueError: the text is no energy, has no unit, or is not more than nothing.
    """
    stripped = text.strip()
    shown = repr(stripped if len(stripped) <= _MOST_SHOWN else f"{stripped[:_MOST_SHOWN]}…")
    found = _ENERGY.fullmatch(stripped)
    if found is None:
        raise ValueError(f"{shown} is no energy; write it like 2kWh, 500Wh or 90MJ")
    number, unit = found.groups()
    if not unit:
        raise ValueError(f"{shown} has no unit; write it like {number}kWh or {number}MJ")
    if unit not in _ENERGY_UNITS:
        meant = [known for known in _ENERGY_UNITS if known.lower() == unit.lower()]
        hint = f"; did you mean {number}{meant[0]}?" if meant else ""
        raise ValueError(f"{shown}: {unit!r} is none of {', '.join(_ENERGY_UNITS)}{hint}")
    amount = float(number) * _ENERGY_UNITS[unit]
    if not 0 < amount <= MOST_JOULES:
        size = "more than 0" if amount <= 0 else f"at most {MOST_JOULES:g} J"
        raise ValueError(f"{shown}: an energy must be {size}")
    return amount


def energy_text(uj: float) -> str:
    """Return an energy for people: `3.21 J`, `1.20 kJ`, `2.50 kWh`."""
    amount = uj / UJ
    for size, unit in ((3.6e9, "MWh"), (3.6e6, "kWh"), (3.6e3, "Wh")):
        if amount >= size:
            return f"{amount / size:.2f} {unit}"
    return f"{amount:.2f} J"


def power_text(power_watts: float) -> str:
    """Return a power for people: `0.42 W`, `85.1 W`, `1.20 kW`."""
    if power_watts >= 1000:  # noqa: PLR2004 - a kilowatt
        return f"{power_watts / 1000:.2f} kW"
    return f"{power_watts:.1f} W" if power_watts >= 10 else f"{power_watts:.2f} W"  # noqa: PLR2004


def few_digits(number: float) -> str:
    """Return a number in few digits, without powers of ten."""
    if number >= 100:  # noqa: PLR2004
        return f"{number:.0f}"
    if 0 < number < 0.0001:  # noqa: PLR2004
        return "less than 0.0001"
    return f"{number:.3g}"


def carbon_text(grams: float) -> str:
    """Return an amount of CO2 for people: `420 g`, `3.214 kg`, `1.204 t`."""
    for size, unit in ((1e6, "t"), (1e3, "kg")):
        if grams >= size:
            return f"{grams / size:.3f} {unit}"
    return f"{few_digits(grams)} g"
