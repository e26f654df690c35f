"""What one Prometheus needs for sites of several sizes, rules and all: `make bench-fleet`.

For each size `jobwatt simulate --fleet` serves the nodes and a Prometheus of its own, with the
project's rules and alerts, scrapes them every 15 s. All of it shares this machine.

    fleet.py [--nodes 10,100,300,1000] [--seconds 180] [--prometheus prometheus]
             [--write docs/scaling.md]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.bench import cpu_seconds, resident_mib, table
from jobwatt.host.procfs import Procfs
from servers import JOBWATT, ROOT, Prometheus, answers, eventually, free_port, get, running

INTERVAL = 15
JOBS_A_NODE, HOURS = 5, 6
"""20 jobs a node and day."""

SETTLING_SECONDS = 90
READY_SECONDS = 120
COUNTED_SECONDS = 90
"""After its end a job's energy is in its total."""

RANGE = "2h"

HEADING = "### Measured"

VARIABLE = re.compile(r"\$\{?(\w+)(?::\w+)?\}?")


@dataclass(frozen=True)
class Query:
    """A query of a dashboard; `instant`: for now, else over the range."""

    dashboard: str
    expr: str
    instant: bool


@dataclass(frozen=True)
class Measured:
    """What one size needed.

    Attributes:
        cpu, simulator_cpu: CPUs in use, of Prometheus and of the simulated nodes.
        down: nodes that were not reached in the end.
        groups: mean and longest evaluation, in seconds.
        rules: mean evaluation of each, longest first.
        dashboards: seconds of each query.
        ended: jobs that ended meanwhile.
        worst: how far the total of one of them is from the truth at most, as a part of it.
    """

    nodes: int
    series: float
    scraped: float
    samples_a_second: float
    cpu: float
    resident_mib: float
    simulator_cpu: float
    down: float
    groups: dict[str, tuple[float, float]]
    rules: list[tuple[float, str]]
    dashboards: dict[str, list[float]]
    ended: int
    worst: float


