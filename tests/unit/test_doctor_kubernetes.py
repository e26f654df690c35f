"""What the doctor says about Kubernetes, with a real server and a real socket on the other side."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fakes.kubelet import FakeKubelet, listening, pod_resources
from fakes.kubernetes import FakeApi, Trouble, pod, serving
from jobwatt.config import Config
from jobwatt.doctor import Level
from jobwatt.doctor.kubernetes import check_kubernetes

SOCKET = Path("var/lib/kubelet/pod-resources/kubelet.sock")


@dataclass
class Site:
    """A node, whose API server and kubelet are well until a test spoils them."""

    api: FakeApi
    kubelet: FakeKubelet
    config: Config
    root: Path

    def findings(self, **environment: str) -> dict[str, tuple[Level, str, str]]:
        """By subject: level, message, remedy."""
        found = check_kubernetes(self.config, environment)
        return {f.subject: (f.level, f.message, f.remedy or "") for f in found}

    def make_pods(self) -> None:
        """Let the node have pods' cgroups."""
        groups = self.root / "sys/fs/cgroup"
        (groups / "kubepods.slice").mkdir(parents=True)
        (groups / "cgroup.controllers").write_text("cpu\n")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    api, kubelet = FakeApi(), FakeKubelet()
    (tmp_path / SOCKET).parent.mkdir(parents=True)
    with ExitStack() as stack:
        url = stack.enter_context(serving(api, tmp_path))
        stack.enter_context(listening(kubelet, tmp_path / SOCKET))
        config = Config(
            path_rootfs=tmp_path,
            path_sysfs=tmp_path / "sys",
            kubernetes_url=url,
            kubernetes_token_file=tmp_path / "token",
            kubernetes_ca_file=tmp_path / "ca.crt",
        )
        yield Site(api, kubelet, config, tmp_path)


def test_all_is_well(site: Site) -> None:
    """Who tells of how many."""
    site.api.put(pod(uid="a"), pod("web", "b"))
    site.kubelet.answer = pod_resources("ml", "bert-0", {"nvidia.com/gpu": ["GPU-1"]})
    assert site.findings(NODE_NAME="n1") == {
        "metadata": (Level.OK, f"2 pods, told by {site.config.kubernetes_url}", ""),
        "pod resources": (Level.OK, f"1 pod holds devices, told by {site.root / SOCKET}", ""),
    }


@pytest.mark.parametrize("asked", [0, 1])
def test_what_is_forbidden_is_told_with_what_mends_it(site: Site, asked: int) -> None:
    """To list, or only to watch."""
    listed = Trouble(200, '{"kind":"PodList","metadata":{"resourceVersion":"5"},"items":[]}')
    site.api.troubles += [listed][:asked]
    site.api.troubles.append(Trouble(403, '{"message":"pods is forbidden"}'))
    level, message, remedy = site.findings(NODE_NAME="n1")["metadata"]
    assert level is Level.PROBLEM
    assert "HTTP 403" in message
    assert "pods is forbidden" in message
    assert "kubectl apply -k deploy/kubernetes/base" in remedy


def test_a_server_that_does_not_answer_well(site: Site) -> None:
    """As the exporter would see it."""
    site.api.troubles.append(Trouble(200, "<html>"))
    level, message, _ = site.findings(NODE_NAME="n1")["metadata"]
    assert (level, "no list in JSON" in message) == (Level.PROBLEM, True)


def test_a_wrong_name_of_the_node(site: Site) -> None:
    """No pod is on it, not even our own."""
    level, message, remedy = site.findings(NODE_NAME="n1")["metadata"]
    assert level is Level.PROBLEM
    assert "knows no pod on a node 'n1'" in message
    assert "--kubernetes.node-name" in remedy


def test_a_kubelet_is_asked_instead(site: Site) -> None:
    """Of its own pods no name is needed."""
    site.config = replace(site.config, kubernetes_metadata="kubelet")
    level, message, _ = site.findings()["metadata"]
    assert (level, message) == (Level.OK, f"0 pods, told by {site.config.kubernetes_url}")
    site.api.troubles.append(Trouble(403, "Forbidden (user=x, verb=get, resource=nodes)"))
    level, message, remedy = site.findings()["metadata"]
    assert (level, remedy) == (Level.PROBLEM, "")
    assert "must be allowed to get nodes/pods" in message


def test_what_was_asked_for_and_cannot_be(site: Site) -> None:
    """The exporter would not start."""
    site.config = replace(site.config, kubernetes_metadata="api")
    level, message, _ = site.findings()["metadata"]
    assert (level, "asked: this node's name" in message) == (Level.PROBLEM, True)


def test_pods_without_metadata(site: Site) -> None:
    """Worth knowing: their energy is measured, under their uid. Nothing of it elsewhere."""
    site.config = replace(site.config, kubernetes_url="")
    assert site.findings() == {}
    site.make_pods()
    level, message, remedy = site.findings()["metadata"]
    assert (level, message) == (
        Level.NOTE,
        "pods are known by their uid alone: no API server is known",
    )
    assert "--kubernetes.url" in remedy
    in_cluster = site.findings(KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert "uid alone: this node's name is missing" in in_cluster["metadata"][1]
    site.config = replace(site.config, kubernetes_metadata="off")
    level, message, remedy = site.findings()["metadata"]
    assert (level, remedy) == (Level.NOTE, "")
    assert "kubernetes.metadata is off" in message


def test_pods_of_a_nested_kubelet_are_found(site: Site) -> None:
    """Kind and k3s have theirs below."""
    site.config = replace(site.config, kubernetes_url="")
    groups = site.root / "sys/fs/cgroup"
    (groups / "system.slice/k3s.service/kubepods").mkdir(parents=True)
    (groups / "cgroup.controllers").write_text("cpu\n")
    assert set(site.findings()) == {"metadata"}


def test_a_socket_that_is_not_mounted(site: Site) -> None:
    """What is lost by that, and the mount."""
    site.config = replace(site.config, kubernetes_pod_resources=Path("/none"))
    level, message, remedy = site.findings(NODE_NAME="n1")["pod resources"]
    assert level is Level.NOTE
    assert "a pod that holds a GPU and idles is not known to hold it" in message
    assert "hostPath: {path: /var/lib/kubelet/pod-resources" in remedy


def test_a_socket_without_the_extra(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that installs it."""
    monkeypatch.setitem(sys.modules, "h2.connection", None)
    level, _, remedy = site.findings(NODE_NAME="n1")["pod resources"]
    assert (level, "  pip install 'jobwatt[kubernetes]'" in remedy) == (Level.NOTE, True)


def test_a_socket_that_does_not_answer_well(site: Site) -> None:
    """As the exporter would see it."""
    site.kubelet.answer = b"\xff"
    level, message, _ = site.findings(NODE_NAME="n1")["pod resources"]
    assert (level, "no protobuf" in message) == (Level.PROBLEM, True)
