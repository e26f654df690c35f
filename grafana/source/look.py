"""How panels look: colours, units, and each kind of panel as JobWatt has it."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_uppercase
from typing import Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import (
    barchart,
    common,
    dashboard,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TableCellHeight,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardSpecialValueMapOptions,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    SpecialValueMap,
    SpecialValueMatch,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

__all__ = [
    "BAD",
    "BYTES",
    "COMPONENTS",
    "COUNT",
    "GOOD",
    "IDLE",
    "NEUTRAL",
    "OTHER",
    "PROCESSES",
    "SECONDS",
    "SHARE",
    "SOURCE",
    "UNATTRIBUTED",
    "WARN",
    "WATTS",
    "WATT_HOURS",
    "Column",
    "bars",
    "columns",
    "course",
    "joined",
    "legend",
    "limits",
    "named",
    "nothing",
    "paint",
    "set_",
    "shades",
    "stacked",
    "states",
    "tiles",
    "value",
]

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
"""Whatever Prometheus is chosen above the panels."""

# Grafana's names of units.
WATTS, WATT_HOURS, SHARE, SECONDS, BYTES, COUNT, TEXT = (
    "watt",
    "watth",
    "percentunit",
    "s",
    "bytes",
    "short",
    "string",
)

# One colour a meaning, the same on every dashboard and on the exporter's own page.
COMPONENTS = {"cpu": "#3d7fd9", "dram": "#25a78c", "gpu": "#e1702b"}
PROCESSES, OTHER, IDLE, UNATTRIBUTED = "#8a6fe0", "#c3b0f7", "#8b95a1", "#e0b400"
NEUTRAL, GOOD, WARN, BAD = "text", "green", "orange", "red"


class _Panel(Protocol):
    """What the builders of all kinds of panels have in common."""

    def title(self, title: str, /) -> Self: ...
    def description(self, description: str, /) -> Self: ...
    def unit(self, unit: str, /) -> Self: ...
    def span(self, w: int, /) -> Self: ...
    def height(self, h: int, /) -> Self: ...
    def datasource(self, datasource: DataSourceRef, /) -> Self: ...
    def with_target(self, target: Dataquery, /) -> Self: ...


P = TypeVar("P", bound=_Panel)
Size = tuple[int, int]
"""Width in 24ths of the page, height in Grafana's rows."""


def _fill(
    panel: P, title: str, meaning: str, unit: str, size: Size, queries: tuple[Dataquery, ...]
) -> P:
    panel.title(title).description(meaning).unit(unit).span(size[0]).height(size[1])
    panel.datasource(SOURCE)
    for ref, query in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(query.ref_id(ref).datasource(SOURCE))
    return panel


# --- kinds of panels ----------------------------------------------------------------------------


def value(title: str, meaning: str, unit: str, size: Size, *queries: Dataquery) -> stat.Panel:
    """Return a panel with one large figure."""
    panel = _fill(stat.Panel(), title, meaning, unit, size, queries)
    panel.graph_mode(BigValueGraphMode.NONE).color_mode(BigValueColorMode.VALUE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return panel.color_scheme(_color(FieldColorModeId.THRESHOLDS)).thresholds(limits(NEUTRAL))


def tiles(title: str, meaning: str, unit: str, size: Size, *queries: Dataquery) -> stat.Panel:
    """Return a panel with a list of figures and their names."""
    panel = value(title, meaning, unit, size, *queries)
    return panel.orientation(VizOrientation.HORIZONTAL)


def course(
    title: str, meaning: str, unit: str, size: Size, *queries: Dataquery
) -> timeseries.Panel:
    """Return a panel with lines over time."""
    panel = _fill(timeseries.Panel(), title, meaning, unit, size, queries)
    panel.min(0).line_width(1.5).fill_opacity(8).show_points(VisibilityMode.NEVER)
    panel.tooltip(
        common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    )
    return panel.legend(legend())


def stacked(
    title: str, meaning: str, unit: str, size: Size, *queries: Dataquery
) -> timeseries.Panel:
    """Return a panel with areas that add up, over time."""
    panel = course(title, meaning, unit, size, *queries).line_width(0).fill_opacity(75)
    return panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))


