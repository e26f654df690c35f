"""How often the driver is called: each call costs, and some cost much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fakes.nvidia import Nvidia
from fakes.nvml import WITHOUT_ENERGY, Gpu, GpuProcess, Instance
from jobwatt.meters.nvml.device import SLOW_LOOKS

Machine = Callable[..., Nvidia]

LISTS = {
    f"nvmlDeviceGet{name}RunningProcesses_v3": 1 for name in ("Compute", "Graphics", "MPSCompute")
}
EVERY_LOOK = {
    **LISTS,
    "nvmlDeviceGetTotalEnergyConsumption": 1,
    "nvmlDeviceGetProcessUtilization": 2,  # its length first; then what was busy
    "nvmlDeviceGetMemoryInfo_v2": 1,
    "nvmlDeviceGetUtilizationRates": 1,
}
SELDOM = {
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetMigMode",
}


def gpu(number: int) -> Gpu:
    return Gpu(uuid=f"GPU-{number}", bus_id=f"00000000:{number + 1:02X}:00.0", refresh_ms=0)


def calls_of(nvidia: Nvidia, looks: int = 1) -> dict[str, int]:
    """How often each function was called in so many looks."""
    nvidia.fake.forget_calls()
    for _ in range(looks):
        nvidia.look()
    return {name: count for name, count in nvidia.fake.all_calls().items() if count}


def test_eight_gpus_at_rest(machine: Machine) -> None:
    """Eight calls a GPU and look, and not one for what seldom changes."""
    nvidia = machine(*(gpu(number) for number in range(8)))
    nvidia.look()
    assert calls_of(nvidia) == {name: 8 * times for name, times in EVERY_LOOK.items()}


def test_lists_with_something_in_them_are_asked_twice(machine: Machine) -> None:
    """Their length first."""
    gpus = [replace(gpu(number), processes=(GpuProcess(7, sm=40),)) for number in range(8)]
    nvidia = machine(*gpus)
    nvidia.look()
    compute = {"nvmlDeviceGetComputeRunningProcesses_v3": 16}
    assert calls_of(nvidia) == {name: 8 * times for name, times in EVERY_LOOK.items()} | compute


def test_what_changes_seldom_is_read_seldom(machine: Machine) -> None:
    """Every tenth look."""
    nvidia = machine(gpu(0))
    nvidia.look()
    calls = calls_of(nvidia, looks=5 * SLOW_LOOKS)
    assert {name: calls[name] for name in SELDOM} == dict.fromkeys(SELDOM, 5)
    assert calls.keys() == EVERY_LOOK.keys() | SELDOM


def test_what_is_not_supported_is_not_asked_again(machine: Machine) -> None:
    """Nor what names a GPU, ever."""
    quiet = ("nvmlDeviceGetTemp*", "nvmlDeviceGetUtil*", "*EventReasons", "nvmlDeviceGetMigMode")
    nvidia = machine(replace(gpu(0), unsupported=quiet))
    nvidia.look()
    calls = calls_of(nvidia, looks=3 * SLOW_LOOKS)
    every = {name: 30 * times for name, times in EVERY_LOOK.items()}
    del every["nvmlDeviceGetUtilizationRates"]
    seldom = {"nvmlDeviceGetEnforcedPowerLimit": 3, "nvmlDeviceGetCurrentClocksThrottleReasons": 3}
    assert calls == every | seldom


def test_integrated_power_is_one_call(machine: Machine) -> None:
    """Instead of the counter."""
    nvidia = machine(replace(gpu(0), unsupported=WITHOUT_ENERGY))
    nvidia.look()
    every = EVERY_LOOK | {"nvmlDeviceGetFieldValues": 1}
    del every["nvmlDeviceGetTotalEnergyConsumption"]
    assert calls_of(nvidia) == every


def test_a_divided_gpu_costs_by_its_instances(machine: Machine) -> None:
    """Seven slots are looked through; two instances are asked."""
    nvidia = machine(replace(gpu(0), instances=(Instance("MIG-1", 1), None, Instance("MIG-2", 2))))
    nvidia.look()
    nvidia.look()
    assert calls_of(nvidia) == {
        **dict.fromkeys(LISTS, 2),
        "nvmlDeviceGetTotalEnergyConsumption": 1,
        "nvmlDeviceGetMemoryInfo_v2": 1,
        "nvmlDeviceGetMaxMigDeviceCount": 1,
        "nvmlDeviceGetMigDeviceHandleByIndex": 7,
        "nvmlDeviceGetUUID": 2,
        "nvmlDeviceGetName": 2,
        "nvmlDeviceGetAttributes_v2": 2,
        "nvmlDeviceGetMemoryInfo": 2,
        "nvmlDeviceGetGpuInstanceId": 2,
        "nvmlGpmMigSampleGet": 2,
        "nvmlGpmMetricsGet": 2,
    }


def test_a_library_is_started_once(machine: Machine) -> None:
    """One that works is left alone."""
    nvidia = machine(gpu(0))
    calls = calls_of(nvidia, looks=300)
    assert (calls["nvmlInitWithFlags"], calls.get("nvmlShutdown", 0)) == (1, 0)
    assert calls["nvmlDeviceGetHandleByIndex_v2"] == 1
