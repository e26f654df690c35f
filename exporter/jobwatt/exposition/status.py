"""The snapshot as JSON, for people's tools: what the page at `/` and `jobwatt top` show.

Served at `/api/v1/status`. Prometheus reads `/metrics`; this is the same snapshot in the units of
people (watts, joules, seconds), with powers and a short history, and without the processes that
matter least. Fields are added, never changed in meaning.

    version, time, interval, started    of the exporter; Unix seconds, seconds
    node        cpus, grid_zone, cpu_time_method, processes (how many live on the node)
    sources     [source, up, errors {reason: count}]
    devices     [component, device, source, model, power_watts, limit_watts, idle_watts,
                idle_method, energy_joules, idle_joules, unattributed_joules, other_joules,
                retired_joules, gap_seconds]; a GPU has also:
                index, uuid, pci_bus_id, driver, architecture
                utilization_ratio, memory_used_bytes, memory_total_bytes, temperature_celsius,
                throttled [reason]: why its clocks are held down now
                contexts: how many processes have one on it; 0 and no holder: it is free
                holders [job_uid, pids]: whose contexts these are, and who may use it (no pids)
                methods {method: joules}: what its processes used, by how it was divided
                instances [uuid, name, memory_used_bytes, energy_joules, pids]: its MIG instances;
                energy_joules is their part of its active energy
    processes   [pid, comm, user, job_uid, power_watts, energy_joules, components {name: joules}]
    jobs        [job_uid, kind, name, user, account, queue, k8s_namespace, power_watts,
                energy_joules, components {name: joules}, sources {name: joules}, cpu_seconds,
                gpus, gpu_idle_joules, cpus, budget_joules, budget_origin,
                budget_errors [origin, reason], started, measured_since, deadline, ended]:
                live ones by power, then those that linger, by their end; cpu_seconds grows
                by what it keeps busy of the cpus that it holds, and the budget is the whole job's,
                of which energy_joules is what it used on this node; budget_errors are what
                somebody set for one and is none
    health      sample_seconds, samples_missed, cpu_seconds, cpu_ratio, resident_bytes,
                checkpoint, series, series_dropped {reason: count}
    history     times [Unix seconds], devices {device: [watts]}

What is not known is null (`power_watts`, `limit_watts`, `idle_watts` with `idle_method`,
`checkpoint`, `cpu_ratio`, a point of the history, all that a GPU does not tell now; `ended` of a
live job, its `cpus`, `deadline` and budget where there is none, and its `name`, `account`, `queue`
and `k8s_namespace` until they are settled). Pids are those of the node's processes: where the GPU's
driver tells other ones, `pids` of its instances are null and its holders are those that may use it.
A device's `energy_joules` is the sum of its idle, unattributed, other and retired joules and of all
processes with a series, of which `processes` names the live ones that use or have used the most. A
job's `energy_joules` is what its processes have used, in a series or not, alive or gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobwatt.gpus import GpuHolder, GpuInfo, GpuInstance, GpuState
from jobwatt.model import Component
from jobwatt.records import kind_of
from jobwatt.snapshot import DeviceView, Health, HistoryPoint, JobView, SeriesView, Snapshot
from jobwatt.units import NS, joules, watts

__all__ = ["MOST_JOBS", "MOST_OF_JOB", "MOST_PROCESSES", "status"]

MOST_PROCESSES = 50
"""So many by power, and so many by energy, are named."""

MOST_OF_JOB = 5
"""And so many of each job."""

MOST_JOBS = 1000


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
        "jobs": [_job(job, snapshot.devices) for job in _foremost_jobs(snapshot.jobs)],
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
    more = _gpu(view) if view.device.component is Component.GPU else {}
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
        **more,
    }


def _gpu(view: DeviceView) -> dict[str, object]:
    info, state = view.gpu_info or GpuInfo(), view.gpu
    shown = state or GpuState()
    return {
        "index": info.index,
        "uuid": info.uuid or None,
        "pci_bus_id": info.pci_bus_id or None,
        "driver": info.driver or None,
        "architecture": info.architecture or None,
        "utilization_ratio": shown.utilization_ratio,
        "memory_used_bytes": shown.memory_used_bytes,
        "memory_total_bytes": shown.memory_total_bytes,
        "temperature_celsius": shown.temperature_celsius,
        "throttled": _reasons(shown),
        "contexts": _contexts(shown),
        "holders": None if state is None else _holders(view.holders),
        "methods": {method: joules(uj) for method, uj in view.methods_uj.items()},
        "instances": None
        if state is None
        else [_instance(i, state, view) for i in state.instances],
    }


def _reasons(state: GpuState) -> list[str] | None:
    if not state.throttled:
        return None
    return [reason for reason, is_now in state.throttled.items() if is_now]


def _holders(holders: Iterable[GpuHolder]) -> list[dict[str, object]]:
    return [{"job_uid": holder.job_uid, "pids": list(holder.pids)} for holder in holders]


def _contexts(state: GpuState) -> int | None:
    if state.use is None:
        return None
    pids = set(state.use.holders)
    return len(pids.union(*(instance.use.holders for instance in state.instances)))


def _instance(instance: GpuInstance, state: GpuState, view: DeviceView) -> dict[str, object]:
    return {
        "uuid": instance.uuid,
        "name": instance.name,
        "memory_used_bytes": instance.memory_used_bytes,
        "energy_joules": joules(view.parts_uj.get(instance.uuid, 0)),
        "pids": None if state.foreign else sorted(instance.use.holders),
    }


def _foremost(series: Iterable[SeriesView]) -> list[SeriesView]:
    """Return the live ones of the highest power and energy, and each job's first, by power."""
    live = [(view, sum(view.energy_uj)) for view in series if view.alive]
    by_power = sorted(live, key=lambda item: (-item[0].power_uw, -item[1], item[0].labels.pid))
    # Those who have used most may sleep now; a list by energy must have them all the same.
    by_energy = sorted(live, key=lambda item: (-item[1], item[0].labels.pid))
    chosen = {id(view) for view, _ in by_power[:MOST_PROCESSES] + by_energy[:MOST_PROCESSES]}
    of_job: dict[str, int] = {}
    for view, _ in by_power:
        place = of_job[view.labels.job_uid] = of_job.get(view.labels.job_uid, 0) + 1
        if place <= MOST_OF_JOB:
            chosen.add(id(view))
    return [view for view, _ in by_power if id(view) in chosen]


