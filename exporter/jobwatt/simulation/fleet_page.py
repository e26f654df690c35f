"""What the exporter of a made-up node shows at a moment: a snapshot, out of the plan and the time.

No node lives here, so that a thousand of them cost only when somebody looks. The snapshots keep the
metric contract: identities hold to the microjoule, jobs linger, counters go on after an outage, and
begin anew where the exporter's state was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import jobwatt
from jobwatt.gpus import GpuInfo, GpuState
from jobwatt.model import Component, Device, IdleMethod, IdlePower, Source
from jobwatt.records import Budget, BudgetOrigin, JobRecord
from jobwatt.simulation.blueprint import Hardware, PowerModel
from jobwatt.simulation.fleet import Fleet, FleetNode, power_models
from jobwatt.simulation.fleet_accounts import Account, Accounts
from jobwatt.simulation.fleet_samples import Samples
from jobwatt.snapshot import (
    DeviceView,
    Health,
    JobView,
    NodeInfo,
    SeriesLabels,
    SeriesView,
    Snapshot,
)
from jobwatt.units import NS, UJ

__all__ = ["NodePages", "fleet_devices"]

NOBODYS_WATTS = 0.3
"""Active power of each device that no process is known for."""

UTILIZATION = 0.9
"""CPU time that a job uses of the CPUs that it holds."""

FIRST_PID, PIDS_OF_A_STAY = 1000, 16

SAMPLE_SECONDS, RESIDENT_BYTES, EXPORTER_CPUS = 0.0017, 36 << 20, 0.002
"""What an exporter tells of itself."""


def fleet_devices(hardware: Hardware, node: str) -> tuple[Device, ...]:
    """Return a node's devices in the order of `power_models`."""
    devices: list[Device] = []
    for n, package in enumerate(hardware.packages):
        model = hardware.cpu_model
        devices.append(Device(Component.CPU, f"package-{n}", Source.SIMULATED, n, model))
        if package.dram is not None:
            model = hardware.dram_model
            devices.append(Device(Component.DRAM, f"dram-{n}", Source.SIMULATED, n, model))
    for n, gpu in enumerate(hardware.gpus):
        name = f"GPU-{node}-{n}"
        devices.append(Device(Component.GPU, name, Source.SIMULATED, None, gpu.model))
    return tuple(devices)


