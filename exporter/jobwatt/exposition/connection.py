"""One client of the HTTP server: read a request, answer it, and again; each step in limited time.

h11 knows the protocol and does no I/O; asyncio does the I/O and knows no protocol.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import h11

__all__ = ["Connection", "Limits", "Request", "Response", "Service", "plain"]

log = logging.getLogger(__name__)

_HEAD_BYTES = 16384
_READ_BYTES = 4096
_WRITE_BYTES = 65536
_DISCARDED_BYTES = 65536

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for.

    Attributes:
        method: `GET`, `HEAD` and so on.
        path: as it was sent, without the query; begins with a slash.
        query: what stands behind the question mark, as it was sent.
        headers: by lower-case name; repeated ones are joined by a comma.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    """The answer; to HEAD the body is not sent, only its length."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may take.

    Attributes:
        connections: at the same time, of all clients.
        head_seconds: from a request's first byte (or the connection's start) to its last header.
        idle_seconds: between two requests. Prometheus drops idle connections after five minutes:
            the client closes first, so that no scrape meets a closing connection.
        write_seconds: for a whole answer to leave, and for what is left of it at the end.
        handshake_seconds: for TLS.
        discard_seconds: for what a client still sends after its last answer.
    """

    connections: int = 256
    head_seconds: float = 10.0
    idle_seconds: float = 330.0
    write_seconds: float = 10.0
    handshake_seconds: float = 10.0
    discard_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """What all connections of a server share.

    Attributes:
        answer: makes the answer to a request from an address.
        context: the TLS context for a new connection, None for plain HTTP.
        admits: whether a client with this TLS certificate may come in.
        headers: added to every answer that does not set them itself.
        limits: what clients may take.
    """

    answer: Callable[[Request, str], Awaitable[Response]]
    context: Callable[[], ssl.SSLContext | None]
    admits: Callable[[Mapping[str, object] | None], bool]
    headers: Mapping[str, str]
    limits: Limits


class Connection:
    """A client that was accepted; owns the socket. `task` ends when the connection does.

    Attributes:
        since: when the connection began or its last request was complete.
        busy: a request is complete and its answer has not left yet.
        task: cancel it to drop the client.
    """

    def __init__(self, service: Service, sock: socket.socket, peer: str) -> None:
        """Begin to serve the client on the socket, whose address is `peer`."""
        loop = asyncio.get_running_loop()
        self._service = service
        self._sock = sock
        self._peer = peer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        self._served = False
        self.since = loop.time()
        self.busy = False
        self.task = loop.create_task(self._run())
        # Where the task is cancelled before its first step, nothing else closes the socket.
        self.task.add_done_callback(lambda _: sock.close())

    async def _run(self) -> None:
        limits = self._service.limits
        try:
            reader, writer = await self._open()
        except OSError as error:
            log.debug("%s: no connection: %s", self._peer, error)
            return
        try:
            if self._service.admits(writer.get_extra_info("peercert")):
                while await self._exchange(reader, writer):
                    pass
                writer.close()
                async with asyncio.timeout(limits.write_seconds):
                    await writer.wait_closed()
        except OSError as error:  # timeouts among them
            log.debug("%s: dropped: %s", self._peer, str(error) or "too slow")
        finally:
            writer.transport.abort()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the streams, after the TLS handshake where there is one."""
        loop = asyncio.get_running_loop()
        limits = self._service.limits
        reader = asyncio.StreamReader(limit=_HEAD_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        context = self._service.context()
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            self._sock,
            ssl=context,
            ssl_handshake_timeout=limits.handshake_seconds if context else None,
            ssl_shutdown_timeout=limits.write_seconds if context else None,
        )
        # No answer piles up here. Not high=0: asyncio's TLS would then wait for ever.
        transport.set_write_buffer_limits(high=1, low=0)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether another may follow."""
        http = self._http
        try:
            head = await self._head(reader)
            if head is None:
                return False
            # A request's body is never read: its connection ends with the answer.
            complete = isinstance(http.next_event(), h11.EndOfMessage)
        except h11.RemoteProtocolError as error:
            await self._send(writer, b"", plain(error.error_status_hint), last=True)
            await self._discard(reader, writer)
            return False
        self.busy, self.since = True, asyncio.get_running_loop().time()
        request = _request(head)
        if request is None:
            response = plain(HTTPStatus.BAD_REQUEST)
        else:
            response = await self._service.answer(request, self._peer)
        await self._send(writer, head.method, response, last=not complete)
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
            self._served = True
            self.busy, self.since = False, asyncio.get_running_loop().time()
            # A client that sends a thousand requests at once shares the loop with the others.
            await asyncio.sleep(0)
            return True
        if not complete:
            await self._discard(reader, writer)
        return False

    async def _head(self, reader: asyncio.StreamReader) -> h11.Request | None:
        """Return the next request without its body; None where the client has left.

        One time limit covers the whole head: bytes that drip in do not extend it.
        """
        http, limits = self._http, self._service.limits
        if self._served and not http.trailing_data[0]:
            async with asyncio.timeout(limits.idle_seconds):
                http.receive_data(await reader.read(_READ_BYTES))
        async with asyncio.timeout(limits.head_seconds):
            while (event := http.next_event()) is h11.NEED_DATA:
                http.receive_data(await reader.read(_READ_BYTES))
        return event if isinstance(event, h11.Request) else None

    async def _send(
        self, writer: asyncio.StreamWriter, method: bytes, response: Response, *, last: bool
    ) -> None:
        http, body = self._http, response.body
        try:
            head = self._response_head(response, last=last)
        except h11.LocalProtocolError:
            log.exception("the answer cannot be sent; please report this")
            response = plain(HTTPStatus.INTERNAL_SERVER_ERROR)
            head, body = self._response_head(response, last=last), response.body
        async with asyncio.timeout(self._service.limits.write_seconds):
            data = http.send(head) or b""
            if method != b"HEAD":
                # In pieces: what a slow reader has not taken yet is not copied.
                for start in range(0, len(body), _WRITE_BYTES):
                    piece = h11.Data(data=body[start : start + _WRITE_BYTES])
                    writer.write(data + (http.send(piece) or b""))
                    await writer.drain()
                    data = b""
            writer.write(data + (http.send(h11.EndOfMessage()) or b""))
            await writer.drain()

    def _response_head(self, response: Response, *, last: bool) -> h11.Response:
        headers = {name.lower(): (name, value) for name, value in self._service.headers.items()}
        headers |= {name.lower(): (name, value) for name, value in response.headers.items()}
        headers["date"] = ("Date", _date(time.time()))
        headers["content-type"] = ("Content-Type", response.content_type)
        headers["content-length"] = ("Content-Length", str(len(response.body)))
        if last:
            headers["connection"] = ("Connection", "close")
        return h11.Response(
            status_code=response.status,
            headers=list(headers.values()),
            reason=_phrase(response.status).encode(),
        )

    async def _discard(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take what the client still sends, for a while.

        Closing with unread bytes resets the connection, and a reset can overtake the answer.
        """
        if writer.can_write_eof():
            writer.write_eof()
        async with asyncio.timeout(self._service.limits.discard_seconds):
            left = _DISCARDED_BYTES
            while left > 0 and (data := await reader.read(_READ_BYTES)):
                left -= len(data)


def plain(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer that says its status in plain text."""
    text = f"{int(status)} {_phrase(status)}\n".encode()
    return Response(int(status), "text/plain; charset=utf-8", text, headers or {})


def _request(head: h11.Request) -> Request | None:
    """Return the request, None where version or target are none of this server's."""
    target = head.target.decode("ascii", "replace")
    scheme, separator, rest = target.partition("://")
    if separator and scheme.lower() in {"http", "https"}:
        # RFC 9112, 3.2.2: a server takes the absolute form too.
        target = "/" + rest.partition("/")[2]
    path, _, query = target.partition("?")
    if not path.startswith("/") or not head.http_version.startswith(b"1."):
        return None
    headers: dict[str, str] = {}
    for name, value in head.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Request(head.method.decode("ascii"), path, query, headers)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _date(now: float) -> str:
    """Return a time as HTTP writes it; `strftime` would follow the locale."""
    t = time.gmtime(now)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"
    )
