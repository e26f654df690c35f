"""GPUs in the accounts: restarts, epochs, late reports, idle power, holders."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from fakes.probe import FakeProbe
from jobwatt.accounting import Accountant
from jobwatt.gpus import GpuHolder, GpuInfo, GpuInstance, GpuState, GpuUse
from jobwatt.ledger import Ledger, SeriesRules
from jobwatt.model import (
    Component,
    Counter,
    Device,
    Fault,
    IdleMethod,
    IdlePower,
    JobPresence,
    Process,
    Reading,
    Report,
    Rows,
    Source,
    Usage,
)
from jobwatt.records import JobRecord
from jobwatt.snapshot import DeviceView

S = 1_000_000_000
J = 1_000_000
GIB = 1 << 30
UUID = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
GPU = Device(Component.GPU, UUID, Source.NVML_ENERGY, None, "NVIDIA H100")
COUNTER = Counter(f"nvml:{UUID}", GPU, limit_uw=700 * J, peak_uw=700 * J, lasting=True)
INFO = GpuInfo(UUID, index=0, minor=3)
A = Process(1, 10, "a", job_uid="slurm:1")
B = Process(2, 20, "b", job_uid="slurm:2")


def used(*pids: int, busy: Mapping[int, int] | None = None, seconds: float = 1) -> GpuState:
    """What a GPU shows whose residents these are."""
    use = GpuUse(dict.fromkeys(pids, GIB), frozenset(pids), {} if busy is None else busy)
    return GpuState(INFO, round(seconds * S), use)


FIRST = GpuState(INFO)
"""What a meter shows at its first look: nothing is known of the time before."""


class Run:
    """One run of the exporter on a machine with one GPU."""

    def __init__(
        self,
        rows: Rows | None = None,
        *,
        boot: str = "b00t",
        now: float = 0,
        idle: Mapping[str, float] | None = None,
    ) -> None:
        self.ledger = Ledger(SeriesRules(least_uj=0))
        self.accountant = Accountant(self.ledger, idle or {})
        self.boot = boot
        if rows is not None:
            self.accountant.restore(rows, boot, round(now * S))

    def sample(
        self,
        second: float,
        *reports: Report,
        alive: Iterable[Process] = (A, B),
        gone: Iterable[Process] = (),
        ended: Iterable[Process] = (),
    ) -> None:
        """Book these reports."""
        probe = FakeProbe(list(alive), list(gone))
        self.accountant.book(round(second * S), reports, Usage(ended=list(ended)), probe)

    def rows(self) -> Rows:
        """What the disk has, and gives back."""
        dumped = self.accountant.dump(self.boot)
        return {key: tuple(json.loads(json.dumps(row))) for key, row in dumped.items()}

    @property
    def gpu(self) -> DeviceView:
        return self.ledger.devices[UUID].view()

    @property
    def holders(self) -> tuple[GpuHolder, ...]:
        return self.gpu.holders

    def series(self) -> dict[int, int]:
        return {view.labels.pid: view.energy_uj[0] for view in self.ledger.series_views()}


def report(second: float, value_uj: int | None, state: GpuState | None = None) -> Report:
    """What the meter tells; without a value the counter has failed."""
    at_ns = round(second * S)
    readings = () if value_uj is None else (Reading(COUNTER, value_uj, at_ns),)
    faults = (Fault(UUID, "failed", "no"),) if value_uj is None else ()
    gpus = {} if state is None else {GPU: state}
    return Report(Source.NVML_ENERGY, at_ns, readings, faults, gpus=gpus)


def begun() -> Run:
    """A run at 170 W, 70 of them idle, in which A alone has the GPU, and a series of its own."""
    run = Run(idle={"GPU-*": 70.0})
    run.sample(1, report(1, 5000 * J, FIRST))
    run.sample(2, report(2, 5170 * J, used(1)))
    run.sample(3, report(3, 5340 * J, used(1)))
    assert run.series() == {1: 100 * J}
    return run


# --- restarts --------------------------------------------------------------------------------


def test_what_was_drawn_while_no_exporter_ran_is_not_the_first_residents() -> None:
    """Idle energy is idle; who used the rest is not known, though somebody is there now."""
    after = Run(begun().rows(), now=60, idle={"GPU-*": 70.0})
    after.sample(60, report(60, 15_340 * J, FIRST))
    gpu = after.gpu
    assert gpu.energy_uj == 10_340 * J
    assert (gpu.idle_uj, gpu.unattributed_uj) == ((2 + 57) * 70 * J, (10_000 - 57 * 70) * J)
    after.sample(61, report(61, 15_510 * J, used(1)))
    assert after.series() == {1: 200 * J}
    assert after.gpu.energy_uj == 10_510 * J


@pytest.mark.parametrize(
    ("state", "alive", "expected"),
    [
        (used(1, seconds=0), (A, B), True),
        (used(1, 2, seconds=0), (A, B), False),
        (used(2, seconds=0), (A, B), False),
        (used(seconds=0), (A, B), False),
        (FIRST, (A, B), False),
        (replace(used(1, seconds=0), foreign=True), (A, B), False),
        (GpuState(INFO, 0, GpuUse({1: GIB}, frozenset({1}), {}, {9: 5})), (A, B), False),
        (used(1, seconds=0), (Process(1, 11, "a", job_uid="slurm:1"),), False),
    ],
    ids=["alone", "shared", "another", "left", "unread", "foreign", "visited", "reused-pid"],
)
def test_who_was_alone_on_a_gpu_before_and_after_was_alone_in_between(
    state: GpuState, alive: tuple[Process, ...], *, expected: bool
) -> None:
    """By pid and start, where no sample shows another: seven seconds at 170 W, of which 70 idle."""
    after = Run(begun().rows(), now=10, idle={"GPU-*": 70.0})
    after.sample(10, report(10, (5340 + 7 * 170) * J, state), alive=alive)
    gpu = after.gpu
    active = 7 * 100 if expected else 0
    assert after.series() == {1: (100 + active) * J}
    assert (gpu.idle_uj, gpu.unattributed_uj) == ((2 + 7) * 70 * J, (700 - active) * J)
    held = {job.job_uid: job.gpu_idle_uj for job in after.ledger.job_views()}
    assert held["slurm:1"] == (2 * 70 + (7 * 70 if expected else 0)) * J


def test_longer_than_samples_are_kept_nobody_can_say_who_was_alone() -> None:
    """Of forty seconds the last ten are known; a second restart before the driver is up is none."""
    between = Run(begun().rows(), now=10, idle={"GPU-*": 70.0})
    between.sample(10)
    after = Run(between.rows(), now=43, idle={"GPU-*": 70.0})
    after.sample(43, report(43, (5340 + 40 * 170) * J, used(1, seconds=0)))
    assert after.series() == {1: (100 + 1000) * J}
    assert after.gpu.unattributed_uj == 3000 * J


def test_a_counter_that_began_anew_while_no_exporter_ran() -> None:
    """The driver was reloaded: what it shows is all that is known of that time."""
    after = Run(begun().rows(), now=60)
    after.sample(60, report(60, 2000 * J, FIRST))
    after.sample(61, report(61, 2100 * J, used(1)))
    assert after.gpu.resets == 1
    assert after.gpu.energy_uj == (340 + 2100) * J


def test_after_a_boot_the_counter_begins_anew() -> None:
    """Nothing is added for the time before, nor taken for a reset."""
    after = Run(begun().rows(), boot="0ther", now=0)
    after.sample(1, report(1, 9000 * J, FIRST))
    after.sample(2, report(2, 9100 * J, used(1)))
    assert (after.gpu.energy_uj, after.gpu.resets) == (440 * J, 0)


def test_a_counter_that_does_not_last_begins_anew() -> None:
    """An integral of power knows nothing of the time in which nobody read it."""
    device = Device(Component.GPU, UUID, Source.NVML_POWER)
    counter = Counter(f"nvml:{UUID}", device)

    def look(run: Run, second: int, value_uj: int) -> None:
        readings = (Reading(counter, value_uj, second * S),)
        run.sample(second, Report(Source.NVML_POWER, second * S, readings))

    before = Run()
    look(before, 1, 0)
    look(before, 2, 100 * J)
    after = Run(before.rows(), now=60)
    look(after, 60, 0)
    look(after, 61, 100 * J)
    assert (after.gpu.energy_uj, after.gpu.resets) == (200 * J, 0)


def test_a_meter_that_has_not_answered_yet_loses_nothing_at_a_restart() -> None:
    """A second restart, before the driver was up: its counter has gone on since the first run."""
    between = Run(begun().rows(), now=10)
    between.sample(10)  # NVML takes its time to start
    after = Run(between.rows(), now=20)
    after.sample(20, report(20, 6340 * J, FIRST))
    assert after.gpu.energy_uj == 1340 * J


# --- idle power ------------------------------------------------------------------------------


def learned() -> Run:
    """A run that has seen the GPU free for ten seconds, at 70 W."""
    run = Run()
    run.sample(0, report(0, 0, FIRST))
    for second in range(1, 12):
        run.sample(second, report(second, second * 70 * J, used()))
    return run


def test_idle_power_is_learned_while_nobody_is_there() -> None:
    """Until then idle counts nothing; afterwards it holds for those who come."""
    run = learned()
    assert run.gpu.idle_power == IdlePower(70 * J, IdleMethod.OBSERVED)
    idle_uj = run.gpu.idle_uj
    for second in range(12, 40):
        run.sample(second, report(second, 770 * J + (second - 11) * 300 * J, used(1)))
    assert run.gpu.idle_power == IdlePower(70 * J, IdleMethod.OBSERVED)
    assert run.gpu.idle_uj - idle_uj == 28 * 70 * J


def test_what_is_not_seen_is_not_learned_from() -> None:
    """A GPU whose processes cannot be read, or are another namespace's, is not free."""
    for state in (
        GpuState(INFO, S),
        GpuState(INFO, S, used().use, foreign=True),
        GpuState(INFO, S, used().use, utilization_ratio=0.5),
        None,
    ):
        run = Run()
        run.sample(0, report(0, 0, FIRST))
        for second in range(1, 30):
            run.sample(second, report(second, second * 300 * J, state))
        assert run.gpu.idle_power is None


