from dataclasses import dataclass, field

from jobwatt.errors import Absent
from jobwatt.model import Process, Usage
from jobwatt.usage.groups import Group, Walk

MS = 1_000_000


@dataclass
class Meterable:
    """A CPU time that tests turn."""

    ns: int = 0
    gone: bool = False
    reads: int = 0

    def read(self) -> int:
        self.reads += 1
        if self.gone:
            raise Absent("gone")
        return self.ns

    def close(self) -> None:
        """Hold nothing."""


@dataclass
class FakeClocks:
    """CPU times by pid; a pid without one is gone."""

    times: dict[int, int] = field(default_factory=dict)
    reads: int = 0
    method = "fake"

    def key(self, pid: int, start_ticks: int) -> int:
        return pid

    def read(self, keys: object) -> list[int]:
        self.reads += 1
        return [self.times.get(pid, -1) for pid in keys]  # type: ignore[attr-defined]


class Tree:
    """A root with one job group, whose times tests turn."""

    def __init__(self) -> None:
        self.clocks = FakeClocks()
        self.total = Meterable()
        self.job_time = Meterable()
        self.root = Group(None, self.total)
        self.job = Group("systemd:job.service", self.job_time)
        self.root.children["job"] = self.job
        self.first = True

    def add(self, process: Process, time_ns: int = 0) -> None:
        self.clocks.times[process.pid] = time_ns
        self.job.add(process, process.pid, time_ns)

    def run(self, pid: int, ns: int) -> None:
        """A process runs; all that count it count it."""
        self.clocks.times[pid] += ns
        self.short(ns)

    def short(self, ns: int) -> None:
        """Something runs in the job that nobody sees."""
        self.job_time.ns += ns
        self.total.ns += ns

    def look(self, *, full: bool = False) -> Usage:
        usage = Usage()
        Walk(self.clocks, usage, most_ns=10**12, full=full, first=self.first).visit(self.root)
        self.first = False
        return usage


A, B = Process(1, 0), Process(2, 0)


def test_the_first_look_only_takes_the_values_to_start_from() -> None:
    """What ran before JobWatt is not its business."""
    tree = Tree()
    tree.add(A)
    tree.run(1, 5 * MS)
    usage = tree.look()
    assert (usage.cpu_ns, usage.exited_ns, usage.unseen_ns) == ({}, {}, 0)


def test_live_processes_have_their_own_clocks() -> None:
    """Each gets what it ran, and nothing is left."""
    tree = Tree()
    tree.add(A)
    tree.add(B)
    tree.look()
    tree.run(1, 30 * MS)
    tree.run(2, 10 * MS)
    usage = tree.look()
    assert usage.cpu_ns == {A: 30 * MS, B: 10 * MS}
    assert (usage.exited_ns, usage.unseen_ns) == ({}, 0)


def test_what_nobody_saw_live_is_its_groups() -> None:
    """Children of 20 ms between two looks are in the group's counter alone."""
    tree = Tree()
    tree.add(A)
    tree.look()
    tree.run(1, 30 * MS)
    tree.short(20 * MS)
    usage = tree.look()
    assert usage.cpu_ns == {A: 30 * MS}
    assert usage.exited_ns == {"systemd:job.service": 20 * MS}


def test_what_no_group_counts_is_unseen() -> None:
    """The machine ran more than all groups: nobody can say who."""
    tree = Tree()
    tree.look()
    tree.total.ns += 7 * MS
    assert tree.look().unseen_ns == 7 * MS


def test_a_group_that_stood_still_is_not_looked_into() -> None:
    """Work grows with who was busy, not with who is there."""
    tree = Tree()
    tree.add(A)
    tree.look()
    reads = tree.clocks.reads
    tree.total.ns += MS  # somebody elsewhere
    tree.look()
    assert tree.clocks.reads == reads


def test_an_ended_process_is_paid_its_last_stretch() -> None:
    """It ran 100 ms a look; the 40 ms that its group has more are its own."""
    tree = Tree()
    tree.add(A)
    tree.look()
    tree.run(1, 100 * MS)
    tree.look()
    tree.short(40 * MS)
    del tree.clocks.times[1]
    usage = tree.look()
    assert usage.cpu_ns == {A: 40 * MS}
    assert usage.ended == [A]
    assert usage.exited_ns == {}


def test_an_ended_process_is_paid_no_more_than_it_can_have_used() -> None:
    """The rest is of processes that nobody saw."""
    tree = Tree()
    tree.add(A)
    tree.look()
    tree.run(1, 10 * MS)
    tree.look()
    tree.short(50 * MS)
    del tree.clocks.times[1]
    usage = tree.look()
    assert usage.cpu_ns == {A: 10 * MS}
    assert usage.exited_ns == {"systemd:job.service": 40 * MS}


def test_a_clock_that_went_back_is_another_process() -> None:
    """Its pid was used again between two looks."""
    tree = Tree()
    tree.add(A, 500 * MS)
    tree.look()
    tree.clocks.times[1] = 3 * MS
    tree.short(3 * MS)
    usage = tree.look()
    assert usage.ended == [A]
    assert tree.job.processes == []


def test_clocks_that_run_ahead_of_their_group_are_settled_later() -> None:
    """Both are exact but not read at once: over two looks nothing is counted twice."""
    tree = Tree()
    tree.add(A)
    tree.look()
    tree.run(1, 100 * MS)
    tree.job_time.ns -= 4 * MS
    tree.total.ns -= 4 * MS
    first = tree.look()
    tree.short(4 * MS)
    second = tree.look()
    assert first.cpu_ns == {A: 100 * MS}
    assert (second.cpu_ns, second.exited_ns, second.unseen_ns) == ({}, {}, 0)


def test_a_vanished_group_is_paid_out_of_its_parents_rest() -> None:
    """Its counter went with it; what the parent has more is of those who were in it."""
    tree = Tree()
    tree.add(A)
    tree.look()
    tree.run(1, 100 * MS)
    tree.look()
    tree.total.ns += 60 * MS
    tree.job_time.gone = True
    del tree.clocks.times[1]
    usage = tree.look()
    assert usage.cpu_ns == {A: 60 * MS}
    assert usage.unseen_ns == 0
    assert tree.root.children == {}


def test_a_new_group_is_credited_what_its_parent_can_explain() -> None:
    """It may have existed long before anybody ran in it."""
    tree = Tree()
    tree.look()
    tree.root.children["new"] = Group("systemd:new.service", Meterable(10_000 * MS))
    tree.total.ns += 30 * MS
    usage = tree.look()
    assert usage.exited_ns == {"systemd:new.service": 30 * MS}
    assert usage.unseen_ns == 0


def test_a_counter_that_stands_still_while_its_processes_run_is_not_believed() -> None:
    """A full look finds it out; from then on the clocks alone count."""
    tree = Tree()
    tree.add(A)
    tree.look()
    tree.clocks.times[1] += 60 * MS
    tree.look(full=True)
    assert tree.job.usage is None
    tree.clocks.times[1] += 5 * MS
    tree.total.ns += 5 * MS
    assert tree.look().cpu_ns == {A: 5 * MS}
