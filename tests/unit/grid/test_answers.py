"""What is made of each provider's answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes import grid_sites
from fakes.grid_sites import PASSWORD, USER, Reply, Site, serving
from jobwatt.grid import electricity_maps, rte_eco2mix, uk_carbon_intensity, watttime
from jobwatt.grid.contract import (
    Boundary,
    GridError,
    Intensity,
    Kind,
    Reason,
    checked,
    is_fresh,
)
from jobwatt.grid.secret import Secret
from jobwatt.grid.watttime import WattTime, WattTimeLogin

T = 1_714_557_600.0
"""2024-05-01T10:00:00Z."""

FRANCE: dict[str, Any] = {
    "zone": "FR",
    "carbonIntensity": 31,
    "datetime": "2024-05-01T10:00:00.000Z",
    "updatedAt": "2024-05-01T10:41:00.000Z",
    "emissionFactorType": "lifecycle",
    "isEstimated": False,
    "estimationMethod": None,
}


def reason_of(parse: Callable[..., Intensity], *arguments: object) -> Reason:
    with pytest.raises(GridError) as caught:
        parse(*arguments)
    return caught.value.reason


def em(**changed: object) -> Intensity:
    return electricity_maps.parse(FRANCE | changed, "FR", Boundary.LIFECYCLE)


def em_reason(**changed: object) -> Reason:
    return reason_of(electricity_maps.parse, FRANCE | changed, "FR", Boundary.LIFECYCLE)


def test_electricity_maps() -> None:
    """An average of the zone, for the hour in `datetime`, life cycle or direct as it says."""
    assert em() == Intensity(31.0, Kind.AVERAGE, Boundary.LIFECYCLE, T)
    assert em(emissionFactorType="direct").boundary is Boundary.DIRECT
    assert em(isEstimated=True).note == "estimated"
    assert em(units={"carbonIntensity": "gCO2eq/kWh"}) == em()
    without = {key: value for key, value in FRANCE.items() if key != "emissionFactorType"}
    assert electricity_maps.parse(without, "FR", Boundary.DIRECT).boundary is Boundary.DIRECT


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"carbonIntensity": None}, "no_data"),
        ({"carbonIntensity": "31"}, "malformed"),
        ({"carbonIntensity": True}, "malformed"),
        ({"zone": "DE"}, "malformed"),
        ({"zone": None}, "malformed"),
        ({"datetime": None}, "malformed"),
        ({"datetime": "yesterday"}, "malformed"),
        ({"datetime": "2024-05-01T10:00:00"}, "malformed"),
        ({"datetime": 1714557600}, "malformed"),
        ({"emissionFactorType": "total"}, "malformed"),
        ({"emissionFactorType": ["direct"]}, "malformed"),
        ({"units": {"carbonIntensity": "kgCO2eq/kWh"}}, "implausible"),
        ({"units": "lb/MWh"}, "implausible"),
    ],
)
def test_electricity_maps_that_says_something_else(changed: dict[str, object], reason: str) -> None:
    """A null, another zone, another unit, no time: no value."""
    assert em_reason(**changed) == reason


def uk(**intensity: object) -> dict[str, object]:
    return {
        "data": [{"from": "2024-05-01T10:00Z", "to": "2024-05-01T10:30Z", "intensity": intensity}]
    }


def test_uk_carbon_intensity() -> None:
    """The actual value of the half-hour, or its forecast, which says so."""
    actual = uk_carbon_intensity.parse(uk(forecast=266, actual=263, index="high"))
    assert actual == Intensity(263.0, Kind.AVERAGE, Boundary.DIRECT, T)
    forecast = uk_carbon_intensity.parse(uk(forecast=266, actual=None, index="high"))
    assert (forecast.grams_per_kwh, forecast.note) == (266.0, "forecast")
    assert uk_carbon_intensity.parse(uk(forecast=266, actual=0)).grams_per_kwh == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (uk(forecast=None, actual=None), "no_data"),
        (uk(), "no_data"),
        ({"data": []}, "no_data"),
        ({"data": [{"intensity": {"actual": 1}}]}, "malformed"),
        ({"data": [None]}, "malformed"),
        ({"data": {"0": 1}}, "malformed"),
        ({"error": {"code": "400 Bad Request", "message": "…"}}, "malformed"),
    ],
)
def test_uk_carbon_intensity_that_says_nothing(answer: object, reason: str) -> None:
    """Nulls, an empty list, an error with status 200: no value."""
    assert reason_of(uk_carbon_intensity.parse, answer) == reason


def test_rte_eco2mix() -> None:
    """The newest quarter that has one."""
    quarter = {"date_heure": "2024-05-01T10:00:00+00:00", "taux_co2": 22}
    found = rte_eco2mix.parse({"total_count": 1, "results": [quarter]})
    assert found == Intensity(22.0, Kind.AVERAGE, Boundary.DIRECT, T)
    local = quarter | {"date_heure": "2024-05-01T12:00:00+02:00"}
    assert rte_eco2mix.parse({"results": [local]}).time == T


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"results": []}, "no_data"),
        ({"results": [{"date_heure": "2024-05-01T10:00Z", "taux_co2": None}]}, "no_data"),
        ({"results": [{"date_heure": None, "taux_co2": 5}]}, "malformed"),
        ({"error_code": "ODSQLError", "message": "…"}, "malformed"),
    ],
)
def test_rte_eco2mix_that_says_nothing(answer: object, reason: str) -> None:
    """No quarter, one that is null, an error: no value."""
    assert reason_of(rte_eco2mix.parse, answer) == reason


POINTS = [
    {"point_time": "2024-05-01T09:55:00+00:00", "value": 500},
    {"point_time": "2024-05-01T10:00:00+00:00", "value": 1000},
]


def test_watttime() -> None:
    """The newest point in whatever order, in grams; marginal."""
    meta = {"region": "CAISO_NORTH", "signal_type": "co2_moer", "units": "lbs_co2_per_mwh"}
    for data in (POINTS, POINTS[::-1]):
        found = watttime.parse({"data": data, "meta": meta}, "CAISO_NORTH")
        assert found == Intensity(453.592, Kind.MARGINAL, Boundary.DIRECT, T)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"data": []}, "no_data"),
        ({"data": [{"point_time": "2024-05-01T10:00Z", "value": None}]}, "no_data"),
        ({"data": [{"value": 5}]}, "malformed"),
        ({"data": [5]}, "malformed"),
        ({"data": POINTS, "meta": {"units": "percentile"}}, "implausible"),
        ({"data": POINTS, "meta": {"region": "PJM"}}, "malformed"),
        ({"data": POINTS, "meta": {"signal_type": "health_damage"}}, "malformed"),
        ({"data": POINTS, "meta": None}, "malformed"),
    ],
)
def test_watttime_that_says_something_else(answer: object, reason: str) -> None:
    """Another signal, unit or region, or nothing: no value."""
    assert reason_of(watttime.parse, answer, "CAISO_NORTH") == reason


# --- WattTime's login ---------------------------------------------------------------------------


def login(
    site: Site, clock: Callable[[], float] = time.monotonic, password: str = PASSWORD
) -> WattTimeLogin:
    secret = Secret(variable="P", environment={"P": password})
    return WattTimeLogin(site.url, 5.0, USER, secret, clock)


def paths(site: Site) -> list[str]:
    return [asked.path for asked in site.asked]


def test_one_login_serves_many_questions() -> None:
    """The bearer is kept for 25 of its 30 minutes, for all regions."""
    now = [0.0]
    with serving(grid_sites.watttime(1000)) as site:
        shared = login(site, lambda: now[0])
        for at in (0.0, 1499.0, 1500.0):
            now[0] = at
            WattTime(shared, "CAISO_NORTH").intensity(time.time())
    assert paths(site) == ["/login", *["/v3/historical"] * 2, "/login", "/v3/historical"]


def test_a_bearer_that_has_expired_is_replaced() -> None:
    """Once: a second refusal is told."""
    with serving(grid_sites.watttime(1000)) as site:
        provider = WattTime(login(site), "CAISO_NORTH")
        provider.intensity(time.time())
        site.expire()  # type: ignore[attr-defined]
        assert provider.intensity(time.time()).grams_per_kwh == 453.592
        assert paths(site)[2:] == ["/v3/historical", "/login", "/v3/historical"]
        with pytest.raises(GridError) as caught:
            WattTime(login(site), "PJM").intensity(time.time())
    assert caught.value.reason is Reason.DENIED


def test_a_wrong_password_asks_nothing_else() -> None:
    """The login's refusal is the answer."""
    with serving(grid_sites.watttime(1000)) as site:
        with pytest.raises(GridError) as caught:
            WattTime(login(site, password="wrong"), "CAISO_NORTH").intensity(time.time())
        assert caught.value.reason is Reason.DENIED
        assert paths(site) == ["/login"]


