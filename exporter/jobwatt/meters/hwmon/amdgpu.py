"""AMD's GPUs: the driver tells power, and energy is made of it.

Linux drivers/gpu/drm/amd/pm/amdgpu_pm.c. APUs are left out: their power is the whole socket's,
which RAPL measures. The driver shows the voltage of the north bridge (`in1`, "vddnb") for APUs
only (amdgpu_hwmon_show_vddnb, hwmon_attributes_visible), and for all of them but the MI300A, which
is known by its PCI device (amdgpu_drv.c: AMD_IS_APU).

Of the two dies of an MI250 the first tells the power of both and the second 0 W
(aldebaran_ppt.c): that is no reading.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jobwatt.errors import Denied, Failed, ReadError
from jobwatt.gpus import GpuInfo, GpuState, GpuUse
from jobwatt.host.drm import Card
from jobwatt.host.files import read_integer
from jobwatt.host.hwmon import Chip
from jobwatt.meters.hwmon.part import Clock, Integrated, Sums, celsius, limit, optional
from jobwatt.model import Component, Device, Reading, Source

__all__ = ["DRIVER", "AmdGpu", "find_amd_gpus"]

DRIVER = "amdgpu"

APU_IDS = {"1002:74a0"}
"""APUs that do not show `in1`: MI300A."""

TEMPERATURES = ("edge", "junction")

_UNIQUE_ID = re.compile(r"[0-9a-f]{1,16}", re.ASCII)


class AmdGpu(Integrated):
    """A GPU on a card of its own."""

    def __init__(self, card: Card, chip: Chip, name: str, driver_version: str, sums: Sums) -> None:
        model = card.read("product_name") or card.ids
        device = Device(Component.GPU, name, Source.HWMON, model=model)
        limit_uw = None if card.is_asleep else limit(chip, "power1_cap")
        super().__init__(f"{DRIVER}:{card.address}", device, limit_uw, sums)
        self.card = card
        self._chip = chip
        self._power = "power1_average" if chip.has("power1_average") else "power1_input"
        self._temperature = chip.labelled("temp", TEMPERATURES) or "temp1_input"
        uuid = name if name != card.address else ""
        self._info = GpuInfo(uuid=uuid, pci_bus_id=card.address, driver=driver_version)

    def read(self, clock: Clock) -> Reading | None:
        """Read its power; None while it sleeps, since reading would wake it.

        Raises:
            Absent, Denied, Failed: it cannot be read.
        """
        if self.card.is_asleep:
            return None
        try:
            power_uw = self._chip.read(self._power)
        except Denied as error:
            if self.card.is_asleep:
                return None
            # The driver answers EPERM while a GPU is being reset: no permission is missing.
            raise Failed(str(error)) from error
        except ReadError:
            if self.card.is_asleep:
                return None
            raise
        return self.add(power_uw, clock()) if power_uw else None

    def state(self, span_ns: int, use: GpuUse | None) -> GpuState:
        """Return what else it shows, with who used it in the last `span_ns`."""
        if self.card.is_asleep:
            return GpuState(self._info, span_ns, use)
        busy = optional(lambda: read_integer(self.card.path / "gpu_busy_percent"))
        return GpuState(
            info=self._info,
            span_ns=span_ns,
            use=use,
            utilization_ratio=None if busy is None else min(busy, 100) / 100,
            memory_used_bytes=self._memory("used"),
            memory_total_bytes=self._memory("total"),
            temperature_celsius=celsius(self._chip, self._temperature),
        )

    def _memory(self, what: str) -> int | None:
        return optional(lambda: read_integer(self.card.path / f"mem_info_vram_{what}"))


def find_amd_gpus(
    cards: Sequence[Card], chips: Sequence[Chip], driver_version: str, sums: Sums
) -> list[AmdGpu]:
    """Return the GPUs whose power can be read.

    One is named by its UUID as ROCm writes it, `GPU-` and the 16 digits of `unique_id`; where it
    has none of its own, by its PCI address.
    """
    by_device: dict[Path | None, Chip] = {c.device: c for c in chips if c.name == DRIVER}
    gpus: list[AmdGpu] = []
    names: set[str] = set()
    for card in cards:
        chip = by_device.get(card.path) if card.driver == DRIVER else None
        if chip is None or _is_apu(card, chip):
            continue
        if not (chip.has("power1_average") or chip.has("power1_input")):
            continue
        unique_id = card.read("unique_id").lower()
        is_usable = bool(_UNIQUE_ID.fullmatch(unique_id)) and unique_id.strip("0") != ""
        name = f"GPU-{unique_id}" if is_usable else card.address
        name = card.address if name in names else name
        names.add(name)
        gpus.append(AmdGpu(card, chip, name, driver_version, sums))
    return gpus


def _is_apu(card: Card, chip: Chip) -> bool:
    return chip.has("in1_input") or chip.has("in1_label") or card.ids in APU_IDS
