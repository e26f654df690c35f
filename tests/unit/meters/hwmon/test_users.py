from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Container
from pathlib import Path

import pytest

from fakes.devices import client, write
from fakes.monitored import Machine
from jobwatt.gpus import GpuMethod, GpuState, GpuUse
from jobwatt.host.fdinfo import list_drm_files, read_fdinfo
from jobwatt.host.procfs import Procfs
from jobwatt.meters.hwmon import users
from jobwatt.units import NS, UJ

FIRST, SECOND = "0000:03:00.0", "0000:83:00.0"
NODE = "/dev/dri/renderD128"
MIB = 1024**2
S = NS
"""A second of engine time."""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine with two AMD GPUs of 100 W."""
    machine = Machine(tmp_path)
    for number, address in enumerate((FIRST, SECOND)):
        card = machine.card(number, address, "amdgpu")
        machine.chip(number, "amdgpu", card, power1_average=str(100 * UJ))
    return machine


def use_of(state: GpuState) -> GpuUse:
    assert state.use is not None
    return state.use


def holds(machine: Machine, pid: int, *texts: str) -> None:
    """Let a process hold clients, from descriptor 3 on, beside other files."""
    files = {fd: (NODE, text) for fd, text in enumerate(texts, start=3)}
    machine.process(pid, {0: ("/dev/null", ""), 1: ("pipe:[5]", ""), **files})


def amd(number: int, gfx: int, memory: int = 5, address: str = FIRST) -> str:
    return client(address, number, engine_gfx=gfx, memory_vram=f"{memory} MiB")


def test_the_first_look_knows_nothing_of_the_time_before(machine: Machine) -> None:
    """Use is a difference."""
    holds(machine, 70, amd(1, 5 * S))
    assert [(s.use, s.span_ns) for s in machine.states().values()] == [(None, 0)] * 2


def test_engine_time_since_the_look_before(machine: Machine) -> None:
    """What each process did, on the GPU where it did it, and who holds it."""
    holds(machine, 70, amd(1, 5 * S), amd(2, 1 * S, 3))
    holds(machine, 71, amd(3, 0, 7))
    machine.process(72)
    machine.read()
    holds(machine, 70, amd(1, 5 * S + 300), amd(2, 1 * S + 50, 3))
    holds(machine, 71, amd(3, 40, 7))
    states = machine.states(2)
    assert states[FIRST].span_ns == 2 * S
    assert use_of(states[FIRST]) == GpuUse(
        residents={70: 8 * MIB, 71: 7 * MIB},
        holders=frozenset({70, 71}),
        busy={70: 350, 71: 40},
        measure=GpuMethod.ENGINE_TIME,
    )
    assert use_of(states[SECOND]) == GpuUse(busy={}, measure=GpuMethod.ENGINE_TIME)


def test_a_client_of_several_processes_is_charged_once(machine: Machine) -> None:
    """The lowest pid that holds it has it, through however many descriptors."""
    for pid in (80, 70):
        holds(machine, pid, amd(1, 0), amd(1, 0))
    machine.read()
    for pid in (80, 70):
        holds(machine, pid, amd(1, 500), amd(1, 500))
    use = use_of(machine.states()[FIRST])
    assert (use.busy, use.residents) == ({70: 500}, {70: 5 * MIB})
    machine.end(70)
    holds(machine, 80, amd(1, 600))
    use = use_of(machine.states()[FIRST])
    assert (use.busy, use.residents, use.holders) == (
        {80: 100},
        {70: 5 * MIB, 80: 5 * MIB},
        frozenset({80}),
    )


def test_equal_numbers_on_two_gpus_are_two_clients(machine: Machine) -> None:
    """A client's number is unique on its card only."""
    holds(machine, 70, amd(1, 0), amd(1, 0, address=SECOND))
    machine.read()
    holds(machine, 70, amd(1, 5), amd(1, 7, address=SECOND))
    assert [use_of(state).busy for state in machine.states().values()] == [{70: 5}, {70: 7}]


def test_a_newcomer_is_found_at_once_with_all_it_did(machine: Machine) -> None:
    """A process that began after the look before did everything since."""
    machine.read()
    holds(machine, 70, amd(1, 300))
    assert use_of(machine.states()[FIRST]).busy == {70: 300}


