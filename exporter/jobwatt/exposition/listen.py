"""Addresses to listen on, written as Prometheus exporters do: `:9743`, `[::1]:9743`."""

from __future__ import annotations

import errno
import re
import socket

from jobwatt.errors import RunError, UsageError

__all__ = ["listen", "parse_address"]

_BACKLOG = 1024

_RECEIVE_BUFFER = 16384
"""Requests are small; this bounds what the kernel, and one read, hold for a client that floods."""

_ADDRESS = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]*)):([0-9]{1,5})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_LAST_PORT = 65535

_EVERYWHERE = ("", "::")
_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port; the host is empty for all interfaces.

    Raises:
        UsageError: the text is no address to listen on.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise _bad(text, "write it as HOST:PORT, [IPV6]:PORT or :PORT")
    ipv6, name, port = match[1], match[2], int(match[3])
    if port > _LAST_PORT:
        raise _bad(text, f"the highest port is {_LAST_PORT}")
    if ipv6 is not None:
        try:
            socket.inet_pton(socket.AF_INET6, ipv6.partition("%")[0])
        except (OSError, ValueError) as error:
            raise _bad(text, "what stands in the brackets is no IPv6 address") from error
        return ipv6, port
    if name and not _NAME.fullmatch(name):
        raise _bad(text, "the host is neither a name nor an IP address")
    return name, port


def listen(text: str) -> socket.socket:
    """Return a non-blocking socket that listens there.

    All interfaces (`:PORT`, `[::]:PORT`) means IPv6 and IPv4 in one socket, and IPv4 alone on a
    machine without IPv6. Of a name's addresses the first IPv4 one is taken, as Go does.

    Raises:
        UsageError: the text is no address.
        RunError: it cannot be listened on.
    """
    host, port = parse_address(text)
    try:
        listener = _bind_everywhere(port) if host in _EVERYWHERE else _bind(host, port)
    except (socket.gaierror, UnicodeError) as error:
        raise RunError(
            f"cannot listen on {text}: the host name is not known here; "
            f"give an IP address of this machine, or :{port} for all of them"
        ) from error
    except OSError as error:
        raise RunError(f"cannot listen on {text}: {_explained(error, port)}") from error
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    return listener


def _bind(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    family, _, _, _, address = found[0]
    return socket.create_server(address, family=family, backlog=_BACKLOG)


def _bind_everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
            )
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
    return socket.create_server(("0.0.0.0", port), backlog=_BACKLOG)  # noqa: S104 - asked for


def _bad(text: str, remedy: str) -> UsageError:
    return UsageError(f"--web.listen-address: {text!r} is no address; {remedy}")


def _explained(error: OSError, port: int) -> str:
    """Return what is wrong and what mends it."""
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} is in use; stop the program that has it (`ss -ltnp sport = :{port}` "
            "names it), or choose another port with --web.listen-address"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            "permission denied; ports below 1024 need CAP_NET_BIND_SERVICE: "
            "choose a higher port with --web.listen-address"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            "this machine has no such address; give one that `ip address` shows, "
            f"or :{port} for all of them"
        )
    return f"{error.strerror or error}; choose another address with --web.listen-address"
