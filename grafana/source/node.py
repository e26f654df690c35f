"""The dashboard *Node*: where does this node's energy go, now and in the range?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import barchart, stat, table, timeseries
from grafana_foundation_sdk.builders.common import TableSortByFieldState
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.models.common import (
    BigValueTextMode,
    LegendPlacement,
    VizOrientation,
)

from frame import by_node, frame
from health import add_health
from jobwatt.exposition import catalog
from kinds import KINDS, kind, paint_kinds
from look import (
    BAD,
    COMPONENTS,
    GOOD,
    OTHER,
    PROCESSES,
    SHARE,
    WARN,
    WATT_HOURS,
    WATTS,
    Column,
    bars,
    columns,
    course,
    joined,
    legend,
    limits,
    named,
    paint,
    set_,
    shades,
    stacked,
    value,
)
from queries import (
    STALE_SECONDS,
    above_zero,
    age,
    fresh,
    increase,
    instant,
    measured,
    or_minus_one,
    or_nan,
    over_time,
    power,
    rows,
    seen,
    select,
    state,
    total,
    watt_hours,
    watts,
)

__all__ = ["build"]

ENERGY = catalog.DEVICE_ENERGY
DEVICE = ("component", "device")
PROCESS = ("pid", "comm", "user", "job_uid")
TOP_LINES, TOP_ROWS = 10, 20


def build() -> Dashboard:
    """Return the dashboard."""
    board = by_node(frame("node", "JobWatt / Node", "Where does this node's energy go?"))
    figures = (_power(), _energy(), _idle(), _unattributed(), _last_sample(), _sources(), _origin())
    for panel in figures:
        board.with_panel(panel)
    board.with_row(Row("Power"))
    for lines in (_power_by_kind(), _power_by_device(), _top_by_power()):
        board.with_panel(lines)
    board.with_row(Row("Energy in the range"))
    board.with_panel(_energy_by_device()).with_panel(_top_by_energy())
    return add_health(board)


# --- first row: the answer in figures -----------------------------------------------------------

WIDE, NARROW = (4, 4), (3, 4)
NOT_KNOWN = "not known"
UNKNOWN = named({"-1": (NOT_KNOWN, BAD)})


def _power() -> stat.Panel:
    panel = value(
        "Power now",
        "Power of all measured devices at the last scrape. Fans, disks, network cards and the "
        "power supply's losses are not among them. Not known where there is no sample of the last "
        f"{STALE_SECONDS} s.",
        WATTS,
        NARROW,
        instant(or_minus_one(total(power())), "power"),
    )
    return panel.mappings([UNKNOWN])


def _energy() -> stat.Panel:
    panel = value(
        "Energy in the range",
        "Energy of all measured devices over the range that is chosen above. 1 Wh is 3,600 J.",
        WATT_HOURS,
        WIDE,
        instant(watt_hours(total(increase(ENERGY))), "energy"),
    )
    return panel.decimals(1).no_value(NOT_KNOWN)


def _idle() -> stat.Panel:
    share = f"{total(increase(catalog.DEVICE_IDLE_ENERGY))} / {total(increase(ENERGY))}"
    panel = value(
        "Idle share",
        "Part of the range's energy that the devices would have used without any work. A device "
        "counts as 0 as long as its idle power is not known.",
        SHARE,
        NARROW,
        instant(f"{share} and on () {seen(catalog.DEVICE_IDLE_POWER)}", "idle"),
    )
    return panel.decimals(1).thresholds(limits(GOOD, (0.6, WARN))).no_value(NOT_KNOWN)


def _unattributed() -> stat.Panel:
    share = f"{total(increase(catalog.DEVICE_UNATTRIBUTED_ENERGY))} / {total(increase(ENERGY))}"
    panel = value(
        "Unattributed",
        "Part of the range's energy that was spent on work, but on nobody's that is known: a gap "
        "in the readings, or processes that no sample saw.",
        SHARE,
        NARROW,
        instant(share, "unattributed"),
    )
    panel.decimals(1).thresholds(limits(GOOD, (0.05, WARN), (0.2, BAD)))
    return panel.no_value(NOT_KNOWN)


def _last_sample() -> stat.Panel:
    panel = value(
        "Last sample",
        "Whether the exporter answers and samples, and how old its last sample is, by the clocks "
        "of the node and of Prometheus. Stalled: it answers, but shows the same sample for "
        f"{STALE_SECONDS} s or more.",
        "suffix: s ago",
        WIDE,
        instant(f"{state()} or on () vector(0)", "exporter"),
        instant(or_minus_one(age()), "last sample"),
    )
    panel.decimals(0).thresholds(limits(GOOD, (STALE_SECONDS / 2, WARN), (STALE_SECONDS, BAD)))
    panel.text_mode(BigValueTextMode.VALUE).orientation(VizOrientation.HORIZONTAL)
    panel.mappings([named({"-1": ("none in the range", BAD)})])
    says = named({"0": ("does not answer", BAD), "1": ("sampling", GOOD), "2": ("stalled", BAD)})
    return panel.override_by_name("exporter", [set_("mappings", [says])])


def _sources() -> stat.Panel:
    down = total(fresh(f"(1 - {select(catalog.SOURCE_UP)})"))
    panel = value(
        "Sources",
        "Sources with a device that could not be read at the last sample: see Sources and health.",
        "suffix: down",
        NARROW,
        # What the exporter does instead of telling: below 0.
        instant(f"{down} or on () ({state()} or on () vector(0)) - 3", "sources down"),
    )
    instead = {"-3": ("no answer", BAD), "-2": ("none", WARN), "-1": ("stalled", BAD)}
    panel.mappings([named({"0": ("all up", GOOD), **instead})])
    return panel.decimals(0).thresholds(limits(GOOD, (1, BAD)))


def _origin() -> stat.Panel:
    panel = value(
        "Power by source",
        "Where the figures come from. Orange is not measured: estimated from the CPU's model and "
        "use, or simulated.",
        WATTS,
        WIDE,
        instant(or_minus_one(total(power(), "source")), "{{source}}"),
    )
    panel.text_mode(BigValueTextMode.VALUE_AND_NAME).thresholds(limits(GOOD))
    panel.mappings([UNKNOWN])
    return panel.override_by_regexp("/^(estimate|simulated)$/", [paint(WARN)])


# --- power over time ----------------------------------------------------------------------------


def _power_by_kind() -> timeseries.Panel:
    panel = stacked(
        "Where the power goes",
        "The power of all devices, in full: idle; the processes that have series of their own; all "
        "other processes, alive or gone; and what is nobody's. Nothing is spread. A device that "
        "cannot be read is left out, and nothing is drawn while the exporter has stalled; what was "
        "used meanwhile is in the energy of the range.",
        WATTS,
        (12, 9),
        *(over_time(kind(name, watts), name) for name in KINDS),
    )
    return paint_kinds(panel)


def _power_by_device() -> timeseries.Panel:
    panel = course(
        "Power by device",
        "Mean power of each device; a gap where it was not read. Dashed: its enforced limit, where "
        "it has one. Blue is CPU, green is DRAM, orange is GPU.",
        WATTS,
        (12, 9),
        over_time(or_nan(total(measured(), "device"), select(ENERGY), "device"), "{{device}}"),
        over_time(f"max by (device) ({select(catalog.DEVICE_POWER_LIMIT)})", "{{device}} limit"),
    )
    # A device's name tells its component; a GPU's is its UUID or PCI address.
    panel.override_by_regexp("/./", [shades(COMPONENTS["gpu"])])
    panel.override_by_regexp("/^package-/", [shades(COMPONENTS["cpu"])])
    panel.override_by_regexp("/^dram-/", [shades(COMPONENTS["dram"])])
    return panel.override_by_regexp(
        "/ limit$/",
        [
            set_("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}),
            set_("custom.lineWidth", 1),
            set_("custom.fillOpacity", 0),
            set_("custom.hideFrom", {"legend": True, "tooltip": False, "viz": False}),
        ],
    )


def _top_by_power() -> timeseries.Panel:
    each = total(watts(catalog.PROCESS_ENERGY), *PROCESS)
    # The same ten at every step: a topk of each step would change its members along the way.
    most = f"topk({TOP_LINES}, {total(increase(catalog.PROCESS_ENERGY, '@ end()'), *PROCESS)})"
    top = f"{each} and {most}"
    everyone = f"{kind('processes', watts)} + {kind('other processes', watts)}"
    panel = stacked(
        "Top processes by power",
        f"The {TOP_LINES} processes that used most energy in the range, and everybody else: "
        "together the power of all processes. A process that ends falls to 0 and its line leaves "
        "two minutes later. Devices that cannot be read are left out.",
        WATTS,
        (24, 10),
        over_time(top, "{{comm}} {{pid}} · {{user}} · {{job_uid}}"),
        over_time(above_zero(f"{everyone} - ({total(top)} or vector(0))"), "everybody else"),
    )
    panel.legend(legend(LegendPlacement.RIGHT, ("mean", "max", "lastNotNull")))
    return panel.override_by_name("everybody else", [paint(OTHER)])


# --- energy in the range ------------------------------------------------------------------------


def _energy_by_device() -> barchart.Panel:
    panel = bars(
        "Energy by device",
        "Energy of each device over the range, and where it went. Idle, unattributed and processes "
        "add up to what was measured.",
        WATT_HOURS,
        (8, 13),
        "device",
        *(rows(watt_hours(f"({kind(name, increase, *DEVICE)})")) for name in KINDS),
    )
    names = {f"Value #{ref}": name for ref, name in zip("ABCD", KINDS, strict=True)}
    panel.transformations(joined({"device": "device", **names}, DEVICE, ("component",)))
    return paint_kinds(panel).decimals(1)


def _top_by_energy() -> table.Panel:
    joules = total(increase(catalog.PROCESS_ENERGY), *PROCESS)
    top = f"topk({TOP_ROWS}, {joules} > 0)"
    fields = {
        "comm": Column("Process", width=135),
        "pid": Column("PID", width=70),
        "user": Column("User", width=80),
        "job_uid": Column("Job"),
        "Value #B": Column("Power now", WATTS, width=95),
        "Value #C": Column("Share", SHARE, width=70),
        "Value #A": Column("Energy", WATT_HOURS, width=230),
    }
    panel = columns(
        "Top processes by energy",
        f"The {TOP_ROWS} processes that used most energy in the range, also those that have ended. "
        "A process is listed once it has used 10 J; what came before its first scrape is missing "
        "here, but not in Energy by device. Share is of the node's energy, idle included.",
        (16, 13),
        fields,
        rows(watt_hours(top)),
        rows(f"{total(watts(catalog.PROCESS_ENERGY), *PROCESS)} and {top}"),
        rows(f"{top} / scalar({total(increase(ENERGY))})"),
    )
    panel.sort_by([TableSortByFieldState().display_name("Energy").desc(True)])
    bar = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
    return panel.override_by_name(
        "Energy",
        [
            set_("custom.cellOptions", bar),
            set_("fieldMinMax", True),
            set_("min", 0),
            paint(PROCESSES),
        ],
    )
