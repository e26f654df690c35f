"""The HTTP server of an exporter: asyncio for the sockets, h11 for the protocol, one thread.

It is made to stay reachable. Whatever clients do (drip a request, never read the answer, open
connections by the hundred), each of their steps has a time limit, what is held for them has a
bound, and where all places are taken the one that has waited longest gives way to a new client.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from jobwatt.exposition.connection import Connection, Limits, Request, Response, Service, plain
from jobwatt.exposition.listen import listen, parse_address

if TYPE_CHECKING:
    from jobwatt.exposition.basic_auth import BasicAuth
    from jobwatt.exposition.web_config import WebConfig

__all__ = ["Limits", "Request", "Response", "Server"]

log = logging.getLogger(__name__)

_ACCEPT_PAUSE_SECONDS = 0.1
_STOP_SECONDS = 5.0
_GRACE_SECONDS = 1.0

_FULL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_HEADERS = {"X-Content-Type-Options": "nosniff"}


class Server:
    """Answers on one address, in a thread of its own, from `start` to `stop`.

    Args:
        address: `HOST:PORT`, `[IPV6]:PORT`, or `:PORT` for all interfaces; port 0 takes a free one.
        handler: makes the answer to a GET or HEAD. It runs in the server's event loop and must be
            fast. What it raises is logged and answered with status 500.
        web: TLS, users and headers; see `jobwatt.exposition.web_config`.
        limits: what clients may take.

    Raises:
        UsageError: the address is none.
    """

    def __init__(
        self,
        address: str,
        handler: Callable[[Request], Response],
        web: WebConfig | None = None,
        *,
        limits: Limits | None = None,
    ) -> None:
        parse_address(address)
        self._wanted = address
        self._handler = handler
        tls = web.tls if web else None
        self._auth = web.auth if web else None
        self._rate_limit = web.rate_limit if web else None
        self._limits = limits or Limits()
        self._service = Service(
            self._answer,
            tls.context if tls else lambda: None,
            tls.admits if tls else lambda _: True,
            _HEADERS | dict(web.headers if web else {}),
            self._limits,
        )
        self._connections: set[Connection] = set()
        self._bound: tuple[str, int] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port where it listens; only after `start`."""
        if self._bound is None:
            raise RuntimeError("the server has not been started")
        return self._bound

    def start(self) -> None:
        """Listen, and answer from now on; once in the life of the object.

        Raises:
            RunError: the address cannot be listened on; the message says why and what mends it.
        """
        if self._loop is not None:
            raise RuntimeError("a server starts once")
        listener = listen(self._wanted)
        host, port = listener.getsockname()[:2]
        self._bound = (host, port)
        self._loop = loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run, args=(loop, listener), name="web", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Finish the answers under way, close all connections and free the port."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None:
            return
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(_STOP_SECONDS)

    def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        try:
            with listener, asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._serve(listener))
        except Exception:
            log.exception("the web server has ended; please report this")

    async def _serve(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_context)
        accepting = loop.create_task(self._accept(listener))
        stopping = loop.create_task(self._stopping.wait())
        await asyncio.wait((accepting, stopping), return_when=asyncio.FIRST_COMPLETED)
        accepting.cancel()
        await asyncio.wait((accepting,))
        listener.close()
        for connection in self._connections:
            if not connection.busy:
                connection.task.cancel()
        if self._connections:
            tasks = [connection.task for connection in self._connections]
            await asyncio.wait(tasks, timeout=_GRACE_SECONDS)
        if self._auth is not None:
            self._auth.close()
        if not accepting.cancelled():
            accepting.result()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(listener)
            except OSError as error:
                # Otherwise the client has left before it was received.
                if error.errno in _FULL:
                    log.warning("cannot accept a connection: %s", error.strerror)
                    self._evict()
                    await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
                continue
            if len(self._connections) >= self._limits.connections:
                self._evict()
            connection = Connection(self._service, sock, str(peer[0]))
            self._connections.add(connection)
            connection.task.add_done_callback(partial(self._forget, connection))
            # While clients queue up, accepting does not wait: give those who are in their turn.
            await asyncio.sleep(0)

    def _evict(self) -> None:
        """Drop the connection that has waited longest without a complete request."""
        if self._connections:
            victim = min(self._connections, key=lambda c: (c.busy, c.since))
            self._connections.remove(victim)
            victim.task.cancel()

    def _forget(self, connection: Connection, task: asyncio.Task[None]) -> None:
        self._connections.discard(connection)
        if not task.cancelled() and (error := task.exception()):
            log.error("a connection has failed; please report this", exc_info=error)

    async def _answer(self, request: Request, peer: str) -> Response:
        if self._rate_limit is not None and not self._rate_limit.allow():
            return plain(HTTPStatus.TOO_MANY_REQUESTS)
        if request.method not in {"GET", "HEAD"}:
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        if self._auth is not None:
            refusal = await self._refusal(self._auth, request, peer)
            if refusal is not None:
                return refusal
        try:
            return self._handler(request)
        except Exception:
            log.exception("no answer for %.200r; please report this", request.path)
            return plain(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _refusal(self, auth: BasicAuth, request: Request, peer: str) -> Response | None:
        """Return the answer to a client that may not come in."""
        status = await auth.status(request.headers.get("authorization", ""), peer)
        if status == HTTPStatus.OK:
            return None
        if status == HTTPStatus.UNAUTHORIZED:
            return plain(status, {"WWW-Authenticate": 'Basic realm="jobwatt", charset="UTF-8"'})
        return plain(status, {"Retry-After": "1"})


def _log_context(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what asyncio has to say in one line."""
    log.warning("%s: %s", context.get("message"), context.get("exception"))
