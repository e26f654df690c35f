"""The HTTP server, over real sockets: what it answers, and what clients cannot do to it."""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobwatt.errors import RunError, UsageError
from jobwatt.exposition import listen
from jobwatt.exposition.connection import Connection
from jobwatt.exposition.server import Limits, Request, Response, Server

BIG = bytes(range(256)) * 65536  # 16 MiB, more than any socket buffer takes
GET = b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"

Starter = Callable[..., Server]


def handle(request: Request) -> Response:
    """Answer with the request itself, or with what the path asks for."""
    if request.path == "/big":
        return Response(200, "application/octet-stream", BIG)
    if request.path == "/bug":
        raise ZeroDivisionError("a bug in the handler")
    if request.path == "/split":
        return Response(200, "text/plain", b"", {"X-Split": "a\r\nSet-Cookie: b"})
    if request.path == "/teapot":
        return Response(299, "text/plain", b"short", {"X-Content-Type-Options": "own"})
    body = {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": dict(request.headers),
    }
    return Response(200, "application/json", json.dumps(body).encode())


@pytest.fixture
def start() -> Iterator[Starter]:
    """Start servers that end with the test."""
    with ExitStack() as stack:

        def starter(address: str = "127.0.0.1:0", **limits: float) -> Server:
            server = Server(address, handle, limits=Limits(**limits) if limits else None)  # type: ignore[arg-type]
            server.start()
            stack.callback(server.stop)
            return server

        yield starter


def connect(server: Server) -> socket.socket:
    """Open a connection that no test waits for longer than ten seconds."""
    return socket.create_connection(server.address, timeout=10)


def read_all(sock: socket.socket) -> bytes:
    """Read until the server closes; a reset counts as closed."""
    data = b""
    with suppress(ConnectionError):
        while chunk := sock.recv(65536):
            data += chunk
    return data


