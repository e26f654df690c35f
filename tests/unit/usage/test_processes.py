"""Real processes, real clocks, real cgroups."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobwatt.errors import Denied
from jobwatt.host.cgroupfs import Cgroupfs, find_cgroupfs
from jobwatt.host.procfs import Census, ProcessStatus, Procfs
from jobwatt.host.topology import Topology, read_topology
from jobwatt.model import UNDECIDED, Process, Row, Usage
from jobwatt.records import JobRecord
from jobwatt.usage.processes import HostProcesses
from jobwatt.workloads.contract import Facts, resolve
from jobwatt.workloads.systemd import SystemdResolver

NO_CGROUPS = Cgroupfs(())
NS = 1_000_000_000
BURN = "while True: pass"
SLEEP = "import time; time.sleep(60)"


def probe(
    cgroupfs: Cgroupfs = NO_CGROUPS,
    procfs: Procfs | None = None,
    topology: Topology | None = None,
    owner_by: Callable[[Path], str] | None = None,
) -> HostProcesses:
    resolvers = (SystemdResolver(str),)

    def owner(facts: Facts) -> str:
        if owner_by is not None:
            return owner_by(Path(facts.cgroups.get("", "/system")))
        return resolve(facts, resolvers)

    return HostProcesses(
        procfs or Procfs(Path("/proc")),
        cgroupfs,
        topology or read_topology(Path("/sys")),
        owner,
        str,
    )


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program that has begun to run its code."""
    ready = f"print(flush=True)\n{code}"
    with subprocess.Popen([sys.executable, "-c", ready], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def look(usage: HostProcesses) -> Usage:
    return usage.look(time.monotonic_ns())


def find(usage: HostProcesses, pid: int) -> Process:
    (process,) = [p for p in usage.processes if p.pid == pid]
    return process


def clock(process: subprocess.Popen[bytes]) -> int:
    """A process's CPU time in nanoseconds, as the kernel has it."""
    return time.clock_gettime_ns((~process.pid << 3) | 2)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_first_look_tells_no_use() -> None:
    """What ran before is in no interval."""
    usage = look(probe())
    assert (usage.cpu_ns, usage.exited_ns, usage.unseen_ns, usage.ended) == ({}, {}, 0, [])


def test_a_burner_gets_its_own_time() -> None:
    """As its own clock has it, to the millisecond."""
    with running(BURN) as burner:
        usage = probe()
        look(usage)
        before = clock(burner)
        time.sleep(0.3)
        seen = look(usage)
        after = clock(burner)
        assert seen.cpu_ns[find(usage, burner.pid)] == pytest.approx(after - before, abs=20e6)


def test_a_newcomer_is_charged_from_its_birth() -> None:
    """All that it used since it was born is in the first look that sees it."""
    usage = probe()
    look(usage)
    with running("import time\nwhile time.process_time() < 0.3: pass\ntime.sleep(60)") as process:
        wait_until(lambda: clock(process) >= 300e6)
        seen = look(usage)
        assert seen.cpu_ns[find(usage, process.pid)] >= 300e6


def test_an_ended_process_is_reported_once() -> None:
    """And is known no more."""
    usage = probe()
    with running(SLEEP) as process:
        look(usage)
        known = find(usage, process.pid)
    assert [p for p in look(usage).ended if p is known] == [known]
    assert process.pid not in [p.pid for p in usage.processes]
    assert known not in look(usage).ended


def test_a_zombie_that_is_reaped_has_ended_at_the_next_listing(cgroup: Path) -> None:
    """Its group stands still by then; that the machine has a thread less tells."""
    usage = probe(find_cgroupfs(Path("/sys/fs/cgroup")))
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as process:
        (cgroup / "cgroup.procs").write_text(str(process.pid))
        look(usage)
        known = find(usage, process.pid)
        process.kill()
        wait_until(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z")
        assert known not in look(usage).ended
        process.wait()
    now_ns = time.monotonic_ns()
    assert known in usage.look(now_ns + 10_000_000_000).ended


ORPHAN = (
    "import os, signal, time\nread, write = os.pipe()\nchild = os.fork()\n"
    "if not child:\n os.read(read, 1)\n end = time.process_time() + 0.2\n"
    " while time.process_time() < end: pass\n os._exit(0)\n"
    "signal.signal(signal.SIGUSR1, lambda *_: os.write(write, b'x'))\n"
    "signal.signal(signal.SIGUSR2, lambda *_: os.wait())\n"
    "print(child, flush=True)\nwhile True: time.sleep(60)"
)
"""A parent whose child works at SIGUSR1 and exits, and is reaped at SIGUSR2."""


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@contextmanager
def piped(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program whose output is read, killed in the end."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("grouped", [False, True])
def test_a_process_that_has_exited_ends_though_nobody_reaps_it(
    cgroup: Path, *, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paid all that it used, and is not met again while it is listed."""
    monkeypatch.setattr("jobwatt.usage.zombies.MOST_STOPPED", 1000)  # others stop as well
    with piped(ORPHAN) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        for each in (parent.pid, pid):
            (cgroup / "cgroup.procs").write_text(str(each))
        usage = probe(find_cgroupfs(Path("/sys/fs/cgroup")) if grouped else NO_CGROUPS)
        now_ns = time.monotonic_ns()
        usage.look(now_ns)
        known, begun_ns = find(usage, pid), time.clock_gettime_ns((~pid << 3) | 2)
        parent.send_signal(signal.SIGUSR1)
        wait_until(lambda: is_zombie(pid))
        seen = usage.look(now_ns + NS)
        used_ns = time.clock_gettime_ns((~pid << 3) | 2) - begun_ns
        assert (seen.cpu_ns[known], known in seen.ended) == (used_ns, False)
        ended = [usage.look(now_ns + second * NS).ended.count(known) for second in (2, 3, 14, 65)]
        assert ended == [1, 0, 0, 0]
        assert (known.alive, usage.find(pid), len(usage._zombies.pids) > 0) == (False, None, True)
        parent.send_signal(signal.SIGUSR2)
        wait_until(lambda: not Path(f"/proc/{pid}").exists())
        usage.look(now_ns + 126 * NS)
        assert pid not in usage._zombies.pids


def test_a_zombie_that_was_there_before_is_nobody() -> None:
    """It will never run; a first thread that has exited before the others is no zombie."""
    code = (
        "import ctypes, threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print(flush=True)\nctypes.CDLL(None).pthread_exit(None)"
    )
    with subprocess.Popen(["true"]) as dead, piped(code) as headless:
        wait_until(lambda: is_zombie(dead.pid) and is_zombie(headless.pid))
        usage = probe()
        looks = [look(usage) for _ in range(3)]
        pids = [process.pid for process in usage.processes]
        assert (dead.pid in pids, headless.pid in pids) == (False, True)
        assert all(p.pid != headless.pid for seen in looks for p in seen.ended)


def test_nobody_is_listed_while_nobody_comes_or_goes() -> None:
    """Once a minute all the same: somebody may have been hidden."""
    procfs = Quiet(Path("/proc"))
    usage = probe(procfs=procfs)
    for second in (0, 1, 11, 31, 59):
        usage.look(second * 1_000_000_000)
    assert procfs.listings == 1
    usage.look(61_000_000_000)
    assert procfs.listings == 2


class Quiet(Procfs):
    """A procfs of a machine on which nobody comes or goes."""

    listings = 0

    def read_census(self) -> Census:
        return Census(1, 1)

    def list_pids(self) -> set[int]:
        self.listings += 1
        return {os.getpid()}


def test_another_process_under_the_same_pid_is_another() -> None:
    """A pid says nothing without the start time."""
    usage = probe()
    with running(SLEEP) as process:
        subprocess.run(["true"], check=True)  # the youngest pid is another's
        look(usage)
        first = find(usage, process.pid)
    for _ in range(20):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
        heir = subprocess.Popen([sys.executable, "-c", SLEEP])
        if heir.pid == first.pid:
            break
        heir.kill()
        heir.wait()
    try:
        assert heir.pid == first.pid
        ended = look(usage).ended + look(usage).ended
        second = find(usage, heir.pid)
    finally:
        heir.kill()
        heir.wait()
    assert first in ended
    assert second is not first
    assert second.start_ticks != first.start_ticks


def test_the_name_follows_exec() -> None:
    """A shell that becomes another program is that program when it is looked at again."""
    usage = probe()
    with subprocess.Popen(["sh", "-c", "read x; exec sleep 60"], stdin=subprocess.PIPE) as shell:
        look(usage)
        process = find(usage, shell.pid)
        assert process.comm == "sh"
        assert shell.stdin is not None
        shell.stdin.write(b"\n")
        shell.stdin.flush()
        wait_until(lambda: Path(f"/proc/{shell.pid}/comm").read_text() == "sleep\n")
        usage.refresh(process)
        shell.kill()
    assert process.comm == "sleep"


def test_hostile_names_are_text() -> None:
    """Newline, quote, bracket and invalid UTF-8."""
    code = (
        "import ctypes, time\n"
        "ctypes.CDLL(None).prctl(15, b'a\\n\\\"b)\\xff', 0, 0, 0)\n"
        "print(flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        usage = probe()
        look(usage)
        comm = find(usage, process.pid).comm
        process.kill()
    assert comm == 'a\n"b)\ufffd'


def test_kernel_threads_are_processes_of_the_system() -> None:
    """They have clocks like everybody, and no memory."""
    usage = probe()
    look(usage)
    kthreadd = find(usage, 2)
    assert (kthreadd.comm, kthreadd.job_uid, kthreadd.memory_bytes) == ("kthreadd", "system", 0)


def test_memory_is_anonymous_and_summed() -> None:
    """50 MB that were touched are seen, and the sum is that of all processes."""
    with running("x = bytearray(50_000_000)\nprint(flush=True)\n" + SLEEP) as process:
        assert process.stdout is not None
        process.stdout.readline()
        usage = probe()
        seen = look(usage)
        assert find(usage, process.pid).memory_bytes >= 50_000_000
        assert sum(seen.memory_bytes.values()) == sum(p.memory_bytes for p in usage.processes)


def test_the_memory_of_those_who_ended_is_gone() -> None:
    """The sum follows deaths."""
    usage = probe()
    with running(SLEEP):
        look(usage)
    look(usage)
    seen = look(usage)
    assert sum(seen.memory_bytes.values()) == sum(p.memory_bytes for p in usage.processes)


def test_affinity_tells_the_package() -> None:
    """A process bound to CPU 1 can only have used that CPU's package."""
    topology = Topology({0: 0, 1: 1})
    with running(SLEEP) as process:
        os.sched_setaffinity(process.pid, {1})
        usage = probe(topology=topology)
        look(usage)
        assert find(usage, process.pid).packages == frozenset({1})
    assert find(usage, 1).packages is None


class Refusing(Procfs):
    """A procfs that keeps one process's status and cgroup to itself."""

    refused = 0

    def read_process_status(self, pid: int) -> ProcessStatus:
        if pid == self.refused:
            raise Denied("no")
        return super().read_process_status(pid)

    def read_cgroup(self, pid: int) -> dict[str, str]:
        if pid == self.refused:
            raise Denied("no")
        return super().read_cgroup(pid)


def test_a_process_that_refuses_costs_only_its_own_detail() -> None:
    """Its time is read all the same, and so is everybody else."""
    procfs = Refusing(Path("/proc"))
    with running(BURN) as burner:
        procfs.refused = burner.pid
        usage = probe(procfs=procfs)
        look(usage)
        time.sleep(0.2)
        seen = look(usage)
        process = find(usage, burner.pid)
    assert seen.cpu_ns[process] > 20e6
    assert (process.job_uid, process.memory_bytes) == ("system", 0)
    assert find(usage, 1).comm


class Elsewhere(Procfs):
    """A procfs whose pids are not this process's."""

    def is_own(self) -> bool:
        return False


def test_files_do_where_clocks_cannot() -> None:
    """Through /proc/PID/stat, within its ticks."""
    with running(BURN) as burner:
        usage = probe(procfs=Elsewhere(Path("/proc")))
        look(usage)
        before = clock(burner)
        time.sleep(0.5)
        seen = look(usage)
        after = clock(burner)
    assert usage.method == "/proc/PID/stat"
    assert seen.cpu_ns[find(usage, burner.pid)] == pytest.approx(after - before, abs=60e6)


@contextmanager
def made_cgroup(name: str) -> Iterator[Path]:
    """A cgroup of a unit of its own, and of whatever runs in it in the end."""
    folder = Path(f"/sys/fs/cgroup/unified/jobwatt-test-{secrets.token_hex(4)}-{name}.service")
    folder.mkdir()
    try:
        yield folder
    finally:
        (folder / "cgroup.kill").write_text("1")
        wait_until(lambda: "populated 0" in (folder / "cgroup.events").read_text())
        folder.rmdir()


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """One of them."""
    with made_cgroup("x") as folder:
        yield folder


@contextmanager
def bursts(*cgroups: Path) -> Iterator[None]:
    """A parent in cgroups, whose children live for 20 ms of CPU time."""
    code = (
        "import os, sys\n"
        f"for folder in {[str(cgroup) for cgroup in cgroups]!r}:\n"
        "    with open(folder + '/cgroup.procs', 'w') as procs: procs.write(str(os.getpid()))\n"
        "print(flush=True)\n"
        "burn = 'import time\\nwhile time.process_time() < 0.02: pass'\n"
        "while True:\n"
        "    os.waitpid(os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, '-Sc', burn]), 0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        try:
            yield
        finally:
            parent.kill()
    wait_until(lambda: not any((cgroup / "cgroup.procs").read_text() for cgroup in cgroups))


def found_ratio(usage: HostProcesses, unit: str, read_ns: Callable[[], int]) -> float:
    """How much of a cgroup's CPU time in some looks is found in its unit, at least."""
    # What the parent used before it was in the cgroup is settled first.
    time.sleep(0.25)
    look(usage)
    before, used, found = read_ns(), 0, 0
    for _ in range(8):
        time.sleep(0.25)
        used = read_ns() - before
        seen = look(usage)
        found += seen.exited_ns.get(unit, 0)
        found += sum(ns for process, ns in seen.cpu_ns.items() if process.job_uid == unit)
    return found / used


def used_ns(cgroup: Path) -> int:
    """What a cgroup has used."""
    if (cgroup / "cpuacct.usage").exists():
        return int((cgroup / "cpuacct.usage").read_text())
    return int((cgroup / "cpu.stat").read_text().split()[1]) * 1000


@pytest.fixture(params=["v2", "hybrid-v2", "v1", "hybrid-v1"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Where the trees are mounted, and a new cgroup in one; version 1 alone by links to it."""
    kind = request.param
    base = Path("/sys/fs/cgroup")
    top = base / ("cpuacct" if kind.endswith("v1") else "unified")
    if kind == "v1":
        base = tmp_path
        (tmp_path / "cpuacct").symlink_to(top)
    elif kind == "v2":
        base = top
    folder = top / f"jobwatt-test-{secrets.token_hex(4)}-bursts.service"
    folder.mkdir()
    yield base, folder
    folder.rmdir()


def test_short_lived_children_are_their_cgroups(tree: tuple[Path, Path]) -> None:
    """Of bursts of 20 ms children at least 98 % is found in their unit, in every layout."""
    base, cgroup = tree
    usage = probe(find_cgroupfs(base))
    with bursts(cgroup):
        look(usage)
        found = found_ratio(usage, f"systemd:{cgroup.name}", lambda: used_ns(cgroup))
    assert 0.98 <= found <= 1.1


def test_a_job_of_version_1_in_a_service_of_version_2_has_its_short_lived_children(
    cgroup: Path,
) -> None:
    """As with Slurm or Docker on systemd's hybrid layout."""
    top = Path(f"/sys/fs/cgroup/cpuacct/jobwatt-test-{secrets.token_hex(4)}")
    job = top / "job_7"
    job.mkdir(parents=True)

    def owner(facts: Facts) -> str:
        is_job = facts.cgroups.get("cpuacct", "").startswith(f"/{top.name}/job_7")
        return "slurm:7" if is_job else resolve(facts, (SystemdResolver(str),))

    base = Path("/sys/fs/cgroup")
    usage = HostProcesses(
        Procfs(Path("/proc")), find_cgroupfs(base), read_topology(Path("/sys")), owner, str
    )
    try:
        with bursts(cgroup, job):
            look(usage)
            found = found_ratio(usage, "slurm:7", lambda: used_ns(job))
    finally:
        job.rmdir()
        top.rmdir()
    assert 0.97 <= found <= 1.1


def test_a_cgroup_that_is_made_again_is_another(cgroup: Path) -> None:
    """As of a service that is started again between two looks: its bursts are still its own."""
    usage = probe(find_cgroupfs(Path("/sys/fs/cgroup")))
    for _ in range(2):
        with bursts(cgroup):
            look(usage)
            found = found_ratio(usage, f"systemd:{cgroup.name}", lambda: used_ns(cgroup))
        assert 0.98 <= found <= 1.1
        cgroup.rmdir()
        cgroup.mkdir()


def test_a_cgroups_counter_tells_of_its_children_over_a_restart(tree: tuple[Path, Path]) -> None:
    """Of what nobody saw, not a sample is lost or told twice, however long ago all was kept."""
    base, cgroup = tree
    unit = f"systemd:{cgroup.name}"
    before = probe(find_cgroupfs(base))
    look_and_dump(before)
    with bursts(cgroup):
        for _ in range(4):
            time.sleep(0.25)
            rows = look_and_dump(before)
        kept_ns = used_ns(cgroup)
        time.sleep(1)
        after = probe(find_cgroupfs(base))
        after.restore({key: json.loads(json.dumps(row)) for key, row in rows.items()})
        seen = look(after)
        used = used_ns(cgroup) - kept_ns
    assert "used 4" in rows
    own = sum(ns for process, ns in seen.cpu_ns.items() if process.job_uid == unit)
    assert seen.exited_ns[unit] > used / 2
    assert seen.exited_ns[unit] + own == pytest.approx(used, rel=0.15)
    assert set(seen.exited_ns) <= {unit} | {p.job_uid for p in after.processes}


def test_a_cgroup_that_stands_empty_has_kept_what_was_used_in_it(cgroup: Path) -> None:
    """While nobody looked: all its processes have ended, maybe but for one nobody has reaped."""
    usage = probe(find_cgroupfs(Path("/sys/fs/cgroup")))
    with bursts(cgroup):
        look(usage)
        time.sleep(0.5)
        rows = look_and_dump(usage)
        kept_ns = used_ns(cgroup)
        time.sleep(0.5)
    after = probe(find_cgroupfs(Path("/sys/fs/cgroup")))
    after.restore(rows)
    used = used_ns(cgroup) - kept_ns
    unit = f"systemd:{cgroup.name}"
    seen = look(after)
    orphan = sum(ns for process, ns in seen.cpu_ns.items() if process.job_uid == unit)
    assert seen.exited_ns[unit] > used / 2
    assert seen.exited_ns[unit] + orphan == pytest.approx(used, abs=0.05e9)


def test_what_a_cgroup_used_that_is_gone_after_a_restart_is_nobodys(tmp_path: Path) -> None:
    """Not its parent's; and one that was made in its place begins at 0."""
    top = Path("/sys/fs/cgroup/unified") / f"jobwatt-test-{secrets.token_hex(4)}-a.service"
    job = top / "b.service"
    job.mkdir(parents=True)
    try:
        usage = probe(find_cgroupfs(Path("/sys/fs/cgroup")), owner_by=lambda path: path.parts[-1])
        with bursts(job):
            look(usage)
            rows = look_and_dump(usage)
            wait_until(lambda: used_ns(job) > 0.5e9)
        job.rmdir()
        job.mkdir()
        with bursts(job):
            wait_until(lambda: used_ns(job) > 0.2e9)
            after = probe(
                find_cgroupfs(Path("/sys/fs/cgroup")), owner_by=lambda path: path.parts[-1]
            )
            after.restore(rows)
            seen = look(after)
            again = used_ns(job)
        own = sum(ns for process, ns in seen.cpu_ns.items() if process.job_uid == job.name)
        assert top.name not in seen.exited_ns
        assert own + seen.exited_ns[job.name] == pytest.approx(again, rel=0.3)
        assert seen.unseen_ns > 0.3e9
    finally:
        job.rmdir()
        top.rmdir()


def test_what_is_kept_of_cgroups_that_come_and_go_can_be_read_again(cgroup: Path) -> None:
    """Whatever is gone by then: one that was kept, one that is new, one whose process has left."""
    usage = probe(find_cgroupfs(Path("/sys/fs/cgroup")))
    look_and_dump(usage)
    with running(BURN) as burner:
        for name in ("a.service", "b.service"):
            folder = cgroup / name
            folder.mkdir()
            (folder / "cgroup.procs").write_text(str(burner.pid))
            usage.refresh(find(usage, burner.pid)) if name == "b.service" else None
            for _ in range(2):
                rows = look_and_dump(usage)
            (cgroup / "cgroup.procs").write_text(str(burner.pid))
            folder.rmdir()
            rows = look_and_dump(usage)
        after = probe(find_cgroupfs(Path("/sys/fs/cgroup")))
        after.restore({key: json.loads(json.dumps(row)) for key, row in rows.items()})
        time.sleep(0.3)
        assert look(after).cpu_ns[find(after, burner.pid)] > 0.1e9
    assert {len(row) for key, row in rows.items() if key.startswith("used ")} == {5}


def test_what_the_undecided_use_is_nobodys(cgroup: Path) -> None:
    """Of those that are seen and of those that come and go; not a nanosecond is lost or doubled.

    Once they are decided, they and all that is known of them are their job's.
    """
    burst = 'for i in $(seq 4); do timeout 0.03 sh -c "while :; do :; done"; done'
    code = (
        f"import os, subprocess, time\nopen({str(cgroup / 'cgroup.procs')!r}, 'w').write('0')\n"
        f"memory = bytearray(20_000_000)\nprint(flush=True)\n"
        f"for _ in range(9):\n input()\n subprocess.run(['sh', '-c', {burst!r}])\n"
        f" end = time.process_time() + 0.05\n"
        f" while time.process_time() < end: pass\n print(flush=True)"
    )
    decided: list[str] = []

    def owner(facts: Facts) -> str:
        if any(cgroup.name in path for path in facts.cgroups.values()):
            return decided[0] if decided else UNDECIDED
        return "system"

    usage = HostProcesses(
        Procfs(Path("/proc")),
        find_cgroupfs(Path("/sys/fs/cgroup")),
        read_topology(Path("/sys")),
        owner,
        str,
        variables=("CUDA_VISIBLE_DEVICES",),
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "GPU-1"}
    with subprocess.Popen([sys.executable, "-c", code], **pipes, env=environment) as process:  # type: ignore[call-overload]
        process.stdout.readline()

        def used() -> int:
            (line, *_) = (cgroup / "cpu.stat").read_text().splitlines()
            return int(line.split()[1]) * 1000

        def work() -> tuple[Usage, int]:
            before = used()
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
            return look(usage), used() - before

        look(usage)
        seen, spent = work()
        (known,) = [p for p in usage.processes if p.pid == process.pid]
        assert (known.job_uid, usage.find(process.pid)) == (UNDECIDED, None)
        assert known not in usage.claimants
        assert UNDECIDED not in seen.jobs
        assert seen.unseen_ns == pytest.approx(spent, abs=30e6)
        assert all(p.job_uid != UNDECIDED for p in seen.cpu_ns)
        assert UNDECIDED not in seen.exited_ns
        assert seen.memory_bytes[UNDECIDED, None] >= 20_000_000

        decided.append("k8s:ml/Job/bert")
        seen, spent = work()
        assert (known.job_uid, usage.find(process.pid)) == (decided[0], known)
        assert known in usage.claimants
        members = sum(p.job_uid == decided[0] for p in usage.processes)
        assert (seen.jobs[decided[0]].processes, seen.unseen_ns) == (members, 0)
        total = sum(ns for p, ns in seen.cpu_ns.items() if p.job_uid == decided[0])
        total += seen.exited_ns.get(decided[0], 0)
        assert total == pytest.approx(spent, abs=30e6)
        assert seen.memory_bytes[decided[0], None] >= 20_000_000
        assert all(job_uid != UNDECIDED for job_uid, _ in seen.memory_bytes)
        process.kill()


def test_who_ends_undecided_leaves_nothing_to_anybody() -> None:
    """Also where another process is under its pid already, so that it is known no more."""
    heir, gone = Process(1, 20, job_uid="system"), Process(1, 10, job_uid=UNDECIDED)
    seen = Usage(cpu_ns={heir: 3, gone: 5}, ended=[gone, Process(2, 10)], unseen_ns=7)
    probe()._leave_to_nobody(seen)
    assert (seen.cpu_ns, seen.unseen_ns) == ({heir: 3}, 12)


def test_a_process_that_moves_is_followed(cgroup: Path) -> None:
    """It belongs to the unit from when it is looked at again."""
    usage = probe(find_cgroupfs(Path("/sys/fs/cgroup")))
    with running(SLEEP) as process:
        look(usage)
        known = find(usage, process.pid)
        assert known.job_uid == "system"
        (cgroup / "cgroup.procs").write_text(str(process.pid))
        usage.refresh(known)
    assert known.job_uid == f"systemd:{cgroup.name}"


def test_who_has_the_pid_of_a_zombie_is_met(tmp_path: Path) -> None:
    """It was reaped and the pid given out again between two looks: the start tells."""
    usage, begins = recorded_node(tmp_path, Records())
    begins(10, 1000, b"")
    usage.look(NS)
    stat = tmp_path / "proc/10/stat"
    stat.write_text(stat.read_text().replace(") S", ") Z").replace(" 5 5 0", " 9 5 0"))
    (tmp_path / "cgroup/job_7/cpu.stat").write_text("usage_usec 40005\n")
    assert usage.look(2 * NS).ended == []
    (dead,) = usage.look(3 * NS).ended
    assert (dead.pid, usage.processes, usage.look(4 * NS).jobs) == (10, set(), {})
    stat.write_text(stat.read_text().replace(") Z", ") S").replace(" 1 0 10 ", " 1 0 12 "))
    usage.look(5 * NS)
    assert [p.start_ticks for p in usage.processes] == [12]


@pytest.mark.parametrize("company", [False, True], ids=["alone", "in company"])
def test_a_process_that_moves_when_it_is_old_is_followed(
    *, company: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a minute, and its time is told once from then on; alone in its cgroup always."""
    monkeypatch.setattr("jobwatt.usage.visits.YOUNG_NS", (0,))
    usage = probe(find_cgroupfs(Path("/sys/fs/cgroup")))
    with (
        made_cgroup("first") as first,
        made_cgroup("second") as second,
        running(BURN) as process,
        running(BURN if company else SLEEP) as other,
    ):
        owner = f"systemd:{second.name}"

        def told(*seconds: int) -> float:
            """What looks tell of it, to what it has used meanwhile."""
            begun, found = clock(process), 0
            for number, second in enumerate(seconds, 1):
                wait_until(lambda least=number * 0.1e9: clock(process) - begun >= least)  # type: ignore[misc]
                seen = usage.look(start + second * 1_000_000_000)
                found += sum(ns for p, ns in seen.cpu_ns.items() if p.pid == process.pid)
                found += seen.exited_ns.get(owner, 0)
            return found / (clock(process) - begun)

        (first / "cgroup.procs").write_text(str(process.pid))
        ((first if company else second) / "cgroup.procs").write_text(str(other.pid))
        start = time.monotonic_ns()
        usage.look(start)
        (second / "cgroup.procs").write_text(str(process.pid))
        early = told(1, 2, 3)
        assert company or 0.7 < early < 1.4
        told(61)
        assert find(usage, process.pid).job_uid == owner
        assert 0.7 < told(62, 63, 121, 122) < 1.4


def test_what_was_used_while_nobody_looked_is_told_after_a_restart() -> None:
    """By the clocks of those that are still there; the rest of the machine's time is nobody's."""
    before = probe()
    with running(BURN) as burner, running(SLEEP) as sleeper:
        look(before)
        rows = {key: json.loads(json.dumps(row)) for key, row in look_and_dump(before).items()}
        dumped_ns = clock(burner)
        with running(BURN) as gone:  # one that comes and goes
            wait_until(lambda: clock(gone) >= 500e6)
        after = probe()
        after.restore(rows)
        usage = look(after)
        used = {process.pid: time_ns for process, time_ns in usage.cpu_ns.items()}
        assert used[burner.pid] == pytest.approx(clock(burner) - dumped_ns, abs=0.2e9)
        assert used.get(sleeper.pid, 0) < 0.05e9
        assert usage.unseen_ns > 0.2e9
        again = look(after)
        assert again.cpu_ns.get(find(after, burner.pid), 0) < 0.5e9


def test_what_each_look_has_added_is_kept_with_it() -> None:
    """Nobody pays after a restart for what was told before it: not the old, not the new."""
    before = probe()
    with running(BURN) as old:
        look_and_dump(before)
        with running(BURN) as new:
            time.sleep(0.5)
            look_and_dump(before)
            for burner in (old, new):
                burner.send_signal(signal.SIGSTOP)
            time.sleep(0.1)
            dumped = look_and_dump(before)
            assert [key for key in dumped if key.startswith("used ")] == ["used 1", "used 2"]
            after = probe()
            after.restore({key: json.loads(json.dumps(row)) for key, row in dumped.items()})
            used = {process.pid: time_ns for process, time_ns in look(after).cpu_ns.items()}
            assert (old.pid in used, new.pid in used) == (False, False)


def test_the_clocks_of_another_process_are_no_help() -> None:
    """The same pid with another start: nothing is known of what it used since."""
    before = probe()
    with running(BURN) as burner:
        rows = dict(look_and_dump(before))
        at_ns, busy, clocks = rows["clocks"]
        rows["clocks"] = (at_ns, busy, [(pid, start - 1, ns) for pid, start, ns in clocks])
        after = probe()
        after.restore(rows)
        time.sleep(1)
        usage = look(after)
        assert usage.cpu_ns.get(find(after, burner.pid), 0) < 0.3e9  # since it was met
        assert usage.unseen_ns > 0.5e9


def look_and_dump(usage: HostProcesses) -> Mapping[str, Row]:
    now_ns = time.monotonic_ns()
    usage.look(now_ns)
    return usage.dump(now_ns)


class Records:
    """Tells what a test has put in."""

    def __init__(self) -> None:
        self.known: dict[str, JobRecord] = {}
        self.heard: list[tuple[int, bool]] = []

    def refresh(self) -> Mapping[str, JobRecord]:
        return self.known

    def told_by(self, process: Process, *, by_cgroup: bool) -> JobRecord | None:
        self.heard.append((process.pid, by_cgroup))
        name = process.environment.get("JOB_NAME")
        return None if name is None else JobRecord(name=name)


def recorded_node(
    tmp_path: Path, records: Records, job_uid: str = "slurm:7"
) -> tuple[HostProcesses, Callable[..., None]]:
    """A recorded node, all of whose processes are of one job."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (groups / "job_7").mkdir(parents=True)
    (groups / "cgroup.controllers").write_text("cpu\n")
    for folder in (groups, groups / "job_7"):
        (folder / "cpu.stat").write_text("usage_usec 5\n")
    proc.mkdir(parents=True)
    (proc / "stat").write_text("cpu0 1 0 1 0\n")

    def begins(pid: int, uid: int, environment: bytes, comm: str = "a") -> None:
        folder = proc / str(pid)
        folder.mkdir(exist_ok=True)
        (folder / "stat").write_text(f"{pid} ({comm}) S {'1 ' * 10}5 5 0 0 20 0 1 0 {pid} 0 0")
        (folder / "status").write_text(f"Uid:\t{uid}\nRssAnon:\t8 kB\n")
        (folder / "cgroup").write_text("0::/job_7\n")
        (folder / "environ").write_bytes(environment)

    def job_uid_of(facts: Facts) -> str:
        return job_uid if "job_7" in facts.cgroups.get("", "") else "system"

    usage = HostProcesses(
        Procfs(proc),
        find_cgroupfs(groups),
        Topology({0: 0, 1: 0}),
        job_uid_of,
        {0: "root", 1000: "ada", 1001: "eve"}.__getitem__,
        (),
        ("JOB_NAME", "OTHER"),
        records,
    )
    return usage, begins


def test_a_scheduled_job_is_its_first_users_and_named_by_the_first_that_speaks(
    tmp_path: Path,
) -> None:
    """Not the daemon's that begins it, nor another user's; who says nothing leaves it to others."""
    records = Records()
    usage, begins = recorded_node(tmp_path, records)
    begins(10, 0, b"")
    job = usage.look(1).jobs["slurm:7"]
    assert (job.user, job.uid, job.record) == ("root", 0, None)
    begins(11, 1000, b"OTHER=1\0")
    begins(12, 1001, b"JOB_NAME=rival\0")
    begins(13, 1000, b"JOB_NAME=bert\0")
    begins(14, 1000, b"JOB_NAME=other\0")
    seen = usage.look(20_000_000_000)
    job = seen.jobs["slurm:7"]
    assert (job.user, job.uid, job.record) == ("ada", 1000, JobRecord(name="bert"))
    assert (job.processes, records.heard) == (5, [(11, True), (13, True)])
    assert seen.records is records.known


@pytest.mark.parametrize("job_uid", ["systemd:cron.service", "container:a", "k8s:a"])
def test_only_a_jobs_own_user_or_root_speaks_for_it(tmp_path: Path, job_uid: str) -> None:
    """Whoever has a process in root's unit or container sets no budget of it."""
    records = Records()
    usage, begins = recorded_node(tmp_path, records, job_uid)
    begins(10, 0, b"OTHER=1\0")
    begins(11, 1001, b"JOB_NAME=rival\0")
    job = usage.look(1).jobs[job_uid]
    assert (job.user, job.record, records.heard) == ("root", None, [(10, True)])
    begins(12, 0, b"JOB_NAME=late\0")
    assert usage.look(20_000_000_000).jobs[job_uid].record == JobRecord(name="late")


def test_a_service_may_be_started_by_root_for_its_user(tmp_path: Path) -> None:
    """Its first process becomes his, who then speaks; another's does not become the first."""
    usage, begins = recorded_node(tmp_path, Records(), "container:a")
    begins(10, 0, b"")
    begins(11, 1001, b"JOB_NAME=rival\0")
    usage.look(1)
    begins(10, 1000, b"JOB_NAME=own\0")
    usage.refresh(find(usage, 10))
    job = usage.look(2).jobs["container:a"]
    assert (job.user, job.uid, job.record) == ("ada", 1000, JobRecord(name="own"))


def test_a_pods_job_is_not_its_sandboxs(tmp_path: Path) -> None:
    """Pods begin with a process that belongs to nobody; what is named alike elsewhere is a name."""
    usage, begins = recorded_node(tmp_path, Records(), "k8s:a")
    begins(10, 1001, b"", "pause")
    job = usage.look(1).jobs["k8s:a"]
    assert (job.processes, job.user, job.uid) == (1, "", -1)
    begins(11, 0, b"")
    begins(12, 1000, b"")
    job = usage.look(20_000_000_000).jobs["k8s:a"]
    assert (job.processes, job.user, job.uid) == (3, "root", 0)
    usage, begins = recorded_node(tmp_path / "other", Records(), "systemd:a.service")
    begins(10, 1001, b"", "pause")
    assert usage.look(1).jobs["systemd:a.service"].user == "eve"


def test_a_job_keeps_what_is_known_when_its_only_process_is_read_again(tmp_path: Path) -> None:
    """Its name was frozen when it was first heard."""
    records = Records()
    usage, begins = recorded_node(tmp_path, records)
    begins(11, 1000, b"JOB_NAME=bert\0")
    job = usage.look(1).jobs["slurm:7"]
    begins(11, 1000, b"JOB_NAME=rival\0")
    usage.refresh(find(usage, 11))
    after = usage.look(2)
    assert after.jobs["slurm:7"] is job
    assert (job.processes, job.record) == (1, JobRecord(name="bert"))
    assert after.memory_bytes == {("slurm:7", None): 8192}


def test_the_cpus_of_a_jobs_cgroup_are_followed(tmp_path: Path) -> None:
    """They may be changed while it runs."""
    usage, begins = recorded_node(tmp_path, Records())
    (tmp_path / "cgroup/job_7/cpu.max").write_text("50000 100000\n")
    begins(11, 1000, b"")
    seconds = 1_000_000_000
    assert usage.look(seconds).jobs["slurm:7"].cpus == 0.5
    (tmp_path / "cgroup/job_7/cpu.max").write_text("150000 100000\n")
    assert usage.look(5 * seconds).jobs["slurm:7"].cpus == 0.5
    assert usage.look(6 * seconds).jobs["slurm:7"].cpus == 1.5
    (tmp_path / "cgroup/job_7/cpu.max").write_text("max 100000\n")
    assert usage.look(11 * seconds).jobs["slurm:7"].cpus is None


def test_memory_that_a_jobs_processes_share_is_charged_once(tmp_path: Path) -> None:
    """Its cgroup has 8 KiB where three processes show 8 KiB each; more of one's own is its own."""
    usage, begins = recorded_node(tmp_path, Records())
    stat = tmp_path / "cgroup/job_7/memory.stat"
    stat.write_text("anon 8192\n")
    for pid in (10, 11, 12):
        begins(pid, 1000, b"")
    assert usage.look(NS).memory_bytes == {("slurm:7", None): 3 * 8192}
    seen = usage.look(7 * NS)
    assert seen.memory_bytes == {("slurm:7", None): 3 * 2730}
    assert [find(usage, pid).memory_bytes for pid in (10, 11, 12)] == [2730] * 3
    status = tmp_path / "proc/10/status"
    status.write_text("Uid:\t1000\nRssAnon:\t108 kB\n")
    usage.refresh(find(usage, 10))
    assert find(usage, 10).memory_bytes == 2730 + 100 * 1024
    status.write_text("Uid:\t1000\nRssAnon:\t4 kB\n")
    usage.refresh(find(usage, 10))
    stat.write_text("anon 999999\n")
    seen = usage.look(13 * NS)
    assert [find(usage, pid).memory_bytes for pid in (10, 11, 12)] == [4096, 8192, 8192]
    assert seen.memory_bytes == {("slurm:7", None): 4096 + 2 * 8192}


def test_who_leaves_a_job_has_all_its_memory_again(tmp_path: Path) -> None:
    """It shared it with those of the job; one that is alone in it has its own as well."""
    usage, begins = recorded_node(tmp_path, Records())
    (tmp_path / "cgroup/job_7/memory.stat").write_text("anon 8192\n")
    begins(10, 1000, b"")
    begins(11, 1000, b"")
    usage.look(NS)
    usage.look(7 * NS)
    assert find(usage, 10).memory_bytes == 4096
    (tmp_path / "proc/10/cgroup").write_text("0::/\n")
    usage.refresh(find(usage, 10))
    seen = usage.look(13 * NS)
    assert seen.memory_bytes == {("slurm:7", None): 8192, ("system", None): 8192}


def test_who_is_due_is_not_kept_waiting_by_those_who_are_not(tmp_path: Path) -> None:
    """Thirty newcomers have run before it: they have just been looked at."""
    usage, begins = recorded_node(tmp_path, Records())
    used = {"usec": 5}

    def run(*pids: int) -> None:
        for pid in pids:
            stat = tmp_path / f"proc/{pid}/stat"
            stat.write_text(stat.read_text().replace(" 5 5 0", " 9 5 0"))
            used["usec"] += 40_000
        (tmp_path / "cgroup/job_7/cpu.stat").write_text(f"usage_usec {used['usec']}\n")

    begins(10, 1000, b"")
    usage.look(NS)
    others = range(20, 50)
    for pid in others:
        begins(pid, 1000, b"")
    usage.look(70 * NS)
    run(*others)
    usage.look(71 * NS)
    run(10)
    usage.look(72 * NS)
    (tmp_path / "proc/10/status").write_text("Uid:\t1001\nRssAnon:\t8 kB\n")
    usage.look(73 * NS)
    assert find(usage, 10).user == "eve"
