"""What is known of the zones: written by the pollers, published as one immutable picture."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jobwatt.budgets import AccountBudget
from jobwatt.grid.contract import Boundary, GridError, Intensity, Kind, Reason, is_fresh

__all__ = ["Board", "GridSnapshot", "Reading", "Site", "Value", "in_use", "shown"]


@dataclass(frozen=True, slots=True)
class Site:
    """A zone, with what its operator says of it; None where nothing is said.

    Attributes:
        pue: what the site uses for each unit that its machines use.
        price: of a kWh, in `currency`.
    """

    zone: str
    pue: float | None = None
    price: float | None = None
    currency: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one live provider has told of one zone.

    Attributes:
        intensity: the newest value, whatever its age; None before the first.
        up: whether the last attempt gave a value of now; None before the first attempt.
        error: why it did not, for people.
        errors: failed attempts by reason.
    """

    zone: str
    provider: str
    intensity: Intensity | None = None
    up: bool | None = None
    error: str = ""
    errors: Mapping[Reason, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Value:
    """An intensity as it is shown."""

    zone: str
    provider: str
    intensity: Intensity


@dataclass(frozen=True, slots=True)
class GridSnapshot:
    """One picture of everything.

    Attributes:
        fixed: values of tables and constants.
        readings: of the live providers.
    """

    version: str
    sites: tuple[Site, ...]
    fixed: tuple[Value, ...]
    readings: tuple[Reading, ...]
    budgets: tuple[AccountBudget, ...]


class Board:
    """Where pollers leave what they have learned. `snapshot` may be read by anyone at any time."""

    def __init__(self, snapshot: GridSnapshot) -> None:
        self._lock = threading.Lock()
        self._snapshot = snapshot

    @property
    def snapshot(self) -> GridSnapshot:
        """The picture of the moment."""
        return self._snapshot

    def succeeded(self, zone: str, provider: str, intensity: Intensity) -> None:
        """Note a value of now; one that is older than the last one was does not take its place."""

        def changed(reading: Reading) -> Reading:
            newest = max(filter(None, (intensity, reading.intensity)), key=lambda i: i.time or 0.0)
            return replace(reading, intensity=newest, up=True, error="")

        self._change(zone, provider, changed)

    def failed(self, zone: str, provider: str, error: GridError) -> None:
        """Count a failed attempt; the last value stays."""

        def changed(reading: Reading) -> Reading:
            errors = {**reading.errors, error.reason: reading.errors.get(error.reason, 0) + 1}
            return replace(reading, up=False, error=str(error), errors=errors)

        self._change(zone, provider, changed)

    def _change(self, zone: str, provider: str, changed: Callable[[Reading], Reading]) -> None:
        with self._lock:
            readings = tuple(
                changed(reading)
                if (reading.zone, reading.provider) == (zone, provider)
                else reading
                for reading in self._snapshot.readings
            )
            self._snapshot = replace(self._snapshot, readings=readings)


def shown(snapshot: GridSnapshot, now: float) -> Iterator[Value]:
    """Return the values that are shown at a moment: live ones only while they are fresh."""
    for reading in snapshot.readings:
        if reading.intensity is not None and is_fresh(reading.intensity, now):
            yield Value(reading.zone, reading.provider, reading.intensity)
    yield from snapshot.fixed


def in_use(values: Sequence[Value]) -> Value | None:
    """Return the one that the recording rules take of a zone's values.

    `grid_zone:jobwatt_carbon_intensity_grams_per_kwh`: averages only; live before the table,
    lifecycle before direct, then by the first two letters of the provider's name, which is as much
    of it as the rule can compare.
    """
    averages = [value for value in values if value.intensity.kind is Kind.AVERAGE]
    return min(averages, key=_rank, default=None)


def _rank(value: Value) -> tuple[bool, bool, str]:
    intensity = value.intensity
    return intensity.year != "", intensity.boundary is not Boundary.LIFECYCLE, value.provider[:2]
