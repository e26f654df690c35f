"""GPUs of a made-up node: what its meter tells of them, and where their energy goes."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterator
from dataclasses import replace

import pytest

from jobwatt.app import Parts, make_sampler, simulated_parts
from jobwatt.attribution.gpu_claims import claimed_gpus
from jobwatt.config import Config
from jobwatt.gpus import GpuMethod, GpuState, GpuUse
from jobwatt.model import Component, Counter, Report, Source
from jobwatt.sampler import Sampler
from jobwatt.simulation.blueprint import (
    Gpu,
    Hardware,
    Kernels,
    Lifetime,
    Package,
    PowerModel,
    Scenario,
    Workload,
)
from jobwatt.simulation.gpu_server import (
    CHAT,
    FINETUNING,
    GPU_SERVER,
    NOTEBOOK,
    POOL,
    PRETRAINING,
    SERVING,
    SHARED,
    SWEEP,
)
from jobwatt.simulation.load import Steady
from jobwatt.simulation.meter import SimulatedMeter
from jobwatt.simulation.node import SimulatedNode
from jobwatt.simulation.recurring import ALICE, BOB, ROOT
from jobwatt.simulation.usage import SimulatedUsage
from jobwatt.snapshot import DeviceView, Snapshot
from jobwatt.units import NS, UJ

FREE = 7
LEARNING_SECONDS = 12
GPU = Gpu("GPU", "Hopper", 80 << 30, PowerModel(50, 550, 600, None), "0000:1b:00.0")
INIT = Workload("systemd", "systemd:init.scope", ROOT, Steady(0))


class Bench:
    """A node that a test looks at, with its processes."""

    def __init__(self, scenario: Scenario, seed: int = 1) -> None:
        self.node = SimulatedNode(scenario, lambda: 0, seed)
        self.meter = SimulatedMeter(self.node)
        self.usage = SimulatedUsage(self.node)

    def look(self, age_seconds: float) -> Report:
        now_ns = round(age_seconds * NS)
        (report,) = self.meter.read(now_ns)
        self.usage.look(now_ns)
        return report

    def states(self, age_seconds: float) -> list[GpuState]:
        return list(self.look(age_seconds).gpus.values())

    def state(self, age_seconds: float, gpu: int = 0) -> GpuState:
        return self.states(age_seconds)[gpu]

    def use(self, age_seconds: float, gpu: int = 0) -> GpuUse:
        use = self.state(age_seconds, gpu).use
        assert use is not None
        return use

    def jobs(self, amounts: dict[int, int]) -> dict[str, int]:
        """Return amounts by job instead of pid."""
        by_job = Count[str]()
        for pid, amount in amounts.items():
            process = self.usage.find(pid)
            assert process is not None
            by_job[process.job_uid] += amount
        return dict(by_job)


def small(*workloads: Workload, gpus: int = 1) -> Scenario:
    """Return a scenario with a small CPU, some GPUs and the given work."""
    hardware = Hardware("CPU", "", (Package(8, PowerModel(10, 50)),), (GPU,) * gpus, "1.0")
    return Scenario("small", "", hardware, (INIT, *workloads))


def on_gpu(level: float, job: str = "slurm:1", gpu: int = 0, intensity: float = 1.0) -> Workload:
    """Return work that keeps a GPU busy."""
    return Workload(
        "python",
        job,
        ALICE,
        Steady(0.1),
        gpus=(gpu,),
        kernels=Kernels(Steady(level), 10 << 30, intensity),
    )


# --- the meter ----------------------------------------------------------------------------------


def test_gpus_are_devices_and_counters_of_the_contract() -> None:
    """Named by their UUID, without a package; their counters never wrap."""
    report = Bench(GPU_SERVER).look(1)

    counters = [r.counter for r in report.readings if _is_gpu(r.counter)]
    assert len({counter.key for counter in counters}) == 8
    for counter in counters:
        device = counter.device
        assert device is not None
        assert device.name.startswith("GPU-")
        assert (device.source, device.package, device.model) == (
            Source.SIMULATED,
            None,
            "Simulated H100 80GB HBM3",
        )
        assert (counter.range_uj, counter.limit_uw) == (None, 700 * UJ)
        assert report.limits_uw[device] == 700 * UJ
        assert report.gpus[device].info.uuid == device.name


def _is_gpu(counter: Counter) -> bool:
    return counter.device is not None and counter.device.component is Component.GPU


def test_gpus_are_told_apart() -> None:
    """Every number and address is one GPU's; another seed is another machine."""
    infos = [state.info for state in Bench(GPU_SERVER).states(1)]
    others = [state.info for state in Bench(GPU_SERVER, seed=2).states(1)]

    assert [info.index for info in infos] == [info.minor for info in infos] == list(range(8))
    assert len({info.pci_bus_id for info in infos}) == 8
    assert len({info.uuid for info in (*infos, *others)}) == 16
    assert {(i.driver, i.architecture, i.mig) for i in infos} == {("590.48.01", "Hopper", False)}