@pytest.mark.parametrize("boot", ["b00t", "0ther"])
def test_idle_power_of_a_gpu_is_kept(boot: str) -> None:
    """Also over a boot: it may never be free again."""
    after = Run(learned().rows(), boot=boot, now=100)
    after.sample(100, report(100, 10_000 * J, FIRST))
    assert after.gpu.idle_power == IdlePower(70 * J, IdleMethod.OBSERVED)


def test_idle_power_of_a_gpu_is_kept_over_a_run_that_did_not_see_it() -> None:
    """The driver was broken for a day."""
    between = Run(learned().rows(), now=100)
    between.sample(100)
    after = Run(between.rows(), now=200)
    after.sample(200, report(200, 20_000 * J, FIRST))
    assert after.gpu.idle_power == IdlePower(70 * J, IdleMethod.OBSERVED)


def test_time_whose_energy_is_lost_teaches_nothing() -> None:
    """Nor was the power 0 W within it."""
    device = Device(Component.GPU, UUID, Source.NVML_POWER)
    counter = Counter(f"nvml:{UUID}", device)

    def look(second: int, value_uj: int, lost_ns: int = 0) -> None:
        readings = (Reading(counter, value_uj, second * S, lost_ns),)
        gpus = {device: used()}
        run.sample(second, Report(Source.NVML_POWER, second * S, readings, gpus=gpus))

    run = Run()
    look(1, 0)
    look(2, 70 * J)
    look(14, 70 * J, lost_ns=12 * S)
    assert run.gpu.power_uw != 0
    assert run.gpu.gap_ns == 12 * S
    for second in range(15, 30):
        look(second, (second - 13) * 70 * J)
    assert run.gpu.idle_power == IdlePower(70 * J, IdleMethod.OBSERVED)