@pytest.mark.parametrize("token", [None, "", 5, "a\r\nX-Evil: 1", "é"])
def test_a_login_without_a_token(token: object) -> None:
    """What cannot stand in a header is no token, and is not repeated."""
    site = Site(lambda _: Reply(200, {"token": token}))
    with serving(site), pytest.raises(GridError) as caught:
        login(site).bearer()
    assert (caught.value.reason, str(caught.value)) == (
        Reason.MALFORMED,
        "the login's answer holds no token",
    )


def test_what_is_asked_of_watttime() -> None:
    """The signal, the region, and the last two hours."""
    with serving(grid_sites.watttime(1000)) as site:
        WattTime(login(site), "CAISO_NORTH").intensity(T)
    assert dict(site.asked[-1].query) == {
        "region": "CAISO_NORTH",
        "signal_type": "co2_moer",
        "start": "2024-05-01T08:00:00+00:00",
        "end": "2024-05-01T10:00:00+00:00",
    }


# --- what can be true ---------------------------------------------------------------------------


def value(grams_per_kwh: float, at: float | None = T) -> Intensity:
    return Intensity(grams_per_kwh, Kind.AVERAGE, Boundary.DIRECT, at)


@pytest.mark.parametrize("grams_per_kwh", [0.0, 44.2, 3000.0])
def test_plausible(grams_per_kwh: float) -> None:
    """From no carbon to twice the dirtiest."""
    assert checked(value(grams_per_kwh), T) == value(grams_per_kwh)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (value(-1.0), "-1 g/kWh is outside of 0 to 3000"),
        (value(3000.1), "3000.1 g/kWh is outside of 0 to 3000"),
        (value(float("nan")), "nan g/kWh is outside"),
        (value(float("inf")), "inf g/kWh is outside"),
        (value(50.0, T + 301), "the value is for 301 s from now"),
    ],
)
def test_implausible(wrong: Intensity, said: str) -> None:
    """A wrong unit, or a wrong clock, is no value."""
    with pytest.raises(GridError, match=said) as caught:
        checked(wrong, T)
    assert caught.value.reason is Reason.IMPLAUSIBLE


