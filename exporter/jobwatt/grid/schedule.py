"""An intensity by the hour of the week, in a file of the operator's:

    time_zone: Europe/Paris
    boundary: lifecycle                # or direct
    grams_per_kwh:
      mon-fri: {"00:00": 35, "06:00": 58, "22:00": 41}
      sat-sun: {"00:00": 32}

Each value holds from its time until the next one; each day of the week begins at 00:00, by the
local time of `time_zone`, also on the days when the clocks change. `daily` stands for all days.
"""  # noqa: D415 - the example ends the sentence

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jobwatt.errors import ReadError
from jobwatt.grid.contract import (
    MOST_GRAMS,
    Boundary,
    GridError,
    Intensity,
    Kind,
    Reason,
)
from jobwatt.grid.making import Place
from jobwatt.grid.options import Options
from jobwatt.host.files import read_bytes
from jobwatt.text import shown

__all__ = ["NAME", "Maker", "Schedule", "Week", "parse_week"]

NAME = "schedule"

_INTERVAL_SECONDS = 20.0
"""A file is cheap to read, and its next hour should begin on time."""

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_KEYS = ("time_zone", "boundary", "grams_per_kwh")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)

Day = tuple[tuple[int, float], ...]
"""Minutes after midnight, and the g/kWh from then on; the first is 0."""


@dataclass(frozen=True, slots=True)
class Week:
    """What the file says, Monday first."""

    zone: ZoneInfo
    boundary: Boundary
    days: tuple[Day, ...]

    def at(self, now: float) -> float:
        """Return the g/kWh at a moment, Unix seconds."""
        local = datetime.fromtimestamp(now, self.zone)
        day = self.days[local.weekday()]
        minute = local.hour * 60 + local.minute
        return day[bisect_right(day, minute, key=lambda entry: entry[0]) - 1][1]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The schedule in one file, which may be replaced while we run."""

    file: Path
    name: str = NAME

    def intensity(self, now: float) -> Intensity:
        """Return what the file has for now."""
        week = self.read()
        return Intensity(week.at(now), Kind.AVERAGE, week.boundary, now)

    def read(self) -> Week:
        """Return what the file says.

        Raises:
            GridError: it cannot be read, or is no schedule.
        """
        try:
            return parse_week(read_bytes(self.file))
        except ReadError as error:
            raise GridError(Reason.UNREADABLE, str(error)) from error
        except ValueError as error:
            raise GridError(Reason.MALFORMED, f"{self.file}: {error}") from error


class Maker:
    """Each zone has its own file; there is nothing to say for all."""

    interval = _INTERVAL_SECONDS

    def __init__(self, section: Options, environment: Mapping[str, str]) -> None:
        del section, environment

    def make(self, place: Place, options: Options) -> Schedule:
        """Return the schedule in `file`, which must be right at the start."""
        del place
        file = options.path("file")
        if file is None:
            raise options.error("file", "missing; name the file of the schedule")
        made = Schedule(file)
        try:
            made.read()
        except GridError as error:
            raise options.error("file", str(error)) from error
        return made


def parse_week(data: bytes) -> Week:
    """Return the schedule in a file.

    Raises:
        ValueError: it is none; the message says where and why.
    """
    tree = _tree(data)
    if not isinstance(tree, dict) or not tree.keys() <= set(_KEYS):
        raise ValueError(f"the keys of a schedule are {', '.join(_KEYS)}, and no others")
    boundary = tree.get("boundary", Boundary.LIFECYCLE.value)
    if boundary not in list(Boundary):
        raise ValueError(f"boundary: {shown(boundary)} is neither lifecycle nor direct")
    return Week(_zone(tree.get("time_zone")), Boundary(boundary), _week(tree.get("grams_per_kwh")))


def _tree(data: bytes) -> object:
    """Return lists, mappings and text: YAML would take 06:00 for a number to the base of 60."""
    import yaml  # noqa: PLC0415 - only where there is a schedule

    from jobwatt.yaml_keys import DuplicateKeyError, TextLoader  # noqa: PLC0415 - likewise

    try:
        return yaml.load(data.decode(), TextLoader)  # noqa: S506 - it makes nothing but text
    except DuplicateKeyError as error:
        raise ValueError(str(error)) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, TypeError) as error:
        # TypeError: a key that is a list.
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from error


def _zone(name: object) -> ZoneInfo:
    if not isinstance(name, str) or not name:
        raise ValueError("time_zone is missing; write it like Europe/Paris, or UTC")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        # OSError: the name of a folder of the database.
        raise ValueError(f"time_zone: {shown(name)} is not known here (package tzdata)") from error


def _week(tree: object) -> tuple[Day, ...]:
    if not isinstance(tree, dict) or not tree:
        raise ValueError('grams_per_kwh: write it like {daily: {"00:00": 35, "22:00": 41}}')
    days: dict[int, Day] = {}
    for name, entries in tree.items():
        for day in _range(name):
            if day in days:
                raise ValueError(f"grams_per_kwh: {_DAYS[day]} stands there twice")
            days[day] = _day(str(name), entries)
    missing = [name for number, name in enumerate(_DAYS) if number not in days]
    if missing:
        raise ValueError(f"grams_per_kwh: nothing for {', '.join(missing)}")
    return tuple(days[number] for number in range(len(_DAYS)))


def _range(name: object) -> range:
    if name == "daily":
        return range(len(_DAYS))
    first, _, last = str(name).partition("-")
    if first in _DAYS and (last or first) in _DAYS:
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        if begin <= end:
            return range(begin, end + 1)
    raise ValueError(
        f"grams_per_kwh: {shown(name)} is not daily, a day ({', '.join(_DAYS)}), "
        "or a range of days such as mon-fri"
    )


def _day(name: str, tree: object) -> Day:
    if not isinstance(tree, Mapping):
        raise ValueError(f'grams_per_kwh: {name}: write it like {{"00:00": 35, "22:00": 41}}')
    entries = []
    for at, value in tree.items():
        found = _TIME.fullmatch(str(at))
        if found is None:
            raise ValueError(f"grams_per_kwh: {name}: {shown(at)} is no time from 00:00 to 23:59")
        entries.append((int(found[1]) * 60 + int(found[2]), _grams(f"{name}: {at}", value)))
    entries.sort()
    if not entries or entries[0][0] != 0:
        raise ValueError(f"grams_per_kwh: {name}: it does not begin at 00:00")
    return tuple(entries)


def _grams(where: str, value: object) -> float:
    try:
        amount = float(value)  # type: ignore[arg-type] # whatever it is
    except (TypeError, ValueError):
        amount = -1.0
    if not 0 <= amount <= MOST_GRAMS:
        raise ValueError(
            f"grams_per_kwh: {where}: {shown(value)} is not a number from 0 to {MOST_GRAMS:g}"
        )
    return amount
