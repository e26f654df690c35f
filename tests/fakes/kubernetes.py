"""An API server, as far as pods of a node go: lists and watches over real HTTPS, and its troubles.

What it sends is what the real one sends: a list with its version, then one JSON object a line,
chunked; bookmarks; an ERROR event, or a plain 410, for a version that it has forgotten.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOKEN = "eyJhbGciOi.made.up"


def pod(  # a test names what it is about
    name: str = "bert-0",
    uid: str = "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
    *,
    namespace: str = "ml",
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    owner: tuple[str, str, str] | None = None,
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A pod as the API writes it; `owner` is kind, name and uid of its controller."""
    meta: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "uid": uid,
        "creationTimestamp": "2026-11-29T10:00:00Z",
        "labels": labels or {},
        "annotations": annotations or {},
    }
    if owner is not None:
        kind, owner_name, owner_uid = owner
        meta["ownerReferences"] = [
            {"apiVersion": "x/v1", "kind": "Other", "name": "o", "uid": "u"},
            {
                "apiVersion": "batch/v1",
                "kind": kind,
                "name": owner_name,
                "uid": owner_uid,
                "controller": True,
                "blockOwnerDeletion": True,
            },
        ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "x"}], **(spec or {})},
        "status": {"phase": "Running", "startTime": "2026-11-29T10:00:05Z", **(status or {})},
    }


@dataclass
class Trouble:
    """An answer that is none."""

    status: int
    body: str = '{"kind":"Status","status":"Failure","message":"made up"}'
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class Asked:
    """One request."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def watch(self) -> bool:
        """Whether it is a watch."""
        return self.query.get("watch") == "true"


class FakeApi:
    """The server: what it holds, what it was asked, and what it is to do wrong."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.asked: list[Asked] = []
        self.troubles: list[Trouble] = []
        self.watch_trouble: Trouble | None = None  # of every watch
        self.gone_by_status = False
        self.empty_watches = 0
        self._changed = threading.Condition()
        self._objects: dict[str, dict[str, Any]] = {}
        self._events: list[tuple[int, dict[str, Any]]] = []
        self._version = 1000
        self._oldest = 1000
        self.epoch = 0
        self._cut = False
        self._closed = False

    # --- what tests do --------------------------------------------------------------------------

    def put(self, *objects: dict[str, Any]) -> None:
        """Create or change pods."""
        for tree in objects:
            uid = tree["metadata"]["uid"]
            self._tell("MODIFIED" if uid in self._objects else "ADDED", tree)
            self._objects[uid] = tree

    def delete(self, uid: str) -> None:
        """Delete a pod."""
        self._tell("DELETED", self._objects.pop(uid))

    def bookmark(self) -> None:
        """Tell watchers where they stand, and nothing else."""
        self._tell("BOOKMARK", {"kind": "Pod", "metadata": {}})

    def forget(self, *deleted: str) -> None:
        """Forget all versions before the one after now, and end the watches.

        Pods that are deleted meanwhile are in no event any more.
        """
        with self._changed:
            for uid in deleted:
                del self._objects[uid]
            self._version += 10
            self._oldest = self._version
            self._events.clear()
            self.epoch += 1
            self._changed.notify_all()

    def end_watches(self, *, within_a_line: bool = False) -> None:
        """End the watches as after their timeout, or cut the connection within a line."""
        with self._changed:
            self._cut = within_a_line
            self.epoch += 1
            self._changed.notify_all()

    def close(self) -> None:
        """End all watches, also those that begin from now on."""
        self._closed = True
        self.end_watches()

    @property
    def version(self) -> str:
        """The latest version."""
        return str(self._version)

    def _tell(self, kind: str, tree: dict[str, Any]) -> None:
        with self._changed:
            self._version += 1
            tree = json.loads(json.dumps(tree))
            tree["metadata"]["resourceVersion"] = str(self._version)
            self._events.append((self._version, {"type": kind, "object": tree}))
            self._changed.notify_all()

    # --- what the server does -------------------------------------------------------------------

    def list(self) -> dict[str, Any]:
        """The list, in the order of the real one: what it is first, its items last."""
        return {
            "kind": "PodList",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": self.version},
            "items": list(self._objects.values()) or None,
        }

    def follow(self, since: int, epoch: int) -> Iterator[bytes]:
        """The lines of a watch that was asked for in an epoch; ends when it is told to."""
        if self.empty_watches:
            self.empty_watches -= 1
            return
        with self._changed:
            while True:
                news = [event for version, event in self._events if version > since]
                for event in news:
                    since = int(event["object"]["metadata"]["resourceVersion"])
                    yield json.dumps(event).encode() + b"\n"
                if epoch != self.epoch or self._closed:
                    if self._cut:
                        yield b'{"type":"ADDED","object":{"metadata":{"name":"half'
                        raise ConnectionAbortedError
                    return
                if since < self._oldest:
                    yield json.dumps({"type": "ERROR", "object": GONE}).encode() + b"\n"
                    return
                self._changed.wait(10)


