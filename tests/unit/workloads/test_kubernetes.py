from __future__ import annotations

import pytest

from jobwatt.workloads.contract import Claim, split_path
from jobwatt.workloads.kubernetes import KubernetesScheduler

UID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
IN_SLICE = UID.replace("-", "_")
STATIC = "0123456789abcdef0123456789abcdef"
ID = "e" * 64
KUBERNETES = KubernetesScheduler()


def find(path: str) -> Claim | None:
    return KUBERNETES.find("", split_path(path))


def systemd(qos: str, uid: str = IN_SLICE, prefix: str = "") -> str:
    """Return the path of a pod under the systemd driver, as kubelet nests slices."""
    path, name = "", ""
    for word in (*prefix.split("-"), "kubepods", qos, f"pod{uid}"):
        if word:
            name = f"{name}-{word}" if name else word
            path += f"/{name}.slice"
    return path


@pytest.mark.parametrize(
    ("path", "depth"),
    [
        # systemd driver, by class and runtime.
        (f"{systemd('burstable')}/cri-containerd-{ID}.scope", 3),
        (f"{systemd('besteffort')}/cri-containerd-{ID}.scope", 3),
        (f"{systemd('')}/cri-containerd-{ID}.scope", 2),
        (f"{systemd('burstable')}/crio-{ID}.scope", 3),
        (f"{systemd('burstable')}/crio-{ID}.scope/container", 3),
        (f"{systemd('burstable')}/crio-conmon-{ID}.scope", 3),
        (f"{systemd('burstable')}/docker-{ID}.scope", 3),
        (f"{systemd('')}/libpod-{ID}.scope", 2),
        (systemd("burstable"), 3),
        (f"{systemd('burstable')}/cri-containerd-{ID}.scope (deleted)", 3),
        # cgroupfs driver.
        (f"/kubepods/burstable/pod{UID}/{ID}", 3),
        (f"/kubepods/besteffort/pod{UID}/{ID}", 3),
        (f"/kubepods/pod{UID}/{ID}", 2),
        (f"/kubepods/burstable/pod{UID}/crio-{ID}", 3),
        (f"/kubepods/burstable/pod{UID}", 3),
        # A kubelet with --cgroup-root, k3s, kind with either driver, a node in a container.
        (f"/custom/kubepods/burstable/pod{UID}/{ID}", 4),
        (f"/k3s/kubepods/pod{UID}/{ID}", 3),
        (f"/docker/{ID}/kubelet/kubepods/burstable/pod{UID}/{ID}", 6),
        (f"/docker/{ID}{systemd('burstable', prefix='kubelet')}/cri-containerd-{ID}.scope", 6),
        (
            f"/system.slice/docker-{ID}.scope{systemd('', prefix='kubelet')}/crio-{ID}.scope",
            5,
        ),
        (f"/lxc.payload.k3s/kubepods/besteffort/pod{UID}/{ID}", 4),
        (f"/system.slice/k3s.service/kubepods/burstable/pod{UID}/{ID}", 5),
        # kubelet says systemd, its runtime cgroupfs.
        (
            f"/system.slice/x.service/kubepods-burstable-pod{IN_SLICE}.slice:cri-containerd:{ID}",
            3,
        ),
        (f"/kubepods-besteffort-pod{IN_SLICE}.slice:cri-containerd:{ID}", 1),
        # Nested clusters: the outermost.
        (f"{systemd('')}/cri-containerd-{ID}.scope/kubepods/pod{STATIC}/{ID}", 2),
    ],
)
def test_pods(path: str, depth: int) -> None:
    """A pod is its uid, with dashes, and its directory is the pod's, not the container's."""
    assert find(path) == Claim(f"k8s:{UID}", depth)


@pytest.mark.parametrize(
    "path",
    [
        f"{systemd('burstable', STATIC)}/cri-containerd-{ID}.scope",
        f"/kubepods/burstable/pod{STATIC}/{ID}",
        f"/kubepods/burstable/pod{STATIC}/{'1' * 64}",
    ],
)
def test_static_pods(path: str) -> None:
    """The digest that is a static pod's uid stays as kubelet writes it."""
    assert find(path) == Claim(f"k8s:{STATIC}", 3)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/kubepods.slice",
        "/kubepods/burstable",
        "/kubepods/burstable/podx",
        f"/kubepods/burstable/pod{UID}x",
        f"/kubepods/burstable/pod{UID}\n",
        f"/kubepods/burstable/pod{UID.upper()}",
        f"/pod{UID}",
        f"/burstable/pod{UID}",
        f"/kubepods/guaranteed/pod{UID}",
        f"/kubepods/burstable/x/pod{UID}",
        f"/kubepodsx/burstable/pod{UID}",
        f"/xkubepods-burstable-pod{IN_SLICE}.slice",
        f"/kubepods-burstable-pod{IN_SLICE}.scope",
        f"/machine.slice/libpod-{ID}.scope",
        "/system.slice/kubelet.service",
    ],
)
def test_what_is_none(path: str) -> None:
    """Folders on the way to pods, other runtimes' containers and look-alikes are no pods."""
    assert find(path) is None
