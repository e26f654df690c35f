"""The real pynvml on the fake libnvidia-ml.so.1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pynvml
import pytest

from fakes.nvml import (
    UNAVERAGED,
    WITHOUT_ENERGY,
    BuildError,
    FakeNvml,
    Field,
    Gpu,
    GpuProcess,
    Instance,
    Kind,
    Sample,
    Scope,
    library,
)
from fakes.nvml.profiles import PROFILES

GPU = Gpu(uuid="GPU-a", power_mw=100_000, refresh_ms=0)
OTHER = Gpu(uuid="GPU-b", bus_id="00000000:41:00.0")
SMALL = Instance("MIG-1", gpu_instance=9)
LARGE = Instance("MIG-3", gpu_instance=2, profile="3g.40gb", slices=3, multiprocessors=60)
DRIVER_NOT_LOADED, VERSION_MISMATCH, GPU_IS_LOST = 9, 18, 15


@contextmanager
def running(fake: FakeNvml) -> Iterator[Any]:
    """Pynvml on this machine, initialised, and its first GPU."""
    with fake.installed():
        pynvml.nvmlInit()
        yield pynvml.nvmlDeviceGetHandleByIndex(0)


def code(function: Callable[..., object], *arguments: object) -> int:
    with pytest.raises(pynvml.NVMLError) as caught:
        function(*arguments)
    return int(caught.value.value)


def pids(processes: list[Any]) -> list[int]:
    return [process.pid for process in processes]


def power_field(handle: object, field: int, scope: Scope = Scope.GPU) -> tuple[int, int, int]:
    (value,) = pynvml.nvmlDeviceGetFieldValues(handle, [(field, int(scope))])
    return value.nvmlReturn, value.valueType, value.value.uiVal


def test_devices_are_found_by_index_uuid_and_bus(tmp_path: Path) -> None:
    """All ways lead to the same GPU, and it says who it is."""
    with running(FakeNvml(tmp_path, [GPU, OTHER], driver="590.1", cuda=13010)):
        assert pynvml.nvmlDeviceGetCount() == 2
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(1),
            pynvml.nvmlDeviceGetHandleByUUID("GPU-b"),
            pynvml.nvmlDeviceGetHandleByPciBusId("0000:41:00.0"),
        ]
        assert [pynvml.nvmlDeviceGetUUID(handle) for handle in handles] == ["GPU-b"] * 3
        assert pynvml.nvmlDeviceGetIndex(handles[1]) == 1
        assert pynvml.nvmlDeviceGetMinorNumber(handles[1]) == 1
        assert pynvml.nvmlDeviceGetName(handles[0]) == "NVIDIA H100 80GB HBM3"
        assert pynvml.nvmlDeviceGetArchitecture(handles[0]) == pynvml.NVML_DEVICE_ARCH_HOPPER
        pci = pynvml.nvmlDeviceGetPciInfo(handles[0])
        assert (pci.busId, pci.busIdLegacy) == ("00000000:41:00.0", "0000:41:00.0")
        assert (pci.bus, pci.pciDeviceId) == (0x41, 0x233010DE)
        assert code(pynvml.nvmlDeviceGetHandleByIndex, 2) == pynvml.NVML_ERROR_INVALID_ARGUMENT
        assert code(pynvml.nvmlDeviceGetHandleByUUID, "GPU-c") == pynvml.NVML_ERROR_NOT_FOUND
        assert pynvml.nvmlSystemGetDriverVersion() == "590.1"
        assert pynvml.nvmlSystemGetNVMLVersion() == "13.590.1"
        assert pynvml.nvmlSystemGetCudaDriverVersion() == 13010
        assert pynvml.nvmlErrorString(GPU_IS_LOST) == "GPU is lost"


def test_nothing_works_before_init_or_after_the_last_shutdown(tmp_path: Path) -> None:
    """The library counts its users, and handles do not outlive them."""
    with FakeNvml(tmp_path, [GPU]).installed():
        assert code(pynvml.nvmlDeviceGetCount) == pynvml.NVML_ERROR_UNINITIALIZED
        pynvml.nvmlInit()
        pynvml.nvmlInit()
        pynvml.nvmlShutdown()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlShutdown()
        assert code(pynvml.nvmlShutdown) == pynvml.NVML_ERROR_UNINITIALIZED
        pynvml.nvmlInit()
        assert code(pynvml.nvmlDeviceGetUUID, handle) == pynvml.NVML_ERROR_INVALID_ARGUMENT


def test_energy_is_the_integral_of_power(tmp_path: Path) -> None:
    """The counter goes on from where it was, by what was drawn."""
    fake = FakeNvml(tmp_path, [replace(GPU, energy_mj=5_000)])
    with running(fake) as handle:
        assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) == 5_000
        fake.advance(2)
        fake.set_power(0, 300_000)
        fake.advance(0.5)
        assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) == 5_000 + 200_000 + 150_000
        assert fake.energy_uj(0) == 350_000_000
        (total,) = pynvml.nvmlDeviceGetFieldValues(handle, [83])
        assert (total.valueType, total.value.ullVal) == (3, 355_000)


def test_energy_moves_in_steps(tmp_path: Path) -> None:
    """Between two refreshes the counter stands still."""
    fake = FakeNvml(tmp_path, [replace(GPU, refresh_ms=20)])
    with running(fake) as handle:
        seen = []
        for _ in range(4):
            fake.advance(0.009)
            seen.append(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        assert seen == [0, 0, 2_000, 2_000]


def test_a_reset_begins_a_new_epoch(tmp_path: Path) -> None:
    """The counter restarts at 0, and the processes are gone."""
    fake = FakeNvml(tmp_path, [replace(GPU, energy_mj=9_000, processes=(GpuProcess(7, sm=50),))])
    with running(fake) as handle:
        fake.advance(1)
        fake.reset(0)
        assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) == 0
        assert pynvml.nvmlDeviceGetComputeRunningProcesses(handle) == []
        assert code(pynvml.nvmlDeviceGetProcessUtilization, handle, 0) == 6
        fake.advance(1)
        assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) == 100_000
        assert fake.energy_uj(0) == 200_000_000


def test_power_is_averaged_or_instant(tmp_path: Path) -> None:
    """The same moment, read in three ways and three scopes."""
    fake = FakeNvml(tmp_path, [replace(GPU, module_power_mw=900_000)])
    with running(fake) as handle:
        fake.set_power(0, 500_000)
        fake.advance(0.25)
        assert pynvml.nvmlDeviceGetPowerUsage(handle) == 200_000
        assert power_field(handle, 185) == (0, pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, 200_000)
        assert power_field(handle, 186) == (0, pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, 500_000)
        assert power_field(handle, 190) == (0, pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, 700_000)
        assert power_field(handle, 186, Scope.MODULE)[2] == 900_000
        assert power_field(handle, 186, Scope.MEMORY)[0] == pynvml.NVML_ERROR_NOT_SUPPORTED
        assert power_field(handle, 9_999)[0] == pynvml.NVML_ERROR_NOT_SUPPORTED
        fake.describe(0, replace(GPU, averaging_ms=0, fields=(UNAVERAGED, Field(186, None, 0, 0))))
        assert pynvml.nvmlDeviceGetPowerUsage(handle) == 500_000
        average, instant = pynvml.nvmlDeviceGetFieldValues(handle, [185, 186])
        assert average.nvmlReturn == pynvml.NVML_ERROR_NOT_SUPPORTED
        assert (instant.valueType, instant.value.dVal) == (0, 500_000.0)


def test_facts_of_a_gpu(tmp_path: Path) -> None:
    """Limits, memory, temperature, modes, clocks."""
    gpu = replace(
        GPU,
        min_limit_mw=200_000,
        enforced_limit_mw=650_000,
        reserved_bytes=1 << 30,
        event_reasons=4,
        memory_temperature=48,
        processes=(GpuProcess(7, memory_bytes=2 << 30, sm=40, memory=20),),
    )
    fake = FakeNvml(tmp_path, [gpu])
    with running(fake) as handle:
        assert pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle) == [200_000, 700_000]
        assert pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) == 650_000
        assert pynvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) == 700_000
        assert pynvml.nvmlDeviceGetMemoryInfo(handle).used == 3 << 30
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
        assert (memory.used, memory.reserved, memory.free) == (2 << 30, 1 << 30, 77 << 30)
        assert pynvml.nvmlDeviceGetTemperature(handle, 0) == 40
        assert pynvml.nvmlDeviceGetTemperatureV(handle, 0) == 40
        assert power_field(handle, pynvml.NVML_FI_DEV_MEMORY_TEMP)[2] == 48
        assert pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) == 4
        assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) == 4
        assert pynvml.nvmlDeviceGetPersistenceMode(handle) == 1
        assert pynvml.nvmlDeviceGetComputeMode(handle) == 0
        assert pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM) == 2619
        assert pynvml.nvmlDeviceGetMigMode(handle) == [0, 0]
        assert pynvml.nvmlDeviceGetMaxMigDeviceCount(handle) == 0
        fake.advance(1)
        rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
        assert (rates.gpu, rates.memory) == (40, 20)


def test_running_processes(tmp_path: Path) -> None:
    """Each kind has its list; a process of two kinds stands in both."""
    fake = FakeNvml(tmp_path, [GPU])
    with running(fake) as handle:
        assert pynvml.nvmlDeviceGetComputeRunningProcesses(handle) == []
        for pid in range(100, 120):
            fake.start_process(0, GpuProcess(pid))
        fake.start_process(0, GpuProcess(7, Kind.COMPUTE | Kind.GRAPHICS, memory_bytes=None))
        fake.start_process(0, GpuProcess(8, Kind.MPS))
        compute = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        assert pids(compute) == [*range(100, 120), 7]
        assert (compute[0].usedGpuMemory, compute[-1].usedGpuMemory) == (512 << 20, None)
        assert compute[0].gpuInstanceId == 0xFFFFFFFF
        assert pids(pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle)) == [7]
        assert pids(pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v2(handle)) == [8]
        fake.stop_process(0, 8)
        assert pynvml.nvmlDeviceGetMPSComputeRunningProcesses(handle) == []


def test_samples_of_busy_processes_since_the_last_one_seen(tmp_path: Path) -> None:
    """One sample a busy process and period, stamped in microseconds of the wall clock."""
    gpu = replace(GPU, sample_period_ns=250_000_000)
    fake = FakeNvml(tmp_path, [gpu])
    with running(fake) as handle:
        assert code(pynvml.nvmlDeviceGetProcessUtilization, handle, 0) == 6
        fake.start_process(0, GpuProcess(7, sm=60, memory=10))
        fake.start_process(0, GpuProcess(8, sm=0))
        fake.advance(0.5)
        samples = pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
        assert [(one.pid, one.smUtil, one.memUtil) for one in samples] == [(7, 60, 10)] * 2
        last = max(one.timeStamp for one in samples)
        assert last == fake.wall_us()
        assert code(pynvml.nvmlDeviceGetProcessUtilization, handle, last) == 6
        fake.set_sm(0, 8, 30)
        fake.advance(0.125)
        fake.stop_process(0, 7)
        fake.advance(0.125)
        samples = pynvml.nvmlDeviceGetProcessUtilization(handle, last)
        assert [(one.pid, one.smUtil) for one in samples] == [(7, 30), (8, 30)]


def test_the_ring_forgets(tmp_path: Path) -> None:
    """It keeps ten seconds, and no more than a hundred samples."""
    fake = FakeNvml(tmp_path, [replace(GPU, processes=(GpuProcess(7, sm=60),))])
    with running(fake) as handle:
        fake.advance(60)
        samples = pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
        assert len(samples) == 60
        assert samples[0].timeStamp > fake.wall_us() - 10_000_000
        fake.start_process(0, GpuProcess(8, sm=10))
        fake.advance(60)
        samples = pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
        assert len(samples) == 100
        stamps = [one.timeStamp for one in samples]
        assert stamps == sorted(stamps)


def test_samples_may_be_garbage_or_missing(tmp_path: Path) -> None:
    """What real drivers do too."""
    fake = FakeNvml(tmp_path, [GPU])
    with running(fake) as handle:
        fake.inject(0, Sample(1, 999, 50), Sample(fake.wall_us(), 7, 3_000_000_000))
        found = pynvml.nvmlDeviceGetProcessUtilization(handle, fake.wall_us())
        assert [(one.timeStamp, one.pid, one.smUtil) for one in found] == [
            (1, 999, 50),
            (fake.wall_us(), 7, 3_000_000_000),
        ]
        fake.inject(0)
        fake.describe(0, replace(GPU, sample_size_exact=True))
        assert code(pynvml.nvmlDeviceGetProcessUtilization, handle, 0) == 0
        fake.describe(0, replace(GPU, unsupported=("nvmlDeviceGetProcessUtil*", *WITHOUT_ENERGY)))
        assert code(pynvml.nvmlDeviceGetProcessUtilization, handle, 0) == 3
        assert code(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle) == 3


def test_mig_devices_have_holes_and_no_power(tmp_path: Path) -> None:
    """Instances are enumerated past NOT_FOUND; power is the parent's, processes are theirs."""
    gpu = replace(
        GPU,
        instances=(LARGE, None, SMALL),
        processes=(GpuProcess(7, instance="MIG-1", sm=50), GpuProcess(8, instance="MIG-3")),
    )
    with running(FakeNvml(tmp_path, [gpu])) as parent:
        assert pynvml.nvmlDeviceGetMigMode(parent) == [1, 1]
        assert pynvml.nvmlDeviceGetMaxMigDeviceCount(parent) == 7
        assert code(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, parent, 1) == 6
        small = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, 2)
        assert pynvml.nvmlDeviceGetUUID(small) == "MIG-1"
        assert pynvml.nvmlDeviceGetName(small) == "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
        assert pynvml.nvmlDeviceIsMigDeviceHandle(small).value == 1
        assert pynvml.nvmlDeviceGetGpuInstanceId(small) == 9
        assert pynvml.nvmlDeviceGetComputeInstanceId(small) == 0
        large = pynvml.nvmlDeviceGetHandleByUUID("MIG-3")
        attributes = pynvml.nvmlDeviceGetAttributes(large)
        assert (attributes.multiprocessorCount, attributes.gpuInstanceSliceCount) == (60, 3)
        assert attributes.memorySizeMB == 10 << 10
        assert pynvml.nvmlDeviceGetMemoryInfo(small).used == 512 << 20
        back = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(small)
        assert pynvml.nvmlDeviceGetUUID(back) == "GPU-a"
        (own,) = pynvml.nvmlDeviceGetComputeRunningProcesses(small)
        assert (own.pid, own.gpuInstanceId, own.computeInstanceId) == (7, 9, 0)
        assert pids(pynvml.nvmlDeviceGetComputeRunningProcesses(parent)) == [7, 8]
        for absent in (
            pynvml.nvmlDeviceGetPowerUsage,
            pynvml.nvmlDeviceGetTotalEnergyConsumption,
            pynvml.nvmlDeviceGetUtilizationRates,
        ):
            assert code(absent, small) == pynvml.NVML_ERROR_NOT_SUPPORTED
        assert code(pynvml.nvmlDeviceGetUtilizationRates, parent) == 3
        assert code(pynvml.nvmlDeviceGetProcessUtilization, parent, 0) == 3
        assert pynvml.nvmlDeviceGetPowerUsage(parent) == 100_000


