from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobwatt.cli.doctor import doctor
from jobwatt.config import Config
from jobwatt.doctor import Finding, Group, Level, examine, gpus
from jobwatt.host.procfs import Procfs
from jobwatt.units import UJ

RANGE_UJ = 262_143_328_850
INTEL = "vendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz\n"
AMD = "vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 7763 64-Core Processor\n"
ROOT_STATUS = (
    "Name:\tjobwatt\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t \n"
    "CapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n"
)
USER_STATUS = (
    "Name:\tjobwatt\nUid:\t999\t999\t999\t999\nGid:\t999\t999\t999\t999\nGroups:\t4 27\n"
    "CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n"
)


class Machine:
    """A tree of /proc and /sys in which all is well, to be spoilt by a test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = Config(
            path_procfs=root / "proc",
            path_sysfs=root / "sys",
            state_directory=root / "state",
        )
        self.write("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
        self.write("proc/cpuinfo", INTEL + "flags\t\t: fpu vme\n\nvendor_id\t: other\n")
        self.write("proc/stat", "cpu  1 1 1 1\ncpu0 1 1 1 1\ncpu1 1 1 1 1\n")
        self.write("proc/self/status", ROOT_STATUS)
        self.write("proc/self/mounts", f"proc {root}/proc proc rw,relatime 0 0\n")
        self.write("proc/1/cgroup", "0::/init.scope\n")
        self.write("sys/devices/system/cpu/online", "0-1\n")
        for cpu in (0, 1):
            topology = f"sys/devices/system/cpu/cpu{cpu}/topology"
            self.write(f"{topology}/physical_package_id", "0\n")
        self.write("sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
        self.write("sys/fs/cgroup/cpu.stat", "usage_usec 1000\n")
        (root / "state").mkdir()
        self.zone("intel-rapl:0", "package-0", limit_watts=150)
        self.zone("intel-rapl:0:0", "dram", parent="intel-rapl:0", range_uj=65_712_999_613)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def zone(
        self,
        key: str,
        name: str,
        *,
        parent: str = "",
        energy_uj: int = 1_000 * UJ,
        range_uj: int | None = RANGE_UJ,
        limit_watts: int | None = None,
    ) -> Path:
        folder = f"sys/class/powercap/{parent}/{key}" if parent else f"sys/class/powercap/{key}"
        self.write(f"{folder}/name", f"{name}\n")
        self.write(f"{folder}/energy_uj", f"{energy_uj}\n")
        if range_uj is not None:
            self.write(f"{folder}/max_energy_range_uj", f"{range_uj}\n")
        if limit_watts is not None:
            self.write(f"{folder}/constraint_0_name", "long_term\n")
            self.write(f"{folder}/constraint_0_power_limit_uw", f"{limit_watts * UJ}\n")
        return self.root / folder

    def remove_zones(self) -> None:
        folder = self.root / "sys/class/powercap"
        for path in sorted(folder.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        folder.rmdir()

    def live(self, _seconds: float = 0) -> None:
        """Let time pass: all counters that have ever counted move."""
        for file in (self.root / "sys/class/powercap").rglob("energy_uj"):
            text = file.read_text()
            if text.strip().isdigit() and int(text):
                file.write_text(f"{int(text) + UJ}\n")

    def examine(self, **changes: Any) -> list[Finding]:  # noqa: ANN401 - fields of Config
        return examine(replace(self.config, **changes))

    def find(self, subject: str, **changes: Any) -> Finding:  # noqa: ANN401
        (finding,) = (f for f in self.examine(**changes) if f.subject == subject)
        return finding

    def run(self, *arguments: str, **settings: Any) -> Result:  # noqa: ANN401
        config = self.config
        paths = (
            f"--path.procfs={config.path_procfs}",
            f"--path.sysfs={config.path_sysfs}",
            f"--state.directory={config.state_directory}",
        )
        return CliRunner(**settings).invoke(doctor, [*paths, *arguments], terminal_width=100)


@pytest.fixture(autouse=True)
def _without_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the driver of the machine that the tests run on be out of the picture."""
    monkeypatch.setattr(gpus, "SONAME", "libno-nvidia-driver.so.1")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(time, "sleep", made.live)
    # The tree has no living processes: it stands for the exporter's own /proc of the host.
    monkeypatch.setattr(Procfs, "is_own", lambda _: True)
    monkeypatch.setattr(Procfs, "is_host_pid_namespace", lambda _: True)
    return made


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the kernel answer with an error for some files: tests may run as root."""

    def install(ending: str, number: int = errno.EACCES) -> None:
        opened = os.open

        def refusing(path: str | Path, *arguments: Any, **keywords: Any) -> int:  # noqa: ANN401
            if str(path).endswith(ending):
                raise OSError(number, os.strerror(number), str(path))
            return opened(path, *arguments, **keywords)

        monkeypatch.setattr(os, "open", refusing)

    return install


def problems(findings: list[Finding]) -> list[str]:
    return [f.subject for f in findings if f.level is Level.PROBLEM]


# --- a machine in order -------------------------------------------------------------------------


def test_a_server_with_rapl_is_in_order(machine: Machine) -> None:
    """Everything is found good, in the order of the groups, and nothing is to be mended."""
    findings = machine.examine()

    assert {f.level for f in findings if f.group is not Group.GPUS} == {Level.OK}
    assert {finding.remedy for finding in findings} == {None}
    order = [group for group in Group if group is not Group.KUBERNETES]
    assert list(dict.fromkeys(finding.group for finding in findings)) == order
    assert [(f.subject, f.message) for f in findings if f.group is Group.ENERGY] == [
        ("powercap", "2 RAPL zones, 2 in use"),
        ("intel-rapl:0", "device package-0: readable; wraps every 29.1 min at 150 W"),
        ("intel-rapl:0:0", "device dram-0: readable; wraps every 7.3 min at 150 W"),
    ]


def test_the_machine_is_named(machine: Machine) -> None:
    """Kernel, processor and privileges come first."""
    assert [(f.subject, f.message) for f in machine.examine() if f.group is Group.MACHINE] == [
        ("kernel", "Linux 6.1.0-18-amd64"),
        ("cpu", "Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz: 1 package, 2 CPUs"),
        ("privileges", "uid 0 with CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE"),
    ]


def test_nothing_is_written(machine: Machine) -> None:
    """The doctor looks and leaves no trace, not even in the state directory."""
    before = sorted(machine.root.rglob("*"))

    machine.examine()

    assert sorted(machine.root.rglob("*")) == before


def test_an_empty_tree_stops_nothing(tmp_path: Path) -> None:
    """Without any file each question still has an answer."""
    nowhere = tmp_path / "nowhere"
    config = Config(path_procfs=nowhere, path_sysfs=nowhere, state_directory=tmp_path)

    findings = examine(config)

    assert problems(findings) == ["powercap", "listing"]
    assert {finding.group for finding in findings} == set(Group) - {Group.KUBERNETES}


# --- zones --------------------------------------------------------------------------------------


def test_denied_zones_are_told_with_the_command(
    machine: Machine, refuse: Callable[..., None]
) -> None:
    """EACCES is a problem of each zone, with all ways to mend it, and the estimate steps in."""
    refuse("/energy_uj")

    findings = machine.examine()

    assert problems(findings) == ["intel-rapl:0", "intel-rapl:0:0"]
    denied = next(f for f in findings if f.subject == "intel-rapl:0")
    assert denied.message == "device package-0: may not be read"
    assert denied.remedy is not None
    for command in (
        "  sudo jobwatt serve",
        "  AmbientCapabilities=CAP_DAC_READ_SEARCH",
        "  sudo setcap cap_dac_read_search=ep /",
    ):
        assert command in denied.remedy
    assert machine.find("package-0").level is Level.NOTE


def test_one_failing_zone_does_not_hide_the_others(
    machine: Machine, refuse: Callable[..., None]
) -> None:
    """A zone that answers with an error is one problem; no estimate is needed for the rest."""
    refuse("intel-rapl:0:0/energy_uj", errno.EINVAL)

    findings = machine.examine()

    assert problems(findings) == ["intel-rapl:0:0"]
    assert "Invalid argument" in machine.find("intel-rapl:0:0").message
    assert machine.find("intel-rapl:0:0").remedy is None
    assert "package-0" not in {f.subject for f in findings}


def test_a_powercap_class_that_cannot_be_listed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A denied class is told as denied, and the estimate steps in."""
    listdir = os.listdir

    def refusing(path: str | Path) -> list[str]:
        if str(path).endswith("class/powercap"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refusing)

    findings = machine.examine()

    assert problems(findings) == ["powercap"]
    assert "Permission denied" in machine.find("powercap").message
    assert "CAP_DAC_READ_SEARCH" in (machine.find("powercap").remedy or "")
    assert "estimated" in machine.find("package-0").message


