"""GPUs: which there are, whether their energy can be read, and whether their users are seen.

A driver that does not answer must not hold the doctor up: it is asked in a thread, which is left
behind when its time is over.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter as Count
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobwatt.config import Config
from jobwatt.doctor.finding import Finding, Group, Level, many
from jobwatt.doctor.machine import CAP_SYS_PTRACE, Machine
from jobwatt.errors import Denied, ReadError
from jobwatt.gpus import GpuState
from jobwatt.host.drm import Card, read_cards
from jobwatt.host.files import list_folder, read_text
from jobwatt.host.hwmon import Chip, read_chips
from jobwatt.host.procfs import Procfs
from jobwatt.meters.hwmon import amdgpu, intel
from jobwatt.meters.hwmon.amdgpu import AmdGpu, find_amd_gpus
from jobwatt.meters.hwmon.intel import IntelGpu, find_intel_gpus
from jobwatt.meters.nvml.device import NvmlDevice
from jobwatt.meters.nvml.library import SONAME, Library, Mismatch, NoDriver
from jobwatt.model import Fault, Source

__all__ = ["check_gpus"]

PATIENCE_SECONDS = 10.0
"""Starting the library wakes sleeping GPUs, which takes seconds; a call that works takes less."""

NVIDIA, DISPLAY = "0x10de", "0x03"
"""PCI vendor and base class (include/linux/pci_ids.h)."""

_INTEGRATED = re.compile(r"0000:00:02\.[0-7]", re.ASCII)
"""Where Intel's processors have their GPU."""

_LIBRARY_VERSION = re.compile(r"/libnvidia-ml\.so\.([\d.]+\d)$", re.ASCII | re.MULTILINE)
_KERNEL_VERSION = re.compile(r"Module.*?\s{2}([\d.]+)\s{2}", re.ASCII)

_DEVICE_FILES = (
    "the driver is reached by /dev/nvidiactl, /dev/nvidia0, …; let systemd show them "
    "(sudo systemctl edit jobwatt):\n"
    "  [Service]\n"
    "  PrivateDevices=no\n"
    "  DeviceAllow=char-nvidia* rw\n"
    "or hand them to the container:\n"
    "  docker run --runtime=nvidia -e NVIDIA_VISIBLE_DEVICES=all "
    "-e NVIDIA_DRIVER_CAPABILITIES=utility …"
)

_HOST_PIDS = (
    "run in the host's PID namespace:\n"
    "  docker run --pid=host …\n"
    "in Kubernetes, in the pod's spec:\n"
    "  hostPID: true"
)

_MAY_TRACE = (
    "give the exporter the capability; to systemd (sudo systemctl edit jobwatt):\n"
    "  [Service]\n"
    "  AmbientCapabilities=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH\n"
    "to a container:\n"
    "  docker run --cap-add=SYS_PTRACE …"
)


def check_gpus(config: Config, procfs: Procfs, machine: Machine) -> Iterator[Finding]:
    """Check NVIDIA's driver and GPUs, then AMD's and Intel's, then whether users are seen."""
    sysfs = config.path_sysfs
    on_bus = _nvidia_on_bus(sysfs)
    nvml = _ask_nvml(sysfs)
    yield from _check_nvml(nvml, on_bus, procfs, sysfs)
    others = list(_check_others(sysfs))
    yield from (finding for _, finding in others)
    measured = any(is_gpu for is_gpu, _ in others)
    if nvml.gpus:
        yield from _check_pids(procfs)
    if measured or nvml.gpus:
        yield from _check_privileges(machine, by_fdinfo=measured)


def _finding(level: Level, subject: str, message: str, remedy: str | None = None) -> Finding:
    return Finding(level, Group.GPUS, subject, message, remedy)


def _worst(*levels: Level) -> Level:
    return max(levels, key=list(Level).index)


# --- NVIDIA: the thread that asks ---------------------------------------------------------------


class _Watched(Library):
    """The library, and what it is being asked just now."""

    doing = ""

    def ask(self, function: str, *arguments: Any) -> Any:  # noqa: ANN401 - as pynvml has it
        self.doing = function
        return super().ask(function, *arguments)


@dataclass(slots=True)
class _Gpu:
    """What a GPU showed; `device` is None where it has no handle, `trouble` says why."""

    index: int
    device: NvmlDevice | None = None
    state: GpuState | None = None
    energy_trouble: ReadError | None = None
    trouble: ReadError | None = None
    faults: list[Fault] = field(default_factory=list)


@dataclass(slots=True)
class _Nvml:
    """What the driver told so far; `stuck` names the call that did not come back in time."""

    driver: str = ""
    count: int = 0
    gpus: list[_Gpu] = field(default_factory=list)
    trouble: ReadError | None = None
    stuck: str = ""


