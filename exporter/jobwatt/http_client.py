"""Asking a server over HTTP: one answer, or the reason why there is none.

The standard library's urllib does the work: it knows proxies, TLS and IPv6, and costs nothing
where it is not used. What it lacks is here: a time limit for the whole exchange instead of for
each read, a bound on the body, and redirects that stay with the server that was asked.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import socket
import ssl
import string
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import jobwatt
from jobwatt.errors import Failed, TimedOut

__all__ = [
    "GOOD",
    "Answer",
    "Unreachable",
    "ask",
    "basic_auth",
    "is_local",
    "split_url",
    "without_password",
]

GOOD = range(200, 300)
"""Statuses of answers to the question; others say why there is none."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 3


class Unreachable(Failed):
    """No connection, or none that can be trusted, or it broke off."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said, whatever its status.

    Attributes:
        status, reason: of the status line.
        headers: case-insensitive.
        body: as it was meant, without the encoding of the way; empty where it was not read.
        elsewhere: another server, as `https://host:port`, to which this one redirects.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    elsewhere: str = ""


def split_url(url: str, example: str) -> SplitResult:
    """Return the parts of an address of the web.

    Raises:
        ValueError: it is none; the message says so without a password.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port  # it is looked at here, not while asking
    except ValueError as error:
        raise ValueError(f"{_shown(url)!r}: {error}") from error
    if not usable:
        raise ValueError(f"{_shown(url)!r} is no address like {example}")
    return parts


