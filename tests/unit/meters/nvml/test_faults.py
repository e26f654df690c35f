"""What goes wrong with drivers and GPUs: isolated, visible, healed when the cause goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from fakes.nvidia import Nvidia
from fakes.nvml import WITHOUT_ENERGY, Gpu, GpuProcess, Instance
from jobwatt.meters.nvml.library import Library
from jobwatt.meters.nvml.meter import NvmlMeter
from jobwatt.model import Source
from jobwatt.units import UJ

Machine = Callable[..., Nvidia]

UNINITIALIZED, NO_PERMISSION, NOT_LOADED, NO_LIBRARY, NOT_THERE = 1, 4, 9, 12, 13
LOST, RESET_REQUIRED, MISMATCH, GPU_NOT_FOUND, UNKNOWN = 15, 16, 18, 28, 999
INIT, SHUTDOWN = "nvmlInitWithFlags", "nvmlShutdown"


def gpu(number: int) -> Gpu:
    bus_id = f"00000000:{number + 1:02X}:00.0"
    return Gpu(uuid=f"GPU-{number}", bus_id=bus_id, power_mw=100_000, refresh_ms=0)


EIGHT = [gpu(number) for number in range(8)]
NAMES = [f"GPU-{number}" for number in range(8)]


def all_but(number: int) -> list[str]:
    return [name for name in NAMES if name != f"GPU-{number}"]


@pytest.mark.parametrize("code", [LOST, RESET_REQUIRED, GPU_NOT_FOUND])
def test_one_of_eight_is_lost(machine: Machine, code: int) -> None:
    """The others are read at every look; it comes back when it is there again."""
    nvidia = machine(*EIGHT)
    nvidia.look()
    nvidia.fake.fault("*", code, device=3)
    for _ in range(90):
        assert list(nvidia.look().energy) == all_but(3)
        assert {reason for _, reason in nvidia.faults} <= {"failed", "absent"}
        assert all("GPU-3" in what or what == "GPU 3" for what, _ in nvidia.faults)
        assert nvidia.faults
    nvidia.fake.heal()
    seen = [set(nvidia.look().energy) for _ in range(61)]
    assert seen[-1] == set(NAMES)
    assert nvidia.faults == []
    assert nvidia.energy["GPU-3"] == (1 + 90 + 61) * 100 * UJ


@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetProcessUtilization",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetMemoryInfo*",
    ],
)
def test_whatever_call_tells_of_a_loss_starts_the_library_anew(
    machine: Machine, function: str
) -> None:
    """And is one fault of that GPU until then."""
    nvidia = machine(*EIGHT[:2])
    nvidia.look()
    nvidia.look(20)
    nvidia.fake.fault(function, LOST, device=1)
    nvidia.look()
    assert nvidia.faults == [("GPU-1", "failed")]
    nvidia.fake.heal()
    nvidia.look()
    assert (nvidia.faults, set(nvidia.energy)) == ([], {"GPU-0", "GPU-1"})
    assert nvidia.fake.calls(INIT) == 2


@pytest.mark.parametrize(
    "function",
    ["nvmlDeviceGetUUID", "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetName"],
)
def test_so_does_a_call_for_an_instance(machine: Machine, function: str) -> None:
    """Its GPU is lost then."""
    nvidia = machine(replace(gpu(0), instances=(Instance("MIG-1", 1),)))
    nvidia.look()
    nvidia.look(20)
    nvidia.fake.fault(function, LOST, device="MIG-1")
    assert nvidia.look().faults == [("GPU-0", "failed")]
    nvidia.fake.heal()
    assert nvidia.look().faults == []
    assert [instance.uuid for instance in nvidia.state.instances] == ["MIG-1"]


def test_a_library_is_started_anew_more_and_more_seldom(machine: Machine) -> None:
    """A GPU that stays lost: the others' counters may be forgotten with each shutdown."""
    nvidia = machine(*EIGHT)
    nvidia.look()
    nvidia.fake.fault("*", LOST, device=3)
    starts = []
    for second in range(400):
        before = nvidia.fake.calls(INIT)
        nvidia.look()
        if nvidia.fake.calls(INIT) > before:
            starts.append(second)
    waits = [after - before for before, after in pairwise(starts)]
    assert waits[-4:] == [60] * 4
    assert len(starts) <= 10


def test_a_gpu_that_falls_off_the_bus_is_missed(machine: Machine) -> None:
    """Not even counted any more, it is a fault and no device less."""
    nvidia = machine(*EIGHT[:2])
    nvidia.look()
    fell_off = nvidia.fake._devices.pop()
    nvidia.fake.write()
    looks = [nvidia.look() for _ in range(20)]
    assert list(looks[-1].energy) == ["GPU-0"]
    assert nvidia.faults == [("GPU-1", "absent")]
    nvidia.fake._devices.append(fell_off)
    nvidia.fake.write()
    for _ in range(61):
        nvidia.look()
    assert set(nvidia.energy) == {"GPU-0", "GPU-1"}