def test_mig_handles_come_to_mean_other_instances(tmp_path: Path) -> None:
    """After the layout changed, only the UUID tells."""
    fake = FakeNvml(tmp_path, [replace(GPU, instances=(SMALL,))])
    with running(fake) as parent:
        handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, 0)
        fake.start_process(0, GpuProcess(7, instance="MIG-1"))
        fake.set_mig(0, [LARGE])
        assert pynvml.nvmlDeviceGetUUID(handle) == "MIG-3"
        assert pynvml.nvmlDeviceGetComputeRunningProcesses(parent) == []
        fake.set_mig(0, None)
        assert code(pynvml.nvmlDeviceGetUUID, handle) == pynvml.NVML_ERROR_NOT_FOUND
        assert pynvml.nvmlDeviceGetMigMode(parent) == [0, 0]


def test_gpm_is_the_mean_between_two_samples(tmp_path: Path) -> None:
    """Of a GPU instance or of the whole GPU; other metrics are not there."""
    fake = FakeNvml(tmp_path, [replace(GPU, instances=(SMALL, LARGE))])

    def measure(first: object, second: object) -> list[tuple[int, float]]:
        get = pynvml.c_nvmlGpmMetricsGet_t()
        get.version, get.numMetrics = pynvml.NVML_GPM_METRICS_GET_VERSION, 3
        get.sample1, get.sample2 = first, second
        for number, metric in enumerate((1, 2, 5)):
            get.metrics[number].metricId = metric
        pynvml.nvmlGpmMetricsGet(get)
        return [(metric.nvmlReturn, metric.value) for metric in get.metrics[:3]]

    with running(fake) as parent:
        assert pynvml.nvmlGpmQueryDeviceSupport(parent).isSupportedDevice == 1
        first, second = pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()
        pynvml.nvmlGpmMigSampleGet(parent, 9, first)
        fake.set_gpm(0, graphics=80, sm=40, gpu_instance=9)
        fake.advance(1)
        fake.set_gpm(0, graphics=0, sm=0, gpu_instance=9)
        fake.advance(1)
        pynvml.nvmlGpmMigSampleGet(parent, 9, second)
        assert measure(first, second) == [(0, 40.0), (0, 20.0), (3, 0.0)]
        pynvml.nvmlGpmSampleGet(parent, first)
        assert code(measure, first, second) == pynvml.NVML_ERROR_INVALID_ARGUMENT
        assert code(pynvml.nvmlGpmMigSampleGet, parent, 5, first) == pynvml.NVML_ERROR_NOT_FOUND
        fake.describe(0, replace(GPU, gpm=False))
        assert pynvml.nvmlGpmQueryDeviceSupport(parent).isSupportedDevice == 0
        assert code(pynvml.nvmlGpmSampleGet, parent, first) == pynvml.NVML_ERROR_NOT_SUPPORTED
        pynvml.nvmlGpmSampleFree(first)
        pynvml.nvmlGpmSampleFree(second)


