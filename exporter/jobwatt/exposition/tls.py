"""TLS for the server: a policy, and the context made of it that follows its files.

What a certificate manager replaces on disk (certificate, key, client CA) serves connections that
come a few seconds later. Where the new files do not fit together, the old ones stay in use and the
log says why.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobwatt.errors import ReadError, UsageError
from jobwatt.host.files import read_bytes

__all__ = ["Pem", "Tls", "TlsPolicy"]

log = logging.getLogger(__name__)

_CHECK_SECONDS = 2.0
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_NO_CERTIFICATE = "no PEM certificate in it; it must hold a block -----BEGIN CERTIFICATE-----"
_SAN_KINDS = {"DNS", "IP Address", "email", "URI"}


@dataclass(frozen=True, slots=True)
class Pem:
    """PEM text, inline or in a file.

    Attributes:
        where: the configuration file and the key in it, for messages.
        path: the file, None where the text is inline.
        inline: the text, where there is no file.
    """

    where: str
    path: Path | None = None
    inline: str = field(default="", repr=False)

    def read(self) -> bytes:
        """Return the text as it is now.

        Raises:
            UsageError: the file cannot be read.
        """
        if self.path is None:
            return self.inline.encode()
        try:
            if not self.path.is_file():
                raise self.error(f"{self.path} is no file; give the path of a PEM file")
            return read_bytes(self.path)
        except (ReadError, OSError, ValueError) as error:
            raise self.error(
                f"cannot read {error}; give the path of a PEM file that this user may read"
            ) from error

    def stamp(self) -> object:
        """Return something that differs once the file has been replaced or written to."""
        if self.path is None:
            return None
        try:
            now = self.path.stat()
        except (OSError, ValueError):
            return None
        return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns

    def error(self, problem: str) -> UsageError:
        """Return the error that names this text."""
        return UsageError(f"{self.where}: {problem}")


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """How to speak TLS, and with whom.

    Attributes:
        where: the configuration file and section, for messages.
        certificate: the server's, with intermediate ones.
        key: its private key.
        client_ca: who signs the certificates of clients.
        verify: whether clients show one.
        oldest: the lowest version.
        newest: the highest version.
        ciphers: of TLS 1.2, in OpenSSL's names; empty for Python's choice.
        server_prefers: the order of `ciphers` rules, not the client's.
        curves: in OpenSSL's names; empty for OpenSSL's choice.
        allowed_sans: one of them must be a subject alternative name of the client; empty for any.
    """

    where: str
    certificate: Pem
    key: Pem
    client_ca: Pem | None = None
    verify: ssl.VerifyMode = ssl.CERT_NONE
    oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: tuple[str, ...] = ()
    server_prefers: bool = True
    curves: tuple[str, ...] = ()
    allowed_sans: frozenset[str] = frozenset()


class Tls:
    """The context for the next connection, and the last word on who connects."""

    def __init__(self, policy: TlsPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the files of the policy.

        Raises:
            UsageError: a file or a setting is wrong.
        """
        self._policy = policy
        self._clock = clock
        self._stamp = self._look()
        self._context = _context(policy)
        self._looked = clock()

    def context(self) -> ssl.SSLContext:
        """Return the context of the files as they were a few seconds ago at most."""
        now = self._clock()
        if now - self._looked >= _CHECK_SECONDS:
            self._looked = now
            # Looked at before it is read: what changes in between is seen the next time.
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self._reload()
        return self._context

    def admits(self, certificate: Mapping[str, Any] | None) -> bool:
        """Return whether a client with this verified certificate (`getpeercert()`) may come in."""
        allowed = self._policy.allowed_sans
        if not allowed:
            return True
        names = (certificate or {}).get("subjectAltName", ())
        return any(_san(kind, name) in allowed for kind, name in names if kind in _SAN_KINDS)

    def _look(self) -> object:
        policy = self._policy
        return tuple(p and p.stamp() for p in (policy.certificate, policy.key, policy.client_ca))

    def _reload(self) -> None:
        try:
            self._context = _context(self._policy)
        except UsageError as error:
            log.error("%s (the previous certificates stay in use)", error)  # noqa: TRY400 - it is plain
        else:
            log.info("%s: the certificates were replaced", self._policy.where)


