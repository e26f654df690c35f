"""Energy, power and names of NVIDIA GPUs, through the real pynvml on a fake driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fakes.nvidia import Nvidia
from fakes.nvml import WITHOUT_ENERGY, Field, Gpu, Scope
from jobwatt.gpus import GpuInfo
from jobwatt.meters.nvml.device import SLOW_LOOKS
from jobwatt.model import Component, Device, Source
from jobwatt.units import NS, UJ

Machine = Callable[..., Nvidia]

GPU = Gpu(uuid="GPU-a", power_mw=100_000, refresh_ms=0, minor=3)
OLD = replace(GPU, unsupported=WITHOUT_ENERGY)
NOT_SUPPORTED, UNKNOWN = 3, 999


def test_the_counter_is_in_microjoules(machine: Machine) -> None:
    """What the driver counts in mJ, whole from the first look on."""
    nvidia = machine(replace(GPU, energy_mj=5_000))
    assert nvidia.look(0).energy == {"GPU-a": 5_000_000}
    assert nvidia.look(2).energy == {"GPU-a": 205_000_000}
    assert nvidia.sources == [Source.NVML_ENERGY]


def test_a_gpu_is_known_by_its_uuid(machine: Machine) -> None:
    """And tells what it is."""
    nvidia = machine(replace(GPU, bus_id="00000000:3B:00.0")).look()
    assert nvidia.devices["GPU-a"] == Device(
        Component.GPU, "GPU-a", Source.NVML_ENERGY, None, "NVIDIA H100 80GB HBM3"
    )
    assert nvidia.state.info == GpuInfo("GPU-a", 0, 3, "0000:3b:00.0", "590.48.01", "Hopper")


def test_without_a_uuid_the_pci_address_is_its_name(machine: Machine) -> None:
    """As Linux writes it."""
    gpu = replace(GPU, bus_id="00000000:3B:00.0", unsupported=("nvmlDeviceGetUUID",))
    assert list(machine(gpu).look().energy) == ["0000:3b:00.0"]


def test_a_name_that_cannot_be_read_just_now_is_no_other_name(machine: Machine) -> None:
    """The GPU waits until it says who it is: under its address it would be another device."""
    nvidia = machine(GPU)
    nvidia.fake.fault("nvmlDeviceGetUUID", UNKNOWN)
    assert (nvidia.look().energy, nvidia.faults) == ({}, [("GPU 0", "failed")])
    nvidia.fake.heal()
    assert nvidia.look(60).energy == {"GPU-a": 61 * 100 * UJ}
    assert nvidia.faults == []


def test_a_gpu_that_names_itself_in_no_way_is_a_fault(machine: Machine) -> None:
    """Its energy would be on nobody's account, or on another's."""
    gpu = replace(GPU, unsupported=("nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3"))
    assert machine(gpu).look().faults == [("GPU 0", "failed")]


@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues"]
)
def test_a_counter_that_fails_at_the_start_is_a_counter(machine: Machine, function: str) -> None:
    """Only what is not supported is replaced by power."""
    nvidia = machine(GPU)
    nvidia.fake.fault(function, UNKNOWN)
    nvidia.look()
    nvidia.fake.heal()
    assert nvidia.look().energy == {"GPU-a": 200 * UJ}
    assert nvidia.sources == [Source.NVML_ENERGY]


def test_a_counter_that_begins_anew_shows_what_it_shows(machine: Machine) -> None:
    """A reset or a driver reload: the epoch is for the accounts to see, nothing is made up."""
    nvidia = machine(replace(GPU, energy_mj=9_000))
    nvidia.look()
    nvidia.fake.reset(0)
    assert nvidia.look(1).energy == {"GPU-a": 100 * UJ}


def test_the_counter_goes_on_while_no_exporter_runs(machine: Machine) -> None:
    """Unlike an integral of power, which begins with the exporter."""
    nvidia = machine(GPU, replace(OLD, uuid="GPU-b"))
    nvidia.look()
    lasting = {r.counter.key: r.counter.lasting for s in nvidia.reports for r in s.readings}
    assert lasting == {"nvml:GPU-a": True, "nvml:GPU-b": False}


def test_without_a_counter_instant_power_is_integrated(machine: Machine) -> None:
    """By the trapezoid, from the first look on."""
    nvidia = machine(OLD)
    assert nvidia.look(0).energy == {"GPU-a": 0}
    nvidia.fake.set_power(0, 300_000)
    assert nvidia.look(1).energy == {"GPU-a": 200 * UJ}
    assert nvidia.sources == [Source.NVML_POWER]


@pytest.mark.parametrize("value_type", range(7))
def test_instant_power_is_read_by_its_type(machine: Machine, value_type: int) -> None:
    """Drivers say what kind of number a field is."""
    milliwatts = 40_000
    field = Field(186, Scope.GPU, value_type=value_type)
    nvidia = machine(replace(OLD, power_mw=milliwatts, averaging_ms=5000, fields=(field,)))
    nvidia.look(0)
    assert nvidia.look(2).energy == {"GPU-a": 80 * UJ}
    assert nvidia.fake.calls("nvmlDeviceGetPowerUsage") == 0


def test_without_instant_power_the_average_has_to_do(machine: Machine) -> None:
    """An old driver does not know the field; it is not asked for it again and again."""
    nvidia = machine(replace(OLD, fields=(Field(186, result=NOT_SUPPORTED),)))
    nvidia.look(0)
    nvidia.fake.forget_calls()
    assert nvidia.look(1).energy == {"GPU-a": 100 * UJ}
    assert nvidia.fake.calls("nvmlDeviceGetPowerUsage") == 1
    assert nvidia.fake.calls("nvmlDeviceGetFieldValues") == 0


def test_instant_power_that_fails_once_is_not_replaced_by_the_average(machine: Machine) -> None:
    """The next reading joins the one before."""
    nvidia = machine(replace(OLD, averaging_ms=5000))
    nvidia.look(0)
    nvidia.fake.describe(0, replace(OLD, fields=(Field(186, result=UNKNOWN),)))
    assert (nvidia.look(1).energy, nvidia.faults) == ({}, [("GPU-a", "failed")])
    nvidia.fake.describe(0, OLD)
    assert nvidia.look(1).energy == {"GPU-a": 200 * UJ}
    assert nvidia.fake.calls("nvmlDeviceGetPowerUsage") == 0


def test_power_readings_far_apart_are_not_joined(machine: Machine) -> None:
    """More than ten seconds: that time's energy is lost, and said to be."""
    nvidia = machine(OLD)
    nvidia.look(0)
    nvidia.look(1)
    assert nvidia.look(11).energy == {"GPU-a": 100 * UJ}
    assert nvidia.lost_ns == {"GPU-a": 11 * NS}
    assert nvidia.look(10).energy == {"GPU-a": 1100 * UJ}
    assert nvidia.lost_ns == {"GPU-a": 0}


