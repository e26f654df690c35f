"""What panels ask: PromQL around the catalog's names, for the node that is chosen above them."""

from __future__ import annotations

from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from jobwatt.exposition import catalog
from jobwatt.exposition.catalog import MetricSpec

__all__ = [
    "above_zero",
    "increase",
    "instant",
    "over_time",
    "own",
    "rate",
    "rows",
    "select",
    "total",
    "watt_hours",
    "zero_without",
]

NODE = 'cluster=~"$cluster",instance="$instance"'
"""The chosen node. Where Prometheus knows no clusters, All (`.*`) matches their absence."""


# --- expressions --------------------------------------------------------------------------------


def select(metric: MetricSpec) -> str:
    """Return the metric's series of the chosen node."""
    return f"{metric.name}{{{NODE}}}"


def rate(metric: MetricSpec) -> str:
    """Return a counter's change a second: of joules, watts."""
    return f"rate({select(metric)}[$__rate_interval])"


def increase(metric: MetricSpec, at: str = "") -> str:
    """Return a counter's growth over the chosen range; `at` pins it, e.g. to `@ end()`."""
    return f"increase({select(metric)}[$__range]{f' {at}' if at else ''})"


def total(expr: str, *by: str) -> str:
    """Return the sum, apart for each value of some labels."""
    return f"sum by ({', '.join(by)}) ({expr})" if by else f"sum({expr})"


def watt_hours(expr: str) -> str:
    """Return joules in the unit of the electricity bill."""
    return f"{expr} / 3600"


def above_zero(expr: str) -> str:
    """Return a difference that rounding may not turn negative."""
    return f"clamp_min({expr}, 0)"


def zero_without(expr: str) -> str:
    """Return 0 where the exporter has nothing to count; a node that is not scraped stays empty."""
    return f"{expr} or 0 * sum({select(catalog.BUILD_INFO)})"


def own(expr: str) -> str:
    """Return what is the exporter's own: other programs have `process_…` of the same name."""
    return f"{expr} and on (cluster, job, instance) {select(catalog.BUILD_INFO)}"


# --- queries ------------------------------------------------------------------------------------


def over_time(expr: str, legend: str) -> Dataquery:
    """Ask for the course of something over the range."""
    return Dataquery().expr(expr).legend_format(legend).range()


def instant(expr: str, legend: str) -> Dataquery:
    """Ask for the value at the end of the range."""
    return Dataquery().expr(expr).legend_format(legend).instant()


def rows(expr: str) -> Dataquery:
    """Ask for one table row a series, its labels as columns, at the end of the range."""
    return Dataquery().expr(expr).legend_format("").instant().format(PromQueryFormat.TABLE)