class NodePages:
    """The snapshots of one node; `epoch` is the Unix time at which the simulation began."""

    def __init__(self, fleet: Fleet, node: FleetNode, epoch: float) -> None:
        self._fleet = fleet
        self._node = node
        self._epoch = epoch
        self._models = power_models(node.hardware)
        self._devices = fleet_devices(node.hardware, node.name)
        self._gpu_models = [gpu.power for gpu in node.hardware.gpus]
        self._samples = Samples(fleet.interval_seconds, node.outages)
        self._accounts = Accounts(node, self._samples, fleet.interval_seconds)

    def at(self, seconds: float) -> Snapshot | None:
        """Return what is shown at a moment, None while nobody answers."""
        silent = any(start < seconds < end for start, end in self._node.unreachable)
        if silent or self._samples.outage(seconds) is not None:
            return None
        now = self._samples.last(seconds)
        since = max(-self._node.age_seconds, self._samples.forgotten(now))
        accounts = self._accounts.at(since, now)
        shown = [a for a in accounts if a.lingers(self._fleet.job_linger_seconds, now)]
        gone = [a for a in accounts if not a.lingers(self._fleet.job_linger_seconds, now)]
        series, retired_uj = self._series(accounts, now)
        return Snapshot(
            time=self._epoch + now,
            monotonic_ns=round((now + self._node.age_seconds) * NS),
            node=NodeInfo(
                version=jobwatt.__version__,
                cpus=self._node.hardware.threads,
                grid_zone=self._node.grid_zone,
                cpu_time_method="simulated",
                interval_seconds=self._fleet.interval_seconds,
                started=self._epoch + since,
            ),
            devices=tuple(self._device_views(accounts, gone, series, retired_uj, since, now)),
            domains_uj=(),
            series=series,
            health=self._health(now, since),
            history=(),
            jobs=tuple(self._job_view(account) for account in shown),
            accounts=_by_account(gone),
        )

    def _series(
        self, accounts: Iterable[Account], now: float
    ) -> tuple[tuple[SeriesView, ...], Sequence[int]]:
        """Return the series of processes, and what those that are gone had used, by device."""
        shown: list[SeriesView] = []
        retired_uj = [0] * len(self._devices)
        for account in accounts:
            lingers = account.lingers(self._fleet.process_linger_seconds, now)
            job, alive = account.stay.job, account.ended is None
            for place, (comm, uj) in enumerate(account.processes_uj()):
                if not lingers:
                    _add(retired_uj, uj)
                    continue
                pid = FIRST_PID + account.number * PIDS_OF_A_STAY + place
                labels = SeriesLabels(pid, comm, job.user, job.job_uid)
                shown.append(SeriesView(labels, uj, sum(account.power_uw) >> place, alive))
        return tuple(shown), retired_uj

    def _device_views(
        self,
        accounts: Sequence[Account],
        gone: Sequence[Account],
        series: Sequence[SeriesView],
        retired_uj: Sequence[int],
        since: float,
        now: float,
    ) -> Iterator[DeviceView]:
        active_uj = _total((a.energy_uj for a in accounts), len(self._devices))
        of_gone_uj = _total((a.energy_uj for a in gone), len(self._devices))
        of_series_uj = _total((view.energy_uj for view in series), len(self._devices))
        power_uw = _total((a.power_uw for a in accounts), len(self._devices))
        lost_uj = self._accounts.lost_uj(since, now, len(self._devices))
        for n, (device, model) in enumerate(zip(self._devices, self._models, strict=True)):
            idle_uj = round(model.idle_watts * UJ * (now - since))
            unattributed_uj = round(NOBODYS_WATTS * UJ * (now - since)) + lost_uj[n]
            idle_uw = round(model.idle_watts * UJ)
            is_gpu = device.component is Component.GPU
            yield DeviceView(
                device=device,
                energy_uj=idle_uj + unattributed_uj + active_uj[n],
                idle_uj=idle_uj,
                unattributed_uj=unattributed_uj,
                other_uj=active_uj[n] - of_series_uj[n] - retired_uj[n],
                retired_uj=retired_uj[n],
                power_uw=idle_uw + round(NOBODYS_WATTS * UJ) + power_uw[n],
                limit_uw=None if model.limit_watts is None else round(model.limit_watts * UJ),
                idle_power=IdlePower(idle_uw, IdleMethod.CONFIGURED),
                wraps=0,
                resets=0,
                gap_ns=0,
                job_retired_uj=of_gone_uj[n],
                gpu_info=self._gpu_info(device) if is_gpu else None,
                gpu=self._gpu_state(device, model, power_uw[n]) if is_gpu else None,
                methods_uj={"exclusive": active_uj[n]} if is_gpu else {},
            )

    def _gpu_info(self, device: Device) -> GpuInfo:
        hardware = self._node.hardware
        index = self._devices.index(device) - (len(self._devices) - len(hardware.gpus))
        gpu = hardware.gpus[index]
        return GpuInfo(
            device.name, index, index, gpu.pci_bus_id, hardware.gpu_driver, gpu.architecture
        )

    def _gpu_state(self, device: Device, model: PowerModel, active_uw: int) -> GpuState:
        info = self._gpu_info(device)
        busy = min(1.0, active_uw / UJ / (model.full_watts - model.idle_watts))
        memory_bytes = self._node.hardware.gpus[info.index or 0].memory_bytes
        return GpuState(
            info=info,
            utilization_ratio=round(busy, 2),
            memory_used_bytes=round(memory_bytes * busy),
            memory_total_bytes=memory_bytes,
            temperature_celsius=round(35 + 40 * busy),
        )

    def _job_view(self, account: Account) -> JobView:
        stay, job, ended = account.stay, account.stay.job, account.ended
        idle_watts = sum(self._gpu_models[number].idle_watts for number in stay.gpus)
        return JobView(
            job_uid=job.job_uid,
            user=job.user,
            energy_uj=account.energy_uj,
            cpu_ns=round((stay.cpus or 0.01) * UTILIZATION * account.seconds * NS),
            gpu_idle_uj=round(idle_watts * UJ * account.seconds),
            gpus=len(stay.gpus) if ended is None else 0,
            power_uw=sum(account.power_uw),
            started=self._epoch + stay.start,
            measured_since=self._epoch + account.since,
            ended=None if ended is None else self._epoch + ended,
            record=JobRecord(job.name, job.user, job.account, job.queue),
            account=job.account,
            budget=None
            if job.budget_joules is None
            else Budget(job.budget_joules, BudgetOrigin.ENVIRONMENT),
            cpus=None if stay.cpus is None or ended is not None else float(stay.cpus),
        )

    def _health(self, now: float, since: float) -> Health:
        return Health(
            source_up={Source.SIMULATED.value: True},
            source_errors={},
            series_dropped={"process_cap": 0},
            samples_missed=0,
            sample_seconds=SAMPLE_SECONDS,
            processes=len(self._node.stays) * PIDS_OF_A_STAY,
            checkpoint=self._epoch + now,
            cpu_seconds=EXPORTER_CPUS * (now - since),
            resident_bytes=RESIDENT_BYTES,
        )


def _by_account(gone: Iterable[Account]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return the energy of jobs that are gone, by account and device."""
    totals: dict[str, list[int]] = {}
    for account in gone:
        total = totals.setdefault(account.stay.job.account, [0] * len(account.energy_uj))
        _add(total, account.energy_uj)
    return tuple((name, tuple(uj)) for name, uj in totals.items())


def _total(rows: Iterable[Sequence[int]], devices: int) -> list[int]:
    total = [0] * devices
    for row in rows:
        _add(total, row)
    return total


def _add(total: list[int], row: Iterable[int]) -> None:
    for index, uj in enumerate(row):
        total[index] += uj
