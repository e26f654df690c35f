"""Who holds a GPU, and who kept it busy: lists of processes and samples of utilisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pynvml
import pytest

from fakes.nvidia import Nvidia
from fakes.nvml import WITHOUT_SAMPLES, Gpu, GpuProcess, Kind, Sample
from jobwatt.meters.nvml.library import Library, NothingFound
from jobwatt.meters.nvml.samples import ProcessSamples
from jobwatt.units import NS

Machine = Callable[..., Nvidia]

GPU = Gpu(uuid="GPU-a", refresh_ms=0, sample_period_ns=250_000_000)
MIB = 1 << 20
NO_PERMISSION, NOT_SUPPORTED, UNKNOWN = 4, 3, 999
WALL_NS = 1_750_000_000 * NS
SECOND_US = 1_000_000


def test_residents_are_of_all_three_lists(machine: Machine) -> None:
    """Compute, graphics and MPS; who is in two is one, with the memory of either."""
    processes = (
        GpuProcess(1, memory_bytes=100 * MIB),
        GpuProcess(2, Kind.GRAPHICS, memory_bytes=200 * MIB),
        GpuProcess(3, Kind.MPS, memory_bytes=300 * MIB),
        GpuProcess(4, Kind.COMPUTE | Kind.GRAPHICS, memory_bytes=400 * MIB),
    )
    nvidia = machine(replace(GPU, processes=processes))
    nvidia.look()
    use = nvidia.look().use
    assert use.residents == {pid: pid * 100 * MIB for pid in (1, 2, 3, 4)}
    assert use.holders == {1, 2, 3, 4}


def test_memory_that_is_not_told_is_none(machine: Machine) -> None:
    """Not 0."""
    nvidia = machine(replace(GPU, processes=(GpuProcess(1, memory_bytes=None),)))
    nvidia.look()
    assert nvidia.look().use.residents == {1: None}


def test_nothing_is_known_of_the_time_before_the_first_look(machine: Machine) -> None:
    """Its samples are of energy that nobody measured."""
    nvidia = machine(replace(GPU, processes=(GpuProcess(1, sm=50),)))
    state = nvidia.look().state
    assert state.use is not None
    assert (state.span_ns, set(state.use.holders)) == (0, {1})
    assert nvidia.look().use.busy == {1: 200}


def test_who_has_left_since_the_look_before_was_resident(machine: Machine) -> None:
    """It is no holder any more, and forgotten at the next look."""
    nvidia = machine(replace(GPU, processes=(GpuProcess(1, sm=60), GpuProcess(2, sm=20))))
    nvidia.look()
    nvidia.fake.advance(0.5)
    nvidia.fake.stop_process(0, 1)
    use = nvidia.look(0.5).use
    assert (set(use.residents), set(use.holders)) == ({1, 2}, {2})
    assert use.busy == {1: 120, 2: 80}
    assert set(nvidia.look().use.residents) == {2}


def test_who_came_and_went_between_two_looks_is_a_stray(machine: Machine) -> None:
    """Only the samples know it."""
    nvidia = machine(GPU)
    nvidia.look()
    nvidia.fake.start_process(0, GpuProcess(7, sm=80))
    nvidia.fake.advance(0.5)
    nvidia.fake.stop_process(0, 7)
    use = nvidia.look(0.5).use
    assert (use.residents, use.busy, use.strays) == ({}, {}, {7: 160})


def test_who_begins_within_a_look_is_no_stray(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The samples are read before the lists: a newcomer's first sample finds it resident."""
    nvidia = machine(GPU)
    nvidia.look()
    really_ask = Library.ask

    def ask(library: Library, function: str, *arguments: object) -> object:
        answer = really_ask(library, function, *arguments)
        if "RunningProcesses" in function or function == "nvmlDeviceGetProcessUtilization":
            monkeypatch.undo()
            nvidia.fake.start_process(0, GpuProcess(7, sm=80))
            nvidia.fake.advance(0.25)
        return answer

    monkeypatch.setattr(Library, "ask", ask)
    uses = [nvidia.look(0.25).use for _ in range(2)]
    assert [(use.busy, use.strays) for use in uses] == [({}, {}), ({7: 160}, {})]


