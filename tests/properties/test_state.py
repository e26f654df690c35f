"""A state that somebody has damaged: an exporter starts all the same, and its sums are right."""

from __future__ import annotations

import copy
import json
import logging
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.probe import FakeProbe
from jobwatt.app import Parts, make_sampler
from jobwatt.config import Config
from jobwatt.exposition.render import Renderer
from jobwatt.exposition.status import status
from jobwatt.host.cgroupfs import Cgroupfs
from jobwatt.host.procfs import Procfs
from jobwatt.host.topology import Topology
from jobwatt.model import (
    Component,
    Counter,
    Device,
    JobPresence,
    Process,
    RaplDomain,
    Reading,
    Report,
    Row,
    Rows,
    Source,
    Usage,
)
from jobwatt.records import Budget, BudgetOrigin, JobRecord
from jobwatt.snapshot import Snapshot
from jobwatt.store import Store
from jobwatt.units import NS
from jobwatt.usage.processes import HostProcesses
from jobwatt.workloads.owners import JobOwners

J = 1_000_000
CPU = Device(Component.CPU, "package-0", Source.SIMULATED, 0, "A CPU")
COUNTER = Counter("zone", CPU, RaplDomain("package", "0"), lasting=True)
RECORD = JobRecord("bert", "ada", "vision", budget=Budget(5e6, BudgetOrigin.COMMENT), gpus=(0,))
CONFIG = Config(idle_power={"*": 10.0}, process_min_joules=0)
ADA = 1000


@dataclass
class Meter:
    """100 W."""

    source = Source.SIMULATED
    uj: int = 0

    def read(self, now_ns: int) -> list[Report]:
        self.uj += 100 * J
        return [Report(self.source, now_ns, (Reading(COUNTER, self.uj),))]


@dataclass
class Probe(FakeProbe):
    """Two jobs, of which one has ended; what it has kept is read as the real one reads it."""

    looks: int = 0
    processes: list[Process] = field(
        default_factory=lambda: [
            Process(7, 70, "train", ADA, "ada", "slurm:1"),
            Process(8, 80, "train", ADA, "ada", "run:x"),
        ]
    )

    def dump(self, now_ns: int) -> dict[str, Row]:
        clocks = [(p.pid, p.start_ticks, 5) for p in self.processes]
        return {"clocks": (now_ns, ((0, 9),), clocks), "used 1": (now_ns, ((0, 9),), clocks)}

    def restore(self, rows: Rows) -> None:
        nowhere = Procfs(Path("/nonexistent"))
        topology = Topology({0: 0})
        HostProcesses(nowhere, Cgroupfs(()), topology, lambda _: "", str).restore(rows)

    def look(self, now_ns: int) -> Usage:
        self.looks += 1
        jobs = {"slurm:1": JobPresence(1, 5.0, "ada", ADA, RECORD)}
        ended = []
        if self.looks == 3:
            ended.append(self.processes.pop())
        elif self.looks < 3:
            jobs["run:x"] = JobPresence(1, 6.0, "ada", ADA)
        return Usage(dict.fromkeys(self.processes, NS), jobs=jobs, ended=ended)


def start(folder: Path) -> tuple[Store, Snapshot]:
    """Start, take some samples, and show them."""
    owners = JobOwners(100, str)
    owners.admit("run:x", ADA)
    store = Store(folder)
    sampler = make_sampler(CONFIG, Parts([Meter()], Probe(), 1, owners), store)
    for _ in range(4):
        snapshot = sampler.sample()
    return store, snapshot


def check(snapshot: Snapshot) -> None:
    """The identity holds, and the page can be shown."""
    for at, view in enumerate(snapshot.devices):
        rest = view.energy_uj - view.idle_uj - view.unattributed_uj
        series = sum(s.energy_uj[at] for s in snapshot.series if at < len(s.energy_uj))
        jobs = sum(job.energy_uj[at] for job in snapshot.jobs if at < len(job.energy_uj))
        assert (series + view.other_uj + view.retired_uj, jobs + view.job_retired_uj) == (
            rest,
            rest,
        )
    body, _ = Renderer().render(snapshot, "", "")
    assert b"jobwatt_device_energy_joules_total" in body
    json.dumps(status(snapshot), allow_nan=False)


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of starts say little that is new."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def rows() -> dict[str, Any]:
    """A good state."""
    with tempfile.TemporaryDirectory() as folder:
        store, snapshot = start(Path(folder))
        store.close()
        check(snapshot)
        again = Store(Path(folder))
        again.close()
    kept: dict[str, Any] = json.loads(json.dumps(dict(again.rows)))
    return kept


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["", "package-0", "slurm:1", "run:x", "gpu", "rapl", "\ud800", "x" * 300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def damage(data: st.DataObject, rows: dict[str, Any]) -> None:
    """Change one thing somewhere."""
    place: Any = rows
    key: Any = data.draw(st.sampled_from(sorted(rows)))
    while isinstance(place[key], list) and place[key] and data.draw(st.integers(0, 4)):
        place = place[key]
        key = data.draw(st.integers(0, len(place) - 1))
    how = data.draw(st.sampled_from(["junk", "junk", "drop", "twice"]))
    if how == "junk":
        place[key] = data.draw(junk)
    elif how == "drop":
        del place[key]
    elif isinstance(place, list):
        place.insert(key, copy.deepcopy(place[key]))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_state_never_stops_an_exporter(rows: dict[str, Any], data: st.DataObject) -> None:
    """It goes on, or begins at 0; and the next start goes on from there."""
    damaged = copy.deepcopy(rows)
    for _ in range(data.draw(st.integers(1, 2))):
        damage(data, damaged)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Store(folder)
        store.close()
        with closing(sqlite3.connect(folder / "state.sqlite")) as connection, connection:
            connection.executemany(
                "INSERT INTO state VALUES (?, ?)",
                [(key, json.dumps(row)) for key, row in damaged.items()],
            )
        for _ in range(2):
            store, snapshot = start(folder)
            check(snapshot)
            store.close()
        before = snapshot
        store, snapshot = start(folder)
        store.close()
    totals = [{v.device.name: v.energy_uj for v in shown.devices} for shown in (before, snapshot)]
    assert totals[0]["package-0"] + 300 * J <= totals[1]["package-0"]
