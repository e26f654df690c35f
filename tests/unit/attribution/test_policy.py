from hypothesis import given
from hypothesis import strategies as st

from jobwatt.attribution.policy import (
    Posting,
    Weights,
    cpu_weights,
    divide,
    memory_weights,
)
from jobwatt.model import UNDECIDED, Process, Usage

S = 1_000_000_000
J = 1_000_000


def process(pid: int, packages: frozenset[int] | None = None, memory: int = 0) -> Process:
    return Process(pid, 0, packages=packages, memory_bytes=memory)


def test_takes_idle_off_first_and_divides_the_rest() -> None:
    """100 J in 1 s at 40 W idle leave 60 J, 2:1."""
    a, b = process(1), process(2)
    assert divide(100 * J, S, 40 * J, Weights({a: 2, b: 1})) == Posting(
        100 * J, 40 * J, 0, {}, {a: 40 * J, b: 20 * J}
    )


def test_idle_is_at_most_what_was_used() -> None:
    """A device below its idle power has no active energy."""
    assert divide(30 * J, S, 40 * J, Weights({process(1): 1})) == Posting(30 * J, 30 * J, 0, {}, {})


def test_unknown_idle_counts_nothing() -> None:
    """Until there is a value all energy is active."""
    a = process(1)
    assert divide(30 * J, S, None, Weights({a: 1})) == Posting(30 * J, 0, 0, {}, {a: 30 * J})


def test_active_energy_of_nobody_is_unattributed() -> None:
    """Nobody busy, nobody charged."""
    assert divide(50 * J, S, 40 * J, Weights({})) == Posting(50 * J, 40 * J, 10 * J, {}, {})


def test_what_is_nobodys_stays_in_the_denominator() -> None:
    """Half of the time was unseen: half of the energy is unattributed."""
    a = process(1)
    assert divide(40 * J, S, 0, Weights({a: 1}, others={"x": 1}, nobody=2)) == Posting(
        40 * J, 0, 20 * J, {"x": 10 * J}, {a: 10 * J}
    )


@given(
    st.integers(0, 10**12),
    st.integers(1, 10**11),
    st.none() | st.integers(0, 10**9),
    st.lists(st.integers(0, 10**12), max_size=30),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
)
def test_every_posting_closes(
    energy: int, span: int, idle: int | None, times: list[int], others: int, nobody: int
) -> None:
    """Idle + unattributed + others + processes is the energy, exactly; no part is negative."""
    claims = {process(i): time for i, time in enumerate(times)}
    posting = divide(energy, span, idle, Weights(claims, {"x": others, "y": others // 2}, nobody))
    parts = [posting.idle_uj, posting.unattributed_uj]
    parts += [*posting.others.values(), *posting.processes.values()]
    assert sum(parts) == energy
    assert min(parts) >= 0


def test_a_bound_process_is_charged_on_its_own_package_only() -> None:
    """Affinity tells which socket it was."""
    a, b = process(1, frozenset({0})), process(2, frozenset({1}))
    usage = Usage({a: 8, b: 2}, busy_ns={0: 8, 1: 2}, capacity_ns={0: 10, 1: 10})
    assert cpu_weights(usage, 0).processes == {a: 8}
    assert cpu_weights(usage, 1).processes == {b: 2}


def test_a_free_process_is_charged_where_the_others_leave_room() -> None:
    """Package 1 was busy 6 beyond its bound process, package 0 not at all."""
    bound, free = process(1, frozenset({0})), process(2)
    usage = Usage({bound: 1000, free: 6000}, busy_ns={0: 1000, 1: 6000}, capacity_ns={0: 1, 1: 1})
    assert cpu_weights(usage, 0).processes == {bound: 1000}
    assert cpu_weights(usage, 1).processes[free] >= 5998


def test_a_package_without_cpus_here_gets_the_claims_of_all() -> None:
    """Where the topology says nothing nobody is left out."""
    a = process(1, frozenset({0}))
    usage = Usage({a: 5}, {"system": 3}, 2, busy_ns={0: 5, 1: 1}, capacity_ns={0: 9, 1: 9})
    assert cpu_weights(usage, 7) == Weights({a: 5}, {"system": 3}, 2)


def test_memory_names_the_listed_and_sums_up_the_rest() -> None:
    """What has no series is one claim for each job."""
    a = process(1, memory=300)
    usage = Usage(memory_bytes={("system", None): 900, ("x", None): 100}, capacity_ns={0: 1})
    assert memory_weights(usage, 0, [a]) == Weights({a: 300}, {"system": 600, "x": 100})


def test_memory_of_bound_processes_lies_on_their_package() -> None:
    """Free memory is divided evenly among the packages."""
    a, b = process(1, frozenset({1}), 100), process(2, None, 200)
    held = {("system", None): 200, ("system", frozenset({1})): 100}
    usage = Usage(memory_bytes=held, capacity_ns={0: 1, 1: 1})
    assert memory_weights(usage, 0, [a, b]) == Weights({b: 100}, {"system": 0})
    assert memory_weights(usage, 1, [a, b]) == Weights({a: 100, b: 100}, {"system": 0})


def test_memory_of_the_undecided_is_nobodys() -> None:
    """It has its part, which stays unattributed."""
    usage = Usage(memory_bytes={("x", None): 100, (UNDECIDED, None): 300}, capacity_ns={0: 1})
    weights = memory_weights(usage, 0, [])
    assert weights == Weights({}, {"x": 100}, 300)
    assert divide(4 * J, S, None, weights) == Posting(4 * J, 0, 3 * J, {"x": J}, {})


def test_who_has_become_undecided_claims_nothing() -> None:
    """What it used before it moved is nobody's, too: it has no job to be booked on."""
    a, b = Process(1, 0, job_uid="x"), Process(2, 0, job_uid=UNDECIDED)
    weights = Weights({a: 1, b: 20}, {"x": 2}, 3)
    weights.let_go_of_undecided()
    assert weights == Weights({a: 1}, {"x": 2}, 23)


def test_claims_add_up_over_intervals() -> None:
    """A device that was not read is divided by all that happened since."""
    a, b = process(1), process(2)
    weights = Weights({a: 1}, {"x": 2}, 3)
    weights.add(Weights({a: 10, b: 20}, {"x": 30, "y": 1}, 40))
    assert weights == Weights({a: 11, b: 20}, {"x": 32, "y": 1}, 43)