def dashboard_queries() -> list[Query]:
    """All queries of all dashboards."""
    found = []
    for path in sorted((ROOT / "grafana/dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in _panels(dashboard["panels"]):
            for target in panel.get("targets", ()):
                if target.get("expr"):
                    instant = bool(target.get("instant")) and not target.get("range")
                    found.append(Query(dashboard["title"], target["expr"], instant))
    return found


def _panels(panels: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        yield panel
        yield from _panels(panel.get("panels", ()))


class Site:
    """A simulated site and a Prometheus over it."""

    def __init__(self, api: Prometheus, where: str, prometheus: int, simulator: int) -> None:
        self.api = api
        self._where = where
        self._began = time.time()
        self._pids = prometheus, simulator

    def cpu(self) -> tuple[float, float]:
        """CPU seconds of Prometheus and of the simulator so far."""
        server, simulator = self._pids
        return cpu_seconds(server), cpu_seconds(simulator)

    def resident_mib(self) -> float:
        """Resident memory of Prometheus."""
        return resident_mib(self._pids[0])

    def own(self, name: str) -> float:
        """A metric of Prometheus' own, summed."""
        _, body = get(f"{self.api.url}/metrics")
        families = text_string_to_metric_families(body.decode())
        return sum(s.value for f in families for s in f.samples if s.name == name)

    def exactness(self) -> tuple[int, float]:
        """How many jobs have ended, and how far the total of one is from the truth at most."""
        now = time.time()
        truth = json.loads(get(f"http://{self._where}/truth")[1])["jobs"]
        expr = f"sum by (job_uid) (sum_over_time(job_uid:jobwatt_job_energy_joules:delta[{RANGE}]))"
        found = self.api.query(expr, now)
        totals = {one["metric"]["job_uid"]: float(one["value"][1]) for one in found}
        off = [
            abs(totals.get(job["job_uid"], 0.0) / sum(job["joules"].values()) - 1)
            for job in truth
            if self._began < job["end"] < now - COUNTED_SECONDS
        ]
        return len(off), max(off, default=0.0)

    def rules(self) -> list[tuple[str, float, list[tuple[float, str]]]]:
        """Groups, how long their last evaluation took, and each of their rules."""
        groups = []
        for group in self.api.get("rules")["groups"]:
            each = [(rule["evaluationTime"], rule["name"]) for rule in group["rules"]]
            bad = [rule["lastError"] for rule in group["rules"] if rule.get("lastError")]
            assert not bad, bad
            groups.append((group["name"], group["evaluationTime"], each))
        return groups


@contextlib.contextmanager
def site(nodes: int, program: str, folder: Path) -> Iterator[Site]:
    """A site of so many nodes, its Prometheus just started."""
    for name in ("recording", "alerts"):
        shutil.copytree(ROOT / "prometheus/rules" / name, folder / name)
    where, port = f"127.0.0.1:{free_port()}", free_port()
    config = {
        "global": {"scrape_interval": f"{INTERVAL}s", "evaluation_interval": f"{INTERVAL}s"},
        "rule_files": ["recording/*.yml", "alerts/*.yml"],
        "scrape_configs": [
            {"job_name": "jobwatt", "http_sd_configs": [{"url": f"http://{where}/sd"}]},
            {
                "job_name": "jobwatt-grid",
                "metrics_path": "/grid/metrics",
                "static_configs": [{"targets": [where]}],
            },
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    simulate = [f"--fleet={nodes}", f"--jobs={JOBS_A_NODE * nodes}", f"--hours={HOURS}"]
    with contextlib.ExitStack() as held:
        simulator = held.enter_context(
            running(
                [JOBWATT, "simulate", *simulate, f"--web.listen-address={where}"],
                folder / "simulate.log",
            )
        )
        eventually(lambda: answers(f"http://{where}/-/ready"), READY_SECONDS, "no site")
        server = held.enter_context(
            running(
                [
                    program,
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                folder / "prometheus.log",
            )
        )
        api = Prometheus(f"http://127.0.0.1:{port}")
        eventually(lambda: answers(f"{api.url}/-/ready"), READY_SECONDS, "no Prometheus")
        yield Site(api, where, server.pid, simulator.pid)


def measure(nodes: int, program: str, seconds: int) -> Measured:
    """Let a site of this size be scraped for a while, and look at it."""
    with (
        tempfile.TemporaryDirectory(prefix="jobwatt-fleet-") as folder,
        site(nodes, program, Path(folder)) as here,
    ):
        time.sleep(SETTLING_SECONDS)
        began, cpu = time.monotonic(), here.cpu()
        appended = here.own("prometheus_tsdb_head_samples_appended_total")
        durations: dict[str, list[float]] = {}
        each: dict[str, list[float]] = {}
        while time.monotonic() - began < seconds:
            time.sleep(INTERVAL)
            for group, took, rules in here.rules():
                durations.setdefault(group, []).append(took)
                for rule_took, name in rules:
                    each.setdefault(f"{group}: {name}", []).append(rule_took)
        passed = time.monotonic() - began
        used = [after - before for after, before in zip(here.cpu(), cpu, strict=True)]
        samples = here.own("prometheus_tsdb_head_samples_appended_total") - appended
        down = here.api.query('count(up{job="jobwatt"} == 0)')
        return Measured(
            nodes,
            here.own("prometheus_tsdb_head_series"),
            here.api.value("sum(scrape_samples_scraped)"),
            samples / passed,
            used[0] / passed,
            here.resident_mib(),
            used[1] / passed,
            float(down[0]["value"][1]) if down else 0.0,
            {group: (_mean(took), max(took)) for group, took in durations.items()},
            sorted(((_mean(took), name) for name, took in each.items()), reverse=True),
            _ask_dashboards(here.api, round(SETTLING_SECONDS + passed)),
            *here.exactness(),
        )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _ask_dashboards(api: Prometheus, seconds: int) -> dict[str, list[float]]:
    """How long each query of each dashboard takes, over the time that there is."""
    widest = api.query('topk(1, count by (job_uid) (jobwatt_job_info{kind="slurm"}))')
    known = {
        "instance": "n0000",
        "job_uid": widest[0]["metric"]["job_uid"] if widest else "system",
        "__rate_interval": f"{4 * INTERVAL}s",
        "__interval": f"{INTERVAL}s",
        "__range": f"{seconds}s",
        "__range_s": str(seconds),
    }
    took: dict[str, list[float]] = {}
    now = time.time()
    for query in dashboard_queries():
        expr = VARIABLE.sub(lambda found: known.get(found[1], ".*"), query.expr)
        if query.instant:
            asked, path = {"query": expr, "time": f"{now:.3f}"}, "query"
        else:
            span = {"start": f"{now - seconds:.3f}", "end": f"{now:.3f}", "step": str(INTERVAL)}
            asked, path = {"query": expr} | span, "query_range"
        began = time.perf_counter()
        status, body = get(f"{api.url}/api/v1/{path}?{urlencode(asked)}")
        took.setdefault(query.dashboard, []).append(time.perf_counter() - began)
        if status != 200:
            raise SystemExit(f"{query.dashboard}: {expr}: {json.loads(body)['error']}")
    return took


def report(all_measured: list[Measured], seconds: int, version: str) -> str:
    """Return the section for docs/scaling.md."""
    whole = table(
        [
            "nodes",
            "scraped series",
            "series in the head",
            "samples/s",
            "CPUs",
            "RSS, MiB",
            "slowest group, mean / longest s",
            "part of its interval",
            "jobs ended, the worst total",
        ],
        [
            [
                f"{m.nodes:,}" + (f", {m.down:.0f} not reached" if m.down else ""),
                f"{m.scraped:,.0f}",
                f"{m.series:,.0f}",
                f"{m.samples_a_second:,.0f}",
                f"{m.cpu:.2f}",
                f"{m.resident_mib:,.0f}",
                "{}, {:.2f} / {:.2f}".format(*_slowest(m)),
                f"{_slowest(m)[2] / INTERVAL:.1%}",
                f"{m.ended:,}, off by {m.worst:.2%}",
            ]
            for m in all_measured
        ],
    )
    groups = sorted({name for m in all_measured for name in m.groups})
    by_group = table(
        ["mean s an evaluation", *(f"{m.nodes:,} nodes" for m in all_measured)],
        [
            [name, *(f"{m.groups.get(name, (0.0, 0.0))[0]:.3f}" for m in all_measured)]
            for name in groups
        ],
    )
    last = all_measured[-1]
    by_rule = table(
        ["rule", "mean s"], [[f"`{name}`", f"{took:.3f}"] for took, name in last.rules[:12]]
    )
    boards = table(
        ["all queries, s (the slowest)", *(f"{m.nodes:,} nodes" for m in all_measured)],
        [
            [
                name,
                *(
                    f"{sum(m.dashboards[name]):.2f} ({max(m.dashboards[name]):.2f})"
                    for m in all_measured
                ),
            ]
            for name in last.dashboards
        ],
    )
    cpu = Procfs(Path("/proc")).read_cpu_model()
    return f"""\
{HEADING}

Written by `make bench-fleet` on {time.strftime("%Y-%m-%d")}: Prometheus {version},
{os.cpu_count()} CPUs ({cpu}), which the simulated nodes and all else shared. Scrapes and rules
every {INTERVAL} s; {SETTLING_SECONDS} s to settle, then {seconds} s measured. 20 jobs a node and
day, one node in eight with eight GPUs.

{whole}
Series in the head are those that are scraped, those that the rules record, and those of jobs that
have ended and not left the head yet (up to three hours). CPUs are of Prometheus alone, rules
included; the simulated nodes used {last.simulator_cpu:.2f} beside it at {last.nodes:,} nodes. The
last column is how far the rules' total of any job that has ended is from what it has used.

{by_group}
The rules that cost most, at {last.nodes:,} nodes:

{by_rule}
All queries of a dashboard, one after the other, over the {SETTLING_SECONDS + seconds} s that there
were; Grafana asks several at a time:

{boards}
What limits: memory grows with the series in the head, CPU with samples and, more, with the rules,
whose groups are to be evaluated within a third of their interval. A group runs its rules one after
the other: more CPUs do not make it faster, faster ones do. The windows of an hour in which
snapshots are looked for are not full in a shorter run; `make bench-fleet ARGS="--seconds 3600"`
fills them.

To try your own size: `jobwatt simulate --fleet 500 --jobs 10000 --truth truth.json` serves the
pages of 500 nodes under one address, where jobs come and go for a day. Prometheus finds them by

```yaml
scrape_configs:
  - job_name: jobwatt
    http_sd_configs: [{{url: "http://127.0.0.1:9743/sd"}}]
  - job_name: jobwatt-grid
    metrics_path: /grid/metrics
    static_configs: [{{targets: ["127.0.0.1:9743"]}}]
```

and `/truth`, or the file in the end, says what each job has really used, emitted and cost.
"""


def put(page: str, section: str) -> str:
    """Return a page with the section in place of the one that has its heading."""
    before, heading, rest = page.partition(f"{HEADING}\n")
    if not heading:
        raise SystemExit(f"the page has no heading {HEADING!r} under which to write")
    following = re.search(r"^##? ", rest, re.MULTILINE)
    return f"{before}{section}\n{rest[following.start() :] if following else ''}"


def _slowest(measured: Measured) -> tuple[str, float, float]:
    name, (mean, longest) = max(measured.groups.items(), key=lambda group: group[1][1])
    return name, mean, longest


def main() -> None:
    """Measure and print, or write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", default="10,100,300,1000")
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("--prometheus", default="prometheus")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    measured = []
    for nodes in (int(word) for word in arguments.nodes.split(",")):
        measured.append(measure(nodes, arguments.prometheus, arguments.seconds))
        print(measured[-1], file=sys.stderr)
    page = report(measured, arguments.seconds, _version(arguments.prometheus))
    if arguments.write:
        arguments.write.write_text(put(arguments.write.read_text(), page))
    else:
        print(page)


def _version(program: str) -> str:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return (told.stdout + told.stderr).split()[2].partition("+")[0]


if __name__ == "__main__":
    main()
