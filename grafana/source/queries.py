"""What panels ask: PromQL around the catalog's names, for the node that is chosen above them."""

from __future__ import annotations

from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from jobwatt.exposition import catalog
from jobwatt.exposition.catalog import MetricSpec

__all__ = [
    "STALE_SECONDS",
    "above_zero",
    "age",
    "failed_scrapes",
    "fresh",
    "increase",
    "instant",
    "measured",
    "or_minus_one",
    "or_nan",
    "over_time",
    "own",
    "power",
    "rate",
    "rows",
    "seen",
    "select",
    "state",
    "total",
    "watt_hours",
    "watts",
    "zero_without",
]

NODE = 'cluster=~"$cluster",instance="$instance"'
"""The chosen node. Where Prometheus knows no clusters, All (`.*`) matches their absence."""

UP = f"up{{{NODE}}}"
"""Prometheus' own series: whether a scrape was answered. Other targets may have the same node."""

TARGET = "cluster, job, instance"
"""What tells one exporter from all else that Prometheus scrapes."""

STALE_SECONDS = 120
"""From this age on a sample is not shown as now: the slowest settings, a sample and a scrape every
60 s each, come to it."""


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


def seen(metric: MetricSpec, at: str = "") -> str:
    """Return a metric's last values within the range, also after the exporter has stopped."""
    return f"last_over_time({select(metric)}[$__range]{f' {at}' if at else ''})"


def zero_without(expr: str) -> str:
    """Return 0 where the exporter had nothing to count; a node without any data stays empty."""
    return f"{expr} or on () 0 * sum({seen(catalog.BUILD_INFO)})"


def own(expr: str) -> str:
    """Return what is the exporter's own: other programs have `process_…` of the same name."""
    return f"{expr} and on ({TARGET}) {select(catalog.BUILD_INFO)}"


# --- what is true now ---------------------------------------------------------------------------


def age() -> str:
    """Return how old the last sample is, in seconds; it goes on growing when the exporter stops."""
    return f"time() - max({seen(catalog.LAST_SAMPLE)})"


def fresh(expr: str) -> str:
    """Return what is of a recent sample: a stalled exporter goes on showing its last figures."""
    recent = f"time() - {select(catalog.LAST_SAMPLE)} < {STALE_SECONDS}"
    return f"{expr} and on ({TARGET}) ({recent})"


def state() -> str:
    """Return 0 where the exporter does not answer, 1 where it samples, 2 where it has stalled."""
    stalled = f"time() - max({select(catalog.LAST_SAMPLE)}) >= bool {STALE_SECONDS}"
    return f"1 + ({stalled}) or 0 * max({_of_exporter(UP, '@ end()')})"


def failed_scrapes() -> str:
    """Return how many scrapes of the range the exporter did not answer."""
    all_, good = (f"{count}_over_time({UP}[$__range])" for count in ("count", "sum"))
    return f"sum({_of_exporter(f'{all_} - {good}')})"


def _of_exporter(expr: str, at: str = "") -> str:
    """Return what of Prometheus' own series about scrapes is about the exporter."""
    return f"{expr} and on ({TARGET}) {seen(catalog.BUILD_INFO, at)}"


def or_minus_one(expr: str) -> str:
    """Return -1 instead of nothing, for a panel that has a word for it: no figure here is below 0.

    NaN would be the better figure, but of what is not a number Grafana makes "No data".
    """
    return f"{expr} or on () vector(-1)"


def or_nan(expr: str, energy: str, *by: str) -> str:
    """Return NaN for devices that have energy but nothing else: a word in a table, a gap in a line.

    Where a series is merely absent Grafana may join what is before and after.
    """
    return f"{expr} or NaN * group by ({', '.join(by)}) ({energy})"


# --- power --------------------------------------------------------------------------------------


def power() -> str:
    """Return each device's power at the last sample; of one that was not read there is none."""
    return fresh(select(catalog.DEVICE_POWER))


def measured() -> str:
    """Return each device's mean power around each point; one that was not read has a gap there."""
    gauge = select(catalog.DEVICE_POWER)
    return fresh(f"avg_over_time({gauge}[$__rate_interval]) and {gauge}")


def watts(metric: MetricSpec) -> str:
    """Return the power that a counter of energy by device tells.

    Joules are divided by the time that the samples cover, not by Prometheus': what an exporter
    that had stalled adds at once was spent since its last sample. While it stands there is nothing.
    A device that some scrape saw unread is left out until the window holds readings alone: what it
    adds then was spent before the window.
    """
    window = "[$__rate_interval]"
    joules = f"increase({select(metric)}{window})"
    seconds = f"max by ({TARGET}) (delta({select(catalog.LAST_SAMPLE)}{window})) > 0"
    read, there = (
        f"max by ({TARGET}, device) (count_over_time({select(m)}{window}))"
        for m in (catalog.DEVICE_POWER, catalog.DEVICE_ENERGY)
    )
    mean = f"{joules} / on ({TARGET}) group_left () ({seconds})"
    return f"{mean} and on ({TARGET}, device) ({read} == {there})"


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
