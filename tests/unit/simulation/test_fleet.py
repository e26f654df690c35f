"""A made-up site: its pages keep the contract at every moment, and end at the truth."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from jobwatt.cli.simulate import simulate
from jobwatt.exposition.catalog import METRICS
from jobwatt.exposition.server import Server
from jobwatt.simulation.blueprint import Gpu, Hardware, Package, PowerModel
from jobwatt.simulation.fleet import Fleet, FleetJob, FleetNode, Outage, Stay, Zone
from jobwatt.simulation.fleet_page import NodePages
from jobwatt.simulation.fleet_plan import PLACES, make_fleet
from jobwatt.simulation.fleet_truth import truth
from jobwatt.simulation.fleet_web import FleetRoutes
from jobwatt.snapshot import JobView, Snapshot
from servers import JOBWATT, answers, eventually, free_port, get, running

J = 1_000_000
EPOCH = 1_700_000_000.0
HARDWARE = Hardware(
    "A CPU",
    "Some DRAM",
    (Package(8, PowerModel(20.0, 100.0, 110.0), PowerModel(2.0, 10.0)),),
    (Gpu("A GPU", "Hopper", 1 << 30, PowerModel(50.0, 350.0, 400.0), "0000:1b:00.0"),),
)
SERVICE = Stay(FleetJob("system"), -1000, float("inf"), (1.0, 0.1, 0.0))


def stay(
    start: float,
    end: float,
    pause: tuple[float, float] | None = None,
    uid: str = "slurm:1",
) -> Stay:
    job = FleetJob(uid, "bert", "ada", "vision", "gpu", 5000.0)
    return Stay(job, start, end, (40.0, 4.0, 200.0), pause, 4, (0,), ("python", "loader"))


def pages(*stays: Stay, outages: tuple[Outage, ...] = (), age: float = 1000) -> NodePages:
    node = FleetNode("n1", HARDWARE, stays, "FR", age, outages)
    return NodePages(Fleet({"n1": node}), node, EPOCH)


def page_at(made: NodePages, at: float) -> Snapshot:
    page = made.at(at)
    assert page is not None
    return page


def job(made: NodePages, at: float, uid: str = "slurm:1") -> JobView | None:
    """A job on the page of a moment, None where it is not there."""
    return next((view for view in page_at(made, at).jobs if view.job_uid == uid), None)


def present(made: NodePages, at: float) -> JobView:
    view = job(made, at)
    assert view is not None
    return view


def test_a_job_begins_at_nothing_works_and_lingers_for_ten_minutes() -> None:
    """Seen from the first sample on; its end at the first sample after it."""
    made = pages(stay(10.5, 55.5))
    assert job(made, 10.9) is None
    first = present(made, 11)
    assert (first.energy_uj, first.measured_since) == ((20 * J, 2 * J, 100 * J), EPOCH + 11)
    assert (first.started, first.ended, first.gpus, first.cpus) == (EPOCH + 10.5, None, 1, 4)
    last = present(made, 655.9)
    assert last.energy_uj == (1800 * J, 180 * J, 9000 * J)
    assert (last.ended, last.gpus, last.cpus, last.power_uw) == (EPOCH + 56, 0, None, 0)
    assert last.measured_since == EPOCH + 11
    assert job(made, 656) is None
    page = page_at(made, 656)
    assert [view.job_retired_uj for view in page.devices] == [1800 * J, 180 * J, 9000 * J]
    assert page.accounts == (("vision", (1800 * J, 180 * J, 9000 * J)),)


def test_processes_linger_for_two_minutes() -> None:
    """Then their energy is in what has been retired."""
    made = pages(stay(10, 20))
    assert [view.labels.comm for view in page_at(made, 139).series] == ["python", "loader"]
    page = page_at(made, 140)
    assert page.series == ()
    assert [view.retired_uj for view in page.devices] == [388 * J, 38_800_000, 1940 * J]


def test_a_job_that_came_and_went_between_two_samples_is_there_in_full() -> None:
    """Its cgroup has counted it."""
    view = present(pages(stay(10.1, 10.9)), 11)
    assert (view.energy_uj[0], view.ended) == (32 * J, EPOCH + 11)


def test_counters_go_on_after_an_outage() -> None:
    """What was used meanwhile is there; nobody answers in between."""
    made = pages(stay(10, 60), outages=(Outage(20, 40),))
    assert present(made, 20).energy_uj[0] == 400 * J
    assert made.at(20.1) is None
    assert made.at(39.9) is None
    view = present(made, 40)
    assert (view.energy_uj[0], view.measured_since) == (1200 * J, EPOCH + 10)


def test_a_job_that_ends_in_an_outage_has_what_was_last_seen() -> None:
    """The rest is nobody's, and not lost."""
    made = pages(stay(10, 30), stay(25, 30, uid="slurm:2"), outages=(Outage(20, 40),))
    view = present(made, 40)
    assert (view.energy_uj[0], view.ended) == (400 * J, EPOCH + 40)
    assert job(made, 40, "slurm:2") is None
    cpu = page_at(made, 40).devices[0]
    assert cpu.unattributed_uj == round(0.3 * J * 1040) + 400 * J + 200 * J
    assert cpu.energy_uj == cpu.idle_uj + cpu.unattributed_uj + 400 * J


