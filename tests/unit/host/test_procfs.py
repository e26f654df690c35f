from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobwatt.errors import Absent, Failed
from jobwatt.host.procfs import (
    TICK_NS,
    Census,
    CpuTimes,
    ProcessStat,
    ProcessStatus,
    Procfs,
    decode,
    parse_census,
    parse_cgroup,
    parse_cpu_model,
    parse_cpu_times,
    parse_environ,
    parse_process_stat,
    parse_process_status,
)

STAT_TAIL = b" S 1 42 42 0 -1 4194560 1000 0 0 0 250 50 7 7 20 0 4 0 98765 1000000 500 0 0 0\n"
REPLACED = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("comm", "expected"),
    [
        (b"python3", "python3"),
        (b"", ""),
        (b")", ")"),
        (b"a) R 1 1", "a) R 1 1"),
        (b"(((", "((("),
        (b"two\nlines", "two\nlines"),
        (b'quo"te\\', 'quo"te\\'),
        (b"bad\xff\xc3", f"bad{REPLACED}{REPLACED}"),
        ("naïve".encode(), "naïve"),
    ],
)
def test_stat_with_any_name(comm: bytes, expected: str) -> None:
    """A name may hold anything without moving the fields behind it."""
    stat = parse_process_stat(b"42 (" + comm + b")" + STAT_TAIL)
    assert stat == ProcessStat(expected, 98765, 300 * TICK_NS)


@pytest.mark.parametrize(
    ("state", "threads", "exited"),
    [(b"Z", b"1", True), (b"X", b"0", True), (b"Z", b"4", False), (b"S", b"1", False)],
)
def test_who_has_exited_has_no_thread_left(state: bytes, threads: bytes, exited: bool) -> None:
    """A first thread that has exited before the others is a zombie, the process is none."""
    tail = STAT_TAIL.replace(b" S ", b" %b " % state).replace(b" 20 0 4 ", b" 20 0 %b " % threads)
    assert parse_process_stat(b"42 (a)" + tail).exited is exited


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"42",
        b"42 (bash)",
        b"42 (bash) S 1 42",
        b"42 bash" + STAT_TAIL,
        b")(" + STAT_TAIL,
        b"42 (bash" + STAT_TAIL,
        b"42 (bash)" + STAT_TAIL.replace(b"250", b"x"),
        b"42 (bash)" + STAT_TAIL.replace(b"98765", b"\xff"),
        b"42 (bash)" + STAT_TAIL.replace(b"98765", b"9" * 5000),
    ],
)
def test_what_is_no_stat_failed(data: bytes) -> None:
    """A cut or foreign line is refused as such."""
    with pytest.raises(Failed, match="not a process's stat"):
        parse_process_stat(data)


STATUS = b"""Name:\tpython3
Umask:\t0022
State:\tS (sleeping)
Pid:\t42
Uid:\t1000\t1001\t1002\t1003
Gid:\t100\t100\t100\t100
VmPeak:\t   90000 kB
VmRSS:\t   50000 kB
RssAnon:\t   40000 kB
RssFile:\t   10000 kB
Threads:\t4
Cpus_allowed:\tf
Cpus_allowed_list:\t0-2,5
Mems_allowed_list:\t0
"""


def test_status() -> None:
    """The real uid, anonymous memory and allowed CPUs are read."""
    expected = ProcessStatus(1000, 40000 * 1024, frozenset({0, 1, 2, 5}))
    assert parse_process_status(STATUS) == expected


def test_status_of_a_kernel_thread() -> None:
    """A kernel thread has no memory of its own."""
    data = b"Name:\tkthreadd\nUid:\t0\t0\t0\t0\nThreads:\t1\nCpus_allowed_list:\t0-1\n"
    assert parse_process_status(data) == ProcessStatus(0, 0, frozenset({0, 1}))


def test_status_without_anonymous_memory() -> None:
    """Where the kernel does not tell anonymous memory apart, all resident memory counts."""
    data = STATUS.replace(b"RssAnon:\t   40000 kB\n", b"")
    assert parse_process_status(data).anonymous_bytes == 50000 * 1024


def test_status_with_no_anonymous_memory_at_all() -> None:
    """An anonymous memory of 0 is 0, not unknown."""
    data = STATUS.replace(b"   40000 kB", b"0 kB")
    assert parse_process_status(data).anonymous_bytes == 0


