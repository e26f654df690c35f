"""The counters of a made-up node, wraps included, and what else its GPUs show."""

from __future__ import annotations

from collections.abc import Sequence

from jobwatt.model import Component, Counter, Device, Reading, Report, Source
from jobwatt.simulation.gpu_driver import SimulatedGpuDriver
from jobwatt.simulation.node import SimulatedNode
from jobwatt.simulation.parts import Part
from jobwatt.units import UJ

__all__ = ["SimulatedMeter"]

TURBO = 1.2
"""Parts may exceed their sustained limit by this for some seconds, as RAPL's short window."""


class SimulatedMeter:
    """Shows each part of the node as one counter; it never fails."""

    source = Source.SIMULATED

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self._driver = SimulatedGpuDriver(node)
        devices = {part: self._device(part) for part in node.parts}
        self._counters = [(part, self._counter(part, device)) for part, device in devices.items()]
        self._limits = {
            device: round(part.power.limit_watts * UJ)
            for part, device in devices.items()
            if part.power.limit_watts is not None
        }
        self._gpus = [(gpu, devices[gpu.part]) for gpu in node.gpus]

    def read(self, now_ns: int) -> Sequence[Report]:
        """Read all counters now."""
        self._node.advance(now_ns)
        readings = tuple(Reading(counter, self._shown_uj(part)) for part, counter in self._counters)
        gpus = {device: self._driver.look(gpu) for gpu, device in self._gpus}
        return (Report(self.source, now_ns, readings, limits_uw=self._limits, gpus=gpus),)

    def _shown_uj(self, part: Part) -> int:
        energy_uj = self._node.energy_uj(part)
        return energy_uj if part.power.range_uj is None else energy_uj % part.power.range_uj

    def _device(self, part: Part) -> Device:
        hardware = self._node.scenario.hardware
        models = {gpu.part: gpu.spec.model for gpu in self._node.gpus}
        of_cpu = hardware.cpu_model if part.component is Component.CPU else hardware.dram_model
        model = models.get(part, of_cpu)
        return Device(part.component, part.name, self.source, part.package, model)

    def _counter(self, part: Part, device: Device) -> Counter:
        packages = self._node.scenario.hardware.packages
        power = part.power if part.package is None else packages[part.package].power
        limit = power.limit_watts
        return Counter(
            key=f"simulated:{part.name}",
            device=device,
            range_uj=part.power.range_uj,
            limit_uw=None if limit is None else round(limit * UJ),
            peak_uw=None if limit is None else round(limit * TURBO * UJ),
        )
