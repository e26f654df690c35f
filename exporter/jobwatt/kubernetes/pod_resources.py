"""Which pod was given which GPU, by the kubelet's pod-resources socket (gRPC, v1 List).

It knows of pods that hold a GPU and do not use it. The one call, without arguments, is made with
h2, which costs a tenth of grpcio's memory (docs/decisions/0012-kubernetes-metadata.md).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jobwatt.errors import Absent, Failed, ReadError, TimedOut, translated
from jobwatt.kubernetes.follow import Trouble
from jobwatt.kubernetes.protobuf import fields

if TYPE_CHECKING:
    from h2.connection import H2Connection
    from h2.events import Event

__all__ = ["EXTRA", "PodResources", "list_devices", "parse_devices"]

log = logging.getLogger(__name__)

EXTRA = "pip install 'jobwatt[kubernetes]'"

PERIOD_SECONDS, ABSENT_SECONDS = 10.0, 60.0
ANSWER_SECONDS = 5.0
MOST_BYTES = 1 << 24
"""Of an answer: kubelet's own client takes as much."""

_CHUNK = 1 << 16
_METHOD = "/v1.PodResourcesLister/List"
_PREFIX = 5
"""Bytes before a gRPC message: whether it is compressed, and its length."""

Devices = Mapping[tuple[str, str], tuple[str, ...]]
"""Ids of devices by namespace and name of the pod that was given them."""


def parse_devices(message: bytes) -> Devices:
    """Read a `ListPodResourcesResponse` (k8s.io/kubelet, podresources/v1/api.proto).

    Raises:
        Failed: it is none.
    """
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for number, pod in fields(message):
        if number != 1:
            continue
        name = namespace = ""
        ids: list[str] = []
        for key, value in fields(pod):
            if key == 1:
                name = value.decode(errors="replace")
            elif key == 2:  # noqa: PLR2004 - as in api.proto, likewise below
                namespace = value.decode(errors="replace")
            elif key == 3:  # noqa: PLR2004
                ids += _ids(value)
        if ids:
            found[namespace, name] = tuple(ids)
    return found


def _ids(container: bytes) -> list[str]:
    """Return the ids in `ContainerResources`: `devices` 2, within them `device_ids` 2."""
    return [
        device_id.decode(errors="replace")
        for number, devices in fields(container)
        if number == 2  # noqa: PLR2004
        for key, device_id in fields(devices)
        if key == 2  # noqa: PLR2004
    ]


def list_devices(path: Path) -> Devices:
    """Ask the socket once.

    Raises:
        Absent: there is no such socket, or h2 is not installed.
        Denied, Failed, TimedOut: see `jobwatt.errors`.
    """
    try:
        import h2.connection  # noqa: PLC0415 - an optional extra, and only where there is a kubelet
    except ImportError as error:
        raise Absent(f"{path} cannot be asked without h2: {EXTRA}") from error
    from h2.exceptions import H2Error  # noqa: PLC0415

    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(ANSWER_SECONDS)
        try:
            peer.connect(str(path))
            return parse_devices(_call(h2.connection.H2Connection(), peer, str(path)))
        except TimeoutError as error:
            raise TimedOut(f"{path}: no answer in time") from error
        except H2Error as error:
            raise Failed(f"{path}: {error}") from error
        except OSError as error:
            raise translated(error, path) from error


def _call(connection: H2Connection, peer: socket.socket, what: str) -> bytes:
    """Call the method with an empty message; return the answer's."""
    connection.initiate_connection()
    stream = connection.get_next_available_stream_id()
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", _METHOD),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    connection.send_headers(stream, headers)
    connection.send_data(stream, bytes(_PREFIX), end_stream=True)
    told: dict[str, str] = {}
    body = bytearray()
    ended = False
    while not ended:
        peer.sendall(connection.data_to_send())
        data = peer.recv(_CHUNK)
        if not data:
            raise Failed(f"{what}: closed within an answer")
        for event in connection.receive_data(data):
            ended |= _take(connection, event, body, told, what)
    if told.get("grpc-status") != "0":
        message = told.get("grpc-message", "") or f"HTTP {told.get(':status', '?')}"
        raise Failed(f"{what}: gRPC status {told.get('grpc-status', '?')}: {message:.200}")
    if len(body) < _PREFIX or body[0] or len(body) != _PREFIX + int.from_bytes(body[1:_PREFIX]):
        raise Failed(f"{what}: no gRPC message in the answer")
    return bytes(body[_PREFIX:])


def _take(
    connection: H2Connection, event: Event, body: bytearray, told: dict[str, str], what: str
) -> bool:
    """Take in what the server sent; whether that is all."""
    from h2 import events  # noqa: PLC0415

    match event:
        case events.ResponseReceived() | events.TrailersReceived():
            told.update((_text(name), _text(value)) for name, value in event.headers or ())
        case events.DataReceived():
            body += event.data or b""
            if len(body) > MOST_BYTES:
                raise Failed(f"{what}: an answer of more than {MOST_BYTES} bytes")
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        case events.StreamReset() | events.ConnectionTerminated():
            raise Failed(f"{what}: broken off, HTTP/2 error {event.error_code}")
        case events.StreamEnded():
            return True
    return False


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


class PodResources:
    """Asks again and again, in a thread of its own.

    Attributes:
        devices: the latest answer, replaced as a whole when it differs; empty before the first.
        answers: how many there were.
    """

    def __init__(self, path: Path, stop: threading.Event | None = None) -> None:
        self._path = path
        self._stop = stop or threading.Event()
        self._trouble = Trouble("GPUs of pods")
        self.devices: Devices = {}
        self.answers = 0

    def start(self) -> None:
        """Begin to ask."""
        threading.Thread(target=self.run, name="pod-resources", daemon=True).start()

    def run(self) -> None:
        """Ask until told to stop."""
        while not self._stop.is_set():
            pause = PERIOD_SECONDS
            try:
                devices = list_devices(self._path)
            except Absent as error:
                pause = ABSENT_SECONDS
                if os.path.exists(self._path):  # noqa: PTH110 - never raises; h2 is not there
                    self._trouble.note(error)
            except ReadError as error:
                self._trouble.note(error)
            except Exception:
                log.exception("%s: asking failed; please report this", self._path)
                pause = ABSENT_SECONDS
            else:
                self._trouble.clear()
                if devices != self.devices:
                    self.devices = devices
                self.answers += 1
            self._stop.wait(pause)
