from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from jobwatt.exposition.status import MOST_JOBS, MOST_OF_JOB, MOST_PROCESSES, status
from jobwatt.gpus import GpuHolder, GpuInstance, GpuState, GpuUse
from jobwatt.model import Component, Device, IdleMethod, IdlePower, Source
from jobwatt.records import BadBudget, Budget, BudgetOrigin, JobRecord
from jobwatt.snapshot import (
    DeviceView,
    Health,
    HistoryPoint,
    JobView,
    NodeInfo,
    SeriesLabels,
    SeriesView,
    Snapshot,
)
from pictures import gpu_picture, gpu_view

PACKAGE = DeviceView(
    device=Device(Component.CPU, "package-0", Source.RAPL, 0, "Xeon"),
    energy_uj=100_000_001,
    idle_uj=40_000_000,
    unattributed_uj=1,
    other_uj=10_000_000,
    retired_uj=5_000_000,
    power_uw=85_500_000,
    limit_uw=205_000_000,
    idle_power=IdlePower(41_300_000, IdleMethod.OBSERVED),
    wraps=1,
    resets=0,
    gap_ns=2_500_000_000,
)
SILENT = replace(
    PACKAGE,
    device=Device(Component.DRAM, "dram-0", Source.RAPL, 0),
    power_uw=None,
    limit_uw=None,
    idle_power=None,
)


def series(
    pid: int, power_uw: int, energy_uj: tuple[int, ...] = (1,), *, alive: bool = True
) -> SeriesView:
    """A process named after its pid."""
    labels = SeriesLabels(pid, f"c{pid}", "alice", "slurm:7")
    return SeriesView(labels, energy_uj, power_uw, alive)


def snapshot() -> Snapshot:
    """A node with a package and its DRAM."""
    return Snapshot(
        time=1_700_000_100.0,
        monotonic_ns=1,
        node=NodeInfo("0.1.0", 64, "FR", "cpu_clock", 1.0, 1_700_000_000.0),
        devices=(PACKAGE, SILENT),
        domains_uj=(),
        series=(series(7, 2_000_000, (3_000_000, 1_000_000)),),
        health=Health(
            source_up={"rapl": True},
            source_errors={("rapl", "failed"): 2, ("rapl", "denied"): 1},
            series_dropped={"process_cap": 0},
            samples_missed=3,
            sample_seconds=0.0015,
            processes=412,
            checkpoint=None,
            cpu_seconds=0.25,
            resident_bytes=33_000_000,
        ),
        history=(
            HistoryPoint(1_700_000_095.0, (80_000_000,)),
            HistoryPoint(1_700_000_100.0, (85_500_000, None)),
        ),
    )


def test_whole_schema() -> None:
    """Every field, in the units of people, and JSON-ready."""
    expected = {
        "version": "0.1.0",
        "time": 1_700_000_100.0,
        "interval": 1.0,
        "started": 1_700_000_000.0,
        "node": {"cpus": 64, "grid_zone": "FR", "cpu_time_method": "cpu_clock", "processes": 412},
        "sources": [{"source": "rapl", "up": True, "errors": {"failed": 2, "denied": 1}}],
        "devices": [
            {
                "component": "cpu",
                "device": "package-0",
                "source": "rapl",
                "model": "Xeon",
                "power_watts": 85.5,
                "limit_watts": 205.0,
                "idle_watts": 41.3,
                "idle_method": "observed",
                "energy_joules": 100.000001,
                "idle_joules": 40.0,
                "unattributed_joules": 0.000001,
                "other_joules": 10.0,
                "retired_joules": 5.0,
                "gap_seconds": 2.5,
            },
            {
                "component": "dram",
                "device": "dram-0",
                "source": "rapl",
                "model": "",
                "power_watts": None,
                "limit_watts": None,
                "idle_watts": None,
                "idle_method": None,
                "energy_joules": 100.000001,
                "idle_joules": 40.0,
                "unattributed_joules": 0.000001,
                "other_joules": 10.0,
                "retired_joules": 5.0,
                "gap_seconds": 2.5,
            },
        ],
        "processes": [
            {
                "pid": 7,
                "comm": "c7",
                "user": "alice",
                "job_uid": "slurm:7",
                "power_watts": 2.0,
                "energy_joules": 4.0,
                "components": {"cpu": 3.0, "dram": 1.0},
            }
        ],
        "jobs": [],
        "health": {
            "sample_seconds": 0.0015,
            "samples_missed": 3,
            "cpu_seconds": 0.25,
            "cpu_ratio": 0.0025,
            "resident_bytes": 33_000_000,
            "checkpoint": None,
            "series": 1,
            "series_dropped": {"process_cap": 0},
        },
        "history": {
            "times": [1_700_000_095.0, 1_700_000_100.0],
            "devices": {"package-0": [80.0, 85.5], "dram-0": [None, None]},
        },
    }

    actual = status(snapshot())

    assert actual == expected
    assert json.loads(json.dumps(actual, allow_nan=False)) == expected