def test_fresh_for_two_hours() -> None:
    """By the data's own time; what holds for a year has none and is always fresh."""
    assert is_fresh(value(1.0), T + 7200)
    assert not is_fresh(value(1.0), T + 7200.1)
    assert is_fresh(value(1.0, None), T + 1e9)


# --- secrets ------------------------------------------------------------------------------------


def test_a_secret_is_read_each_time(tmp_path: Path) -> None:
    """A file that is replaced needs no restart; white space around it is no part of it."""
    file = tmp_path / "token"
    secret = Secret(file)
    file.write_text("first\n")
    assert secret.reveal() == "first"
    file.write_text("  second\n\n")
    assert secret.reveal() == "second"
    assert repr(secret).find("second") == str(secret).find("second") == -1


def test_a_secret_in_a_variable() -> None:
    """Its environment is not part of what is shown."""
    secret = Secret(variable="EM", environment={"EM": "hidden", "OTHER": "hidden"})
    assert (secret.reveal(), str(secret)) == ("hidden", "$EM")
    assert "hidden" not in repr(secret)


@pytest.mark.parametrize("content", [b"", b" \n", b"a\nb", b"caf\xc3\xa9", b"\xff", b"x" * 9000])
def test_what_is_no_secret(tmp_path: Path, content: bytes) -> None:
    """Empty, several lines, no ASCII: the error names the file, not what it holds."""
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(GridError) as caught:
        Secret(file).reveal()
    assert caught.value.reason is Reason.UNREADABLE
    said = str(caught.value).replace(str(file), "")
    assert not any(word in said for word in ("caf", "xx", "a\n"))


def test_a_secret_that_is_not_there(tmp_path: Path) -> None:
    """A missing file, an unset variable."""
    with pytest.raises(GridError, match="No such file"):
        Secret(tmp_path / "gone").reveal()
    with pytest.raises(GridError, match=r"\$GONE is empty"):
        Secret(variable="GONE").reveal()
