"""The snapshot as JSON, for people's tools: what the page at `/` and `jobwatt top` show.

Served at `/api/v1/status`. Prometheus reads `/metrics`; this is the same snapshot in the units of
people (watts, joules, seconds), with powers and a short history, and without the processes that
matter least. Fields are added, never changed in meaning.

    version, time, interval, started    of the exporter; Unix seconds, seconds
    node        cpus, grid_zone, cpu_time_method, processes (how many live on the node)
    sources     [source, up, errors {reason: count}]
    devices     [component, device, source, model, power_watts, limit_watts, idle_watts,
                idle_method, energy_joules, idle_joules, unattributed_joules, other_joules,
                retired_joules, gap_seconds]
    processes   [pid, comm, user, job_uid, power_watts, energy_joules, components {name: joules}]
    health      sample_seconds, samples_missed, cpu_seconds, cpu_ratio, resident_bytes,
                checkpoint, series, series_dropped {reason: count}
    history     times [Unix seconds], devices {device: [watts]}

What is not known is null (`power_watts`, `limit_watts`, `idle_watts` with `idle_method`,
`checkpoint`, `cpu_ratio`, a point of the history). A device's `energy_joules` is the sum of its
idle, unattributed, other and retired joules and of all processes with a series, of which
`processes` names the live ones that use or have used the most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobwatt.model import Component
from jobwatt.snapshot import DeviceView, Health, HistoryPoint, SeriesView, Snapshot
from jobwatt.units import NS, joules, watts

__all__ = ["MOST_PROCESSES", "status"]

MOST_PROCESSES = 50
"""So many by power, and so many by energy, are named."""


def status(snapshot: Snapshot) -> dict[str, object]:
    """Return what a snapshot shows, ready for JSON; the module's docstring is its schema."""
    node, health = snapshot.node, snapshot.health
    active = [(i, view) for i, view in enumerate(snapshot.devices) if not view.resting]
    components = [view.device.component for view in snapshot.devices]
    return {
        "version": node.version,
        "time": snapshot.time,
        "interval": node.interval_seconds,
        "started": node.started,
        "node": {
            "cpus": node.cpus,
            "grid_zone": node.grid_zone,
            "cpu_time_method": node.cpu_time_method,
            "processes": health.processes,
        },
        "sources": _sources(health),
        "devices": [_device(view) for _, view in active],
        "processes": [_process(view, components) for view in _foremost(snapshot.series)],
        "health": {
            "sample_seconds": health.sample_seconds,
            "samples_missed": health.samples_missed,
            "cpu_seconds": health.cpu_seconds,
            "cpu_ratio": _ratio(health.cpu_seconds, snapshot.time - node.started),
            "resident_bytes": health.resident_bytes,
            "checkpoint": health.checkpoint,
            "series": len(snapshot.series),
            "series_dropped": dict(health.series_dropped),
        },
        "history": _history(active, snapshot.history),
    }


def _sources(health: Health) -> list[dict[str, object]]:
    """A source that has failed and is not known to be up counts as down."""
    errors: dict[str, dict[str, int]] = {source: {} for source in health.source_up}
    for (source, reason), count in health.source_errors.items():
        errors.setdefault(source, {})[reason] = count
    return [
        {"source": source, "up": health.source_up.get(source, False), "errors": by_reason}
        for source, by_reason in errors.items()
    ]


def _device(view: DeviceView) -> dict[str, object]:
    idle = view.idle_power
    return {
        "component": view.device.component.value,
        "device": view.device.name,
        "source": view.device.source.value,
        "model": view.device.model,
        "power_watts": _watts(view.power_uw),
        "limit_watts": _watts(view.limit_uw),
        "idle_watts": None if idle is None else watts(idle.uw),
        "idle_method": None if idle is None else idle.method.value,
        "energy_joules": joules(view.energy_uj),
        "idle_joules": joules(view.idle_uj),
        "unattributed_joules": joules(view.unattributed_uj),
        "other_joules": joules(view.other_uj),
        "retired_joules": joules(view.retired_uj),
        "gap_seconds": view.gap_ns / NS,
    }


def _foremost(series: Iterable[SeriesView]) -> list[SeriesView]:
    """Return the live ones of the highest power and of the highest energy, by power."""
    live = [(view, sum(view.energy_uj)) for view in series if view.alive]
    by_power = sorted(live, key=lambda item: (-item[0].power_uw, -item[1], item[0].labels.pid))
    # Those who have used most may sleep now; a list by energy must have them all the same.
    by_energy = sorted(live, key=lambda item: (-item[1], item[0].labels.pid))
    chosen = {id(view) for view, _ in by_power[:MOST_PROCESSES] + by_energy[:MOST_PROCESSES]}
    return [view for view, _ in by_power if id(view) in chosen]


def _process(view: SeriesView, components: Sequence[Component]) -> dict[str, object]:
    # Summed in microjoules, so that equal totals stay equal.
    uj: dict[str, int] = dict.fromkeys(map(str, components), 0)
    for component, amount in zip(components, view.energy_uj, strict=False):
        uj[component.value] += amount
    return {
        "pid": view.labels.pid,
        "comm": view.labels.comm,
        "user": view.labels.user,
        "job_uid": view.labels.job_uid,
        "power_watts": watts(view.power_uw),
        "energy_joules": joules(sum(view.energy_uj)),
        "components": {name: joules(amount) for name, amount in uj.items()},
    }


def _history(
    devices: Iterable[tuple[int, DeviceView]], points: Sequence[HistoryPoint]
) -> dict[str, object]:
    """Turn points in time into a row for each device; one that came later has no earlier power."""
    return {
        "times": [point.time for point in points],
        "devices": {
            view.device.name: [
                _watts(point.power_uw[index]) if index < len(point.power_uw) else None
                for point in points
            ]
            for index, view in devices
        },
    }


def _watts(power_uw: int | None) -> float | None:
    return None if power_uw is None else watts(power_uw)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