def processes(*views: SeriesView) -> list[Any]:
    """The pids named for these series, in order."""
    named = status(replace(snapshot(), series=views))["processes"]
    assert isinstance(named, list)
    return [process["pid"] for process in named]


def test_only_the_living_are_named() -> None:
    """A series that lingers after its process is for Prometheus, not for people."""
    assert processes(series(1, 5), series(2, 9, alive=False)) == [1]


def test_named_by_power_then_energy_then_pid() -> None:
    """The order is the same at every look."""
    views = (series(4, 1), series(3, 1), series(2, 1, (5,)), series(1, 0), series(9, 8))

    assert processes(*views) == [9, 2, 3, 4, 1]


def test_those_who_used_most_are_named_though_they_sleep() -> None:
    """A list by energy is complete, too; the rest is left out."""
    busy = [series(pid, 1_000 + pid) for pid in range(1, 102)]
    sleeper = series(500, 0, (10**9,))

    named = processes(*busy, sleeper)

    # By power: 101 down to 52. By energy: the sleeper, and the lowest pids of the equal rest.
    assert named[:MOST_PROCESSES] == list(range(101, 51, -1))
    assert named[-1] == 500
    assert len(named) == 2 * MOST_PROCESSES


def test_each_job_names_its_foremost() -> None:
    """Also those whose processes are small beside others'."""
    busy = [series(pid, 1_000 + pid, (1_000,)) for pid in range(1, 202)]
    small = [
        view._replace(labels=replace(view.labels, job_uid="slurm:8"))
        for view in (series(pid, 900 - pid) for pid in range(301, 310))
    ]

    named = processes(*busy, *small)

    assert named[-MOST_OF_JOB:] == [301, 302, 303, 304, 305]


def test_device_that_came_later() -> None:
    """A series from before it has nothing there yet."""
    named = status(replace(snapshot(), series=(series(7, 1, (2_000_000,)),)))["processes"]

    assert isinstance(named, list)
    assert named[0]["components"] == {"cpu": 2.0, "dram": 0.0}


def test_devices_of_one_component_add_up() -> None:
    """Two packages are one component."""
    second = replace(PACKAGE, device=Device(Component.CPU, "package-1", Source.RAPL, 1))
    named = status(replace(snapshot(), devices=(PACKAGE, second), series=(series(7, 1, (1, 2)),)))[
        "processes"
    ]

    assert isinstance(named, list)
    assert named[0]["components"] == {"cpu": 0.000003}


def test_source_that_never_came_up_is_down() -> None:
    """Errors without a word of success are no success."""
    health = replace(snapshot().health, source_up={}, source_errors={("rapl", "denied"): 1})

    actual = status(replace(snapshot(), health=health))["sources"]

    assert actual == [{"source": "rapl", "up": False, "errors": {"denied": 1}}]


