"""Whatever bytes the kernel, a user or an operator's file holds, a parser answers in its words."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobwatt.config import Config, load_config
from jobwatt.errors import Absent, Failed, ReadError, UsageError
from jobwatt.host.cgroupfs import parse_cpu_stat, parse_cpuacct_usage
from jobwatt.host.cpu_limits import parse_cpu_max
from jobwatt.host.cpulist import parse_cpulist
from jobwatt.host.drm import read_cards
from jobwatt.host.fdinfo import DrmClient, parse_fdinfo
from jobwatt.host.files import read_integer
from jobwatt.host.hwmon import read_chips
from jobwatt.host.job_ads import parse_job_ad
from jobwatt.host.job_files import JobFile, parse_job_file
from jobwatt.host.kfd import parse_node_address
from jobwatt.host.powercap import read_zones
from jobwatt.host.procfs import (
    TICK_NS,
    CpuTimes,
    ProcessStat,
    ProcessStatus,
    decode,
    parse_census,
    parse_cgroup,
    parse_cpu_model,
    parse_cpu_times,
    parse_environ,
    parse_process_stat,
    parse_process_status,
)
from jobwatt.host.slurmstepd import parse_title
from jobwatt.host.users import parse_passwd
from jobwatt.records import JobRecord, comment_budget, even_share, moment
from jobwatt.records import numbers as numbers_of
from jobwatt.units import NS, UJ, duration_seconds

fuzz = settings(deadline=None, max_examples=300)

HUGE = b"9" * 5000
"""More digits than Python turns into a number."""

numbers = st.integers(0, 2**63)
tokens = st.sampled_from(
    [
        b"0",
        b"1",
        b"-1",
        b" ",
        b"\t",
        b"\n",
        b":",
        b"::",
        b"/",
        b",",
        b"-",
        b"(",
        b")",
        b"a",
        b"\xff",
    ]
)


def pieces(*words: bytes) -> st.SearchStrategy[bytes]:
    """Return bytes that are almost what a parser expects: its own words, shuffled."""
    parts = st.one_of(tokens, st.sampled_from(words), st.binary(max_size=8))
    return st.one_of(st.binary(), st.lists(parts, max_size=60).map(b"".join))


# --- /proc/PID/stat ------------------------------------------------------------------------------


@fuzz
@given(pieces(b"42 (bash) ", b"S ", b"1 " * 20))
@example(b"42 (a) " + b"1 " * 19 + HUGE)
def test_process_stat_is_parsed_or_failed(data: bytes) -> None:
    """Any bytes make a stat or `Failed`."""
    try:
        stat = parse_process_stat(data)
    except Failed:
        return
    assert isinstance(stat, ProcessStat)
    assert stat.comm.encode().decode() == stat.comm


@fuzz
@given(st.binary(max_size=64), numbers, numbers, numbers)
def test_a_stat_line_comes_back(comm: bytes, utime: int, stime: int, start: int) -> None:
    """A line made around any name gives back the name, the times and the start."""
    line = b"42 (%b) S 1 2 3 4 5 6 7 8 9 10 %d %d 0 0 20 0 4 0 %d 0 0\n" % (
        comm,
        utime,
        stime,
        start,
    )
    assert parse_process_stat(line) == ProcessStat(decode(comm), start, (utime + stime) * TICK_NS)


# --- /proc/PID/status ----------------------------------------------------------------------------


@fuzz
@given(pieces(b"Uid:\t0\n", b"RssAnon:", b"VmRSS:", b" kB\n", b"Cpus_allowed_list:\t", b"0-3"))
@example(b"Uid:\t" + HUGE)
@example(b"Uid:\t0\nCpus_allowed_list:\t" + HUGE)
def test_process_status_is_parsed_or_failed(data: bytes) -> None:
    """Any bytes make a status or `Failed`."""
    try:
        status = parse_process_status(data)
    except Failed:
        return
    assert isinstance(status, ProcessStatus)
    assert (type(status.uid), type(status.anonymous_bytes)) == (int, int)


@fuzz
@given(
    st.binary(max_size=64),
    st.integers(0, 2**32),
    st.none() | st.integers(0, 2**40),
    st.integers(0, 2**40),
)
def test_a_status_comes_back(comm: bytes, uid: int, anonymous: int | None, resident: int) -> None:
    """A status made around any name, escaped as the kernel does, gives back what it says."""
    name = comm.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    lines = [b"Name:\t" + name, b"Uid:\t%d\t0\t0\t0" % uid, b"VmRSS:\t%d kB" % resident]
    if anonymous is not None:
        lines.append(b"RssAnon:\t%d kB" % anonymous)
    lines.append(b"Cpus_allowed_list:\t0-3\n")
    memory = (resident if anonymous is None else anonymous) * 1024
    expected = ProcessStatus(uid, memory, frozenset({0, 1, 2, 3}))
    assert parse_process_status(b"\n".join(lines)) == expected


# --- /proc/PID/cgroup ----------------------------------------------------------------------------


@fuzz
@given(pieces(b"0::/", b"1:name=systemd:/", b"4:cpu,cpuacct:/", b"system.slice"))
def test_cgroup_is_parsed(data: bytes) -> None:
    """Any bytes make absolute paths that are valid text."""
    paths = parse_cgroup(data)
    assert [path for path in paths.values() if not path.startswith("/")] == []
    text = "".join([*paths, *paths.values()])
    assert text.encode().decode() == text


@fuzz
@given(
    st.dictionaries(
        st.sampled_from(["", "cpu", "cpuacct", "memory", "name=systemd"]),
        st.binary(max_size=64).filter(lambda name: b"\n" not in name),
    )
)
def test_cgroup_paths_come_back(paths: dict[str, bytes]) -> None:
    """Any path without a newline comes back, decoded."""
    lines = [b"%d:%b:/%b\n" % (at, c.encode(), p) for at, (c, p) in enumerate(paths.items())]
    assert parse_cgroup(b"".join(lines)) == {c: "/" + decode(p) for c, p in paths.items()}


# --- /proc/PID/environ, titles, job ads ----------------------------------------------------------


@fuzz
@given(pieces(b"JOBWATT_JOB=", b"\0", b"LSB_JOBID=7\0", b"X="))
@example(b"JOBWATT_JOB=" + b"x" * 100_000)
def test_environ_is_parsed(data: bytes) -> None:
    """Any bytes make the named variables, as bounded, valid text."""
    found = parse_environ(data, {"JOBWATT_JOB", "LSB_JOBID"})
    assert found.keys() <= {"JOBWATT_JOB", "LSB_JOBID"}
    assert [value for value in found.values() if value.encode().decode() != value] == []
    assert [value for value in found.values() if len(value) > 1024] == []


@fuzz
@given(
    st.dictionaries(
        st.text("ABC_0", min_size=1, max_size=3),
        st.binary(max_size=64).filter(lambda value: b"\0" not in value),
    )
)
def test_an_environment_comes_back(variables: dict[str, bytes]) -> None:
    """Any values come back by name, decoded; those that nobody asked for do not."""
    data = b"".join(b"%b=%b\0" % (name.encode(), value) for name, value in variables.items())
    asked = [name for name in variables if name != "A"]
    assert parse_environ(data, asked) == {name: decode(variables[name]) for name in asked}


@fuzz
@given(st.text() | st.text("slurmtepd: [].0123456789"))
def test_a_title_is_parsed(title: str) -> None:
    """Any title makes a number or nothing."""
    job_id = parse_title(title)
    assert job_id is None or 0 < int(job_id) < 10**10


@fuzz
@given(pieces(b"ClusterId = 7\n", b"ProcId = 0\n", b"ClusterId", b" = "))
@example(b"ClusterId = " + HUGE + b"\nProcId = 0")
def test_a_job_ad_is_parsed(data: bytes) -> None:
    """Any bytes make two numbers or nothing."""
    found = parse_job_ad(data)
    assert found is None or (min(found) >= 0 and max(found) < 10**10)


# --- /proc/stat, loadavg, cpuinfo ----------------------------------------------------------------


@fuzz
@given(pieces(b"cpu", b"cpu0 ", b"cpu1 1 2 3\n", b"intr"))
@example(b"cpu0 1 2 " + HUGE)
@example(b"cpu" + HUGE + b" 1 2 3")
def test_cpu_times_are_parsed_or_failed(data: bytes) -> None:
    """Any bytes make CPU times or `Failed`."""
    try:
        times = parse_cpu_times(data)
    except Failed:
        return
    assert isinstance(times, CpuTimes)
    assert {type(key) for pair in times.busy_ns.items() for key in pair} == {int}


@fuzz
@given(st.dictionaries(st.integers(0, 9999), st.tuples(numbers, numbers, numbers), min_size=1))
def test_cpu_times_come_back(cpus: dict[int, tuple[int, int, int]]) -> None:
    """The times of any CPUs come back, summed."""
    lines = [b"cpu%d %d %d %d 7 7 7\n" % (cpu, *times) for cpu, times in cpus.items()]
    expected = {cpu: sum(times) * TICK_NS for cpu, times in cpus.items()}
    assert parse_cpu_times(b"cpu  1 2 3\n" + b"".join(lines) + b"intr 1\n").busy_ns == expected


@fuzz
@given(pieces(b"0.52 ", b"3/1205 "))
@example(HUGE)
def test_census_is_parsed_or_failed(data: bytes) -> None:
    """Any bytes make two numbers or `Failed`."""
    try:
        census = parse_census(data)
    except Failed:
        return
    assert type(census.youngest_pid) is type(census.threads) is int


@fuzz
@given(pieces(b"model name", b"model name\t: X\n"))
def test_cpu_model_is_parsed(data: bytes) -> None:
    """Any bytes make one line of valid text."""
    model = parse_cpu_model(data)
    assert model.encode().decode().split() == model.split()
    assert "\n" not in model


# --- lists of CPUs, cgroups, users ---------------------------------------------------------------


@fuzz
@given(st.text() | st.text("0123456789-, \n"))
@example("0-" + "9" * 5000)
@example("²")
def test_cpulist_is_parsed(text: str) -> None:
    """Any text makes a bounded set of CPUs."""
    cpus = parse_cpulist(text)
    assert isinstance(cpus, frozenset)
    assert [cpu for cpu in cpus if not 0 <= cpu < 65536] == []


@fuzz
@given(st.sets(st.integers(0, 4095), min_size=1))
def test_cpulists_come_back(cpus: set[int]) -> None:
    """Any set of CPUs, written in ranges as the kernel does, comes back."""
    assert parse_cpulist(",".join(_ranges(sorted(cpus)))) == cpus


def _ranges(cpus: list[int]) -> Iterator[str]:
    start = last = cpus[0]
    for cpu in [*cpus[1:], -1]:
        if cpu == last + 1:
            last = cpu
            continue
        yield str(start) if start == last else f"{start}-{last}"
        start = last = cpu


@fuzz
@given(pieces(b"usage_usec ", b"user_usec 5\n"))
@example(b"usage_usec " + HUGE)
def test_cpu_stat_is_parsed_or_failed(data: bytes) -> None:
    """Any bytes make a number of nanoseconds or `Failed`."""
    try:
        usage = parse_cpu_stat(data)
    except Failed:
        return
    assert usage >= 0


@fuzz
@given(numbers)
def test_cpu_stat_comes_back(usage: int) -> None:
    """Any usage comes back, in nanoseconds."""
    assert parse_cpu_stat(b"usage_usec %d\nuser_usec 1\n" % usage) == usage * 1000


@fuzz
@given(pieces(b"123"))
@example(HUGE)
def test_cpuacct_usage_is_parsed_or_failed(data: bytes) -> None:
    """Any bytes make a number of nanoseconds or `Failed`."""
    try:
        usage = parse_cpuacct_usage(data)
    except Failed:
        return
    assert usage >= 0


@fuzz
@given(pieces(b"root:x:0:0\n", b"x:x:"))
@example(b"x:x:" + HUGE + b":0")
def test_passwd_is_parsed(data: bytes) -> None:
    """Any bytes make names by uid."""
    names = parse_passwd(data)
    assert [uid for uid in names if uid < 0] == []
    assert [name for name in names.values() if name == ""] == []


@fuzz
@given(
    st.dictionaries(
        st.integers(0, 2**32),
        st.binary(min_size=1).filter(lambda name: not set(name) & set(b":\n")),
    )
)
def test_passwd_comes_back(names: dict[int, bytes]) -> None:
    """Any names come back by uid, decoded."""
    lines = [b"%b:x:%d:0::/:/bin/sh\n" % (name, uid) for uid, name in names.items()]
    assert parse_passwd(b"".join(lines)) == {uid: decode(name) for uid, name in names.items()}


# --- files ---------------------------------------------------------------------------------------


@fuzz
@given(pieces(b"123"))
@example(HUGE)
def test_integers_are_read_or_failed(data: bytes) -> None:
    """A file with any content makes a number of 64 bits or so, or `Failed`."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            value = read_integer(file.name)
        except Failed:
            return
    assert 0 <= value < 10**20


