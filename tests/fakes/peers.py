"""A peer that says the same whatever it is asked: for protocols that it does not speak well."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def answering(listener: socket.socket, answer: bytes | None, drop: bytes = b"") -> Iterator[None]:
    """Answer one connection, and close it; None never answers.

    `drop` follows twenty times a second, for as long as the client is there.
    """
    stop = threading.Event()
    listener.settimeout(30)

    def respond() -> None:
        with suppress(OSError):
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                if answer is None:
                    stop.wait()
                    return
                peer.sendall(answer)
                while drop and not stop.wait(0.05):
                    peer.sendall(drop)

    thread = threading.Thread(target=respond)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
