"""GPUs that are divided by MIG: instances as parts, laid out anew at any time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fakes.nvidia import Nvidia
from fakes.nvml import Gpu, GpuProcess, Instance, Kind
from jobwatt.gpus import GpuInstance, GpuUse
from jobwatt.meters.nvml.device import SLOW_LOOKS
from jobwatt.units import UJ

Machine = Callable[..., Nvidia]

MIB = 1 << 20
SMALL = Instance("MIG-1", gpu_instance=9)
LARGE = Instance("MIG-3", gpu_instance=2, profile="3g.40gb", slices=3, multiprocessors=60)
GPU = Gpu(uuid="GPU-a", power_mw=100_000, refresh_ms=0)
DIVIDED = replace(GPU, instances=(LARGE, None, SMALL))
WITHOUT_GPM = replace(DIVIDED, gpm=False)
NOT_SUPPORTED, NO_PERMISSION, UNKNOWN = 3, 4, 999


def named(nvidia: Nvidia) -> dict[str, GpuInstance]:
    return {instance.uuid: instance for instance in nvidia.state.instances}


def residents(nvidia: Nvidia) -> dict[str, set[int]]:
    return {uuid: set(instance.use.residents) for uuid, instance in named(nvidia).items()}


def test_instances_are_parts_of_the_one_device(machine: Machine) -> None:
    """Holes between them are passed over; the parent's energy is there once."""
    processes = (
        GpuProcess(1, memory_bytes=100 * MIB, instance="MIG-1"),
        GpuProcess(2, Kind.GRAPHICS, memory_bytes=None, instance="MIG-3"),
    )
    nvidia = machine(replace(WITHOUT_GPM, processes=processes))
    nvidia.look(0)
    assert nvidia.look(1).energy == {"GPU-a": 100 * UJ}
    assert nvidia.state.info.mig
    assert nvidia.state.instances == (
        GpuInstance("MIG-3", "3g.40gb", 60, GpuUse({2: None}, frozenset({2})), memory_used_bytes=0),
        GpuInstance(
            "MIG-1",
            "1g.10gb",
            16,
            GpuUse({1: 100 * MIB}, frozenset({1})),
            memory_used_bytes=100 * MIB,
        ),
    )
    assert nvidia.faults == []


def test_who_has_left_an_instance_was_resident_there(machine: Machine) -> None:
    """As on a whole GPU."""
    nvidia = machine(replace(DIVIDED, processes=(GpuProcess(1, instance="MIG-1"),)))
    nvidia.look()
    nvidia.fake.stop_process(0, 1)
    use = named(nvidia.look())["MIG-1"].use
    assert (set(use.residents), use.holders) == ({1}, frozenset())
    assert residents(nvidia.look()) == {"MIG-1": set(), "MIG-3": set()}


def test_activity_is_told_by_the_monitors(machine: Machine) -> None:
    """Since the look before; of each instance."""
    nvidia = machine(DIVIDED)
    first = named(nvidia.look())
    assert {one.activity for one in first.values()} == {None}
    nvidia.fake.set_gpm(0, graphics=90, sm=80, gpu_instance=2)
    nvidia.fake.advance(0.5)
    nvidia.fake.set_gpm(0, graphics=0, sm=0, gpu_instance=2)
    assert {uuid: one.activity for uuid, one in named(nvidia.look(0.5)).items()} == {
        "MIG-3": 0.4,
        "MIG-1": 0.0,
    }


def test_compute_instances_of_one_gpu_instance_are_told_the_same(machine: Machine) -> None:
    """The monitors watch the GPU instance; it is sampled once a look."""
    halves = tuple(
        replace(LARGE, uuid=f"MIG-{number}", compute_instance=number, multiprocessors=30)
        for number in (5, 6)
    )
    nvidia = machine(replace(GPU, instances=halves))
    nvidia.fake.set_gpm(0, graphics=50, sm=50, gpu_instance=2)
    nvidia.look()
    for _ in range(3):
        assert [one.activity for one in nvidia.look().state.instances] == [0.5, 0.5]
    assert nvidia.fake.calls("nvmlGpmSampleAlloc") == 2


