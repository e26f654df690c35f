"""A made-up site as data: nodes, the jobs that stay on them, and when their exporters are away.

Times are seconds after the start of the simulation, below 0 before it. Nothing here runs: what a
node shows at a moment (`fleet_page.py`) and what was really used (`fleet_truth.py`) are functions
of the plan and the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobwatt.records import NO_ACCOUNT
from jobwatt.simulation.blueprint import Hardware, PowerModel

__all__ = ["ALWAYS", "Fleet", "FleetJob", "FleetNode", "Outage", "Stay", "Zone", "power_models"]

ALWAYS = math.inf
"""The end of what stays as long as its node."""


@dataclass(frozen=True, slots=True)
class FleetJob:
    """What a job is called, and what it may use.

    Attributes:
        budget_joules: of the whole job; None without one.
    """

    job_uid: str
    name: str = ""
    user: str = "root"
    account: str = NO_ACCOUNT
    queue: str = ""
    budget_joules: float | None = None


@dataclass(frozen=True, slots=True)
class Stay:
    """A job on one node, from its first process to its last.

    Attributes:
        watts: active power on each device of the node, in the order of `power_models`; a GPU that
            it never uses has 0.
        pause: from when to when it only waits, and uses nothing.
        cpus: how many it holds; None where nothing is reserved.
        gpus: which GPUs it holds, by number.
        processes: the names of those that have series.
    """

    job: FleetJob
    start: float
    end: float
    watts: tuple[float, ...]
    pause: tuple[float, float] | None = None
    cpus: int | None = None
    gpus: tuple[int, ...] = ()
    processes: tuple[str, ...] = ("python",)

    def busy_seconds(self, since: float, until: float) -> float:
        """Return how long it worked between two moments."""
        since, until = max(since, self.start), min(until, self.end)
        seconds = max(0.0, until - since)
        if self.pause is not None:
            seconds -= max(0.0, min(until, self.pause[1]) - max(since, self.pause[0]))
        return seconds


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which a node's exporter does not run; `forgets`: its state is lost, too.

    The moments of its start and of its end are still, and again, seen.
    """

    start: float
    end: float
    forgets: bool = False


@dataclass(frozen=True, slots=True)
class FleetNode:
    """A node.

    Attributes:
        age_seconds: for how long its exporter had counted when the simulation began.
        stays: in any order.
        outages: in order; they do not overlap.
        unreachable: from when to when its exporter runs on, and nobody can reach it.
    """

    name: str
    hardware: Hardware
    stays: tuple[Stay, ...]
    grid_zone: str = ""
    age_seconds: float = 0.0
    outages: tuple[Outage, ...] = ()
    unreachable: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Zone:
    """An electricity grid and what is paid there; `price` is for a kilowatt-hour."""

    grams_per_kwh: float
    pue: float
    price: float
    currency: str


@dataclass(frozen=True, slots=True)
class Fleet:
    """A site.

    Attributes:
        nodes: by name.
        zones: by the nodes' `grid_zone`.
        interval_seconds: between two samples of an exporter.
        job_linger_seconds, process_linger_seconds: for how long ended ones stay on a page.
    """

    nodes: Mapping[str, FleetNode]
    zones: Mapping[str, Zone] = field(default_factory=dict)
    interval_seconds: float = 1.0
    job_linger_seconds: float = 600.0
    process_linger_seconds: float = 120.0


def power_models(hardware: Hardware) -> tuple[PowerModel, ...]:
    """Return what spends energy on a node: each package and the memory beside it, then the GPUs."""
    models: list[PowerModel] = []
    for package in hardware.packages:
        models.append(package.power)
        if package.dram is not None:
            models.append(package.dram)
    return (*models, *(gpu.power for gpu in hardware.gpus))
