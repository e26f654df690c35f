"""Processes: whether all are seen, and how exactly their CPU time is."""

from __future__ import annotations

from collections.abc import Iterator

from jobwatt.doctor.finding import Finding, Group, Level, many
from jobwatt.doctor.machine import CAP_SYS_PTRACE, Machine
from jobwatt.errors import ReadError
from jobwatt.host.files import read_bytes
from jobwatt.host.procfs import TICKS, Procfs, decode

__all__ = ["check_processes"]

_HOST_PIDS = (
    "run in the host's PID namespace:\n"
    "  docker run --pid=host …\n"
    "in Kubernetes, in the pod's spec:\n"
    "  hostPID: true"
)


def check_processes(procfs: Procfs, machine: Machine) -> Iterator[Finding]:
    """Check the listing, the PID namespace, CPU clocks and the packages' load."""
    try:
        pids = procfs.list_pids()
        why = "" if pids else f"{procfs.root} is no proc filesystem"
    except ReadError as error:
        pids, why = set(), str(error)
    if not pids:
        yield _finding(
            Level.PROBLEM,
            "listing",
            f"no process can be seen: {why}",
            "name the host's proc filesystem:\n  jobwatt serve --path.procfs=/host/proc",
        )
        return
    yield _check_listing(procfs, machine, len(pids))
    own = procfs.is_own()
    host = procfs.is_host_pid_namespace()
    if host is not None:  # None: a recorded tree, or a kernel that does not tell
        yield _check_namespace(procfs, host=host, own=own)
    if own:
        yield _finding(Level.OK, "cpu time", "process CPU clocks, to the nanosecond")
    else:
        yield _finding(
            Level.NOTE,
            "cpu time",
            f"/proc/PID/stat, in ticks of {1000 // TICKS} ms: {procfs.root} counts its pids apart "
            "from this process",
            _HOST_PIDS,
        )
    try:
        procfs.read_cpu_times()
    except ReadError as error:
        message = f"how busy each package is cannot be read: {error}"
        yield _finding(Level.PROBLEM, "load", message)


def _finding(level: Level, subject: str, message: str, remedy: str | None = None) -> Finding:
    return Finding(level, Group.PROCESSES, subject, message, remedy)


def _check_namespace(procfs: Procfs, *, host: bool, own: bool) -> Finding:
    if host:
        return _finding(Level.OK, "pid namespace", "the host's")
    if own:
        message = "a container's: the machine's other processes are not seen"
        return _finding(Level.PROBLEM, "pid namespace", message, _HOST_PIDS)
    message = f"a container's; {procfs.root} shows the processes of another"
    return _finding(Level.NOTE, "pid namespace", message, _HOST_PIDS)


def _check_listing(procfs: Procfs, machine: Machine, count: int) -> Finding:
    """Check whether the mount hides processes of other users (proc(5): hidepid)."""
    seen = f"{many(count, 'process', 'processes')} seen"
    options = _mount_options(procfs)
    hidepid = options.get("hidepid", "off")
    if hidepid in {"0", "off"}:
        return _finding(Level.OK, "listing", seen)
    privileges = machine.privileges
    if privileges is not None and not privileges.has(CAP_SYS_PTRACE):
        gid = options.get("gid", "0")
        in_group = gid.isdigit() and int(gid) in privileges.groups
        if not in_group or hidepid in {"4", "ptraceable"}:
            return _finding(
                Level.PROBLEM,
                "listing",
                f"{seen}: hidepid={hidepid} on {procfs.root} hides those of other users",
                "let systemd give the capability (sudo systemctl edit jobwatt):\n"
                "  [Service]\n"
                "  AmbientCapabilities=CAP_SYS_PTRACE\n"
                "or show all processes to everybody:\n"
                f"  sudo mount -o remount,hidepid=0 {procfs.root}",
            )
    return _finding(Level.OK, "listing", f"{seen}, hidepid={hidepid} does not hold here")


def _mount_options(procfs: Procfs) -> dict[str, str]:
    """Return the options of the mount at `procfs.root`; of several the last lies on top."""
    try:
        mounts = decode(read_bytes(procfs.root / "self/mounts"))
    except ReadError:
        return {}
    options: dict[str, str] = {}
    for line in mounts.split("\n"):
        match line.split():
            case [_, folder, "proc", settings, *_] if folder == str(procfs.root):
                pairs = (setting.partition("=") for setting in settings.split(","))
                options = {name: value for name, _, value in pairs}
    return options
