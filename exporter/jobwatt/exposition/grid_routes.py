"""What the grid exporter answers to which path, from the latest snapshot and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable

from jobwatt.exposition.connection import Request, Response
from jobwatt.exposition.grid_page import CONTENT_SECURITY_POLICY, grid_page
from jobwatt.exposition.grid_samples import grid_samples
from jobwatt.exposition.render import Renderer
from jobwatt.grid.board import GridSnapshot

__all__ = ["GridRoutes"]


class GridRoutes:
    """Answers requests; `latest` returns the snapshot of the moment.

    Healthy and ready are one: what it needs is there at the start, and a provider that is down is
    no reason to start anew.
    """

    def __init__(
        self,
        latest: Callable[[], GridSnapshot],
        metrics_path: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._latest = latest
        self._renderer = Renderer()
        self._metrics_path = metrics_path
        self._clock = clock

    def answer(self, request: Request) -> Response:
        """Answer one request."""
        if request.path == self._metrics_path:
            return self._metrics(request)
        if request.path == "/":
            headers = {
                "Content-Security-Policy": CONTENT_SECURITY_POLICY,
                "Cache-Control": "no-store",
            }
            body = grid_page(self._latest(), self._clock(), self._metrics_path)
            return Response(200, "text/html; charset=utf-8", body, headers)
        if request.path in {"/-/healthy", "/-/ready"}:
            return _plain(200, f"{request.path.removeprefix('/-/')}\n")
        return _plain(404, f"nothing here; metrics are at {self._metrics_path}\n")

    def _metrics(self, request: Request) -> Response:
        body, headers = self._renderer.render_rows(
            grid_samples(self._latest(), self._clock()),
            request.headers.get("accept", ""),
            request.headers.get("accept-encoding", ""),
        )
        return Response(200, headers.pop("Content-Type"), body, headers)


def _plain(code: int, text: str) -> Response:
    return Response(code, "text/plain; charset=utf-8", text.encode())
