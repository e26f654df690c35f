"""The samples of every metric in the catalog, out of a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter

from jobwatt.exposition import catalog
from jobwatt.exposition.catalog import MetricSpec
from jobwatt.gpus import GpuState
from jobwatt.model import Component, Device
from jobwatt.records import JobRecord
from jobwatt.snapshot import DeviceView, JobView, SeriesLabels, Snapshot
from jobwatt.units import NS, joules, watts

__all__ = ["Row", "samples"]

Row = tuple[tuple[str, ...], float]
"""Label values in the catalog's order, and the value."""

_IDLE, _UNATTRIBUTED, _WRAPS, _RESETS, _GAP = map(
    attrgetter, ("idle_uj", "unattributed_uj", "wraps", "resets", "gap_ns")
)

_GAUGES: tuple[tuple[MetricSpec, Callable[[GpuState], float | None]], ...] = (
    (catalog.GPU_UTILIZATION, attrgetter("utilization_ratio")),
    (catalog.GPU_MEMORY_USED, attrgetter("memory_used_bytes")),
    (catalog.GPU_MEMORY_TOTAL, attrgetter("memory_total_bytes")),
    (catalog.GPU_TEMPERATURE, attrgetter("temperature_celsius")),
)


def samples(snapshot: Snapshot) -> Iterator[tuple[MetricSpec, list[Row]]]:
    """Return the rows of every metric that there is something to tell of."""
    yield from _device_samples(snapshot.devices)
    yield from _gpu_samples(snapshot.devices)
    yield from _job_samples(snapshot.jobs)
    yield catalog.ACCOUNT_ENERGY, _account_rows(snapshot)
    yield (
        catalog.RAPL_ENERGY,
        [((d.domain, d.package), joules(uj)) for d, uj in snapshot.domains_uj],
    )
    yield catalog.NODE_CPUS, [((), snapshot.node.cpus)]
    yield catalog.NODE_INFO, [((snapshot.node.grid_zone,), 1)]
    yield from _health_samples(snapshot)
    jobs = (((job.job_uid,), job.energy_uj) for job in snapshot.jobs)
    yield catalog.JOB_ENERGY, _energy_rows(snapshot.devices, jobs)
    processes = ((_names(one.labels), one.energy_uj) for one in snapshot.series)
    yield catalog.PROCESS_ENERGY, _energy_rows(snapshot.devices, processes)


def _energy_rows(
    devices: Sequence[DeviceView], energies: Iterable[tuple[tuple[str, ...], Sequence[int]]]
) -> list[Row]:
    """Return rows of energy by device: not of each GPU that was never used."""
    places = [(_with_source(v.device), v.device.component is Component.GPU) for v in devices]
    return [
        (names + place, joules(uj))
        for names, energy_uj in energies
        for (place, is_gpu), uj in zip(places, energy_uj, strict=False)
        if uj or not is_gpu
    ]


def _names(labels: SeriesLabels) -> tuple[str, ...]:
    return str(labels.pid), labels.comm, labels.user, labels.job_uid


def _plain(device: Device) -> tuple[str, str]:
    return device.component.value, device.name


def _with_source(device: Device) -> tuple[str, str, str]:
    return device.component.value, device.name, device.source.value


def _device_samples(devices: Iterable[DeviceView]) -> Iterator[tuple[MetricSpec, list[Row]]]:
    sourced = [(_with_source(view.device), view) for view in devices]
    # A device that two sources have measured in turn is one where no source is named.
    named: dict[tuple[str, str], list[DeviceView]] = {}
    for view in devices:
        named.setdefault(_plain(view.device), []).append(view)
    plain = [(_plain(view.device), view) for view in devices if not view.resting]

    def total(field: Callable[[DeviceView], int]) -> list[tuple[tuple[str, str], int]]:
        return [(labels, sum(map(field, views))) for labels, views in named.items()]

    yield catalog.DEVICE_ENERGY, [(labels, joules(v.energy_uj)) for labels, v in sourced]
    yield (
        catalog.DEVICE_POWER,
        [(labels, watts(v.power_uw)) for labels, v in sourced if v.power_uw is not None],
    )
    yield (
        catalog.DEVICE_POWER_LIMIT,
        [(labels, watts(v.limit_uw)) for labels, v in plain if v.limit_uw is not None],
    )
    yield catalog.DEVICE_IDLE_ENERGY, [(n, joules(uj)) for n, uj in total(_IDLE)]
    yield catalog.DEVICE_UNATTRIBUTED_ENERGY, [(n, joules(uj)) for n, uj in total(_UNATTRIBUTED)]
    yield (
        catalog.DEVICE_IDLE_POWER,
        [
            ((*labels, v.idle_power.method.value), watts(v.idle_power.uw))
            for labels, v in plain
            if v.idle_power is not None
        ],
    )
    yield catalog.DEVICE_INFO, [((*labels, *_info(v)), 1) for labels, v in plain]
    yield catalog.PROCESS_OTHER_ENERGY, [(labels, joules(v.other_uj)) for labels, v in sourced]
    yield (
        catalog.RETIRED_ENERGY,
        [
            ((level, *labels), joules(uj))
            for labels, v in sourced
            for level, uj in (("process", v.retired_uj), ("job", v.job_retired_uj))
        ],
    )
    yield catalog.METER_WRAPS, [((name,), n) for (_, name), n in total(_WRAPS)]
    yield catalog.METER_RESETS, [((name,), n) for (_, name), n in total(_RESETS)]
    yield catalog.METER_GAP, [((name,), ns / NS) for (_, name), ns in total(_GAP)]