def bars(
    title: str, meaning: str, unit: str, size: Size, by: str, *queries: Dataquery
) -> barchart.Panel:
    """Return a panel with a stacked bar for each value of the column `by`."""
    panel = _fill(barchart.Panel(), title, meaning, unit, size, queries)
    panel.x_field(by).orientation(VizOrientation.HORIZONTAL).stacking(StackingMode.NORMAL)
    panel.bar_width(0.75).fill_opacity(80).line_width(0).show_value(VisibilityMode.AUTO).min(0)
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.NONE))
    return panel.legend(legend(calcs=()))


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its name, and for figures their unit and decimals."""

    name: str
    unit: str = TEXT
    decimals: int = 1
    width: int | None = None

    def settings(self) -> list[DynamicConfigValue]:
        """Return how the column differs from a text as wide as there is room."""
        wide = [] if self.width is None else [set_("custom.width", self.width)]
        if self.unit == TEXT:
            return wide
        return [set_("unit", self.unit), set_("decimals", self.decimals), *wide]


def columns(
    title: str,
    meaning: str,
    size: Size,
    fields: dict[str, Column],
    *queries: Dataquery,
    sort: tuple[str, ...] = (),
    hidden: tuple[str, ...] = (),
) -> table.Panel:
    """Return a table of the rows of all queries, joined, with the columns of `fields`."""
    panel = _fill(table.Panel(), title, meaning, TEXT, size, queries)
    panel.cell_height(TableCellHeight.SM).no_value("–")
    names = {field: column.name for field, column in fields.items()}
    panel.transformations(joined(names, sort, hidden))
    for column in fields.values():
        if settings := column.settings():
            panel.override_by_name(column.name, settings)
    return panel


def states(
    title: str, meaning: str, unit: str, size: Size, *queries: Dataquery
) -> statetimeline.Panel:
    """Return a panel with a band of states over time for each series."""
    panel = _fill(statetimeline.Panel(), title, meaning, unit, size, queries)
    panel.show_value(VisibilityMode.NEVER).row_height(0.4).fill_opacity(75).line_width(0)
    return panel.legend(common.VizLegendOptions().show_legend(True).calcs([]))


# --- parts of panels ----------------------------------------------------------------------------


def joined(
    names: dict[str, str], sort: tuple[str, ...] = (), hidden: tuple[str, ...] = ()
) -> list[DataTransformerConfig]:
    """Return the steps that make one table of several queries' rows.

    Args:
        names: the name of each column, in order.
        sort: columns that order the rows, the most important first.
        hidden: columns that are not shown, beside the time.
    """
    places = {
        "excludeByName": dict.fromkeys(("Time", *hidden), True),
        "indexByName": {column: place for place, column in enumerate(names)},
        "renameByName": names,
    }
    return [
        DataTransformerConfig(id_val="merge", options={}),
        # Grafana sorts by one column at a time, and keeps the order of equals.
        *(
            DataTransformerConfig(id_val="sortBy", options={"sort": [{"field": column}]})
            for column in reversed(sort)
        ),
        DataTransformerConfig(id_val="organize", options=places),
    ]


def legend(
    placement: LegendPlacement = LegendPlacement.BOTTOM, calcs: tuple[str, ...] = ("mean",)
) -> common.VizLegendOptions:
    """Return a legend: a list below the panel, or a table on its right, greatest mean first."""
    right = placement is LegendPlacement.RIGHT
    mode = LegendDisplayMode.TABLE if right else LegendDisplayMode.LIST
    options = common.VizLegendOptions().show_legend(True).display_mode(mode)
    if right:
        options.sort_by("Mean").sort_desc(True)
    return options.placement(placement).calcs(list(calcs))


def limits(base: str, *steps: tuple[float, str]) -> dashboard.ThresholdsConfig:
    """Return thresholds: a colour, and others from some value on."""
    first = Threshold(value=None, color=base)
    others = [Threshold(value=start, color=color) for start, color in steps]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([first, *others])


def named(names: dict[str, tuple[str, str]]) -> ValueMap:
    """Return words for figures, each in its colour."""
    return ValueMap(options={v: ValueMappingResult(text=t, color=c) for v, (t, c) in names.items()})


def nothing(text: str) -> SpecialValueMap:
    """Return a word, in red, for what is not a number."""
    result = ValueMappingResult(text=text, color=BAD)
    options = DashboardSpecialValueMapOptions(match=SpecialValueMatch.NULL_AND_NAN, result=result)
    return SpecialValueMap(options=options)


def set_(name: str, setting: object) -> DynamicConfigValue:
    """Return one setting of an override."""
    return DynamicConfigValue(id_val=name, value=setting)


def paint(color: str) -> DynamicConfigValue:
    """Return the setting for one fixed colour."""
    return set_("color", {"mode": "fixed", "fixedColor": color})


def shades(color: str) -> DynamicConfigValue:
    """Return the setting for shades of one colour, one a series."""
    return set_("color", {"mode": "shades", "fixedColor": color})


def _color(mode: FieldColorModeId) -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(mode)