def test_a_node_without_gpus_tells_of_none() -> None:
    """No GPU, no state."""
    assert Bench(small(gpus=0)).look(1).gpus == {}


def test_the_first_look_knows_no_use() -> None:
    """What was before it nobody saw."""
    bench = Bench(small(on_gpu(0.5)))

    first, second = bench.state(10), bench.state(11)

    assert (first.use, first.span_ns) == (None, 0)
    assert (second.use is None, second.span_ns) == (False, NS)
    assert first.utilization_ratio == pytest.approx(0.5, abs=0.15)


def test_time_never_goes_back() -> None:
    """A late look finds the GPU as it was."""
    bench = Bench(small(on_gpu(0.5)))
    bench.look(1)
    bench.look(10.1)

    late = bench.state(9)

    assert late.use is not None
    assert (late.span_ns, late.use.busy, late.use.unknown) == (0, {}, 0)
    assert len(late.use.holders) == 1


def test_looking_changes_nothing() -> None:
    """Counters and busy times depend on the time alone, not on how often one looks."""
    often, seldom = Bench(GPU_SERVER), Bench(GPU_SERVER)
    seldom.look(0)
    often.look(0)
    busy = Count[int]()
    for tenth in range(1, 1001):
        use = often.use(tenth / 10 + 0.01, gpu=POOL[0])
        busy.update(use.busy)
        assert (use.strays, use.unknown) == ({}, 0)

    report = seldom.look(100.01)

    assert report.readings == often.look(100.01).readings
    later = list(report.gpus.values())[POOL[0]].use
    assert later is not None
    assert later.busy == busy


def test_a_gpu_that_is_busy_for_one_process_is_its_own() -> None:
    """All of its active energy is that process's; power follows the load."""
    bench = Bench(small(on_gpu(0.5), gpus=2))
    bench.look(0)

    state = bench.state(400)

    held, free = (gpu.part for gpu in bench.node.gpus)
    assert list(held.truth.active_uj) == ["slurm:1"]
    assert held.truth.energy_uj / UJ / 400 == pytest.approx(50 + 0.5 * 500, rel=0.02)
    assert free.truth.energy_uj / UJ / 400 == pytest.approx(50, rel=0.01)
    assert state.utilization_ratio == pytest.approx(0.5, abs=0.02)
    assert state.memory_used_bytes == 10 << 30
    assert state.use is not None
    assert state.use.busy is not None
    assert bench.jobs(dict(state.use.busy)).keys() == {"slurm:1"}
    assert state.use.holders == state.use.residents.keys() == state.use.busy.keys()


def test_two_take_turns() -> None:
    """Shares are as SM utilisation; power is that of both."""
    bench = Bench(small(on_gpu(0.6, "slurm:1"), on_gpu(0.2, "slurm:2")))
    bench.look(0)

    use = bench.use(400)

    assert use.measure is GpuMethod.SM_UTILIZATION
    assert use.busy is not None
    busy = bench.jobs(dict(use.busy))
    assert busy["slurm:1"] / busy["slurm:2"] == pytest.approx(3, rel=0.03)
    truth = bench.node.gpus[0].part.truth
    assert truth.active_uj["slurm:1"] / truth.active_uj["slurm:2"] == pytest.approx(3, rel=0.03)
    assert truth.energy_uj / UJ / 400 == pytest.approx(50 + 0.8 * 500, rel=0.02)