def test_status_with_a_name_that_looks_like_a_field() -> None:
    """The kernel escapes a newline in a name: it forges no field."""
    data = STATUS.replace(b"python3", b"x\\nUid:\\t0")
    assert parse_process_status(data).uid == 1000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Name:\tx\n",
        b"Uid:\n",
        b"Uid:\tx\n",
        b"Uid:\t0\nVmRSS:\n",
        b"Uid:\t0\nRssAnon:\tmuch kB\n",
    ],
)
def test_what_is_no_status_failed(data: bytes) -> None:
    """A status without a uid, or with a field that is none, is refused."""
    with pytest.raises(Failed, match="not a process's status"):
        parse_process_status(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"0::/system.slice/ssh.service\n", {"": "/system.slice/ssh.service"}),
        (b"0::/\n", {"": "/"}),
        (
            b"5:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/c\n",
            {"cpu": "/a", "cpuacct": "/a", "name=systemd": "/b", "": "/c"},
        ),
        (b"0::/with:colon/x\n", {"": "/with:colon/x"}),
        (b"0::/../../pod\n", {"": "/../../pod"}),
        (b"0::/a\xffb (deleted)\n", {"": f"/a{REPLACED}b (deleted)"}),
        (b"0::relative\n", {}),
        (b"no colons\n", {}),
        (b"1:one\n", {}),
        (b"", {}),
    ],
)
def test_cgroup(data: bytes, expected: dict[str, str]) -> None:
    """Paths come by controller; what is no such line is left out."""
    assert parse_cgroup(data) == expected


def test_cpu_times() -> None:
    """User, nice and system time of each CPU are a CPU's tasks' time."""
    data = b"cpu  9 9 9 9\ncpu0 1 2 3 400 5 6 7 8 9 9\ncpu11 10 0 5 1\nintr 12\ncpu3 7 7 7\n"
    assert parse_cpu_times(data) == CpuTimes({0: 6 * TICK_NS, 11: 15 * TICK_NS})


@pytest.mark.parametrize(
    "data", [b"", b"cpu  1 2 3\n", b"intr 1\n", b"cpu0 a b\n", b"cpux 1 2 3\n"]
)
def test_what_has_no_cpu_times_failed(data: bytes) -> None:
    """A stat without CPUs, or with nonsense for times, is refused."""
    with pytest.raises(Failed, match=r"/proc/stat"):
        parse_cpu_times(data)


def test_census() -> None:
    """The last fields of loadavg are the number of threads and the youngest pid."""
    assert parse_census(b"0.52 0.58 0.59 3/1205 98213\n") == Census(98213, 1205)


@pytest.mark.parametrize("data", [b"", b"\n", b"0.52 x", b"0.52 0.58 0.59 3 98213"])
def test_what_is_no_loadavg_failed(data: bytes) -> None:
    """Anything else is refused."""
    with pytest.raises(Failed, match="not a loadavg"):
        parse_census(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"processor\t: 0\nmodel name\t: AMD  EPYC 7763 \nmodel name\t: other\n", "AMD EPYC 7763"),
        (b"processor\t: 0\nBogoMIPS\t: 50.00\n", ""),
        (b"", ""),
    ],
)
def test_cpu_model(data: bytes, expected: str) -> None:
    """The first model name is read, with single spaces; Arm has none."""
    assert parse_cpu_model(data) == expected


def test_decode_never_fails() -> None:
    """Invalid UTF-8 becomes text that can be written as UTF-8."""
    assert decode(b"\xed\xa0\x80a").encode() == f"{REPLACED * 3}a".encode()


def test_a_recorded_proc(tmp_path: Path) -> None:
    """A proc filesystem may lie anywhere."""
    (tmp_path / "42").mkdir()
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("c0ffee\n")
    (tmp_path / "42/stat").write_bytes(b"42 (bash)" + STAT_TAIL)
    (tmp_path / "42/status").write_bytes(STATUS)
    (tmp_path / "42/cgroup").write_bytes(b"0::/x\n")
    (tmp_path / "stat").write_bytes(b"cpu0 1 1 1\n")
    (tmp_path / "loadavg").write_bytes(b"0 0 0 1/1 42\n")
    (tmp_path / "cpuinfo").write_bytes(b"model name: M\n")
    procfs = Procfs(tmp_path)
    assert procfs.list_pids() == {42}
    assert procfs.read_process_stat(42).comm == "bash"
    assert procfs.read_process_status(42).uid == 1000
    assert procfs.read_cgroup(42) == {"": "/x"}
    assert procfs.read_cpu_times() == CpuTimes({0: 3 * TICK_NS})
    assert procfs.read_census() == Census(42, 1)
    assert procfs.read_cpu_model() == "M"
    assert procfs.read_boot_id() == "c0ffee"
    assert procfs.is_own() is False
    assert procfs.is_host_pid_namespace() is None


