"""Real Prometheus servers over a site whose truth is known, under the project's rules.

Scrapes and rules come every 15 s, times the pace of `fleet_cases`.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from fleet_cases import AWAY, CASES, END, SCRAPE_TIMEOUT, SLOW, SLOW_SECONDS, fleet_of
from jobwatt.exposition.server import Request, Response, Server
from jobwatt.simulation.fleet import Fleet
from jobwatt.simulation.fleet_truth import truth
from jobwatt.simulation.fleet_web import SD_PATH, FleetRoutes
from servers import ROOT, Prometheus, answers, eventually, free_port, prometheus3, running

INTERVAL = 15.0
READY_SECONDS = 60.0

DELTA = "job_uid:jobwatt_job_energy_joules:delta"
JOBS = "jobwatt-jobs"
COUNTER = "jobwatt_job_energy_joules_total"


class Slow(ThreadingHTTPServer):
    """Nodes that take their time for a page."""

    daemon_threads = True

    def __init__(self, fleet: Fleet, seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _SlowPages)
        self.fleet, self.seconds = fleet, seconds
        self.routes = FleetRoutes(fleet, time.time)
        self.lock = threading.Lock()


class _SlowPages(BaseHTTPRequestHandler):
    server: Slow

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.server.lock:
            answer = self.server.routes.answer(Request("GET", self.path, "", headers))
        if self.path != SD_PATH:
            time.sleep(self.server.seconds)
        with contextlib.suppress(ConnectionError):  # the scraper has lost its patience
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@dataclass
class Replica:
    """A Prometheus that scrapes the site and evaluates the rules."""

    name: str
    program: Path
    folder: Path
    port: int = field(default_factory=free_port)

    @property
    def api(self) -> Prometheus:
        """Its query API."""
        return Prometheus(f"http://127.0.0.1:{self.port}")

    def configure(self, site: str, slow: str, pace: float, rules: Sequence[Path]) -> None:
        """Write its configuration, with the project's rules at this pace."""
        self.folder.mkdir()
        for path in rules:
            (self.folder / path.name).write_text(at_pace(path, pace))
        interval = f"{round(INTERVAL * pace * 1000)}ms"
        config = {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": f"{round(SCRAPE_TIMEOUT * pace * 1000)}ms",
                "evaluation_interval": interval,
                "external_labels": {"replica": self.name},
            },
            "rule_files": [path.name for path in rules],
            "scrape_configs": [
                {
                    "job_name": "jobwatt",
                    "http_sd_configs": [
                        {"url": f"http://{where}{SD_PATH}"} for where in (site, slow)
                    ],
                },
                {
                    "job_name": "jobwatt-grid",
                    "metrics_path": "/grid/metrics",
                    "static_configs": [{"targets": [site]}],
                },
            ],
        }
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    @contextlib.contextmanager
    def run(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run it, on the data of an earlier run where there is one."""
        command: list[str | Path] = [
            self.program,
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        log = self.folder / f"{time.time():.0f}.log"
        with running(command, log) as process:
            yield process


def at_pace(path: Path, pace: float) -> str:
    """A file of rules for time that passes faster."""
    content = yaml.safe_load(path.read_text())
    for group in content["groups"]:
        seconds = int(group["interval"].removesuffix("s"))
        group["interval"] = f"{round(seconds * pace * 1000)}ms"
    text: str = yaml.safe_dump(content)
    return text


def recording_rules() -> list[Path]:
    """The project's files of recording rules."""
    return sorted((ROOT / "prometheus/rules/recording").glob("*.yml"))


@dataclass(frozen=True)
class Site:
    """The site after everything has happened, and what is known of it.

    Attributes:
        replicas: by name: `2`, `2 restarted`, `3`.
        both: a Prometheus that reads both of 2.x's, as Thanos would.
        joules, grams, cost: the truth, by job.
        at: when all had been counted, Unix time.
        seconds: from the beginning until then.
        interval: seconds between two scrapes.
    """

    replicas: dict[str, Prometheus]
    both: Prometheus
    joules: dict[str, float]
    grams: dict[str, float]
    cost: dict[str, float]
    at: float
    seconds: float
    interval: float

    def by_job(self, where: Prometheus, expr: str) -> dict[str, float]:
        """What an expression over `$range` gives for each job, at the end of the run."""
        expr = expr.replace("$range", f"{round(self.seconds * 1000)}ms")
        expr = expr.replace("$interval", f"{round(self.interval * 1000)}ms")
        expr = expr.replace("$window", f"{round(self.interval * 4000)}ms")
        expr = expr.replace("$seconds", str(self.interval))
        found = where.query(expr, self.at)
        return {one["metric"]["job_uid"]: float(one["value"][1]) for one in found}


TOTAL = f"sum by (job_uid) (sum_over_time({DELTA}[$range]))"
METHODS = {
    "the rules": TOTAL,
    "`max_over_time`": f"sum by (job_uid) (max_over_time({COUNTER}[$range]))",
    "`increase`": f"sum by (job_uid) (increase({COUNTER}[$range]))",
    "mean power": (
        f"sum_over_time(sum by (job_uid) (rate({COUNTER}[$window]))[$range:$interval]) * $seconds"
    ),
}
"""Ways to a job's total. Most dashboards take one of the last two."""


@contextlib.contextmanager
def lived(folder: Path, pace: float) -> Iterator[Site]:
    """The site after it has lived through all cases, its Prometheus servers still running."""
    two, three = Path("prometheus"), prometheus3() / "prometheus"
    fleet = fleet_of((case for case in CASES if case is not SLOW), pace)
    slow = Slow(fleet_of((SLOW,), pace), SLOW_SECONDS * pace)
    with contextlib.ExitStack() as held:
        routes = {"now": FleetRoutes(fleet, time.time)}

        def answer(request: Request) -> Response:
            return routes["now"].answer(request)

        server = Server("127.0.0.1:0", answer)
        server.start()
        held.callback(server.stop)
        threading.Thread(target=slow.serve_forever, args=(0.05,), daemon=True).start()
        held.callback(slow.server_close)
        held.callback(slow.shutdown)
        site = f"127.0.0.1:{server.address[1]}"
        replicas = [
            Replica(name, program, folder / name.replace(" ", "-"))
            for name, program in (("2", two), ("2 restarted", two), ("3", three))
        ]
        processes = {}
        for replica in replicas:
            replica.configure(site, f"127.0.0.1:{slow.server_port}", pace, recording_rules())
            processes[replica.name] = held.enter_context(replica.run())
        for replica in replicas:
            eventually(
                lambda api=replica.api: answers(f"{api.url}/-/ready"),  # type: ignore[misc]
                READY_SECONDS,
                f"Prometheus {replica.name} is not ready",
            )
        both = held.enter_context(_reader(folder, replicas[:2]))
        epoch = time.time()
        # The plan begins: everybody is up.
        routes["now"], slow.routes = (FleetRoutes(f, time.time) for f in (fleet, slow.fleet))
        leaves, returns = (epoch + moment * pace for moment in AWAY)
        _sleep_until(leaves)
        # Not within an evaluation: of that one alone it would know half.
        _wait_until_evaluated(replicas[1].api)
        processes["2 restarted"].kill()
        processes["2 restarted"].wait()
        _sleep_until(returns)
        held.enter_context(replicas[1].run())
        _sleep_until(epoch + END * pace)
        for replica in replicas:
            _wait_until_counted(replica.api, len(fleet.nodes) + len(slow.fleet.nodes), pace)
        jobs = [job for f in (fleet, slow.fleet) for job in truth(f, END * pace, epoch)["jobs"]]
        yield Site(
            {replica.name: replica.api for replica in replicas},
            both,
            {job["job_uid"]: sum(job["joules"].values()) for job in jobs},
            {job["job_uid"]: job["carbon_grams"] for job in jobs},
            {job["job_uid"]: job["cost"]["EUR"] for job in jobs},
            time.time(),
            time.time() - epoch + INTERVAL * pace,
            INTERVAL * pace,
        )


def _wait_until_counted(api: Prometheus, nodes: int, pace: float) -> None:
    """Return once every node has been scraped after now, and the rules have seen it."""
    time.sleep(INTERVAL * pace)
    up = f'count(up{{job="jobwatt"}} == 1) == {nodes}'
    eventually(lambda: api.query(up), READY_SECONDS, "not every node is up")
    _wait_until_evaluated(api)


def _wait_until_evaluated(api: Prometheus) -> None:
    """Return when the next evaluation of the jobs' rules is over."""
    now = time.time()

    def is_evaluated() -> bool:
        groups = [g for g in api.get("rules")["groups"] if g["name"] == JOBS]
        return all(datetime.fromisoformat(g["lastEvaluation"]).timestamp() > now for g in groups)

    eventually(is_evaluated, READY_SECONDS, "the rules are not evaluated")


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


@contextlib.contextmanager
def _reader(folder: Path, replicas: Sequence[Replica]) -> Iterator[Prometheus]:
    """A Prometheus without data of its own that reads several."""
    reader = Replica("reader", replicas[0].program, folder / "reader")
    reader.folder.mkdir()
    config = {
        "remote_read": [
            {"url": f"http://127.0.0.1:{one.port}/api/v1/read", "read_recent": True}
            for one in replicas
        ]
    }
    (reader.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with reader.run():
        api = reader.api
        eventually(lambda: answers(f"{api.url}/-/ready"), READY_SECONDS, "no reader")
        yield api