GONE = {
    "kind": "Status",
    "status": "Failure",
    "message": "too old resource version",
    "reason": "Expired",
    "code": 410,
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: FakeApi

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        asked = Asked(parts.path, query, dict(self.headers))
        # What a test does once it sees that this was asked comes after it.
        epoch, trouble = self.api.epoch, self._trouble(asked)
        self.api.asked.append(asked)
        if trouble is not None:
            if trouble.seconds:
                threading.Event().wait(trouble.seconds)
            self._say(trouble.status, trouble.body.encode(), trouble.headers)
        elif not asked.watch:
            self._say(200, json.dumps(self.api.list()).encode(), {})
        else:
            self._stream(int(query["resourceVersion"]), epoch)

    def _trouble(self, asked: Asked) -> Trouble | None:
        if self.api.troubles:
            return self.api.troubles.pop(0)
        if asked.watch and self.api.watch_trouble is not None:
            return self.api.watch_trouble
        if asked.headers.get("Authorization") != f"Bearer {self.api.token}":
            return Trouble(401, '{"message":"Unauthorized"}')
        if asked.query.get("fieldSelector") != "spec.nodeName=n1" and asked.path != "/pods":
            return Trouble(403, '{"message":"pods is forbidden at the cluster scope"}')
        since = int(asked.query.get("resourceVersion", "0"))
        if asked.watch and self.api.gone_by_status and since < self.api._oldest:
            return Trouble(410, json.dumps(GONE))
        return None

    def _say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, since: int, epoch: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json;stream=watch")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for line in self.api.follow(since, epoch):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes is no error."""


@contextmanager
def serving(api: FakeApi, folder: Path) -> Iterator[str]:
    """Serve over HTTPS; `folder` gets `ca.crt` and `token`. Yields the address."""
    certificate, key, authority = issue()
    for name, data in (("server.crt", certificate), ("server.key", key), ("ca.crt", authority)):
        (folder / name).write_bytes(data)
    (folder / "token").write_text(api.token + "\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    handler = type("Handler", (_Handler,), {"api": api})
    with _Server(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        api.close()
        server.shutdown()


def issue(host: str = "127.0.0.1") -> tuple[bytes, bytes, bytes]:
    """A server's certificate and key for an address, and who signed it, in PEM.

    Without an Authority Key Identifier, as many clusters' are.
    """
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "made-up authority")])
    now = dt.datetime.now(dt.UTC)

    def signed(
        subject: x509.Name, public: ec.EllipticCurvePublicKey, *extensions: x509.ExtensionType
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        made = builder.sign(authority_key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM)

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    return (
        signed(name, key.public_key(), address),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        signed(
            authority,
            authority_key.public_key(),
            x509.BasicConstraints(ca=True, path_length=0),
            x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()),
        ),
    )
