"""A yearly factor that the operator knows better than the table, such as the supplier's."""

from __future__ import annotations

from dataclasses import dataclass

from jobwatt.grid.contract import Boundary, Intensity, Kind

__all__ = ["NAME", "Constant"]

NAME = "constant"


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
