"""The counters of a made-up node, wraps included."""

from __future__ import annotations

from collections.abc import Sequence

from jobwatt.model import Component, Counter, Device, Reading, Report, Source
from jobwatt.simulation.node import Part, SimulatedNode
from jobwatt.units import UJ

__all__ = ["SimulatedMeter"]

TURBO = 1.2
"""Packages may exceed their sustained limit by this for some seconds, as RAPL's short window."""


class SimulatedMeter:
    """Shows each part of the node as one counter; it never fails."""

    source = Source.SIMULATED

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self._counters = [(part, self._counter(part)) for part in node.parts]
        self._limits = {
            counter.device: round(part.power.limit_watts * UJ)
            for part, counter in self._counters
            if part.power.limit_watts is not None and counter.device is not None
        }

    def read(self, now_ns: int) -> Sequence[Report]:
        """Read all counters now."""
        self._node.advance(now_ns)
        readings = (
            Reading(counter, self._node.energy_uj(part) % part.power.range_uj)
            for part, counter in self._counters
        )
        return (Report(self.source, now_ns, tuple(readings), limits_uw=self._limits),)

    def _counter(self, part: Part) -> Counter:
        hardware = self._node.scenario.hardware
        model = hardware.cpu_model if part.component is Component.CPU else hardware.dram_model
        limit = hardware.packages[part.package].power.limit_watts
        return Counter(
            key=f"simulated:{part.name}",
            device=Device(part.component, part.name, self.source, part.package, model),
            range_uj=part.power.range_uj,
            limit_uw=None if limit is None else round(limit * UJ),
            peak_uw=None if limit is None else round(limit * TURBO * UJ),
        )