def test_no_permission_on_one_handle(machine: Machine) -> None:
    """It is skipped and counted; the library works, so it is not shut down for that."""
    nvidia = machine(*EIGHT)
    nvidia.fake.fault("*", NO_PERMISSION, device=5)
    for _ in range(130):
        assert list(nvidia.look().energy) == all_but(5)
        assert nvidia.faults == [("GPU 5", "denied")]
    assert (nvidia.fake.calls(INIT), nvidia.fake.calls(SHUTDOWN)) == (1, 0)
    nvidia.fake.heal()
    for _ in range(60):
        nvidia.look()
    assert (set(nvidia.energy), nvidia.faults) == (set(NAMES), [])


def test_looking_for_the_missing_leaves_the_others_alone(machine: Machine) -> None:
    """They are asked nothing twice: who left a MIG instance meanwhile is not forgotten."""
    nvidia = machine(*EIGHT)
    nvidia.fake.fault("*", NO_PERMISSION, device=5)
    nvidia.look()
    for _ in range(130):
        nvidia.look()
    assert nvidia.fake.calls("nvmlDeviceGetName") == 7
    assert nvidia.fake.calls("nvmlDeviceGetUUID") == 7


@pytest.mark.parametrize("function", ["nvmlDeviceGetCount_v2", "nvmlSystemGetDriverVersion"])
def test_looking_for_the_missing_may_fail(machine: Machine, function: str) -> None:
    """Those that are there are read on."""
    nvidia = machine(*EIGHT)
    nvidia.fake.fault("*", NO_PERMISSION, device=5)
    nvidia.look()
    nvidia.fake.fault(function, UNKNOWN)
    for _ in range(70):
        assert list(nvidia.look().energy) == all_but(5)
    assert nvidia.fake.calls(SHUTDOWN) == 0


@pytest.mark.parametrize("code", [UNKNOWN, NO_PERMISSION])
def test_a_call_that_fails_is_one_reading_less(machine: Machine, code: int) -> None:
    """The energy of one GPU: not its state, not the others, not the library."""
    nvidia = machine(*EIGHT)
    nvidia.look()
    nvidia.fake.fault("nvmlDeviceGetTotalEnergyConsumption", code, device=2)
    assert list(nvidia.look().energy) == all_but(2)
    assert set(nvidia.states) == set(NAMES)
    assert [what for what, _ in nvidia.faults] == ["GPU-2"]
    nvidia.fake.heal()
    assert nvidia.look().energy["GPU-2"] == 300 * UJ
    assert nvidia.fake.calls(SHUTDOWN) == 0


def test_what_cannot_be_told_just_now_is_a_fault(machine: Machine) -> None:
    """Energy and processes are there all the same, and the rest comes back."""
    nvidia = machine(gpu(0))
    nvidia.look()
    nvidia.fake.fault("nvmlDeviceGetUtilizationRates", UNKNOWN)
    assert nvidia.look().faults == [("GPU-0 nvmlDeviceGetUtilizationRates", "failed")]
    assert (nvidia.energy, nvidia.state.utilization_ratio) == ({"GPU-0": 200 * UJ}, None)
    nvidia.fake.heal()
    assert nvidia.look().state.utilization_ratio == 0.0


def test_a_function_that_is_missing_is_absent(machine: Machine) -> None:
    """By its code, as with a driver that is too old."""
    nvidia = machine(gpu(0))
    nvidia.fake.fault("nvmlDeviceGetTemperature*", NOT_THERE)
    nvidia.fake.fault("nvmlDeviceGetTotalEnergyConsumption", NOT_THERE)
    nvidia.look(0)
    assert (nvidia.look().energy, nvidia.faults) == ({"GPU-0": 100 * UJ}, [])
    assert nvidia.sources == [Source.NVML_POWER]


def test_a_driver_reload_heals(machine: Machine) -> None:
    """UNINITIALIZED: the library is started anew at the next look, and GPUs are the same."""
    nvidia = machine(*EIGHT[:2])
    for _ in range(20):
        nvidia.look()
    nvidia.fake.fault("nvmlDevice*", UNINITIALIZED)
    assert nvidia.look().energy == {}
    assert {reason for _, reason in nvidia.faults} == {"failed"}
    nvidia.fake.heal()
    nvidia.fake.reset(0)
    nvidia.look()
    assert (list(nvidia.energy), nvidia.faults) == (["GPU-0", "GPU-1"], [])
    assert nvidia.energy["GPU-0"] == 100 * UJ


