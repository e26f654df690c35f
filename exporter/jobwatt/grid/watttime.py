"""WattTime, https://docs.watttime.org: the marginal operating emissions rate, every five minutes.

`GET /login` (Basic) gives a bearer for 30 minutes, `GET /v3/historical` the values, in pounds per
MWh. Marginal: what one kWh more would cause. It has a series of its own and is never an average.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from jobwatt.grid.answers import entries, fields, moment
from jobwatt.grid.client import get_json
from jobwatt.grid.contract import Boundary, GridError, Intensity, Kind, Reason, grams
from jobwatt.grid.making import Place, Remote, needed
from jobwatt.grid.options import Options
from jobwatt.grid.secret import Secret
from jobwatt.http_client import basic_auth

__all__ = ["NAME", "Maker", "WattTime", "WattTimeLogin", "parse"]

NAME = "watttime"
URL = "https://api.watttime.org"

GRAMS_PER_KWH = 0.453592
"""Of one pound per MWh: 453.592 g a pound, 1000 kWh a MWh."""

_UNIT = "lbs_co2_per_mwh"
_SIGNAL = "co2_moer"

_BEARER_SECONDS = 25 * 60.0
"""It holds for 30 minutes."""

_BACK_SECONDS = 2 * 3600.0
"""As far as a value may be shown."""


class WattTimeLogin:
    """The bearer that all regions of one user share."""

    def __init__(
        self,
        url: str,
        timeout: float,
        user: str,
        password: Secret,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self.timeout = timeout
        self._user = user
        self._password = password
        self._clock = clock
        self._lock = threading.Lock()
        self._bearer = ""
        self._until = 0.0

    def bearer(self) -> str:
        """Return a bearer that holds, logging in where there is none.

        Raises:
            GridError: the login fails.
        """
        with self._lock:
            if not self._bearer or self._clock() >= self._until:
                asked = self._clock()
                self._bearer = self._log_in()
                self._until = asked + _BEARER_SECONDS
            return self._bearer

    def forget(self, bearer: str) -> None:
        """Log in again before the next request: this bearer has been refused."""
        with self._lock:
            if self._bearer == bearer:
                self._bearer = ""

    def _log_in(self) -> str:
        headers = {"Authorization": basic_auth(self._user, self._password.reveal())}
        answer = fields(get_json(f"{self.url}/login", headers, self.timeout), "the login's answer")
        token = answer.get("token")
        # It will stand in a header.
        if not isinstance(token, str) or not (token.isascii() and token.isprintable() and token):
            raise GridError(Reason.MALFORMED, "the login's answer holds no token")
        return token


@dataclass(frozen=True, slots=True)
class WattTime:
    """One of its regions."""

    login: WattTimeLogin
    region: str
    name: str = NAME

    def intensity(self, now: float) -> Intensity:
        """Return the newest value; a bearer that has been refused is replaced once."""
        bearer = self.login.bearer()
        try:
            return self._ask(bearer, now)
        except GridError as error:
            if error.reason is not Reason.DENIED:
                raise
            self.login.forget(bearer)
            return self._ask(self.login.bearer(), now)

    def _ask(self, bearer: str, now: float) -> Intensity:
        asked = {
            "region": self.region,
            "signal_type": _SIGNAL,
            "start": _text(now - _BACK_SECONDS),
            "end": _text(now),
        }
        url = f"{self.login.url}/v3/historical?{urlencode(asked)}"
        headers = {"Authorization": f"Bearer {bearer}"}
        return parse(get_json(url, headers, self.login.timeout), self.region)


class Maker(Remote):
    """All regions share one login."""

    def __init__(self, section: Options, environment: Mapping[str, str]) -> None:
        super().__init__(section, URL)
        self._user = section.text("user")
        self._password = section.secret("password", environment)
        self._login: WattTimeLogin | None = None

    def make(self, place: Place, options: Options) -> WattTime:
        """Return one `region`."""
        del place
        region = options.text("region")
        if not region:
            raise options.error("region", "missing; write one of WattTime's, such as CAISO_NORTH")
        if not self._user:
            raise self.section.error("user", f"missing, and {options.where} needs it")
        if self._login is None:
            password = needed(self.section, "password", self._password, options)
            self._login = WattTimeLogin(self.url, self.timeout, self._user, password)
        return WattTime(self._login, region)


def _text(moment_seconds: float) -> str:
    return datetime.fromtimestamp(moment_seconds, UTC).isoformat(timespec="seconds")


def parse(answer: object, region: str) -> Intensity:
    """Return the newest intensity in an answer.

    Raises:
        GridError: there is none, or it is another region's or in another unit.
    """
    found = fields(answer, "the answer")
    meta = fields(found.get("meta", {}), "meta")
    if meta.get("region", region) != region or meta.get("signal_type", _SIGNAL) != _SIGNAL:
        raise GridError(Reason.MALFORMED, f"the answer is not about {_SIGNAL} of {region}")
    if meta.get("units", _UNIT) != _UNIT:
        raise GridError(Reason.IMPLAUSIBLE, f"the answer is not in {_UNIT}")
    points = [fields(point, "a point of data") for point in entries(found.get("data"), "data")]
    at, newest = max(
        ((moment(point.get("point_time"), "point_time"), point) for point in points),
        key=lambda pair: pair[0],
    )
    pounds = grams(newest.get("value"))
    return Intensity(pounds * GRAMS_PER_KWH, Kind.MARGINAL, Boundary.DIRECT, at)
