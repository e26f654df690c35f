"""From the configuration file to a provider: what each file of a provider offers, and its tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from jobwatt.errors import UsageError
from jobwatt.grid.contract import GridError, Provider
from jobwatt.grid.options import Options
from jobwatt.grid.secret import Secret
from jobwatt.grid.table import Country

__all__ = ["Maker", "MakerClass", "Place", "Remote", "needed", "only_in"]

_INTERVAL_SECONDS, _LEAST_INTERVAL, _MOST_INTERVAL = 300.0, 60.0, 3600.0
_TIMEOUT_SECONDS, _LEAST_TIMEOUT, _MOST_TIMEOUT = 10.0, 1.0, 120.0


@dataclass(frozen=True, slots=True)
class Place:
    """The zone that a provider is to be asked about; no country where it has a name of its own."""

    zone: str
    country: Country | None


class Maker(Protocol):
    """Makes a provider for each zone that names it."""

    @property
    def interval(self) -> float | None:
        """Seconds between two questions; None for a fixed factor, in the place of the table."""

    def make(self, place: Place, options: Options) -> Provider:
        """Return the provider of one zone.

        Args:
            place: the zone.
            options: what the zone says about this provider.

        Raises:
            UsageError: an option is wrong or missing.
        """


MakerClass = Callable[[Options, Mapping[str, str]], Maker]
"""Called with the provider's own section, and the environment that may hold its token."""


class Remote:
    """How a provider is reached over the network, for all zones: `url`, `timeout`, `interval`."""

    def __init__(self, section: Options, url: str) -> None:
        self.section = section
        self.url = section.url("url", url)
        self.timeout = section.duration("timeout", _TIMEOUT_SECONDS, _LEAST_TIMEOUT, _MOST_TIMEOUT)
        self.interval = section.duration(
            "interval", _INTERVAL_SECONDS, _LEAST_INTERVAL, _MOST_INTERVAL
        )


def needed(section: Options, what: str, secret: Secret | None, options: Options) -> Secret:
    """Return a secret that a zone needs, once it is sure that it can be read.

    Raises:
        UsageError: it is not named, or cannot be read.
    """
    if secret is None:
        raise section.error(
            f"{what}_file (or {what}_env)", f"missing, and {options.where} needs it"
        )
    try:
        secret.reveal()
    except GridError as error:
        raise section.error(what, str(error)) from error
    return secret


def only_in(code: str, place: Place, options: Options) -> None:
    """Raise `UsageError` for a zone that does not lie in a provider's country."""
    if place.country is None or place.country.code != code:
        raise UsageError(
            f"{options.where}: it is about {code} only, and {place.zone} is not there; "
            f"if it is, give the zone country: {code}"
        )