def test_after_a_restart_of_the_library_who_left_is_still_known(machine: Machine) -> None:
    """A process that ended while the library was away is paid for what it did before."""
    nvidia = machine(replace(gpu(0), processes=(GpuProcess(7, sm=50),)))
    nvidia.look()
    nvidia.look(20)
    nvidia.fake.fault("nvmlDevice*", UNINITIALIZED)
    nvidia.look()
    nvidia.fake.heal()
    nvidia.fake.stop_process(0, 7)
    assert set(nvidia.look().use.residents) == {7}


@pytest.mark.parametrize("code", [NOT_LOADED, UNKNOWN, NO_PERMISSION])
def test_a_driver_that_does_not_start(machine: Machine, code: int) -> None:
    """`nvml_energy` is down, and said why, until it does."""
    nvidia = machine(gpu(0))
    nvidia.fake.fault(INIT, code)
    reason = "denied" if code == NO_PERMISSION else "failed"
    for _ in range(35):
        nvidia.look()
        assert (nvidia.sources, nvidia.faults) == ([Source.NVML_ENERGY], [("NVML", reason)])
    assert nvidia.fake.calls(INIT) <= 5
    nvidia.fake.heal()
    for _ in range(11):
        nvidia.look()
    assert (nvidia.energy, nvidia.faults) == ({"GPU-0": 46 * 100 * UJ}, [])


def test_a_machine_without_the_library_has_no_gpu(tmp_path: Path) -> None:
    """No report, no error."""
    meter = NvmlMeter(tmp_path, library=Library("libnothing-of-the-kind.so.1"), clock=lambda: 0)
    assert [meter.read() for _ in range(3)] == [()] * 3


def test_a_driver_that_finds_no_library_of_its_own_is_absent(machine: Machine) -> None:
    """LIBRARY_NOT_FOUND: half an installation is none."""
    nvidia = machine(gpu(0))
    nvidia.fake.fault(INIT, NO_LIBRARY)
    assert nvidia.look().reports == ()


def test_a_library_that_has_gone_is_a_fault_where_there_were_gpus(machine: Machine) -> None:
    """Somebody uninstalls the driver under us."""
    nvidia = machine(gpu(0))
    nvidia.look()
    nvidia.look(20)
    nvidia.fake.fault("nvmlDevice*", UNINITIALIZED)
    nvidia.look()
    nvidia.fake.fault(INIT, NO_LIBRARY)
    assert nvidia.look().faults == [("NVML", "absent")]
    assert nvidia.sources == [Source.NVML_ENERGY]


def test_a_machine_without_gpus_has_no_report_until_there_is_one(machine: Machine) -> None:
    """The library only knows those that were there when it was started."""
    nvidia = machine(gpu(0))
    later = nvidia.fake._devices.pop()
    nvidia.fake.write()
    assert [nvidia.look().reports for _ in range(5)] == [()] * 5
    nvidia.fake._devices.append(later)
    nvidia.fake.write()
    for _ in range(61):
        nvidia.look()
    assert list(nvidia.energy) == ["GPU-0"]


def test_a_machine_whose_gpus_have_no_counter_reports_on_their_source(machine: Machine) -> None:
    """Nobody is told of a source that this machine does not have."""
    old = [replace(one, unsupported=WITHOUT_ENERGY) for one in EIGHT[:2]]
    nvidia = machine(*old)
    nvidia.look()
    nvidia.fake.fault("*", LOST, device=1)
    for _ in range(30):
        assert nvidia.look().sources == [Source.NVML_POWER]


# --- another version -------------------------------------------------------------------------


def test_a_mismatch_from_the_start_waits_for_another_driver(machine: Machine) -> None:
    """The package was upgraded, the module not yet: once that is done another process is asked."""
    nvidia = machine(gpu(0), driver="580.1")
    nvidia.fake.fault(INIT, MISMATCH)
    messages = set()
    for _ in range(30):
        nvidia.look()
        messages |= {fault.message for report in nvidia.reports for fault in report.faults}
        assert nvidia.faults == [("NVML", "failed")]
    assert len(messages) == 1  # the same each time: said once
    assert nvidia.restarts == []
    (nvidia.sysfs / "module/nvidia/version").unlink()  # unloaded: nothing to start anew for
    for _ in range(15):
        nvidia.look()
    assert nvidia.restarts == []
    nvidia.set_kernel_driver("590.2")
    for _ in range(30):
        nvidia.look()
    assert nvidia.restarts == ["590.2"]


