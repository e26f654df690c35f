"""Sites that answer as the providers of carbon intensities do, over real sockets."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "em-token-3f9a"
USER, PASSWORD = "ada", "wt-password-77"
HTML = b"<!doctype html><title>Sorry</title><h1>We are down for maintenance</h1>"


@dataclass(frozen=True)
class Asked:
    """A request."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    target: str


@dataclass(frozen=True)
class Reply:
    """An answer, and how it comes.

    `body` is JSON unless it is bytes. `wait` seconds pass before it, `drip` seconds after each of
    its bytes. `length` is a Content-Length that is not the body's.
    """

    status: int = 200
    body: object = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0
    drip: float = 0.0
    length: int | None = None


class Site:
    """What one server has been asked; `trouble` goes before its own answer."""

    def __init__(self, answer: Callable[[Asked], Reply]) -> None:
        self.answer = answer
        self.trouble: Reply | None = None
        self.asked: list[Asked] = []
        self.url = ""
        self.stop = threading.Event()

    def reply(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        return self.trouble or self.answer(asked)


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: value[0] for key, value in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.site.reply(Asked(parts.path, query, headers, self.path))
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.site.stop.wait(reply.wait)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if reply.length is None else reply.length))
        self.end_headers()
        if not reply.drip:
            self.wfile.write(body)
            return
        for byte in body:
            if self.site.stop.wait(reply.drip):
                return
            self.wfile.write(bytes([byte]))

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients leave early: that is what is tested."""


@contextmanager
def serving(site: Site, context: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Serve a site until the end of the block."""
    handler = type("Handler", (_Handler,), {"site": site})
    with _Server(("127.0.0.1", 0), handler) as server:
        scheme = "http"
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            scheme = "https"
        site.url = f"{scheme}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield site
        finally:
            site.stop.set()
            server.shutdown()
            thread.join()


def text(seconds: float, *, ending: str = "Z", timespec: str = "milliseconds") -> str:
    """Unix time as providers write it."""
    written = datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec)
    return written.replace("+00:00", ending)


def electricity_maps(zones: Mapping[str, float], now: Callable[[], float] = time.time) -> Site:
    """Electricity Maps v3; the current hour is estimated."""

    def answer(asked: Asked) -> Reply:
        if asked.headers.get("auth-token") != TOKEN:
            return Reply(401, {"error": "Invalid auth-token"})
        zone = asked.query.get("zone", "")
        if asked.path != "/v3/carbon-intensity/latest" or zone not in zones:
            return Reply(404, {"error": f"Zone {zone} does not exist."})
        hour = now() // 3600 * 3600
        return Reply(
            200,
            {
                "zone": zone,
                "carbonIntensity": zones[zone],
                "datetime": text(hour),
                "updatedAt": text(now()),
                "createdAt": text(hour - 86400),
                "emissionFactorType": asked.query["emissionFactorType"],
                "isEstimated": True,
                "estimationMethod": "TIME_SLICER_AVERAGE",
            },
        )

    return Site(answer)


def uk_carbon_intensity(
    forecast: float | None, actual: float | None, now: Callable[[], float] = time.time
) -> Site:
    """The Carbon Intensity API of Great Britain."""

    def answer(asked: Asked) -> Reply:
        if asked.path != "/intensity":
            error = {"code": "400 Bad Request", "message": "Please enter a valid path"}
            return Reply(400, {"error": error})
        begin = now() // 1800 * 1800
        period = {
            "from": text(begin, timespec="minutes"),
            "to": text(begin + 1800, timespec="minutes"),
            "intensity": {"forecast": forecast, "actual": actual, "index": "moderate"},
        }
        return Reply(200, {"data": [period]})

    return Site(answer)


def rte_eco2mix(taux_co2: float | None, now: Callable[[], float] = time.time) -> Site:
    """ODRÉ's Opendatasoft with éCO2mix; its newest quarter is 45 minutes old."""

    def answer(asked: Asked) -> Reply:
        if asked.path != "/api/explore/v2.1/catalog/datasets/eco2mix-national-tr/records":
            return Reply(404, {"error_code": "UnknownDataset", "message": "Unknown dataset"})
        if asked.query.get("where") != "taux_co2 is not null":
            return Reply(200, {"total_count": 1, "results": [{"date_heure": text(now())}]})
        at = text(now() // 900 * 900 - 2700, ending="+00:00", timespec="seconds")
        results = [{"date_heure": at, "taux_co2": taux_co2}]
        return Reply(200, {"total_count": 9000, "results": results})

    return Site(answer)


def watttime(pounds: float | None, now: Callable[[], float] = time.time) -> Site:
    """WattTime v3: a login, bearers that may expire, two regions of which one is not ours."""
    bearers: list[str] = []

    def answer(asked: Asked) -> Reply:
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if asked.path == "/login":
            if asked.headers.get("authorization") != f"Basic {basic}":
                return Reply(401, {"error": "Unauthorized"})
            bearers.append(f"bearer.{len(bearers)}.sig-nature")
            return Reply(200, {"token": bearers[-1]})
        if not bearers or asked.headers.get("authorization") != f"Bearer {bearers[-1]}":
            return Reply(401, {"error": "Unauthorized", "message": "Token expired"})
        if asked.query.get("region") != "CAISO_NORTH":
            return Reply(403, {"error": "Forbidden"})
        newest = now() // 300 * 300
        points: list[dict[str, Any]] = [
            {"point_time": text(at, ending="+00:00", timespec="seconds"), "value": value}
            for at, value in ((newest - 600, 1.0), (newest - 300, pounds), (newest - 900, 2.0))
        ]
        meta = {
            "region": "CAISO_NORTH",
            "signal_type": "co2_moer",
            "units": "lbs_co2_per_mwh",
            "data_point_period_seconds": 300,
            "model": {"date": "2023-03-01"},
        }
        return Reply(200, {"data": points, "meta": meta})

    site = Site(answer)
    site.expire = lambda: bearers.append("expired")  # type: ignore[attr-defined]
    return site