@pytest.mark.parametrize("error", [4, DRIVER_NOT_LOADED, 12, VERSION_MISMATCH])
def test_init_fails_until_healed(tmp_path: Path, error: int) -> None:
    """As without a driver, without permission, or after the driver was exchanged."""
    fake = FakeNvml(tmp_path, [GPU])
    fake.fault("nvmlInit*", error)
    with fake.installed():
        assert code(pynvml.nvmlInit) == error
        fake.heal()
        pynvml.nvmlInit()
        assert pynvml.nvmlDeviceGetCount() == 1


def test_one_gpu_is_lost(tmp_path: Path) -> None:
    """All its calls fail, and no other's."""
    fake = FakeNvml(tmp_path, [GPU, OTHER])
    with running(fake) as lost:
        fake.fault("*", GPU_IS_LOST, device="GPU-a")
        other = pynvml.nvmlDeviceGetHandleByIndex(1)
        assert pynvml.nvmlDeviceGetCount() == 2
        assert code(pynvml.nvmlDeviceGetPowerUsage, lost) == GPU_IS_LOST
        assert code(pynvml.nvmlDeviceGetHandleByIndex, 0) == GPU_IS_LOST
        assert pynvml.nvmlDeviceGetPowerUsage(other) == 70_000
        fake.heal(device="GPU-a")
        fake.fault("nvmlDeviceGetPowerUsage", 999, device=1)
        assert pynvml.nvmlDeviceGetPowerUsage(lost) == 100_000
        assert code(pynvml.nvmlDeviceGetPowerUsage, other) == 999


