"""What every provider of carbon intensities owes: a value with all its labels, or a reason."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes import grid_sites
from fakes.grid_sites import HTML, PASSWORD, TOKEN, USER, Reply, Site, serving
from jobwatt.grid.constant import Constant
from jobwatt.grid.contract import (
    Boundary,
    GridError,
    Kind,
    Provider,
    Reason,
    checked,
    is_fresh,
)
from jobwatt.grid.electricity_maps import ElectricityMaps
from jobwatt.grid.rte_eco2mix import RteEco2mix
from jobwatt.grid.schedule import Schedule
from jobwatt.grid.secret import Secret
from jobwatt.grid.table import YearlyTable, country_of
from jobwatt.grid.uk_carbon_intensity import UkCarbonIntensity
from jobwatt.grid.watttime import WattTime, WattTimeLogin
from jobwatt.grid_app import PROVIDERS
from servers import free_port

SECONDS = 0.5
"""The time limit of the providers here."""

SLACK_SECONDS = 5.0
"""A loaded machine; the troubles would last longer."""

SECRETS = {"TOKEN": TOKEN, "PASSWORD": PASSWORD}
LIVE = ("electricity_maps", "uk_carbon_intensity", "rte_eco2mix", "watttime")
ALL = (*LIVE, "schedule", "constant", "owid")


@dataclass
class Case:
    """A provider; where it has a site, that, and how to make one of another address."""

    provider: Provider
    site: Site | None = None
    make: Callable[[str], Provider] = field(default=NotImplemented)


@contextmanager
def remote(site: Site, make: Callable[[str], Provider]) -> Iterator[Case]:
    with serving(site):
        yield Case(make(site.url), site, make)


def watttime(url: str) -> Provider:
    password = Secret(variable="PASSWORD", environment=SECRETS)
    return WattTime(WattTimeLogin(url, SECONDS, USER, password), "CAISO_NORTH")


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """The provider that the test is about."""
    name = request.param
    if name == "electricity_maps":
        token = Secret(variable="TOKEN", environment=SECRETS)
        with remote(
            grid_sites.electricity_maps({"FR": 31}),
            lambda url: ElectricityMaps(url, SECONDS, token, "FR"),
        ) as made:
            yield made
    elif name == "uk_carbon_intensity":
        site = grid_sites.uk_carbon_intensity(266, 263)
        with remote(site, lambda url: UkCarbonIntensity(url, SECONDS)) as made:
            yield made
    elif name == "rte_eco2mix":
        with remote(grid_sites.rte_eco2mix(22), lambda url: RteEco2mix(url, SECONDS)) as made:
            yield made
    elif name == "watttime":
        with remote(grid_sites.watttime(900.5), watttime) as made:
            yield made
    elif name == "schedule":
        file = tmp_path / "schedule.yml"
        file.write_text('{time_zone: UTC, grams_per_kwh: {daily: {"00:00": 40}}}')
        yield Case(Schedule(file))
    elif name == "constant":
        yield Case(Constant(52.0, "2022", Boundary.DIRECT))
    else:
        country = country_of("FR")
        assert country is not None
        yield Case(YearlyTable(country))


every = pytest.mark.parametrize("case", ALL, indirect=True)
each_live = pytest.mark.parametrize("case", LIVE, indirect=True)

VALUES = {
    "electricity_maps": (31, "average", "lifecycle", ""),
    "uk_carbon_intensity": (263, "average", "direct", ""),
    "rte_eco2mix": (22, "average", "direct", ""),
    "watttime": (900.5 * 0.453592, "marginal", "direct", ""),
    "schedule": (40, "average", "lifecycle", ""),
    "constant": (52, "average", "direct", "2022"),
    "owid": (44.2, "average", "lifecycle", "2024"),
}


@every
def test_a_value_has_all_its_labels(case: Case) -> None:
    """Grams, kind, boundary and year are the provider's; live values have a time and no year."""
    now = time.time()
    value = checked(case.provider.intensity(now), now)
    shown = (value.grams_per_kwh, value.kind.value, value.boundary.value, value.year)
    assert shown == pytest.approx(VALUES[case.provider.name])
    assert (value.year == "") == (value.time is not None)
    assert is_fresh(value, now)
    assert (value.kind in Kind, value.boundary in Boundary) == (True, True)


def test_no_provider_is_left_out() -> None:
    """Whatever a zone may name is tested here, and the table."""
    assert {*PROVIDERS, "owid"} == set(ALL)