def _process(view: SeriesView, components: Sequence[Component]) -> dict[str, object]:
    return {
        "pid": view.labels.pid,
        "comm": view.labels.comm,
        "user": view.labels.user,
        "job_uid": view.labels.job_uid,
        "power_watts": watts(view.power_uw),
        "energy_joules": joules(sum(view.energy_uj)),
        "components": _sums([component.value for component in components], view.energy_uj),
    }


def _foremost_jobs(jobs: Sequence[JobView]) -> list[JobView]:
    """Return the live ones by power, then those that have ended, the latest first."""
    live = sorted(
        (job for job in jobs if job.ended is None),
        key=lambda job: (-job.power_uw, -sum(job.energy_uj)),
    )
    ended = [job for job in jobs if job.ended is not None]
    ended.sort(key=lambda job: job.ended or 0.0, reverse=True)
    return (live + ended)[:MOST_JOBS]


def _job(job: JobView, devices: Sequence[DeviceView]) -> dict[str, object]:
    by_component = [view.device.component.value for view in devices]
    by_source = [view.device.source.value for view in devices]
    record, budget = job.record, job.budget
    return {
        "job_uid": job.job_uid,
        "kind": kind_of(job.job_uid),
        "name": record and record.name,
        "user": job.user,
        "account": job.account,
        "queue": record and record.queue,
        "k8s_namespace": record and record.k8s_namespace,
        "power_watts": watts(job.power_uw),
        "energy_joules": joules(sum(job.energy_uj)),
        "components": _sums(by_component, job.energy_uj),
        "sources": _sums(by_source, job.energy_uj),
        "cpu_seconds": job.cpu_ns / NS,
        "gpus": job.gpus,
        "gpu_idle_joules": joules(job.gpu_idle_uj),
        "cpus": job.cpus,
        "budget_joules": None if budget is None else budget.joules,
        "budget_origin": None if budget is None else budget.origin.value,
        "budget_errors": [
            {"origin": bad.origin.value, "reason": bad.reason}
            for bad in (record.bad_budgets if record else ())
        ],
        "started": job.started,
        "measured_since": job.measured_since,
        "deadline": record and record.deadline,
        "ended": job.ended,
    }


def _sums(names: Sequence[str], amounts_uj: Iterable[int]) -> dict[str, float]:
    """Return joules by name; summed in microjoules, so that equal totals stay equal."""
    uj = dict.fromkeys(names, 0)
    for name, amount in zip(names, amounts_uj, strict=False):
        uj[name] += amount
    return {name: joules(amount) for name, amount in uj.items()}


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
