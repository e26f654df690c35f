"""Electricity Maps, https://app.electricitymaps.com/developer-hub/api: consumption mix, hourly.

`GET /v3/carbon-intensity/latest?zone=FR&emissionFactorType=lifecycle`, header `auth-token`.
The value of the current hour is an estimate at first, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from jobwatt.grid.answers import fields, moment
from jobwatt.grid.client import get_json
from jobwatt.grid.contract import Boundary, GridError, Intensity, Kind, Reason, grams
from jobwatt.grid.making import Place, Remote, needed
from jobwatt.grid.options import Options
from jobwatt.grid.secret import Secret

__all__ = ["NAME", "ElectricityMaps", "Maker", "parse"]

NAME = "electricity_maps"
URL = "https://api.electricitymaps.com"

_BOUNDARIES = tuple(Boundary)
_UNITS = {"gco2eq/kwh", "gco2/kwh"}


@dataclass(frozen=True, slots=True)
class ElectricityMaps:
    """One of its zones."""

    url: str
    timeout: float
    token: Secret
    zone: str
    boundary: Boundary = Boundary.LIFECYCLE
    name: str = NAME

    def intensity(self, now: float) -> Intensity:
        """Return the value of the current hour."""
        del now
        asked = urlencode({"zone": self.zone, "emissionFactorType": self.boundary.value})
        headers = {"auth-token": self.token.reveal()}
        answer = get_json(f"{self.url}/v3/carbon-intensity/latest?{asked}", headers, self.timeout)
        return parse(answer, self.zone, self.boundary)


class Maker(Remote):
    """All of its zones have one token."""

    def __init__(self, section: Options, environment: Mapping[str, str]) -> None:
        super().__init__(section, URL)
        self._token = section.secret("token", environment)

    def make(self, place: Place, options: Options) -> ElectricityMaps:
        """Return one zone: `zone` where it has another name here, `boundary`."""
        return ElectricityMaps(
            self.url,
            self.timeout,
            needed(self.section, "token", self._token, options),
            options.text("zone", place.zone),
            Boundary(options.choice("boundary", _BOUNDARIES, Boundary.LIFECYCLE)),
        )


def parse(answer: object, zone: str, boundary: Boundary) -> Intensity:
    """Return the intensity in an answer; its boundary is what the answer says, else as asked.

    Raises:
        GridError: there is none, or it is another zone's.
    """
    found = fields(answer, "the answer")
    if found.get("zone") != zone:
        raise GridError(Reason.MALFORMED, f"the answer is not about the zone {zone}")
    # The v3 answer names no unit; its predecessor did, and a proxy may.
    units = found.get("units")
    unit = units.get("carbonIntensity") if isinstance(units, dict) else units
    if unit is not None and str(unit).lower() not in _UNITS:
        raise GridError(Reason.IMPLAUSIBLE, "the answer is not in gCO2eq/kWh")
    kind = found.get("emissionFactorType", boundary.value)
    if kind not in list(Boundary):
        raise GridError(Reason.MALFORMED, "emissionFactorType is neither lifecycle nor direct")
    return Intensity(
        grams(found.get("carbonIntensity")),
        Kind.AVERAGE,
        Boundary(str(kind)),
        moment(found.get("datetime"), "datetime"),
        note="estimated" if found.get("isEstimated") is True else "",
    )
