import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from jobwatt.errors import Absent
from jobwatt.model import UNDECIDED, Process, Usage
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
    asked: list[int] = field(default_factory=list)
    method = "fake"

    def key(self, pid: int, start_ticks: int) -> int:
        return pid

    def read(self, keys: Iterable[int]) -> list[int]:
        self.reads += 1
        self.asked = list(keys)
        return [self.times.get(pid, -1) for pid in self.asked]


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


A, B, C = Process(1, 0), Process(2, 0), Process(3, 0)
US = MS // 1000


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


def slice_of(*jobs: str) -> tuple[Tree, dict[str, Meterable]]:
    """A tree whose group has a job's group below it for each of these, and in each a sleeper."""
    tree, times = Tree(), {}
    for pid, name in enumerate(jobs, 11):
        times[name] = Meterable()
        tree.job.children[name] = Group(name, times[name])
        tree.job.children[name].add(Process(pid, 0, job_uid=name), pid, 0)
        tree.clocks.times[pid] = 0
    tree.look()
    tree.look()
    return tree, times


def vanish(tree: Tree, time: Meterable, pid: int) -> None:
    time.gone = True
    del tree.clocks.times[pid]


def test_what_a_vanished_group_had_not_done_before_is_its_jobs_all_the_same() -> None:
    """Nobody else was below an inner cgroup: what it has more was in the group that is gone."""
    tree, times = slice_of("slurm:1", "slurm:2")
    vanish(tree, times["slurm:1"], 11)
    tree.short(300 * MS)
    usage = tree.look()
    assert usage.exited_ns == {"slurm:1": 300 * MS}
    tree.short(5 * MS)  # from now on nobody is missing
    assert tree.look().exited_ns == {"systemd:job.service": 5 * MS}


def test_several_vanished_groups_have_equal_parts_of_what_nobody_saw() -> None:
    """Not a nanosecond is lost in between; the undecided one's is nobody's."""
    tree, times = slice_of("slurm:1", "slurm:2", UNDECIDED, "slurm:3")
    for pid, name in ((11, "slurm:1"), (12, "slurm:2"), (13, UNDECIDED)):
        vanish(tree, times[name], pid)
    tree.short(30 * MS + 2)
    usage = tree.look()
    assert usage.exited_ns == {"slurm:1": 10 * MS + 1, "slurm:2": 10 * MS + 1}
    assert usage.unseen_ns == 10 * MS


def test_a_group_with_processes_of_its_own_keeps_what_a_vanished_one_did_not_do_before() -> None:
    """It may have been the children of these."""
    tree, times = slice_of("slurm:1")
    tree.add(A)
    tree.look()
    vanish(tree, times["slurm:1"], 11)
    tree.short(300 * MS)
    assert tree.look().exited_ns == {"systemd:job.service": 300 * MS}


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


def busy_and_asleep() -> Tree:
    """A runs; B and C have slept at the look before."""
    tree = Tree()
    for process in (A, B, C):
        tree.add(process)
    tree.look()
    tree.run(1, 30 * MS)
    tree.look()
    return tree


def test_sleepers_are_not_asked_while_those_who_ran_explain_the_time() -> None:
    """Work grows with who was busy, also within a group."""
    tree = busy_and_asleep()
    tree.run(1, 40 * MS)
    usage = tree.look()
    assert tree.clocks.asked == [1]
    assert usage.cpu_ns == {A: 40 * MS}
    assert usage.exited_ns == {}


def test_a_sleeper_that_wakes_is_found_at_once() -> None:
    """What its group used, and the others did not, tells."""
    tree = busy_and_asleep()
    tree.run(1, 40 * MS)
    tree.run(3, 60 * US)
    usage = tree.look()
    assert usage.cpu_ns == {A: 40 * MS, C: 60 * US}
    assert usage.exited_ns == {}


def test_what_hardly_woke_is_kept_until_it_matters() -> None:
    """Twenty microseconds a look are found at the third, all of them, and nothing twice."""
    tree = busy_and_asleep()
    found = []
    for _ in range(3):
        tree.run(1, 10 * MS)
        tree.run(2, 20 * US)
        usage = tree.look()
        found.append(usage.cpu_ns.get(B, 0))
        assert (usage.cpu_ns[A], usage.exited_ns) == (10 * MS, {})
    assert found == [0, 0, 60 * US]


def test_one_who_ran_and_ended_makes_all_be_asked() -> None:
    """He is paid his last stretch, what nobody saw stays the group's."""
    tree = busy_and_asleep()
    tree.short(50 * MS)
    del tree.clocks.times[1]
    usage = tree.look()
    assert usage.ended == [A]
    assert usage.cpu_ns == {A: 30 * MS}
    assert usage.exited_ns == {"systemd:job.service": 20 * MS}


def test_a_newcomer_and_one_who_left_make_all_be_asked() -> None:
    """Places in the list mean others by then."""
    tree = busy_and_asleep()
    tree.job.remove(B)
    tree.run(1, 10 * MS)
    assert tree.look().cpu_ns == {A: 10 * MS}
    assert tree.clocks.asked == [1, 3]
    tree.add(B, 0)
    tree.run(1, 10 * MS)
    tree.run(2, 5 * MS)
    assert tree.look().cpu_ns == {A: 10 * MS, B: 5 * MS}


def test_over_many_looks_nothing_is_lost_and_nothing_counted_twice() -> None:
    """Whoever runs, for however short, and however late clocks are read after their counter."""
    dice = random.Random(7)  # noqa: S311 - the same course each time
    tree = busy_and_asleep()
    found, late = 30 * MS, 0
    for _ in range(500):
        tree.run(1, 20 * US + late)
        for pid in (1, 2, 3):
            if dice.random() < (0.9 if pid == 1 else 0.2):
                tree.run(pid, dice.choice((3 * US, 40 * US, 2 * MS)))
        if dice.random() < 0.2:
            tree.short(dice.choice((10 * US, 1 * MS)))
        late = dice.choice((0, 0, 15 * US))
        tree.job_time.ns -= late  # read before A's clock, which has run on
        usage = tree.look()
        tree.job_time.ns += late
        found += sum(usage.cpu_ns.values()) + sum(usage.exited_ns.values())
        assert tree.job_time.ns - late - found == tree.job.credit_ns
        assert -15 * US <= tree.job.credit_ns <= 50 * US


def test_a_group_without_a_counter_goes_with_its_last_process() -> None:
    """As one whose cgroup was gone before its counter could be opened: nothing is left of it."""
    tree = Tree()
    process = Process(7, 0)
    late = Group("systemd:late.service")
    tree.root.children["late"] = late
    late.add(process, 7, 0)
    tree.clocks.times[7] = 0
    tree.look()
    tree.short(MS)
    tree.look()
    assert "late" in tree.root.children
    del tree.clocks.times[7]
    tree.short(MS)
    assert tree.look().ended == [process]
    assert list(tree.root.children) == ["job"]
