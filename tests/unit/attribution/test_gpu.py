from __future__ import annotations

from collections.abc import Callable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from jobwatt.attribution.gpu import MPS_SERVER, gpu_weights, is_unheld
from jobwatt.attribution.policy import Weights, divide
from jobwatt.gpus import GpuInfo, GpuInstance, GpuMethod, GpuState, GpuUse
from jobwatt.model import Process

S = 1_000_000_000
J = 1_000_000
GIB = 1 << 30
A, B, C = Process(1, 0, "a"), Process(2, 0, "b"), Process(3, 0, "c")
DEAD = Process(9, 0, "dead", alive=False)
SERVER = Process(50, 0, MPS_SERVER)
KNOWN = {process.pid: process for process in (A, B, C, DEAD, SERVER)}
STRANGER, OTHER_STRANGER = 777, 888


def find(pid: int) -> Process | None:
    return KNOWN.get(pid)


def use(
    *residents: int,
    busy: Mapping[int, int] | None = None,
    memory: Mapping[int, int | None] | None = None,
    strays: Mapping[int, int] | None = None,
    unknown: int = 0,
) -> GpuUse:
    held = {pid: (memory or {}).get(pid, GIB) for pid in residents}
    return GpuUse(held, frozenset(residents), busy, strays or {}, unknown=unknown)


def weigh(what: GpuUse | None, find: Callable[[int], Process | None] = find) -> Weights:
    """The claims on a whole GPU within a second."""
    return gpu_weights(GpuState(span_ns=S, use=what), find)


def shares(weights: Weights, uj: int = 300 * J) -> tuple[dict[Process, int], int]:
    """What a GPU that is never idle gives to each process, and to nobody."""
    posting = divide(uj, S, None, weights)
    processes = {process: share for process, share in posting.processes.items() if share}
    return processes, posting.unattributed_uj


# --- who used it -----------------------------------------------------------------------------


def test_one_resident_has_all_of_it() -> None:
    """Whatever the samples say, or where there are none."""
    for one in (use(1, busy={1: 5}), use(1, busy={}), use(1), use(1, busy={1: 5}, unknown=9)):
        weights = weigh(one)
        assert shares(weights) == ({A: 300 * J}, 0)
        assert weights.methods == {GpuMethod.EXCLUSIVE: S}


def test_several_are_told_apart_by_their_samples() -> None:
    """60 % and 20 %: three quarters and one."""
    weights = weigh(use(1, 2, 3, busy={1: 60, 2: 20}))
    assert shares(weights) == ({A: 225 * J, B: 75 * J}, 0)
    assert weights.methods == {GpuMethod.SM_UTILIZATION: S}


def test_shares_that_do_not_divide_leave_nothing_to_nobody() -> None:
    """Rounding is among those who worked."""
    weights = weigh(use(1, 2, 3, busy={1: 1, 2: 1, 3: 1}))
    assert weights.nobody == 0
    assert sum(weights.processes.values()) == S


def test_several_and_no_samples_is_nobodys() -> None:
    """NOT_FOUND: samples would be told, so none of them ran a kernel."""
    weights = weigh(use(1, 2, busy={}))
    assert shares(weights) == ({}, 300 * J)
    assert weights.methods == {}


def test_without_samples_memory_divides() -> None:
    """Where every one tells its memory."""
    weights = weigh(use(1, 2, memory={1: 3 * GIB, 2: GIB}))
    assert shares(weights) == ({A: 225 * J, B: 75 * J}, 0)
    assert weights.methods == {GpuMethod.MEMORY: S}


def test_without_memory_all_are_equal() -> None:
    """One that does not tell it is enough; 0 bytes is no figure either."""
    for unknown in (None, 0):
        weights = weigh(use(1, 2, memory={1: 3 * GIB, 2: unknown}))
        assert shares(weights) == ({A: 150 * J, B: 150 * J}, 0)
        assert weights.methods == {GpuMethod.EQUAL: S}


def test_nobody_there_is_nobodys() -> None:
    """Power above idle without a context."""
    for nobody in (use(), use(busy={}), None):
        assert shares(weigh(nobody)) == ({}, 300 * J)


def test_nothing_is_divided_before_the_second_look() -> None:
    """The first look says nothing of the time before."""
    assert weigh(None) == Weights({})


