"""What the driver of a made-up node tells of its GPUs, beside their energy, look by look.

Like a real one it names the processes that hold a context when it is asked, and what each process
worked of late, also one that came and went between two looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobwatt.gpus import GpuMethod, GpuState, GpuUse
from jobwatt.simulation.gpus import SimulatedGpu
from jobwatt.simulation.node import SimulatedNode
from jobwatt.simulation.tasks import Context

__all__ = ["SimulatedGpuDriver"]

OTHER_REASONS = (
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
)
"""Why a GPU's clocks are held down, beside its power limit: this machine is cooled well."""


@dataclass(frozen=True, slots=True)
class _Resident:
    """A process's context as it was at a look."""

    context: Context
    busy_ns: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen of a GPU: by pid, and for how long it was busy in all."""

    at_ns: int
    residents: Mapping[int, _Resident]
    busy_ns: int


class SimulatedGpuDriver:
    """Looks at the GPUs of a node; one a meter, since it tells what is new."""

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self._last: dict[SimulatedGpu, _Look] = {}

    def look(self, gpu: SimulatedGpu) -> GpuState:
        """Return what a GPU shows now, and who used it since the look before."""
        before, now = self._last.get(gpu), self._see(gpu)
        self._last[gpu] = now
        span_ns = 0 if before is None else now.at_ns - before.at_ns
        utilization = gpu.utilization_ratio
        if before is not None and span_ns:
            utilization = (now.busy_ns - before.busy_ns) / span_ns
        return GpuState(
            info=gpu.info,
            span_ns=span_ns,
            use=None if before is None else self._use(gpu, before, now),
            utilization_ratio=round(utilization, 2),
            memory_used_bytes=sum(seen.memory_bytes for seen in now.residents.values()),
            memory_total_bytes=gpu.spec.memory_bytes,
            temperature_celsius=round(gpu.temperature_celsius),
            throttled={"sw_power_cap": gpu.part.capped, **dict.fromkeys(OTHER_REASONS, False)},
        )

    def _see(self, gpu: SimulatedGpu) -> _Look:
        residents = {
            task.process.pid: _Resident(
                context, self._node.kernel_ns(context), context.kernels.memory_bytes
            )
            for task in self._node.residents(gpu.number)
            if (context := task.context) is not None
        }
        busy_ns = gpu.gone_ns + sum(seen.busy_ns for seen in residents.values())
        return _Look(self._node.now_ns, residents, busy_ns)

    def _use(self, gpu: SimulatedGpu, before: _Look, now: _Look) -> GpuUse:
        residents = {**before.residents, **now.residents}
        busy: dict[int, int] = {}
        for pid, seen in residents.items():
            earlier = before.residents.get(pid)
            busy_ns = self._node.kernel_ns(seen.context) - (earlier.busy_ns if earlier else 0)
            if busy_ns:
                busy[pid] = busy_ns
        strays = {
            task.process.pid: context.busy_ns
            for ended_ns, task in gpu.gone
            if ended_ns > before.at_ns
            and task.process.pid not in residents
            and (context := task.context) is not None
            and context.busy_ns
        }
        told_ns = sum(busy.values()) + sum(strays.values())
        return GpuUse(
            residents={pid: seen.memory_bytes for pid, seen in residents.items()},
            holders=frozenset(now.residents),
            busy=busy,
            strays=strays,
            measure=GpuMethod.SM_UTILIZATION,
            unknown=now.busy_ns - before.busy_ns - told_ns,
        )