def test_core_uncore_and_psys_are_shown_raw(machine: Machine) -> None:
    """Zones inside or around a package are no devices."""
    machine.zone("intel-rapl:0:1", "core", parent="intel-rapl:0")
    machine.zone("intel-rapl:1", "psys")

    assert machine.find("intel-rapl:0:1").message == (
        "core of package 0, shown raw, never added: readable"
    )
    assert machine.find("intel-rapl:1").message == "psys, shown raw, never added: readable"


def test_mirrors_are_left_out_with_a_note(machine: Machine) -> None:
    """MMIO beside MSR shows the same package again."""
    machine.zone("intel-rapl-mmio:0", "package-0", energy_uj=7)

    finding = machine.find("intel-rapl-mmio:0")

    assert finding.level is Level.NOTE
    assert finding.message == "package-0: shows intel-rapl:0 (package-0) once more, left out"


def test_mirrored_dies_name_their_twin(machine: Machine) -> None:
    """Two dies of one counter: the second is left out, with what lies in it."""
    machine.zone("intel-rapl:4", "package-1-die-0")
    machine.zone("intel-rapl:4:0", "core", parent="intel-rapl:4")
    machine.zone("intel-rapl:5", "package-1-die-1")
    machine.zone("intel-rapl:5:0", "core", parent="intel-rapl:5")

    assert "shows intel-rapl:4 (package-1-die-0)" in machine.find("intel-rapl:5").message
    assert "shows intel-rapl:4:0 (core)" in machine.find("intel-rapl:5:0").message


