"""One GET over HTTP/1.1, with TLS where the address says so: all that the API is asked.

h11 is here for the exporter's own server already; a Kubernetes client would bring a model of the
whole API, several times the exporter's memory.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import h11

import jobwatt
from jobwatt.errors import Absent, Denied, Failed, ReadError, TimedOut
from jobwatt.host.files import read_text

__all__ = ["Answer", "Endpoint", "Refused", "Unavailable", "opened"]

CONNECT_SECONDS = 10.0
OK, UNAUTHORIZED, FORBIDDEN = 200, 401, 403
MOST_READ, MOST_TOLD = 4096, 200
"""Of what comes with a failure."""

MOST_RETRY_SECONDS = 300.0

_CHUNK = 1 << 16
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""A watch is silent for minutes; a peer that is gone shows within one."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Whom to ask, and what proves who we are.

    Attributes:
        url: `https://host:port`; over plain `http` no token is sent.
        token_file: read at each request: kubelet replaces it about once an hour.
        ca_file: who signs the server's certificate, None for the machine's own authorities.
    """

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None

    @property
    def parts(self) -> SplitResult:
        """The address in parts."""
        return urlsplit(self.url)


class Refused(Denied):
    """The server knows us and says no (403), or does not know us (401)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(Failed):
    """An answer that is none: a status beside 200.

    `retry_after` is how many seconds the server asks to wait, 0 where it does not.
    """

    def __init__(self, status: int, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Answer:
    """A good answer, whose body comes as the server sends it."""

    def __init__(self, what: str, peer: socket.socket, connection: h11.Connection) -> None:
        self._what = what
        self._peer = peer
        self._connection = connection

    def event(self) -> object:
        """Return the next event of the protocol.

        Raises:
            Failed, TimedOut: the server does not go on as it should.
        """
        with _translating(self._what):
            while True:
                event = self._connection.next_event()
                if event is not h11.NEED_DATA:
                    return event
                self._connection.receive_data(self._peer.recv(_CHUNK))

    def chunks(self) -> Iterator[bytes]:
        """Yield the body piece by piece; raises as `event`."""
        while isinstance(event := self.event(), h11.Data):
            yield bytes(event.data)


@contextlib.contextmanager
def opened(endpoint: Endpoint, target: str, silence_seconds: float) -> Iterator[Answer]:
    """Ask for `target`; the connection is closed in the end.

    Args:
        endpoint: whom to ask.
        target: path and query.
        silence_seconds: how long the server may say nothing.

    Raises:
        Absent, Denied, Failed, TimedOut: there is no such answer; the message says why.
    """
    parts = endpoint.parts
    what = f"{parts.scheme}://{parts.netloc}{target.partition('?')[0]}"
    headers = [
        ("Host", parts.netloc),
        ("User-Agent", f"jobwatt/{jobwatt.__version__}"),
        ("Accept", "application/json"),
        ("Connection", "close"),
    ]
    if parts.scheme == "https" and endpoint.token_file is not None:
        headers.append(("Authorization", f"Bearer {read_text(endpoint.token_file)}"))
    with _connect(endpoint, what) as peer:
        connection = h11.Connection(h11.CLIENT)
        answer = Answer(what, peer, connection)
        with _translating(what):
            request = h11.Request(method="GET", target=target, headers=headers)
            end = h11.EndOfMessage()
            peer.sendall((connection.send(request) or b"") + (connection.send(end) or b""))
            peer.settimeout(silence_seconds)
        head = answer.event()
        while isinstance(head, h11.InformationalResponse):
            head = answer.event()
        if not isinstance(head, h11.Response):
            raise Failed(f"{what}: closed without an answer")
        if head.status_code != OK:
            raise _refusal(what, head, answer)
        yield answer


def _refusal(what: str, head: h11.Response, answer: Answer) -> ReadError:
    told = b""
    with contextlib.suppress(ReadError):
        for chunk in answer.chunks():
            told += chunk
            if len(told) >= MOST_READ:
                break
    status = head.status_code
    message = f"{what}: HTTP {status}: {_words(told[:MOST_READ])}"
    if status in {UNAUTHORIZED, FORBIDDEN}:
        return Refused(status, message)
    return Unavailable(status, message, _retry_after(head))


def _words(body: bytes) -> str:
    """Return what a server says about a failure: the API's own message, else how it begins."""
    text = body.decode(errors="replace")
    with contextlib.suppress(ValueError, RecursionError, LookupError, TypeError):
        text = str(json.loads(text)["message"])
    return " ".join(text.split())[:MOST_TOLD]


def _retry_after(head: h11.Response) -> float:
    for name, value in head.headers:
        if name == b"retry-after" and value.isdigit():
            return min(float(value), MOST_RETRY_SECONDS)
    return 0.0


def _connect(endpoint: Endpoint, what: str) -> socket.socket:
    parts = endpoint.parts
    secure = parts.scheme == "https"
    with _translating(what):
        address = parts.hostname or "", parts.port or (443 if secure else 80)
        peer = socket.create_connection(address, CONNECT_SECONDS)
        try:
            for level, option, value in _KEEP_ALIVE:
                peer.setsockopt(level, option, value)
            if not secure:
                return peer
            # Made anew each time: the authorities are replaced one day, too.
            context = ssl.create_default_context(cafile=endpoint.ca_file)
            # Python 3.13 is strict by default, and clusters' certificates are not: many have no
            # Authority Key Identifier (kubernetes-client/python#2394). Chain and name still count.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            context.set_alpn_protocols(["http/1.1"])
            return context.wrap_socket(peer, server_hostname=parts.hostname)
        except BaseException:
            peer.close()
            raise


@contextlib.contextmanager
def _translating(what: str) -> Iterator[None]:
    """Turn what sockets, TLS and HTTP raise into the domain's errors."""
    try:
        yield
    except TimeoutError as error:
        raise TimedOut(f"{what}: no answer in time") from error
    except ssl.SSLCertVerificationError as error:
        raise Failed(
            f"{what}: its certificate is not to be trusted: {error.verify_message} "
            "(kubernetes.ca-file)"
        ) from error
    except FileNotFoundError as error:
        raise Absent(f"{what}: {error.filename or 'the CA file'}: {error.strerror}") from error
    except OSError as error:
        raise Failed(f"{what}: {error.strerror or error}") from error
    except h11.RemoteProtocolError as error:
        raise Failed(f"{what}: {error}") from error
    except h11.LocalProtocolError as error:
        raise Failed(f"{what}: the token cannot be sent: {error}") from error
    except UnicodeError as error:
        raise Failed(f"{what}: no name of a host: {error}") from error
