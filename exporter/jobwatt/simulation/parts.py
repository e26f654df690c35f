"""The parts of a made-up node that spend energy, step by step."""

from __future__ import annotations

from collections import Counter as Count
from dataclasses import dataclass, field
from random import Random

from jobwatt.attribution.apportion import apportion
from jobwatt.model import Component
from jobwatt.simulation.blueprint import PowerModel
from jobwatt.units import NS, UJ

__all__ = ["STEP_NS", "Part", "Truth"]

STEP_NS = NS // 4
"""How long everything goes on evenly."""

POWER_NOISE = 0.01
"""Standard deviation of a part's power in one step, beside what its load explains."""


@dataclass(slots=True)
class Truth:
    """Where a part's energy really went, over the steps that have passed, in microjoules."""

    idle_uj: int = 0
    active_uj: dict[str, int] = field(default_factory=dict)

    @property
    def energy_uj(self) -> int:
        """All of it."""
        return self.idle_uj + sum(self.active_uj.values())


@dataclass(slots=True, eq=False)
class Part:
    """A part of the node that spends energy: a package, the memory beside it, or a GPU.

    Attributes:
        package: the package that it is or hangs on; None for a GPU.
        energy_uj: since power-on, up to the present step; it never wraps.
        step_uj: in the present step.
        capped: whether its limit holds it down in the present step.
        truth: by cause, since the start of the simulation.
    """

    name: str
    component: Component
    package: int | None
    power: PowerModel
    energy_uj: int
    step_uj: int = 0
    step_idle_uj: int = 0
    step_active_uj: dict[str, int] = field(default_factory=dict)
    capped: bool = False
    truth: Truth = field(default_factory=Truth)

    def plan_step(self, claims: Count[str], capacity_ns: int, random: Random) -> None:
        """Plan the energy of one step: idle power, and what its load adds.

        Args:
            claims: busy time by job, in terms of power.
            capacity_ns: the busy time at which it draws full power.
            random: for the noise.
        """
        model = self.power
        load = sum(claims.values()) / capacity_ns
        idle = model.idle_watts * (1 + random.gauss(0, POWER_NOISE))
        active = (model.full_watts - model.idle_watts) * load * (1 + random.gauss(0, POWER_NOISE))
        most = (model.limit_watts or model.full_watts) - idle
        self.capped = active > most
        self.step_idle_uj = round(idle * UJ * STEP_NS / NS)
        active_uj = round(max(0.0, min(active, most)) * UJ * STEP_NS / NS)
        self.step_active_uj = {}
        if any(claims.values()):
            shares = apportion(active_uj, list(claims.values()))
            self.step_active_uj = dict(zip(claims, shares, strict=True))
        self.step_uj = self.step_idle_uj + sum(self.step_active_uj.values())

    def finish_step(self) -> None:
        """Book what the step had planned."""
        self.energy_uj += self.step_uj
        self.truth.idle_uj += self.step_idle_uj
        active_uj = self.truth.active_uj
        for job, uj in self.step_active_uj.items():
            active_uj[job] = active_uj.get(job, 0) + uj