def _ask_nvml(sysfs: Path) -> _Nvml:
    """Ask in a thread; what has been told when its time is over counts."""
    library, told = _Watched(SONAME), _Nvml()
    thread = threading.Thread(target=_ask_all, args=(library, told, sysfs), daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    if not thread.is_alive():
        return told
    stuck = library.doing or "loading the library"
    return _Nvml(told.driver, told.count, list(told.gpus), None, stuck)


def _ask_all(library: Library, told: _Nvml, sysfs: Path) -> None:
    try:
        library.start()
        told.driver = str(library.ask("nvmlSystemGetDriverVersion"))
        told.count = int(library.ask("nvmlDeviceGetCount"))
        for index in range(told.count):
            told.gpus.append(_ask_one(library, index, told.driver, sysfs))
    except ReadError as error:
        told.trouble = error
    library.stop()


def _ask_one(library: Library, index: int, driver: str, sysfs: Path) -> _Gpu:
    gpu = _Gpu(index)
    try:
        handle = library.ask("nvmlDeviceGetHandleByIndex", index)
        device = NvmlDevice(library, handle, index, driver, sysfs)
    except ReadError as error:
        gpu.trouble = error
        return gpu
    gpu.device = device
    if device.is_asleep:
        return gpu
    try:
        device.read_energy(time.monotonic_ns)
    except ReadError as error:
        gpu.energy_trouble = error
    try:
        # What a process did is known from the second look on.
        for _ in range(2):
            now_ns = time.monotonic_ns()
            offset_us = (time.time_ns() - now_ns) // 1000
            gpu.state = device.read_state(now_ns, offset_us, gpu.faults)
    except ReadError as error:
        gpu.trouble = error
    return gpu


# --- NVIDIA: what it means ----------------------------------------------------------------------


def _check_nvml(told: _Nvml, on_bus: int, procfs: Procfs, sysfs: Path) -> Iterator[Finding]:
    kernel = _kernel_driver(procfs, sysfs)
    if isinstance(told.trouble, NoDriver):
        yield _explain_no_library(on_bus, kernel)
        return
    if told.trouble is not None and not told.driver:
        yield _explain_no_start(told.trouble, on_bus, kernel)
        return
    if told.driver and told.count:
        yield _finding(Level.OK, "NVML", f"driver {told.driver}, {many(told.count, 'NVIDIA GPU')}")
    elif told.driver and not told.stuck:
        yield _check_count(told.driver, on_bus)
    if told.trouble is not None:
        yield _finding(Level.PROBLEM, "NVML", str(told.trouble))
    for gpu in told.gpus:
        yield _check_gpu(gpu)
    if told.stuck:
        place = f" at GPU {len(told.gpus)}" if told.count else ""
        yield _finding(
            Level.PROBLEM,
            "NVML",
            f"the driver has not answered for {PATIENCE_SECONDS:g} s{place} ({told.stuck}): the "
            "exporter goes on without NVIDIA's GPUs until it does",
            "look for an Xid or a hung task, then reset the GPU or reboot:\n"
            "  sudo dmesg | grep -iE 'nvrm|xid|hung'",
        )


def _check_count(driver: str, on_bus: int) -> Finding:
    message = f"driver {driver}, and it shows no GPU"
    if not on_bus:
        return _finding(Level.NOTE, "NVML", message)
    return _finding(
        Level.PROBLEM,
        "NVML",
        f"{message} of the {on_bus} on the bus",
        f"{_DEVICE_FILES}\nor see what the kernel says of them:\n  sudo dmesg | grep -i nvrm",
    )


def _explain_no_library(on_bus: int, kernel: str) -> Finding:
    if kernel:
        return _finding(
            Level.PROBLEM,
            "NVML",
            f"no {SONAME} here, though the kernel has NVIDIA's driver {kernel}",
            "install the library of the same version (Debian: libnvidia-ml1), or let the "
            "container runtime bring it:\n"
            "  docker run --runtime=nvidia -e NVIDIA_VISIBLE_DEVICES=all "
            "-e NVIDIA_DRIVER_CAPABILITIES=utility …\n"
            "in Kubernetes, in the pod's spec:\n"
            "  runtimeClassName: nvidia",
        )
    if on_bus:
        return _finding(
            Level.NOTE,
            "NVML",
            f"{many(on_bus, 'NVIDIA GPU')} on the bus, and no NVIDIA driver: nothing tells the "
            "energy",
            "install NVIDIA's driver; a GPU that is handed to a virtual machine is measured there",
        )
    return _finding(Level.NOTE, "NVML", "no NVIDIA driver and no NVIDIA GPU here")


def _explain_no_start(trouble: ReadError, on_bus: int, kernel: str) -> Finding:
    if isinstance(trouble, Mismatch):
        library = _library_version()
        versions = f" (library {library or 'unknown'}, kernel module {kernel or 'unknown'})"
        return _finding(
            Level.PROBLEM,
            "NVML",
            f"library and kernel module differ{versions}: the driver was upgraded while it ran",
            "stop what uses the GPUs and load the new module, or reboot:\n"
            "  sudo systemctl stop nvidia-persistenced\n"
            "  sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia && sudo modprobe nvidia",
        )
    if isinstance(trouble, Denied):
        message = f"the driver may not be asked: {trouble}"
        return _finding(Level.PROBLEM, "NVML", message, _DEVICE_FILES)
    if not on_bus and not kernel:
        message = f"a library without a driver, and no NVIDIA GPU here: {trouble}"
        return _finding(Level.NOTE, "NVML", message)
    if kernel:
        message = f"kernel module {kernel} is loaded, and the library does not start: {trouble}"
        return _finding(Level.PROBLEM, "NVML", message, _DEVICE_FILES)
    return _finding(
        Level.PROBLEM,
        "NVML",
        f"the library does not start: {trouble}",
        "load the driver's kernel module:\n  sudo modprobe nvidia",
    )


def _check_gpu(gpu: _Gpu) -> Finding:
    """Say all of one GPU in one line; the worst of it decides."""
    subject, device = f"GPU {gpu.index}", gpu.device
    if device is None:
        remedy = _DEVICE_FILES if isinstance(gpu.trouble, Denied) else None
        return _finding(Level.PROBLEM, subject, str(gpu.trouble), remedy)
    name = f"{device.device.model or 'model not told'}, device {device.name}"
    if device.is_asleep:
        message = f"{name}: asleep (runtime power management), not read until something wakes it"
        return _finding(Level.NOTE, subject, message)
    words: list[tuple[Level, str]] = [_energy_words(gpu, device)]
    words += [(Level.PROBLEM, str(gpu.trouble))] if gpu.trouble is not None else []
    words += _user_words(gpu.state) if gpu.state is not None else []
    words += [
        (Level.PROBLEM if fault.what.endswith(" processes") else Level.NOTE, fault.message)
        for fault in {fault.what: fault for fault in gpu.faults}.values()
    ]
    level = _worst(*(level for level, _ in words))
    denied = any(fault.reason == Denied.reason for fault in gpu.faults)
    refused = denied or isinstance(gpu.energy_trouble, Denied)
    message = f"{name}: {'; '.join(text for _, text in words)}"
    return _finding(level, subject, message, _DEVICE_FILES if refused else None)


def _energy_words(gpu: _Gpu, device: NvmlDevice) -> tuple[Level, str]:
    if gpu.energy_trouble is not None:
        return Level.PROBLEM, f"its energy cannot be read ({gpu.energy_trouble})"
    if device.device.source is Source.NVML_ENERGY:
        return Level.OK, "energy counter"
    return Level.NOTE, "no energy counter of its own, its power is read and summed"


def _user_words(state: GpuState) -> list[tuple[Level, str]]:
    """Say who uses a GPU, and by what its energy is divided."""
    if state.info.mig:
        kinds = Count(instance.name for instance in state.instances)
        listed = ", ".join(f"{count} × {name}" for name, count in sorted(kinds.items()))
        return [(Level.OK, f"MIG on, {many(len(state.instances), 'instance')}: {listed or 'none'}")]
    if state.use is None:
        return [(Level.PROBLEM, "its processes cannot be listed")]
    processes = many(len(state.use.holders), "process", "processes")
    if state.use.busy is None:
        why = "no samples of theirs: where several share it, energy is divided by memory"
        return [(Level.NOTE, f"{processes} on it, {why}")]
    return [(Level.OK, f"{processes} on it, with samples of theirs")]


def _nvidia_on_bus(sysfs: Path) -> int:
    """Return how many of NVIDIA's GPUs the kernel sees, whoever drives them."""
    base = sysfs / "bus/pci/devices"
    try:
        names = list_folder(base)
    except ReadError:
        return 0
    return sum(
        _content(base / name / "vendor") == NVIDIA
        and _content(base / name / "class").startswith(DISPLAY)
        for name in names
    )


def _kernel_driver(procfs: Procfs, sysfs: Path) -> str:
    """Return the version of NVIDIA's kernel module, "" where none is loaded."""
    version = _content(sysfs / "module/nvidia/version")
    if not version:
        match = _KERNEL_VERSION.search(_content(procfs.root / "driver/nvidia/version"))
        version = match[1] if match else ""
    return version


def _library_version() -> str:
    """Return the version of the library that this process has loaded: its file's name ends so."""
    try:
        maps = Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        return ""
    match = _LIBRARY_VERSION.search(maps)
    return match[1] if match else ""


def _content(path: Path) -> str:
    try:
        return read_text(path)
    except ReadError:
        return ""


# --- AMD and Intel ------------------------------------------------------------------------------


def _check_others(sysfs: Path) -> Iterator[tuple[bool, Finding]]:
    """Check the cards of the kernel's own drivers; whether each is a GPU that is measured."""
    try:
        cards, chips = read_cards(sysfs), read_chips(sysfs)
    except ReadError as error:
        yield False, _finding(Level.PROBLEM, "hwmon", str(error))
        return
    gpus: list[AmdGpu | IntelGpu] = [
        *find_amd_gpus(cards, chips, "", {}),
        *find_intel_gpus(cards, chips, {}),
    ]
    found = {gpu.card.address: gpu for gpu in gpus}
    for card in cards:
        if card.address in found:
            yield True, _check_card(card, found[card.address])
        elif card.driver == amdgpu.DRIVER:
            yield False, _why_no_amd(card, chips)
        elif card.driver in intel.DRIVERS:
            yield False, _why_no_intel(card)
        elif card.driver == "nouveau":
            message = "nouveau drives this NVIDIA GPU and tells no energy"
            yield False, _finding(Level.NOTE, card.address, message, "install NVIDIA's driver")


def _check_card(card: Card, gpu: AmdGpu | IntelGpu) -> Finding:
    by = f"{card.driver}, device {gpu.device.name}"
    how = "energy counter" if isinstance(gpu, IntelGpu) else "its power is read and summed"
    if card.is_asleep:
        message = f"{by}: asleep (runtime power management), not read until something wakes it"
        return _finding(Level.NOTE, card.address, message)
    try:
        reading = gpu.read(time.monotonic_ns)
    except ReadError as error:
        return _finding(Level.PROBLEM, card.address, f"{by}: {error}", _hwmon_remedy(error))
    if reading is None:
        message = f"{by}: shows 0 W (the second die of a card is counted with the first)"
        return _finding(Level.NOTE, card.address, message)
    return _finding(Level.OK, card.address, f"{by}: {how}")


def _hwmon_remedy(error: ReadError) -> str | None:
    if not isinstance(error, Denied):
        return None
    return "run as root, or with the capability:\n  AmbientCapabilities=CAP_DAC_READ_SEARCH"


def _why_no_amd(card: Card, chips: Sequence[Chip]) -> Finding:
    chip = next((c for c in chips if c.name == amdgpu.DRIVER and c.device == card.path), None)
    if chip is not None and (chip.has("power1_average") or chip.has("power1_input")):
        message = "an APU, left out: its power is the whole socket's, which RAPL measures"
        return _finding(Level.NOTE, card.address, message)
    message = "amdgpu tells no power of it: its energy is absent"
    return _finding(Level.PROBLEM, card.address, message)


def _why_no_intel(card: Card) -> Finding:
    if _INTEGRATED.fullmatch(card.address):
        message = f"{card.driver}, an integrated GPU, left out: it lies in RAPL's package"
        return _finding(Level.NOTE, card.address, message)
    return _finding(
        Level.PROBLEM,
        card.address,
        f"{card.driver} tells no energy of it: its energy is absent",
        "run a newer kernel (i915 counts energy from Linux 6.2 on)",
    )


# --- whose they are -----------------------------------------------------------------------------


def _check_pids(procfs: Procfs) -> Iterator[Finding]:
    """Check that NVIDIA's pids are those of the processes that are seen."""
    if procfs.is_host_pid_namespace() is None:
        return  # a recorded tree
    if not procfs.is_own():
        message = (
            f"the driver's pids are not those of {procfs.root}: what the GPUs' processes use is "
            "nobody's"
        )
        yield _finding(Level.PROBLEM, "pids", message, _HOST_PIDS)
    elif procfs.is_host_pid_namespace() is False:
        message = (
            "in a container's PID namespace the driver leaves out the machine's other "
            "processes: what they use is nobody's, or charged to those that are seen"
        )
        yield _finding(Level.PROBLEM, "pids", message, _HOST_PIDS)
    else:
        yield _finding(Level.OK, "pids", "the driver's are the host's, and so are ours")


def _check_privileges(machine: Machine, *, by_fdinfo: bool) -> Iterator[Finding]:
    """Check that the open files and the environment of all users' processes can be read."""
    privileges = machine.privileges
    if privileges is None:
        return
    if privileges.has(CAP_SYS_PTRACE):
        yield _finding(Level.OK, "users", "the processes of all users can be looked into")
    elif by_fdinfo:
        message = (
            "without CAP_SYS_PTRACE who uses AMD's and Intel's GPUs is seen in one's own "
            "processes only"
        )
        yield _finding(Level.PROBLEM, "users", message, _MAY_TRACE)
    else:
        message = (
            "without CAP_SYS_PTRACE it is not seen who has been given a GPU and does not use it"
        )
        yield _finding(Level.NOTE, "users", message, _MAY_TRACE)