# --- readings --------------------------------------------------------------------------------


def test_any_decrease_is_a_new_epoch() -> None:
    """A GPU that was reset: what it drew before that is lost, what it draws since is not."""
    run = begun()
    run.sample(4, report(4, 50 * J, used(1)))
    run.sample(5, report(5, 220 * J, used(1)))
    assert run.gpu.resets == 1
    assert run.gpu.energy_uj == (340 + 220) * J


def test_a_reading_that_fails_loses_no_claim() -> None:
    """Who was there while the counter failed shares what the next one shows."""
    run = begun()
    run.sample(4, report(4, None, used(1, 2, busy={1: 60})))
    assert run.gpu.power_uw is None
    run.sample(5, report(5, 5340 * J + 440 * J, used(1, 2, busy={1: 20, 2: 40})))
    assert (run.series()[1], run.gpu.other_uj) == (300 * J, 200 * J)
    assert run.gpu.unattributed_uj == 0


def test_a_state_that_fails_is_unattributed_energy() -> None:
    """The counter is read; who used it is not known."""
    run = begun()
    run.sample(4, report(4, 5510 * J, GpuState(INFO, S)))
    assert run.gpu.unattributed_uj == 100 * J
    assert run.series() == {1: 100 * J}


def test_reports_that_come_late_are_booked_to_who_has_ended_meanwhile() -> None:
    """Its series lingers; a slow driver still tells what it used."""
    run = begun()
    run.sample(4, alive=(B,), gone=(A,), ended=(A,))
    late = (report(4, 5510 * J, used(1)), report(5, 5680 * J, used(2)))
    run.sample(5, *late, alive=(B,), gone=(A,))
    assert run.series()[1] == 200 * J
    assert run.gpu.other_uj == 200 * J  # the first 100 J of each
    assert run.gpu.energy_uj == (340 + 340) * J