@fuzz
@given(
    st.lists(
        st.text(st.sampled_from("intel-rapl:mmio012"), min_size=1, max_size=20)
        | st.from_regex(r"intel-rapl(-mmio)?(:[0-9]{1,3}){1,3}", fullmatch=True),
        unique=True,
        max_size=8,
    ),
    st.binary(max_size=20),
)
def test_zones_are_read_or_absent(names: list[str], content: bytes) -> None:
    """Folders of any name that hold anything make zones with names, in order, each once."""
    with tempfile.TemporaryDirectory() as sysfs:
        for name in names:
            folder = Path(sysfs) / "class/powercap" / name
            folder.mkdir(parents=True)
            (folder / "name").write_bytes(content)
            (folder / "max_energy_range_uj").write_bytes(content)
        try:
            zones = read_zones(Path(sysfs))
        except Absent:
            assert names == []
            return
    keys = [zone.key for zone in zones]
    assert sorted(set(keys)) == sorted(keys)


# --- graphics cards ------------------------------------------------------------------------------


@fuzz
@given(
    pieces(
        b"drm-driver:\tamdgpu\n",
        b"drm-client-id:\t",
        b"drm-pdev:\t0000:03:00.0\n",
        b"drm-engine-gfx:\t5 ns\n",
        b"drm-engine-capacity-gfx:\t",
        b"drm-cycles-rcs:\t",
        b"drm-total-cycles-rcs:\t",
        b"drm-resident-vram:\t",
        b" KiB\n",
    )
)
@example(b"drm-driver:x\ndrm-client-id:1\ndrm-engine-x:" + HUGE)
@example(b"drm-driver:x\ndrm-client-id:1\ndrm-memory-x:1 " + HUGE)
def test_fdinfo_is_parsed_or_failed(data: bytes) -> None:
    """Any bytes make a client, none, or `Failed`."""
    try:
        client = parse_fdinfo(data)
    except Failed:
        return
    if client is not None:
        assert isinstance(client, DrmClient)
        assert {type(value) for value in client.engine_ns.values()} <= {int}
        assert client.address.encode().decode() == client.address