def _san(kind: str, name: str) -> str:
    """Return a name as Go writes it: an IPv6 address in its short form."""
    if kind == "IP Address" and ":" in name:
        try:
            return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, name))
        except OSError:
            return name
    return name


def _context(policy: TlsPolicy) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = policy.oldest
    context.maximum_version = policy.newest
    context.set_alpn_protocols(["http/1.1"])
    if policy.server_prefers:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        if policy.ciphers:
            context.set_ciphers(":".join(policy.ciphers))
    except ssl.SSLError as error:
        raise UsageError(
            f"{policy.where}.cipher_suites: OpenSSL here offers none of these; leave the key out"
        ) from error
    _set_curves(context, policy)
    _load_certificate(context, policy)
    if policy.client_ca is not None:
        _load_client_ca(context, policy.client_ca)
    context.verify_mode = policy.verify
    return context


def _set_curves(context: ssl.SSLContext, policy: TlsPolicy) -> None:
    if not policy.curves:
        return
    # Python 3.15 takes a list; before, it takes one.
    set_groups = getattr(context, "set_groups", None)
    try:
        if set_groups is not None:
            set_groups(":".join(policy.curves))
        elif len(policy.curves) == 1:
            context.set_ecdh_curve(policy.curves[0])
        else:
            raise UsageError(
                f"{policy.where}.curve_preferences: this Python can be told one curve only; "
                "name one, or leave the key out"
            )
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(
            f"{policy.where}.curve_preferences: OpenSSL here does not know these; leave the key out"
        ) from error


def _load_certificate(context: ssl.SSLContext, policy: TlsPolicy) -> None:
    certificate, key = policy.certificate.read(), policy.key.read()
    if not _CERTIFICATE.search(certificate):
        raise policy.certificate.error(_NO_CERTIFICATE)
    if b"PRIVATE KEY-----" not in key:
        raise policy.key.error("no PEM private key in it; it must hold a block PRIVATE KEY")

    def passphrase() -> str:
        raise policy.key.error(
            "the private key is encrypted and nobody is here to be asked for its passphrase; "
            "decrypt it with `openssl pkey`"
        )

    try:
        # OpenSSL takes paths only. Memory has a path too, and secrets stay off the disk.
        with _memory_file(certificate) as certificate_path, _memory_file(key) as key_path:
            context.load_cert_chain(certificate_path, key_path, passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise policy.key.error(
                "the private key does not belong to the certificate; give the two that were "
                "issued together"
            ) from error
        raise policy.certificate.error(
            f"OpenSSL does not take this certificate and its key ({error.reason or error}); "
            "look at them with `openssl x509` and `openssl pkey`"
        ) from error
    except OSError as error:
        raise policy.certificate.error(
            f"the certificate cannot be handed to OpenSSL ({error.strerror}); /proc must be mounted"
        ) from error


def _load_client_ca(context: ssl.SSLContext, source: Pem) -> None:
    # Only the blocks: bundles often carry comments that are not ASCII.
    blocks = _CERTIFICATE.findall(source.read())
    if not blocks:
        raise source.error(_NO_CERTIFICATE)
    try:
        context.load_verify_locations(cadata=b"\n".join(blocks).decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise source.error(
            f"OpenSSL does not take these certificates ({error}); look at them with `openssl x509`"
        ) from error
    # As in Go, whatever stands in the file is trusted, be it a root or not.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


@contextmanager
def _memory_file(data: bytes) -> Iterator[str]:
    """Yield the path of a file without a disk that holds the data."""
    fd = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
