"""How the pods of this node can be asked for, out of the settings and the pod's own environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from jobwatt.config import Config
from jobwatt.errors import UsageError
from jobwatt.kubernetes.client import Endpoint

__all__ = ["SERVICE_ACCOUNT", "Access", "find_access"]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod's token and the cluster's authority are mounted."""


@dataclass(frozen=True, slots=True)
class Access:
    """Whom to ask, and for which node; of a kubelet's own pods no name is needed.

    Attributes:
        kubelet: whether it is a kubelet that is asked, not the API server.
    """

    endpoint: Endpoint
    node: str
    kubelet: bool = False


def find_access(
    config: Config, environment: Mapping[str, str], mounted: Path = SERVICE_ACCOUNT
) -> Access | str:
    """Return how to ask, or why nobody is asked ("": there is no sign of Kubernetes here).

    Args:
        config: all settings.
        environment: of this process.
        mounted: where a service account would be.

    Raises:
        UsageError: it was asked for, and something that it takes is missing.
    """
    wanted = config.kubernetes_metadata
    if wanted == "off":
        return "kubernetes.metadata is off"
    token = config.kubernetes_token_file or _existing(mounted / "token")
    ca = config.kubernetes_ca_file or _existing(mounted / "ca.crt")
    node = config.kubernetes_node_name or environment.get("NODE_NAME", "")
    url = config.kubernetes_url or _in_cluster(environment)
    if wanted == "kubelet":
        if not config.kubernetes_url:
            raise UsageError("--kubernetes.metadata: kubelet needs its address: --kubernetes.url")
        return Access(Endpoint(_checked(url), token, ca), node, kubelet=True)
    missing = ""
    if not url:
        missing = "the API server's address is missing (--kubernetes.url)"
    elif not node:
        missing = (
            "this node's name is missing (--kubernetes.node-name, or NODE_NAME by the downward "
            "API: fieldPath spec.nodeName)"
        )
    elif token is None and url.startswith("https:"):
        missing = (
            "a token is missing (--kubernetes.token-file, or automountServiceAccountToken: true "
            "in the pod)"
        )
    if not missing:
        return Access(Endpoint(_checked(url), token, ca), node)
    if wanted == "api" or config.kubernetes_url:
        raise UsageError(f"the API server cannot be asked: {missing}")
    return missing if url else ""


def _in_cluster(environment: Mapping[str, str]) -> str:
    """Return the API server's address as kubelet tells it to each container, "" outside."""
    host = environment.get("KUBERNETES_SERVICE_HOST", "")
    port = environment.get("KUBERNETES_SERVICE_PORT", "") or "443"
    if not host:
        return ""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right or parts.query or "@" in parts.netloc:
        # Not shown: somebody may have put a password into it.
        raise UsageError(
            "--kubernetes.url: write it like https://host:6443, without user, password or query"
        )
    return url


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
