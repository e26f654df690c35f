"""The machine itself: kernel, processor, and what this process may do on it."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobwatt.doctor.finding import Finding, Group, Level, many
from jobwatt.errors import ReadError
from jobwatt.host.files import read_bytes, read_text
from jobwatt.host.procfs import Procfs, decode
from jobwatt.host.topology import Topology, read_topology

__all__ = [
    "AMD_VENDORS",
    "CAP_SYS_PTRACE",
    "Machine",
    "Privileges",
    "check_machine",
    "read_machine",
]

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE = 1, 2, 19
"""Numbers of capabilities (include/uapi/linux/capability.h)."""

AMD_VENDORS = frozenset({"AuthenticAMD", "HygonGenuine"})


@dataclass(frozen=True, slots=True)
class Privileges:
    """User and capabilities of this process; the sets are bit masks."""

    uid: int
    groups: frozenset[int]
    effective: int
    bounding: int

    def has(self, *capabilities: int) -> bool:
        """Whether one of these capabilities is in force."""
        return any(self.effective >> number & 1 for number in capabilities)

    @property
    def reads_all(self) -> bool:
        """Whether it may read files of root: uid 0 owns them, also without any capability."""
        return self.uid == 0 or self.has(CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE)


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of the machine.

    Attributes:
        kernel: its release, "" where it cannot be read.
        cpu_model, vendor: of the processor, "" where it does not tell.
        knows_vendor: whether the processor tells about itself at all; one that does without a
            vendor is no x86.
        virtual: whether it says that it runs on a hypervisor.
        topology: CPUs by package.
        privileges: of this process, None where they cannot be read.
    """

    kernel: str
    cpu_model: str
    vendor: str
    knows_vendor: bool
    virtual: bool
    topology: Topology
    privileges: Privileges | None

    @property
    def kernel_version(self) -> tuple[int, ...]:
        """The first two numbers of the kernel's release, `(6, 1)`."""
        numbers = self.kernel.partition("-")[0].split(".")[:2]
        return tuple(int(number) for number in numbers if number.isdigit())


def read_machine(procfs: Procfs, sysfs: Path) -> Machine:
    """Read what there is; what cannot be read stays unknown."""
    try:
        kernel = read_text(procfs.root / "sys/kernel/osrelease")
    except ReadError:
        kernel = ""
    try:
        cpuinfo = decode(read_bytes(procfs.root / "cpuinfo"))
    except ReadError:
        cpuinfo = ""
    first_cpu = _fields(cpuinfo.partition("\n\n")[0])
    return Machine(
        kernel=kernel,
        cpu_model=procfs.read_cpu_model(),
        vendor=first_cpu.get("vendor_id", ""),
        knows_vendor=bool(first_cpu),
        virtual="hypervisor" in first_cpu.get("flags", "").split(),
        topology=read_topology(sysfs),
        privileges=_read_privileges(procfs),
    )


def check_machine(machine: Machine) -> Iterator[Finding]:
    """Name the machine, and say what this process may do."""
    if machine.kernel:
        yield Finding(Level.OK, Group.MACHINE, "kernel", f"Linux {machine.kernel}")
    else:
        yield Finding(Level.NOTE, Group.MACHINE, "kernel", "its version cannot be read")
    packages = Count(machine.topology.package_of.values())
    kind = ", virtual machine" if machine.virtual else ""
    yield Finding(
        Level.OK,
        Group.MACHINE,
        "cpu",
        f"{machine.cpu_model or 'model not told'}: {many(len(packages), 'package')}, "
        f"{many(sum(packages.values()), 'CPU')}{kind}",
    )
    if machine.privileges is not None:
        yield _check_privileges(machine.privileges)


def _check_privileges(privileges: Privileges) -> Finding:
    names = {CAP_DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH", CAP_SYS_PTRACE: "CAP_SYS_PTRACE"}
    held = [name for number, name in names.items() if privileges.has(number)]
    message = f"uid {privileges.uid} with {' and '.join(held) or 'no capability of use here'}"
    if privileges.reads_all:
        return Finding(Level.OK, Group.MACHINE, "privileges", message)
    message += ": energy counters are root's"
    if privileges.bounding >> CAP_DAC_READ_SEARCH & 1:
        message += "; a capability in the bounding set alone gives nothing"
    return Finding(Level.NOTE, Group.MACHINE, "privileges", message)


def _read_privileges(procfs: Procfs) -> Privileges | None:
    try:
        status = _fields(decode(read_bytes(procfs.root / "self/status")))
        groups = [status["Gid"].split()[1], *status["Groups"].split()]
        return Privileges(
            uid=int(status["Uid"].split()[1]),
            groups=frozenset(int(group) for group in groups),
            effective=int(status["CapEff"], 16),
            bounding=int(status["CapBnd"], 16),
        )
    except (ReadError, KeyError, ValueError, IndexError):
        return None


def _fields(text: str) -> dict[str, str]:
    """Return the `key: value` lines of a text."""
    pairs = (line.partition(":") for line in text.split("\n"))
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}
