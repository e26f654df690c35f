"""JSON over HTTP, for clients that must not wait, must not be led astray, and hold tokens.

Python's own urllib does it: proxies by the environment and verified TLS are there, and what is
missing is little: a time limit for the whole exchange, not for each read; a bound on the body;
redirects that never carry a token to another server.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any, Self
from urllib.parse import urlsplit

import jobwatt
from jobwatt.grid.contract import GridError, Reason

__all__ = ["MOST_BYTES", "get_json"]

MOST_BYTES = 1 << 20
"""Of a body. The longest that is asked for, three hours of five-minute values, has 3 kB."""

_MOST_WAIT_SECONDS = 86400.0
"""What a provider may ask us to wait."""

_SERVER_ERRORS = range(500, 600)
_REASONS = {
    401: Reason.DENIED,
    403: Reason.DENIED,
    404: Reason.NOT_FOUND,
    408: Reason.TIMEOUT,
    429: Reason.RATE_LIMITED,
}


def get_json(url: str, headers: Mapping[str, str], seconds: float) -> object:
    """Return the JSON at an address.

    Args:
        url: http or https, without a secret in it: it is named in errors.
        headers: may hold secrets.
        seconds: for everything from the connection to the last byte.

    Raises:
        GridError: there is none; the message names the server and never a header or the body.
    """
    where = _where(url)
    with _Deadline(seconds) as deadline:
        try:
            body = _body(url, headers, deadline)
        except urllib.error.HTTPError as error:
            error.close()
            raise _refusal(where, error.code, error.headers.get("Retry-After")) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            # ValueError: a closed file, where the deadline comes between two reads.
            raise _failure(where, error, seconds, expired=deadline.expired) from None
    if len(body) > MOST_BYTES:
        raise GridError(Reason.MALFORMED, f"{where}: more than {MOST_BYTES >> 20} MiB")
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise GridError(Reason.MALFORMED, f"{where}: the answer is not JSON") from None


def _where(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _body(url: str, headers: Mapping[str, str], deadline: _Deadline) -> bytes:
    agent = {"User-Agent": f"jobwatt/{jobwatt.__version__}", "Accept": "application/json"}
    request = urllib.request.Request(url, headers=agent | dict(headers))  # noqa: S310 - see _opener
    with _opener(deadline).open(request, timeout=deadline.seconds) as response:
        read: bytes = response.read(MOST_BYTES + 1)
    if deadline.expired:
        raise TimeoutError
    return read


def _refusal(where: str, status: int, retry_after: str | None) -> GridError:
    server = Reason.SERVER_ERROR if status in _SERVER_ERRORS else Reason.REJECTED
    reason = _REASONS.get(status, server)
    word = http.client.responses.get(status, "unknown status")
    return GridError(reason, f"{where}: {status} {word}", _wait(retry_after, time.time()))


def _wait(retry_after: str | None, now: float) -> float | None:
    """Return the seconds of a `Retry-After`: a number, or a date."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return None if math.isnan(seconds) else min(max(0.0, seconds), _MOST_WAIT_SECONDS)


def _failure(where: str, error: Exception, seconds: float, *, expired: bool) -> GridError:
    """Translate what urllib, http.client, ssl and socket say."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if expired or isinstance(cause, TimeoutError):
        return GridError(Reason.TIMEOUT, f"{where}: no whole answer within {seconds:g} s")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return GridError(Reason.UNREACHABLE, f"{where}: {cause.verify_message}")
    if isinstance(cause, str):
        return GridError(Reason.REJECTED, f"{where}: {cause}")
    if isinstance(cause, OSError):
        text = cause.strerror or type(cause).__name__
        return GridError(Reason.UNREACHABLE, f"{where}: {text}")
    return GridError(Reason.MALFORMED, f"{where}: broken HTTP ({type(cause).__name__})")


class _Deadline:
    """Ends an exchange by closing its sockets, wherever it is waiting then."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.expired = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            for sock in self._sockets:
                sock.close()
            self._sockets.clear()

    def watch(self, sock: socket.socket) -> None:
        """Take care of a connection; a duplicate, since TLS takes the socket itself over."""
        with self._lock:
            if self.expired:
                raise TimeoutError
            self._sockets.append(sock.dup())

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            for sock in self._sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


class _Plain(http.client.HTTPConnection):
    deadline: _Deadline

    def connect(self) -> None:
        super().connect()
        self.deadline.watch(self.sock)


class _Secure(http.client.HTTPSConnection, _Plain):
    """TLS over a watched connection: HTTPSConnection's `connect` calls ours, then shakes hands."""


class _PlainHandler(urllib.request.HTTPHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **options: Any) -> _Plain:  # noqa: ANN401 - urllib's own
            made = _Plain(host, **options)
            made.deadline = self._deadline
            return made

        return self.do_open(connection, req)


class _SecureHandler(urllib.request.HTTPSHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **options: Any) -> _Secure:  # noqa: ANN401 - urllib's own
            made = _Secure(host, context=ssl.create_default_context(), **options)
            made.deadline = self._deadline
            return made

        return self.do_open(connection, req)


class _SameOrigin(urllib.request.HTTPRedirectHandler):
    """Follows redirects within a server; urllib's own would take the token anywhere."""

    max_redirections = 3

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        fp.close()  # or urllib would read the whole body, of whatever size
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if (old.scheme, old.netloc) != (new.scheme, new.netloc):
            target = f"{new.scheme}://{new.hostname or ''}"
            raise GridError(
                Reason.REJECTED,
                f"{_where(req.full_url)}: redirected to {target}; if that is right, make it the "
                "provider's url",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(deadline: _Deadline) -> urllib.request.OpenerDirector:
    """Return an opener for http and https alone; urllib's own also opens files and FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _PlainHandler(deadline),
        _SecureHandler(deadline),
        _SameOrigin(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