@every
def test_its_name_can_be_a_label(case: Case) -> None:
    """Lower-case words, as they stand in the configuration."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*", case.provider.name)


@every
def test_asking_twice_is_the_same(case: Case) -> None:
    """A provider keeps nothing that a second question would see."""
    now = time.time()
    first, second = case.provider.intensity(now), case.provider.intensity(now)
    assert first == second


@every
def test_no_secret_is_shown(case: Case) -> None:
    """Neither `repr` nor `str` of a provider has one."""
    for shown in (repr(case.provider), str(case.provider)):
        assert (TOKEN in shown, PASSWORD in shown) == (False, False)


TROUBLES: dict[str, tuple[Reply, Reason]] = {
    "bad request": (Reply(400, {"error": "?"}), Reason.REJECTED),
    "unauthorized": (Reply(401, {"error": "Invalid auth-token"}), Reason.DENIED),
    "forbidden": (Reply(403, HTML), Reason.DENIED),
    "unknown zone": (Reply(404, {"error": "Zone does not exist"}), Reason.NOT_FOUND),
    "too many": (Reply(429, b"", {"Retry-After": "77"}), Reason.RATE_LIMITED),
    "broken": (Reply(500, HTML), Reason.SERVER_ERROR),
    "bad gateway": (Reply(502, HTML), Reason.SERVER_ERROR),
    "away": (Reply(503, HTML, {"Retry-After": "120"}), Reason.SERVER_ERROR),
    "html": (Reply(200, HTML, {"Content-Type": "text/html"}), Reason.MALFORMED),
    "nothing": (Reply(200, b""), Reason.MALFORMED),
    "truncated": (Reply(200, b'{"data": [{"from": "2024'), Reason.MALFORMED),
    "cut off": (Reply(200, b'{"data": ', length=900), Reason.MALFORMED),
    "null": (Reply(200, None), Reason.MALFORMED),
    "a list": (Reply(200, []), Reason.MALFORMED),
    "a number": (Reply(200, 31), Reason.MALFORMED),
    "not a number": (Reply(200, b'{"carbonIntensity": NaN}'), Reason.MALFORMED),
    "deep": (Reply(200, b"[" * 100_000), Reason.MALFORMED),
    "latin": (Reply(200, b'{"zone": "\xe9"}'), Reason.MALFORMED),
    "huge": (Reply(200, b'"' + b"x" * (3 << 20) + b'"'), Reason.MALFORMED),
    "slow": (Reply(200, {}, wait=30.0), Reason.TIMEOUT),
    "dripping": (Reply(200, b"{" * 1000, drip=0.1), Reason.TIMEOUT),
    "no redirect": (Reply(302, b"", {}), Reason.REJECTED),
    "a loop": (Reply(302, b"", {"Location": "/login"}), Reason.REJECTED),
    "to a file": (Reply(302, b"", {"Location": "file:///etc/passwd"}), Reason.REJECTED),
}


@pytest.mark.parametrize("trouble", TROUBLES)
@each_live
def test_trouble_has_its_reason(case: Case, trouble: str) -> None:
    """Whatever the server does: in limited time one sentence, the right reason, no secret."""
    assert case.site is not None
    case.site.trouble, reason = TROUBLES[trouble]
    began = time.monotonic()
    with pytest.raises(GridError) as caught:
        case.provider.intensity(time.time())
    assert time.monotonic() - began < SECONDS + SLACK_SECONDS
    assert caught.value.reason is reason, str(caught.value)
    said = str(caught.value)
    assert said.isprintable()
    assert (TOKEN in said, PASSWORD in said) == (False, False)
    expected = {"too many": 77.0, "away": 120.0}.get(trouble)
    assert caught.value.retry_after == expected


@each_live
def test_an_answer_of_other_things(case: Case) -> None:
    """JSON that says something else, such as an error with status 200, is no value."""
    assert case.site is not None
    case.site.trouble = Reply(200, {"error": "no such thing", "token": "bearer"})
    with pytest.raises(GridError) as caught:
        case.provider.intensity(time.time())
    assert caught.value.reason in {Reason.MALFORMED, Reason.NO_DATA}


@each_live
def test_nobody_there(case: Case) -> None:
    """Where nobody listens, it is unreachable."""
    with pytest.raises(GridError, match="Connection refused") as caught:
        case.make(f"http://127.0.0.1:{free_port()}").intensity(time.time())
    assert caught.value.reason is Reason.UNREACHABLE


@each_live
def test_a_redirect_elsewhere_takes_no_token_along(case: Case) -> None:
    """Another server is named in the error and never asked."""
    assert case.site is not None
    with serving(Site(lambda _: Reply(200, {}))) as elsewhere:
        case.site.trouble = Reply(307, b"", {"Location": f"{elsewhere.url}/x?secret=1"})
        with pytest.raises(GridError, match=r"redirected to http://127\.0\.0\.1") as caught:
            case.provider.intensity(time.time())
        assert caught.value.reason is Reason.REJECTED
        assert elsewhere.asked == []