def test_a_counter_that_covers_the_whole_module_is_not_the_gpus(machine: Machine) -> None:
    """GH200: the GPU's own power is integrated, or its CPU would be counted twice."""
    nvidia = machine(replace(GPU, module_power_mw=450_000))
    nvidia.look(0)
    assert nvidia.look(2).energy == {"GPU-a": 200 * UJ}
    assert nvidia.sources == [Source.NVML_POWER]


@pytest.mark.parametrize("module_mw", [100_000, 103_000])
def test_a_driver_that_knows_no_scopes_is_no_module(machine: Machine, module_mw: int) -> None:
    """It tells the GPU's power for any scope, a moment later."""
    nvidia = machine(replace(GPU, module_power_mw=module_mw))
    assert nvidia.look().sources == [Source.NVML_ENERGY]


def test_a_gpu_that_tells_neither_energy_nor_power_has_no_energy(machine: Machine) -> None:
    """Jetson: not 0 J; what else it tells is there."""
    nothing = (*WITHOUT_ENERGY, "nvmlDeviceGetPowerUsage", "nvmlDeviceGetFieldValues")
    nvidia = machine(replace(GPU, unsupported=nothing, temperature=51)).look()
    assert (nvidia.energy, nvidia.faults) == ({}, [("GPU-a", "absent")])
    assert nvidia.state.temperature_celsius == 51


def test_one_with_a_counter_beside_one_without(machine: Machine) -> None:
    """Each under the source that its joules come from."""
    nvidia = machine(GPU, replace(OLD, uuid="GPU-b", bus_id="00000000:41:00.0"))
    nvidia.look(0)
    assert nvidia.look(1).energy == {"GPU-a": 100 * UJ, "GPU-b": 100 * UJ}
    assert nvidia.sources == [Source.NVML_ENERGY, Source.NVML_POWER]


def test_the_enforced_limit_is_followed(machine: Machine) -> None:
    """An operator may change it; it is looked at now and then."""
    nvidia = machine(replace(GPU, enforced_limit_mw=650_000))
    assert nvidia.look().limits == {"GPU-a": 650 * UJ}
    nvidia.fake.describe(0, replace(GPU, enforced_limit_mw=400_000))
    limits = [nvidia.look().limits["GPU-a"] for _ in range(SLOW_LOOKS)]
    assert limits == [650 * UJ] * (SLOW_LOOKS - 1) + [400 * UJ]


def test_utilisation_memory_temperature_and_throttling(machine: Machine) -> None:
    """What is cheap to tell is told; the memory that the driver reserves is not in use."""
    gpu = replace(
        GPU, utilization=(40, 9), used_bytes=2 << 30, reserved_bytes=1 << 30, event_reasons=0x24
    )
    state = machine(gpu).look().state
    assert (state.utilization_ratio, state.temperature_celsius) == (0.4, 40.0)
    assert (state.memory_used_bytes, state.memory_total_bytes) == (2 << 30, 80 << 30)
    assert {name for name, held in state.throttled.items() if held} == {
        "sw_power_cap",
        "sw_thermal_slowdown",
    }


def test_what_a_gpu_does_not_tell_is_none(machine: Machine) -> None:
    """And no fault: it is measured all the same."""
    quiet = (
        "nvmlDeviceGetTemperature*",
        "nvmlDeviceGetMemoryInfo*",
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetCurrentClocks*",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetArchitecture",
        "nvmlDeviceGetMinorNumber",
        "nvmlDeviceGetName",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetMigMode",
    )
    nvidia = machine(replace(GPU, unsupported=quiet))
    nvidia.look(0)
    state = nvidia.look(1).state
    assert (nvidia.energy, nvidia.faults, nvidia.limits) == ({"GPU-a": 100 * UJ}, [], {})
    assert state.info == GpuInfo("GPU-a", 0, None, "", "590.48.01", "")
    assert (state.temperature_celsius, state.utilization_ratio) == (None, None)
    assert (state.memory_used_bytes, state.memory_total_bytes, state.throttled) == (None, None, {})


def test_an_old_driver_has_the_older_functions(machine: Machine) -> None:
    """Memory without what is reserved, throttle reasons under their old name."""
    without = ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetCurrentClocksEventReasons")
    nvidia = machine(replace(GPU, used_bytes=2 << 30, event_reasons=4), without=without).look()
    assert nvidia.state.memory_used_bytes == 2 << 30
    assert nvidia.state.throttled["sw_power_cap"]
    assert nvidia.faults == []