def test_no_time_no_claims() -> None:
    """Nothing can have been used within it."""
    weights = gpu_weights(GpuState(span_ns=0, use=use(1, busy={1: 5})), find)
    assert not any(weights.processes.values())


# --- who cannot be named ---------------------------------------------------------------------


def test_a_stranger_keeps_its_weight() -> None:
    """Its energy is unattributed; the others do not pay for it."""
    weights = weigh(use(1, STRANGER, busy={1: 30, STRANGER: 60}))
    assert shares(weights) == ({A: 100 * J}, 200 * J)
    assert weights.methods == {GpuMethod.SM_UTILIZATION: S // 3}


def test_a_stranger_counts_without_samples_too() -> None:
    """By memory, in equal parts, and alone."""
    assert shares(weigh(use(1, STRANGER, memory={1: GIB, STRANGER: 2 * GIB}))) == (
        {A: 100 * J},
        200 * J,
    )
    assert shares(weigh(use(1, STRANGER, memory={1: None}))) == ({A: 150 * J}, 150 * J)
    alone = weigh(use(STRANGER, busy={STRANGER: 60}))
    assert (shares(alone), sum(alone.methods.values())) == (({}, 300 * J), 0)


def test_who_died_within_the_interval_is_paid() -> None:
    """It was resident at the look before."""
    weights = weigh(use(1, 9, busy={1: 30, 9: 60}))
    assert shares(weights) == ({A: 100 * J, DEAD: 200 * J}, 0)


def test_who_came_and_went_is_paid() -> None:
    """Resident at neither look, known to have died; the only resident is not alone then."""
    weights = weigh(use(1, busy={1: 30}, strays={9: 60}))
    assert shares(weights) == ({A: 100 * J, DEAD: 200 * J}, 0)
    assert weights.methods == {GpuMethod.SM_UTILIZATION: S}


def test_who_came_and_went_alone_has_all_of_it() -> None:
    """Nobody else can have used it."""
    weights = weigh(use(busy={}, strays={9: 60}))
    assert shares(weights) == ({DEAD: 300 * J}, 0)
    assert weights.methods == {GpuMethod.EXCLUSIVE: S}


def test_false_rows_count_for_nothing() -> None:
    """A pid that lives and is not resident, and one that nobody knows."""
    weights = weigh(use(1, 3, busy={1: 30, 3: 30}, strays={2: 60, STRANGER: 60}))
    assert shares(weights) == ({A: 150 * J, C: 150 * J}, 0)


def test_pids_of_another_namespace_name_nobody() -> None:
    """They would name other processes here."""
    state = GpuState(span_ns=S, use=use(1, 2, busy={1: 30, 2: 60}), foreign=True)
    weights = gpu_weights(state, find)
    assert (shares(weights), weights.processes) == (({}, 300 * J), {})


def test_time_that_no_sample_covers_is_nobodys() -> None:
    """Two thirds of half a minute: the driver keeps ten seconds."""
    weights = weigh(use(1, 2, busy={1: 30, 2: 60}, unknown=180))
    assert shares(weights) == ({A: 100 * J // 3, B: 200 * J // 3 + 1}, 200 * J)


# --- MPS -------------------------------------------------------------------------------------


def test_an_mps_server_has_no_work_of_its_own() -> None:
    """One client has all of it; several are told apart by what they tell, without the server."""
    assert shares(weigh(use(1, 50))) == ({A: 300 * J}, 0)
    assert shares(weigh(use(1, 50, busy={1: 30}))) == ({A: 300 * J}, 0)
    memory = {1: GIB, 2: 2 * GIB, 50: 4 * GIB}
    assert shares(weigh(use(1, 2, 50, memory=memory))) == ({A: 100 * J, B: 200 * J}, 0)
    memory[1] = 0
    assert shares(weigh(use(1, 2, 50, memory=memory))) == ({A: 150 * J, B: 150 * J}, 0)


def test_what_an_mps_server_worked_was_for_its_clients() -> None:
    """In proportion to what they worked as far as it is told, else by memory or in equal parts."""
    weights = weigh(use(1, 2, 50, busy={1: 10, 2: 20, 50: 70}))
    assert shares(weights) == ({A: 100 * J, B: 200 * J}, 0)
    memory = {1: GIB, 2: 2 * GIB, 50: GIB}
    weights = weigh(use(1, 2, 50, busy={50: 70}, memory=memory))
    assert shares(weights) == ({A: 100 * J, B: 200 * J}, 0)
    assert weights.methods == {GpuMethod.MEMORY: S}
    assert shares(weigh(use(1, 2, 50, busy={}, memory=memory))) == ({}, 300 * J)


def test_an_mps_server_alone_holds_the_gpu() -> None:
    """Its clients have not begun, or are not seen."""
    assert shares(weigh(use(50))) == ({SERVER: 300 * J}, 0)


# --- MIG -------------------------------------------------------------------------------------


def instance(uuid: str, size: int, what: GpuUse, activity: float | None = None) -> GpuInstance:
    return GpuInstance(uuid, f"{size}g", size, what, activity)


def divided(*instances: GpuInstance) -> Weights:
    """The claims on a GPU that is divided so, within a second."""
    return gpu_weights(
        GpuState(GpuInfo(mig=True), span_ns=S, use=GpuUse(), instances=instances), find
    )


def test_instances_share_by_size_and_activity() -> None:
    """60 multiprocessors at 50 % are as many as 30 at 100 %."""
    weights = divided(instance("x", 60, use(1), 0.5), instance("y", 30, use(2), 1.0))
    assert shares(weights) == ({A: 150 * J, B: 150 * J}, 0)
    assert weights.parts == {"x": 30 * S, "y": 30 * S}
    assert weights.methods == {GpuMethod.EXCLUSIVE: 60 * S}


def test_without_monitors_instances_share_by_size() -> None:
    """Those that somebody holds: the slices of others are idle."""
    weights = divided(
        instance("x", 3, use(1)), instance("y", 1, use(2)), instance("free", 3, use())
    )
    assert shares(weights) == ({A: 225 * J, B: 75 * J}, 0)
    assert weights.parts == {"x": 3 * S, "y": S}


def test_contexts_pay_while_no_kernel_runs() -> None:
    """By size: they draw power, too."""
    weights = divided(instance("x", 3, use(1), 0.0), instance("y", 1, use(), 0.0))
    assert shares(weights) == ({A: 300 * J}, 0)
    assert weights.parts == {"x": 3 * S}


def test_inside_an_instance_memory_divides_or_all_are_equal() -> None:
    """There are no samples under MIG."""
    weights = divided(
        instance("x", 1, use(1, 2, memory={1: GIB, 2: 2 * GIB}), 1.0),
        instance("y", 1, use(3, STRANGER, memory={3: None}), 1.0),
    )
    assert shares(weights, 600 * J) == ({A: 100 * J, B: 200 * J, C: 150 * J}, 150 * J)
    assert weights.methods == {GpuMethod.MEMORY: S, GpuMethod.EQUAL: S // 2}


def test_a_process_on_two_instances_has_both() -> None:
    """Its claims add up."""
    weights = divided(instance("x", 1, use(1), 1.0), instance("y", 1, use(1), 0.5))
    assert shares(weights) == ({A: 300 * J}, 0)


def test_an_active_instance_without_anybody_is_nobodys() -> None:
    """Who worked there has gone unseen."""
    weights = divided(instance("x", 1, use(), 1.0), instance("y", 1, use(2), 1.0))
    assert shares(weights) == ({B: 150 * J}, 150 * J)
    assert weights.parts == {"x": S, "y": S}


def test_nobody_on_any_instance_is_nobodys() -> None:
    """And no part is said to have used it."""
    weights = divided(instance("x", 3, use()), instance("y", 1, use(), 0.0))
    assert (shares(weights), weights.parts) == (({}, 300 * J), {})


def test_a_divided_gpu_without_instances_is_nobodys() -> None:
    """Its idle energy stays idle, the rest is unattributed."""
    assert shares(divided()) == ({}, 300 * J)


def test_idle_energy_of_unallocated_slices_stays_idle() -> None:
    """It is taken off before anybody shares."""
    posting = divide(100 * J, S, 70 * J, divided(instance("x", 1, use(1))))
    assert (posting.idle_uj, posting.processes) == (70 * J, {A: 30 * J})
    assert sum(posting.parts.values()) == 30 * J


def test_an_instance_of_which_nothing_is_known_makes_all_unknown() -> None:
    """Its meter says so by having no use."""
    state = GpuState(GpuInfo(mig=True), span_ns=S, instances=(instance("x", 1, use(1), 1.0),))
    assert shares(gpu_weights(state, find)) == ({}, 300 * J)


def test_the_residents_of_the_whole_gpu_count_for_nothing_under_mig() -> None:
    """They are those of its instances again."""
    state = GpuState(
        GpuInfo(mig=True), span_ns=S, use=use(1, 2, 3), instances=(instance("x", 1, use(1)),)
    )
    assert shares(gpu_weights(state, find)) == ({A: 300 * J}, 0)


def test_activity_beyond_the_possible_is_cut() -> None:
    """Monitors are measured, too."""
    weights = divided(instance("x", 1, use(1), 1.7), instance("y", 1, use(2), -0.2))
    assert weights.parts == {"x": S}


# --- held by nobody --------------------------------------------------------------------------


def test_unheld_is_a_gpu_without_contexts_since_the_look_before() -> None:
    """Its power is idle power then."""
    assert is_unheld(GpuState(span_ns=S, use=use()))
    assert is_unheld(GpuState(span_ns=S, use=use(busy={}), utilization_ratio=0.0))
    for one in (use(1), use(busy={1: 5}), use(strays={9: 5})):
        assert not is_unheld(GpuState(span_ns=S, use=one))


def test_of_which_nothing_is_known_is_not_unheld() -> None:
    """A first look, a fault; processes that are not seen from another PID namespace."""
    assert not is_unheld(GpuState(span_ns=S, use=None))
    assert not is_unheld(GpuState(span_ns=S, use=use(), foreign=True))
    assert not is_unheld(GpuState(span_ns=S, use=use(), utilization_ratio=0.4))


def test_a_divided_gpu_is_held_by_who_holds_an_instance() -> None:
    """Or by who works there unseen."""
    mig = GpuInfo(mig=True)
    for held in (instance("x", 1, use(1)), instance("x", 1, use(), 0.3)):
        assert not is_unheld(GpuState(mig, span_ns=S, use=GpuUse(), instances=(held,)))
    free = (instance("x", 1, use(), 0.0), instance("y", 1, use()))
    assert is_unheld(GpuState(mig, span_ns=S, use=GpuUse(), instances=free))


# --- whatever is told ------------------------------------------------------------------------

pids = st.sampled_from([*KNOWN, STRANGER, OTHER_STRANGER])
amounts = st.dictionaries(pids, st.integers(0, 10_000), max_size=5)
uses = st.builds(
    GpuUse,
    st.dictionaries(pids, st.none() | st.integers(0, 80 * GIB), max_size=5),
    busy=st.none() | amounts,
    strays=amounts,
    unknown=st.integers(0, 10_000),
)
instances = st.builds(
    GpuInstance,
    st.sampled_from("xyz"),
    st.just("1g"),
    st.integers(0, 132),
    uses,
    st.none() | st.floats(-1, 2),
)
states = st.builds(
    GpuState,
    st.builds(GpuInfo, mig=st.booleans()),
    st.integers(0, 100 * S),
    st.none() | uses,
    st.booleans(),
    st.lists(instances, max_size=4, unique_by=lambda one: one.uuid).map(tuple),
)


@given(states, st.integers(0, 10_000 * J), st.none() | st.integers(0, 100 * J))
def test_whatever_is_told_the_sums_close(state: GpuState, uj: int, idle_uw: int | None) -> None:
    """Methods again what processes have got, parts no more than what was active."""
    weights = gpu_weights(state, find)
    assert all(weight >= 0 for weight in (*weights.processes.values(), weights.nobody))
    assert sum(weights.methods.values()) == sum(weights.processes.values())
    posting = divide(uj, state.span_ns, idle_uw, weights)
    given = sum(posting.processes.values())
    assert posting.idle_uj + posting.unattributed_uj + given == uj
    assert sum(posting.methods.values()) == given
    assert sum(posting.parts.values()) in {0, uj - posting.idle_uj}