def test_a_gpu_is_never_busier_than_all_the_time() -> None:
    """Whoever wants more than there is gets a part of it."""
    bench = Bench(small(on_gpu(1, "slurm:1"), on_gpu(1, "slurm:2")))
    bench.look(0)

    for second in range(1, 60):
        state = bench.state(second)
        assert state.use is not None
        assert state.use.busy is not None
        busy = bench.jobs(dict(state.use.busy))
        assert sum(busy.values()) <= NS
        assert busy["slurm:1"] == pytest.approx(busy["slurm:2"], rel=0.3)
        assert state.utilization_ratio == 1


def test_the_power_limit_holds_the_clocks_down() -> None:
    """Work that would draw more than the limit is held at it, and the driver says why."""
    bench = Bench(small(on_gpu(1, intensity=1.5, gpu=0), on_gpu(0.5, gpu=1), gpus=2))

    hot, cool = bench.states(100)

    watts = bench.node.gpus[0].part.truth.energy_uj / UJ / 100
    assert watts == pytest.approx(600, rel=0.001)
    assert [why for why, active in hot.throttled.items() if active] == ["sw_power_cap"]
    assert not any(cool.throttled.values())
    assert hot.throttled.keys() == cool.throttled.keys()


def test_temperature_follows_power() -> None:
    """A GPU warms up within a minute or so, and is cool at rest."""
    bench = Bench(small(replace(on_gpu(1), start_seconds=10), gpus=2))

    celsius = [bench.state(second).temperature_celsius for second in (0, 9, 20, 60, 300)]

    assert celsius == sorted(celsius, key=float)  # type: ignore[arg-type]
    assert celsius[0] == celsius[1] == pytest.approx(40, abs=2)
    assert celsius[-1] == pytest.approx(56, abs=2)


def test_a_process_that_died_between_two_looks_is_told() -> None:
    """With what it still worked; it holds nothing any more."""
    brief = replace(on_gpu(0.5), lifetime=Lifetime((3.1, 3.1), (2, 2)))
    bench = Bench(small(brief))
    deaths = 0
    bench.look(0)
    holders: frozenset[int] = frozenset()
    for second in range(1, 60):
        use = bench.use(second)
        for pid in holders - use.holders:
            process = bench.usage.find(pid)
            assert process is not None
            assert not process.alive
            assert use.residents[pid] == 10 << 30
            deaths += 1
        assert holders | use.holders == use.residents.keys()
        assert use.busy is not None
        assert use.busy.keys() <= use.residents.keys()
        holders = use.holders

    assert deaths >= 8


def test_work_between_two_looks_is_counted() -> None:
    """A process that came and went in between is a stray; all busy time is told."""
    brief = replace(on_gpu(0.5), lifetime=Lifetime((2, 3), (0, 1)))
    bench, often = Bench(small(brief)), Bench(small(brief))
    bench.look(0)
    often.look(0)
    busy_ns = 0
    for half in range(1, 61):
        use = often.use(half / 2)
        busy_ns += sum((use.busy or {}).values())

    use = bench.use(30)

    assert len(use.strays) > 5
    assert use.busy is not None
    assert sum(use.busy.values()) + sum(use.strays.values()) == busy_ns
    assert use.strays.keys().isdisjoint(use.residents)
    assert use.unknown == 0


def test_what_the_driver_has_forgotten_is_unknown() -> None:
    """It remembers the last hundred that have ended."""
    brief = replace(on_gpu(0.5), lifetime=Lifetime((1, 1), (0, 0)))
    bench = Bench(small(brief))
    bench.look(0)

    use = bench.use(400)

    assert len(use.strays) == 100
    assert use.unknown == pytest.approx((400 - 101) * 0.5 * NS, rel=0.3)


def test_environments_name_the_gpus_that_were_given() -> None:
    """A loader that has no context shows by its environment whose the GPUs are."""
    loader = Workload("loader", "slurm:1", ALICE, Steady(0.5), gpus=(0, 2))
    bench = Bench(small(loader, on_gpu(0.5, gpu=1), gpus=3))

    infos = {state.info.uuid: state.info for state in bench.states(1)}

    claims = {p.comm: claimed_gpus(p.environment, infos) for p in bench.usage.claimants}
    numbers = {comm: {infos[uuid].index for uuid in uuids} for comm, uuids in claims.items()}
    assert numbers == {"loader": {0, 2}, "python": {1}}
    assert [len(gpu.residents) for gpu in _uses(bench, 2)] == [0, 1, 0]


