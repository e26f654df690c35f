from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from jobwatt.errors import RunError
from jobwatt.report.asking import Asker
from jobwatt.report.client import Access, Prometheus, TooMuch
from jobwatt.report.questions import RECORDED
from jobwatt.report.sample import Sample
from jobwatt.report.timerange import Window

HTML = b"<html>sign in</html>"


def vector(*samples: tuple[Mapping[str, str], str], **more: object) -> bytes:
    """An answer as Prometheus gives it."""
    result = [{"metric": labels, "value": [1_700_000_000, value]} for labels, value in samples]
    return json.dumps(
        {"status": "success", "data": {"resultType": "vector", "result": result}} | more
    ).encode()


def error(kind: str, words: str) -> bytes:
    """A refusal as Prometheus gives it."""
    return json.dumps({"status": "error", "errorType": kind, "error": words}).encode()


@dataclass
class Page:
    """One answer of a made-up server."""

    status: int = 200
    body: bytes = b""
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class Server:
    """What it answers, one after another, the last for ever; and what it was asked."""

    url: str = ""
    pages: list[Page] = field(default_factory=list)
    asked: list[tuple[str, dict[str, list[str]], dict[str, str]]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    """A local server that answers as it is told."""
    told = Server()
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            told.asked.append((self.path, parse_qs(form), dict(self.headers)))
            page = told.pages.pop(0) if len(told.pages) > 1 else told.pages[0]
            stop.wait(page.seconds)
            self.send_response(page.status)
            self.send_header("Content-Type", page.kind)
            self.send_header("Content-Length", str(len(page.body)))
            for name, value in page.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(page.body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        told.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield told
        stop.set()
        http.shutdown()
        thread.join()


TENANT = {"X-Scope-OrgID": "team-a"}


def prometheus(server: Server, path: str = "", timeout: float = 30) -> Prometheus:
    return Prometheus(f"{server.url}{path}", Access(), timeout, sleep=lambda _: None)


def test_question_and_answer(server: Server) -> None:
    """A form is posted below the path; values that are none are left out."""
    server.pages = [Page(body=vector(({"job_uid": "a"}, "1.5"), ({}, "NaN"), ({}, "+Inf")))]

    found = prometheus(server, "/prometheus/", timeout=45).query("up", 1_700_000_000_123)

    assert found == [Sample({"job_uid": "a"}, 1.5)]
    path, form, headers = server.asked[0]
    assert path == "/prometheus/api/v1/query"
    assert form == {"query": ["up"], "time": ["1700000000.123"], "timeout": ["45s"]}
    assert "Authorization" not in headers


def test_zipped_answer(server: Server) -> None:
    """Ten thousand jobs are megabytes."""
    body = gzip.compress(vector(({}, "2")))
    server.pages = [Page(body=body, headers={"Content-Encoding": "gzip"})]

    assert prometheus(server).query("up", 0) == [Sample({}, 2.0)]


@pytest.mark.parametrize(
    ("access", "header"),
    [
        (Access("u", "p:ä", headers=TENANT), "Basic dTpwOsOk"),
        (Access(token="t0k", headers=TENANT), "Bearer t0k"),
    ],
)
def test_authorization(server: Server, access: Access, header: str) -> None:
    """By name and password, or by a token; with a tenant's header."""
    server.pages = [Page(body=vector())]

    Prometheus(server.url, access, 30).query("up", 0)

    assert server.asked[0][2]["Authorization"] == header
    assert server.asked[0][2]["X-Scope-Orgid"] == "team-a"


def test_password_of_the_address_is_used_and_never_shown(server: Server) -> None:
    """Nor are other secrets."""
    server.pages = [Page(401, b"no", "text/plain")]
    url = server.url.replace("http://", "http://u:s3cret@")
    access = Access(token="", password="", headers={"X-Key": "k3y"})
    asked = Prometheus(url, access, 30)

    with pytest.raises(RunError) as caught:
        asked.query("up", 0)

    assert server.asked[0][2]["Authorization"] == "Basic dTpzM2NyZXQ="
    assert "s3cret" not in f"{caught.value} {asked.url} {access!r}"
    assert "k3y" not in f"{caught.value} {access!r}"


STRANGE = {
    "refused": (Page(401, HTML, "text/html"), "refuses (401 Unauthorized): give --prom"),
    "forbidden": (Page(403, HTML, "text/html"), "refuses (403 Forbidden)"),
    "a login page": (
        Page(200, HTML, "text/html"),
        "as Prometheus' API does (200 OK, text/html)",
    ),
    "not found": (Page(404, b"404 page not found", "text/plain"), "does the address lack a path"),
    "redirect": (
        Page(302, HTML, "text/html", {"Location": "https://login.example/"}),
        "it sends us elsewhere (302 Found)",
    ),
    "an error": (Page(500, HTML, "text/html"), "(500 Internal Server Error, text/html)"),
    "other JSON": (Page(200, b'["x"]'), "JSON of something else"),
    "deep JSON": (Page(200, b"[" * 100_000), "(200 OK, application/json)"),
    "no vector": (Page(200, b'{"status": "success", "data": {}}'), "its answer is no vector"),
    "a bad query": (
        Page(400, error("bad_data", "unknown function")),
        "cannot answer: unknown function",
    ),
    "broken zip": (Page(200, b"xx", headers={"Content-Encoding": "gzip"}), "a broken answer"),
}


@pytest.mark.parametrize("which", STRANGE)
def test_what_is_no_answer(server: Server, which: str) -> None:
    """It says what came instead, and what would help."""
    page, words = STRANGE[which]
    server.pages = [page]
    with pytest.raises(RunError) as caught:
        prometheus(server).query("up", 0)
    assert words in str(caught.value)
    assert server.url in str(caught.value)
    assert not isinstance(caught.value, TooMuch)


def test_nobody_there() -> None:
    """A refused connection, in words."""
    with pytest.raises(RunError, match=r"at http://127.0.0.1:1 does not answer: Conn"):
        Prometheus("http://127.0.0.1:1", Access(), 1).query("up", 0)


def test_slow_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever."""
    monkeypatch.setattr("jobwatt.report.client.GRACE_SECONDS", 0.0)
    server.pages = [Page(body=vector(), seconds=30)]
    begun = time.monotonic()
    with pytest.raises(RunError, match=r"does not answer: nothing within 0.2 s; give it longer"):
        prometheus(server, timeout=0.2).query("up", 0)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_busy_server_is_asked_again(server: Server, status: int) -> None:
    """Twice."""
    server.pages = [Page(status, HTML, "text/html")] * 2 + [Page(body=vector(({}, "1")))]
    assert prometheus(server).query("up", 0) == [Sample({}, 1.0)]

    server.pages = [Page(status, HTML, "text/html")]
    with pytest.raises(RunError, match=rf"\({status} "):
        prometheus(server).query("up", 0)
    assert len(server.asked) == 6


def test_warnings_are_kept(server: Server) -> None:
    """A store of Thanos that did not answer leaves a partial sum."""
    server.pages = [Page(body=vector(({}, "1"), warnings=["no store matched"]))]
    asked = prometheus(server)
    asked.query("up", 0)
    asked.query("up", 0)
    assert list(asked.warnings) == ["no store matched"]


TOO_BIG = {
    "Prometheus": Page(
        422,
        error(
            "execution",
            "query processing would load too many samples into memory in query execution",
        ),
    ),
    "Prometheus, slow": Page(503, error("timeout", "query timed out in expression evaluation")),
    "Mimir": Page(422, error("execution", "the query exceeded the maximum number of chunks")),
    "VictoriaMetrics": Page(
        422, error("422", "the number of matching unique timeseries exceeds 300000")
    ),
    "a gateway": Page(504, HTML, "text/html"),
}


@pytest.mark.parametrize("which", TOO_BIG)
def test_too_big(server: Server, which: str) -> None:
    """In the words of each."""
    server.pages = [TOO_BIG[which]]
    with pytest.raises(TooMuch):
        prometheus(server).query("up", 0)


def test_a_range_is_halved_until_it_fits(server: Server) -> None:
    """Every part is asked for once, and the next question begins with what has fitted."""
    refusal, good = TOO_BIG["Prometheus"], Page(body=vector(({"job_uid": "a"}, "1")))
    server.pages = [Page(body=vector(({}, "2"))), refusal, refusal, good]
    hours = 3_600_000
    told: list[float] = []
    asker = Asker(prometheus(server), Window(0, 8 * hours), told.append)

    found = list(asker.ask(RECORDED[0], ()))
    again = list(asker.ask(RECORDED[1], ()))

    ends = [float(form["time"][0]) / 3600 for _, form, _ in server.asked[1:]]
    assert ends == [8, 4, 2, 4, 8, 2, 4, 6, 8]
    assert (len(found), len(again)) == (3, 4)
    assert told == [0.25, 0.5, 1.0, 0.25, 0.5, 0.75, 1.0]


def test_jobs_are_halved_where_time_cannot_be(server: Server) -> None:
    """Then no part is left out either; what never fits is an error."""
    refusal, good = TOO_BIG["Prometheus"], Page(body=vector(({"job_uid": "a"}, "1")))
    server.pages = [Page(body=vector(({}, "2"))), refusal, good]
    told: list[float] = []
    asker = Asker(prometheus(server), Window(0, 1_800_000), told.append)

    found = list(asker.ask(RECORDED[0], ()))

    assert len(found) == 2
    matchers = ["!~" in form["query"][0] for _, form, _ in server.asked[2:]]
    assert sorted(matchers) == [False, True]
    assert told == [0.5, 1.0]
    server.pages = [refusal]
    with pytest.raises(TooMuch, match="too many samples"):
        list(asker.ask(RECORDED[0], ()))
