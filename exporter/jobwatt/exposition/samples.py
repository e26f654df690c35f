"""The samples of every metric in the catalog, out of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jobwatt.exposition import catalog
from jobwatt.exposition.catalog import MetricSpec
from jobwatt.model import Component, Device
from jobwatt.snapshot import DeviceView, SeriesLabels, Snapshot
from jobwatt.units import NS, joules, watts

__all__ = ["Row", "process_labels", "process_rows", "samples"]

Row = tuple[tuple[str, ...], float]
"""Label values in the catalog's order, and the value."""


def samples(snapshot: Snapshot) -> Iterator[tuple[MetricSpec, list[Row]]]:
    """Return the rows of every metric but the processes' energy, which `process_rows` has."""
    yield from _device_samples(snapshot.devices)
    yield (
        catalog.RAPL_ENERGY,
        [((d.domain, d.package), joules(uj)) for d, uj in snapshot.domains_uj],
    )
    yield catalog.NODE_CPUS, [((), snapshot.node.cpus)]
    yield catalog.NODE_INFO, [((snapshot.node.grid_zone,), 1)]
    yield from _health_samples(snapshot)


def process_labels(labels: SeriesLabels, device: Device) -> tuple[str, ...]:
    """Return the label values of one process's series on one device."""
    return (str(labels.pid), labels.comm, labels.user, labels.job_uid, *_with_source(device))


def process_rows(snapshot: Snapshot) -> list[Row]:
    """Return the rows of the processes' energy."""
    return [
        (process_labels(series.labels, view.device), joules(uj))
        for series in snapshot.series
        for view, uj in zip(snapshot.devices, series.energy_uj, strict=False)
    ]


def _plain(device: Device) -> tuple[str, str]:
    return device.component.value, device.name


def _with_source(device: Device) -> tuple[str, str, str]:
    return device.component.value, device.name, device.source.value


def _device_samples(devices: Iterable[DeviceView]) -> Iterator[tuple[MetricSpec, list[Row]]]:
    plain = [(_plain(view.device), view) for view in devices]
    sourced = [(_with_source(view.device), view) for view in devices]
    yield catalog.DEVICE_ENERGY, [(labels, joules(v.energy_uj)) for labels, v in sourced]
    yield (
        catalog.DEVICE_POWER,
        [(labels, watts(v.power_uw)) for labels, v in sourced if v.power_uw is not None],
    )
    yield (
        catalog.DEVICE_POWER_LIMIT,
        [(labels, watts(v.limit_uw)) for labels, v in plain if v.limit_uw is not None],
    )
    yield catalog.DEVICE_IDLE_ENERGY, [(labels, joules(v.idle_uj)) for labels, v in plain]
    yield (
        catalog.DEVICE_UNATTRIBUTED_ENERGY,
        [(labels, joules(v.unattributed_uj)) for labels, v in plain],
    )
    yield (
        catalog.DEVICE_IDLE_POWER,
        [
            ((*labels, v.idle_power.method.value), watts(v.idle_power.uw))
            for labels, v in plain
            if v.idle_power is not None
        ],
    )
    yield catalog.DEVICE_INFO, [((*labels, *_info(v.device)), 1) for labels, v in plain]
    yield catalog.PROCESS_OTHER_ENERGY, [(labels, joules(v.other_uj)) for labels, v in sourced]
    yield (
        catalog.RETIRED_ENERGY,
        [(("process", *labels), joules(v.retired_uj)) for labels, v in sourced],
    )
    yield catalog.METER_WRAPS, [((v.device.name,), v.wraps) for _, v in plain]
    yield catalog.METER_RESETS, [((v.device.name,), v.resets) for _, v in plain]
    yield catalog.METER_GAP, [((v.device.name,), v.gap_ns / NS) for _, v in plain]


def _info(device: Device) -> tuple[str, str]:
    index = device.package if device.component is not Component.GPU else None
    return device.model, "" if index is None else str(index)


def _health_samples(snapshot: Snapshot) -> Iterator[tuple[MetricSpec, list[Row]]]:
    health, node = snapshot.health, snapshot.node
    yield catalog.BUILD_INFO, [((node.version,), 1)]
    yield catalog.SOURCE_UP, [((source,), up) for source, up in health.source_up.items()]
    yield catalog.SOURCE_ERRORS, list(health.source_errors.items())
    yield catalog.SAMPLE_DURATION, [((), health.sample_seconds)]
    yield catalog.LAST_SAMPLE, [((), snapshot.time)]
    yield catalog.SAMPLES_MISSED, [((), health.samples_missed)]
    yield (
        catalog.SERIES_DROPPED,
        [((reason,), count) for reason, count in health.series_dropped.items()],
    )
    if health.checkpoint is not None:
        yield catalog.CHECKPOINT, [((), health.checkpoint)]
    yield catalog.PROCESS_CPU, [((), health.cpu_seconds)]
    yield catalog.PROCESS_MEMORY, [((), health.resident_bytes)]
    yield catalog.PROCESS_START, [((), node.started)]
