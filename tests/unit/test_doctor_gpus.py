"""What the doctor says of GPUs: NVIDIA's on a fake driver, AMD's and Intel's on recorded trees."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fakes.nvml import (
    WITHOUT_ENERGY,
    WITHOUT_SAMPLES,
    FakeNvml,
    Gpu,
    GpuProcess,
    Instance,
)
from jobwatt.config import Config
from jobwatt.doctor import Finding, Group, Level, examine, gpus
from jobwatt.host.procfs import Procfs

MACHINES = Path(__file__).parents[1] / "machines"
UUID = "GPU-00000000-0000-0000-0000-00000000000"
NAME = "NVIDIA H100 80GB HBM3, device"
BUS = "0000:3b:00.0"
ALL_RIGHTS = "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t\nCapEff:\t80006\nCapBnd:\t80006\n"
NO_RIGHTS = ALL_RIGHTS.replace("80006", "0")


class Node:
    """A tree of /proc and /sys, and the fake driver that was installed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/self/status", ALL_RIGHTS)
        self.write("sys/class/drm/version", "")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def card(self, vendor: str = "0x10de", kind: str = "0x030200") -> None:
        """A device on the bus."""
        self.write(f"sys/bus/pci/devices/{BUS}/vendor", f"{vendor}\n")
        self.write(f"sys/bus/pci/devices/{BUS}/class", f"{kind}\n")

    def findings(self) -> list[Finding]:
        config = Config(path_procfs=self.root / "proc", path_sysfs=self.root / "sys")
        return [found for found in examine(config) if found.group is Group.GPUS]

    def find(self, subject: str) -> Finding:
        (finding,) = (found for found in self.findings() if found.subject == subject)
        return finding


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A machine whose driver is not installed."""
    monkeypatch.setattr(gpus, "SONAME", "libno-nvidia-driver.so.1")
    monkeypatch.setattr(Procfs, "is_own", lambda _: True)
    monkeypatch.setattr(Procfs, "is_host_pid_namespace", lambda _: True)
    return Node(tmp_path)


Install = Callable[..., FakeNvml]


@pytest.fixture(autouse=True)
def _nobody_goes_on() -> Iterator[None]:
    """A call that hung ends with its fake; its thread must not meet the next test's."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(10)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a driver with these GPUs."""
    with ExitStack() as stack:

        def act(*found: Gpu, **changes: Any) -> FakeNvml:  # noqa: ANN401
            fake = FakeNvml(tmp_path / "driver", found, **changes)
            monkeypatch.setattr(gpus, "SONAME", str(fake.library))
            stack.enter_context(fake.installed())
            return fake

        yield act


def h100(number: int, **changes: Any) -> Gpu:  # noqa: ANN401
    return Gpu(uuid=f"{UUID}{number}", bus_id=f"00000000:3{number}:00.0", **changes)


# --- no driver ----------------------------------------------------------------------------------


def test_no_gpu_is_a_note(node: Node) -> None:
    """Most machines have none."""
    assert node.findings() == [
        Finding(Level.NOTE, Group.GPUS, "NVML", "no NVIDIA driver and no NVIDIA GPU here")
    ]


def test_gpu_without_a_driver_is_a_note(node: Node) -> None:
    """It may be handed to a virtual machine."""
    node.card()

    finding = node.find("NVML")

    assert finding.level is Level.NOTE
    assert finding.message.startswith("1 NVIDIA GPU on the bus, and no NVIDIA driver")
    assert "install NVIDIA's driver" in (finding.remedy or "")


@pytest.mark.parametrize(("vendor", "kind"), [("0x10de", "0x040300"), ("0x1002", "0x030000")])
def test_other_devices_on_the_bus_are_no_gpus_of_nvidia(node: Node, vendor: str, kind: str) -> None:
    """The sound of a GPU, another vendor's display."""
    node.card(vendor, kind)

    assert node.find("NVML").message == "no NVIDIA driver and no NVIDIA GPU here"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("sys/module/nvidia/version", "590.48.01\n"),
        (
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  590.48.01  Release Build\n",
        ),
    ],
)
def test_driver_without_its_library_is_a_problem(node: Node, path: str, text: str) -> None:
    """A container that the runtime has brought nothing into."""
    node.write(path, text)

    finding = node.find("NVML")

    assert finding.level is Level.PROBLEM
    assert finding.message.endswith("though the kernel has NVIDIA's driver 590.48.01")
    assert "runtimeClassName: nvidia" in (finding.remedy or "")


# --- the library does not start -----------------------------------------------------------------


