"""A small /sys and /proc with graphics cards and monitoring chips, linked as the kernel links."""

from __future__ import annotations

import os
from pathlib import Path


class Devices:
    """Writes below `root/sys` and `root/proc`."""

    def __init__(self, root: Path) -> None:
        self.sysfs = root / "sys"
        self.procfs = root / "proc"
        self.sysfs.mkdir()
        self.procfs.mkdir()

    def card(self, number: int, address: str, driver: str, **attributes: str) -> Path:
        """Add a card with the nodes `card<number>` and `renderD<128 + number>`."""
        device = self.sysfs / "devices/pci0000:00" / address
        write(device, attributes)
        modules = self.sysfs / "bus/pci/drivers" / driver
        modules.mkdir(parents=True, exist_ok=True)
        link(device / "driver", modules)
        for node in (f"card{number}", f"renderD{128 + number}"):
            folder = device / "drm" / node
            folder.mkdir(parents=True)
            link(folder / "device", device)
            link(self.sysfs / "class/drm" / node, folder)
        return device

    def chip(self, number: int, name: str, device: Path | None = None, **attributes: str) -> Path:
        """Add a chip of a device."""
        above = device or self.sysfs / "devices/virtual"
        folder = above / f"hwmon/hwmon{number}"
        write(folder, {"name": name, **attributes})
        if device is not None:
            link(folder / "device", device)
        link(self.sysfs / f"class/hwmon/hwmon{number}", folder)
        return folder

    def power_meter(self, number: int, label: str, microwatts: int, **attributes: str) -> Path:
        """Add a power meter of the firmware's, whose attributes are its device's."""
        device = self.sysfs / f"devices/LNXSYSTM:00/ACPI000D:{number:02}"
        values = {"name": "power_meter", "power1_oem_info": label}
        write(device, {**values, "power1_average": str(microwatts), **attributes})
        folder = device / f"hwmon/hwmon{number}"
        folder.mkdir(parents=True)
        link(folder / "device", device)
        link(self.sysfs / f"class/hwmon/hwmon{number}", folder)
        return device

    def process(self, pid: int, files: dict[int, tuple[str, str]] | None = None) -> None:
        """Add or change a process: `{descriptor: (what it is, its fdinfo)}`."""
        base = self.procfs / str(pid)
        for name in ("fd", "fdinfo"):
            (base / name).mkdir(parents=True, exist_ok=True)
            for old in (base / name).iterdir():
                old.unlink()
        for fd, (target, text) in (files or {}).items():
            (base / "fd" / str(fd)).symlink_to(target)
            (base / "fdinfo" / str(fd)).write_text(f"pos:\t0\nflags:\t02100002\n{text}")

    def end(self, pid: int) -> None:
        """Let a process be gone."""
        self.process(pid)
        base = self.procfs / str(pid)
        for path in (base / "fd", base / "fdinfo", base):
            path.rmdir()

    def kfd(self, gpus: dict[str, int], memory: dict[int, dict[str, int]]) -> None:
        """Add AMD's compute driver: `{gpu id: location}` and `{pid: {gpu id: bytes}}`."""
        base = self.sysfs / "class/kfd/kfd"
        write(base / "topology/nodes/0", {"gpu_id": "0", "properties": "cpu_cores_count 8"})
        for node, (gpu_id, location) in enumerate(gpus.items(), start=1):
            text = f"simd_count 304\nlocation_id {location}\ndomain 0\ngfx_target_version 90402"
            write(base / f"topology/nodes/{node}", {"gpu_id": gpu_id, "properties": text})
        (base / "proc").mkdir(exist_ok=True)
        for pid, held in memory.items():
            sizes = {f"vram_{gpu_id}": str(size) for gpu_id, size in held.items()}
            write(base / f"proc/{pid}", {"pasid": "0", **sizes})


def client(address: str, number: int, driver: str = "amdgpu", **values: int | str) -> str:
    """Return the fdinfo of a client; `engine_gfx=5` is the key `drm-engine-gfx`."""
    lines = [f"drm-driver:\t{driver}", f"drm-client-id:\t{number}", f"drm-pdev:\t{address}"]
    for key, value in values.items():
        unit = " ns" if key.startswith("engine_") and "capacity" not in key else ""
        lines.append(f"drm-{key.replace('_', '-')}:\t{value}{unit}")
    return "\n".join(lines) + "\n"


def write(folder: Path, values: dict[str, str]) -> None:
    """Write small files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


def link(path: Path, target: Path) -> None:
    """Link as sysfs does: relatively."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))
