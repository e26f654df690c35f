"""Whom to ask, out of the settings and the pod's own environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobwatt.config import Config
from jobwatt.errors import UsageError
from jobwatt.kubernetes.access import Access, find_access
from jobwatt.kubernetes.client import Endpoint

IN_CLUSTER = {
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "KUBERNETES_SERVICE_PORT": "6443",
    "NODE_NAME": "n1",
}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """A service account's mount."""
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("x")
    return tmp_path


def test_in_a_pod_nothing_needs_to_be_set(account: Path) -> None:
    """Address, token, authority and node are there."""
    expected = Endpoint("https://10.0.0.1:6443", account / "token", account / "ca.crt")
    assert find_access(Config(), IN_CLUSTER, account) == Access(expected, "n1")


def test_an_ipv6_cluster(account: Path) -> None:
    """Its address is written in brackets."""
    found = find_access(Config(), {**IN_CLUSTER, "KUBERNETES_SERVICE_HOST": "fd00::1"}, account)
    assert isinstance(found, Access)
    assert found.endpoint.url == "https://[fd00::1]:6443"


def test_what_the_operator_sets_goes_before(account: Path) -> None:
    """Also outside of a cluster."""
    config = Config(
        kubernetes_metadata="api",
        kubernetes_url="https://api.example:443/k8s",
        kubernetes_node_name="n2",
        kubernetes_token_file=Path("/t"),
        kubernetes_ca_file=Path("/c"),
    )
    expected = Endpoint("https://api.example:443/k8s", Path("/t"), Path("/c"))
    assert find_access(config, IN_CLUSTER, account) == Access(expected, "n2")


def test_a_kubelet_needs_its_address_alone(tmp_path: Path) -> None:
    """Its pods are this node's."""
    config = Config(kubernetes_metadata="kubelet", kubernetes_url="http://127.0.0.1:10255")
    expected = Access(Endpoint("http://127.0.0.1:10255"), "", kubelet=True)
    assert find_access(config, {}, tmp_path) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ""),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "this node's name"),
    ],
)
def test_by_itself_it_asks_where_it_can(
    account: Path, environment: dict[str, str], expected: str
) -> None:
    """And else tells why not; outside of a cluster there is nothing to tell."""
    assert str(find_access(Config(), environment, account)).startswith(expected)
    assert not isinstance(find_access(Config(), environment, account), Access)


def test_without_a_token_nobody_is_asked(tmp_path: Path) -> None:
    """What mends it is named."""
    found = find_access(Config(), IN_CLUSTER, tmp_path)
    assert "automountServiceAccountToken" in str(found)


def test_off_is_off(account: Path) -> None:
    """Whatever is mounted."""
    config = Config(kubernetes_metadata="off")
    assert find_access(config, IN_CLUSTER, account) == "kubernetes.metadata is off"


@pytest.mark.parametrize(
    ("settings", "environment", "message"),
    [
        (
            {"kubernetes_metadata": "api"},
            {},
            "be asked: the API server's address",
        ),
        ({"kubernetes_metadata": "kubelet"}, IN_CLUSTER, "kubelet needs its address"),
        ({"kubernetes_url": "https://api"}, {}, "cannot be asked: this node's name is missing"),
        ({"kubernetes_url": "api:6443"}, IN_CLUSTER, "write it like https://host:6443"),
        ({"kubernetes_url": "https://h:x"}, IN_CLUSTER, "write it like https://host:6443"),
        ({"kubernetes_url": "https://:s3cret@h"}, IN_CLUSTER, "without user, password"),
    ],
)
def test_what_was_asked_for_and_cannot_be_is_an_error(
    account: Path, settings: dict[str, str], environment: dict[str, str], message: str
) -> None:
    """Before anything is measured."""
    with pytest.raises(UsageError, match=message) as caught:
        find_access(Config(**settings), environment, account)  # type: ignore[arg-type]
    assert "s3cret" not in str(caught.value)