def test_library_and_kernel_module_differ(node: Node, install: Install) -> None:
    """Both versions, as far as they can be known, and what mends it."""
    node.write("sys/module/nvidia/version", "580.10\n")
    install(h100(0)).fault("nvmlInitWithFlags", 18)

    finding = node.find("NVML")

    assert finding.level is Level.PROBLEM
    assert finding.message.startswith(
        "library and kernel module differ (library unknown, kernel module 580.10)"
    )
    assert "modprobe nvidia" in (finding.remedy or "")


def test_version_of_the_loaded_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of its file ends with it."""
    maps = "7f00-7f01 r-xp 0 fe:00 7 /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.590.48.01\n7f02 x\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: maps)

    assert gpus._library_version() == "590.48.01"


def test_driver_that_may_not_be_asked(node: Node, install: Install) -> None:
    """The device files are missing: a unit or a container hides them."""
    install(h100(0)).fault("nvmlInitWithFlags", 4)

    finding = node.find("NVML")

    assert finding.level is Level.PROBLEM
    assert "  PrivateDevices=no\n" in (finding.remedy or "")


@pytest.mark.parametrize(
    ("loaded", "card", "level", "says"),
    [
        (False, False, Level.NOTE, "a library without a driver"),
        (False, True, Level.PROBLEM, "the library does not start"),
        (True, True, Level.PROBLEM, "kernel module 590.48.01 is loaded, and the library"),
    ],
)
def test_library_that_finds_no_driver(
    node: Node, install: Install, loaded: bool, card: bool, level: Level, says: str
) -> None:
    """A problem only where there is a GPU to be measured."""
    install(h100(0)).fault("nvmlInitWithFlags", 9)
    if loaded:
        node.write("sys/module/nvidia/version", "590.48.01\n")
    if card:
        node.card()

    assert node.find("NVML").level is level
    assert node.find("NVML").message.startswith(says)


@pytest.mark.parametrize(("card", "level"), [(False, Level.NOTE), (True, Level.PROBLEM)])
def test_driver_that_shows_no_gpu(node: Node, install: Install, card: bool, level: Level) -> None:
    """A problem where the bus has one."""
    install()
    if card:
        node.card()

    assert node.find("NVML").level is level
    assert node.find("NVML").message.startswith("driver 590.48.01, and it shows no GPU")


# --- GPUs ---------------------------------------------------------------------------------------


def test_gpus_in_order(node: Node, install: Install) -> None:
    """One line each: what it is, how its energy is read, who is seen on it."""
    processes = (GpuProcess(7, sm=50), GpuProcess(8))
    install(h100(0, processes=processes), h100(1))

    assert [(f.level, f.subject, f.message) for f in node.findings()] == [
        (Level.OK, "NVML", "driver 590.48.01, 2 NVIDIA GPUs"),
        (
            Level.OK,
            "GPU 0",
            f"{NAME} {UUID}0: energy counter; 2 processes on it, with samples of theirs",
        ),
        (
            Level.OK,
            "GPU 1",
            f"{NAME} {UUID}1: energy counter; 0 processes on it, with samples of theirs",
        ),
        (Level.OK, "pids", "the driver's are the host's, and so are ours"),
        (Level.OK, "users", "the processes of all users can be looked into"),
    ]


def test_old_gpu(node: Node, install: Install) -> None:
    """No counter and no samples: it is measured all the same, with a note."""
    install(h100(0, unsupported=(*WITHOUT_ENERGY, *WITHOUT_SAMPLES)))

    finding = node.find("GPU 0")

    assert finding.level is Level.NOTE
    assert "its power is read and summed" in finding.message
    assert "where several share it, energy is divided by memory" in finding.message


def test_mig(node: Node, install: Install) -> None:
    """Its instances by profile."""
    layout = (
        Instance("MIG-1", 1),
        None,
        Instance("MIG-2", 2),
        Instance("MIG-3", 3, profile="2g.20gb"),
    )
    install(h100(0, instances=layout))

    finding = node.find("GPU 0")

    assert finding.level is Level.OK
    assert finding.message.endswith("MIG on, 3 instances: 2 × 1g.10gb, 1 × 2g.20gb")


def test_one_gpu_that_may_not_be_read(node: Node, install: Install) -> None:
    """The others are looked at all the same."""
    install(h100(0), h100(1)).fault("nvmlDeviceGetHandleByIndex_v2", 4, 0)

    assert (node.find("GPU 0").level, node.find("GPU 1").level) == (Level.PROBLEM, Level.OK)
    assert "/dev/nvidiactl" in (node.find("GPU 0").remedy or "")


def test_energy_that_cannot_be_read(node: Node, install: Install) -> None:
    """A problem of this GPU."""
    install(h100(0)).fault("nvmlDeviceGetTotalEnergyConsumption", 999)

    assert node.find("GPU 0").level is Level.PROBLEM
    assert "its energy cannot be read" in node.find("GPU 0").message


def test_gpu_that_is_lost(node: Node, install: Install) -> None:
    """Every call fails: said once, not as a crash."""
    install(h100(0)).fault("nvmlDeviceGet[!CH]*", 15)

    assert node.find("GPU 0").level is Level.PROBLEM


def test_processes_that_cannot_be_listed(node: Node, install: Install) -> None:
    """The energy is measured and belongs to nobody."""
    install(h100(0)).fault("nvmlDeviceGet*RunningProcesses*", 4)

    finding = node.find("GPU 0")

    assert finding.level is Level.PROBLEM
    assert "its processes cannot be listed" in finding.message
    assert "  PrivateDevices=no" in (finding.remedy or "")


def test_what_is_nice_to_know_is_a_note(node: Node, install: Install) -> None:
    """A temperature that fails is no missing energy."""
    install(h100(0)).fault("nvmlDeviceGetTemperature*", 999)

    assert node.find("GPU 0").level is Level.NOTE
    assert "nvmlDeviceGetTemperature" in node.find("GPU 0").message


def test_sleeping_gpu_is_not_woken(node: Node, install: Install) -> None:
    """Runtime power management has switched it off."""
    power = "sys/bus/pci/devices/0000:30:00.0/power"
    node.write(f"{power}/control", "auto\n")
    node.write(f"{power}/runtime_status", "suspended\n")
    install(h100(0))

    assert node.find("GPU 0").level is Level.NOTE
    assert "asleep (runtime power management)" in node.find("GPU 0").message


# --- a driver that hangs ------------------------------------------------------------------------


def test_driver_that_does_not_answer(
    node: Node, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor waits no longer than it says, and names the call."""
    monkeypatch.setattr(gpus, "PATIENCE_SECONDS", 0.5)
    install(h100(0)).hang("nvmlInitWithFlags")
    started = time.monotonic()

    (finding,) = node.findings()

    assert time.monotonic() - started < 5
    assert finding.level is Level.PROBLEM
    assert finding.message.startswith(
        "the driver has not answered for 0.5 s (nvmlInit): the exporter goes on without "
    )
    assert "dmesg" in (finding.remedy or "")


