"""The pages of a made-up site under one address.

- `/sd`: where they are, for Prometheus' http_sd_configs
- `/nodes/NODE/metrics`: one node, as its exporter would show it
- `/grid/metrics`: the nodes' electricity grids, as `jobwatt grid` would show them
- `/truth`: what each job has used so far, as JSON
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http import HTTPStatus

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobwatt.exposition.connection import Request, Response, plain
from jobwatt.exposition.render import Renderer
from jobwatt.simulation.fleet import Fleet
from jobwatt.simulation.fleet_page import NodePages
from jobwatt.simulation.fleet_truth import truth

__all__ = ["FleetRoutes"]

JSON = "application/json"


class _Grid(Collector):
    """The series of the grid exporter."""

    def __init__(self, fleet: Fleet) -> None:
        self._zones = fleet.zones

    def collect(self) -> Iterator[Metric]:
        carbon = GaugeMetricFamily(
            "jobwatt_grid_carbon_intensity_grams_per_kwh",
            "Carbon intensity of a grid, made up.",
            labels=("grid_zone", "provider", "kind", "boundary", "year"),
        )
        pue = GaugeMetricFamily(
            "jobwatt_site_pue_ratio", "Power usage effectiveness, made up.", labels=("grid_zone",)
        )
        price = GaugeMetricFamily(
            "jobwatt_site_electricity_price_per_kwh",
            "Price of electricity, made up.",
            labels=("grid_zone", "currency"),
        )
        for name, zone in self._zones.items():
            carbon.add_metric((name, "simulated", "average", "lifecycle", ""), zone.grams_per_kwh)
            pue.add_metric((name,), zone.pue)
            price.add_metric((name, zone.currency), zone.price)
        yield from (carbon, pue, price)


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
        self._grid_path = f"/grid{metrics_path}"
        self._metrics_path = metrics_path

    def truth(self) -> bytes:
        """Return what each job has used so far, as JSON."""
        at = self._clock() - self._epoch
        return json.dumps(truth(self._fleet, at, self._epoch), indent=1).encode()

    def answer(self, request: Request) -> Response:
        """Answer one request."""
        if (found := self._pages.get(request.path)) is not None:
            return self._metrics(*found, request)
        if request.path == "/sd":
            return Response(HTTPStatus.OK, JSON, self._targets(request.headers.get("host", "")))
        if request.path == self._grid_path:
            return Response(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(_Grid(self._fleet)))
        if request.path == "/truth":
            return Response(HTTPStatus.OK, JSON, self.truth())
        if request.path in {"/", "/-/healthy", "/-/ready"}:
            text = f"{len(self._pages)} simulated nodes; see /sd, {self._grid_path}, /truth\n"
            return Response(HTTPStatus.OK, "text/plain; charset=utf-8", text.encode())
        return plain(HTTPStatus.NOT_FOUND)

    def _metrics(self, pages: NodePages, renderer: Renderer, request: Request) -> Response:
        snapshot = pages.at(self._clock() - self._epoch)
        if snapshot is None:
            return plain(HTTPStatus.SERVICE_UNAVAILABLE)
        accept = request.headers.get("accept", "")
        encoding = request.headers.get("accept-encoding", "")
        body, headers = renderer.render(snapshot, accept, encoding)
        content_type = headers.pop("Content-Type")
        return Response(HTTPStatus.OK, content_type, body, headers)

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