def test_without_monitors_nothing_is_told_of_activity(machine: Machine) -> None:
    """Ampere, or a driver that is too old for them."""
    nvidia = machine(WITHOUT_GPM)
    nvidia.look()
    assert [one.activity for one in nvidia.look().state.instances] == [None, None]
    assert nvidia.fake.calls("nvmlGpmMigSampleGet") == 0


def test_a_library_without_monitors_tells_the_rest(machine: Machine) -> None:
    """The functions are not even there."""
    nvidia = machine(DIVIDED, without=("nvmlGpm*",))
    nvidia.look()
    assert [one.activity for one in nvidia.look().state.instances] == [None, None]
    assert nvidia.faults == []


def test_monitors_that_fail_lose_no_samples(machine: Machine) -> None:
    """What has been allocated is used again; the next look but one tells activity again."""
    nvidia = machine(DIVIDED)
    nvidia.look()
    nvidia.look()
    nvidia.fake.fault("nvmlGpmMigSampleGet", UNKNOWN)
    for _ in range(5):
        assert [one.activity for one in nvidia.look().state.instances] == [None, None]
    nvidia.fake.heal()
    nvidia.look()
    assert [one.activity for one in nvidia.look().state.instances] == [0.0, 0.0]
    assert nvidia.fake.calls("nvmlGpmSampleAlloc") <= 4


@pytest.mark.parametrize("function", ["nvmlGpmMigSampleGet", "nvmlGpmMetricsGet"])
def test_monitors_that_are_not_supported_after_all_are_left_alone(
    machine: Machine, function: str
) -> None:
    """Some drivers say that they are."""
    nvidia = machine(DIVIDED)
    nvidia.fake.fault(function, NOT_SUPPORTED)
    for _ in range(5):
        assert [one.activity for one in nvidia.look().state.instances] == [None, None]
    assert nvidia.fake.calls(function) == 1
    assert nvidia.faults == []


def test_instances_are_laid_out_anew(machine: Machine) -> None:
    """A slot's handle comes to mean another instance: the UUID tells, and no resident is kept."""
    nvidia = machine(replace(DIVIDED, processes=(GpuProcess(1, instance="MIG-3"),)))
    nvidia.look()
    other = replace(LARGE, uuid="MIG-9")
    nvidia.fake.set_mig(0, [other, SMALL])
    nvidia.fake.start_process(0, GpuProcess(5, instance="MIG-9"))
    assert residents(nvidia.look()) == {"MIG-9": {5}, "MIG-1": set()}
    assert nvidia.faults == []


def test_an_instance_that_comes_back_has_no_residents_of_old(machine: Machine) -> None:
    """Pids may be others' by then."""
    nvidia = machine(replace(DIVIDED, processes=(GpuProcess(1, instance="MIG-3"),)))
    nvidia.look()
    nvidia.fake.set_mig(0, [SMALL])
    nvidia.look()
    nvidia.fake.set_mig(0, [SMALL, LARGE])
    assert residents(nvidia.look()) == {"MIG-1": set(), "MIG-3": set()}


def test_mig_that_is_switched_on_is_seen_at_once(machine: Machine) -> None:
    """It shows by the samples that are no longer told."""
    nvidia = machine(replace(GPU, processes=(GpuProcess(1, sm=50),)))
    nvidia.look()
    nvidia.look()
    nvidia.fake.stop_process(0, 1)
    nvidia.fake.set_mig(0, [SMALL])
    nvidia.fake.start_process(0, GpuProcess(2, instance="MIG-1"))
    nvidia.look()
    assert (nvidia.state.info.mig, residents(nvidia)) == (True, {"MIG-1": {2}})
    assert (nvidia.state.utilization_ratio, nvidia.faults) == (None, [])