def test_functions_may_be_missing(tmp_path: Path) -> None:
    """By their return code, or because the library does not export them."""
    fake = FakeNvml(tmp_path / "code", [GPU])
    with running(fake) as handle:
        fake.fault("*_v3", pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        with pytest.raises(pynvml.NVMLLibraryMismatchError):
            pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        assert pynvml.nvmlDeviceGetComputeRunningProcesses_v2(handle) == []
    old = FakeNvml(tmp_path / "old", [GPU], without=("*RunningProcesses_v3", "nvmlGpm*"))
    with running(old) as handle:
        with pytest.raises(pynvml.NVMLLibraryMismatchError):
            pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        assert code(pynvml.nvmlGpmSampleAlloc) == pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
        assert old.calls("nvmlDeviceGetComputeRunningProcesses_v3") == 0
        assert pynvml.nvmlDeviceGetComputeRunningProcesses_v2(handle) == []


def test_calls_can_be_slow(tmp_path: Path) -> None:
    """For one GPU alone."""
    fake = FakeNvml(tmp_path, [GPU, OTHER])
    with running(fake):
        fake.delay("nvmlDeviceGetPowerUsage", 150, device=1)
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(2)]
        times = [time.monotonic()]
        for handle in handles:
            pynvml.nvmlDeviceGetPowerUsage(handle)
            times.append(time.monotonic())
        assert times[1] - times[0] < 0.15 <= times[2] - times[1]