def test_a_driver_that_is_upgraded_under_a_running_exporter(machine: Machine) -> None:
    """The module is new, the library that this process has loaded is old: at once, and once."""
    nvidia = machine(gpu(0), driver="580.1")
    nvidia.look()
    nvidia.look(20)
    nvidia.set_kernel_driver("590.2")
    nvidia.fake.fault("nvmlDevice*", UNINITIALIZED)
    nvidia.fake.fault(INIT, MISMATCH)
    for _ in range(30):
        nvidia.look()
    assert nvidia.restarts == ["590.2"]
    assert nvidia.faults == [("NVML", "failed")]


def test_a_mismatch_that_shows_in_a_running_library(machine: Machine) -> None:
    """The calls themselves tell: it is started anew, which tells for good."""
    nvidia = machine(*EIGHT[:2], driver="580.1")
    nvidia.look()
    nvidia.look(20)
    nvidia.set_kernel_driver("590.2")
    nvidia.fake.fault("*", MISMATCH)
    for _ in range(3):
        nvidia.look()
    assert nvidia.restarts == ["590.2"]


def test_a_mismatch_that_heals_asks_for_nothing(machine: Machine) -> None:
    """The old module was loaded again."""
    nvidia = machine(gpu(0), driver="580.1")
    nvidia.fake.fault(INIT, MISMATCH)
    nvidia.look()
    nvidia.fake.heal()
    for _ in range(11):
        nvidia.look()
    assert (nvidia.restarts, nvidia.faults, list(nvidia.energy)) == ([], [], ["GPU-0"])


# --- sleep -----------------------------------------------------------------------------------


def put_to_sleep(nvidia: Nvidia, status: str, control: str = "auto") -> None:
    folder = nvidia.sysfs / "bus/pci/devices/0000:01:00.0/power"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "control").write_text(f"{control}\n")
    (folder / "runtime_status").write_text(f"{status}\n")


def test_a_gpu_that_is_switched_off_is_not_woken(machine: Machine) -> None:
    """Not a single call is for it; it is no fault, and its energy is there when it wakes."""
    nvidia = machine(*EIGHT[:2])
    put_to_sleep(nvidia, "active")
    nvidia.look()
    put_to_sleep(nvidia, "suspended")
    nvidia.look()
    nvidia.fake.fault("*", UNKNOWN, device=0)  # any call would show
    for _ in range(20):
        assert (list(nvidia.look().energy), nvidia.faults) == (["GPU-1"], [])
        assert set(nvidia.states) == {"GPU-1"}
    nvidia.fake.heal()
    put_to_sleep(nvidia, "active")
    assert nvidia.look().energy["GPU-0"] == 23 * 100 * UJ


def test_a_gpu_may_be_allowed_to_sleep_later(machine: Machine) -> None:
    """An administrator changes that at any time."""
    nvidia = machine(gpu(0))
    put_to_sleep(nvidia, "active", control="on")
    for _ in range(5):
        nvidia.look()
    put_to_sleep(nvidia, "active")
    for _ in range(10):
        nvidia.look()
    put_to_sleep(nvidia, "suspended")
    assert nvidia.look().energy == {}


def test_pids_of_another_namespace_are_foreign(machine: Machine) -> None:
    """The state says so: they name other processes here."""
    nvidia = machine(gpu(0), foreign=True)
    assert nvidia.look().state.foreign


def test_slow_gpus_are_told_one_after_the_other(machine: Machine) -> None:
    """A look does not last until the last of them has answered; the next goes on there."""
    node = machine(gpu(0), gpu(1), gpu(2))
    node.look()
    later = iter(range(10**18, 10**18 + 10**14, 10**9))  # each look at the clock costs a second
    node.meter._clock = lambda: next(later)
    covered = []
    for _ in range(4):
        (report,) = node.look(0).reports
        assert report.covers is not None
        assert {device.name for device in report.gpus} == {d.name for d in report.covers}
        covered += [device.name for device in report.covers]
    assert covered == ["GPU-0", "GPU-1", "GPU-2", "GPU-0"]


def test_a_name_that_is_no_text_costs_the_name_only(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library cannot decode it."""

    def broken(_: object) -> str:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr("pynvml.nvmlDeviceGetName", broken)
    node = machine(gpu(0)).look()
    assert node.energy == {"GPU-0": 100 * UJ}
    assert node.devices["GPU-0"].model == ""


def test_a_superchip_that_does_not_tell_its_module_apart(machine: Machine) -> None:
    """The counter of a GH200 is the module's: the GPU's own power is integrated, if averaged."""
    node = machine(
        replace(gpu(0), name="NVIDIA GH200 480GB"), without=("nvmlDeviceGetFieldValues",)
    )
    node.look()
    assert node.look(1).devices["GPU-0"].source is Source.NVML_POWER
