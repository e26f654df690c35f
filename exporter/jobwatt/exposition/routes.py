"""What is answered to which path, from the latest snapshot and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from jobwatt.exposition.page import CONTENT_SECURITY_POLICY, page
from jobwatt.exposition.render import Renderer
from jobwatt.exposition.server import Request, Response
from jobwatt.exposition.status import status
from jobwatt.snapshot import Snapshot
from jobwatt.units import NS

__all__ = ["Routes"]

STALLED_INTERVALS, STALLED_SECONDS = 10, 10.0
"""Sampling has stalled when the last sample is older than both."""


class Routes:
    """Answers requests; `latest` returns the snapshot of the moment."""

    def __init__(
        self, latest: Callable[[], Snapshot | None], metrics_path: str, interval_seconds: float
    ) -> None:
        self._latest = latest
        self._renderer = Renderer()
        self._metrics_path = metrics_path
        self._stalled_ns = round(max(STALLED_INTERVALS * interval_seconds, STALLED_SECONDS) * NS)
        self._started_ns = time.monotonic_ns()

    def answer(self, request: Request) -> Response:
        """Answer one request."""
        if request.path == self._metrics_path:
            return self._metrics(request)
        if request.path == "/":
            headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
            return Response(200, "text/html; charset=utf-8", page(self._metrics_path), headers)
        if request.path == "/api/v1/status":
            return self._status()
        if request.path == "/-/healthy":
            return self._healthy()
        if request.path == "/-/ready":
            ready = self._latest() is not None
            return _plain(200, "ready\n") if ready else _plain(503, "no sample yet\n")
        return _plain(404, f"nothing here; metrics are at {self._metrics_path}\n")

    def _metrics(self, request: Request) -> Response:
        snapshot = self._latest()
        if snapshot is None:
            return _plain(503, "no sample yet\n")
        body, headers = self._renderer.render(
            snapshot,
            request.headers.get("accept", ""),
            request.headers.get("accept-encoding", ""),
        )
        content_type = headers.pop("Content-Type")
        return Response(200, content_type, body, headers)

    def _status(self) -> Response:
        snapshot = self._latest()
        if snapshot is None:
            return _plain(503, "no sample yet\n")
        body = json.dumps(status(snapshot), separators=(",", ":")).encode()
        return Response(200, "application/json", body, {"Cache-Control": "no-store"})

    def _healthy(self) -> Response:
        snapshot = self._latest()
        last_ns = self._started_ns if snapshot is None else snapshot.monotonic_ns
        age_ns = time.monotonic_ns() - last_ns
        if age_ns > self._stalled_ns:
            return _plain(503, f"sampling has stalled: last sample {age_ns / NS:.1f} s ago\n")
        return _plain(200, "healthy\n")


def _plain(code: int, text: str) -> Response:
    return Response(code, "text/plain; charset=utf-8", text.encode())
