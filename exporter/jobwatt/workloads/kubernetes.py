"""Kubernetes' pods, as far as cgroups tell them: `k8s:<pod uid>`.

Paths: kubelet's cgroup_manager_linux.go and qos_container_manager_linux.go. Nested clusters (kind,
k3s, a node in a container) have prefixes before `kubepods`. A static pod's uid is a digest of its
file: 32 hex digits without dashes, and stays so, since that is how kubelet and its annotations
write it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jobwatt.workloads.contract import Claim

__all__ = ["KubernetesScheduler"]

_UID = r"([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})"
_SLICE = re.compile(
    rf"(?:[\w.-]+-)?kubepods(?:-burstable|-besteffort)?-pod{_UID}\.slice"
    r"(?::[a-z-]+:[0-9a-f]{64})?",  # kubelet has the systemd driver, its runtime cgroupfs
    re.ASCII,
)
_POD = re.compile(rf"pod{_UID}")
_CLASSES = ("burstable", "besteffort")


class KubernetesScheduler:
    """Finds pods, of both cgroup drivers and all container runtimes."""

    def find(self, controller: str, parts: Sequence[str]) -> Claim | None:
        """Return the outermost pod in a path."""
        del controller
        for at, part in enumerate(parts):
            pod = _SLICE.fullmatch(part) if "kubepods" in part else None
            if pod is None and at and part.startswith("pod") and _is_parent(parts[:at]):
                pod = _POD.fullmatch(part)
            if pod is not None:
                return Claim(f"k8s:{pod[1].replace('_', '-')}", at + 1)
        return None


def _is_parent(parts: Sequence[str]) -> bool:
    """Whether pods of the cgroupfs driver are directly below: `kubepods[/<class>]`."""
    above = parts[:-1] if parts[-1] in _CLASSES else parts
    return bool(above) and above[-1] == "kubepods"
