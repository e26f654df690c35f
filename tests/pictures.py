"""Made-up snapshots for the tests of what is shown."""

from dataclasses import replace

from jobwatt.gpus import GpuHolder, GpuInfo, GpuInstance, GpuState
from jobwatt.model import Component, Device, IdleMethod, IdlePower, RaplDomain, Source
from jobwatt.records import Budget, BudgetOrigin, JobRecord
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

J = 1_000_000
CPU = Device(Component.CPU, "package-0", Source.RAPL, 0, "A CPU, 2.6 GHz")
DRAM = Device(Component.DRAM, "dram-0", Source.RAPL, 0)

HOSTILE = 'a"b\\c\nd\u2028\ufffd{}'


GPU = Device(Component.GPU, "GPU-1", Source.NVML_ENERGY, None, "A GPU")
INSTANCE = GpuInstance("MIG-1", "1g.10gb", 16, memory_used_bytes=5)


def gpu_view(state: GpuState | None = None) -> DeviceView:
    """A GPU that has been used, held by a job, with one MIG instance."""
    return DeviceView(
        device=GPU,
        energy_uj=100 * J,
        idle_uj=60 * J,
        unattributed_uj=1 * J,
        other_uj=39 * J,
        retired_uj=0,
        job_retired_uj=0,
        power_uw=300 * J,
        limit_uw=700 * J,
        idle_power=IdlePower(70 * J, IdleMethod.OBSERVED),
        wraps=0,
        resets=0,
        gap_ns=0,
        gpu_info=GpuInfo("GPU-1", 3, 3, "0000:3b:00.0", "590.48", "Hopper"),
        gpu=state,
        holders=(GpuHolder("slurm:7", (7,)),),
        methods_uj={"exclusive": 39 * J},
        parts_uj={"MIG-1": 40 * J, "MIG-0": 0},
    )


def gpu_picture() -> Snapshot:
    """A node with a GPU that tells everything."""
    state = GpuState(
        instances=(INSTANCE,),
        utilization_ratio=0.5,
        memory_used_bytes=7,
        memory_total_bytes=80,
        temperature_celsius=61.0,
        throttled={"sw_power_cap": True},
    )
    series = SeriesView(SeriesLabels(7, "train", "ada", "slurm:7"), (5, 0, 0), 9 * J, alive=True)
    whole = picture()
    (job,) = whole.jobs
    ended = job._replace(job_uid="slurm:6", ended=1_600_000_009.0)
    holder = job._replace(job_uid="slurm:7", gpus=1, gpu_idle_uj=60 * J, energy_uj=(0, 0, 39 * J))
    return replace(
        whole,
        devices=(*whole.devices, gpu_view(state)),
        series=(series,),
        jobs=(ended, holder),
    )


def picture(series: tuple[SeriesView, ...] | None = None) -> Snapshot:
    """A server with one package and its memory, two processes, one of them hostile."""
    if series is None:
        series = (
            SeriesView(
                SeriesLabels(7, "train", "ada", "session:ada"), (61_000_001, 5), 9 * J, True
            ),
            SeriesView(
                SeriesLabels(8, HOSTILE, "1001", "system"), (1_234_567_890_123, 0), 0, False
            ),
        )
    cpu_uj = 2_000_000_000_007 + sum(view.energy_uj[0] for view in series)
    dram_uj = 14 + sum(view.energy_uj[1] for view in series)
    return Snapshot(
        time=1_700_000_000.25,
        monotonic_ns=5,
        node=NodeInfo("1.2.3", 8, "FR", "process CPU clocks", 1.0, 1_600_000_000.5),
        devices=(
            DeviceView(
                device=CPU,
                energy_uj=cpu_uj,
                idle_uj=1_000_000_000_000,
                unattributed_uj=3,
                other_uj=1_000_000_000_004,
                retired_uj=0,
                job_retired_uj=0,
                power_uw=45_500_000,
                limit_uw=95_000_000,
                idle_power=IdlePower(20 * J, IdleMethod.OBSERVED),
                wraps=2,
                resets=1,
                gap_ns=1_500_000_000,
            ),
            DeviceView(
                device=DRAM,
                energy_uj=dram_uj,
                idle_uj=0,
                unattributed_uj=0,
                other_uj=4,
                retired_uj=10,
                job_retired_uj=10,
                power_uw=None,
                limit_uw=None,
                idle_power=None,
                wraps=0,
                resets=0,
                gap_ns=0,
            ),
        ),
        domains_uj=((RaplDomain("package", "0"), cpu_uj), (RaplDomain("psys", ""), 12)),
        series=series,
        jobs=(
            JobView(
                job_uid="session:ada",
                user="ada",
                energy_uj=(cpu_uj - 1_000_000_000_003, 4 + dram_uj - 14),
                cpu_ns=7_500_000_000,
                gpu_idle_uj=0,
                gpus=0,
                power_uw=9 * J,
                started=1_600_000_001.0,
                measured_since=1_600_000_002.0,
                ended=None,
                record=JobRecord(name="bert", account="vision", deadline=1_600_086_401.0),
                account="vision",
                budget=Budget(90e6, BudgetOrigin.COMMENT),
                cpus=1.5,
            ),
        ),
        health=Health(
            source_up={"rapl": False},
            source_errors={("rapl", "failed"): 3},
            series_dropped={"process_cap": 0},
            samples_missed=4,
            sample_seconds=0.0012,
            processes=300,
            checkpoint=None,
            cpu_seconds=1.5,
            resident_bytes=30_000_000,
            budget_errors={"comment": 1},
        ),
        history=(HistoryPoint(1_699_999_995.0, (44 * J, None)),),
        accounts=(("none", (3,)),),
    )