def test_several_reports_at_once_are_booked_one_after_the_other() -> None:
    """Each by its own time and its own users."""
    run = begun()
    run.sample(
        60,
        report(20, 5340 * J + 17 * 170 * J, used(1, seconds=17)),
        report(60, 5340 * J + 57 * 170 * J, used(2, seconds=40)),
    )
    assert run.series()[1] == (1 + 17) * 100 * J
    assert run.gpu.power_uw == 170 * J
    assert run.gpu.idle_uj == 59 * 70 * J


# --- parts and methods -----------------------------------------------------------------------


def test_methods_and_instances_are_kept_over_a_restart() -> None:
    """They are views of what is kept."""
    run = begun()
    instance = GpuInstance("MIG-1", "1g", 16, GpuUse({2: GIB}, frozenset({2})))
    state = GpuState(GpuInfo(UUID, mig=True), S, GpuUse(), instances=(instance,))
    run.sample(4, report(4, 5510 * J, state))
    assert run.gpu.methods_uj == {"exclusive": 300 * J}
    assert run.gpu.parts_uj == {"MIG-1": 100 * J}
    after = Run(run.rows(), now=10)
    assert after.gpu.methods_uj == {"exclusive": 300 * J}
    assert after.gpu.parts_uj == {"MIG-1": 100 * J}


# --- holders ---------------------------------------------------------------------------------


def with_environment(pid: int, job_uid: str, **environment: str) -> Process:
    return Process(pid, 1, job_uid=job_uid, environment=environment)


def test_who_has_a_context_holds_the_gpu() -> None:
    """By job, with the pids."""
    run = Run()
    second = Process(3, 30, "c", job_uid="slurm:1")
    run.sample(1, report(1, 0, used(1, 2, 3)), alive=(A, B, second))
    assert run.holders == (GpuHolder("slurm:1", (1, 3)), GpuHolder("slurm:2", (2,)))


def test_who_was_given_a_gpu_holds_it_without_a_context() -> None:
    """By UUID, or by Slurm's number of its device file."""
    waits = with_environment(7, "slurm:7", CUDA_VISIBLE_DEVICES=UUID)
    slurm = with_environment(8, "slurm:8", SLURM_JOB_GPUS="3")
    index = with_environment(9, "slurm:9", CUDA_VISIBLE_DEVICES="0")
    run = Run()
    run.sample(1, report(1, 0, used()), alive=(waits, slurm, index))
    assert run.holders == (GpuHolder("slurm:7", ()), GpuHolder("slurm:8", ()))


