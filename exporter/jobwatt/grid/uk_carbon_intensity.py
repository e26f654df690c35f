"""The Carbon Intensity API of Great Britain, https://carbonintensity.org.uk: half-hourly.

`GET /intensity`. Its factors are of what is burnt, so wind and nuclear power count 0: direct.
The actual value of the current half-hour may be null, its forecast is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobwatt.grid.answers import entries, fields, moment
from jobwatt.grid.client import get_json
from jobwatt.grid.contract import Boundary, Intensity, Kind, grams
from jobwatt.grid.making import Place, Remote, only_in
from jobwatt.grid.options import Options

__all__ = ["NAME", "Maker", "UkCarbonIntensity", "parse"]

NAME = "uk_carbon_intensity"
URL = "https://api.carbonintensity.org.uk"


@dataclass(frozen=True, slots=True)
class UkCarbonIntensity:
    """Great Britain."""

    url: str
    timeout: float
    name: str = NAME

    def intensity(self, now: float) -> Intensity:
        """Return the value of the current half-hour."""
        del now
        return parse(get_json(f"{self.url}/intensity", {}, self.timeout))


class Maker(Remote):
    """For zones in Great Britain."""

    def __init__(self, section: Options, environment: Mapping[str, str]) -> None:
        del environment
        super().__init__(section, URL)

    def make(self, place: Place, options: Options) -> UkCarbonIntensity:
        """Return it; it has no options."""
        only_in("GB", place, options)
        return UkCarbonIntensity(self.url, self.timeout)


def parse(answer: object) -> Intensity:
    """Return the intensity in an answer; its time is the beginning of the half-hour.

    Raises:
        GridError: there is none.
    """
    period = fields(entries(fields(answer, "the answer").get("data"), "data")[0], "data[0]")
    values = fields(period.get("intensity"), "intensity")
    actual = values.get("actual")
    return Intensity(
        grams(values.get("forecast") if actual is None else actual),
        Kind.AVERAGE,
        Boundary.DIRECT,
        moment(period.get("from"), "from"),
        note="forecast" if actual is None else "",
    )
