"""What every dashboard has around its panels: name, variables, links."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from jobwatt.exposition import catalog
from look import SOURCE

__all__ = ["TAG", "by_cluster", "by_node", "frame"]

TAG = "jobwatt"
"""All of JobWatt's dashboards have it, and the menu of links is made of it."""

KNOWN = catalog.BUILD_INFO.name
"""A metric that every node has, once."""


def frame(name: str, title: str, question: str) -> Dashboard:
    """Return a dashboard without panels; its uid, and so its address, comes from its name."""
    board = Dashboard(title).uid(f"{TAG}-{name}").tags([TAG]).description(question)
    board.time("now-1h", "now").refresh("30s").timezone("browser")
    board.tooltip(DashboardCursorSync.CROSSHAIR)
    return board.with_variable(_datasource()).link(_menu())


def by_cluster(board: Dashboard) -> Dashboard:
    """Let the reader choose clusters; with Prometheus' own label for them, where there is one."""
    return board.with_variable(
        QueryVariable("cluster")
        .label("Cluster")
        .description("Prometheus' own label. All where there is none.")
        .datasource(SOURCE)
        .query(f"label_values({KNOWN}, cluster)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def by_node(board: Dashboard) -> Dashboard:
    """Let the reader choose one node."""
    return by_cluster(board).with_variable(
        QueryVariable("instance")
        .label("Node")
        .description("The node whose energy is shown.")
        .datasource(SOURCE)
        .query(f'label_values({KNOWN}{{cluster=~"$cluster"}}, instance)')
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
    )


def _datasource() -> DatasourceVariable:
    return (
        DatasourceVariable("datasource")
        .label("Prometheus")
        .description("The Prometheus that scrapes JobWatt.")
        .type("prometheus")
        .current(VariableOption(selected=True, text="Prometheus", value="prometheus"))
    )


def _menu() -> DashboardLink:
    menu = DashboardLink("JobWatt").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    menu.tooltip("JobWatt's dashboards, for the same time and node")
    return menu.as_dropdown(True).keep_time(True).include_vars(True)
