"""Whose a GPU's active energy is: claims out of what the driver tells of its processes.

SM utilisation is the share of time in which a process had a kernel running: time busy, not work
done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jobwatt.attribution.apportion import apportion
from jobwatt.attribution.policy import Weights
from jobwatt.gpus import GpuInstance, GpuMethod, GpuState, GpuUse
from jobwatt.model import Process

__all__ = ["gpu_weights", "is_unheld"]

Find = Callable[[int], Process | None]

MPS_SERVER = "nvidia-cuda-mps"
"""Name, as the kernel cuts it, of the server through which MPS clients share a GPU."""

PERMILLE = 1000
"""Resolution of an instance's activity."""


def gpu_weights(state: GpuState, find: Find) -> Weights:
    """Return the claims on a GPU since the look before, in nanoseconds of a busy GPU.

    Claims of pids that `find` does not know are nobody's: their energy stays unattributed.
    """
    weights = Weights({})
    if state.use is None:
        return weights
    if state.foreign:
        find = _nobody
    if not state.info.mig:
        _claim(weights, state.use, state.span_ns, find)
        return weights
    active = [(instance, _activity(instance)) for instance in state.instances]
    if not any(activity for _, activity in active):
        # Contexts draw power, too, while no kernel runs.
        active = [(instance, PERMILLE) for instance in state.instances if instance.use.residents]
    for instance, activity in active:
        share = state.span_ns * instance.size * activity // PERMILLE
        if share:
            _claim(weights, instance.use, share, find)
            weights.parts[instance.uuid] = weights.parts.get(instance.uuid, 0) + share
    return weights


def _nobody(pid: int) -> None:
    del pid


def is_unheld(state: GpuState) -> bool:
    """Whether nobody held a context since the look before: its power was then its idle power.

    Processes of another PID namespace may not be seen at all: what is busy is held by somebody.
    """
    if state.use is None or not state.span_ns or state.foreign or state.utilization_ratio:
        return False
    if any(instance.activity for instance in state.instances):
        return False
    uses = (state.use, *(instance.use for instance in state.instances))
    return not any(use.residents or use.busy or use.strays for use in uses)


def _activity(instance: GpuInstance) -> int:
    """Return how busy an instance was in permille; where that is not told, whoever is there is."""
    if instance.activity is not None:
        return round(PERMILLE * min(1.0, max(0.0, instance.activity)))
    return PERMILLE if instance.use.residents else 0


def _claim(weights: Weights, use: GpuUse, share: int, find: Find) -> None:
    """Divide `share` among the processes of a GPU or an instance."""
    owners = {pid: find(pid) for pid in use.residents.keys() | (use.busy or {}).keys()}
    busy = use.busy
    for pid, amount in use.strays.items():
        owner = find(pid)
        if owner is not None and not owner.alive and busy is not None:
            owners[pid] = owner
            busy = {**busy, pid: amount}
    claims, unknown, method = _claims(use, busy, owners)
    whole = sum(claims.values()) + unknown
    if whole == 0:
        weights.nobody += share
        return
    known = 0
    *parts, _ = apportion(share, [*claims.values(), unknown])
    for pid, part in zip(claims, parts, strict=True):
        owner = owners[pid]
        if owner is not None and part:
            weights.processes[owner] = weights.processes.get(owner, 0) + part
            known += part
    weights.nobody += share - known
    weights.methods[method] = weights.methods.get(method, 0) + known


def _claims(
    use: GpuUse, busy: Mapping[int, int] | None, owners: Mapping[int, Process | None]
) -> tuple[Mapping[int, int], int, GpuMethod]:
    """Return the claim of each pid, what is nobody's, and the method that found them."""
    users = _users(owners)
    if len(users) == 1:
        return dict.fromkeys(users, 1), 0, GpuMethod.EXCLUSIVE
    if busy is not None:
        own = {pid: amount for pid, amount in busy.items() if pid in users}
        if any(own.values()) or not any(busy.values()):
            return own, use.unknown, use.measure
        # The server alone is told to have worked: for which client is not told.
    memory = {pid: use.residents.get(pid) or 0 for pid in users}
    if all(memory.values()):
        return memory, 0, GpuMethod.MEMORY
    return dict.fromkeys(users, 1), 0, GpuMethod.EQUAL


def _users(owners: Mapping[int, Process | None]) -> set[int]:
    """Return the pids that may have work of their own: an MPS server has not, beside clients."""
    clients = {pid for pid, owner in owners.items() if owner is None or owner.comm != MPS_SERVER}
    return clients or set(owners)
