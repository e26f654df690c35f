"""A yearly factor that the operator knows better than the table, such as the supplier's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobwatt.grid.contract import MOST_GRAMS, Boundary, Intensity, Kind
from jobwatt.grid.making import Place
from jobwatt.grid.options import Options

__all__ = ["NAME", "Constant", "Maker"]

NAME = "constant"

_BOUNDARIES = tuple(Boundary)
_YEARS = (1990, 2100)


@dataclass(frozen=True, slots=True)
class Constant:
    """A factor of one year; never a live value, so live ones go before it."""

    grams_per_kwh: float
    year: str
    boundary: Boundary
    name: str = NAME

    def intensity(self, now: float) -> Intensity:
        """Return it."""
        del now
        return Intensity(self.grams_per_kwh, Kind.AVERAGE, self.boundary, year=self.year)


class Maker:
    """Each zone has its own; there is nothing to say for all."""

    interval = None

    def __init__(self, section: Options, environment: Mapping[str, str]) -> None:
        del section, environment

    def make(self, place: Place, options: Options) -> Constant:
        """Return a factor: `grams_per_kwh`, `year`, `boundary`."""
        del place
        grams = options.number("grams_per_kwh", 0, MOST_GRAMS)
        if grams is None:
            raise options.error("grams_per_kwh", "missing")
        year = options.number("year", *_YEARS)
        if year is None:
            raise options.error("year", "missing; it shows how old the factor is")
        boundary = options.choice("boundary", _BOUNDARIES, Boundary.LIFECYCLE)
        return Constant(grams, f"{year:.0f}", Boundary(boundary))