def test_a_call_hangs_until_released(tmp_path: Path) -> None:
    """Others go on meanwhile, in other threads."""
    fake = FakeNvml(tmp_path, [GPU])
    with running(fake) as handle:
        fake.hang("nvmlDeviceGetTotalEnergyConsumption")
        seen: list[int] = []

        def read() -> None:
            seen.append(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))

        thread = threading.Thread(target=read)
        thread.start()
        fake.advance(1)
        assert pynvml.nvmlDeviceGetPowerUsage(handle) == 100_000
        thread.join(0.1)
        assert seen == []
        fake.release()
        thread.join(5)
        assert seen == [100_000]


def test_uninstalling_frees_a_call_that_hangs(tmp_path: Path) -> None:
    """A thread that a test leaves behind does not outlive it."""
    fake = FakeNvml(tmp_path, [GPU])
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(code(pynvml.nvmlDeviceGetCount)))
    before = pynvml.nvmlLib, pynvml._nvmlLib_refcount
    with running(fake):
        fake.hang("nvmlDeviceGetCount_v2")
        thread.start()
        while fake.calls("nvmlDeviceGetCount_v2") == 0:
            time.sleep(0.01)
    thread.join(5)
    assert seen == [pynvml.NVML_ERROR_UNINITIALIZED]
    assert (pynvml.nvmlLib, pynvml._nvmlLib_refcount) == before