def test_an_unknown_zone_is_left_out_with_a_note(machine: Machine) -> None:
    """A domain of a later processor is told, not guessed."""
    machine.zone("intel-rapl:9", "accelerator")

    finding = machine.find("intel-rapl:9")

    assert finding.level is Level.NOTE
    assert finding.message == "accelerator: not a domain that JobWatt knows, left out"


def test_amd_has_no_dram(machine: Machine) -> None:
    """The missing domain is a note, with the reason."""
    machine.remove_zones()
    machine.write("proc/cpuinfo", AMD)
    machine.zone("intel-rapl:0", "package-0", range_uj=65_532_610_987)
    machine.zone("intel-rapl:0:0", "core", parent="intel-rapl:0")

    findings = machine.examine()

    assert problems(findings) == []
    assert machine.find("dram").level is Level.NOTE
    assert machine.find("dram").message.startswith("AMD's processors have no DRAM domain")
    assert machine.find("intel-rapl:0").message == (
        "device package-0: readable; wraps every 262 s at 250 W (assumed)"
    )


def test_a_client_processor_without_dram(machine: Machine) -> None:
    """Intel's processors for clients have none either."""
    machine.remove_zones()
    machine.zone("intel-rapl:0", "package-0")

    assert machine.find("dram").message == (
        "this processor has no DRAM domain: its energy is absent"
    )


def test_a_package_without_counter_is_a_problem(machine: Machine) -> None:
    """Two sockets and one zone: half of the machine is not measured."""
    machine.write("sys/devices/system/cpu/cpu1/topology/physical_package_id", "1\n")

    assert machine.find("packages") == Finding(
        Level.PROBLEM, Group.ENERGY, "packages", "RAPL counts 1 of the machine's 2 packages"
    )


@pytest.mark.parametrize(
    ("interval", "level", "words"),
    [
        (1.0, Level.OK, "readable; wraps every 10 s at 100 W"),
        (3.0, Level.NOTE, "wraps every 10 s at 100 W: the sampling interval of 3 s leaves a gap"),
        (10.0, Level.PROBLEM, "wraps every 10 s at 100 W, no later than the sampling interval"),
    ],
)
def test_a_small_range_asks_for_a_short_interval(
    machine: Machine, interval: float, level: Level, words: str
) -> None:
    """The time between wraps at full power is held against the sampling interval."""
    machine.remove_zones()
    machine.zone("intel-rapl:0", "package-0", energy_uj=UJ, range_uj=1000 * UJ, limit_watts=100)

    finding = machine.find("intel-rapl:0", sample_interval=interval)

    assert finding.level is level
    assert words in finding.message
    assert (finding.remedy is None) == (level is Level.OK)
    assert level is Level.OK or "--sample.interval=2s" in (finding.remedy or "")


