import gzip
import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from jobwatt.exposition.catalog import NODE_METRICS
from jobwatt.exposition.render import Renderer, metric_families
from jobwatt.model import Source
from jobwatt.snapshot import SeriesLabels, SeriesView, Snapshot
from pictures import CPU, DRAM, HOSTILE, gpu_picture, gpu_view, picture

TEXT = "text/plain; version=0.0.4"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PARSERS: dict[str, Callable[[str], Iterable[Metric]]] = {
    TEXT: parse_text,
    OPENMETRICS: parse_openmetrics,
}


class Whole(Collector):
    """All families of a snapshot, for prometheus-client to render by itself."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> list:  # type: ignore[type-arg]
        return list(metric_families(self._snapshot))


def rendered(snapshot: Snapshot, accept: str) -> str:
    body, headers = Renderer().render(snapshot, accept, "")
    assert "Content-Encoding" not in headers
    return body.decode()


def own(snapshot: Snapshot, accept: str) -> str:
    encoder, _ = choose_encoder(accept)
    return bytes(encoder(Whole(snapshot))).decode()


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
def test_the_page_is_what_prometheus_client_renders(accept: str) -> None:
    """Cached prefixes save time and change nothing."""
    assert rendered(picture(), accept) == own(picture(), accept)


names = st.text(max_size=20)


@given(
    st.lists(
        st.tuples(st.integers(1, 99999), names, names, names, st.integers(0, 2**53)), max_size=5
    ),
    st.sampled_from([TEXT, OPENMETRICS]),
)
def test_any_name_and_any_number_is_rendered_as_prometheus_client_does(
    rows: list[tuple[int, str, str, str, int]], accept: str
) -> None:
    """Quotes, newlines, line separators, empty names, large numbers."""
    series = tuple(SeriesView(SeriesLabels(*r[:4]), (r[4], 1), 0, True) for r in rows)
    assert rendered(picture(series), accept) == own(picture(series), accept)


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
def test_the_page_parses_back_to_the_microjoule(accept: str) -> None:
    """The identity of the page holds on what a scraper reads."""
    found: dict[tuple[str, str], int] = {}
    hostile = False
    for family in PARSERS[accept](rendered(picture(), accept)):
        for sample in family.samples:
            if sample.name.endswith("_joules_total") and "device" in sample.labels:
                name = sample.name
                if "level" in sample.labels:
                    name = f"{sample.labels['level']}_retired"
                key = (name, sample.labels["device"])
                found[key] = found.get(key, 0) + round(sample.value * 1e6)
                hostile |= sample.labels.get("comm") == HOSTILE
    assert hostile
    for device in (CPU.name, DRAM.name):
        whole = found["jobwatt_device_energy_joules_total", device]
        for level, names in (("process", ("process", "process_other")), ("job", ("job",))):
            parts = (*names, "device_idle", "device_unattributed")
            sums = sum(found[f"jobwatt_{part}_energy_joules_total", device] for part in parts)
            assert whole == sums + found[f"{level}_retired", device]


def test_a_renderer_follows_series_that_come_and_go() -> None:
    """What is kept from one scrape to the next is right for the next."""
    renderer = Renderer()
    first, second = picture().series
    for series in ((first,), (first, second), (second,), ()):
        body, _ = renderer.render(picture(series), TEXT, "")
        assert body.decode() == own(picture(series), TEXT)


def test_each_metric_is_in_the_catalog_and_each_of_the_catalog_is_there() -> None:
    """The catalog is the whole of what is exported (no checkpoint has been made here)."""
    exported = {
        sample.name
        for snapshot in (picture(), gpu_picture())
        for family in metric_families(snapshot)
        for sample in family.samples
    }
    assert exported == {m.name for m in NODE_METRICS} - {"jobwatt_checkpoint_timestamp_seconds"}


def test_labels_are_those_of_the_catalog() -> None:
    """No more and no fewer."""
    labels = {metric.name: set(metric.labels) for metric in NODE_METRICS}
    for snapshot in (picture(), gpu_picture()):
        for family in metric_families(snapshot):
            for sample in family.samples:
                assert set(sample.labels) == labels[sample.name]


def test_a_gpu_is_shown_with_its_parts() -> None:
    """Its instances, its methods, what its driver tells; no row of a process that never used it."""
    text = rendered(gpu_picture(), TEXT)
    for line in (
        'jobwatt_gpu_attributed_energy_joules_total{device="GPU-1",method="exclusive"} 39.0',
        'gpu_instance_energy_joules_total{device="GPU-1",instance="MIG-1",profile="1g.10gb"} 40.0',
        'jobwatt_gpu_throttled{device="GPU-1",reason="sw_power_cap"} 1.0',
        'index="3",model="A GPU",pci_bus_id="0000:3b:00.0",uuid="GPU-1"} 1.0',
    ):
        assert f"{line}\n" in text
    assert "MIG-0" not in text
    processes = [line for line in text.splitlines() if line.startswith("jobwatt_process_energy")]
    assert [re.search('device="([^"]*)"', line)[1] for line in processes] == [  # type: ignore[index]
        "package-0",
        "dram-0",
    ]
    assert text == own(gpu_picture(), TEXT)


def test_a_gpu_that_does_not_answer_keeps_its_names_and_totals() -> None:
    """Its state is absent, not 0."""
    text = rendered(replace(picture(), devices=(gpu_view(None),), series=()), TEXT)
    assert 'driver="590.48"' in text
    assert 'method="exclusive"} 39.0' in text
    assert "jobwatt_gpu_utilization_ratio{" not in text
    assert "jobwatt_gpu_instance_energy_joules_total{" not in text


def test_a_device_that_two_sources_have_measured_is_one_device() -> None:
    """Energy is told by source; idle energy, wraps and gaps of both are one row."""
    cpu, dram = picture().devices
    estimated = replace(
        cpu, device=replace(CPU, source=Source.ESTIMATE), idle_uj=5, resting=True, power_uw=None
    )
    text = rendered(replace(picture(), devices=(cpu, dram, estimated), series=()), TEXT)
    assert text.count('jobwatt_device_energy_joules_total{component="cpu"') == 2
    idle = 'idle_energy_joules_total{component="cpu",device="package-0"} 1.000000000005e+06'
    assert idle in text
    assert 'jobwatt_meter_wraps_total{device="package-0"} 4.0' in text
    assert text.count("jobwatt_device_info{") == 2


def test_what_is_absent_is_absent() -> None:
    """No power, no limit and no idle power of a device that has none."""
    text = rendered(picture(), TEXT)
    for metric in ("device_power_watts", "device_power_limit_watts", "device_idle_power_watts"):
        assert f'jobwatt_{metric}{{component="cpu"' in text
        assert f'jobwatt_{metric}{{component="dram"' not in text


@pytest.mark.parametrize(
    ("accept_encoding", "zipped"),
    [("gzip", True), ("deflate, gzip;q=0.5", True), ("gzip;q=0", False), ("", False)],
)
def test_compresses_for_who_accepts_it(accept_encoding: str, zipped: bool) -> None:
    """And only for those."""
    body, headers = Renderer().render(picture(), TEXT, accept_encoding)
    assert (headers.get("Content-Encoding") == "gzip") == zipped
    assert (gzip.decompress(body) if zipped else body).decode() == own(picture(), TEXT)


def test_promtool_finds_nothing_to_complain_about() -> None:
    """Names, types, units and help."""
    check = subprocess.run(
        ["promtool", "check", "metrics"],
        input=rendered(picture(), TEXT),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


def test_made_up_versions_do_not_fill_the_memory() -> None:
    """A client may name any version of a format."""
    renderer = Renderer()
    for minor in range(100):
        renderer.render(picture(), f"application/openmetrics-text; version=1.0.{minor}", "")
    assert len(renderer._texts) < 10
