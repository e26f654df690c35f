"""Whatever a provider or an operator's file says: a value that can be true, or an error of ours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobwatt.config import load_config
from jobwatt.errors import UsageError
from jobwatt.exposition.connection import Request
from jobwatt.exposition.grid_routes import GridRoutes
from jobwatt.grid import electricity_maps, rte_eco2mix, uk_carbon_intensity, watttime
from jobwatt.grid.contract import (
    MOST_GRAMS,
    Boundary,
    GridError,
    Intensity,
    checked,
)
from jobwatt.grid.schedule import parse_week
from jobwatt.grid.table import country_of, nearest
from jobwatt.grid_app import make_plan

fuzz = settings(deadline=None, max_examples=300)

NOW = 1_714_557_600.0
words = st.sampled_from(
    [
        *("zone", "FR", "carbonIntensity", "datetime", "emissionFactorType", "direct", "units"),
        *("data", "from", "intensity", "forecast", "actual", "results", "date_heure", "taux_co2"),
        *(
            "meta",
            "region",
            "point_time",
            "value",
            "2024-05-01T10:00Z",
            "9999-12-31T23:59:59-23:59",
        ),
        *("0001-01-01T00:00:00+23:59", "2024-05-01", "2024-W18-3", "20240501T10Z"),
    ]
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    words,
    st.text(max_size=5),
    st.just(10**400),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(words | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=20,
)

PARSERS: dict[str, tuple[Callable[[Any], Intensity], Callable[[Any], Any]]] = {
    "electricity_maps": (
        lambda answer: electricity_maps.parse(answer, "FR", Boundary.LIFECYCLE),
        lambda t: {"zone": "FR", "carbonIntensity": t[0], "datetime": t[1], "units": t[2]},
    ),
    "uk_carbon_intensity": (
        uk_carbon_intensity.parse,
        lambda t: {"data": [{"from": t[1], "intensity": {"actual": t[0], "forecast": t[2]}}]},
    ),
    "rte_eco2mix": (
        rte_eco2mix.parse,
        lambda t: {"results": [{"taux_co2": t[0], "date_heure": t[1]}, t[2]]},
    ),
    "watttime": (
        lambda answer: watttime.parse(answer, "FR"),
        lambda t: {"data": [{"value": t[0], "point_time": t[1]}], "meta": t[2]},
    ),
}
"""How each answer is parsed, and one that is almost right."""


@pytest.mark.parametrize("name", PARSERS)
@fuzz
@given(trees, st.tuples(leaves, words | leaves, trees))
@example(None, (31, "2024-05-01T10:00Z", {}))
def test_answers(name: str, tree: object, parts: tuple[object, object, object]) -> None:
    """A plausible value with a time, or a reason in one printable line."""
    parse, almost = PARSERS[name]
    for answer in (tree, almost(parts)):
        try:
            found = checked(parse(answer), NOW)
        except GridError as error:
            assert str(error).isprintable()  # noqa: PT017 - no error is right too
        else:
            assert 0 <= found.grams_per_kwh <= MOST_GRAMS
            assert found.time is not None
            assert found.time <= NOW + 300


pieces = st.sampled_from(
    [
        *(
            "time_zone",
            "UTC",
            "Europe/Paris",
            ": ",
            "\n",
            "  ",
            "grams_per_kwh",
            "daily",
            "mon-fri",
        ),
        *("{", "}", '"00:00"', "00:00", "24:00", "35", ", ", "[", "]", "!!python/none", "&a", "*a"),
        *("sat", "sun", "boundary", "direct", "\x00", "é"),
    ]
)


@fuzz
@given(st.one_of(st.binary(), st.lists(pieces, max_size=40).map(lambda p: "".join(p).encode())))
@example(b'{time_zone: UTC, grams_per_kwh: {daily: {"00:00": 5}}}')
@example(b"[" * 5000)
@example(b"a: &a [*a]")
def test_schedules(data: bytes) -> None:
    """A week with a value at any moment, or a sentence."""
    try:
        week = parse_week(data)
    except ValueError:
        return
    for hours in range(0, 24 * 8, 5):
        assert 0 <= week.at(NOW + hours * 3600) <= MOST_GRAMS


@fuzz
@given(st.text(max_size=12))
def test_zones(zone: str) -> None:
    """A country or a few names; nothing that is near is unknown."""
    assert country_of(zone) is None or country_of(zone) == country_of(zone.partition("-")[0])
    for near in nearest(zone):
        assert country_of(near.partition(" ")[0]) is not None


keys = st.sampled_from(
    [
        *(
            "pue",
            "price",
            "currency",
            "country",
            "providers",
            "FR",
            "NO",
            "rte_eco2mix",
            "schedule",
        ),
        *("constant", "grams_per_kwh", "year", "boundary", "file", "url", "timeout", "watttime"),
        *("user", "password_env", "PATH", "electricity_maps", "token_env", "region", "https://x.y"),
    ]
)
scalars = st.one_of(
    keys,
    st.none(),
    st.booleans(),
    st.integers(-5, 3000),
    st.floats(),
    st.text(max_size=4),
    st.just(10**400),
)
files = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(keys | scalars, inner, max_size=5)
    ),
    max_leaves=15,
)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(keys, files, max_size=3), st.dictionaries(keys, files, max_size=3))
def test_configurations(zones: dict[str, object], providers: dict[str, object]) -> None:
    """A plan whose page can be shown, or one line of error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobwatt.yml"
        path.write_text(yaml.safe_dump({"zones": zones, "providers": providers}))
        try:
            plan = make_plan(
                load_config({"config.file": str(path)}, {}, command="grid"), {"PATH": "x"}
            )
        except UsageError as error:
            assert "\n" not in str(error)  # noqa: PT017 - no error is right too
            return
    routes = GridRoutes(lambda: plan.snapshot, "/metrics")
    for page in ("/metrics", "/"):
        assert routes.answer(Request("GET", page, "", {})).status == 200
