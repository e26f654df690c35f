"""A kubelet's pod-resources socket: a real gRPC server, with messages encoded here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

Given = Mapping[str, Sequence[str]]
"""Ids of devices by resource."""


def text(number: int, value: str | bytes) -> bytes:
    """A field of bytes."""
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    """A number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def pod_resources(namespace: str, name: str, *containers: Given) -> bytes:
    """One pod of the answer, with CPUs, memory and topology beside its devices."""
    encoded = b""
    for given in containers:
        container = text(1, "main")
        for resource, ids in given.items():
            topology = text(1, varint(1 << 3) + varint(1))
            devices = text(1, resource) + b"".join(text(2, i) for i in ids) + text(3, topology)
            container += text(2, devices)
        container += text(3, varint(4) + varint(5))  # cpu_ids, packed
        container += text(4, text(1, "memory") + varint(2 << 3) + varint(1 << 30))
        encoded += text(3, container)
    return text(1, text(1, name) + text(2, namespace) + encoded)


@dataclass
class FakeKubelet:
    """What the socket answers, and how often it was asked."""

    answer: bytes = b""
    status: grpc.StatusCode | None = None
    asked: list[bytes] = field(default_factory=list)

    def list(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Answer `List`."""
        self.asked.append(request)
        if self.status is not None:
            context.abort(self.status, "made up")
        return self.answer


@contextmanager
def listening(kubelet: FakeKubelet, path: Path) -> Iterator[None]:
    """Serve on a unix socket."""
    server = grpc.server(
        futures.ThreadPoolExecutor(2), options=[("grpc.max_send_message_length", 1 << 26)]
    )
    handler = grpc.unary_unary_rpc_method_handler(kubelet.list)
    service = grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": handler})
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()
