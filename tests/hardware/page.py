"""What a page of the exporter's says about one GPU."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

UJ = 1_000_000

SAMPLED = "jobwatt_last_sample_timestamp_seconds"

_PARTS = {
    "jobwatt_process_energy_joules_total": "processes",
    "jobwatt_process_other_energy_joules_total": "other",
    "jobwatt_retired_energy_joules_total": "retired",
    "jobwatt_device_idle_energy_joules_total": "idle",
    "jobwatt_device_unattributed_energy_joules_total": "unattributed",
}
"""What a device's energy is the sum of."""


@dataclass
class Page:
    """One scrape; energies in µJ.

    Attributes:
        sampled: Unix time of the sample that it shows.
        energy_uj: the GPU's; None where the page does not show it.
        source: where that is from.
        parts: what it is divided into, all processes together.
        processes: by pid.
        methods: what processes have got, by how it was divided.
        idle: watts and method, None while it is not known.
        up: by source.
        errors: readings that failed, by source and reason.
        open_sums: by device, energy less its parts, where that is not 0.
    """

    sampled: float = 0.0
    energy_uj: int | None = None
    source: str = ""
    parts: dict[str, int] = field(default_factory=dict)
    processes: dict[int, int] = field(default_factory=dict)
    methods: dict[str, int] = field(default_factory=dict)
    idle: tuple[float, str] | None = None
    up: dict[str, bool] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    open_sums: dict[str, int] = field(default_factory=dict)

    @property
    def active_uj(self) -> int:
        """What the GPU used above idle."""
        return (self.energy_uj or 0) - self.parts.get("idle", 0)


def parse_page(text: str, device: str) -> Page:
    """Read a page in Prometheus' text format; `device` is the GPU's name."""
    page = Page()
    for family in text_string_to_metric_families(text):
        for name, labels, value in ((s.name, s.labels, s.value) for s in family.samples):
            if name == SAMPLED:
                page.sampled = value
            elif name == "jobwatt_source_up":
                page.up[labels["source"]] = value == 1
            elif name == "jobwatt_source_errors_total" and value:
                page.errors[f"{labels['source']}: {labels['reason']}"] = int(value)
            elif "device" in labels:
                _add(page, name, labels, value, device)
    page.open_sums = {name: uj for name, uj in page.open_sums.items() if uj}
    return page


def _add(page: Page, name: str, labels: dict[str, str], value: float, device: str) -> None:
    uj, of = round(value * UJ), labels["device"]
    part = _PARTS.get(name)
    if name == "jobwatt_device_energy_joules_total":
        page.open_sums[of] = page.open_sums.get(of, 0) + uj
    elif part and labels.get("level") != "job":
        page.open_sums[of] = page.open_sums.get(of, 0) - uj
    if of != device:
        return
    if name == "jobwatt_device_energy_joules_total":
        page.energy_uj, page.source = uj, labels["source"]
    elif name == "jobwatt_device_idle_power_watts":
        page.idle = value, labels["method"]
    elif name == "jobwatt_gpu_attributed_energy_joules_total":
        page.methods[labels["method"]] = uj
    elif part and labels.get("level") != "job":
        page.parts[part] = page.parts.get(part, 0) + uj
        if part == "processes":
            pid = int(labels["pid"])
            page.processes[pid] = page.processes.get(pid, 0) + uj


def without_device(pages: Iterable[Page]) -> int:
    """How many pages do not show the GPU."""
    return sum(page.energy_uj is None for page in pages)
