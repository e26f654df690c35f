"""The yearly table: averages by country, the fallback of every zone that it knows.

Ember and Energy Institute through Our World in Data, CC BY 4.0 (`data/README.md`): life cycle, of
what is generated in the country. The year differs from row to row and is a label.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

from jobwatt.grid.contract import Boundary, Intensity, Kind

__all__ = ["NAME", "Country", "YearlyTable", "country_of", "nearest"]

NAME = "owid"
"""Who has put the table together: Our World in Data."""

_WORLD = "WORLD"
_MOST_NEAR = 4
_LIKENESS = 0.6


@dataclass(frozen=True, slots=True)
class Country:
    """A row of the table. `code` is ISO 3166-1 alpha-2, or WORLD."""

    code: str
    iso3: str
    name: str
    year: str
    grams_per_kwh: float


@dataclass(frozen=True, slots=True)
class YearlyTable:
    """One country's row."""

    country: Country
    name: str = NAME

    def intensity(self, now: float) -> Intensity:
        """Return the newest yearly value that is known."""
        del now
        row = self.country
        return Intensity(
            row.grams_per_kwh, Kind.AVERAGE, Boundary.LIFECYCLE, year=row.year, note=row.name
        )


def country_of(zone: str) -> Country | None:
    """Return the country that a zone is or lies in: `FR`, `FRA`, `US-CAL-CISO`, `WORLD`."""
    return _by_code().get(zone.partition("-")[0])


def nearest(zone: str) -> list[str]:
    """Return the countries that may have been meant, as `FR (France)`, the likeliest first."""
    words: dict[str, list[Country]] = {}
    for country in _rows():
        for word in (country.code, country.iso3, country.name, _initials(country.name)):
            words.setdefault(word.lower(), []).append(country)
    asked = zone.lower()
    close = difflib.get_close_matches(asked, words, _MOST_NEAR, _LIKENESS)
    begun = [word for word in words if len(asked) > len("fr") and word.startswith(asked)]
    # By letters alone `FRX` is as close to `FRO` as to `FR`.
    code = [asked[:2]] if asked[:2] in words else []
    exact = [asked] if asked in words else []
    found = {c.code: c for word in (*exact, *begun, *close, *code) for c in words[word]}
    return [f"{country.code} ({country.name})" for country in found.values()][:_MOST_NEAR]


def _initials(name: str) -> str:
    return "".join(word[0] for word in name.split() if word[0].isupper())


@cache
def _by_code() -> dict[str, Country]:
    found = {country.iso3: country for country in _rows()}
    return found | {country.code: country for country in _rows()}


@cache
def _rows() -> tuple[Country, ...]:
    codes = {row["iso3"]: row["iso2"] for row in _read("iso_3166.csv")} | {_WORLD: _WORLD}
    return tuple(
        Country(
            codes[row["iso3"]],
            row["iso3"],
            row["name"],
            row["year"],
            float(row["grams_co2e_per_kwh"]),
        )
        for row in _read("grid_intensity_yearly.csv")
    )


def _read(name: str) -> Iterator[dict[str, str]]:
    text = resources.files("jobwatt.grid").joinpath("data", name).read_text("utf-8")
    return iter(csv.DictReader(text.splitlines()))