def test_an_interval_is_never_advised_below_what_counters_bear(machine: Machine) -> None:
    """However small the range, the advice stays at 100 ms."""
    machine.remove_zones()
    machine.zone("intel-rapl:0", "package-0", energy_uj=UJ, range_uj=10 * UJ, limit_watts=100)

    assert "--sample.interval=100ms" in (machine.find("intel-rapl:0").remedy or "")


def test_a_range_that_is_not_told_is_a_note(machine: Machine) -> None:
    """Without a range a wrap cannot be mended."""
    machine.remove_zones()
    machine.zone("intel-rapl:0", "package-0", range_uj=None)

    finding = machine.find("intel-rapl:0")

    assert finding.level is Level.NOTE
    assert "its range is not told" in finding.message


def test_a_value_beyond_its_range_is_a_problem(machine: Machine) -> None:
    """Such a counter says nothing."""
    machine.remove_zones()
    machine.zone("intel-rapl:0", "package-0", energy_uj=7_200 * UJ, range_uj=3_600 * UJ)

    finding = machine.find("intel-rapl:0")

    assert finding.level is Level.PROBLEM
    assert "shows 2.00 Wh, more than its range of 1.00 Wh" in finding.message


def test_a_package_that_stands_at_0_is_a_problem(machine: Machine) -> None:
    """Some hypervisors offer counters that never count."""
    machine.remove_zones()
    machine.zone("intel-rapl:0", "package-0", energy_uj=0)

    finding = machine.find("intel-rapl:0")

    assert finding.level is Level.PROBLEM
    assert finding.message == "device package-0: stands at 0: this processor does not count"