def _uses(bench: Bench, age_seconds: float) -> Iterator[GpuUse]:
    for state in bench.states(age_seconds):
        assert state.use is not None
        yield state.use


def test_ranks_go_to_their_gpus_in_turn() -> None:
    """The n-th process of a kind takes the n-th GPU, and after the last the first again."""
    ranks = replace(on_gpu(0.5), count=5, gpus=(2, 0))
    bench = Bench(small(ranks, gpus=3))
    bench.look(0)

    assert [len(use.holders) for use in _uses(bench, 1)] == [2, 0, 3]


# --- who is found -------------------------------------------------------------------------------


def test_the_dead_are_found_for_a_minute() -> None:
    """And then forgotten: the dictionary does not grow."""
    brief = Workload("brief", "system", BOB, Steady(1), lifetime=Lifetime((1, 1), (1, 1)))
    bench = Bench(small(brief))
    ended: dict[int, float] = {}
    for second in range(600):
        bench.meter.read(second * NS)
        for process in bench.usage.look(second * NS).ended:
            ended[process.pid] = second
        for pid, at in ended.items():
            assert (bench.usage.find(pid) is not None) == (second - at <= 60)
        assert len(bench.usage._by_pid) < 40

    assert len(ended) > 200


def test_a_successor_with_the_same_pid_is_not_forgotten() -> None:
    """The pid of one that ended long ago may be another's by now."""
    brief = Workload("brief", "system", BOB, Steady(1), lifetime=Lifetime((5, 5), (0, 0)))
    bench = Bench(small(brief))
    bench.look(1)
    (first,) = (process for process in bench.usage.processes if process.comm == "brief")
    bench.look(6)
    (second,) = (process for process in bench.usage.processes if process.comm == "brief")
    second.pid = first.pid
    assert bench.usage.find(first.pid) is first

    bench.look(9)
    assert bench.usage.find(first.pid) is second
    bench.look(67)

    assert bench.usage.find(first.pid) is second
    bench.look(128)
    assert bench.usage.find(first.pid) is None


# --- the server, through the whole path ---------------------------------------------------------


class Run:
    """The whole path from the meter to the snapshot, on a clock that a test moves."""

    def __init__(self, seed: int = 1, interval_ns: int = NS) -> None:
        self.parts: Parts = simulated_parts("gpu-server", seed)
        self.sampler: Sampler = make_sampler(Config(), self.parts)
        (meter,) = self.parts.meters
        assert isinstance(meter, SimulatedMeter)
        self.node = meter._node
        self._now_ns = self.node._start_ns
        self._interval_ns = interval_ns
        self.sampler._clock = lambda: self._now_ns

    def samples(self, count: int) -> Iterator[Snapshot]:
        for _ in range(count):
            snapshot = self.sampler.sample()
            yield snapshot
            self._now_ns += self._interval_ns


def device_sums(snapshot: Snapshot) -> Iterator[tuple[int, int]]:
    """Return each device's energy, and the sum of its accounts."""
    for index, view in enumerate(snapshot.devices):
        named = sum(s.energy_uj[index] for s in snapshot.series if index < len(s.energy_uj))
        rest = view.other_uj + view.retired_uj + view.idle_uj + view.unattributed_uj
        yield view.energy_uj, named + rest


def gpus(snapshot: Snapshot) -> list[DeviceView]:
    return [view for view in snapshot.devices if view.device.component is Component.GPU]


def by_job(snapshot: Snapshot, gpu: int) -> dict[str, int]:
    """Return a GPU's energy by the jobs of the processes that have a series."""
    (index,) = (i for i, view in enumerate(snapshot.devices) if view is gpus(snapshot)[gpu])
    jobs = Count[str]()
    for series in snapshot.series:
        if index < len(series.energy_uj) and series.energy_uj[index]:
            jobs[series.labels.job_uid] += series.energy_uj[index]
    return dict(jobs)


