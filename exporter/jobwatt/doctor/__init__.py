"""What can be measured on this machine, what cannot, and what mends it.

One file a question. Each looks at the same files through the same readers as the exporter, changes
nothing, and returns findings: no check raises for what the machine does.
"""

from __future__ import annotations

import os

from jobwatt.config import Config
from jobwatt.doctor.cgroups import check_cgroups
from jobwatt.doctor.energy import check_energy
from jobwatt.doctor.finding import Finding, Group, Level
from jobwatt.doctor.gpus import check_gpus
from jobwatt.doctor.kubernetes import check_kubernetes
from jobwatt.doctor.machine import check_machine, read_machine
from jobwatt.doctor.processes import check_processes
from jobwatt.doctor.state import check_state
from jobwatt.host.procfs import Procfs

__all__ = ["Finding", "Group", "Level", "examine"]


def examine(config: Config) -> list[Finding]:
    """Look at everything that the exporter needs, in the order of `Group`."""
    procfs = Procfs(config.path_procfs)
    machine = read_machine(procfs, config.path_sysfs)
    return [
        *check_machine(machine),
        *check_energy(config, machine),
        *check_gpus(config, procfs, machine),
        *check_processes(procfs, machine),
        *check_cgroups(config.cgroupfs, procfs),
        *check_kubernetes(config, os.environ),
        *check_state(config.state_directory),
    ]