@pytest.mark.parametrize("without", [("*RunningProcesses_v3",), ("*MPSComputeRunning*",)])
def test_an_old_driver_has_older_lists_or_fewer(machine: Machine, without: tuple[str, ...]) -> None:
    """A function that is missing is not NVMLError, and no fault either."""
    processes = (GpuProcess(1), GpuProcess(2, Kind.GRAPHICS))
    nvidia = machine(replace(GPU, processes=processes), without=without)
    nvidia.look()
    assert (set(nvidia.look().use.residents), nvidia.faults) == ({1, 2}, [])


def test_a_driver_without_any_list_does_not_show_a_free_gpu(machine: Machine) -> None:
    """Who is there is not known: nothing is learned or divided by it."""
    nvidia = machine(GPU, without=("*RunningProcesses*",))
    nvidia.look()
    assert nvidia.look().state.use is None
    assert nvidia.energy == {"GPU-a": 140_000_000}


def test_a_list_that_fails_leaves_the_residents_as_they_were(machine: Machine) -> None:
    """Even at the first look: the other lists are not taken for all there are."""
    nvidia = machine(replace(GPU, processes=(GpuProcess(1), GpuProcess(2, Kind.GRAPHICS))))
    nvidia.fake.fault("nvmlDeviceGetGraphicsRunningProcesses_v3", UNKNOWN)
    nvidia.look()
    assert nvidia.look().state.use is None
    assert nvidia.faults == [("GPU-a processes", "failed")]
    nvidia.fake.heal()
    nvidia.look()
    assert set(nvidia.look().use.residents) == {1, 2}


