"""The accounts of jobs: their life, their sums, what a restart keeps."""

import json

from hypothesis import given
from hypothesis import strategies as st

from fakes.probe import FakeProbe
from jobwatt.accounting import Accountant
from jobwatt.jobs import JobBook
from jobwatt.ledger import Ledger, SeriesRules
from jobwatt.model import (
    Component,
    Counter,
    Device,
    JobPresence,
    Process,
    Reading,
    Report,
    Source,
    Usage,
)
from jobwatt.snapshot import JobView

S = 1_000_000_000
J = 1_000_000
CPU = Device(Component.CPU, "package-0", Source.RAPL, 0)
PACKAGE = Counter("package-0", CPU, lasting=True)
EPOCH = 1_800_000_000.0


class Node:
    """A node whose package uses what a test says; each process is of the job that it names."""

    def __init__(self, linger: int = 60) -> None:
        self.book = JobBook(linger_ns=linger * S)
        self.ledger = Ledger(SeriesRules(), self.book)
        self.accountant = Accountant(self.ledger, {"*": 0.0})
        self.now = 0
        self.spent = 0
        self.user, self.started = "ada", EPOCH - 5
        self.second(0)

    def second(
        self,
        joules: int,
        used: dict[Process, int] | None = None,
        exited: dict[str, int] | None = None,
        *,
        seconds: int = 1,
        gone: tuple[Process, ...] = (),
    ) -> None:
        """Spend so much; who ran is there, but for those that have gone."""
        self.now += seconds
        self.spent += joules * J
        used = used or {}
        jobs: dict[str, JobPresence] = {}
        for process in used.keys() - set(gone):
            presence = JobPresence(0, self.started, self.user)
            jobs.setdefault(process.job_uid, presence).processes += 1
        usage = Usage(used, exited or {}, jobs=jobs, ended=list(gone))
        report = Report(Source.RAPL, self.now * S, (Reading(PACKAGE, self.spent),))
        probe = FakeProbe(list(used))
        self.accountant.book(self.now * S, [report], usage, probe, EPOCH + self.now)

    @property
    def jobs(self) -> dict[str, JobView]:
        return {view.job_uid: view for view in self.ledger.job_views()}

    def energy(self) -> dict[str, int]:
        return {uid: sum(job.energy_uj) // J for uid, job in self.jobs.items()}

    def imbalance(self) -> int:
        """What the jobs' accounts miss of the device's energy."""
        (cpu,) = self.ledger.device_views()
        jobs = sum(sum(job.energy_uj) for job in self.jobs.values())
        return cpu.energy_uj - jobs - cpu.job_retired_uj - cpu.idle_uj - cpu.unattributed_uj


def test_a_job_is_its_processes_and_what_came_and_went() -> None:
    """Also of processes without a series, and of those that nobody saw live."""
    node = Node()
    a, b = Process(1, 0, job_uid="slurm:7"), Process(2, 0, job_uid="slurm:7")
    node.second(60, {a: 1, b: 2}, {"slurm:7": 1, "slurm:8": 2})
    assert node.energy() == {"slurm:7": 40, "slurm:8": 20}
    assert node.imbalance() == 0
    assert node.jobs["slurm:7"].cpu_ns == 4


def test_a_job_ends_with_its_last_process_and_lingers_by_time() -> None:
    """Its total stays at its final value; dropped, it goes to what has retired."""
    node = Node(linger=60)
    a = Process(1, 0, job_uid="slurm:7")
    node.second(10, {a: 1})
    assert node.jobs["slurm:7"].ended is None
    node.second(5, {a: 1}, gone=(a,))
    assert node.jobs["slurm:7"].ended == EPOCH + node.now
    node.second(0, seconds=59)
    assert node.energy() == {"slurm:7": 15}
    node.second(0, seconds=1)
    assert node.energy() == {}
    (cpu,) = node.ledger.device_views()
    assert cpu.job_retired_uj == 15 * J
    assert node.imbalance() == 0


def test_a_job_that_returns_while_it_lingers_goes_on() -> None:
    """It loses its end, and keeps the time since which it is measured."""
    node = Node(linger=60)
    a, b = Process(1, 0, job_uid="slurm:7"), Process(2, 0, job_uid="slurm:7")
    node.second(10, {a: 1}, gone=(a,))
    since = node.jobs["slurm:7"].measured_since
    node.second(10, {b: 1}, seconds=30)
    job = node.jobs["slurm:7"]
    assert (job.ended, job.measured_since, sum(job.energy_uj)) == (None, since, 20 * J)


def test_a_job_that_returns_later_begins_anew() -> None:
    """At 0 J, with a new time since which it is measured."""
    node = Node(linger=60)
    a, b = Process(1, 0, job_uid="slurm:7"), Process(2, 0, job_uid="slurm:7")
    node.second(10, {a: 1}, gone=(a,))
    since = node.jobs["slurm:7"].measured_since
    node.second(0, seconds=61)
    node.second(7, {b: 1})
    assert node.energy() == {"slurm:7": 7}
    assert node.jobs["slurm:7"].measured_since > since
    assert node.imbalance() == 0


def test_a_job_shorter_than_a_sample_is_there_with_its_end() -> None:
    """Nobody saw a process of it."""
    node = Node()
    node.second(10, exited={"slurm:9": 5})
    job = node.jobs["slurm:9"]
    assert (sum(job.energy_uj), job.ended) == (10 * J, EPOCH + node.now)


def test_a_job_starts_with_its_first_process() -> None:
    """Which may be long before the exporter saw it."""
    node = Node()
    node.second(10, {Process(1, 0, job_uid="slurm:7"): 1})
    job = node.jobs["slurm:7"]
    assert (job.started, job.measured_since, job.user) == (EPOCH - 5, EPOCH + 2, "ada")


def test_a_job_that_began_after_the_sample_before_is_measured_from_its_beginning() -> None:
    """One that nobody saw live, from that sample."""
    node = Node()
    node.second(10, {Process(1, 0): 1})
    node.started = EPOCH + 2.5
    node.second(10, {Process(2, 0, job_uid="slurm:8"): 1}, exited={"slurm:9": 1})
    jobs = node.jobs
    assert (jobs["slurm:8"].started, jobs["slurm:8"].measured_since) == (EPOCH + 2.5,) * 2
    assert (jobs["slurm:9"].started, jobs["slurm:9"].measured_since) == (EPOCH + 2,) * 2


def test_jobs_go_on_after_a_restart() -> None:
    """With their energy, their times and their end."""
    node = Node(linger=60)
    a, b = Process(1, 0, job_uid="slurm:7"), Process(2, 0, job_uid="slurm:8")
    node.second(10, {a: 1, b: 1}, gone=(b,))
    before = node.jobs
    dumped = {key: json.loads(json.dumps(row)) for key, row in node.accountant.dump("boot").items()}
    later = Accountant(Ledger(SeriesRules(), JobBook(60 * S)), {"*": 0.0})
    later.restore(dumped, "boot", node.now * S, EPOCH + node.now)
    after = {view.job_uid: view for view in later.ledger.job_views()}
    assert {
        uid: (j.energy_uj, j.started, j.measured_since, j.ended) for uid, j in after.items()
    } == {uid: (j.energy_uj, j.started, j.measured_since, j.ended) for uid, j in before.items()}


def restarted(node: Node, seconds: int) -> Node:
    """The same node with another exporter, after so long without one."""
    dumped = node.accountant.dump("boot").items()
    rows = {key: tuple(json.loads(json.dumps(row))) for key, row in dumped}
    later = Node(linger=node.book.linger_ns // S)
    later.book = JobBook(linger_ns=node.book.linger_ns)
    later.ledger = Ledger(SeriesRules(), later.book)
    later.accountant = Accountant(later.ledger, {"*": 0.0})
    later.now, later.spent = node.now + seconds, node.spent
    later.accountant.restore(rows, "boot", later.now * S, EPOCH + later.now)
    return later


def test_a_job_that_returns_after_its_linger_starts_anew_also_without_an_exporter() -> None:
    """What it had has retired, and `measured_since` tells of a new counter."""
    node = Node(linger=60)
    one, other = Process(1, 0, job_uid="slurm:7"), Process(2, 0, job_uid="slurm:7")
    node.second(50, {one: 1})
    node.second(0, {one: 1}, gone=(one,))
    since = node.jobs["slurm:7"].measured_since
    for away, joules in ((30, 57), (90, 7)):
        later = restarted(node, away)
        later.started = EPOCH + later.now - 1
        later.second(7, {other: 1})
        assert later.energy() == {"slurm:7": joules}
        assert (later.jobs["slurm:7"].measured_since == since) == (away == 30)
        assert later.jobs["slurm:7"].ended is None
        assert later.imbalance() == 0
    (cpu,) = later.ledger.device_views()
    assert cpu.job_retired_uj == 50 * J
    gone = restarted(node, 90)
    gone.second(0)
    assert gone.energy() == {}


def test_a_job_that_returned_in_time_goes_on_though_it_is_seen_late() -> None:
    """Its process began while it lingered; another user's is another job."""
    node = Node(linger=60)
    one, other = Process(1, 0, job_uid="run:a"), Process(2, 0, job_uid="run:a")
    node.second(50, {one: 1})
    node.second(0, {one: 1}, gone=(one,))
    for user, joules in (("ada", 57), ("eve", 7)):
        later = restarted(node, 90)
        later.user, later.started = user, EPOCH + node.now + 10
        later.second(7, {other: 1})
        assert later.energy() == {"run:a": joules}


second = st.tuples(
    st.integers(0, 300),
    st.dictionaries(st.integers(1, 6), st.integers(1, S), max_size=6),
    st.dictionaries(st.sampled_from(["slurm:1", "slurm:2", "system"]), st.integers(1, S)),
    st.frozensets(st.integers(1, 6), max_size=3),
    st.integers(1, 40),
)


@given(st.lists(second, max_size=30))
def test_whatever_becomes_of_jobs_their_sums_close(
    history: list[tuple[int, dict[int, int], dict[str, int], frozenset[int], int]],
) -> None:
    """Births, ends, returns and retirements: each microjoule is one job's, or nobody's."""
    node = Node(linger=30)
    alive: dict[int, Process] = {}
    for joules, busy, exited, ended, seconds in history:
        for pid in busy:
            alive.setdefault(pid, Process(pid, node.now, job_uid=f"slurm:{pid % 3}"))
        gone = tuple(alive.pop(pid) for pid in ended & busy.keys())
        by_pid = {process.pid: process for process in (*alive.values(), *gone)}
        used = {by_pid[pid]: ns for pid, ns in busy.items()}
        node.second(joules, used, exited, seconds=seconds, gone=gone)
        assert node.imbalance() == 0
