"""What the configuration asks for: zones with their fixed factors, and what is to be polled."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import jobwatt
from jobwatt.config import Config
from jobwatt.errors import UsageError
from jobwatt.grid.board import GridSnapshot, Reading, Site, Value
from jobwatt.grid.contract import Provider
from jobwatt.grid.making import Maker, MakerClass, Place
from jobwatt.grid.options import Options
from jobwatt.grid.poller import Feed
from jobwatt.grid.table import YearlyTable, country_of, nearest

__all__ = ["Plan", "read_plan"]

FILE = "--config.file"

_MOST_PUE = 10.0
_MOST_PRICE = 1e9


@dataclass(frozen=True, slots=True)
class Plan:
    """The picture before the first answer, and what to ask."""

    snapshot: GridSnapshot
    feeds: tuple[Feed, ...]


def read_plan(
    config: Config, environment: Mapping[str, str], classes: Mapping[str, MakerClass]
) -> Plan:
    """Return what a configuration asks for.

    Args:
        config: of `jobwatt grid`.
        environment: where tokens may be.
        classes: the providers that zones may name.

    Raises:
        UsageError: something in it is wrong; the message names section and remedy.
    """
    if not config.zones and not config.account_budgets:
        raise UsageError(
            "there is nothing to export: name the zones of your nodes in --config.file, such as "
            "zones: {FR: {pue: 1.2, price: 0.18, currency: EUR}}"
        )
    makers = _makers(Options(f"{FILE}: providers", config.providers), environment, classes)
    sites, fixed, feeds = [], list[Value](), list[Feed]()
    for key, tree in config.zones.items():
        # YAML 1.1 reads a bare NO, Norway, as false.
        zone = "NO" if key is False else key
        if not isinstance(zone, str) or not zone or not zone.isprintable():
            raise UsageError(f"{FILE}: zones: {key!r} is not the name of a zone; quote it")
        site, static, live = _zone(zone, Options(f"{FILE}: zones: {zone}", tree), makers)
        sites.append(site)
        fixed += [Value(zone, one.name, one.intensity(time.time())) for one in static]
        feeds += live
    snapshot = GridSnapshot(
        version=jobwatt.__version__,
        sites=tuple(sites),
        fixed=tuple(fixed),
        readings=tuple(Reading(feed.zone, feed.provider.name) for feed in feeds),
        budgets=config.account_budgets,
    )
    return Plan(snapshot, tuple(feeds))


def _makers(
    root: Options, environment: Mapping[str, str], classes: Mapping[str, MakerClass]
) -> dict[str, Maker]:
    makers = {}
    for name, make in classes.items():
        section = Options(f"{root.where}: {name}", root.value(name))
        makers[name] = make(section, environment)
        section.finish()
    root.finish()
    return makers


def _zone(
    zone: str, options: Options, makers: Mapping[str, Maker]
) -> tuple[Site, list[Provider], list[Feed]]:
    """Return what a zone says of itself, its fixed factors, and what is polled for it."""
    site = _site(zone, options)
    code = options.value("country")
    wanted = "NO" if code is False else options.text("country", zone)
    country = country_of(wanted)
    named = _named(options.value("providers"), options, tuple(makers))
    options.finish()
    factors, feeds = list[Provider](), list[Feed]()
    for name, own in named.items():
        provider, interval = makers[name].make(Place(zone, country), own), makers[name].interval
        own.finish()
        if interval is None:
            factors.append(provider)
        else:
            feeds.append(Feed(zone, provider, interval))
    if country is None and (code is not None or not factors):
        raise _unknown(wanted, options)
    # Whoever gives a factor knows better than the table.
    table: list[Provider] = [YearlyTable(country)] if country is not None else []
    return site, factors or table, feeds


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
