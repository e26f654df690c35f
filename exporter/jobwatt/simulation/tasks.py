"""The processes of a made-up node."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from jobwatt.model import Process
from jobwatt.simulation.blueprint import Kernels, Workload

__all__ = ["Context", "Task", "stray"]

WOBBLE_KEPT, WOBBLE_STEP = 0.9, 0.03
"""A process's load strays from its profile by some percent, and comes back within seconds."""


@dataclass(slots=True, eq=False)
class Context:
    """A process's place on a GPU.

    Attributes:
        gpu: the number of the GPU.
        kernels: what it computes there.
        busy_ns: time for which its kernels ran, up to the present step.
        step_ns: time for which they run in the present step.
        wobble: how far they stray from their load's level just now, as a ratio.
    """

    gpu: int
    kernels: Kernels
    busy_ns: int = 0
    step_ns: int = 0
    wobble: float = 0.0


@dataclass(slots=True, eq=False)
class Task:
    """A process of the node.

    Attributes:
        process: as the rest of JobWatt knows it.
        workload: what it does.
        born_ns, ends_ns: its life, after the start of the node; None: as long as the node.
        context: None for a process that holds no GPU.
        cpu_ns: on-CPU time up to the present step.
        step_ns: on-CPU time in the present step.
        wobble: how far it strays from its load's level just now, as a ratio.
    """

    process: Process
    workload: Workload
    born_ns: int
    ends_ns: int | None
    context: Context | None = None
    cpu_ns: int = 0
    step_ns: int = 0
    wobble: float = 0.0

    def finish_step(self) -> None:
        """Book what the step had planned."""
        self.cpu_ns += self.step_ns
        self.step_ns = 0
        if self.context is not None:
            self.context.busy_ns += self.context.step_ns
            self.context.step_ns = 0


def stray(wobble: float, random: Random) -> float:
    """Return how far a load strays in the next step."""
    return WOBBLE_KEPT * wobble + random.gauss(0, WOBBLE_STEP)