def test_mig_that_is_switched_off_is_seen_at_once(machine: Machine) -> None:
    """It shows by instances that are gone; until then nothing is known, not nobody there."""
    nvidia = machine(replace(DIVIDED, processes=(GpuProcess(1, instance="MIG-1"),)))
    nvidia.look()
    nvidia.look()
    nvidia.fake.set_mig(0, None)
    nvidia.fake.start_process(0, GpuProcess(2, sm=30))
    assert nvidia.look().state.use is None
    assert set(nvidia.look().use.residents) == {2}
    assert (nvidia.state.info.mig, nvidia.state.instances, nvidia.faults) == (False, (), [])


def test_a_divided_gpu_without_instances(machine: Machine) -> None:
    """Nobody can be there."""
    nvidia = machine(replace(GPU, instances=()))
    nvidia.look()
    nvidia.look()
    assert (nvidia.use, nvidia.state.instances, nvidia.faults) == (GpuUse(), (), [])


def test_a_divided_gpu_that_does_not_tell_its_slots_is_not_free(machine: Machine) -> None:
    """Nothing is known of its processes then."""
    nvidia = machine(DIVIDED)
    nvidia.look()
    nvidia.fake.fault("nvmlDeviceGetMaxMigDeviceCount", UNKNOWN)
    assert nvidia.look().state.use is None
    assert nvidia.faults == [("GPU-a nvmlDeviceGetMaxMigDeviceCount", "failed")]


def test_a_mode_that_cannot_be_read_is_as_it_was(machine: Machine) -> None:
    """A GPU is not taken for undivided because a call fails."""
    nvidia = machine(DIVIDED)
    nvidia.look()
    nvidia.fake.fault("nvmlDeviceGetMigMode", UNKNOWN)
    for _ in range(SLOW_LOOKS):
        nvidia.look()
    assert set(named(nvidia)) == {"MIG-1", "MIG-3"}


def test_slices_stand_in_for_multiprocessors(machine: Machine) -> None:
    """For all instances where one does not tell them: sizes are compared."""
    nvidia = machine(replace(DIVIDED, instances=(LARGE, replace(SMALL, multiprocessors=0))))
    assert [one.size for one in nvidia.look().state.instances] == [3, 1]


def test_instances_that_tell_no_size_are_equal(machine: Machine) -> None:
    """They are there, and so are their processes."""
    gpu = replace(
        WITHOUT_GPM,
        processes=(GpuProcess(1, instance="MIG-1"),),
        unsupported=("nvmlDeviceGetAttributes_v2", "nvmlDeviceGetMemoryInfo*"),
    )
    nvidia = machine(gpu)
    assert [one.size for one in nvidia.look().state.instances] == [1, 1]
    assert residents(nvidia) == {"MIG-1": {1}, "MIG-3": set()}
    assert [one.memory_used_bytes for one in nvidia.state.instances] == [None, None]


def test_an_instance_whose_processes_fail_has_those_of_before(machine: Machine) -> None:
    """The others are read all the same, and it is a fault."""
    processes = (GpuProcess(1, instance="MIG-1"), GpuProcess(3, instance="MIG-3"))
    nvidia = machine(replace(DIVIDED, processes=processes))
    nvidia.look()
    nvidia.fake.fault("nvmlDeviceGetComputeRunningProcesses_v3", UNKNOWN, "MIG-1")
    nvidia.look()
    assert residents(nvidia) == {"MIG-1": {1}, "MIG-3": {3}}
    assert nvidia.faults == [("MIG-1 processes", "failed")]
    assert nvidia.state.use is not None


@pytest.mark.parametrize("function", ["nvmlDeviceGetUUID", "nvmlDeviceGet*RunningProcesses*"])
def test_an_instance_of_which_nothing_is_known_leaves_all_unknown(
    machine: Machine, function: str
) -> None:
    """Its part cannot be told from the others': theirs would be too large."""
    nvidia = machine(replace(WITHOUT_GPM, processes=(GpuProcess(3, instance="MIG-3"),)))
    nvidia.fake.fault(function, NO_PERMISSION, "MIG-1")
    nvidia.look()
    assert nvidia.look().state.use is None
    assert [reason for _, reason in nvidia.faults] == ["denied"]
    nvidia.fake.heal()
    nvidia.look()
    assert nvidia.look().state.use is not None
