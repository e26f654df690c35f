"""Kubernetes: whether pods' jobs can be named, and idle GPUs told to whom they were given."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from jobwatt.config import Config
from jobwatt.doctor.finding import Finding, Group, Level, many
from jobwatt.errors import Absent, Denied, ReadError, UsageError
from jobwatt.host.cgroupfs import Cgroupfs, find_cgroupfs
from jobwatt.host.files import list_folder
from jobwatt.kubernetes.access import Access, find_access
from jobwatt.kubernetes.follow import follow_pods
from jobwatt.kubernetes.pod_resources import EXTRA, list_devices

__all__ = ["check_kubernetes"]

_RBAC = (
    "let its service account get, list and watch pods, and mount the token:\n"
    "  kubectl apply -k deploy/kubernetes/base"
)
_CONNECT = (
    "in a cluster, give the exporter its service account, and its node's name:\n"
    "  kubectl apply -k deploy/kubernetes/base\n"
    "elsewhere, name the API server:\n"
    "  jobwatt serve --kubernetes.url=https://… --kubernetes.token-file=… --kubernetes.node-name=…"
)
_MOUNT = (
    "mount the kubelet's folder, read-only, below path.rootfs:\n"
    "  hostPath: {path: /var/lib/kubelet/pod-resources, type: DirectoryOrCreate}"
)


def check_kubernetes(config: Config, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Ask the API server and the kubelet once; nothing where there is no sign of either."""
    try:
        access = find_access(config, environment)
    except UsageError as error:
        yield _finding(Level.PROBLEM, "metadata", str(error))
        return
    if isinstance(access, Access):
        yield _check_metadata(config, access)
        yield _check_pod_resources(config)
    elif _has_pods(find_cgroupfs(config.cgroupfs)):
        message = f"pods are known by their uid alone: {access or 'no API server is known'}"
        remedy = None if config.kubernetes_metadata == "off" else _CONNECT
        yield _finding(Level.NOTE, "metadata", message, remedy)


def _finding(level: Level, subject: str, message: str, remedy: str | None = None) -> Finding:
    return Finding(level, Group.KUBERNETES, subject, message, remedy)


def _check_metadata(config: Config, access: Access) -> Finding:
    try:
        count = follow_pods(access, config.pod_rules).count()
    except Denied as error:
        remedy = None if access.kubelet else _RBAC  # a cluster has no role of ours for kubelets
        return _finding(Level.PROBLEM, "metadata", str(error), remedy)
    except ReadError as error:
        return _finding(Level.PROBLEM, "metadata", str(error))
    if count == 0 and not access.kubelet:
        message = f"{access.endpoint.url} knows no pod on a node {access.node!r}"
        remedy = "give the node's name as `kubectl get nodes` has it:\n  --kubernetes.node-name=…"
        return _finding(Level.PROBLEM, "metadata", message, remedy)
    return _finding(Level.OK, "metadata", f"{many(count, 'pod')}, told by {access.endpoint.url}")


def _check_pod_resources(config: Config) -> Finding:
    path = config.pod_resources
    try:
        devices = list_devices(path)
    except Absent as error:
        message = f"{error}: a pod that holds a GPU and idles is not known to hold it"
        there = os.path.exists(path)  # noqa: PTH110 - never raises
        remedy = f"install what speaks to it:\n  {EXTRA}" if there else _MOUNT
        return _finding(Level.NOTE, "pod resources", message, remedy)
    except ReadError as error:
        return _finding(Level.PROBLEM, "pod resources", str(error))
    holders = many(len(devices), "pod holds devices", "pods hold devices")
    return _finding(Level.OK, "pod resources", f"{holders}, told by {path}")


def _has_pods(cgroupfs: Cgroupfs) -> bool:
    """Whether there is a kubelet's folder at the top of a tree, or two levels below it."""
    folders = list(cgroupfs.trees.values())
    for _ in range(3):
        below = []
        for folder in folders:
            try:
                names = list_folder(folder)
            except ReadError:
                continue
            if any("kubepods" in name for name in names):
                return True
            below += [folder / name for name in names if (folder / name).is_dir()]
        folders = below
    return False
