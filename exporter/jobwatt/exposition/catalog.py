"""Every metric once: name, type, unit, labels, meaning. docs/metrics.md is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["GRID_METRICS", "METRICS", "NODE_METRICS", "MetricSpec"]

Kind = Literal["counter", "gauge", "info"]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric family as it is exposed."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    unit: str = ""


_DEVICE = ("component", "device")
_DEVICE_SOURCE = (*_DEVICE, "source")

DEVICE_ENERGY = MetricSpec(
    "jobwatt_device_energy_joules_total",
    "counter",
    _DEVICE_SOURCE,
    "Measured energy of one device. Devices do not overlap.",
    "joules",
)
DEVICE_POWER = MetricSpec(
    "jobwatt_device_power_watts",
    "gauge",
    _DEVICE_SOURCE,
    "Mean power of one device over the last sampling interval.",
    "watts",
)
DEVICE_POWER_LIMIT = MetricSpec(
    "jobwatt_device_power_limit_watts",
    "gauge",
    _DEVICE,
    "Enforced power limit of one device.",
    "watts",
)
DEVICE_IDLE_ENERGY = MetricSpec(
    "jobwatt_device_idle_energy_joules_total",
    "counter",
    _DEVICE,
    "Idle part of a device's energy: idle power times time.",
    "joules",
)
DEVICE_UNATTRIBUTED_ENERGY = MetricSpec(
    "jobwatt_device_unattributed_energy_joules_total",
    "counter",
    _DEVICE,
    "Active energy of a device that no process is known for.",
    "joules",
)
DEVICE_IDLE_POWER = MetricSpec(
    "jobwatt_device_idle_power_watts",
    "gauge",
    (*_DEVICE, "method"),
    "Idle power in use, and how it is known: configured, observed or fitted.",
    "watts",
)
DEVICE_INFO = MetricSpec(
    "jobwatt_device_info",
    "info",
    (*_DEVICE, "model", "index", "uuid", "pci_bus_id", "driver", "architecture"),
    "What a device is: its model, its socket or index, and of a GPU what its driver tells.",
)
RAPL_ENERGY = MetricSpec(
    "jobwatt_rapl_energy_joules_total",
    "counter",
    ("domain", "package"),
    "Energy of a RAPL domain as the hardware counts it. Domains nest: do not sum.",
    "joules",
)
PROCESS_ENERGY = MetricSpec(
    "jobwatt_process_energy_joules_total",
    "counter",
    ("pid", "comm", "user", "job_uid", *_DEVICE_SOURCE),
    "Energy of a process since it was given a series.",
    "joules",
)
PROCESS_OTHER_ENERGY = MetricSpec(
    "jobwatt_process_other_energy_joules_total",
    "counter",
    _DEVICE_SOURCE,
    "Energy of all processes without a series, alive or gone.",
    "joules",
)
JOB_ENERGY = MetricSpec(
    "jobwatt_job_energy_joules_total",
    "counter",
    ("job_uid", *_DEVICE_SOURCE),
    "A job's energy on this node, by device: its processes and what came and went between two "
    "samples.",
    "joules",
)
JOB_CPU = MetricSpec(
    "jobwatt_job_cpu_seconds_total", "counter", ("job_uid",), "A job's on-CPU time.", "seconds"
)
JOB_GPUS = MetricSpec("jobwatt_job_gpus", "gauge", ("job_uid",), "GPUs that a job holds now.")
JOB_GPU_IDLE_ENERGY = MetricSpec(
    "jobwatt_job_gpu_idle_energy_joules_total",
    "counter",
    ("job_uid",),
    "Idle energy of the GPUs that a job holds, in equal parts among holders. A view: the energy is "
    "in the device's idle energy.",
    "joules",
)
JOB_INFO = MetricSpec(
    "jobwatt_job_info",
    "info",
    ("job_uid", "kind", "job_name", "user", "account", "queue", "k8s_namespace"),
    "What a job is called, and whose it is.",
)
JOB_START = MetricSpec(
    "jobwatt_job_start_timestamp_seconds",
    "gauge",
    ("job_uid",),
    "When a job started on this node, Unix time.",
    "seconds",
)
JOB_SINCE = MetricSpec(
    "jobwatt_job_measured_since_timestamp_seconds",
    "gauge",
    ("job_uid",),
    "Since when a job's counters count, Unix time; constant while they go on.",
    "seconds",
)
JOB_END = MetricSpec(
    "jobwatt_job_end_timestamp_seconds",
    "gauge",
    ("job_uid",),
    "When a job that lingers ended on this node, Unix time.",
    "seconds",
)
JOB_DEADLINE = MetricSpec(
    "jobwatt_job_deadline_timestamp_seconds",
    "gauge",
    ("job_uid",),
    "When a job's scheduler will end it, Unix time.",
    "seconds",
)
JOB_CPUS = MetricSpec(
    "jobwatt_job_cpus",
    "gauge",
    ("job_uid",),
    "CPUs that a job holds on this node: the smaller of its cpuset and its quota, else its "
    "scheduler's word. Absent where nothing is reserved, and after its end.",
)
JOB_BUDGET = MetricSpec(
    "jobwatt_job_energy_budget_joules",
    "gauge",
    ("job_uid", "origin"),
    "What the whole job, on all of its nodes, may use, and who set it: annotation, environment or "
    "comment (its user), or operator, whose cap holds where it is the smaller one.",
    "joules",
)
BUDGET_ERRORS = MetricSpec(
    "jobwatt_budget_errors_total",
    "counter",
    ("origin",),
    "Jobs whose user set a budget that is none, such as one without a unit, by where it stood.",
)
ACCOUNT_ENERGY = MetricSpec(
    "jobwatt_account_energy_joules_total",
    "counter",
    ("account", "component"),
    "Energy of all jobs of an account on this node, with those that are long gone. A job counts "
    "from when its names are known, a few seconds after its start.",
    "joules",
)
RETIRED_ENERGY = MetricSpec(
    "jobwatt_retired_energy_joules_total",
    "counter",
    ("level", *_DEVICE_SOURCE),
    "Energy of series that have been dropped after their linger. It steps: never rate it.",
    "joules",
)
GPU_ATTRIBUTED_ENERGY = MetricSpec(
    "jobwatt_gpu_attributed_energy_joules_total",
    "counter",
    ("device", "method"),
    "A GPU's energy that has been divided among processes, by how: exclusive, sm_utilization (time "
    "busy, not work done), engine_time, memory or equal. A view: it is in the processes' energy.",
    "joules",
)
GPU_INSTANCE_ENERGY = MetricSpec(
    "jobwatt_gpu_instance_energy_joules_total",
    "counter",
    ("device", "instance", "profile"),
    "Active energy of a MIG instance. A view: it is in the device's energy.",
    "joules",
)
GPU_INSTANCE_MEMORY_USED = MetricSpec(
    "jobwatt_gpu_instance_memory_used_bytes",
    "gauge",
    ("device", "instance", "profile"),
    "Memory in use on a MIG instance.",
    "bytes",
)
GPU_UTILIZATION = MetricSpec(
    "jobwatt_gpu_utilization_ratio",
    "gauge",
    ("device",),
    "Share of the driver's last sample period in which a kernel ran on the GPU.",
    "ratio",
)
GPU_MEMORY_USED = MetricSpec(
    "jobwatt_gpu_memory_used_bytes", "gauge", ("device",), "Memory in use on the GPU.", "bytes"
)
GPU_MEMORY_TOTAL = MetricSpec(
    "jobwatt_gpu_memory_total_bytes", "gauge", ("device",), "Memory of the GPU.", "bytes"
)
GPU_TEMPERATURE = MetricSpec(
    "jobwatt_gpu_temperature_celsius", "gauge", ("device",), "Temperature of the GPU.", "celsius"
)
GPU_THROTTLED = MetricSpec(
    "jobwatt_gpu_throttled",
    "gauge",
    ("device", "reason"),
    "Whether the GPU's clocks are held down now, by reason.",
)
NODE_CPUS = MetricSpec("jobwatt_node_cpus", "gauge", (), "Online CPUs of this node.")
NODE_INFO = MetricSpec(
    "jobwatt_node_info", "info", ("grid_zone",), "Joins this node to its electricity grid."
)
BUILD_INFO = MetricSpec("jobwatt_build_info", "info", ("version",), "JobWatt's version.")
SOURCE_UP = MetricSpec(
    "jobwatt_source_up",
    "gauge",
    ("source",),
    "Whether every device of a source was read at the last sample.",
)
SOURCE_ERRORS = MetricSpec(
    "jobwatt_source_errors_total",
    "counter",
    ("source", "reason"),
    "Readings of a source that failed: absent, denied, failed, timeout or implausible.",
)
SAMPLE_DURATION = MetricSpec(
    "jobwatt_sample_duration_seconds", "gauge", (), "Time that the last sample took.", "seconds"
)
LAST_SAMPLE = MetricSpec(
    "jobwatt_last_sample_timestamp_seconds",
    "gauge",
    (),
    "When the last sample was taken, Unix time.",
    "seconds",
)
SAMPLES_MISSED = MetricSpec(
    "jobwatt_samples_missed_total",
    "counter",
    (),
    "Samples that were due and not taken in time. Their energy is in the next sample.",
)
METER_WRAPS = MetricSpec(
    "jobwatt_meter_wraps_total",
    "counter",
    ("device",),
    "Times a device's counter began again at 0.",
)
METER_RESETS = MetricSpec(
    "jobwatt_meter_resets_total",
    "counter",
    ("device",),
    "Times a device's counter was reset; the energy between two readings was lost.",
)
METER_GAP = MetricSpec(
    "jobwatt_meter_gap_seconds_total",
    "counter",
    ("device",),
    "Time for which a device's energy is not known for sure: its counter was not read for longer "
    "than it may take to wrap twice, or was reset.",
    "seconds",
)
SERIES_DROPPED = MetricSpec(
    "jobwatt_series_dropped_total",
    "counter",
    ("reason",),
    "Series that did not fit under a cap. Their energy is counted in other or retired.",
)
CHECKPOINT = MetricSpec(
    "jobwatt_checkpoint_timestamp_seconds",
    "gauge",
    (),
    "When the state was last written to disk for sure, Unix time.",
    "seconds",
)
PROCESS_CPU = MetricSpec(
    "process_cpu_seconds_total", "counter", (), "CPU time of the exporter itself.", "seconds"
)
PROCESS_MEMORY = MetricSpec(
    "process_resident_memory_bytes",
    "gauge",
    (),
    "Resident memory of the exporter itself.",
    "bytes",
)
PROCESS_START = MetricSpec(
    "process_start_time_seconds", "gauge", (), "When the exporter started, Unix time.", "seconds"
)

GRID_INTENSITY = MetricSpec(
    "jobwatt_grid_carbon_intensity_grams_per_kwh",
    "gauge",
    ("grid_zone", "provider", "kind", "boundary", "year"),
    "Grams of CO2 equivalent for a kWh of electricity. Live values have no year and are dropped "
    "when they are two hours old.",
)
SITE_PUE = MetricSpec(
    "jobwatt_site_pue_ratio",
    "gauge",
    ("grid_zone",),
    "What the site uses for each unit that its machines use (PUE).",
    "ratio",
)
SITE_PRICE = MetricSpec(
    "jobwatt_site_electricity_price_per_kwh",
    "gauge",
    ("grid_zone", "currency"),
    "Price of a kWh.",
)
ACCOUNT_BUDGET = MetricSpec(
    "jobwatt_account_energy_budget_joules",
    "gauge",
    ("account", "period"),
    "What all jobs of an account may use in each day, week, month or year.",
    "joules",
)
GRID_UP = MetricSpec(
    "jobwatt_grid_up",
    "gauge",
    ("grid_zone", "provider"),
    "Whether the last attempt gave a value of now; of live providers.",
)
GRID_DATA_TIME = MetricSpec(
    "jobwatt_grid_data_timestamp_seconds",
    "gauge",
    ("grid_zone", "provider"),
    "What moment a live provider's newest value is for, Unix time; also once it is too old to be "
    "shown.",
    "seconds",
)
GRID_ERRORS = MetricSpec(
    "jobwatt_grid_errors_total",
    "counter",
    ("provider", "reason"),
    "Attempts that gave no value: timeout, unreachable, denied, not_found, rate_limited, "
    "server_error, rejected (another status, a redirect), malformed, no_data, implausible, stale, "
    "unreadable (a token or schedule) or internal.",
)

NODE_METRICS: tuple[MetricSpec, ...] = (
    DEVICE_ENERGY,
    DEVICE_POWER,
    DEVICE_POWER_LIMIT,
    DEVICE_IDLE_ENERGY,
    DEVICE_UNATTRIBUTED_ENERGY,
    DEVICE_IDLE_POWER,
    DEVICE_INFO,
    RAPL_ENERGY,
    PROCESS_ENERGY,
    PROCESS_OTHER_ENERGY,
    JOB_ENERGY,
    JOB_CPU,
    JOB_GPUS,
    JOB_GPU_IDLE_ENERGY,
    JOB_INFO,
    JOB_START,
    JOB_SINCE,
    JOB_END,
    JOB_DEADLINE,
    JOB_CPUS,
    JOB_BUDGET,
    BUDGET_ERRORS,
    ACCOUNT_ENERGY,
    RETIRED_ENERGY,
    GPU_ATTRIBUTED_ENERGY,
    GPU_INSTANCE_ENERGY,
    GPU_INSTANCE_MEMORY_USED,
    GPU_UTILIZATION,
    GPU_MEMORY_USED,
    GPU_MEMORY_TOTAL,
    GPU_TEMPERATURE,
    GPU_THROTTLED,
    NODE_CPUS,
    NODE_INFO,
    BUILD_INFO,
    SOURCE_UP,
    SOURCE_ERRORS,
    SAMPLE_DURATION,
    LAST_SAMPLE,
    SAMPLES_MISSED,
    METER_WRAPS,
    METER_RESETS,
    METER_GAP,
    SERIES_DROPPED,
    CHECKPOINT,
    PROCESS_CPU,
    PROCESS_MEMORY,
    PROCESS_START,
)
"""Of `jobwatt serve` and `jobwatt simulate`."""

GRID_METRICS: tuple[MetricSpec, ...] = (
    GRID_INTENSITY,
    SITE_PUE,
    SITE_PRICE,
    ACCOUNT_BUDGET,
    GRID_UP,
    GRID_DATA_TIME,
    GRID_ERRORS,
    BUILD_INFO,
)
"""Of `jobwatt grid`."""

METRICS = tuple(dict.fromkeys((*NODE_METRICS, *GRID_METRICS)))
