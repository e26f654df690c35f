"""The grid exporter's page at `/`: zones, the value in use, who gives it, and how old it is.

Plain HTML without a script, made anew for each request; whatever a file or a provider says is
escaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import time
from collections.abc import Iterator
from functools import cache
from importlib import resources
from string import Template

from jobwatt.budgets import AccountBudget
from jobwatt.grid.board import GridSnapshot, Reading, Site, Value, in_use, shown
from jobwatt.grid.contract import Intensity
from jobwatt.grid.table import NAME as TABLE
from jobwatt.units import UJ, duration_text, energy_text

__all__ = ["CONTENT_SECURITY_POLICY", "grid_page"]

_NO_DIGITS = 100
_MINUTE = 60.0


def grid_page(snapshot: GridSnapshot, now: float, metrics_path: str) -> bytes:
    """Return the page at a moment, in UTF-8."""
    values = list(shown(snapshot, now))
    zones = [
        _zone(
            site,
            [value for value in values if value.zone == site.zone],
            [reading for reading in snapshot.readings if reading.zone == site.zone],
            now,
        )
        for site in snapshot.sites
    ]
    if snapshot.budgets:
        zones.append(_budgets(snapshot.budgets))
    text = Template(_source()).substitute(
        moment=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)),
        # "./" keeps a path with a colon from being read as a scheme.
        metrics=html.escape("./" + metrics_path.lstrip("/")),
        zones="\n".join(zones),
        version=html.escape(snapshot.version),
        table=TABLE,
    )
    return text.encode()


def _zone(site: Site, values: list[Value], readings: list[Reading], now: float) -> str:
    used = in_use(values)
    figure = "no value" if used is None else _grams(used.intensity)
    unit = "" if used is None else " <small>g/kWh</small>"
    about = [f"PUE {site.pue:g}"] if site.pue is not None else []
    about += [f"{site.price:g} {site.currency}/kWh"] if site.price is not None else []
    rows = [*_live(readings, values, used, now), *_fixed(readings, values, used)]
    return (
        f'<section>\n<div class="head"><div><h2>{html.escape(site.zone)}</h2>'
        f'<span class="soft">{html.escape(" · ".join(about))}</span></div>'
        f'<div class="now">{figure}{unit}</div></div>\n'
        '<table><thead><tr><th>provider</th><th class="number">g/kWh</th><th>kind</th>'
        "<th>age</th><th>state</th></tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table>"
        "\n</section>"
    )


def _live(
    readings: list[Reading], values: list[Value], used: Value | None, now: float
) -> Iterator[str]:
    current = {value.provider for value in values}
    for reading in readings:
        intensity = reading.intensity
        age, kind, figure = "", "", ""
        if intensity is not None:
            age = _age(max(0.0, now - (intensity.time or now)))
            kind = f"{intensity.kind.value}, {intensity.boundary.value}"
            figure = _grams(intensity)
        badges = [_badge("good", "in use")] if _is(used, reading.provider) else []
        if reading.up is None:
            badges.append(_badge("warn", "asking"))
        elif not reading.up:
            badges.append(_badge("bad", "down"))
        if intensity is not None and reading.provider not in current:
            badges.append(_badge("warn", "too old"))
        note = reading.error or (intensity.note if intensity is not None else "")
        yield _row(reading.provider, figure, kind, age, badges, note)


def _fixed(readings: list[Reading], values: list[Value], used: Value | None) -> Iterator[str]:
    live = {reading.provider for reading in readings}
    for value in values:
        if value.provider not in live:
            intensity = value.intensity
            kind = f"{intensity.kind.value}, {intensity.boundary.value}"
            badges = [_badge("good", "in use")] if _is(used, value.provider) else []
            figure = _grams(intensity)
            yield _row(value.provider, figure, kind, intensity.year, badges, intensity.note)


def _is(used: Value | None, provider: str) -> bool:
    return used is not None and used.provider == provider


def _row(provider: str, figure: str, kind: str, age: str, badges: list[str], note: str) -> str:
    style = ' class="used"' if any("in use" in badge for badge in badges) else ""
    cells = (html.escape(text) for text in (provider, figure, kind, age))
    first, number, *rest = cells
    return (
        f'<tr{style}><td>{first}</td><td class="number">{number}</td>'
        + "".join(f"<td>{text}</td>" for text in rest)
        + f'<td>{" ".join(badges)} <span class="soft why">{html.escape(note)}</span></td></tr>'
    )


def _badge(style: str, word: str) -> str:
    return f'<span class="badge {style}">{word}</span>'


def _age(seconds: float) -> str:
    return duration_text(seconds) if seconds >= _MINUTE else f"{seconds:.0f} s"


def _grams(intensity: Intensity) -> str:
    value = intensity.grams_per_kwh
    return f"{value:.0f}" if value >= _NO_DIGITS else f"{value:.1f}"


def _budgets(budgets: tuple[AccountBudget, ...]) -> str:
    rows = "\n".join(
        f"<tr><td>{html.escape(budget.account)}</td><td>each {budget.period}</td>"
        f'<td class="number">{energy_text(budget.joules * UJ)}</td></tr>'
        for budget in budgets
    )
    return (
        '<section>\n<h2>Budgets of accounts</h2>\n<table class="budgets">'
        "<thead><tr><th>account</th><th>period</th>"
        f'<th class="number">energy</th></tr></thead><tbody>\n{rows}\n</tbody></table>\n</section>'
    )


@cache
def _source() -> str:
    return resources.files("jobwatt.exposition").joinpath("grid_page.html").read_text("utf-8")


def _style_hash() -> str:
    (style,) = re.findall(r"<style>(.*?)</style>", _source(), re.DOTALL)
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{_style_hash()}'",
        "img-src data:",  # the icon
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The header `Content-Security-Policy` to send with the page."""
