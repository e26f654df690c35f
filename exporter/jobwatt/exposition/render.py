"""A snapshot as the text of a scrape.

prometheus-client chooses the format and renders it, each line once: what stands before the number
is kept as long as its row is there, so that a scrape formats numbers only (ten times cheaper). A
test holds the page to prometheus-client's own rendering.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, cast

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from jobwatt.exposition.catalog import MetricSpec
from jobwatt.exposition.samples import Row, samples
from jobwatt.snapshot import Snapshot

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


def metric_families(snapshot: Snapshot) -> Iterator[Metric]:
    """Return the snapshot as prometheus-client's metrics."""
    for spec, rows in samples(snapshot):
        yield _family(spec, rows)


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


class _FamilyText:
    """One family in one format: its head, and what stands before the number in each line."""

    def __init__(self, spec: MetricSpec, encode: _Encoder) -> None:
        self._spec = spec
        self._encode = encode
        self._head = self._encoded([])
        self._prefixes: dict[tuple[str, ...], str] = {}

    def render(self, rows: Sequence[Row]) -> str:
        """Return the family's lines."""
        before = self._prefixes
        new = [labels for labels, _ in rows if labels not in before]
        if new:
            before |= zip(new, self._made(new), strict=True)
        self._prefixes = {labels: before[labels] for labels, _ in rows}
        lines = [
            f"{before[labels]}{floatToGoString(value)}\n"  # type: ignore[no-untyped-call]
            for labels, value in rows
        ]
        return self._head + "".join(lines)

    def _made(self, labels: Iterable[tuple[str, ...]]) -> list[str]:
        # Not splitlines(): a name may hold what Unicode calls a line break.
        lines = self._encoded([(each, 1) for each in labels]).split("\n")
        return [
            line.removesuffix(_ONE) + " " for line in lines if line and not line.startswith("#")
        ]

    def _encoded(self, rows: Iterable[Row]) -> str:
        return self._encode(_Families([_family(self._spec, rows)])).removesuffix(_EOF).decode()


class Renderer:
    """Renders pages; keeps what it has rendered once. For one thread at a time."""

    def __init__(self, *, compress: bool = True) -> None:
        self._compress = compress
        self._texts: dict[str, dict[str, _FamilyText]] = {}

    def render(
        self, snapshot: Snapshot, accept: str, accept_encoding: str
    ) -> tuple[bytes, dict[str, str]]:
        """Return the page's body and its headers for what the client accepts."""
        return self.render_rows(samples(snapshot), accept, accept_encoding)

    def render_rows(
        self,
        families: Iterable[tuple[MetricSpec, Sequence[Row]]],
        accept: str,
        accept_encoding: str,
    ) -> tuple[bytes, dict[str, str]]:
        """Return the same of any families."""
        encoder, content_type = choose_encoder(accept)
        encode = cast("_Encoder", encoder)
        if content_type not in self._texts and len(self._texts) >= _MOST_FORMATS:
            self._texts.clear()  # clients name the versions
        texts = self._texts.setdefault(content_type, {})
        page: list[str] = []
        for spec, rows in families:
            if spec.name not in texts:
                texts[spec.name] = _FamilyText(spec, encode)
            page.append(texts[spec.name].render(rows))
        body = "".join(page).encode()
        if encode(_Families([])).endswith(_EOF):
            body += _EOF
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if self._compress and _accepts_gzip(accept_encoding):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, _GZIP_LEVEL)
        return body, headers


def _accepts_gzip(accept_encoding: str) -> bool:
    for part in accept_encoding.split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() in {"gzip", "*"}:
            return weight.replace(" ", "").lower() not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