engines = st.dictionaries(st.text("abcdefgh0123", min_size=1, max_size=6), numbers, max_size=4)


@fuzz
@given(numbers, engines, st.none() | st.integers(0, 2**30))
def test_fdinfo_comes_back(number: int, engine_ns: dict[str, int], memory: int | None) -> None:
    """Any client comes back."""
    lines = ["pos:\t0", "drm-driver:\tamdgpu", f"drm-client-id:\t{number}", "drm-pdev:\t0:1:2.3"]
    lines += [f"drm-engine-{name}:\t{ns} ns" for name, ns in engine_ns.items()]
    if memory is not None:
        lines.append(f"drm-resident-vram:\t{memory} KiB")
    expected = DrmClient(
        "0:1:2.3",
        number,
        "amdgpu",
        engine_ns,
        memory_bytes=None if memory is None else memory * 1024,
    )
    assert parse_fdinfo("\n".join(lines).encode()) == expected


@fuzz
@given(pieces(b"location_id 768\n", b"domain ", b"location_id "))
@example(b"location_id " + HUGE)
@example(b"location_id 1\ndomain 99999999999999999999")
def test_node_addresses_are_parsed_or_failed(data: bytes) -> None:
    """Any bytes make a PCI address or `Failed`."""
    try:
        address = parse_node_address(data)
    except Failed:
        return
    assert len(address) in range(12, 17)