def test_every_change_is_seen_at_once(tmp_path: Path) -> None:
    """However fast changes and readings follow, and whatever inode the file gets."""
    fake = FakeNvml(tmp_path, [GPU])
    with running(fake) as handle:
        for step in range(1, 200):
            if step % 3 == 0:
                fake.write()
            fake.advance(0.01)
            assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) == step * 1_000


def test_a_file_that_is_not_understood_fails_every_call(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And says which line it was."""
    fake = FakeNvml(tmp_path, [GPU])
    with running(fake) as handle:
        fake.path.write_text("gpu 0\nset coffee 1\n")
        assert code(pynvml.nvmlDeviceGetPowerUsage, handle) == pynvml.NVML_ERROR_UNKNOWN
        assert "nvml.state:2: set coffee 1" in capfd.readouterr().err
        fake.write()
        assert pynvml.nvmlDeviceGetPowerUsage(handle) == 100_000


def test_calls_are_counted(tmp_path: Path) -> None:
    """By function, failed ones too."""
    fake = FakeNvml(tmp_path, [GPU])
    with running(fake) as handle:
        fake.forget_calls()
        for _ in range(3):
            pynvml.nvmlDeviceGetPowerUsage(handle)
        code(pynvml.nvmlDeviceGetHandleByIndex, 9)
        counted = {name: count for name, count in fake.all_calls().items() if count}
        assert counted == {"nvmlDeviceGetPowerUsage": 3, "nvmlDeviceGetHandleByIndex_v2": 1}


def test_the_truth_adds_up(tmp_path: Path) -> None:
    """Idle, nobody's and each process's part are all of the energy."""
    fake = FakeNvml(tmp_path, [GPU])
    fake.advance(1)
    fake.set_power(0, 400_000)
    fake.start_process(0, GpuProcess(7, sm=60))
    fake.start_process(0, GpuProcess(8, sm=30))
    fake.advance(1)
    fake.stop_process(0, 7)
    fake.advance(1)
    fake.set_sm(0, 8, 0)
    fake.advance(1)
    truth = fake.truth(0, idle_mw=100_000)
    assert truth.total == fake.energy_uj(0) == 1_300_000_000
    assert (truth.idle, truth.nobody) == (400_000_000, 300_000_000)
    assert truth.by_pid == {7: 200_000_000, 8: 400_000_000}


CHILD = """
import json, time
import pynvml
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
read = []
end = time.monotonic() + 1.0
while time.monotonic() < end:
    before = time.monotonic_ns()
    energy = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    read.append((before, energy, time.monotonic_ns()))
    time.sleep(0.01)
samples = pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
print(json.dumps([read, [(one.timeStamp, one.pid, one.smUtil) for one in samples]]))
"""


def test_a_child_process_integrates_in_real_time(tmp_path: Path) -> None:
    """It finds the library by LD_LIBRARY_PATH, and its counter agrees with the truth throughout."""
    gpu = replace(GPU, power_mw=400_000, processes=(GpuProcess(7, sm=70),))
    fake = FakeNvml(tmp_path, [gpu], virtual=False)
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, env=fake.environment(), stdout=subprocess.PIPE) as child:
        for milliwatts in (50_000, 600_000, 100_000):
            time.sleep(0.25)
            fake.set_power(0, milliwatts)
        output, _ = child.communicate(timeout=30)
    assert child.returncode == 0
    read, samples = json.loads(output)
    assert len(read) > 10
    for before, millijoules, after in read:
        least, most = (fake.energy_uj(0, until_ns=ns) // 1000 for ns in (before, after))
        assert least <= millijoules <= most
    assert {(pid, sm) for _, pid, sm in samples if sm == 70} == {(7, 70)}
    assert all(abs(stamp / 1e6 - time.time()) < 60 for stamp, _, _ in samples)
    assert fake.calls("nvmlDeviceGetTotalEnergyConsumption") == len(read)


def test_no_library_for_a_child_without_the_environment(tmp_path: Path) -> None:
    """The search path is added in front of what was there."""
    fake = FakeNvml(tmp_path, [GPU])
    found = fake.environment({"LD_LIBRARY_PATH": "/opt/lib"})
    assert found["LD_LIBRARY_PATH"] == f"{fake.library.parent}:/opt/lib"
    assert found["FAKE_NVML_STATE"] == os.fspath(tmp_path / "nvml.state")
    assert (fake.library.name, fake.library.exists()) == ("libnvidia-ml.so.1", True)


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Instead of a traceback out of subprocess."""
    monkeypatch.setattr(library, "CACHE", tmp_path)
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(BuildError, match="install gcc"):
        library.build.__wrapped__()


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_show_what_was_captured(tmp_path: Path, name: str) -> None:
    """Each of them, under load."""
    profile = PROFILES[name]
    fake = FakeNvml(tmp_path, [profile.load], driver=profile.driver, cuda=profile.cuda)
    with running(fake) as handle:
        assert pynvml.nvmlSystemGetDriverVersion() == profile.driver
        assert pynvml.nvmlDeviceGetPowerUsage(handle) == profile.load.power_mw
        listed = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        assert pids(listed) == [process.pid for process in profile.load.processes]
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
        captured = {
            "rtx-2080-super": 858_783_744,
            "h100": 20_780_679_168,
            "h100-mig": 11_665_408_000,
            "l40s": 1_294_991_360,
        }
        assert memory.used == captured[name]
