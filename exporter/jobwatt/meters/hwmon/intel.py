"""Intel's GPUs: the drivers i915 and xe count energy.

Linux Documentation/ABI/testing/sysfs-driver-intel-i915-hwmon and …-xe-hwmon,
drivers/gpu/drm/i915/i915_hwmon.c, drivers/gpu/drm/xe/xe_hwmon.c. Only cards have such a chip: an
integrated GPU is in RAPL's package.

The register below has 32 bits, which is 262 kJ: 4.4 minutes at 1 kW. The driver adds up what it
sees to 64 bits, and it looks when it is asked: whoever reads the counter at least once a minute
sees every joule, whoever reads it rarely misses whole rounds. i915 shows the tiles of a card as
chips of their own (`i915_gt0`): they lie inside the card's. xe counts the card and, inside it, the
package; some cards have one of them only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jobwatt.errors import ReadError
from jobwatt.gpus import GpuInfo, GpuState, GpuUse
from jobwatt.host.drm import Card
from jobwatt.host.hwmon import Chip
from jobwatt.meters.hwmon.part import Clock, celsius, limit
from jobwatt.model import Component, Counter, Device, Reading, Source

__all__ = ["DRIVERS", "IntelGpu", "find_intel_gpus"]

DRIVERS = ("i915", "xe")

LEVELS = ("card", "pkg")
"""What a counter may contain, most first."""


class IntelGpu:
    """A GPU on a card of its own."""

    def __init__(self, card: Card, chip: Chip, energy: str, driver_version: str) -> None:
        self.card = card
        self._chip = chip
        self._energy = energy
        number = energy.removeprefix("energy").removesuffix("_input")
        self.key = f"{card.driver}:{card.address}:{number}"
        self.device = Device(Component.GPU, card.address, Source.HWMON, model=card.ids)
        limits = (f"power{number}_max", "power1_max", f"power{number}_crit", "power1_crit")
        self.limit_uw = None if card.is_asleep else limit(chip, *limits)
        self._temperature = chip.labelled("temp", ("pkg",)) or "temp1_input"
        self._info = GpuInfo(pci_bus_id=card.address, driver=driver_version)

    def read(self, clock: Clock) -> Reading | None:
        """Read its counter; None while it sleeps, since reading would wake it.

        Raises:
            Absent, Denied, Failed: it cannot be read.
        """
        if self.card.is_asleep:
            return None
        try:
            value_uj = self._chip.read(self._energy)
        except ReadError:
            if self.card.is_asleep:
                return None
            raise
        counter = Counter(self.key, self.device, limit_uw=self.limit_uw, lasting=True)
        return Reading(counter, value_uj, clock())

    def state(self, span_ns: int, use: GpuUse | None) -> GpuState:
        """Return what else it shows, with who used it in the last `span_ns`."""
        warmth = None if self.card.is_asleep else celsius(self._chip, self._temperature)
        return GpuState(self._info, span_ns, use, temperature_celsius=warmth)


def find_intel_gpus(
    cards: Sequence[Card], chips: Sequence[Chip], versions: Mapping[str, str]
) -> list[IntelGpu]:
    """Return the GPUs whose energy can be read; `versions` of the drivers by name."""
    by_device: dict[tuple[str, Path | None], Chip] = {(c.name, c.device): c for c in chips}
    gpus: list[IntelGpu] = []
    for card in cards:
        chip = by_device.get((card.driver, card.path)) if card.driver in DRIVERS else None
        if chip is None:
            continue
        energy = chip.labelled("energy", LEVELS)
        if energy is None and chip.has("energy1_input"):
            energy = "energy1_input"
        if energy is not None:
            gpus.append(IntelGpu(card, chip, energy, versions.get(card.driver, "")))
    return gpus