def test_an_empty_proc(tmp_path: Path) -> None:
    """What is missing is absent, and names that nobody must have are empty."""
    procfs = Procfs(tmp_path)
    with pytest.raises(Absent):
        procfs.read_process_stat(1)
    with pytest.raises(Absent):
        Procfs(tmp_path / "none").list_pids()
    assert (procfs.read_cpu_model(), procfs.read_boot_id()) == ("", "")


def test_a_proc_whose_pids_are_anothers(tmp_path: Path) -> None:
    """A tree whose `self` has our pid but another start is not our own."""
    pid = os.getpid()
    (tmp_path / "self").symlink_to(str(pid))
    (tmp_path / str(pid)).mkdir()
    (tmp_path / str(pid) / "stat").write_bytes(b"42 (bash)" + STAT_TAIL.replace(b"98765", b"1"))
    assert Procfs(tmp_path).is_own() is False


def test_the_machines_own_proc() -> None:
    """This process finds itself in /proc."""
    procfs = Procfs(Path("/proc"))
    pid = os.getpid()
    assert procfs.is_own() is True
    assert pid in procfs.list_pids()
    assert procfs.read_process_stat(pid).comm == decode(
        Path("/proc/self/comm").read_bytes().removesuffix(b"\n")
    )
    assert procfs.read_process_status(pid).uid == os.getuid()
    assert procfs.read_process_status(pid).cpus >= os.sched_getaffinity(0)


NAMES = ("JOBWATT_JOB", "LSB_JOBID", "FLUX_JOB_ID")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", {}),
        (b"JOBWATT_JOB=bert\0", {"JOBWATT_JOB": "bert"}),
        (b"A=1\0JOBWATT_JOB=bert", {"JOBWATT_JOB": "bert"}),
        (b"LSB_JOBID=7\0FLUX_JOB_ID=\xc6\x92D7\0", {"LSB_JOBID": "7", "FLUX_JOB_ID": "\u0192D7"}),
        (b"JOBWATT_JOB=a=b\nc\xff\0", {"JOBWATT_JOB": f"a=b\nc{REPLACED}"}),
        (b"JOBWATT_JOB=\0", {"JOBWATT_JOB": ""}),
        (b"JOBWATT_JOB=a\0JOBWATT_JOB=b\0", {"JOBWATT_JOB": "a"}),
        (b"XJOBWATT_JOB=a\0JOBWATT_JOBX=b\0JOBWATT_JOB\0X=JOBWATT_JOB=c\0", {}),
        (b"A\nJOBWATT_JOB=a\0", {}),
        (b"\0\0JOBWATT_JOB=a\0\0", {"JOBWATT_JOB": "a"}),
    ],
)
def test_environ(data: bytes, expected: dict[str, str]) -> None:
    """The first of each variable that is asked for, and nothing else."""
    assert parse_environ(data, NAMES) == expected


def test_an_environment_for_nobody() -> None:
    """Where nothing is asked for nothing is found."""
    assert parse_environ(b"A=1\0=2\0", ()) == {}


def test_a_huge_environment(tmp_path: Path) -> None:
    """Megabytes before, megabytes within: bounded work, bounded memory."""
    (tmp_path / "42").mkdir()
    environ = tmp_path / "42/environ"
    procfs = Procfs(tmp_path)
    environ.write_bytes(b"A=1\0" * 1_000_000 + b"JOBWATT_JOB=late\0")
    assert procfs.read_environ(42, NAMES) == {}
    environ.write_bytes(b"JOBWATT_JOB=" + b"x" * 5_000_000)
    assert procfs.read_environ(42, NAMES) == {"JOBWATT_JOB": "x" * 1024}


def test_a_title_is_what_comes_first(tmp_path: Path) -> None:
    """A program's arguments are nobody's business."""
    (tmp_path / "42").mkdir()
    (tmp_path / "42/cmdline").write_bytes(b"slurmstepd: [3385.0]\0--secret\0")
    assert Procfs(tmp_path).read_title(42) == "slurmstepd: [3385.0]"