def test_one_gpu_that_hangs(node: Node, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had been told before counts."""
    monkeypatch.setattr(gpus, "PATIENCE_SECONDS", 1.0)
    install(h100(0), h100(1)).hang("nvmlDeviceGetTotalEnergyConsumption", 1)

    findings = node.findings()

    assert [f.subject for f in findings] == ["NVML", "GPU 0", "NVML", "pids", "users"]
    assert "at GPU 1 (nvmlDeviceGetTotalEnergyConsumption)" in findings[2].message


# --- whose pids ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "host", "level"),
    [
        (True, True, Level.OK),
        (True, False, Level.PROBLEM),
        (False, False, Level.PROBLEM),
        (False, None, None),
    ],
)
def test_pids_of_the_driver(
    node: Node,
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    own: bool,
    host: bool | None,
    level: Level | None,
) -> None:
    """Without the host's pids nobody knows whose process is on a GPU."""
    monkeypatch.setattr(Procfs, "is_own", lambda _: own)
    monkeypatch.setattr(Procfs, "is_host_pid_namespace", lambda _: host)
    install(h100(0))

    found = [finding for finding in node.findings() if finding.subject == "pids"]

    assert [finding.level for finding in found] == ([] if level is None else [level])
    assert all("hostPID: true" in (f.remedy or "") for f in found if level is Level.PROBLEM)


def test_environments_of_others(node: Node, install: Install) -> None:
    """NVIDIA's driver names its processes itself; who only reserved a GPU is not seen."""
    node.write("proc/self/status", NO_RIGHTS)
    install(h100(0))

    assert node.find("users").level is Level.NOTE
    assert "CAP_SYS_PTRACE" in (node.find("users").remedy or "")


# --- AMD, Intel, Grace --------------------------------------------------------------------------


def recorded(name: str) -> list[Finding]:
    config = Config(path_procfs=MACHINES / name / "proc", path_sysfs=MACHINES / name / "sys")
    return examine(config)


def test_amd(node: Node) -> None:
    """Cards by their address, with the device's name in the metrics."""
    del node
    found = {f.subject: (f.level, f.message) for f in recorded("amd-gpu-node")}

    assert found["0000:03:00.0"] == (
        Level.OK,
        "amdgpu, device GPU-8b1d9c3e5f7a2046: its power is read and summed",
    )


def test_intel(node: Node) -> None:
    """Cards have a counter; an integrated GPU is left out, and why."""
    del node
    found = {f.subject: (f.level, f.message) for f in recorded("intel-gpu-node")}

    assert found["0000:4d:00.0"] == (Level.OK, "i915, device 0000:4d:00.0: energy counter")
    assert found["0000:00:02.0"] == (
        Level.NOTE,
        "i915, an integrated GPU, left out: it lies in RAPL's package",
    )


def test_grace(node: Node) -> None:
    """Its package is measured: no RAPL is no problem there, and nothing is estimated."""
    del node
    energy = [f for f in recorded("grace") if f.group is Group.ENERGY]

    assert [(f.level, f.subject) for f in energy] == [(Level.OK, "package-0")]
    assert energy[0].message.startswith("NVIDIA Grace: its firmware's power is read and summed")


class Card:
    """A card of the kernel's own drivers in a tree."""

    def __init__(self, node: Node, driver: str, address: str = BUS) -> None:
        self.node, self.folder = node, f"sys/devices/pci0000:00/{address}"
        node.write(f"{self.folder}/drm/card0/dev", "226:0\n")
        node.write(f"{self.folder}/power/runtime_status", "active\n")
        (node.root / "drivers" / driver).mkdir(parents=True)
        (node.root / self.folder / "driver").symlink_to(node.root / "drivers" / driver)
        shown = node.root / "sys/class/drm/card0"
        shown.mkdir(parents=True)
        (shown / "device").symlink_to(node.root / self.folder)

    def chip(self, name: str, **attributes: str) -> None:
        folder = "sys/class/hwmon/hwmon0"
        for attribute, text in {"name": name, **attributes}.items():
            self.node.write(f"{folder}/{attribute}", f"{text}\n")
        (self.node.root / folder / "device").symlink_to(self.node.root / self.folder)


def test_apu_is_left_out(node: Node) -> None:
    """Its power would be counted twice."""
    Card(node, "amdgpu").chip("amdgpu", power1_average="9000000", in1_input="700")

    assert node.find(BUS) == Finding(
        Level.NOTE,
        Group.GPUS,
        BUS,
        "an APU, left out: its power is the whole socket's, which RAPL measures",
    )


@pytest.mark.parametrize(
    ("driver", "level", "says"),
    [
        ("amdgpu", Level.PROBLEM, "amdgpu tells no power of it"),
        ("xe", Level.PROBLEM, "xe tells no energy of it"),
        ("nouveau", Level.NOTE, "nouveau drives this NVIDIA GPU"),
    ],
)
def test_card_that_tells_nothing(node: Node, driver: str, level: Level, says: str) -> None:
    """Its energy is absent, and the reader knows."""
    Card(node, driver)

    assert node.find(BUS).level is level
    assert node.find(BUS).message.startswith(says)


def test_card_of_a_display_is_no_news(node: Node) -> None:
    """The console of a server computes nothing."""
    Card(node, "ast")

    assert [finding.subject for finding in node.findings()] == ["NVML"]


def test_sleeping_card_is_not_read(node: Node) -> None:
    """Reading would wake it."""
    card = Card(node, "amdgpu")
    card.chip("amdgpu", power1_average="9000000")
    node.write(f"{card.folder}/power/runtime_status", "suspended\n")

    assert node.find(BUS).level is Level.NOTE
    assert "asleep" in node.find(BUS).message


@pytest.mark.parametrize(
    ("power", "level", "says"),
    [("0", Level.NOTE, "shows 0 W"), ("none", Level.PROBLEM, "power1_average")],
)
def test_card_without_a_reading(node: Node, power: str, level: Level, says: str) -> None:
    """0 W is no reading; what is no number is an error."""
    Card(node, "amdgpu").chip("amdgpu", power1_average=power)

    assert node.find(BUS).level is level
    assert says in node.find(BUS).message


def test_counter_that_may_not_be_read(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel gives Intel's counters to root only."""
    Card(node, "i915").chip("i915", energy1_input="5")
    opened = os.open

    def refusing(path: str | Path, *arguments: Any, **keywords: Any) -> int:  # noqa: ANN401
        if str(path).endswith("energy1_input"):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", refusing)

    assert node.find(BUS).level is Level.PROBLEM
    assert "CAP_DAC_READ_SEARCH" in (node.find(BUS).remedy or "")


def test_open_files_of_others(node: Node) -> None:
    """Who uses AMD's and Intel's GPUs stands in files that belong to the users."""
    Card(node, "i915").chip("i915", energy1_input="5")
    assert node.find("users").level is Level.OK

    node.write("proc/self/status", NO_RIGHTS)

    assert node.find("users").level is Level.PROBLEM
    assert "in one's own processes only" in node.find("users").message


def test_cards_that_cannot_be_listed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A denied class is told as denied."""
    listdir = os.listdir

    def refusing(path: str | Path) -> list[str]:
        if str(path).endswith("class/drm"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refusing)

    assert node.find("hwmon").level is Level.PROBLEM
