"""Energy of CPU packages where no counter can be read: a power model over utilisation.

Power is taken as linear between idle and full load (Fan, Weber, Barroso: Power provisioning for a
warehouse-sized computer, ISCA 2007, which finds this within 5 % for whole servers whose two ends
are known; here the ends come from a table, so expect tens of percents). Every joule of it says
`source="estimate"`.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Sequence

from jobwatt.errors import ReadError
from jobwatt.host.procfs import CpuTimes, Procfs
from jobwatt.host.topology import Topology
from jobwatt.meters.tdp import CpuPower, power_of_model
from jobwatt.model import Component, Counter, Device, Fault, Reading, Report, Source
from jobwatt.units import NS, UJ

__all__ = ["EstimateMeter"]


class EstimateMeter:
    """Estimates `package-N` of every package in the topology."""

    source = Source.ESTIMATE

    def __init__(self, procfs: Procfs, topology: Topology, tdp_watts: float | None = None) -> None:
        self._procfs = procfs
        self._topology = topology
        model = procfs.read_cpu_model()
        self.power: dict[int, CpuPower] = {}
        self._counters: dict[int, Counter] = {}
        self._energy_uj: dict[int, float] = {}
        for package, threads in sorted(Count(topology.package_of.values()).items()):
            self.power[package] = power_of_model(model, threads, tdp_watts)
            name = f"package-{package}"
            device = Device(Component.CPU, name, self.source, package, model)
            self._counters[package] = Counter(f"estimate:{name}", device)
            self._energy_uj[package] = 0.0
        self._last: tuple[int, CpuTimes] | None = None

    def read(self, now_ns: int) -> Sequence[Report]:
        """Integrate power since the last read."""
        try:
            times = self._procfs.read_cpu_times()
        except ReadError as error:
            fault = Fault("cpu times", error.reason, str(error))
            return (Report(self.source, now_ns, faults=(fault,)),)
        if self._last is not None and now_ns > self._last[0]:
            self._integrate(now_ns - self._last[0], self._last[1], times)
        self._last = (now_ns, times)
        readings = (Reading(c, round(self._energy_uj[p])) for p, c in self._counters.items())
        return (Report(self.source, now_ns, tuple(readings)),)

    def _integrate(self, span_ns: int, before: CpuTimes, after: CpuTimes) -> None:
        busy: Count[int] = Count()
        capacity: Count[int] = Count()
        for cpu, time_ns in after.busy_ns.items():
            package = self._topology.package_of.get(cpu)
            if package is not None and cpu in before.busy_ns:
                busy[package] += max(0, time_ns - before.busy_ns[cpu])
                capacity[package] += span_ns
        for package, power in self.power.items():
            ratio = min(1.0, busy[package] / capacity[package]) if capacity[package] else 0.0
            watts = power.idle_watts + (power.full_watts - power.idle_watts) * ratio
            self._energy_uj[package] += watts * UJ * span_ns / NS