def test_a_counter_that_does_not_move_is_a_note(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a recorded tree: what else is known is told as well."""
    monkeypatch.setattr(time, "sleep", lambda _: None)

    finding = machine.find("intel-rapl:0")

    assert finding.level is Level.NOTE
    assert finding.message == (
        "device package-0: readable, but did not move within 0.05 s; wraps every 29.1 min at 150 W"
    )


# --- no zones -----------------------------------------------------------------------------------


def test_without_rapl_the_estimate_is_named_with_its_basis(machine: Machine) -> None:
    """What is estimated is not measured: a problem, and a note with the figure's origin."""
    machine.remove_zones()

    findings = machine.examine()

    assert problems(findings) == ["powercap"]
    estimate = machine.find("package-0")
    assert estimate.level is Level.NOTE
    assert estimate.message == (
        'estimated (source="estimate"): 1.59 W idle to 7.50 W at full load; '
        "TDP 150 W, 2 of 40 threads"
    )


def test_a_configured_tdp_is_the_basis(machine: Machine) -> None:
    """What the operator knows comes before the table."""
    machine.remove_zones()

    assert "configured TDP 90 W" in machine.find("package-0", cpu_tdp=90.0).message


def test_without_rapl_and_estimate_cpu_energy_is_absent(machine: Machine) -> None:
    """Switched off, the estimate is offered."""
    machine.remove_zones()

    finding = machine.find("estimate", cpu_estimate="off")

    assert finding.level is Level.NOTE
    assert "--cpu.estimate=auto" in (finding.remedy or "")


def test_a_driver_that_is_not_loaded_can_be(machine: Machine) -> None:
    """The usual case on a bare machine."""
    machine.remove_zones()

    finding = machine.find("powercap")

    assert finding.message == "no RAPL: its driver is not loaded"
    assert "  sudo modprobe intel_rapl_msr\n" in (finding.remedy or "")


def test_a_loaded_driver_without_zones(machine: Machine) -> None:
    """A processor that the driver does not know: no command mends that."""
    machine.remove_zones()
    (machine.root / "sys/module/intel_rapl_msr").mkdir(parents=True)

    finding = machine.find("powercap")

    assert finding.message == "the RAPL driver is loaded and finds no zone on this processor"
    assert finding.remedy is None


def test_a_virtual_machine_has_none(machine: Machine) -> None:
    """Also where the driver left an empty control type behind."""
    machine.remove_zones()
    (machine.root / "sys/class/powercap/intel-rapl").mkdir(parents=True)
    machine.write("proc/cpuinfo", INTEL + "flags\t\t: fpu hypervisor vme\n")

    assert "virtual machine" in machine.find("powercap").message
    assert machine.find("cpu").message.endswith(", virtual machine")


def test_masked_zones_in_a_container(machine: Machine) -> None:
    """Links that lead nowhere are a container runtime's doing."""
    machine.remove_zones()
    folder = machine.root / "sys/class/powercap"
    folder.mkdir(parents=True)
    for key in ("intel-rapl", "intel-rapl:0"):
        (folder / key).symlink_to(f"../../devices/virtual/powercap/intel-rapl/{key}")

    finding = machine.find("powercap")

    assert "a container runtime masks them" in finding.message
    assert "--path.sysfs=/host/sys" in (finding.remedy or "")


def test_an_old_kernel_has_no_driver_for_amd(machine: Machine) -> None:
    """AMD came to powercap with Linux 5.11."""
    machine.remove_zones()
    machine.write("proc/cpuinfo", AMD)
    machine.write("proc/sys/kernel/osrelease", "5.10.0-28-amd64\n")

    assert machine.find("powercap").remedy == "run Linux 5.11 or later"

    machine.write("proc/sys/kernel/osrelease", "5.11.0\n")
    assert "modprobe" in (machine.find("powercap").remedy or "")


def test_arm_has_no_rapl(machine: Machine) -> None:
    """A processor without a vendor of x86 has none, and nothing to load."""
    machine.remove_zones()
    machine.write("proc/cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\n")

    finding = machine.find("powercap")

    assert finding.message == "no RAPL: only processors of Intel and AMD have it"
    assert finding.remedy is None
    assert machine.find("cpu").message == "model not told: 1 package, 2 CPUs"


# --- privileges and processes -------------------------------------------------------------------


def test_a_plain_user_is_told_what_is_missing(machine: Machine) -> None:
    """The bounding set is not enough, and the note says so."""
    machine.write("proc/self/status", USER_STATUS)

    finding = machine.find("privileges")

    assert finding.level is Level.NOTE
    assert finding.message == (
        "uid 999 with no capability of use here: energy counters are root's; "
        "a capability in the bounding set alone gives nothing"
    )


def test_a_user_with_the_capability_is_in_order(machine: Machine) -> None:
    """An ambient CAP_DAC_READ_SEARCH is all that a service needs."""
    machine.write("proc/self/status", USER_STATUS.replace("0000000000000000", "0000000000000004"))

    finding = machine.find("privileges")

    assert (finding.level, finding.message) == (Level.OK, "uid 999 with CAP_DAC_READ_SEARCH")


def test_root_without_capabilities_is_in_order(machine: Machine) -> None:
    """Files of root open for root."""
    status = ROOT_STATUS.replace("000001ffffffffff", "0000000000000000")
    machine.write("proc/self/status", status)

    assert machine.find("privileges").level is Level.OK


def test_a_status_that_is_none_is_left_out(machine: Machine) -> None:
    """What cannot be known is not told."""
    machine.write("proc/self/status", "Uid:\tnobody\n")

    assert "privileges" not in {finding.subject for finding in machine.examine()}


@pytest.mark.parametrize(
    ("options", "status", "level"),
    [
        ("rw,hidepid=0", USER_STATUS, Level.OK),
        ("rw,hidepid=2", ROOT_STATUS, Level.OK),
        ("rw,hidepid=2", USER_STATUS, Level.PROBLEM),
        ("rw,gid=27,hidepid=invisible", USER_STATUS, Level.OK),
        ("rw,gid=27,hidepid=ptraceable", USER_STATUS, Level.PROBLEM),
    ],
)
def test_hidden_processes(machine: Machine, options: str, status: str, level: Level) -> None:
    """The mount option hidepid matters to those who may not trace, nor are in its group."""
    machine.write("proc/self/status", status)
    machine.write(
        "proc/self/mounts",
        f"none / ext4 rw 0 0\nproc {machine.root}/proc proc {options} 0 0\nproc /x proc rw 0 0\n",
    )

    finding = machine.find("listing")

    assert finding.level is level
    assert ("CAP_SYS_PTRACE" in (finding.remedy or "")) == (level is Level.PROBLEM)


def test_mounts_that_cannot_be_read_hide_nothing(machine: Machine) -> None:
    """Without a table of mounts the listing counts as it is."""
    (machine.root / "proc/self/mounts").unlink()

    assert machine.find("listing").message == "1 process seen"


def test_no_process_at_all_is_a_problem(machine: Machine) -> None:
    """A folder that is no proc filesystem."""
    (machine.root / "proc/1/cgroup").unlink()
    (machine.root / "proc/1").rmdir()

    assert machine.find("listing").level is Level.PROBLEM


@pytest.mark.parametrize(
    ("own", "host", "clock", "namespace"),
    [
        (True, True, Level.OK, Level.OK),
        (True, False, Level.OK, Level.PROBLEM),
        (False, False, Level.NOTE, Level.NOTE),
        (True, None, Level.OK, None),
        (False, None, Level.NOTE, None),
    ],
)
def test_namespaces_of_pids(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    own: bool,
    host: bool | None,
    clock: Level,
    namespace: Level | None,
) -> None:
    """Clocks need the same pids as /proc; a container's own /proc hides the machine."""
    monkeypatch.setattr(Procfs, "is_own", lambda _: own)
    monkeypatch.setattr(Procfs, "is_host_pid_namespace", lambda _: host)

    found = {finding.subject: finding for finding in machine.examine()}

    assert found["cpu time"].level is clock
    assert (found["pid namespace"].level if "pid namespace" in found else None) is namespace
    for finding in found.values():
        if finding.group is Group.PROCESSES and finding.level is not Level.OK:
            assert "hostPID: true" in (finding.remedy or "")


def test_a_proc_without_cpu_times(machine: Machine) -> None:
    """Without /proc/stat packages have no load."""
    (machine.root / "proc/stat").unlink()

    assert machine.find("load").level is Level.PROBLEM


# --- cgroups and state --------------------------------------------------------------------------


def test_cgroup_versions(machine: Machine) -> None:
    """v2, hybrid, and v1 alone are told apart by what counts CPU time."""
    assert machine.find("version").message == "v2"

    machine.write("sys/fs/cgroup/cpuacct/cpuacct.usage", "5\n")
    assert machine.find("version").message == "v1 and v2"

    (machine.root / "sys/fs/cgroup/cgroup.controllers").unlink()
    assert machine.find("version").message == "v1"
    assert machine.find("cpuacct.usage").level is Level.OK


def test_no_cgroups_at_all(machine: Machine) -> None:
    """An empty folder is not mounted; one that counts nothing needs another boot."""
    missing = machine.find("version", path_cgroupfs=machine.root / "elsewhere")
    assert missing.level is Level.NOTE
    assert "none is mounted at" in missing.message

    (machine.root / "named/systemd").mkdir(parents=True)
    silent = machine.find("version", path_cgroupfs=machine.root / "named")
    assert "counts CPU time" in silent.message
    assert "systemd.unified_cgroup_hierarchy=1" in (silent.remedy or "")


def test_a_cgroup_counter_that_is_none(machine: Machine) -> None:
    """What the exporter could not parse is a problem."""
    machine.write("sys/fs/cgroup/cpu.stat", "nr_periods 0\n")

    assert machine.find("cpu.stat").level is Level.PROBLEM


def test_a_cgroup_namespace_is_a_note(machine: Machine) -> None:
    """Paths that lead out of the tree show it."""
    machine.write("proc/1/cgroup", "0::/../../init.scope\n")

    assert "--cgroupns=host" in (machine.find("namespace").remedy or "")


def test_a_first_process_without_cgroup_is_no_news(machine: Machine) -> None:
    """The namespace is then not known."""
    (machine.root / "proc/1/cgroup").unlink()

    assert "namespace" not in {finding.subject for finding in machine.examine()}


def test_a_state_directory_that_will_be_made(machine: Machine) -> None:
    """Its parent can be written."""
    folder = machine.root / "state/deep/er"

    assert machine.find("directory", state_directory=folder).message == (
        f"{folder}, which will be made"
    )


def test_a_state_directory_that_cannot_be_written(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Totals would not survive a restart."""
    monkeypatch.setattr(os, "access", lambda *_: False)

    finding = machine.find("directory")

    assert finding.level is Level.NOTE
    assert "may not be written" in finding.message
    assert f"sudo install -d -o {os.geteuid()} {machine.root}/state" in (finding.remedy or "")


def test_a_state_directory_that_is_a_file(machine: Machine) -> None:
    """A file in its place is no directory."""
    machine.write("file", "")

    finding = machine.find("directory", state_directory=machine.root / "file")

    assert finding.level is Level.NOTE
    assert "is no directory" in finding.message


# --- the command --------------------------------------------------------------------------------


def test_the_command_ends_with_0_when_all_is_measured(machine: Machine) -> None:
    """A page for people with a mark a line."""
    result = machine.run()

    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "Machine"
    assert "  ✓ kernel          Linux 6.1.0-18-amd64" in lines
    assert lines[-1] == "Everything here can be measured."


def test_a_note_alone_is_no_failure(machine: Machine) -> None:
    """A mirror does not change the exit code."""
    machine.zone("intel-rapl-mmio:0", "package-0", energy_uj=7)

    result = machine.run()

    assert result.exit_code == 0
    assert "  – intel-rapl-mmio:0" in result.output


def test_the_command_ends_with_1_when_something_is_not_measured(machine: Machine) -> None:
    """The remedy stands below, its commands on lines of their own."""
    machine.remove_zones()

    result = machine.run()

    assert result.exit_code == 1
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert "✗ powercap no RAPL: its driver is not loaded" in lines
    assert "→ load the driver, now and at each start:" in lines
    assert "sudo modprobe intel_rapl_msr" in lines
    assert lines[-1] == "1 thing cannot be measured here as it is."


def test_a_remedy_that_zones_share_is_told_once(
    machine: Machine, refuse: Callable[..., None]
) -> None:
    """Forty denied zones are one command."""
    refuse("/energy_uj")

    result = machine.run()

    assert result.exit_code == 1
    assert result.output.count("may not be read") == 2
    assert result.output.count("sudo setcap") == 1
    assert result.output.endswith("2 things cannot be measured here as it is.\n")


def test_marks_fall_back_to_ascii(machine: Machine) -> None:
    """Where the terminal has no such signs, plain ones stand for all of ours."""
    machine.remove_zones()
    machine.write("proc/cpuinfo", "vendor_id\t: GenuineIntel\nmodel name\t: Ünknown \x1b[31m\n")

    result = machine.run(charset="ascii")

    assert result.exit_code == 1
    assert result.output.isascii()
    assert "\x1b" not in result.output
    assert "  + kernel" in result.output
    assert "  x powercap" in result.output
    assert "> load the driver" in result.output
    assert "unknown model, 3.5 W x 2 threads" in " ".join(result.output.split())


def test_json_tells_the_same(machine: Machine) -> None:
    """Programs get every field of every finding and the same exit code."""
    machine.remove_zones()

    result = machine.run("--json")

    page = json.loads(result.output)
    assert result.exit_code == 1
    assert page["problems"] == 1
    assert page["findings"][0] == {
        "level": "ok",
        "group": "machine",
        "subject": "kernel",
        "message": "Linux 6.1.0-18-amd64",
        "remedy": None,
    }
    assert len(page["findings"]) == len(machine.examine())


def test_json_of_a_machine_in_order(machine: Machine) -> None:
    """Nothing to mend: no problems, exit code 0."""
    result = machine.run("--json", "--sample.interval=500ms")

    assert (result.exit_code, json.loads(result.output)["problems"]) == (0, 0)


def test_settings_reach_the_checks(machine: Machine) -> None:
    """The interval, the estimate and the cgroups' place are those of the command line."""
    machine.remove_zones()
    arguments = ("--cpu.estimate=off", f"--path.cgroupfs={machine.root}/none", "--json")

    found = {f["subject"]: f for f in json.loads(machine.run(*arguments).output)["findings"]}

    assert "estimate" in found
    assert f"{machine.root}/none" in found["version"]["message"]


@pytest.mark.parametrize(
    "arguments",
    [["--sample.interval=soon"], ["--sample.interval=0"], ["--cpu.estimate=maybe"], ["--gpus"]],
)
def test_wrong_use_ends_with_2(machine: Machine, arguments: list[str]) -> None:
    """Usage errors are told apart from findings."""
    assert machine.run(*arguments).exit_code == 2


def test_this_machine_can_be_examined(tmp_path: Path) -> None:
    """Whatever machine the tests run on, the doctor has an answer."""
    config = Config(state_directory=tmp_path)

    findings = examine(config)

    assert {finding.group for finding in findings} == set(Group) - {Group.KUBERNETES}
    assert "" not in set(chain.from_iterable((f.subject, f.message) for f in findings))
