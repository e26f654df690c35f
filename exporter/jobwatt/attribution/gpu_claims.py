"""Which GPUs a process has been given, by its environment.

A GPU is named by its UUID, or by Slurm's number of its device file. A bare index in
`CUDA_VISIBLE_DEVICES` names none: what it counts depends on the container, on the cgroup and on
`CUDA_DEVICE_ORDER`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jobwatt.gpus import GpuInfo

__all__ = ["VARIABLES", "claimed_gpus", "given_gpus", "named_gpus"]

_BY_UUID = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_BY_MINOR = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")

VARIABLES = (*_BY_UUID, *_BY_MINOR)
"""What is read of a process's environment, narrowest first within its kind."""

_LEAST_PREFIX = 8
"""CUDA takes any unambiguous beginning of a UUID; shorter ones than `GPU-0123` are not believed."""


def claimed_gpus(environment: Mapping[str, str], gpus: Mapping[str, GpuInfo]) -> frozenset[str]:
    """Return the devices that a process may use, as far as its environment names them for sure.

    Args:
        environment: of the process, of which `VARIABLES` count.
        gpus: the node's, by device name. A MIG instance's UUID names none here: it is known by
            its residents.
    """
    for name in _BY_UUID:
        if found := _by_uuid(environment.get(name, ""), gpus):
            return found
    for name in _BY_MINOR:
        if found := _by_minor(environment.get(name, ""), gpus):
            return found
    return frozenset()


def given_gpus(minors: Iterable[int], gpus: Mapping[str, GpuInfo]) -> frozenset[str]:
    """Return the devices with these numbers of device files, which a scheduler gave to a job."""
    wanted = frozenset(minors)
    return frozenset(name for name, info in gpus.items() if info.minor in wanted)


def named_gpus(
    ids: Iterable[str], gpus: Mapping[str, GpuInfo], instances: Mapping[str, str]
) -> frozenset[str]:
    """Return the devices that a Kubernetes device plugin means by these ids.

    NVIDIA's names a GPU or a MIG instance by its UUID, and with time slicing a copy of either
    (`<uuid>::<n>`); AMD's names a GPU by its PCI address. Ids of other kinds of devices name none.

    Args:
        ids: as the plugin gave them out.
        gpus: the node's, by device name.
        instances: the device of each MIG instance, by its UUID.
    """
    known = dict(instances)
    for name, info in gpus.items():
        known |= {key: name for key in (name, info.uuid, info.pci_bus_id) if key}
    found: set[str] = set()
    for device_id in ids:
        uuid = device_id.partition("::")[0]
        # Drivers before 470 name an instance by its GPU: MIG-GPU-<uuid>/<instance>/<compute>.
        device = known.get(uuid) or known.get(uuid.removeprefix("MIG-").partition("/")[0])
        if device is not None:
            found.add(device)
    return frozenset(found)


def _by_uuid(value: str, gpus: Mapping[str, GpuInfo]) -> frozenset[str]:
    found: set[str] = set()
    for word in value.split(","):
        prefix = word.strip()
        if len(prefix) >= _LEAST_PREFIX:
            matches = [name for name, info in gpus.items() if info.uuid.startswith(prefix)]
            found |= set(matches if len(matches) == 1 else ())
    return frozenset(found)


def _by_minor(value: str, gpus: Mapping[str, GpuInfo]) -> frozenset[str]:
    """Slurm's GRES indices are the numbers of the device files (gres.conf, AutoDetect=nvml)."""
    minors = {str(info.minor): name for name, info in gpus.items() if info.minor is not None}
    words = [word.strip() for word in value.split(",")]
    return frozenset(minors[word] for word in words if word in minors)
