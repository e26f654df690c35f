"""The yearly table, and how zones find their country in it."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

import pytest

from jobwatt.grid.contract import MOST_GRAMS, Boundary, Intensity, Kind
from jobwatt.grid.table import YearlyTable, country_of, nearest

DATA = Path(str(resources.files("jobwatt.grid"))) / "data"


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("zone", "name", "year", "grams_per_kwh"),
    [
        ("FR", "France", "2024", 44.2),
        ("FRA", "France", "2024", 44.2),
        ("GB", "United Kingdom", "2024", 210.9),
        ("US-CAL-CISO", "United States", "2024", 383.5),
        ("WORLD", "World", "2024", 473.0),
        ("AW", "Aruba", "2022", 550.0),
    ],
)
def test_a_zone_has_its_country(zone: str, name: str, year: str, grams_per_kwh: float) -> None:
    """By ISO 3166's two or three letters, alone or before a dash."""
    country = country_of(zone)
    assert country is not None
    assert YearlyTable(country).intensity(0.0) == Intensity(
        grams_per_kwh, Kind.AVERAGE, Boundary.LIFECYCLE, None, year, name
    )


@pytest.mark.parametrize("zone", ["", "fr", "FRANCE", "XX", "F", "-FR", "UK"])
def test_no_country(zone: str) -> None:
    """Anything else is none, however near."""
    assert country_of(zone) is None


@pytest.mark.parametrize(
    ("zone", "first"),
    [
        ("fr", "FR (France)"),
        ("FRR", "FR (France)"),
        ("Frankreich", "FR (France)"),
        ("france", "FR (France)"),
        ("UK", "GB (United Kingdom)"),
        ("germany", "DE (Germany)"),
        ("GER", "DE (Germany)"),
        ("usa", "US (United States)"),
        ("Wolrd", "WORLD (World)"),
    ],
)
def test_the_nearest_names(zone: str, first: str) -> None:
    """By letters, by name, by initials."""
    near = nearest(zone)
    assert first in near
    assert len(near) <= 4


def test_nothing_is_near() -> None:
    """A word like no country's name."""
    assert nearest("@@@@@@@@") == []


def test_every_country_has_one_code() -> None:
    """Both files name the same countries, each once, with plausible values."""
    values, codes = rows("grid_intensity_yearly.csv"), rows("iso_3166.csv")
    assert [row["iso3"] for row in values if row["iso3"] == "WORLD"] == ["WORLD"]
    assert sorted(row["iso3"] for row in codes) == sorted(
        row["iso3"] for row in values if row["iso3"] != "WORLD"
    )
    assert len({row["iso2"] for row in codes}) == len(codes) == 212
    assert all(0 <= float(row["grams_co2e_per_kwh"]) <= MOST_GRAMS for row in values)
    assert all(2000 <= int(row["year"]) <= 2030 for row in values)


def test_the_attribution_is_shipped() -> None:
    """Whoever has the values has their source and licence."""
    text = (DATA / "README.md").read_text()
    for word in ("Ember", "Energy Institute", "Our World in Data", "CC BY 4.0"):
        assert word in text