def test_no_engine_works_more_than_the_time_that_passed(machine: Machine) -> None:
    """A client that was handed over may be older than its new holder."""
    machine.read()
    holds(machine, 70, amd(1, 900 * S))
    assert use_of(machine.states()[FIRST]).busy == {70: 1 * S}


def test_a_further_client_of_a_holder_is_found_at_once(machine: Machine) -> None:
    """Those that hold a GPU are looked at every time for what they opened."""
    holds(machine, 70, amd(1, 0))
    machine.read()
    holds(machine, 70, amd(1, 0), amd(2, 400, address=SECOND))
    assert use_of(machine.states()[SECOND]).busy == {70: 400}


def test_one_that_opens_a_gpu_later_is_found_while_young(machine: Machine) -> None:
    """A process that opens a GPU some seconds after its start is found soon."""
    for pid in range(100, 400):
        machine.process(pid)
    machine.read()
    machine.process(999)
    machine.read()
    holds(machine, 999, amd(1, 300))
    assert use_of(machine.states()[FIRST]).holders == frozenset()
    use = use_of(machine.states()[FIRST])
    assert (use.holders, use.busy) == (frozenset({999}), {})


def test_one_that_was_short_is_not_looked_for(machine: Machine) -> None:
    """A newcomer that has ended is not visited again, one that opens nothing only so often."""
    machine.read()
    machine.process(70)
    machine.process(71)
    machine.read()
    machine.end(70)
    for _ in range(60):
        machine.read()
    assert machine.meter._users is not None
    assert machine.meter._users._young == []


