"""The composition root of `jobwatt grid`: the only module that names its concrete providers."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jobwatt
from jobwatt.config import Config
from jobwatt.errors import UsageError
from jobwatt.exposition.grid_routes import GridRoutes
from jobwatt.exposition.server import Server
from jobwatt.exposition.serving import log_address, stop_event, web_config
from jobwatt.grid import (
    constant,
    electricity_maps,
    rte_eco2mix,
    schedule,
    uk_carbon_intensity,
    watttime,
)
from jobwatt.grid.board import Board, GridSnapshot, Reading, Site, Value
from jobwatt.grid.contract import MOST_GRAMS, Boundary, GridError, Provider
from jobwatt.grid.options import Options
from jobwatt.grid.poller import Feed, Poller
from jobwatt.grid.secret import Secret
from jobwatt.grid.table import Country, YearlyTable, country_of, nearest

__all__ = ["Plan", "make_plan", "serve"]

log = logging.getLogger(__name__)

FILE = "--config.file"

_BOUNDARIES = tuple(Boundary)
_INTERVAL_SECONDS, _LEAST_INTERVAL, _MOST_INTERVAL = 300.0, 60.0, 3600.0
_SCHEDULE_SECONDS = 20.0
"""A file is cheap to read, and its next hour should begin on time."""

_TIMEOUT_SECONDS, _LEAST_TIMEOUT, _MOST_TIMEOUT = 10.0, 1.0, 120.0
_MOST_PUE = 10.0
_MOST_PRICE = 1e9
_YEARS = (1990, 2100)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the configuration asks for."""

    snapshot: GridSnapshot
    feeds: tuple[Feed, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """What a provider may need to know of the zone that it is asked for."""

    zone: str
    country: Country | None


@dataclass(frozen=True, slots=True)
class _Remote:
    """How one live provider is reached, for all zones."""

    url: str
    timeout: float
    interval: float


class _Providers:
    """Makes the providers that zones name.

    Args:
        tree: the section `providers`.
        environment: where tokens may be.
    """

    def __init__(self, tree: Mapping[object, object], environment: Mapping[str, str]) -> None:
        self._makers: dict[str, Callable[[_Place, Options], Feed]] = {
            electricity_maps.NAME: self._electricity_maps,
            rte_eco2mix.NAME: self._rte_eco2mix,
            schedule.NAME: self._schedule,
            uk_carbon_intensity.NAME: self._uk_carbon_intensity,
            watttime.NAME: self._watttime,
        }
        root = Options(f"{FILE}: providers", tree)
        em, rte, uk, wt = (
            Options(f"{root.where}: {name}", root.value(name))
            for name in (
                electricity_maps.NAME,
                rte_eco2mix.NAME,
                uk_carbon_intensity.NAME,
                watttime.NAME,
            )
        )
        root.finish()
        self._em = _remote(em, electricity_maps.URL)
        self._em_token = em.secret("token", environment)
        self._rte = _remote(rte, rte_eco2mix.URL)
        self._uk = _remote(uk, uk_carbon_intensity.URL)
        self._wt = _remote(wt, watttime.URL)
        self._wt_user = wt.text("user")
        self._wt_password = wt.secret("password", environment)
        self._wt_login: watttime.WattTimeLogin | None = None
        for options in (em, rte, uk, wt):
            options.finish()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all live providers."""
        return tuple(self._makers)

    def make(self, name: str, place: _Place, options: Options) -> Feed:
        """Return what is to be polled for a zone."""
        return self._makers[name](place, options)

    def _electricity_maps(self, place: _Place, options: Options) -> Feed:
        token = _needed(self._em_token, electricity_maps.NAME, "token", options)
        provider = electricity_maps.ElectricityMaps(
            self._em.url,
            self._em.timeout,
            token,
            options.text("zone", place.zone),
            Boundary(options.choice("boundary", _BOUNDARIES, Boundary.LIFECYCLE)),
        )
        return Feed(place.zone, provider, self._em.interval)

    def _rte_eco2mix(self, place: _Place, options: Options) -> Feed:
        _in_country("FR", place, options)
        provider = rte_eco2mix.RteEco2mix(self._rte.url, self._rte.timeout)
        return Feed(place.zone, provider, self._rte.interval)

    def _uk_carbon_intensity(self, place: _Place, options: Options) -> Feed:
        _in_country("GB", place, options)
        provider = uk_carbon_intensity.UkCarbonIntensity(self._uk.url, self._uk.timeout)
        return Feed(place.zone, provider, self._uk.interval)

    def _watttime(self, place: _Place, options: Options) -> Feed:
        if not self._wt_user:
            raise _missing(watttime.NAME, "user", options)
        if self._wt_login is None:
            password = _needed(self._wt_password, watttime.NAME, "password", options)
            self._wt_login = watttime.WattTimeLogin(
                self._wt.url, self._wt.timeout, self._wt_user, password
            )
        region = options.text("region")
        if not region:
            raise options.error("region", "missing; write one of WattTime's, such as CAISO_NORTH")
        return Feed(place.zone, watttime.WattTime(self._wt_login, region), self._wt.interval)

    def _schedule(self, place: _Place, options: Options) -> Feed:
        file = options.path("file")
        if file is None:
            raise options.error("file", "missing; name the file of the schedule")
        provider = schedule.Schedule(file)
        try:
            provider.read()
        except GridError as error:
            raise options.error("file", str(error)) from error
        return Feed(place.zone, provider, _SCHEDULE_SECONDS)


def _remote(options: Options, url: str) -> _Remote:
    return _Remote(
        options.url("url", url),
        options.duration("timeout", _TIMEOUT_SECONDS, _LEAST_TIMEOUT, _MOST_TIMEOUT),
        options.duration("interval", _INTERVAL_SECONDS, _LEAST_INTERVAL, _MOST_INTERVAL),
    )


def _needed(secret: Secret | None, provider: str, what: str, options: Options) -> Secret:
    """Return a secret that is there and can be read now."""
    if secret is None:
        raise _missing(provider, f"{what}_file (or {what}_env)", options)
    try:
        secret.reveal()
    except GridError as error:
        raise UsageError(f"{FILE}: providers: {provider}: {what}: {error}") from error
    return secret


def _missing(provider: str, keys: str, options: Options) -> UsageError:
    return UsageError(
        f"{FILE}: providers: {provider}: {keys} is missing, which {options.where} needs"
    )


def _in_country(code: str, place: _Place, options: Options) -> None:
    if place.country is None or place.country.code != code:
        raise UsageError(
            f"{options.where} is about {code} only, and {place.zone} is not there; "
            f"if it is, give the zone country: {code}"
        )


# --- zones --------------------------------------------------------------------------------------


def make_plan(config: Config, environment: Mapping[str, str] = os.environ) -> Plan:
    """Return what a configuration asks for.

    Raises:
        UsageError: something in it is wrong; the message names section and remedy.
    """
    if not config.zones and not config.account_budgets:
        raise UsageError(
            "there is nothing to export: name the zones of your nodes in --config.file, such as "
            "zones: {FR: {pue: 1.2, price: 0.18, currency: EUR}}"
        )
    providers = _Providers(config.providers, environment)
    sites, fixed, feeds = [], list[Value](), list[Feed]()
    for key, tree in config.zones.items():
        # YAML 1.1 reads a bare NO, Norway, as false.
        zone = "NO" if key is False else key
        if not isinstance(zone, str) or not zone or not zone.isprintable():
            raise UsageError(f"{FILE}: zones: {key!r} is not the name of a zone; quote it")
        options = Options(f"{FILE}: zones: {zone}", tree)
        site, static, live = _zone(zone, options, providers)
        sites.append(site)
        now = time.time()
        fixed += [Value(zone, p.name, p.intensity(now)) for p in static]
        feeds += live
    snapshot = GridSnapshot(
        version=jobwatt.__version__,
        sites=tuple(sites),
        fixed=tuple(fixed),
        readings=tuple(Reading(feed.zone, feed.provider.name) for feed in feeds),
        budgets=config.account_budgets,
    )
    return Plan(snapshot, tuple(feeds))


def _zone(
    zone: str, options: Options, providers: _Providers
) -> tuple[Site, list[Provider], list[Feed]]:
    """Return what a zone says of itself, its fixed factors, and what is polled for it."""
    site = _site(zone, options)
    code = options.value("country")
    wanted = "NO" if code is False else options.text("country", zone)
    country = country_of(wanted)
    place = _Place(zone, country)
    named = _named(options.value("providers"), options, (*providers.names, constant.NAME))
    options.finish()
    static: list[Provider] = [YearlyTable(country)] if country is not None else []
    feeds = []
    for name, own in named.items():
        if name == constant.NAME:
            static = [_constant(own)]  # whoever gives one knows better than the table
        else:
            feeds.append(providers.make(name, place, own))
        own.finish()
    if country is None and (code is not None or constant.NAME not in named):
        raise _unknown(wanted, options)
    return site, static, feeds


def _unknown(wanted: str, options: Options) -> UsageError:
    near = nearest(wanted)
    hint = f"did you mean {', '.join(near)}?" if near else "it begins with no country's code."
    return UsageError(
        f"{options.where}: {wanted!r} is no zone that the table knows; {hint} A zone of your own "
        "takes country: FR, or a constant among its providers"
    )


def _site(zone: str, options: Options) -> Site:
    price = options.number("price", 0, _MOST_PRICE)
    currency = options.text("currency")
    if (price is None) != (not currency):
        missing = "currency" if price is not None else "price"
        raise options.error(missing, "missing; price and currency go together")
    return Site(zone, options.number("pue", 1, _MOST_PUE), price, currency)


def _named(tree: object, options: Options, known: tuple[str, ...]) -> dict[str, Options]:
    """Return the providers of a zone with their options: `[a, {b: {key: value}}]`."""
    if tree is None:
        return {}
    if not isinstance(tree, list):
        raise options.error("providers", f"write a list, of {', '.join(known)}")
    named: dict[str, Options] = {}
    for item in tree:
        name, own = next(iter(item.items())) if _is_pair(item) else (item, None)
        if name not in known:
            raise options.error("providers", f"{str(name)[:40]!r} is none of {', '.join(known)}")
        if name in named:
            raise options.error("providers", f"{name} stands there twice")
        named[name] = Options(f"{options.where}: providers: {name}", own)
    return named


def _is_pair(item: object) -> bool:
    return isinstance(item, dict) and len(item) == 1


def _constant(options: Options) -> constant.Constant:
    grams = options.number("grams_per_kwh", 0, MOST_GRAMS)
    if grams is None:
        raise options.error("grams_per_kwh", "missing")
    year = options.number("year", *_YEARS)
    if year is None:
        raise options.error("year", "missing; it shows how old the factor is")
    boundary = options.choice("boundary", _BOUNDARIES, Boundary.LIFECYCLE)
    return constant.Constant(grams, f"{year:.0f}", Boundary(boundary))


# --- serving ------------------------------------------------------------------------------------


def serve(config: Config, plan: Plan) -> None:
    """Poll and answer until SIGTERM or SIGINT.

    Raises:
        RunError: the address cannot be listened on.
        UsageError: the web configuration is wrong.
    """
    board = Board(plan.snapshot)
    routes = GridRoutes(lambda: board.snapshot, config.web_telemetry_path)
    server = Server(config.web_listen_address, routes.answer, web_config(config))
    stop = stop_event()
    server.start()
    log_address(server, config.web_telemetry_path)
    threads = [
        threading.Thread(
            target=Poller(feed, board).run,
            args=(stop,),
            name=f"{feed.provider.name} {feed.zone}",
            daemon=True,
        )
        for feed in plan.feeds
    ]
    gc.collect()
    gc.freeze()  # what lives now lives on
    for thread in threads:
        thread.start()
    stop.wait()
    log.info("stopping")
    server.stop()