def test_counters_begin_anew_where_the_state_is_lost() -> None:
    """Of the job that goes on, and of the devices; what had ended is forgotten."""
    outages = (Outage(20, 40, forgets=True),)
    made = pages(stay(10, 60), stay(5, 15, uid="slurm:2"), outages=outages)
    assert job(made, 20, "slurm:2") is not None
    assert job(made, 40, "slurm:2") is None
    view = present(made, 41)
    assert (view.energy_uj[0], view.measured_since) == (40 * J, EPOCH + 40)
    assert page_at(made, 41).devices[0].idle_uj == 20 * J


def test_a_job_that_waits_uses_nothing() -> None:
    """Neither energy nor power."""
    made = pages(stay(10, 60, pause=(20, 50)))
    assert present(made, 50).energy_uj[0] == 400 * J
    assert present(made, 50).power_uw == 0
    assert present(made, 60).energy_uj[0] == 800 * J


def test_an_exporter_that_cannot_be_reached_samples_on() -> None:
    """Its jobs are all there when it is reached again."""
    node = FleetNode("n1", HARDWARE, (stay(10, 13),), unreachable=((5, 300),))
    made = NodePages(Fleet({"n1": node}), node, EPOCH)
    assert made.at(100) is None
    assert present(made, 300).energy_uj[0] == 120 * J


moments = st.floats(0, 900)
lives = st.tuples(moments, st.floats(0.1, 400)).map(lambda t: (t[0], t[0] + t[1]))


@given(
    st.lists(lives, max_size=4),
    st.lists(st.tuples(moments, st.floats(1, 100), st.booleans()), max_size=1),
    st.lists(moments, min_size=1, max_size=4),
)
def test_the_page_adds_up_and_never_falls(
    jobs: list[tuple[float, float]],
    away: list[tuple[float, float, bool]],
    looks: list[float],
) -> None:
    """Whatever jobs come and go, and whether or not the exporter does."""
    stays = [stay(*times, uid=f"slurm:{n}") for n, times in enumerate(jobs)]
    outages = tuple(Outage(start, start + length, forgets) for start, length, forgets in away)
    made = pages(SERVICE, *stays, outages=outages)
    shown = [page for at in sorted(looks) if (page := made.at(at)) is not None]
    for page in shown:
        for index, view in enumerate(page.devices):
            base = view.idle_uj + view.unattributed_uj
            of_jobs = sum(one.energy_uj[index] for one in page.jobs)
            of_series = sum(one.energy_uj[index] for one in page.series)
            assert view.energy_uj == base + of_jobs + view.job_retired_uj
            assert view.energy_uj == base + of_series + view.other_uj + view.retired_uj
            assert view.other_uj >= 0
    for before, after in itertools.pairwise(shown):
        if after.node.started == before.node.started:
            for earlier, later in zip(before.devices, after.devices, strict=True):
                assert later.energy_uj >= earlier.energy_uj
                assert later.unattributed_uj >= earlier.unattributed_uj
                assert later.retired_uj >= earlier.retired_uj


def test_a_site_of_any_size_is_the_same_for_the_same_seed() -> None:
    """And another for another."""
    assert make_fleet(20, 100, 3600) == make_fleet(20, 100, 3600)
    assert make_fleet(20, 100, 3600, seed=2) != make_fleet(20, 100, 3600)


def test_no_node_of_a_made_up_site_is_oversubscribed() -> None:
    """Of CPUs and of GPUs, at any moment."""
    fleet = make_fleet(16, 600, 7200)
    assert len({s.job.job_uid for n in fleet.nodes.values() for s in n.stays}) == 600 + 7
    for node in fleet.nodes.values():
        jobs = [s for s in node.stays if s.cpus is not None]
        assert jobs
        for start in (s.start for s in jobs):
            there = [s for s in jobs if s.start <= start < s.end]
            assert sum(s.cpus or 0 for s in there) <= node.hardware.threads
            held = [gpu for s in there for gpu in s.gpus]
            assert len(held) == len(set(held))
            assert len(there) <= PLACES


def test_some_jobs_are_wide_and_their_nodes_end_one_after_the_other() -> None:
    """As of a real training whose ranks do not leave at once."""
    fleet = make_fleet(100, 400, 7200)
    ends: dict[str, list[float]] = {}
    for node in fleet.nodes.values():
        for one in node.stays:
            if one.cpus is not None:
                ends.setdefault(one.job.job_uid, []).append(one.end)
    widest = max(ends.values(), key=len)
    assert 16 <= len(widest) <= 64
    assert len(set(widest)) == len(widest)


