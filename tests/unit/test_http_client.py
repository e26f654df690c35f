from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fakes.certificates import LOCAL, issue
from fakes.peers import answering
from jobwatt.errors import Failed, TimedOut
from jobwatt.http_client import (
    Answer,
    Unreachable,
    ask,
    basic_auth,
    is_local,
    split_url,
    without_password,
)

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
        port = self.headers["Host"].rpartition(":")[2]
        redirects = {
            "/moved": "/told",
            # Another name of the same machine is another server.
            "/elsewhere": f"http://u:p@localhost:{port}/told?x",
            "/nowhere": "http://[",
        }
        if self.path in redirects:
            return b"", {"Location": redirects[self.path]}
        match self.path:
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


@contextmanager
def dripping(begin: bytes, drop: bytes) -> Iterator[str]:
    """A server that says one thing, and then another one again and again."""
    with socket.create_server(("127.0.0.1", 0)) as listener, answering(listener, begin, drop):
        yield f"127.0.0.1:{listener.getsockname()[1]}"


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
    """A redirect is followed within the server only; a question with a body follows none."""
    secret = {"Authorization": "Bearer t0k"}
    for path in ("/told", "/moved"):
        assert asked(f"http://{address}{path}", headers=secret).body == b"Bearer t0k"
    assert asked(f"http://{address}/moved", headers=secret, data=b"x").status == 302
    elsewhere = asked(f"http://{address}/elsewhere", headers=secret)
    assert (elsewhere.status, elsewhere.body) == (302, b"")
    assert elsewhere.elsewhere == f"http://localhost:{address.rpartition(':')[2]}"
    assert asked(f"http://{address}/nowhere").elsewhere == ""


HEAD = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "a head": ("http", HEAD, b"X: y\r\n", "nothing within 0.3 s"),
    "a body": ("http", HEAD + b"Content-Length: 999\r\n\r\n", b"x", "no whole answer within"),
    "TLS": ("https", b"\x16\x03\x03\x40\x00", b"\x02", "nothing within 0.3 s"),
}


@pytest.mark.parametrize("what", DRIPS)
def test_time_is_limited_as_a_whole(what: str) -> None:
    """However often a little comes."""
    scheme, begin, drop, words = DRIPS[what]
    begun = time.monotonic()
    with dripping(begin, drop) as address, pytest.raises(TimedOut, match=words):
        ask(f"{scheme}://{address}/", timeout=0.3, most_bytes=9999)
    assert time.monotonic() - begun < 10


def test_a_proxy_has_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor has its answer to a request for a tunnel."""
    begun = time.monotonic()
    with dripping(HEAD, b"X: y\r\n") as address:
        monkeypatch.setenv("https_proxy", f"http://{address}")
        with pytest.raises(TimedOut):
            ask("https://provider.example/", timeout=0.3, most_bytes=99)
    assert time.monotonic() - begun < 10


def test_a_refusal_says_it_by_its_status() -> None:
    """Its body is read where it is asked for only."""
    page = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 999\r\n\r\n"
    with dripping(page, b"x") as address:
        answer = ask(f"http://{address}/", timeout=10, most_bytes=9999)
    assert (answer.status, answer.body) == (403, b"")
    with dripping(page, b"x") as address, pytest.raises(TimedOut):
        ask(f"http://{address}/", timeout=0.3, most_bytes=9999, error_bodies=True)


def test_no_secret_is_told(address: str) -> None:
    """Neither one that cannot be sent, nor what a stranger says."""
    with pytest.raises(Failed, match=r"^broken HTTP \(ValueError\)$") as caught:
        asked(f"http://{address}/", headers={"Authorization": "s3cret\n"})
    assert caught.value.__suppress_context__
    with dripping(b"s3cret\r\n\r\n", b"") as stranger, pytest.raises(Failed) as caught:
        asked(f"http://{stranger}/")
    assert str(caught.value) == "broken HTTP (BadStatusLine)"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/", "Connection refused"),
        ("http://a..b/", "no name of a host"),
    ],
)
def test_nobody_there(url: str, words: str) -> None:
    """In words, which leave the address to the caller."""
    with pytest.raises(Unreachable, match=words) as caught:
        asked(url)
    assert url not in str(caught.value)


def test_only_the_web_is_asked(tmp_path: Path) -> None:
    """Whoever asks for a file has made a mistake."""
    with pytest.raises(ValueError, match="is no address like"):
        asked(f"file://{tmp_path}")


def test_name_and_password() -> None:
    """RFC 7617's own example with letters of UTF-8."""
    assert basic_auth("test", "123\u00a3") == "Basic dGVzdDoxMjPCow=="


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
