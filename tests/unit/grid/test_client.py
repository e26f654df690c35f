"""JSON over HTTP: TLS, proxies, redirects, and how long a server asks us to wait."""

from __future__ import annotations

import email.utils
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509

from fakes.certificates import LOCAL, issue
from fakes.grid_sites import Asked, Reply, Site, serving
from fakes.peers import answering
from jobwatt.grid.client import get_json
from jobwatt.grid.contract import GridError, Reason

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(lambda asked: Reply(200, {"path": asked.path}))) as made:
        yield made


def error_of(url: str, seconds: float = 5.0) -> GridError:
    with pytest.raises(GridError) as caught:
        get_json(url, {"auth-token": "secret"}, seconds)
    return caught.value


def test_json_comes_back(site: Site) -> None:
    """The answer of the server, which has seen our headers and who we are."""
    assert get_json(f"{site.url}/a?b=c", {"auth-token": "secret"}, 5.0) == {"path": "/a"}
    (asked,) = site.asked
    assert (asked.query, asked.headers["auth-token"]) == ({"b": "c"}, "secret")
    assert asked.headers["user-agent"].startswith("jobwatt/")


def test_a_redirect_within_the_server_is_followed(site: Site) -> None:
    """With the headers, since it is the same server."""

    def answer(asked: Asked) -> Reply:
        if asked.path == "/old":
            return Reply(301, b"", {"Location": "/new"})
        return Reply(200, {"path": asked.path})

    site.answer = answer
    assert get_json(f"{site.url}/old", {"auth-token": "secret"}, 5.0) == {"path": "/new"}
    assert [asked.headers["auth-token"] for asked in site.asked] == ["secret", "secret"]


def test_the_body_of_a_redirect_is_not_read(site: Site) -> None:
    """However long it is, or takes."""
    site.answer = lambda asked: (
        Reply(301, b"x" * 1000, {"Location": "/new"}, drip=0.1)
        if asked.path == "/old"
        else Reply(200, {"ok": True})
    )
    assert get_json(f"{site.url}/old", {}, 5.0) == {"ok": True}


def test_only_http_is_opened(tmp_path: Path) -> None:
    """Files and others are no address, whatever the configuration says."""
    (tmp_path / "x.json").write_text("{}")
    assert error_of(f"file://{tmp_path}/x.json").reason is Reason.REJECTED


def test_a_name_that_nobody_has() -> None:
    """A name that cannot be resolved is unreachable."""
    assert error_of("http://nowhere.invalid/").reason is Reason.UNREACHABLE


def test_the_environment_names_a_proxy(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """`http_proxy` is asked for the whole address, unless `no_proxy` has the host."""
    monkeypatch.setenv("http_proxy", site.url)
    get_json("http://api.example/v3?zone=FR", {}, 5.0)
    assert site.asked[0].target == "http://api.example/v3?zone=FR"
    monkeypatch.setenv("no_proxy", "127.1")  # as unlike this machine as another one's address
    get_json(f"{site.url.replace('127.0.0.1', '127.1')}/direct", {}, 5.0)
    assert site.asked[1].target == "/direct"


CERTIFICATE = issue("test", None, *LOCAL, x509.DNSName("provider.example"))


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Site, Path]]:
    """A site with TLS, and its certificate."""
    path = tmp_path / "both.pem"
    path.write_text(CERTIFICATE.key + CERTIFICATE.cert)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with serving(Site(lambda _: Reply(200, {"ok": True})), context) as made:
        yield made, path


def test_an_unknown_certificate_is_refused(secure: tuple[Site, Path]) -> None:
    """Nothing is asked of a server that cannot show who it is."""
    site, _ = secure
    error = error_of(f"{site.url}/x")
    assert error.reason is Reason.UNREACHABLE
    assert "self-signed certificate" in str(error)
    assert site.asked == []


def test_a_certificate_that_the_machine_trusts(
    secure: tuple[Site, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS works, and its deadline too."""
    site, path = secure
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    assert get_json(f"{site.url}/x", {}, 5.0) == {"ok": True}
    site.trouble = Reply(200, b"{" * 1000, drip=0.1)
    began = time.monotonic()
    assert error_of(f"{site.url}/x", 0.5).reason is Reason.TIMEOUT
    assert time.monotonic() - began < 5.5


def test_tls_through_a_proxy(secure: tuple[Site, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """`https_proxy` is asked for a tunnel and sees no more than the host; the deadline holds."""
    site, path = secure
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    target = ("127.0.0.1", int(site.url.rpartition(":")[2]))
    heads: list[bytes] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def relay(client: socket.socket) -> None:
        with client, socket.create_connection(target) as server:
            heads.append(client.recv(4096))
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join(5)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    relay(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
        url = "https://provider.example/x"
        assert get_json(url, {"auth-token": "secret"}, 5.0) == {"ok": True}
        assert heads[0].startswith(b"CONNECT provider.example:443")
        assert b"secret" not in heads[0]
        site.trouble = Reply(200, b"{" * 1000, drip=0.1)
        assert error_of(url, 0.5).reason is Reason.TIMEOUT
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("1e9", 86400.0),
        ("inf", 86400.0),
        ("nan", None),
        ("soon", None),
        ("", None),
    ],
)
def test_how_long_to_wait(site: Site, header: str, seconds: float | None) -> None:
    """A number of seconds, a day at the most."""
    site.trouble = Reply(429, b"", {"Retry-After": header})
    assert error_of(site.url).retry_after == seconds


def test_until_when_to_wait(site: Site) -> None:
    """`Retry-After` may be a date."""
    site.trouble = Reply(503, b"", {"Retry-After": email.utils.formatdate(time.time() + 600)})
    assert error_of(site.url).retry_after == pytest.approx(600, abs=10)


def test_headers_that_never_end() -> None:
    """A head that drips is ended by the deadline as a body is."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        answering(listener, b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    ):
        began = time.monotonic()
        error = error_of(f"http://127.0.0.1:{listener.getsockname()[1]}/", 0.5)
    assert error.reason is Reason.TIMEOUT
    assert time.monotonic() - began < 5.5


def test_what_is_not_http() -> None:
    """A server of another protocol is malformed."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        answering(listener, b"SSH-2.0-OpenSSH_9.2\r\n"),
    ):
        error = error_of(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    assert error.reason is Reason.MALFORMED