def test_an_old_one_is_found_in_the_slow_round(machine: Machine) -> None:
    """Everybody's files are listed in turn; what it did before it was found is not counted."""
    for pid in range(100, 400):
        machine.process(pid)
    machine.read()
    holds(machine, 399, amd(1, 300))
    looks = -(-300 // users.MOST_LISTED)
    found = [use_of(machine.states()[FIRST]).holders for _ in range(2 * looks)]
    assert frozenset({399}) in found[:looks]
    assert use_of(machine.states()[FIRST]).busy == {}


def test_processes_are_listed_when_there_may_be_new_ones(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the youngest pid tells that nobody has come, the list is kept for a while."""
    monkeypatch.setattr(Procfs, "is_own", lambda self: True)
    write(machine.procfs, {"loadavg": "0.1 0.1 0.1 1/5 69"})
    machine.read()
    holds(machine, 70, amd(1, 300))
    found = [use_of(machine.states()[FIRST]).holders for _ in range(5)]
    assert found == [frozenset()] * 4 + [frozenset({70})]
    holds(machine, 71, amd(2, 300))
    write(machine.procfs, {"loadavg": "0.1 0.1 0.1 1/5 71"})
    assert use_of(machine.states()[FIRST]).busy == {71: 300}


def test_the_slow_round_is_bounded(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look lists so many processes' files and no more."""
    for pid in range(100, 400):
        machine.process(pid)
    machine.read()
    listed: list[int] = []

    def noting(procfs: Procfs, pid: int, known: Container[str]) -> object:
        listed.append(pid)
        return list_drm_files(procfs, pid, known)

    monkeypatch.setattr(users, "list_drm_files", noting)
    machine.read()
    assert len(listed) == users.MOST_LISTED


def test_one_that_ends_stays_a_resident_of_that_interval(machine: Machine) -> None:
    """What it did last cannot be read: at its old rate it is unknown, nobody else's."""
    holds(machine, 70, amd(1, 0))
    holds(machine, 71, amd(2, 0))
    machine.read()
    holds(machine, 70, amd(1, 300))
    holds(machine, 71, amd(2, 500))
    machine.read()
    machine.end(70)
    holds(machine, 71, amd(2, 600))
    use = use_of(machine.states()[FIRST])
    assert (use.residents, use.holders) == ({70: 5 * MIB, 71: 5 * MIB}, frozenset({71}))
    assert (use.busy, use.unknown) == ({71: 100}, 300)
    use = use_of(machine.states()[FIRST])
    assert (use.residents, use.unknown) == ({71: 5 * MIB}, 0)


def test_a_closed_file_is_no_holding(machine: Machine) -> None:
    """A descriptor that is something else by now holds nothing."""
    holds(machine, 70, amd(1, 0))
    machine.read()
    machine.process(70, {3: ("/dev/null", "")})
    machine.read()
    use = use_of(machine.states()[FIRST])
    assert (use.residents, use.holders) == ({}, frozenset())


def test_a_value_that_falls_back_waits(machine: Machine) -> None:
    """A driver may show less for a while: the larger value counts until it is passed."""
    shown = [500, 300, 600]
    holds(machine, 70, amd(1, 0))
    machine.read()
    busy = []
    for value in shown:
        holds(machine, 70, amd(1, value))
        busy.append(use_of(machine.states()[FIRST]).busy)
    assert busy == [{70: 500}, {}, {70: 100}]


def test_who_does_nothing_holds_nothing(machine: Machine) -> None:
    """A session manager's file without memory and work is no holding."""
    holds(machine, 70, amd(1, 0, 0))
    machine.read()
    use = use_of(machine.states()[FIRST])
    assert (use.residents, use.holders, use.busy) == ({}, frozenset(), {})


def test_a_driver_that_tells_no_time(machine: Machine) -> None:
    """Then memory has to divide, also in the interval in which it was closed."""
    holds(machine, 70, client(FIRST, 1, memory_vram="4 MiB"))
    machine.read()
    use = use_of(machine.states()[FIRST])
    assert (use.residents, use.busy) == ({70: 4 * MIB}, None)
    machine.end(70)
    assert use_of(machine.states()[FIRST]).busy is None
    assert use_of(machine.states()[FIRST]).busy == {}


def test_a_driver_that_tells_nothing(machine: Machine) -> None:
    """Who holds a file is a resident of unknown size."""
    holds(machine, 70, client(FIRST, 1), client(FIRST, 2, resident_vram=7))
    holds(machine, 71, client(FIRST, 3))
    machine.read()
    assert use_of(machine.states()[FIRST]).residents == {70: 7, 71: None}


def test_compute_processes_hold_by_their_memory(machine: Machine) -> None:
    """User queues are in no engine's time: where they are in use, memory divides."""
    gpus = {"77": 768, "78": 33536, "79": 49408}
    machine.kfd(gpus, {70: {"77": 9 * MIB, "78": 0, "79": MIB}, 71: {"77": 6 * MIB}})
    holds(machine, 70, amd(1, 100, 2))
    holds(machine, 72, amd(2, 100, 3))
    machine.read()
    holds(machine, 72, amd(2, 900, 3))
    states = machine.states()
    use = use_of(states[FIRST])
    assert use.residents == {70: 9 * MIB, 71: 6 * MIB, 72: 3 * MIB}
    assert (use.holders, use.busy) == (frozenset({70, 71, 72}), None)
    assert use_of(states[SECOND]).residents == {}
    for pid in (70, 71):
        write(machine.sysfs / f"class/kfd/kfd/proc/{pid}", {"vram_77": "0"})
    assert use_of(machine.states()[FIRST]).busy is None
    assert use_of(machine.states()[FIRST]).busy == {}


def test_one_that_ends_while_its_gpu_sleeps(machine: Machine) -> None:
    """Then nobody holds it any more."""
    holds(machine, 70, amd(1, 0))
    machine.read()
    card = machine.sysfs / "devices/pci0000:00" / FIRST
    write(card, {"power/runtime_status": "suspended"})
    machine.read()
    machine.end(70)
    use = use_of(machine.states()[FIRST])
    assert (use.residents, use.holders) == ({70: 5 * MIB}, frozenset())


def test_one_that_does_nothing_while_its_gpu_sleeps(machine: Machine) -> None:
    """A file that was no holding is none then either."""
    holds(machine, 70, amd(1, 0, 0))
    machine.read()
    card = machine.sysfs / "devices/pci0000:00" / FIRST
    write(card, {"power/runtime_status": "suspended"})
    assert use_of(machine.states()[FIRST]).holders == frozenset()


def test_a_sleeping_gpu_is_not_asked(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clients did nothing and are still there; a file that is opened then is found later."""
    holds(machine, 70, amd(1, 0))
    holds(machine, 71, amd(9, 0, address=SECOND))
    machine.read()
    card = machine.sysfs / "devices/pci0000:00" / FIRST
    write(card, {"power/runtime_status": "suspended"})
    holds(machine, 71, amd(9, 1, address=SECOND), amd(3, 70))
    read: list[int] = []

    def noting(procfs: Procfs, pid: int, fd: str) -> object:
        read.append(pid)
        return read_fdinfo(procfs, pid, fd)

    monkeypatch.setattr(users, "read_fdinfo", noting)
    use = use_of(machine.states()[FIRST])
    assert (use.residents, use.busy, 70 in read) == ({70: 5 * MIB}, {}, False)
    assert use_of(machine.states()[FIRST]).holders == frozenset({70})
    write(card, {"power/runtime_status": "active"})
    use = use_of(machine.states()[FIRST])
    assert (use.holders, use.busy) == (frozenset({70, 71}), {71: 70})


def test_xe_counts_cycles(tmp_path: Path) -> None:
    """Busy cycles of those of the card's clock, of the time that passed."""
    machine = Machine(tmp_path)
    card = machine.card(0, FIRST, "xe")
    machine.chip(0, "xe", card, energy1_input="7")

    def xe(busy: int, total: int) -> str:
        cycles: dict[str, int | str] = {"cycles_ccs": busy, "total_cycles_ccs": total}
        text = client(FIRST, 1, "xe", **cycles, resident_vram0="5 MiB")
        return f"{text}drm-engine-capacity-ccs:\t2\n"

    busy = []
    for shown in ((50, 1000), (75, 1100), (75, 1200), (900, 1300), (10, 20), (20, 120)):
        holds(machine, 70, xe(*shown))
        state = machine.states()[FIRST]
        busy.append(state.use and state.use.busy)
    assert busy == [None, {70: S // 4}, {}, {70: 2 * S}, {}, {70: S // 10}]


def test_one_that_refuses_costs_itself_only(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Processes of others may be closed: that is said once, and the rest goes on."""
    for pid, number in ((70, 1), (71, 2), (72, 3)):
        holds(machine, pid, amd(number, 0))
    deny(monkeypatch, lambda path: "/71/" in path or path.endswith("/72/fdinfo/3"))
    with caplog.at_level(logging.WARNING):
        machine.read()
        holds(machine, 70, amd(1, 5))
        use = use_of(machine.states()[FIRST])
    assert (use.residents, use.busy) == ({70: 5 * MIB}, {70: 5})
    assert ["CAP_SYS_PTRACE" in message for message in caplog.messages] == [True]


def deny(monkeypatch: pytest.MonkeyPatch, is_closed: Callable[[str], bool]) -> None:
    """Let the kernel refuse what belongs to another user."""
    really_open, really_list = os.open, os.listdir

    def check(path: object) -> None:
        if is_closed(str(path)):
            raise PermissionError(errno.EACCES, "Permission denied")

    def guarded_open(path: str | Path, flags: int) -> int:
        check(path)
        return really_open(path, flags)

    def guarded_list(path: str | Path) -> list[str]:
        check(f"{path}/")
        return really_list(path)

    monkeypatch.setattr(os, "open", guarded_open)
    monkeypatch.setattr(os, "listdir", guarded_list)


def test_one_that_vanishes_costs_itself_only(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends between the listing and the look is not there."""
    holds(machine, 70, amd(1, 0))
    machine.read()
    really_list = os.listdir
    monkeypatch.setattr(
        os,
        "listdir",
        lambda path: [*really_list(path), *(["500"] if path == str(machine.procfs) else [])],
    )
    assert use_of(machine.states()[FIRST]).holders == frozenset({70})


def test_garbage_is_no_client(machine: Machine) -> None:
    """What a driver garbles is left out, the rest is not."""
    holds(machine, 70, amd(1, 0), "drm-driver:\tx\ndrm-client-id:\tx\n")
    machine.read()
    assert use_of(machine.states()[FIRST]).holders == frozenset({70})


def test_processes_that_cannot_be_listed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that are known go on being read."""
    holds(machine, 70, amd(1, 0))
    machine.read()
    holds(machine, 70, amd(1, 9))
    deny(monkeypatch, lambda path: path == f"{machine.procfs}/")
    assert use_of(machine.states()[FIRST]).busy == {70: 9}
    assert "cannot be listed" in caplog.text


def test_the_files_of_a_card_that_is_not_measured(machine: Machine) -> None:
    """A client of another card is nobody's business here."""
    holds(machine, 70, amd(1, 0, address="0000:c1:00.0"))
    machine.read()
    assert use_of(machine.states()[FIRST]).holders == frozenset()