def test_what_a_prolog_tells_of_a_jobs_gpus_is_believed() -> None:
    """Also where no environment can be read; a job without processes holds none."""
    run = Run()
    run.sample(1, report(1, 0, used()))
    given = {f"slurm:{number}": JobRecord(gpus=(3,)) for number in (7, 8)}
    usage = Usage(jobs={"slurm:7": JobPresence(1, 0.0, "ada")}, records=given)
    run.accountant.book(2 * S, [report(2, 0, used())], usage, FakeProbe([A]))
    assert run.holders == (GpuHolder("slurm:7", ()),)


@pytest.mark.parametrize(
    ("state", "device"),
    [
        (used(), UUID),
        (used(), f"{UUID}::5"),
        (
            GpuState(
                GpuInfo(UUID, mig=True),
                S,
                GpuUse(),
                instances=(GpuInstance("MIG-1", "1g", 16), GpuInstance("MIG-2", "1g", 16)),
            ),
            "MIG-2",
        ),
    ],
)
def test_a_pod_that_was_given_a_gpu_and_idles_holds_it(state: GpuState, device: str) -> None:
    """As kubelet tells; two that share it by time hold it in equal parts."""
    run = Run(idle={"GPU-*": 70.0})
    run.sample(1, report(1, 0, state))
    given = {job: JobRecord(gpu_ids=(device, "eth0")) for job in ("k8s:a", "k8s:b", "k8s:gone")}
    there = {job: JobPresence(1, 0.0, "ada") for job in ("k8s:a", "k8s:b")}
    usage = Usage(jobs=there, records=given)
    run.accountant.book(2 * S, [report(2, 100 * J, state)], usage, FakeProbe([]))
    assert run.holders == (GpuHolder("k8s:a", ()), GpuHolder("k8s:b", ()))
    jobs = run.ledger.book.jobs
    assert {job: (jobs[job].gpus, jobs[job].gpu_idle_uj) for job in there} == {
        "k8s:a": (1, 35 * J),
        "k8s:b": (1, 35 * J),
    }


def test_who_was_given_a_gpu_and_uses_it_is_one_holder() -> None:
    """With the pids of its contexts."""
    user = with_environment(7, "slurm:7", CUDA_VISIBLE_DEVICES=UUID)
    shell = with_environment(8, "slurm:7", CUDA_VISIBLE_DEVICES=UUID)
    run = Run()
    run.sample(1, report(1, 0, used(7)), alive=(user, shell))
    assert run.holders == (GpuHolder("slurm:7", (7,)),)


def test_who_has_left_holds_nothing() -> None:
    """Though it was resident at the look before, and is paid for that."""
    run = begun()
    left = GpuState(INFO, S, GpuUse({1: GIB}, frozenset()))
    run.sample(4, report(4, 5510 * J, left))
    assert run.holders == ()
    assert run.series() == {1: 200 * J}


def test_strangers_and_foreign_pids_hold_nothing() -> None:
    """Nobody is named who is not known."""
    run = Run()
    run.sample(1, report(1, 0, used(777)))
    assert run.holders == ()
    run.sample(2, report(2, 0, GpuState(INFO, S, used(1).use, foreign=True)))
    assert run.holders == ()


def test_who_holds_an_instance_holds_the_gpu() -> None:
    """Instances are its parts."""
    instances = (
        GpuInstance("MIG-1", "1g", 16, GpuUse({1: GIB}, frozenset({1}))),
        GpuInstance("MIG-2", "1g", 16, GpuUse({2: GIB}, frozenset({2}))),
    )
    state = GpuState(GpuInfo(UUID, mig=True), S, GpuUse(), instances=instances)
    run = Run()
    run.sample(1, report(1, 0, state))
    assert run.holders == (GpuHolder("slurm:1", (1,)), GpuHolder("slurm:2", (2,)))


def test_a_gpu_that_does_not_answer_shows_no_holders() -> None:
    """What was so a while ago is not shown as now."""
    run = begun()
    run.sample(4, Report(Source.NVML_ENERGY, 4 * S, faults=(Fault("NVML", "timeout", "no"),)))
    assert (run.holders, run.gpu.gpu) == ((), None)
    assert run.gpu.gpu_info == INFO