def _job_samples(jobs: Sequence[JobView]) -> Iterator[tuple[MetricSpec, list[Row]]]:
    named = [((job.job_uid,), job) for job in jobs]
    holders = [(uid, job) for uid, job in named if job.gpus or job.gpu_idle_uj]
    yield catalog.JOB_CPU, [(uid, job.cpu_ns / NS) for uid, job in named]
    yield catalog.JOB_GPUS, [(uid, job.gpus) for uid, job in holders if job.ended is None]
    yield catalog.JOB_GPU_IDLE_ENERGY, [(uid, joules(job.gpu_idle_uj)) for uid, job in holders]
    yield (
        catalog.JOB_INFO,
        [(_job_names(job, job.record), 1) for _, job in named if job.record is not None],
    )
    yield catalog.JOB_START, [(uid, job.started) for uid, job in named]
    yield catalog.JOB_SINCE, [(uid, job.measured_since) for uid, job in named]
    yield catalog.JOB_END, [(uid, job.ended) for uid, job in named if job.ended is not None]
    yield (
        catalog.JOB_DEADLINE,
        [
            (uid, job.record.deadline)
            for uid, job in named
            if job.record is not None and job.record.deadline is not None
        ],
    )
    yield catalog.JOB_CPUS, [(uid, job.cpus) for uid, job in named if job.cpus is not None]
    yield (
        catalog.JOB_BUDGET,
        [
            ((job.job_uid, job.budget.origin.value), job.budget.joules)
            for job in jobs
            if job.budget is not None
        ],
    )


def _job_names(job: JobView, record: JobRecord) -> tuple[str, ...]:
    kind, _, inner = job.job_uid.partition(":")
    name = record.name or inner
    return (job.job_uid, kind, name, job.user, record.account, record.queue, record.k8s_namespace)


def _account_rows(snapshot: Snapshot) -> list[Row]:
    """Return the energy of accounts: jobs that have been dropped and jobs that are there."""
    components = [view.device.component.value for view in snapshot.devices]
    totals: dict[tuple[str, str], int] = {}
    alive = ((job.account, job.energy_uj) for job in snapshot.jobs if job.account is not None)
    for account, energy_uj in (*snapshot.accounts, *alive):
        for component, uj in zip(components, energy_uj, strict=False):
            key = account, component
            totals[key] = totals.get(key, 0) + uj
    return [(labels, joules(uj)) for labels, uj in totals.items()]


def _info(view: DeviceView) -> tuple[str, ...]:
    device, info = view.device, view.gpu_info
    if info is None:
        index = "" if device.package is None else str(device.package)
        return device.model, index, "", "", "", ""
    index = "" if info.index is None else str(info.index)
    return device.model, index, info.uuid, info.pci_bus_id, info.driver, info.architecture


def _gpu_samples(devices: Iterable[DeviceView]) -> Iterator[tuple[MetricSpec, list[Row]]]:
    gpus = [view for view in devices if view.device.component is Component.GPU]
    if not gpus:
        return
    states = [(view.device.name, view.gpu) for view in gpus if view.gpu is not None]
    yield (
        catalog.GPU_ATTRIBUTED_ENERGY,
        [((v.device.name, key), joules(uj)) for v in gpus for key, uj in v.methods_uj.items()],
    )
    instances = [
        ((view.device.name, instance.uuid, instance.name), instance, view.parts_uj)
        for view in gpus
        for instance in (view.gpu.instances if view.gpu else ())
    ]
    yield (
        catalog.GPU_INSTANCE_ENERGY,
        [(labels, joules(parts.get(i.uuid, 0))) for labels, i, parts in instances],
    )
    memory = [(labels, i.memory_used_bytes) for labels, i, _ in instances]
    yield (
        catalog.GPU_INSTANCE_MEMORY_USED,
        [(labels, used) for labels, used in memory if used is not None],
    )
    for spec, value in _GAUGES:
        shown = [((name,), value(state)) for name, state in states]
        yield spec, [(labels, amount) for labels, amount in shown if amount is not None]
    yield (
        catalog.GPU_THROTTLED,
        [((name, why), now) for name, state in states for why, now in state.throttled.items()],
    )


def _health_samples(snapshot: Snapshot) -> Iterator[tuple[MetricSpec, list[Row]]]:
    health, node = snapshot.health, snapshot.node
    yield catalog.BUILD_INFO, [((node.version,), 1)]
    yield catalog.SOURCE_UP, [((source,), up) for source, up in health.source_up.items()]
    yield catalog.SOURCE_ERRORS, list(health.source_errors.items())
    yield catalog.BUDGET_ERRORS, [((name,), n) for name, n in health.budget_errors.items()]
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
