"""Can what is shown be trusted? A row on devices, sources, failures and the exporter's own cost."""

from __future__ import annotations

from grafana_foundation_sdk.builders import stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.models.dashboard import ValueMap, ValueMappingResult

from jobwatt.exposition import catalog
from look import (
    BAD,
    BYTES,
    COUNT,
    GOOD,
    SECONDS,
    SHARE,
    WARN,
    WATTS,
    Column,
    columns,
    course,
    limits,
    set_,
    states,
    tiles,
)
from queries import increase, instant, over_time, own, rate, rows, select, total, zero_without

__all__ = ["add_health"]

COST = (6, 6)


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
    return columns(
        "Devices",
        "What is measured, and from what. Idle power is configured, observed in quiet seconds, or "
        "fitted from power against use; until it is known, idle energy counts as 0.",
        (14, 8),
        fields,
        rows(f"sum by (component, device, source) ({select(catalog.DEVICE_POWER)})"),
        rows(f"max by (component, device) ({select(catalog.DEVICE_POWER_LIMIT)})"),
        rows(f"max by (component, device, method) ({select(catalog.DEVICE_IDLE_POWER)})"),
        rows(f"max by (component, device, model) ({select(catalog.DEVICE_INFO)})"),
        sort=("component", "device"),
        hidden=("component", "Value #D"),
    )


def _sources() -> statetimeline.Panel:
    panel = states(
        "Sources over time",
        "Whether every device of a source was read.",
        "bool_on_off",
        (5, 8),
        over_time(total(select(catalog.SOURCE_UP), "source"), "{{source}}"),
    )
    up, down = ValueMappingResult(text="up", color=GOOD), ValueMappingResult(text="down", color=BAD)
    return panel.mappings([ValueMap(options={"1": up, "0": down})])


def _trouble() -> stat.Panel:
    counts = {
        "reads failed": zero_without(total(increase(catalog.SOURCE_ERRORS))),
        "samples missed": total(increase(catalog.SAMPLES_MISSED)),
        "counters reset": total(increase(catalog.METER_RESETS)),
        "series dropped": total(increase(catalog.SERIES_DROPPED)),
        "not known for sure": total(increase(catalog.METER_GAP)),
    }
    panel = tiles(
        "Trouble in the range",
        "What went wrong over the range: all 0 on a healthy node. The energy of missed samples is "
        "in the next sample; that of gaps is unattributed.",
        COUNT,
        (5, 8),
        *(instant(expr, name) for name, expr in counts.items()),
    )
    panel.decimals(0).thresholds(limits(GOOD, (0.5, WARN)))
    return panel.override_by_name("not known for sure", [set_("unit", SECONDS)])


def _failures() -> timeseries.Panel:
    panel = course(
        "Failed reads and missed samples",
        "Readings that failed, by source and reason, and samples that were not taken in time.",
        COUNT,
        COST,
        over_time(
            total(
                f"increase({select(catalog.SOURCE_ERRORS)}[$__rate_interval])", "source", "reason"
            ),
            "{{source}}: {{reason}}",
        ),
        over_time(total(f"increase({select(catalog.SAMPLES_MISSED)}[$__rate_interval])"), "missed"),
    )
    return panel.axis_soft_max(1).decimals(0)


def _duration() -> timeseries.Panel:
    return course(
        "Time a sample takes",
        "From reading the first device to publishing the figures.",
        SECONDS,
        COST,
        over_time(total(select(catalog.SAMPLE_DURATION)), "sample"),
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