def without_password(parts: SplitResult) -> str:
    """Return the address alone, which may be shown."""
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def is_local(host: str) -> bool:
    """Return whether a host is this machine."""
    if host in {"localhost", socket.gethostname()}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def basic_auth(username: str, password: str) -> str:
    """Return the value of the header `Authorization`."""
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def ask(
    url: str,
    *,
    timeout: float,
    most_bytes: int,
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    error_bodies: bool = False,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Ask once, for JSON.

    A redirect is followed within the server, with all headers, unless there is `data`; another
    server is never asked, only named. No redirect's body is read.

    Args:
        url: http or https.
        timeout: seconds from the connection to the last byte. How long a name takes to be resolved
            is the system's affair, and each address of a host may take all that is left.
        most_bytes: of the body.
        data: is posted.
        headers: may hold secrets.
        error_bodies: whether bodies are read whose status is not `GOOD`; they fail as others do.
        tls: whom to trust, None for the system's authorities.

    Raises:
        ValueError: the address is none.
        TimedOut: there was no whole answer in time.
        Unreachable: nobody answers, or nobody to be trusted.
        Failed: the answer is broken or too long; like the others' its text is a reason without the
            address, and never repeats a header or the body.
    """
    host = split_url(url, "http://host").hostname or ""
    sent = {"User-Agent": f"jobwatt/{jobwatt.__version__}", "Accept": "application/json"}
    sent |= headers or {}
    redirects = _MOST_REDIRECTS if data is None else 0
    with _Deadline(timeout) as deadline:
        opener = _opener(host, deadline, tls)
        try:
            while True:
                request = urllib.request.Request(url, data, sent)  # noqa: S310 - see split_url
                with opener.open(request) as response:
                    deadline.check()
                    deadline.missing = "no whole answer"
                    target = _target(url, response)
                    stays = urlsplit(url)[:2] == urlsplit(target)[:2]
                    if stays and redirects:
                        url, redirects = target, redirects - 1
                        continue
                    is_read = response.status in GOOD or (error_bodies and not target)
                    return Answer(
                        response.status,
                        response.reason,
                        response.headers,
                        _body(response, most_bytes, deadline) if is_read else b"",
                        "" if stays else _server(target),
                    )
        except (OSError, http.client.HTTPException, ValueError) as error:
            # ValueError: a closed file, where the deadline comes between two reads; a header that
            # cannot be sent, which the cause would repeat.
            raise (deadline.error() if deadline.expired else _translated(error, deadline)) from None


def _target(url: str, response: http.client.HTTPResponse) -> str:
    """Return where a redirect leads, "" where there is none."""
    location = response.headers.get("Location", "")
    if response.status not in _REDIRECTS or not location:
        return ""
    with suppress(ValueError):
        return urljoin(url, quote(location, safe=string.punctuation, encoding="latin-1"))
    return ""


def _server(target: str) -> str:
    """Return scheme and host of an address, "" where it is none."""
    with suppress(ValueError):
        return without_password(split_url(target, "")._replace(path=""))
    return ""


def _body(response: http.client.HTTPResponse, most_bytes: int, deadline: _Deadline) -> bytes:
    body = response.read(most_bytes + 1)
    deadline.check()
    return _plain(body, response.headers, most_bytes)


def _plain(body: bytes, headers: http.client.HTTPMessage, most_bytes: int) -> bytes:
    """Return a whole body without the encoding of the way."""
    announced = headers.get("Content-Length", "")
    is_whole = not announced.isdigit() or len(body) >= min(int(announced), most_bytes)
    if headers.get("Content-Encoding", "").lower() == "gzip":
        unzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            body = unzip.decompress(body, most_bytes + 1)
        except zlib.error as error:
            raise Failed("a broken answer") from error
        is_whole = is_whole and (unzip.eof or len(body) > most_bytes)
    if not is_whole:
        raise Failed("half an answer")
    if len(body) > most_bytes:
        raise Failed(f"an answer of more than {most_bytes / 2**20:g} MiB")
    return body


def _translated(error: Exception, deadline: _Deadline) -> Failed | TimedOut:
    """Translate what urllib, http.client, ssl and socket say, without the numbers of the system."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return deadline.error()
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Unreachable(f"its certificate is not trusted ({cause.verify_message})")
    if isinstance(cause, OSError | str):
        return Unreachable(str(getattr(cause, "strerror", None) or cause or "broken off"))
    if isinstance(cause, UnicodeError):
        return Unreachable("no name of a host")
    if isinstance(cause, http.client.IncompleteRead):
        return Failed("half an answer")
    return Failed(f"broken HTTP ({type(cause).__name__})")


class _Deadline:
    """Ends an exchange by closing its sockets, wherever it is waiting then.

    Attributes:
        missing: what is waited for.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self.missing = "nothing"
        self._seconds = seconds
        self._end = time.monotonic() + seconds
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

    def check(self) -> None:
        """Raise `TimeoutError` where what has come may have been cut off."""
        if self.expired:
            raise TimeoutError

    def error(self) -> TimedOut:
        """Return what has not come."""
        return TimedOut(f"{self.missing} within {self._seconds:g} s")

    def connected(self, address: tuple[str, int], *_: object) -> socket.socket:
        """Return a connection that ends in time; further arguments are http.client's own."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        sock = socket.create_connection(address, left)
        with self._lock:
            if self.expired:
                sock.close()
                raise TimeoutError
            self._sockets.append(sock.dup())  # TLS takes the socket itself over
        return sock

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            for sock in self._sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


class _Handler(urllib.request.AbstractHTTPHandler):
    """http and https over connections that a deadline ends."""

    def __init__(self, deadline: _Deadline, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self._deadline = deadline
        self._tls = tls

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(self._made, http.client.HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(
            partial(self._made, http.client.HTTPSConnection), req, context=self._tls
        )

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def _made(
        self,
        make: Callable[..., http.client.HTTPConnection],
        host: str,
        **options: Any,  # noqa: ANN401 - urllib's own
    ) -> http.client.HTTPConnection:
        connection = make(host, **options)
        # Where http.client takes its sockets from, before it asks a proxy for a tunnel or greets
        # by TLS: both may drip.
        connection._create_connection = self._deadline.connected  # type: ignore[attr-defined] # noqa: SLF001
        return connection


def _opener(
    host: str, deadline: _Deadline, tls: ssl.SSLContext | None
) -> urllib.request.OpenerDirector:
    """Return an opener for http and https that hands every answer out as it is."""
    opener = urllib.request.OpenerDirector()
    # A proxy for the outer world knows nothing of this machine.
    opener.add_handler(urllib.request.ProxyHandler({} if is_local(host) else None))
    opener.add_handler(_Handler(deadline, tls))
    opener.add_handler(urllib.request.UnknownHandler())  # the scheme of a proxy
    return opener


def _shown(url: str) -> str:
    """Return what is no address, yet may hold a password before an @."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url
