"""A site's past, made up, as Prometheus would have it: jobs whose truth is known.

Scrapes and rule evaluations are every 15 s at whole multiples, so that a border of a range can lie
on a sample: the hard case.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import subprocess
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from servers import answers, eventually, free_port, running

STEP = 15
LINGER = 600
GRAMS_PER_JOULE = 0.0001
PRICE_PER_JOULE = 0.00001

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PastJob:
    """A job that draws constant power on each of its nodes.

    Attributes:
        nodes: instance → (start, end), Unix seconds; an end after the history's is no end.
        watts: component → power on each node.
        measured_from: seconds after the start at which its counter begins.
        gpus, gpu_idle_watts: held on each node.
        estimated: whether its CPU energy is an estimate.
        is_recorded: whether the rules saw it.
    """

    job_uid: str
    nodes: Mapping[str, tuple[float, float]]
    watts: Mapping[str, float]
    cluster: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    measured_from: float = 0.0
    gpus: int = 0
    gpu_idle_watts: float = 0.0
    currency: str = ""
    has_carbon: bool = True
    estimated: bool = False
    deadline: float | None = None
    is_recorded: bool = True


class History:
    """Samples by series, and where they end."""

    def __init__(self, end: float) -> None:
        self.end = end
        self.series: dict[tuple[str, Labels], list[tuple[float, float]]] = defaultdict(list)

    def add(self, name: str, labels: Mapping[str, str], at: float, value: float) -> None:
        key = name, tuple(sorted((k, v) for k, v in labels.items() if v))
        self.series[key].append((at, value))

    def add_job(self, job: PastJob) -> None:
        """What exporters show of a job, and what the rules record of it."""
        recorded: dict[tuple[str, Labels, float], float] = defaultdict(float)
        for node, (start, end) in job.nodes.items():
            self._add_node(job, node, start, end, recorded)
        for (name, labels, at), value in sorted(recorded.items()):
            self.series[name, labels].append((at, value))

    def _add_node(
        self,
        job: PastJob,
        node: str,
        start: float,
        end: float,
        recorded: dict[tuple[str, Labels, float], float],
    ) -> None:
        about = {"job_uid": job.job_uid, "cluster": job.cluster}
        here = about | {"instance": node}
        since = start + job.measured_from
        before: dict[str, float] = defaultdict(float)
        at = math.ceil(since / STEP) * STEP
        while at <= min(end + LINGER, self.end):
            seconds = min(at, end) - since
            self.add("jobwatt_job_info", {**here, **job.names}, at, 1)
            self.add("jobwatt_job_start_timestamp_seconds", here, at, start)
            self.add("jobwatt_job_measured_since_timestamp_seconds", here, at, since)
            if at >= end:
                self.add("jobwatt_job_end_timestamp_seconds", here, at, end)
            if job.deadline is not None:
                self.add("jobwatt_job_deadline_timestamp_seconds", here, at, job.deadline)
            now = self._counters(job, here, at, seconds)
            if job.is_recorded:
                self._record(job, about, at, {k: v - before[k] for k, v in now.items()}, recorded)
            before.update(now)
            at += STEP

    def _counters(
        self, job: PastJob, here: dict[str, str], at: float, seconds: float
    ) -> dict[str, float]:
        now = {}
        for component, watts in job.watts.items():
            source = "estimate" if job.estimated and component == "cpu" else "rapl"
            labels = {"component": component, "device": f"{component}-0", "source": source}
            now[component] = watts * seconds
            self.add("jobwatt_job_energy_joules_total", here | labels, at, now[component])
        now["cpu_seconds"] = 2 * seconds
        self.add("jobwatt_job_cpu_seconds_total", here, at, now["cpu_seconds"])
        if job.gpus:
            now["gpu_idle"] = job.gpu_idle_watts * seconds
            now["gpu_seconds"] = job.gpus * seconds
            self.add("jobwatt_job_gpu_idle_energy_joules_total", here, at, now["gpu_idle"])
        return now

    def _record(
        self,
        job: PastJob,
        about: Mapping[str, str],
        at: float,
        used: Mapping[str, float],
        recorded: dict[tuple[str, Labels, float], float],
    ) -> None:
        def record(name: str, value: float, **labels: str) -> None:
            pairs = tuple(sorted((k, v) for k, v in (dict(about) | labels).items() if v))
            recorded[f"job_uid:jobwatt_job_{name}:delta", pairs, at] += value

        joules = {component: used[component] for component in job.watts}
        for component, value in joules.items():
            record("energy_joules", value, component=component)
        whole = sum(joules.values())
        record("full_energy_joules", whole + used.get("gpu_idle", 0.0))
        record("cpu_seconds", used["cpu_seconds"])
        record("estimated_energy_joules", joules["cpu"] if job.estimated else 0.0)
        if job.has_carbon:
            record("carbon_grams", whole * GRAMS_PER_JOULE)
        if job.currency:
            record("cost", whole * PRICE_PER_JOULE, currency=job.currency)
        if job.gpus:
            record("gpu_idle_energy_joules", used["gpu_idle"])
            record("gpu_seconds", used["gpu_seconds"])

    def lines(self, unit: int = 1) -> Iterator[str]:
        """All samples as text, series by series; times in parts of a second."""
        for (name, labels), samples in self.series.items():
            inside = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels)
            for at, value in samples:
                yield f"{name}{{{inside}}} {value!r} {at * unit}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


@contextlib.contextmanager
def prometheus_over(
    past: History, folder: Path, programs: Path | None = None, *flags: str
) -> Iterator[str]:
    """A Prometheus whose past this is; its address. It scrapes nothing."""

    def program(name: str) -> Path | str:
        return programs / name if programs else name

    data = folder / "data"
    page = folder / "history.om"
    with page.open("w") as file:
        file.writelines(past.lines())
        file.write("# EOF\n")
    # Few blocks: promtool reads the whole page for each.
    blocks = ["tsdb", "create-blocks-from", "--max-block-duration=720h", "openmetrics"]
    command = [program("promtool"), *blocks, page, data]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    config = folder / "prometheus.yml"
    config.write_text("{}\n")
    address = f"127.0.0.1:{free_port()}"
    arguments = [
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address={address}",
        *flags,
    ]
    with running(arguments, folder / "prometheus.log"):
        eventually(lambda: answers(f"http://{address}/-/ready"), 30, "Prometheus is not ready")
        yield f"http://{address}"


@contextlib.contextmanager
def victoria_over(past: History, folder: Path) -> Iterator[str]:
    """A VictoriaMetrics whose past this is; its address."""
    address = f"127.0.0.1:{free_port()}"
    arguments = [
        "victoria-metrics",
        f"-storageDataPath={folder / 'data'}",
        "-retentionPeriod=100y",
        f"-httpListenAddr={address}",
    ]
    with running(arguments, folder / "victoria.log"):
        url = f"http://{address}"
        eventually(lambda: answers(f"{url}/health"), 30, "VictoriaMetrics is not ready")
        page = "".join(past.lines(unit=1000)).encode()
        request = urllib.request.Request(f"{url}/api/v1/import/prometheus", page)
        with urllib.request.urlopen(request) as answer:
            assert answer.status == http.client.NO_CONTENT
        assert answers(f"{url}/internal/force_flush")
        yield url