def test_first_moment() -> None:
    """Nothing is known yet: empty lists and null, no division by zero."""
    young = replace(snapshot(), time=1_700_000_000.0, devices=(), series=(), history=())

    actual = status(young)

    assert actual["devices"] == actual["processes"] == []
    assert actual["history"] == {"times": [], "devices": {}}
    assert isinstance(actual["health"], dict)
    assert actual["health"]["cpu_ratio"] is None


# --- GPUs ------------------------------------------------------------------------------------


def gpu(view: DeviceView) -> dict[str, Any]:
    """What is said of a GPU, without what is said of every device."""
    devices = status(replace(gpu_picture(), devices=(PACKAGE, view)))["devices"]
    assert isinstance(devices, list)
    plain, full = devices
    return {name: value for name, value in full.items() if name not in plain}


def test_gpu_that_tells_everything() -> None:
    """Who holds it, what it does, its MIG instances, and how its energy was divided."""
    instances = (
        GpuInstance("MIG-1", "1g.10gb", 16, GpuUse({7: 5}, frozenset({7})), None, 5),
        GpuInstance("MIG-2", "1g.10gb", 16),
    )
    state = GpuState(
        use=GpuUse(),
        instances=instances,
        utilization_ratio=0.5,
        memory_used_bytes=7,
        memory_total_bytes=80,
        temperature_celsius=61.0,
        throttled={"sw_power_cap": True, "hw_slowdown": False},
    )

    assert gpu(gpu_view(state)) == {
        "index": 3,
        "uuid": "GPU-1",
        "pci_bus_id": "0000:3b:00.0",
        "driver": "590.48",
        "architecture": "Hopper",
        "utilization_ratio": 0.5,
        "memory_used_bytes": 7,
        "memory_total_bytes": 80,
        "temperature_celsius": 61.0,
        "throttled": ["sw_power_cap"],
        "contexts": 1,
        "holders": [{"job_uid": "slurm:7", "pids": [7]}],
        "methods": {"exclusive": 39.0},
        "instances": [
            {
                "uuid": "MIG-1",
                "name": "1g.10gb",
                "memory_used_bytes": 5,
                "energy_joules": 40.0,
                "pids": [7],
            },
            {
                "uuid": "MIG-2",
                "name": "1g.10gb",
                "memory_used_bytes": None,
                "energy_joules": 0.0,
                "pids": [],
            },
        ],
    }


def test_gpu_that_does_not_answer() -> None:
    """What is not known now is null; what it is, and what it has used, stays."""
    silent = gpu(replace(gpu_view(None), holders=()))

    assert {name for name, value in silent.items() if value is None} == {
        "utilization_ratio",
        "memory_used_bytes",
        "memory_total_bytes",
        "temperature_celsius",
        "throttled",
        "contexts",
        "holders",
        "instances",
    }
    assert silent["uuid"] == "GPU-1"
    assert silent["methods"] == {"exclusive": 39.0}


def test_gpu_that_was_never_seen() -> None:
    """One known from an earlier run only has a name."""
    unseen = gpu(replace(gpu_view(None), gpu_info=None))

    assert unseen["index"] is unseen["uuid"] is unseen["driver"] is None


def test_free_gpu_is_told_from_an_unknown_one() -> None:
    """Nobody there is 0 contexts; before the second look nothing is known."""
    free = replace(gpu_view(GpuState(use=GpuUse())), holders=())
    first_look = replace(gpu_view(GpuState()), holders=())

    assert (gpu(free)["contexts"], gpu(free)["holders"]) == (0, [])
    assert (gpu(first_look)["contexts"], gpu(first_look)["holders"]) == (None, [])


def test_pids_of_another_namespace_are_not_told() -> None:
    """They are counted; to name them would point at other processes."""
    use = GpuUse({70: None, 71: None}, frozenset({70, 71}))
    part = GpuInstance("MIG-1", "1g.10gb", 16, GpuUse({72: None}, frozenset({72})))
    state = GpuState(use=use, foreign=True, instances=(part,))

    shown = gpu(replace(gpu_view(state), holders=(GpuHolder("slurm:7", ()),)))

    assert shown["contexts"] == 3
    assert shown["holders"] == [{"job_uid": "slurm:7", "pids": []}]
    assert shown["instances"][0]["pids"] is None


