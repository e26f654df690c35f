"""A snapshot as the text of a scrape.

prometheus-client chooses the format and renders it. The two families that grow with the machine's
processes and jobs are put together from prefixes that prometheus-client has rendered once, so that
a scrape formats numbers only (ten times cheaper); a test holds the page to its own rendering.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from typing import Any, Protocol, cast

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from jobwatt.exposition.catalog import JOB_ENERGY, PROCESS_ENERGY, MetricSpec
from jobwatt.exposition.samples import (
    Row,
    is_shown,
    job_labels,
    job_rows,
    process_labels,
    process_rows,
    samples,
)
from jobwatt.model import Device
from jobwatt.snapshot import Snapshot
from jobwatt.units import joules

__all__ = ["Renderer", "metric_families"]

_EOF = b"# EOF\n"
_GZIP_LEVEL = 1  # ten times cheaper than 9, and nearly as small
_ONE = " 1.0"
_MOST_FORMATS = 8


class _Encoder(Protocol):
    def __call__(self, registry: Collector) -> bytes: ...


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def metric_families(snapshot: Snapshot, *, energies: bool) -> Iterator[Metric]:
    """Return the snapshot as prometheus-client's metrics.

    `energies`: with the energy of processes and jobs, too.
    """
    for spec, rows in samples(snapshot):
        yield _family(spec, rows)
    if energies:
        yield _family(JOB_ENERGY, job_rows(snapshot))
        yield _family(PROCESS_ENERGY, process_rows(snapshot))


def _family(spec: MetricSpec, rows: Iterable[Row]) -> Metric:
    if spec.kind == "info":
        info = InfoMetricFamily(spec.name.removesuffix("_info"), spec.help, labels=spec.labels)
        for labels, _ in rows:
            info.add_metric(labels, {})
        return info
    make = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
    family = make(spec.name, spec.help, labels=spec.labels, unit=spec.unit)
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


Prefixes = dict[Hashable, list[str]]
"""What stands before the number in each line of a process or a job, by device."""


class Renderer:
    """Renders snapshots; keeps the prefixes of live series. For one thread at a time."""

    def __init__(self, *, compress: bool = True) -> None:
        self._compress = compress
        self._prefixes: dict[tuple[str, str], Prefixes] = {}

    def render(
        self, snapshot: Snapshot, accept: str, accept_encoding: str
    ) -> tuple[bytes, dict[str, str]]:
        """Return the page's body and its headers for what the client accepts."""
        encoder, content_type = choose_encoder(accept)
        encode = cast("_Encoder", encoder)
        body = encode(_Families(metric_families(snapshot, energies=False)))
        end = _EOF if body.endswith(_EOF) else b""
        if end:
            body = body[: -len(_EOF)]
        if len(self._prefixes) >= _MOST_FORMATS:  # clients name the versions
            self._prefixes.clear()
        devices = [view.device for view in snapshot.devices]
        cached = partial(self._cached, devices, encode, content_type)
        jobs = ((job.job_uid, job.energy_uj) for job in snapshot.jobs)
        series = ((one.labels, one.energy_uj) for one in snapshot.series)
        body += cached(JOB_ENERGY, job_labels, jobs)
        body += cached(PROCESS_ENERGY, process_labels, series) + end
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if self._compress and _accepts_gzip(accept_encoding):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, _GZIP_LEVEL)
        return body, headers

    def _cached(
        self,
        devices: list[Device],
        encode: _Encoder,
        content_type: str,
        spec: MetricSpec,
        labels: Callable[[Any, Device], tuple[str, ...]],
        energies: Iterable[tuple[Hashable, tuple[int, ...]]],
    ) -> bytes:
        """Render a family of energies by device: cached prefixes, fresh numbers."""
        before = self._prefixes.get((spec.name, content_type), {})
        kept: Prefixes = {}
        lines = [encode(_Families([_family(spec, [])])).removesuffix(_EOF).decode()]
        for name, energy_uj in energies:
            prefixes = before.get(name)
            if prefixes is None or len(prefixes) != len(devices):
                rows: list[Row] = [(labels(name, device), 1) for device in devices]
                prefixes = _make_prefixes(spec, rows, encode)
            kept[name] = prefixes
            for device, prefix, uj in zip(devices, prefixes, energy_uj, strict=False):
                if is_shown(device, uj):
                    number = floatToGoString(joules(uj))  # type: ignore[no-untyped-call]
                    lines.append(f"{prefix}{number}\n")
        self._prefixes[spec.name, content_type] = kept
        return "".join(lines).encode()


def _make_prefixes(spec: MetricSpec, rows: list[Row], encode: _Encoder) -> list[str]:
    text = encode(_Families([_family(spec, rows)])).removesuffix(_EOF).decode()
    # Not splitlines(): a name may hold what Unicode calls a line break.
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    return [line.removesuffix(_ONE) + " " for line in lines]


def _accepts_gzip(accept_encoding: str) -> bool:
    for part in accept_encoding.split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() in {"gzip", "*"}:
            return weight.replace(" ", "").lower() not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
