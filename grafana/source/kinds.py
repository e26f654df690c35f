"""Where energy goes: to processes, to idle, to nobody; the terms of the exporter's identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from grafana_foundation_sdk.builders import barchart, timeseries

from jobwatt.exposition import catalog
from jobwatt.exposition.catalog import MetricSpec
from look import IDLE, OTHER, PROCESSES, UNATTRIBUTED, paint
from queries import above_zero, total

__all__ = ["KINDS", "kind", "paint_kinds"]

P = TypeVar("P", timeseries.Panel, barchart.Panel)

KINDS = {
    "idle": IDLE,
    "processes": PROCESSES,
    "other processes": OTHER,
    "unattributed": UNATTRIBUTED,
}
"""Their colours, in the order in which they are piled up."""

COUNTERS = {
    "idle": catalog.DEVICE_IDLE_ENERGY,
    "other processes": catalog.PROCESS_OTHER_ENERGY,
    "unattributed": catalog.DEVICE_UNATTRIBUTED_ENERGY,
}


def kind(name: str, of: Callable[[MetricSpec], str], *by: str) -> str:
    """Return one kind's rate or increase.

    The processes with series are the rest of the device's energy: by the identity of the page that
    is exact, where a sum over their series misses each one's first sample and all retired ones.
    """
    if name in COUNTERS:
        return total(of(COUNTERS[name]), *by)
    others = " - ".join(total(of(counter), *by) for counter in COUNTERS.values())
    return above_zero(f"{total(of(catalog.DEVICE_ENERGY), *by)} - {others}")


def paint_kinds(panel: P) -> P:
    """Give each kind its colour."""
    for name, color in KINDS.items():
        panel.override_by_name(name, [paint(color)])
    return panel
