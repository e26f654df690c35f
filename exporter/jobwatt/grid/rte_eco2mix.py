"""RTE's éCO2mix for France, on https://odre.opendatasoft.com: quarter-hourly, direct emissions.

Dataset `eco2mix-national-tr`, which holds the quarters of the whole day; those to come have no
`taux_co2` yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from jobwatt.grid.answers import entries, fields, moment
from jobwatt.grid.client import get_json
from jobwatt.grid.contract import Boundary, Intensity, Kind, grams
from jobwatt.grid.making import Place, Remote, only_in
from jobwatt.grid.options import Options

__all__ = ["NAME", "Maker", "RteEco2mix", "parse"]

NAME = "rte_eco2mix"
URL = "https://odre.opendatasoft.com"

_PATH = "/api/explore/v2.1/catalog/datasets/eco2mix-national-tr/records"
_ASKED = {
    "select": "date_heure,taux_co2",
    "where": "taux_co2 is not null",
    "order_by": "date_heure desc",
    "limit": "1",
}


@dataclass(frozen=True, slots=True)
class RteEco2mix:
    """France."""

    url: str
    timeout: float
    name: str = NAME

    def intensity(self, now: float) -> Intensity:
        """Return the newest quarter that has a value."""
        del now
        return parse(get_json(f"{self.url}{_PATH}?{urlencode(_ASKED)}", {}, self.timeout))


class Maker(Remote):
    """For zones in France."""

    def __init__(self, section: Options, environment: Mapping[str, str]) -> None:
        del environment
        super().__init__(section, URL)

    def make(self, place: Place, options: Options) -> RteEco2mix:
        """Return it; it has no options."""
        only_in("FR", place, options)
        return RteEco2mix(self.url, self.timeout)


def parse(answer: object) -> Intensity:
    """Return the intensity in an answer.

    Raises:
        GridError: there is none.
    """
    results = entries(fields(answer, "the answer").get("results"), "results")
    newest = fields(results[0], "results[0]")
    return Intensity(
        grams(newest.get("taux_co2")),
        Kind.AVERAGE,
        Boundary.DIRECT,
        moment(newest.get("date_heure"), "date_heure"),
    )
