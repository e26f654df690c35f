"""Can what is shown be trusted? A row on devices, sources, failures and the exporter's own cost."""

from __future__ import annotations

from grafana_foundation_sdk.builders import stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from jobwatt.exposition import catalog
from look import (
    BAD,
    BYTES,
    COUNT,
    GOOD,
    NEUTRAL,
    SECONDS,
    SHARE,
    WARN,
    WATTS,
    Column,
    columns,
    course,
    legend,
    limits,
    named,
    nothing,
    paint,
    set_,
    states,
    tiles,
)
from queries import (
    STALE_SECONDS,
    age,
    failed_scrapes,
    fresh,
    increase,
    instant,
    or_nan,
    over_time,
    own,
    power,
    rate,
    rows,
    seen,
    select,
    state,
    total,
    zero_without,
)

__all__ = ["add_health"]

EVENTS, COST = (9, 6), (5, 6)


def add_health(board: Dashboard) -> Dashboard:
    """Add the row."""
    board.with_row(Row("Sources and health"))
    board.with_panel(_devices()).with_panel(_sources()).with_panel(_trouble())
    for panel in (_failures(), _duration(), _cpu(), _memory()):
        board.with_panel(panel)
    return board


def _devices() -> table.Panel:
    fields = {
        "device": Column("Device", width=100),
        "model": Column("Model"),
        "source": Column("Source", width=100),
        "Value #A": Column("Power now", WATTS, width=100),
        "Value #B": Column("Limit", WATTS, width=90),
        "Value #C": Column("Idle power", WATTS, width=100),
        "method": Column("Idle power is", width=110),
    }
    device = ("component", "device", "source")
    panel = columns(
        "Devices",
        "What is measured, and from what. A device that is not read has no power now, which is not "
        "0 W. Idle power is configured, observed in quiet seconds, or fitted from power against "
        "use; until it is known, idle energy counts as 0.",
        (14, 10),
        fields,
        rows(or_nan(total(power(), *device), seen(catalog.DEVICE_ENERGY), *device)),
        rows(f"max by (component, device) ({select(catalog.DEVICE_POWER_LIMIT)})"),
        rows(f"max by (component, device, method) ({select(catalog.DEVICE_IDLE_POWER)})"),
        rows(f"max by (component, device, model) ({seen(catalog.DEVICE_INFO)})"),
        sort=("component", "device"),
        hidden=("component", "Value #D"),
    )
    colored = {"type": "color-text"}
    return panel.override_by_name(
        "Power now",
        [
            set_("mappings", [nothing("not read")]),
            set_("custom.cellOptions", colored),
            paint(NEUTRAL),
        ],
    )


def _sources() -> statetimeline.Panel:
    panel = states(
        "Sources over time",
        "Whether every device of a source was read, and whether the exporter answered (else down) "
        "and sampled (else stalled).",
        "bool_on_off",
        (5, 10),
        over_time(total(fresh(select(catalog.SOURCE_UP)), "source"), "{{source}}"),
        over_time(state(), "exporter"),
    )
    return panel.mappings([named({"1": ("up", GOOD), "0": ("down", BAD), "2": ("stalled", WARN)})])


def _trouble() -> stat.Panel:
    late = f"({age()})"
    counts = {
        "scrapes failed": failed_scrapes(),
        "last sample late by": f"{late} * ({late} >= bool {STALE_SECONDS})",
        "reads failed": zero_without(total(increase(catalog.SOURCE_ERRORS))),
        "samples missed": total(increase(catalog.SAMPLES_MISSED)),
        "counters reset": total(increase(catalog.METER_RESETS)),
        "series dropped": total(increase(catalog.SERIES_DROPPED)),
        "not known for sure": total(increase(catalog.METER_GAP)),
    }
    panel = tiles(
        "Trouble in the range",
        "What went wrong over the range, as far as the exporter answered: all 0 on a healthy node. "
        "The energy of missed samples is in the next sample; that of gaps is unattributed.",
        COUNT,
        (5, 10),
        *(instant(expr, name) for name, expr in counts.items()),
    )
    panel.decimals(0).thresholds(limits(GOOD, (0.5, WARN))).no_value("not known")
    return panel.override_by_regexp("/ late by$|^not known /", [set_("unit", SECONDS)])


def _failures() -> timeseries.Panel:
    kinds = ("source", "reason")
    failed = total(f"increase({select(catalog.SOURCE_ERRORS)}[$__rate_interval])", *kinds)
    missed = f"increase({select(catalog.SAMPLES_MISSED)}[$__rate_interval])"
    ever = total(increase(catalog.SOURCE_ERRORS, "@ end()"), *kinds)
    none = f"0 * {total(select(catalog.BUILD_INFO))}"
    for label, word in (("source", "reads"), ("reason", "failed")):
        none = f'label_replace({none}, "{label}", "{word}", "", "")'
    panel = course(
        "Failed reads and missed samples",
        "Readings that failed, by source and reason where there were any in the range, and samples "
        "that were not taken in time.",
        COUNT,
        EVENTS,
        over_time(f"{failed} and {ever} > 0 or on () {none}", "{{source}} {{reason}}"),
        over_time(total(missed), "samples missed"),
    )
    return panel.legend(legend(calcs=())).axis_soft_max(1).decimals(0)


def _duration() -> timeseries.Panel:
    return course(
        "Time a sample takes",
        "From reading the first device to publishing the figures.",
        SECONDS,
        COST,
        over_time(total(fresh(select(catalog.SAMPLE_DURATION))), "sample"),
    )


def _cpu() -> timeseries.Panel:
    return course(
        "Exporter: CPU",
        "CPU time that JobWatt itself uses, of one core.",
        SHARE,
        COST,
        over_time(total(own(rate(catalog.PROCESS_CPU))), "CPU"),
    )


def _memory() -> timeseries.Panel:
    return course(
        "Exporter: memory",
        "Resident memory of JobWatt itself.",
        BYTES,
        COST,
        over_time(total(own(select(catalog.PROCESS_MEMORY))), "resident"),
    )
