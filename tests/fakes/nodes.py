"""Nodes whose truth is known: their pages are drawn from a timetable of jobs, at each scrape."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

LINGER_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class TimedJob:
    """A job's part on one node: when it runs, in seconds after the nodes' begin, at which power."""

    node: str
    job_uid: str
    begin: float
    seconds: float
    watts: float
    gpus: int = 0
    idle_watts: float = 0.0
    budget: float | None = None
    unseen: float = 0.0
    """For so long after the nodes' begin its node does not show it yet."""

    @property
    def joules(self) -> float:
        """What it uses in all."""
        return self.watts * self.seconds

    def rows(self, age: float, began: float) -> Iterator[str]:
        """Its lines on its node's page, when the nodes are so old; `began` is their Unix time."""
        if age < self.unseen or not self.begin <= age < self.begin + self.seconds + LINGER_SECONDS:
            return
        spent = min(age - self.begin, self.seconds)
        key = f'job_uid="{self.job_uid}"'
        device = f'component="gpu",device="GPU-{self.node}",source="simulated"'
        yield f"jobwatt_job_energy_joules_total{{{key},{device}}} {self.watts * spent:.6f}"
        yield f"jobwatt_job_cpu_seconds_total{{{key}}} {spent:.6f}"
        yield f"jobwatt_job_start_timestamp_seconds{{{key}}} {began + self.begin:.6f}"
        yield f"jobwatt_job_measured_since_timestamp_seconds{{{key}}} {began + self.begin:.6f}"
        yield f'jobwatt_job_info{{{key},kind="run",job_name="made-up",user="ada"}} 1'
        if self.gpus:
            idle = self.idle_watts * spent
            yield f"jobwatt_job_gpu_idle_energy_joules_total{{{key}}} {idle:.6f}"
        if self.budget is not None:
            budget = f'{{{key},origin="operator"}} {self.budget}'
            yield f"jobwatt_job_energy_budget_joules{budget}"
        if spent < self.seconds:
            yield f"jobwatt_job_gpus{{{key}}} {self.gpus}"
        else:
            end = began + self.begin + self.seconds
            yield f"jobwatt_job_end_timestamp_seconds{{{key}}} {end:.6f}"


class Nodes(ThreadingHTTPServer):
    """Serves `/<node>/metrics`, and `/grid/metrics` for what a grid exporter would show."""

    daemon_threads = True

    def __init__(self, jobs: Iterable[TimedJob], zone: str = "", grid: str = "") -> None:
        """Begin now; `grid` is the grid exporter's page."""
        super().__init__(("127.0.0.1", 0), _Page)
        self.jobs, self._zone, self._grid = tuple(jobs), zone, grid
        self.began = time.time()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def names(self) -> list[str]:
        """The nodes."""
        return sorted({job.node for job in self.jobs})

    def scrape_configs(self, seconds: float) -> list[dict[str, object]]:
        """What Prometheus needs to scrape them all."""
        return [
            {
                "job_name": f"jobwatt-{name}",
                "scrape_interval": f"{seconds:g}s",
                "scrape_timeout": f"{seconds:g}s",
                "metrics_path": f"/{name}/metrics",
                "static_configs": [
                    {
                        "targets": [f"127.0.0.1:{self.server_port}"],
                        "labels": {"instance": name},
                    }
                ],
            }
            for name in [*self.names, "grid"]
        ]

    def page(self, name: str) -> str:
        """The page of a node now."""
        if name == "grid":
            return self._grid
        age = time.time() - self.began
        rows = [f'jobwatt_node_info{{grid_zone="{self._zone}"}} 1']
        for job in self.jobs:
            if job.node == name:
                rows += job.rows(age, self.began)
        return "\n".join(rows) + "\n"


class _Page(BaseHTTPRequestHandler):
    server: Nodes

    def do_GET(self) -> None:
        body = self.server.page(self.path.split("/")[1]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""
