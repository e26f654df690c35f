"""The pages of a made-up site under one address.

- `/sd`: where they are, for Prometheus' http_sd_configs
- `/nodes/NODE/metrics`: one node, as its exporter would show it
- `/grid/metrics`: the nodes' electricity grids, as `jobwatt grid` would show them
- `/truth`: what each job has used so far, as JSON
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus

import jobwatt
from jobwatt.exposition.connection import Request, Response, plain
from jobwatt.exposition.grid_routes import GridRoutes
from jobwatt.exposition.render import Renderer
from jobwatt.grid.board import GridSnapshot, Site, Value
from jobwatt.grid.contract import Boundary, Intensity, Kind
from jobwatt.simulation.fleet import Fleet
from jobwatt.simulation.fleet_page import NodePages
from jobwatt.simulation.fleet_truth import truth

__all__ = ["SD_PATH", "FleetRoutes"]

SD_PATH = "/sd"
JSON = "application/json"


def _grid(fleet: Fleet) -> GridSnapshot:
    """Return the zones as the grid exporter has them: all values hold at all times."""
    zones = fleet.zones.items()
    return GridSnapshot(
        version=jobwatt.__version__,
        sites=tuple(Site(name, zone.pue, zone.price, zone.currency) for name, zone in zones),
        fixed=tuple(
            Value(
                name, "simulated", Intensity(zone.grams_per_kwh, Kind.AVERAGE, Boundary.LIFECYCLE)
            )
            for name, zone in zones
        ),
        readings=(),
        budgets=(),
    )


class FleetRoutes:
    """Answers requests about a site.

    Args:
        fleet: the site.
        clock: Unix time; the simulation begins now.
        metrics_path: under each node's path.
    """

    def __init__(
        self, fleet: Fleet, clock: Callable[[], float], metrics_path: str = "/metrics"
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._epoch = clock()
        # A renderer each: it keeps what stands before the numbers of the page before.
        self._pages = {
            f"/nodes/{name}{metrics_path}": (NodePages(fleet, node, self._epoch), Renderer())
            for name, node in fleet.nodes.items()
        }
        grid, self._grid_path = _grid(fleet), f"/grid{metrics_path}"
        self._grid = GridRoutes(lambda: grid, self._grid_path, clock)
        self._metrics_path = metrics_path

    def truth(self) -> bytes:
        """Return what each job has used so far, as JSON."""
        at = self._clock() - self._epoch
        return json.dumps(truth(self._fleet, at, self._epoch), indent=1).encode()

    def answer(self, request: Request) -> Response:
        """Answer one request."""
        if (found := self._pages.get(request.path)) is not None:
            return self._metrics(*found, request)
        if request.path == self._grid_path:
            return self._grid.answer(request)
        if request.path == SD_PATH:
            return Response(HTTPStatus.OK, JSON, self._targets(request.headers.get("host", "")))
        if request.path == "/truth":
            return Response(HTTPStatus.OK, JSON, self.truth())
        if request.path in {"/", "/-/healthy", "/-/ready"}:
            text = f"{len(self._pages)} simulated nodes; see {SD_PATH}, {self._grid_path}, /truth\n"
            return Response(HTTPStatus.OK, "text/plain; charset=utf-8", text.encode())
        return plain(HTTPStatus.NOT_FOUND)

    def _metrics(self, pages: NodePages, renderer: Renderer, request: Request) -> Response:
        snapshot = pages.at(self._clock() - self._epoch)
        if snapshot is None:
            return plain(HTTPStatus.SERVICE_UNAVAILABLE)
        accept = request.headers.get("accept", "")
        encoding = request.headers.get("accept-encoding", "")
        body, headers = renderer.render(snapshot, accept, encoding)
        return Response(HTTPStatus.OK, headers.pop("Content-Type"), body, headers)

    def _targets(self, host: str) -> bytes:
        groups = [
            {
                "targets": [host],
                "labels": {
                    "instance": name,
                    "__metrics_path__": f"/nodes/{name}{self._metrics_path}",
                },
            }
            for name in self._fleet.nodes
        ]
        return json.dumps(groups).encode()
