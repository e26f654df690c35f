"""The samples of the grid exporter's metrics, out of a snapshot and the time."""

from __future__ import annotations

from collections.abc import Iterator

from jobwatt.exposition import catalog
from jobwatt.exposition.catalog import MetricSpec
from jobwatt.exposition.samples import Row
from jobwatt.grid.board import GridSnapshot, Reading, shown
from jobwatt.grid.contract import Reason

__all__ = ["grid_samples"]


def grid_samples(snapshot: GridSnapshot, now: float) -> Iterator[tuple[MetricSpec, list[Row]]]:
    """Return the rows of every metric at a moment, Unix seconds."""
    yield (
        catalog.GRID_INTENSITY,
        [
            ((value.zone, value.provider, i.kind.value, i.boundary.value, i.year), i.grams_per_kwh)
            for value in shown(snapshot, now)
            for i in (value.intensity,)
        ],
    )
    sites = snapshot.sites
    yield catalog.SITE_PUE, [((site.zone,), site.pue) for site in sites if site.pue is not None]
    yield (
        catalog.SITE_PRICE,
        [((site.zone, site.currency), site.price) for site in sites if site.price is not None],
    )
    yield catalog.ACCOUNT_BUDGET, [((b.account, b.period), b.joules) for b in snapshot.budgets]
    readings = snapshot.readings
    yield catalog.GRID_UP, [(_labels(r), r.up) for r in readings if r.up is not None]
    yield (
        catalog.GRID_DATA_TIME,
        [
            (_labels(r), r.intensity.time)
            for r in readings
            if r.intensity is not None and r.intensity.time is not None
        ],
    )
    yield catalog.GRID_ERRORS, _errors(snapshot)
    yield catalog.BUILD_INFO, [((snapshot.version,), 1)]


def _labels(reading: Reading) -> tuple[str, str]:
    return reading.zone, reading.provider


def _errors(snapshot: GridSnapshot) -> list[Row]:
    """Return the failed attempts of each provider in all zones, also those that never happened."""
    totals = {(r.provider, reason.value): 0 for r in snapshot.readings for reason in Reason}
    for reading in snapshot.readings:
        for reason, count in reading.errors.items():
            totals[reading.provider, reason.value] += count
    return list(totals.items())
