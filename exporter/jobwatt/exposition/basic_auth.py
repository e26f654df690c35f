"""HTTP basic authentication against bcrypt hashes.

bcrypt is slow on purpose. It runs in one thread of its own, so that it never holds an answer back
and guessing never costs the node more than one CPU; who was right once is remembered and passes
without it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Executor
from http import HTTPStatus

__all__ = ["BasicAuth"]

_REMEMBERED = 256

_WAITING_PER_CLIENT = 8
"""So many unchecked passwords of one address may wait: others wait behind few guesses."""

_BCRYPT_BYTES = 72
"""What bcrypt looks at; Go and OpenBSD ignore the rest, newer releases of the library refuse it."""


class BasicAuth:
    """Who may come in; belongs to the event loop that calls `status`."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        """Take `{user: bcrypt hash}`, at least one and all of them valid."""
        self._hashes = {user.encode(): text.encode() for user, text in hashes.items()}
        self._salt = os.urandom(16)
        self._remembered: dict[bytes, None] = {}
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()
        self._pool: Executor | None = None

    async def status(self, authorization: str, client: str) -> HTTPStatus:
        """Judge an `Authorization` header ("" where there is none) sent from the address `client`.

        OK lets the request in, UNAUTHORIZED does not. TOO_MANY_REQUESTS: the client already has
        many passwords waiting to be checked.
        """
        credentials = _credentials(authorization)
        if credentials is None:
            return HTTPStatus.UNAUTHORIZED
        if self._digest(*credentials) in self._remembered:
            return HTTPStatus.OK
        if self._waiting[client] >= _WAITING_PER_CLIENT:
            return HTTPStatus.TOO_MANY_REQUESTS
        self._waiting[client] += 1
        try:
            loop = asyncio.get_running_loop()
            right = await loop.run_in_executor(self._executor(), self._check, *credentials)
        finally:
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]
        return HTTPStatus.OK if right else HTTPStatus.UNAUTHORIZED

    def close(self) -> None:
        """End the thread; checks that wait are dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _executor(self) -> Executor:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - at the first login

            self._pool = ThreadPoolExecutor(1, "basic-auth")
        return self._pool

    def _check(self, user: bytes, password: bytes) -> bool:
        """Check slowly, and remember who is right even where the client has left meanwhile."""
        import bcrypt  # noqa: PLC0415 - at the first login

        stored = self._hashes.get(user)
        # An unknown user is checked against somebody's hash, always the same one for the same
        # name: neither the time nor its spread tells which users there are.
        compared = stored or self._decoy(user)
        try:
            right = bcrypt.checkpw(password[:_BCRYPT_BYTES], compared)
        except ValueError:  # a zero byte, to some releases
            right = False
        if not right or stored is None:
            return False
        with self._lock:
            while len(self._remembered) >= _REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[self._digest(user, password)] = None
        return True

    def _decoy(self, user: bytes) -> bytes:
        hashes = list(self._hashes.values())
        return hashes[int.from_bytes(self._digest(user, b"")) % len(hashes)]

    def _digest(self, user: bytes, password: bytes) -> bytes:
        # A user's name holds no colon: the pair cannot be read in two ways.
        return hashlib.sha256(self._salt + user + b":" + password).digest()


def _credentials(authorization: str) -> tuple[bytes, bytes] | None:
    """Return user and password of a header `Basic <base64>`, None where it is something else."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    user, colon, password = decoded.partition(b":")
    return (user, password) if colon else None