def send(server: Server, data: bytes) -> bytes:
    """Send bytes, end the sending side, and return all that comes back."""
    with connect(server) as sock:
        with suppress(OSError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def get(server: Server, path: str = "/", method: str = "GET") -> tuple[int, bytes]:
    """Return status and body of one ordinary request."""
    status, _, body = fetch(server, path, method)
    return status, body


def fetch(
    server: Server, path: str = "/", method: str = "GET"
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Return status, headers and body of one ordinary request."""
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def eventually(condition: Callable[[], bool]) -> bool:
    """Return whether the condition comes true within five seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


class TestAnswers:
    def test_get_reaches_the_handler_with_all_its_parts(self, start: Starter) -> None:
        """Method, path, query and headers arrive; header names are lower-case, repeats joined."""
        answer = send(
            start(),
            b"GET /a%20b?c=d&e HTTP/1.1\r\nHost: node\r\nX-Two: 1\r\nx-two: 2\r\n"
            b"Connection: close\r\n\r\n",
        )
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(body) == {
            "method": "GET",
            "path": "/a%20b",
            "query": "c=d&e",
            "headers": {"host": "node", "x-two": "1, 2", "connection": "close"},
        }

    def test_headers_of_an_answer(self, start: Starter) -> None:
        """An answer has type, exact length, date, and forbids content sniffing."""
        status, headers, body = fetch(start())
        assert status == 200
        assert headers["Content-Type"] == "application/json"
        assert headers["Content-Length"] == str(len(body))
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["Date"])

    def test_the_handlers_headers_win(self, start: Starter) -> None:
        """A header that the handler sets replaces the server's, and any status can be sent."""
        status, headers, body = fetch(start(), "/teapot")
        assert (status, body) == (299, b"short")
        assert headers.get_all("X-Content-Type-Options") == ["own"]

    def test_head_has_the_length_and_no_body(self, start: Starter) -> None:
        """HEAD is answered as GET is, without the body, and the connection goes on."""
        with connect(start()) as sock:
            sock.sendall(b"HEAD /big HTTP/1.1\r\nHost: node\r\n\r\n" + GET)
            sock.shutdown(socket.SHUT_WR)
            first, second = read_all(sock).split(b"HTTP/1.1 200 OK\r\n")[1:]
        assert f"Content-Length: {len(BIG)}".encode() in first
        assert first.endswith(b"\r\n\r\n")
        assert b'"method": "GET"' in second

    def test_a_connection_serves_many_requests(self, start: Starter) -> None:
        """Keep-alive: one connection, one request after another."""
        connection = http.client.HTTPConnection(*start().address, timeout=10)
        connection.connect()
        sock = connection.sock
        for number in range(20):
            connection.request("GET", f"/{number}")
            assert json.loads(connection.getresponse().read())["path"] == f"/{number}"
            assert connection.sock is sock
        connection.close()

    def test_pipelined_requests_are_answered_in_order(self, start: Starter) -> None:
        """A hundred requests at once get a hundred answers, in their order."""
        requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: node\r\n\r\n" % n for n in range(100))
        paths = re.findall(rb'"path": "/(\d+)"', send(start(), requests))
        assert paths == [b"%d" % n for n in range(100)]

    def test_an_old_client_gets_an_answer_and_the_end(self, start: Starter) -> None:
        """HTTP/1.0 needs no Host and its connection closes."""
        with connect(start()) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert read_all(sock).startswith(b"HTTP/1.1 200 OK\r\n")

    def test_the_absolute_form(self, start: Starter) -> None:
        """A target with scheme and host is the path behind them."""
        server = start()
        assert b'"path": "/metrics"' in send(
            server, b"GET http://node:9743/metrics HTTP/1.1\r\nHost: node\r\n\r\n"
        )
        assert b'"path": "/"' in send(server, b"GET HTTP://node?x HTTP/1.1\r\nHost: node\r\n\r\n")

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
    def test_other_methods_are_refused(self, start: Starter, method: str) -> None:
        """Anything but GET and HEAD gets 405 and is told what is allowed."""
        status, headers, body = fetch(start(), "/", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
        assert body == b"405 Method Not Allowed\n"

    @pytest.mark.parametrize(
        "head", [b"Content-Length: 500000\r\n", b"Transfer-Encoding: chunked\r\n"]
    )
    def test_a_body_is_never_read(self, start: Starter, head: bytes) -> None:
        """A request with a body is answered at once and the connection closes."""
        with connect(start(discard_seconds=0.2)) as sock:
            sock.sendall(b"GET /a HTTP/1.1\r\nHost: node\r\n" + head + b"\r\n")
            answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Connection: close" in answer

    def test_an_answer_to_an_upload_arrives_whole(self, start: Starter) -> None:
        """Bytes that nobody reads do not reset the connection before the answer is there."""
        server = start()
        for _ in range(20):
            with connect(server) as sock:
                sock.sendall(b"POST / HTTP/1.1\r\nHost: node\r\nContent-Length: 30000\r\n\r\n")
                sock.sendall(b"x" * 30000)
                assert sock.recv(65536).startswith(b"HTTP/1.1 405 ")


class TestBadRequests:
    @pytest.mark.parametrize(
        "data",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\x00" * 100 + b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"GET metrics HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
    )
    def test_garbage_is_a_bad_request(self, start: Starter, data: bytes) -> None:
        """What is no request gets 400 in plain text, and others are still served."""
        server = start()
        answer = send(server, data)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert answer.endswith(b"400 Bad Request\n")
        assert get(server)[0] == 200

    @pytest.mark.parametrize(
        "data",
        [
            b"GET /" + b"a" * 40000,
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 10000 + b"\r\n",
        ],
    )
    def test_a_head_has_a_bound(self, start: Starter, data: bytes) -> None:
        """A request's head beyond 16 KiB is refused with 431."""
        server = start()
        assert send(server, data).startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        assert get(server)[0] == 200

    def test_a_long_head_within_the_bound_is_read(self, start: Starter) -> None:
        """A head of 12 KiB is no problem."""
        head = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 12000 + b"\r\n\r\n"
        assert send(start(), head).startswith(b"HTTP/1.1 200 ")

    def test_a_client_that_leaves_half_way_is_no_error(
        self, start: Starter, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Clients that hang up, also without a word, leave no trace in the log."""
        server = start()
        for data in (b"", b"GET / HT", GET, b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"):
            with connect(server) as sock:
                sock.sendall(data)
                # Closing at once, with a reset.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert get(server)[0] == 200
        server.stop()
        assert not caplog.records


class TestHandlerErrors:
    def test_an_exception_is_logged_and_answered(
        self, start: Starter, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A bug in the handler: 500 in plain text, the traceback in the log, and on it goes."""
        server = start()
        status, body = get(server, "/bug")
        assert (status, body) == (500, b"500 Internal Server Error\n")
        (record,) = caplog.records
        assert (record.levelno, record.exc_info is not None) == (logging.ERROR, True)
        assert "'/bug'" in record.getMessage()
        assert get(server)[0] == 200

    def test_an_answer_that_cannot_be_sent(
        self, start: Starter, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A header that would split the answer in two is not sent: 500."""
        status, headers, body = fetch(start(), "/split")
        assert (status, body) == (500, b"500 Internal Server Error\n")
        assert "Set-Cookie" not in headers
        assert "cannot be sent" in caplog.text


class TestSlowClients:
    def test_three_hundred_slow_clients_keep_nobody_out(self, start: Starter) -> None:
        """With more slow clients than places, a scrape is answered at once."""
        server = start()
        with ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(connect(server)).sendall(b"GET / HTTP/1.1\r\nHo")
            for _ in range(3):
                before = time.monotonic()
                assert get(server)[0] == 200
                assert time.monotonic() - before < 1

    def test_slow_readers_keep_nobody_out(self, start: Starter) -> None:
        """With all places taken by clients that do not read their answer, a scrape is answered."""
        server = start(connections=8)
        with ExitStack() as stack:
            for _ in range(20):
                sock = stack.enter_context(connect(server))
                sock.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            before = time.monotonic()
            assert get(server)[0] == 200
            assert time.monotonic() - before < 1

    def test_the_longest_waiting_gives_way(self, start: Starter) -> None:
        """At the bound, the connection without a request for longest goes; a recent one stays."""
        server = start(connections=3)
        with connect(server) as oldest, connect(server) as used, connect(server) as young:
            time.sleep(0.05)
            used.sendall(GET)
            assert used.recv(65536).startswith(b"HTTP/1.1 200 ")
            with connect(server) as new:
                assert read_all(oldest) == b""
                for sock in (young, used, new):
                    sock.sendall(GET)
                    assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")

    def test_dripping_does_not_extend_the_time_for_a_head(self, start: Starter) -> None:
        """A byte now and then does not keep a connection beyond the limit."""
        server = start(head_seconds=0.4)
        before = time.monotonic()
        with connect(server) as sock:
            sock.settimeout(0.05)
            for byte in GET[:-2] * 10:
                try:
                    sock.sendall(bytes([byte]))
                    if not sock.recv(100):
                        break
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
            assert 0.3 < time.monotonic() - before < 1.2

    def test_a_second_request_has_the_same_limit(self, start: Starter) -> None:
        """The limit of a head holds for each request of a connection, pipelined or not."""
        server = start(head_seconds=0.2)
        for data in (GET + b"GE", GET + GET[:-2]):
            before = time.monotonic()
            with connect(server) as sock:
                sock.sendall(data)
                assert read_all(sock).count(b"HTTP/1.1 ") == 1
            assert time.monotonic() - before < 1

    def test_an_idle_connection_closes(self, start: Starter) -> None:
        """Between requests a client may rest, for a limited time."""
        server = start(head_seconds=0.1, idle_seconds=0.4)
        with connect(server) as sock:
            sock.sendall(GET)
            assert sock.recv(65536)
            time.sleep(0.2)
            sock.sendall(GET)
            assert sock.recv(65536)
            before = time.monotonic()
            assert read_all(sock) == b""
            assert 0.2 < time.monotonic() - before < 1.5

    def test_a_slow_reader_holds_up_nobody(self, start: Starter) -> None:
        """While a client does not read its large answer, others are served; then it is dropped."""
        server = start(write_seconds=1.5)
        with connect(server) as sock:
            sock.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            before = time.monotonic()
            for _ in range(10):
                assert get(server)[0] == 200
            assert time.monotonic() - before < 1.2
            assert eventually(lambda: not server._connections)
            assert len(read_all(sock)) < len(BIG)

    def test_a_large_answer_arrives_whole(self, start: Starter) -> None:
        """Sixteen mebibytes, in pieces, are the same on the other side."""
        assert get(start(), "/big") == (200, BIG)

    def test_without_file_descriptors_the_server_waits(
        self, start: Starter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Where no connection can be accepted, the log says it and the next one is served."""
        loop_class = asyncio.SelectorEventLoop
        accept = loop_class.sock_accept
        failures = [errno.EMFILE, errno.ECONNABORTED]

        async def failing(loop: asyncio.SelectorEventLoop, sock: socket.socket) -> object:
            if failures:
                raise OSError(failures.pop(0), "no descriptor left")
            return await accept(loop, sock)

        monkeypatch.setattr(loop_class, "sock_accept", failing)
        assert get(start())[0] == 200
        assert caplog.messages == ["cannot accept a connection: no descriptor left"]


class TestLife:
    def test_stop_frees_the_port(self, start: Starter) -> None:
        """After stop the same port can be taken at once, also where clients are connected."""
        server = start()
        _, port = server.address
        with connect(server) as sock:
            sock.sendall(GET)
            sock.recv(65536)
            server.stop()
            assert sock.recv(100) == b""
        assert get(start(f"127.0.0.1:{port}"))[0] == 200

    def test_stop_finishes_the_answer_under_way(self, start: Starter) -> None:
        """A client that is reading its answer gets all of it."""
        server = start()
        with connect(server) as sock:
            sock.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            first = sock.recv(1000)
            stopper = threading.Thread(target=server.stop)
            stopper.start()
            assert (first + read_all(sock)).endswith(BIG)
            stopper.join()

    def test_stop_does_not_wait_for_a_slow_reader(self, start: Starter) -> None:
        """A client that does not read cannot hold up the end."""
        server = start()
        with connect(server) as sock:
            sock.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            sock.recv(1000)
            before = time.monotonic()
            server.stop()
            assert time.monotonic() - before < 3

    def test_stop_is_safe_at_any_time(self, start: Starter) -> None:
        """Stopping before the start, at once after it, or twice does no harm."""
        Server("127.0.0.1:0", handle).stop()
        server = start()
        server.stop()
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            connect(server)

    def test_the_order_of_calls(self, start: Starter) -> None:
        """There is no address before the start, and one start only."""
        server = Server("127.0.0.1:0", handle)
        with pytest.raises(RuntimeError, match="not been started"):
            _ = server.address
        with pytest.raises(RuntimeError, match="starts once"):
            start().start()

    def test_an_end_that_nobody_asked_for_is_logged(
        self, start: Starter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Where accepting fails in a way that nobody foresaw, the log says so."""

        async def fail(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_accept", fail)
        server = start()
        assert eventually(lambda: "the web server has ended" in caplog.text)
        assert eventually(lambda: not server._thread or not server._thread.is_alive())
        server.stop()

    def test_a_connection_that_fails_is_logged(
        self, start: Starter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An error that nobody foresaw ends one connection, and the log says so."""
        monkeypatch.setattr(Connection, "_head", lambda *_: 1 / 0)
        server = start()
        assert send(server, GET) == b""
        assert eventually(lambda: "a connection has failed" in caplog.text)
        monkeypatch.undo()
        assert get(server)[0] == 200

    def test_what_asyncio_complains_about_is_logged(
        self, start: Starter, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An error within the event loop is one line in the log, and on it goes."""
        server = start()
        assert server._loop is not None
        server._loop.call_soon_threadsafe(lambda: 1 / 0)
        assert get(server)[0] == 200
        (message,) = caplog.messages
        assert message.endswith(": division by zero")

    def test_importing_it_is_light(self) -> None:
        """The server alone loads neither bcrypt nor yaml nor prometheus_client."""
        code = (
            "import sys, jobwatt.exposition.server as _; "
            "print([m for m in ('bcrypt', 'yaml', 'prometheus_client', 'email') "
            "if m in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        assert done.stdout == "[]\n"


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


def answers(host: str, port: int) -> bool:
    """Whether a server answers there."""
    with socket.create_connection((host, port), timeout=10) as sock:
        sock.sendall(GET)
        return sock.recv(100).startswith(b"HTTP/1.1 200 ")


class TestAddresses:
    @pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "0.0.0.0:0", ":0"])
    def test_ipv4(self, start: Starter, address: str) -> None:
        """An IPv4 address, a name, and all interfaces are reached over IPv4."""
        assert answers("127.0.0.1", start(address).address[1])

    @needs_ipv6
    @pytest.mark.parametrize("address", ["[::1]:0", "[::]:0", ":0"])
    def test_ipv6(self, start: Starter, address: str) -> None:
        """An IPv6 address and all interfaces are reached over IPv6."""
        assert answers("::1", start(address).address[1])

    def test_all_interfaces_without_ipv6(
        self, start: Starter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A machine without IPv6 listens on all IPv4 interfaces."""
        monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
        server = start(":0")
        assert server.address[0] == "0.0.0.0"
        assert answers("127.0.0.1", server.address[1])

    def test_all_interfaces_where_ipv6_is_switched_off(
        self, start: Starter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A kernel that knows IPv6 and has no address for it listens on all IPv4 interfaces."""
        create_server = socket.create_server

        def without_ipv6(address: tuple[str, int], **options: object) -> socket.socket:
            if options.get("family") == socket.AF_INET6:
                raise OSError(errno.EADDRNOTAVAIL, "no IPv6")
            return create_server(address, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: True)
        monkeypatch.setattr(socket, "create_server", without_ipv6)
        assert start(":0").address[0] == "0.0.0.0"

    @pytest.mark.parametrize(
        "address",
        [
            "",
            ":",
            "9743",
            "localhost",
            "127.0.0.1:",
            "127.0.0.1:x",
            ":65536",
            ":-1",
            "::1:9743",
            "[::1]",
            "[]:9743",
            "[127.0.0.1]:9743",
            "[zz]:9743",
            "a b:9743",
            "-:9743",
            "http://localhost:9743",
            ":٣",
            "a\0:1",
        ],
    )
    def test_bad_addresses(self, address: str) -> None:
        """What is no address is a usage error that names flag and text, before anything starts."""
        with pytest.raises(
            UsageError, match=r"--web\.listen-address: .* is no address; "
        ) as caught:
            Server(address, handle)
        assert repr(address) in str(caught.value)

    @pytest.mark.parametrize("wanted", ["127.0.0.1:{}", ":{}"])
    def test_a_port_in_use(self, start: Starter, wanted: str) -> None:
        """The message names the address and how to find who has the port."""
        address = wanted.format(start(wanted.format(0)).address[1])
        with pytest.raises(RunError) as caught:
            start(address)
        assert str(caught.value).startswith(f"cannot listen on {address}: port ")
        assert "is in use" in str(caught.value)
        assert "--web.listen-address" in str(caught.value)

    @pytest.mark.parametrize(
        ("error", "sentence"),
        [
            (OSError(errno.EACCES, "no"), "permission denied; ports below 1024"),
            (OSError(errno.EADDRNOTAVAIL, "no"), "this machine has no such address"),
            (OSError(errno.ENOBUFS, "no room"), "no room; choose another address"),
            (socket.gaierror(socket.EAI_NONAME, "no"), "the host name is not known here"),
            (UnicodeError("label too long"), "the host name is not known here"),
        ],
    )
    def test_an_address_that_cannot_be_had(
        self, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
    ) -> None:
        """Each failure to listen says what is wrong and what mends it."""

        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(RunError, match=f"^cannot listen on node:80: {sentence}"):
            Server("node:80", handle).start()

    def test_all_interfaces_and_a_port_that_is_denied(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What goes wrong for a reason other than IPv6 is not tried again over IPv4."""
        tried = []

        def fail(address: tuple[str, int], **_: object) -> None:
            tried.append(address)
            raise OSError(errno.EACCES, "no")

        monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: True)
        monkeypatch.setattr(socket, "create_server", fail)
        with pytest.raises(RunError, match="permission denied"):
            listen.listen(":80")
        assert tried == [("::", 80)]


class TestAnyBytes:
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Server]:
        """One server for all that hypothesis thinks of."""
        server = Server("127.0.0.1:0", handle, limits=Limits(head_seconds=1, discard_seconds=0.05))
        server.start()
        yield server
        server.stop()

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        data=st.one_of(
            st.binary(max_size=200),
            st.lists(
                st.one_of(
                    st.sampled_from(
                        [
                            GET,
                            b"GET /",
                            b" HTTP/1.1\r\n",
                            b"Host: a\r\n",
                            b"Content-Length: 3\r\n",
                            b"Transfer-Encoding: chunked\r\n",
                            b"Expect: 100-continue\r\n",
                            b"Upgrade: h2c\r\nConnection: upgrade\r\n",
                            b"Connection: close\r\n",
                            b"CONNECT a:1 HTTP/1.1\r\n",
                            b"HEAD / HTTP/1.0\r\n",
                            b"\r\n",
                            b"0\r\n\r\n",
                        ]
                    ),
                    st.binary(max_size=10),
                ),
                max_size=12,
            ).map(b"".join),
        )
    )
    def test_nothing_kills_it(self, server: Server, data: bytes) -> None:
        """Whatever bytes come, what goes back is HTTP or nothing, and the next client is served."""
        answer = send(server, data)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
        assert send(server, GET).startswith(b"HTTP/1.1 200 ")