def test_the_truth_is_energy_carbon_and_cost_over_all_nodes() -> None:
    """By component; carbon and cost with what holds at each node."""
    nodes = [FleetNode(f"n{n}", HARDWARE, (stay(10, 20),), zone) for n, zone in enumerate("AB")]
    zones = {"A": Zone(100.0, 1.5, 0.2, "EUR"), "B": Zone(500.0, 1.0, 0.3, "EUR")}
    (told,) = truth(Fleet({n.name: n for n in nodes}, zones), 15, EPOCH)["jobs"]
    assert told["joules"] == {"cpu": 400.0, "dram": 40.0, "gpu": 2000.0}
    kwh = 1220 / 3.6e6
    assert told["carbon_grams"] == pytest.approx(kwh * (1.5 * 100 + 500))
    assert told["cost"] == {"EUR": pytest.approx(kwh * (1.5 * 0.2 + 0.3))}
    assert (told["nodes"], told["end"]) == (["n0", "n1"], EPOCH + 20)


@pytest.fixture
def served() -> Iterator[str]:
    """A small site under one address."""
    routes = FleetRoutes(make_fleet(9, 60, 3600), lambda: EPOCH, "/metrics")
    server = Server("127.0.0.1:0", routes.answer)
    server.start()
    yield f"127.0.0.1:{server.address[1]}"
    server.stop()


def test_prometheus_is_told_where_the_nodes_are(served: str) -> None:
    """Under the address by which it asked, each with its name as instance."""
    status, body = get(f"http://{served}/sd")
    groups = json.loads(body)
    assert (status, len(groups)) == (200, 9)
    assert groups[8] == {
        "targets": [served],
        "labels": {"instance": "n0008", "__metrics_path__": "/nodes/n0008/metrics"},
    }


def test_a_node_s_page_is_of_the_catalog(served: str) -> None:
    """The exporter's own rendering, with jobs, budgets, GPUs and accounts."""
    status, body = get(f"http://{served}/nodes/n0008/metrics")
    names = {s.name for f in text_string_to_metric_families(body.decode()) for s in f.samples}
    assert status == 200
    assert names <= {metric.name for metric in METRICS}
    assert {"jobwatt_job_gpus", "jobwatt_job_energy_joules_total"} <= names
    assert b'jobwatt_node_info{grid_zone="PL"} 1.0\n' in body


def test_the_grid_is_there_as_the_grid_exporter_shows_it(served: str) -> None:
    """Intensity, PUE and price of each zone."""
    _, body = get(f"http://{served}/grid/metrics")
    assert b'jobwatt_site_pue_ratio{grid_zone="DE"} 1.36\n' in body
    assert b'jobwatt_site_electricity_price_per_kwh{currency="EUR",grid_zone="FR"} 0.18\n' in body
    assert (
        b'jobwatt_grid_carbon_intensity_grams_per_kwh{boundary="lifecycle",grid_zone="FR",'
        b'kind="average",provider="simulated",year=""} 56.0\n'
    ) in body


def test_what_is_not_there_is_not_found(served: str) -> None:
    """A node that the site does not have."""
    assert get(f"http://{served}/nodes/n0009/metrics")[0] == 404
    assert get(f"http://{served}/-/ready")[0] == 200


def test_the_truth_is_served(served: str) -> None:
    """For all jobs that have begun."""
    told = json.loads(get(f"http://{served}/truth")[1])
    assert told["time"] == EPOCH
    assert len(told["jobs"]) > 10


def test_the_command_serves_a_site_and_leaves_the_truth(tmp_path: Path) -> None:
    """Until it is told to stop."""
    where, told = f"127.0.0.1:{free_port()}", tmp_path / "truth.json"
    command: list[str | Path] = [
        JOBWATT,
        "simulate",
        "--fleet=9",
        "--jobs=60",
        "--hours=1",
        f"--truth={told}",
    ]
    with running([*command, f"--web.listen-address={where}"], tmp_path / "log"):
        eventually(lambda: answers(f"http://{where}/nodes/n0008/metrics"), 20, "no site")
    assert len(json.loads(told.read_text())["jobs"]) > 10


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--jobs=5"], "--jobs is for a site; add --fleet NODES"),
        (["--truth=x"], "--truth is for a site; add --fleet NODES"),
        (["--fleet=2", "--scenario=laptop"], "--scenario is for one node"),
        (["--fleet=0"], "0 is not in the range"),
    ],
)
def test_options_that_do_not_go_together_are_errors(arguments: list[str], says: str) -> None:
    """Told before anything starts."""
    result = CliRunner().invoke(simulate, arguments)
    assert result.exit_code == 2
    assert says in result.output


def test_a_truth_file_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    """Not after hours."""
    where = tmp_path / "no" / "truth.json"
    arguments = ["--fleet=2", f"--truth={where}", "--web.listen-address=127.0.0.1:0"]
    result = CliRunner().invoke(simulate, arguments)
    assert str(result.exception) == (
        f"cannot write {where}: No such file or directory; choose another file"
    )
