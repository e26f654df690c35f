"""Who and what recurs on made-up nodes: people, and the services of every system."""

from __future__ import annotations

from functools import partial

from jobwatt.simulation.blueprint import MIB, Job, User, Workload
from jobwatt.simulation.load import Steady

__all__ = [
    "ALICE",
    "BOB",
    "CAROL",
    "DAEMONS",
    "DAVE",
    "MESSAGEBUS",
    "POSTGRES",
    "PROMETHEUS",
    "ROOT",
    "WWW_DATA",
    "daemon",
    "kernel_thread",
    "of_job",
]


ROOT = User(0, "root")
MESSAGEBUS = User(101, "messagebus")
POSTGRES = User(113, "postgres")
PROMETHEUS = User(114, "prometheus")
WWW_DATA = User(33, "www-data")
ALICE = User(1000, "alice")
BOB = User(1001, "bob")
CAROL = User(1002, "carol")
DAVE = User(1003, "dave")


def daemon(
    comm: str, unit: str, memory_mib: int, share: float = 0.003, user: User = ROOT
) -> Workload:
    """A service that mostly sleeps."""
    return Workload(comm, f"systemd:{unit}", user, Steady(share), memory_bytes=memory_mib * MIB)


def kernel_thread(comm: str, share: float) -> Workload:
    """A thread of the kernel's own."""
    return Workload(comm, "system", ROOT, Steady(share))


def of_job(job: Job) -> partial[Workload]:
    """Return what makes processes of a job, given the rest of a `Workload`."""
    return partial(Workload, job_uid=job.uid, user=job.user, gpus=job.gpus, job=job)


DAEMONS = (
    daemon("systemd", "init.scope", 9),
    kernel_thread("kworker/u8:2", 0.01),
    kernel_thread("kswapd0", 0.001),
    daemon("systemd-journal", "systemd-journald.service", 24, 0.01),
    daemon("dbus-daemon", "dbus.service", 3, user=MESSAGEBUS),
    daemon("cron", "cron.service", 1, 0.0005),
)