@pytest.mark.parametrize("interval_ns", [NS, 730_000_001])
def test_every_microjoule_is_accounted_for(interval_ns: int) -> None:
    """Σ process + other + retired + idle + unattributed = energy, at each sample and device."""
    run = Run(interval_ns=interval_ns)
    before = {part.name: run.node.energy_uj(part) for part in run.node.parts}

    for snapshot in run.samples(400):
        for energy_uj, accounts_uj in device_sums(snapshot):
            assert energy_uj == accounts_uj

    assert len(snapshot.devices) == 12
    for part, view in zip(run.node.parts, snapshot.devices, strict=True):
        spent = run.node.energy_uj(part) - before[part.name]
        assert view.device.name == part.name
        assert view.energy_uj == (spent % part.power.range_uj if part.power.range_uj else spent)
        assert view.resets == view.gap_ns == 0


def test_accounts_are_near_the_truth() -> None:
    """After ten minutes every GPU's energy is where it really went."""
    run = Run()
    *_, snapshot = run.samples(601)

    for gpu, view in zip(run.node.gpus, gpus(snapshot), strict=True):
        truth = gpu.part.truth
        assert view.idle_power is not None
        assert view.idle_power.uw / UJ == pytest.approx(70, rel=0.01)
        assert view.idle_uj == pytest.approx(truth.idle_uj, rel=0.05)
        # Before its idle power is known, what an idle GPU draws is nobody's.
        assert view.unattributed_uj < (LEARNING_SECONDS * 70 * UJ) + 0.01 * view.energy_uj
        jobs = by_job(snapshot, gpu.number)
        assert {job for job in truth.active_uj if truth.active_uj[job]} <= jobs.keys()
        for job, uj in truth.active_uj.items():
            # Idle is known as a mean: what noise adds and takes goes to whoever holds the GPU.
            # A process's first joules are in `other`, and after its linger in `retired`.
            lost = view.other_uj + view.retired_uj
            assert jobs[job] - 0.03 * view.energy_uj <= uj <= jobs[job] + lost + 0.03 * uj


def test_the_server_uses_its_gpus_as_it_says() -> None:
    """A training on four, two users on one, inference, one held, one free."""
    run = Run()
    *_, snapshot = run.samples(300)

    views = gpus(snapshot)
    holders = [{holder.job_uid for holder in view.holders} for view in views]
    assert holders == [
        *[{PRETRAINING}] * len(POOL),
        {FINETUNING, SWEEP},
        {CHAT},
        {"session:carol"},
        set(),
    ]
    methods = [set(view.methods_uj) for view in views]
    exclusive = {GpuMethod.EXCLUSIVE.value}
    assert all(methods[gpu] == exclusive for gpu in (*POOL, SERVING, NOTEBOOK))
    # It begins with one process alone.
    assert methods[SHARED] == {*exclusive, GpuMethod.SM_UTILIZATION.value}
    assert methods[FREE] == set()
    free, notebook = views[FREE], views[NOTEBOOK]
    for view in (free, notebook):
        assert view.energy_uj / UJ / 299 == pytest.approx(70, rel=0.02)
        assert view.idle_uj / view.energy_uj > 0.93
    assert free.gpu is not None
    assert free.gpu.memory_used_bytes == 0
    assert free.gpu.use is not None
    assert free.gpu.use.residents == {}
    assert notebook.gpu is not None
    assert notebook.gpu.memory_used_bytes == 11 << 30
    assert [len(holder.pids) for gpu in (NOTEBOOK, POOL[0]) for holder in views[gpu].holders] == [
        1,
        1,
    ]


def test_the_shared_gpu_is_divided_by_sm_utilisation() -> None:
    """Two users: what each gets is as busy as it kept the GPU."""
    run = Run()
    busy = Count[str]()
    for snapshot in run.samples(300):
        gpu = gpus(snapshot)[SHARED].gpu
        assert gpu is not None
        use = gpu.use
        for pid, amount in ((use.busy or {}) if use else {}).items():
            process = run.parts.usage.find(pid)
            assert process is not None
            busy[process.job_uid] += amount

    jobs = by_job(snapshot, SHARED)
    view = gpus(snapshot)[SHARED]
    assert jobs.keys() == busy.keys() == {FINETUNING, SWEEP}
    # Of the sweep some is retired by now.
    jobs[SWEEP] += view.other_uj + view.retired_uj
    assert jobs[SWEEP] / jobs[FINETUNING] == pytest.approx(busy[SWEEP] / busy[FINETUNING], rel=0.1)
