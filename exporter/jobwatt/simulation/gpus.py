"""The GPUs of a made-up node: processes that hold one take turns on it."""

from __future__ import annotations

from collections import Counter as Count
from collections import deque
from collections.abc import Sequence
from random import Random
from uuid import UUID

from jobwatt.gpus import GpuInfo
from jobwatt.model import Component
from jobwatt.simulation.blueprint import Gpu
from jobwatt.simulation.parts import STEP_NS, Part
from jobwatt.simulation.tasks import Context, Task, stray
from jobwatt.units import NS, UJ

__all__ = ["SimulatedGpu"]

SPENT_MOST_UJ = 10**14
"""What the energy counter may show at most when the simulation starts: some days under load."""

REMEMBERED = 100
"""So many ended processes are told about; real drivers keep about as many samples."""

COOLANT_CELSIUS = 38.8
WARMTH_CELSIUS_PER_WATT = 0.032
"""As an H100 with 41 °C at 70 W and 59 °C at 632 W."""

WARMING_NS = 20 * NS
"""The temperature follows the power after about so long."""


class SimulatedGpu:
    """A GPU in its present step.

    Attributes:
        number: its place in the hardware.
        info: what its driver tells of it.
        part: its energy.
        spec: what it is.
        gone_ns: time for which it was busy for processes that have ended.
        gone: the last of them, each with the node's age at its end.
        temperature_celsius: at the start of the step.
    """

    def __init__(self, number: int, spec: Gpu, driver: str, random: Random) -> None:
        uuid = f"GPU-{UUID(int=random.getrandbits(128), version=4)}"
        self.number = number
        self.info = GpuInfo(uuid, number, number, spec.pci_bus_id, driver, spec.architecture)
        self.spec = spec
        spent_uj = random.randrange(SPENT_MOST_UJ)
        self.part = Part(uuid, Component.GPU, None, spec.power, spent_uj)
        self.gone_ns = 0
        self.gone: deque[tuple[int, Task]] = deque(maxlen=REMEMBERED)
        self.temperature_celsius = _settled_celsius(spec.power.idle_watts)
        self._step_busy_ns = 0

    @property
    def utilization_ratio(self) -> float:
        """How busy it is in the present step."""
        return self._step_busy_ns / STEP_NS

    def plan_step(self, residents: Sequence[Task], seconds: float, random: Random) -> None:
        """Give the GPU's time out for one step: whoever wants more than there is waits in turn."""
        wanted: list[tuple[str, Context, float]] = []
        for task in residents:
            if (context := task.context) is not None:
                context.wobble = stray(context.wobble, random)
                level = context.kernels.load.level(seconds) * (1 + context.wobble)
                wanted.append((task.workload.job_uid, context, min(1.0, max(0.0, level))))
        scale = min(1.0, 1 / max(1.0, sum(level for _, _, level in wanted)))
        heat: Count[str] = Count()
        for job, context, level in wanted:
            context.step_ns = int(level * scale * STEP_NS)
            heat[job] += int(context.step_ns * context.kernels.intensity)
        self._step_busy_ns = sum(context.step_ns for _, context, _ in wanted)
        self.part.plan_step(heat, STEP_NS, random)

    def leave(self, task: Task, context: Context, age_ns: int) -> None:
        """Let a process go that has ended."""
        self.gone_ns += context.busy_ns
        self.gone.append((age_ns, task))

    def finish_step(self) -> None:
        """Warm up or cool down by what the step had planned; its energy is its part's."""
        goal = _settled_celsius(self.part.step_uj / UJ * NS / STEP_NS)
        self.temperature_celsius += (goal - self.temperature_celsius) * STEP_NS / WARMING_NS


def _settled_celsius(watts: float) -> float:
    """Return the temperature that a lasting power leads to."""
    return COOLANT_CELSIUS + WARMTH_CELSIUS_PER_WATT * watts