def test_a_list_that_grows_between_two_calls_is_asked_for_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its length is told first, and may be too short by then."""
    nvidia = machine(replace(GPU, processes=(GpuProcess(1, sm=40),)))
    nvidia.look()
    really = pynvml.nvmlDeviceGetProcessUtilization
    failed: list[bool] = []

    def once_too_small(*arguments: Any) -> Any:  # noqa: ANN401 - pynvml's
        if not failed:
            failed.append(True)
            raise pynvml.NVMLError(7)
        return really(*arguments)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetProcessUtilization", once_too_small)
    assert (nvidia.look().use.busy, nvidia.faults, failed) == ({1: 160}, [], [True])


# --- samples ---------------------------------------------------------------------------------


def test_nobody_busy_is_no_samples_and_no_fault(machine: Machine) -> None:
    """NOT_FOUND: samples would be told."""
    nvidia = machine(replace(GPU, processes=(GpuProcess(1, sm=0),)))
    nvidia.look()
    assert (nvidia.look().use.busy, nvidia.faults) == ({}, [])


def test_an_empty_list_that_pynvml_takes_for_an_error(machine: Machine) -> None:
    """NVMLError(0): some drivers tell how many there are, and there are none."""
    nvidia = machine(replace(GPU, sample_size_exact=True))
    nvidia.look()
    assert (nvidia.look().use.busy, nvidia.faults) == ({}, [])


def test_a_gpu_without_samples(machine: Machine) -> None:
    """Not the same as nobody busy."""
    nvidia = machine(replace(GPU, processes=(GpuProcess(1),), unsupported=WITHOUT_SAMPLES))
    nvidia.look()
    use = nvidia.look().use
    assert (use.busy, use.strays, set(use.residents), nvidia.faults) == (None, {}, {1}, [])


def test_samples_that_may_not_be_read_are_a_fault(machine: Machine) -> None:
    """They need root or an open driver; energy is measured all the same."""
    nvidia = machine(replace(GPU, processes=(GpuProcess(1, sm=40),)))
    nvidia.look()
    nvidia.fake.fault("nvmlDeviceGetProcessUtilization", NO_PERMISSION)
    assert nvidia.look().state.use is None
    assert (nvidia.faults, list(nvidia.energy)) == ([("GPU-a processes", "denied")], ["GPU-a"])
    nvidia.fake.heal()
    assert nvidia.look().use.busy == {1: 320}
    assert nvidia.state.span_ns == 2 * NS


def test_garbage_is_dropped(machine: Machine) -> None:
    """Impossible percents, pid 0, rows that have been told before."""
    nvidia = machine(replace(GPU, processes=(GpuProcess(1, sm=40), GpuProcess(2, sm=10))))
    nvidia.look()
    stale = nvidia.fake.wall_us()
    nvidia.fake.inject(
        0,
        Sample(stale + 1, 1, 3_000_000_000),
        Sample(stale + 1, 1, 101),
        Sample(stale + 1, 0, 50),
        Sample(stale, 1, 50),
        Sample(1, 1, 50),
        Sample(0, 1, 50),
    )
    use = nvidia.look().use
    assert (use.busy, use.strays) == ({1: 160, 2: 40}, {})


def test_a_row_of_the_future_does_not_hide_all_that_follow(machine: Machine) -> None:
    """It is dropped, and never handed back as the newest."""
    nvidia = machine(replace(GPU, processes=(GpuProcess(1, sm=40),)))
    nvidia.fake.inject(0, Sample(nvidia.fake.wall_us() + 3600 * SECOND_US, 1, 50))
    nvidia.look()
    assert [nvidia.look().use.busy for _ in range(3)] == [{1: 160}] * 3


def test_a_wall_clock_that_is_set_back_hides_no_samples(machine: Machine) -> None:
    """Samples carry the wall clock: the newest moves with it."""
    nvidia = machine(replace(GPU, processes=(GpuProcess(1, sm=40),)))
    nvidia.look()
    nvidia.fake.shift_wall_clock(-3600)
    assert [nvidia.look().use.busy for _ in range(3)] == [{1: 160}] * 3


def test_a_wall_clock_that_is_set_forward_repeats_no_samples(machine: Machine) -> None:
    """What is stamped later is told once."""
    nvidia = machine(replace(GPU, processes=(GpuProcess(1, sm=40),)))
    nvidia.look()
    nvidia.fake.shift_wall_clock(3600)
    use = nvidia.look().use
    assert use.busy is not None
    assert use.busy[1] >= 160  # the fake stamps anew what it still keeps
    assert nvidia.look().use.busy == {1: 160}


def test_more_than_ten_seconds_are_covered_in_part(machine: Machine) -> None:
    """The driver keeps ten: the rest is nobody's, in the unit of the samples."""
    nvidia = machine(replace(GPU, processes=(GpuProcess(1, sm=40),)))
    nvidia.look()
    use = nvidia.look(30).use
    assert use.busy is not None
    assert use.busy[1] == 40 * 40
    assert use.unknown == 2 * use.busy[1]
    assert nvidia.look(10).use.unknown == 0


class Ring:
    """A driver's ring of samples that notes what it is asked for."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int]] = []
        self.asked: list[int] = []

    def ask(self, function: str, handle: object, last_seen: int) -> list[Any]:
        """Return `(pid, percent, timestamp)` rows that are newer."""
        self.asked.append(last_seen)
        rows = [row for row in self.rows if row[2] > last_seen]
        if not rows:
            raise NothingFound(function)
        sample = pynvml.c_nvmlProcessUtilizationSample_t
        return [sample(pid=pid, smUtil=percent, timeStamp=at) for pid, percent, at in rows]


def test_the_newest_timestamp_seen_is_handed_back() -> None:
    """Not the present time, not that of the last row, and never 0 again."""
    ring = Ring()
    samples = ProcessSamples(ring)  # type: ignore[arg-type]
    start = WALL_NS // 1000

    def read(second: int) -> dict[int, int] | None:
        return samples.read(None, second * NS, start)

    ring.rows = [(1, 40, start + 5 * SECOND_US), (2, 0, start + 8 * SECOND_US), (1, 30, start + 1)]
    assert read(10) == {1: 70}
    assert read(11) == {}
    ring.rows.append((1, 20, start + 9 * SECOND_US))  # it was on its way
    assert read(12) == {1: 20}
    newest = start + 8 * SECOND_US
    assert ring.asked == [0, newest, newest]