@fuzz
@given(
    st.lists(st.sampled_from(["card0", "card1-DP-1", "hwmon0", "hwmon-1"]), unique=True),
    st.sampled_from(["0000:03:00.0", "platform", "../..", "."]),
    st.binary(max_size=20),
)
def test_cards_and_chips_are_read(names: list[str], device: str, content: bytes) -> None:
    """Folders of any name that hold anything make cards on the PCI bus, and chips with names."""
    with tempfile.TemporaryDirectory() as sysfs:
        for name in names:
            for kind in ("drm", "hwmon"):
                folder = Path(sysfs) / "class" / kind / name
                folder.mkdir(parents=True)
                for attribute in ("name", "vendor", "temp1_label", "temp1_input"):
                    (folder / attribute).write_bytes(content)
                (folder / "device").symlink_to(device)
        cards, chips = read_cards(Path(sysfs)), read_chips(Path(sysfs))
        text = "".join(f"{card.ids}{card.driver}" for card in cards)
        text += "".join(f"{chip.name}{chip.labelled('temp', ('edge',))}" for chip in chips)
    assert text.encode().decode() == text
    assert len(chips) == len(names)


# --- configuration -------------------------------------------------------------------------------


def _load(data: bytes) -> Config | str:
    """Return the configuration in a file with this content, or what is said against it."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            return load_config({"config.file": file.name}, {})
        except UsageError as error:
            return str(error).replace(file.name, "FILE")


@fuzz
@given(
    pieces(
        b"sample: {interval: ",
        b"process:\n  max: ",
        b"idle_power: {",
        b"'*': ",
        b"}\n",
        b"[",
        b"]",
        b"*a",
        b"&a ",
        b"!!bool ",
        b"!!float ",
        b"!!timestamp ",
        b"1e9",
        b"off",
        b"null",
        b".nan",
        b"2001-01-99",
    )
)
def test_a_configuration_file_is_read_or_refused(data: bytes) -> None:
    """A file with any content makes a configuration or a usage error that names the file."""
    loaded = _load(data)
    assert isinstance(loaded, Config) or "FILE: " in loaded or loaded.startswith("--web.telemetry")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@fuzz
@given(
    st.sampled_from(
        [
            *("sample.interval", "process.max", "process.min-joules", "process.linger"),
            *("cpu.tdp", "cpu.estimate", "log.level", "path.procfs", "dram.policy"),
        ]
    ),
    values,
)
@example("process.min-joules", 10**400)
@example("process.max", 10**400)
@example("process.min-joules", 1e308)
@example("process.linger", 1e308)
def test_a_setting_is_taken_or_refused(name: str, value: object) -> None:
    """A setting of any kind of value can be worked with, or is a usage error that names it."""
    refused = ""
    try:
        config = load_config({name: value}, {})
    except UsageError as error:
        config, refused = Config(), str(error)
    inside = (config.process_min_joules * UJ, config.process_linger * NS)
    assert [amount for amount in inside if not amount < float("inf")] == []
    assert refused == "" or name in refused


@fuzz
@given(st.text() | st.text("0123456789.smhdw "))
@example("9" * 5000)
@example("9" * 5000 + "s")
def test_durations_are_read_or_refused(text: str) -> None:
    """Any text makes a finite number of seconds or `ValueError`."""
    try:
        seconds = duration_seconds(text)
    except ValueError:
        return
    assert 0 <= seconds < float("inf")


@fuzz
@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_come_back(hours: int, minutes: int, seconds: int, millis: int) -> None:
    """A duration of several units is their sum."""
    text = f"{hours}h{minutes}m{seconds}s{millis}ms"
    expected = hours * 3600 + minutes * 60 + seconds + millis / 1000
    assert duration_seconds(text) == pytest.approx(expected)


# --- jobs ----------------------------------------------------------------------------------------


@fuzz
@given(
    pieces(
        b'{"id": "7"', b',"uid": ', b',"started": ', b',"comment": "jobwatt:budget=', b'kWh"', b"}"
    )
)
@example(b'{"id": "7", "started": ' + HUGE + b"}")
@example(b'{"id": "7", "deadline": 1e999, "uid": NaN}')
def test_a_job_file_is_parsed_or_failed(data: bytes) -> None:
    """Any bytes make a job or `Failed`."""
    try:
        file = parse_job_file(data)
    except Failed:
        return
    assert isinstance(file, JobFile)
    assert JobRecord.from_row(file.record.row()).row() == file.record.row()


@fuzz
@given(st.text() | st.text("0123456789-,(x).e"), pieces(b"max ", b"100000", b"\n"))
def test_words_of_jobs_are_read_or_left(text: str, data: bytes) -> None:
    """A time, a number of CPUs, numbers of GPUs, a budget, a quota: one that can be, or none."""
    assert all(
        value is None or 0 < value < float("inf")
        for value in (moment(text), even_share(text), parse_cpu_max(data))
    )
    assert all(0 <= number < 2**31 for number in numbers_of(text))
    record = comment_budget(f"jobwatt:budget={text}")
    assert record.budget is not None or record.bad_budgets


def test_errors_of_reading_have_a_common_name() -> None:
    """Whoever catches `ReadError` has caught what parsers and readers raise."""
    assert (issubclass(Failed, ReadError), issubclass(Absent, ReadError)) == (True, True)
