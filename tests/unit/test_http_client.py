from __future__ import annotations

import gzip
import ssl
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fakes.certificates import LOCAL, issue
from jobwatt.errors import Failed
from jobwatt.http_client import Answer, ask, is_local, split_url, without_password

AUTHORITY = issue("authority")
SERVER = issue("server", AUTHORITY, *LOCAL)


class Pages(BaseHTTPRequestHandler):
    """What the paths of a made-up server are."""

    def do_GET(self) -> None:
        body, headers = self.page()
        self.send_response(302 if "Location" in headers else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def page(self) -> tuple[bytes, Mapping[str, str]]:
        match self.path:
            case "/elsewhere":
                return b"", {"Location": "/told"}
            case "/told":
                return str(self.headers.get("Authorization")).encode(), {}
            case "/bomb":
                return gzip.compress(bytes(10_000_000)), {"Content-Encoding": "gzip"}
            case "/short":
                return b"abc", {"Content-Length": "10"}
            case "/half":
                return gzip.compress(b"abc" * 99)[:-9], {"Content-Encoding": "gzip"}
        return b"x" * 100, {}

    def log_message(self, *_: object) -> None:
        pass


def serving(tls: ssl.SSLContext | None = None) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as http:
        if tls is not None:
            http.socket = tls.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture
def address() -> Iterator[str]:
    """A server without TLS."""
    yield from serving()


@pytest.fixture
def tls_address(tmp_path: Path) -> Iterator[str]:
    """A server whose certificate an authority of its own has signed."""
    (tmp_path / "server.pem").write_text(SERVER.cert + SERVER.key)
    (tmp_path / "ca.pem").write_text(AUTHORITY.cert)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    yield from serving(context)


def asked(url: str, most_bytes: int = 1000, **more: object) -> Answer:
    return ask(url, timeout=10, most_bytes=most_bytes, **more)  # type: ignore[arg-type]


def test_certificate_of_a_trusted_authority(tls_address: str, tmp_path: Path) -> None:
    """And of no other."""
    trust = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    assert asked(f"https://{tls_address}/", tls=trust).body == b"x" * 100
    with pytest.raises(Failed, match="its certificate is not trusted"):
        asked(f"https://{tls_address}/")


def test_no_tls_where_it_is_expected(address: str) -> None:
    """In words."""
    with pytest.raises(Failed):
        asked(f"https://{address}/")


def test_secrets_stay_with_whom_they_are_for(address: str) -> None:
    """A redirect is followed without them; a question with a body follows none."""
    secret = {"Authorization": "Bearer t0k"}
    assert asked(f"http://{address}/told", secret_headers=secret).body == b"Bearer t0k"
    assert asked(f"http://{address}/elsewhere", secret_headers=secret).body == b"None"
    assert asked(f"http://{address}/elsewhere", secret_headers=secret, data=b"x").status == 302


@pytest.mark.parametrize("path", ["/", "/bomb"])
def test_too_long(address: str, path: str) -> None:
    """Also where it is short on its way."""
    with pytest.raises(Failed, match="an answer of more than"):
        asked(f"http://{address}{path}", most_bytes=99)


@pytest.mark.parametrize("path", ["/short", "/half"])
def test_broken_off(address: str, path: str) -> None:
    """Half an answer is none."""
    with pytest.raises(Failed, match="half an answer"):
        asked(f"http://{address}{path}")


@pytest.mark.parametrize(
    "url",
    ["", "localhost:9090", "ftp://x", "http://", "http://u:s3cret@", "http://[", "http://x:y"],
)
def test_what_is_no_address(url: str) -> None:
    """An example is shown, a password is not."""
    with pytest.raises(ValueError, match=r".") as caught:
        split_url(url, "http://localhost:9090")
    assert "s3cret" not in str(caught.value)


def test_address_to_show() -> None:
    """Without what may be a secret."""
    parts = split_url("https://u:p@[::1]:9090/prom?token=x#y", "")
    assert without_password(parts) == "https://[::1]:9090/prom"


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("127.0.0.7", True), ("::1", True), ("10.0.0.1", False), ("x.y", False)],
)
def test_local(host: str, local: bool) -> None:
    """No proxy is asked for this machine."""
    assert is_local(host) is local