def job(job_uid: str, power_uw: int = 0, ended: float | None = None) -> JobView:
    """A job that used the package and its DRAM."""
    return JobView(
        job_uid=job_uid,
        user="alice",
        energy_uj=(3_000_000, 1_000_000),
        cpu_ns=2_500_000_000,
        gpu_idle_uj=500_000,
        gpus=2,
        power_uw=power_uw,
        started=1_700_000_001.0,
        measured_since=1_700_000_002.0,
        ended=ended,
    )


def test_job() -> None:
    """What a job has used, by component and by source."""
    estimate = replace(SILENT, device=replace(SILENT.device, source=Source.ESTIMATE))
    told = status(
        replace(snapshot(), devices=(PACKAGE, estimate), jobs=(job("slurm:7", 1_500_000),))
    )

    expected = {
        "job_uid": "slurm:7",
        "user": "alice",
        "power_watts": 1.5,
        "energy_joules": 4.0,
        "components": {"cpu": 3.0, "dram": 1.0},
        "sources": {"rapl": 3.0, "estimate": 1.0},
        "cpu_seconds": 2.5,
        "gpus": 2,
        "gpu_idle_joules": 0.5,
        "started": 1_700_000_001.0,
        "measured_since": 1_700_000_002.0,
        "ended": None,
    }
    assert isinstance(told["jobs"], list)
    assert expected.items() <= told["jobs"][0].items()


def told_of(view: JobView) -> dict[str, Any]:
    """What is told of one job."""
    jobs = status(replace(snapshot(), jobs=(view,)))["jobs"]
    assert isinstance(jobs, list)
    (told,) = jobs
    assert isinstance(told, dict)
    return told


def test_names_of_a_job() -> None:
    """What is known of it, its budget, what it holds and until when."""
    bad = BadBudget(BudgetOrigin.ENVIRONMENT, "'25' has no unit")
    deadline = 1_700_086_401.0
    record = JobRecord("bert", "", "nlp", "gpu", "research", deadline=deadline, bad_budgets=(bad,))
    known = job("k8s:u")._replace(
        record=record,
        account="nlp",
        budget=Budget(3.6e6, BudgetOrigin.COMMENT),
        cpus=1.5,
    )

    told = told_of(known)

    expected = {
        "kind": "k8s",
        "name": "bert",
        "account": "nlp",
        "queue": "gpu",
        "k8s_namespace": "research",
        "budget_joules": 3.6e6,
        "budget_origin": "comment",
        "budget_errors": [{"origin": "environment", "reason": "'25' has no unit"}],
        "cpus": 1.5,
        "deadline": 1_700_086_401.0,
    }
    assert expected.items() <= told.items()


def test_job_without_names() -> None:
    """What is not settled, or not there, is null."""
    told = told_of(job("slurm:7"))

    unknown = {
        *("name", "account", "queue", "k8s_namespace", "budget_joules", "budget_origin"),
        *("cpus", "deadline", "ended"),
    }
    assert {name for name, value in told.items() if value is None} == unknown
    assert told["budget_errors"] == []


def test_foremost_jobs() -> None:
    """Live ones by power, then the latest that have ended; a bounded number."""
    many = [job(f"run:{n}", ended=float(n)) for n in range(MOST_JOBS)]
    told = status(replace(snapshot(), jobs=(*many, job("a", 1), job("b", 2))))

    assert isinstance(told["jobs"], list)
    names = [found["job_uid"] for found in told["jobs"]]
    assert names[:4] == ["b", "a", f"run:{MOST_JOBS - 1}", f"run:{MOST_JOBS - 2}"]
    assert len(names) == MOST_JOBS
