"""Asking a server over HTTP: one answer, or the reason why there is none.

The standard library's urllib does the work: it knows proxies, TLS and IPv6, and costs nothing
where it is not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO
from urllib.parse import SplitResult, urlsplit

from jobwatt.errors import Failed, TimedOut

__all__ = ["Answer", "ask", "is_local", "split_url", "without_password"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said, whatever its status.

    Attributes:
        status, reason: of the status line.
        headers: case-insensitive.
        body: as it was meant, without the encoding of the way.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A question with a body does not follow: urllib would leave its body behind."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.data is not None:
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


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


def ask(
    url: str,
    *,
    timeout: float,
    most_bytes: int,
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    secret_headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Ask once; `data` is posted. Secret headers are not sent on to where a server redirects.

    Raises:
        TimedOut: no answer, or no more of it, within `timeout` seconds.
        Failed: nobody answers, or nothing that is HTTP, or more than `most_bytes`; the text is a
            reason without the address.
    """
    request = urllib.request.Request(url, data, dict(headers or {}))  # noqa: S310 - split_url
    for name, value in (secret_headers or {}).items():
        request.add_unredirected_header(name, value)
    # A proxy for the outer world knows nothing of this machine.
    proxies = urllib.request.ProxyHandler({} if is_local(urlsplit(url).hostname or "") else None)
    opener = urllib.request.build_opener(
        proxies, urllib.request.HTTPSHandler(context=tls), _NoRedirect
    )
    try:
        try:
            response = opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            body = _plain(response.read(most_bytes + 1), response.headers, most_bytes)
            return Answer(response.status, response.reason, response.headers, body)
    except urllib.error.URLError as error:
        raise _translated(error.reason, timeout) from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise _translated(error, timeout) from error


def _plain(body: bytes, headers: Mapping[str, str], most_bytes: int) -> bytes:
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


def _translated(error: object, timeout: float) -> Failed | TimedOut:
    if isinstance(error, TimeoutError):
        return TimedOut(f"nothing within {timeout:g} s")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failed(f"its certificate is not trusted ({error.verify_message})")
    # In words, without the numbers of the operating system.
    return Failed(str(getattr(error, "strerror", None) or error or "broken off"))


def _shown(url: str) -> str:
    """Return what is no address, yet may hold a password before an @."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url
