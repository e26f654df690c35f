"""The accounts: every joule that was measured, and whose it is.

The only mutable accounting state. It belongs to the sampler's thread and does no I/O; time comes in
as arguments. All amounts are integer microjoules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from jobwatt.attribution.counters import Advance
from jobwatt.attribution.policy import Posting
from jobwatt.gpus import GpuHolder, GpuInfo, GpuState
from jobwatt.jobs import JobBook
from jobwatt.model import (
    UNDECIDED,
    Component,
    Device,
    IdlePower,
    Process,
    RaplDomain,
    Row,
    Rows,
    Source,
    Usage,
)
from jobwatt.snapshot import DeviceView, JobView, SeriesLabels, SeriesView
from jobwatt.units import NS, UJ, smoothing_step

__all__ = ["DeviceAccount", "Ledger", "SeriesRules"]

BUSY_TIME_CONSTANT_NS = 120 * NS
"""Who is busier is judged over about the last two minutes."""

DISPLACE_FACTOR = 1.1
"""A process must be busier by this to take another's place: two equals do not swap for ever."""


@dataclass(frozen=True, slots=True)
class SeriesRules:
    """When a process gets a series of its own.

    Attributes:
        least_uj: energy that it must have used in all.
        most: processes with a series, lingering ones included.
        linger_ns: how long a series stays after its process has ended.
    """

    least_uj: int = 10 * UJ
    most: int = 200
    linger_ns: int = 120 * NS


@dataclass(slots=True)
class DeviceAccount:
    """One device's accounts, all since JobWatt first ran here; see `DeviceView`.

    Attributes:
        index: its place in `Ledger.accounts`, and in the energy of each series.
    """

    device: Device
    index: int
    resting: bool = False
    energy_uj: int = 0
    idle_uj: int = 0
    unattributed_uj: int = 0
    other_uj: int = 0
    retired_uj: int = 0
    job_retired_uj: int = 0
    power_uw: int | None = None
    limit_uw: int | None = None
    idle_power: IdlePower | None = None
    gpu_info: GpuInfo | None = None
    gpu: GpuState | None = None
    holders: tuple[GpuHolder, ...] = ()
    methods_uj: dict[str, int] = field(default_factory=dict)
    parts_uj: dict[str, int] = field(default_factory=dict)
    wraps: int = 0
    resets: int = 0
    gap_ns: int = 0

    def rest(self) -> None:
        """Show nothing but totals until the device is read again."""
        self.resting = True
        self.power_uw = self.limit_uw = self.idle_power = self.gpu = None
        self.holders = ()

    def view(self) -> DeviceView:
        """Return the account as it is now."""
        return DeviceView(
            self.device,
            self.energy_uj,
            self.idle_uj,
            self.unattributed_uj,
            self.other_uj,
            self.retired_uj,
            self.power_uw,
            self.limit_uw,
            self.idle_power,
            self.wraps,
            self.resets,
            self.gap_ns,
            self.job_retired_uj,
            self.resting,
            self.gpu_info,
            self.gpu,
            self.holders,
            dict(self.methods_uj),
            dict(self.parts_uj),
        )


NO_PROCESS = -1
"""Start of a process that cannot be alive."""

_KEPT_FIELDS = (
    "energy_uj",
    "idle_uj",
    "unattributed_uj",
    "other_uj",
    "retired_uj",
    "job_retired_uj",
    "wraps",
    "resets",
    "gap_ns",
)
"""What of a device's account outlives a restart."""

_KEPT = attrgetter(*_KEPT_FIELDS)


@dataclass(slots=True)
class _Recent:
    """Energy used lately: it fades with the time constant."""

    uj: float = 0.0
    at_ns: int = 0

    def faded(self, now_ns: int) -> float:
        return self.uj * math.exp((self.at_ns - now_ns) / BUSY_TIME_CONSTANT_NS)

    def add(self, uj: float, now_ns: int) -> None:
        self.uj = self.faded(now_ns) + uj
        self.at_ns = now_ns


@dataclass(slots=True, eq=False)
class _Series:
    labels: SeriesLabels
    energy_uj: list[int]
    recent: _Recent
    number: int
    start_ticks: int
    ended_ns: int | None = None
    ended: Process | None = None
    power_uw: float = 0.0
    fresh_uj: int = 0
    shown: SeriesView | None = None

    @property
    def names(self) -> Row:
        """What names it over a restart."""
        labels = self.labels
        return (labels.pid, self.start_ticks, labels.comm, labels.user, labels.job_uid)

    def view(self) -> SeriesView:
        if self.shown is None:
            self.shown = SeriesView(
                self.labels, tuple(self.energy_uj), round(self.power_uw), self.ended_ns is None
            )
        return self.shown


@dataclass(slots=True, eq=False)
class _Unlisted:
    """A process without a series.

    Attributes:
        uj: what it has used in all.
        weighed_uj: how much of it is in `recent`, which is kept once `uj` is enough for a series.
        refused: whether it has been counted as not fitting.
        memory_mark: up to where of the ledger's memory index it has been charged.
    """

    uj: float = 0.0
    weighed_uj: float = 0.0
    recent: _Recent | None = None
    refused: bool = False
    memory_mark: float = 0.0


@dataclass
class Ledger:
    """Accounts of devices, RAPL domains, process series and jobs.

    Invariant, for each device after each call: energy = Σ series + other + retired + idle +
    unattributed = Σ jobs + retired jobs + idle + unattributed.
    """

    rules: SeriesRules = field(default_factory=SeriesRules)
    book: JobBook = field(default_factory=JobBook)
    accounts: list[DeviceAccount] = field(default_factory=list)
    devices: dict[str, DeviceAccount] = field(default_factory=dict)
    domains_uj: dict[RaplDomain, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    _live: dict[Process, _Series] = field(default_factory=dict)
    _ended: dict[SeriesLabels, _Series] = field(default_factory=dict)
    _late: dict[Process, _Series] = field(default_factory=dict)
    _unlisted: dict[Process, _Unlisted] = field(default_factory=dict)
    _candidates: dict[Process, _Unlisted] = field(default_factory=dict)
    _opened: int = 0
    _memory_index: float = 0.0  # µJ that a byte of an unlisted process has cost so far

    # --- devices --------------------------------------------------------------------------------

    def account(self, device: Device) -> DeviceAccount:
        """Return a device's account, opened at 0 when it is new.

        A device that another source measures from now on has an account of its own for that; the
        other one rests, and goes on when its source does.
        """
        account = self.devices.get(device.name)
        if account is not None and account.device.source is device.source:
            account.device = device
            return account
        if account is not None:
            account.rest()
        for resting in self.accounts:
            if (resting.device.name, resting.device.source) == (device.name, device.source):
                resting.device = device
                break
        else:
            resting = DeviceAccount(device, len(self.accounts))
            self.accounts.append(resting)
        resting.resting = False
        self.devices[device.name] = resting
        return resting

    def add_domain(self, domain: RaplDomain, uj: int) -> None:
        """Add to a RAPL domain's raw total."""
        self.domains_uj[domain] = self.domains_uj.get(domain, 0) + uj

    def note(self, device: Device, advance: Advance) -> None:
        """Count a wrap, reset or gap of a device's counter."""
        account = self.account(device)
        account.wraps += advance.wrapped
        account.resets += advance.reset
        account.gap_ns += advance.lost_ns + (advance.span_ns if advance.gap else 0)

    def post(self, device: Device, posting: Posting) -> None:
        """Book one device's energy of one interval."""
        account = self.account(device)
        index = account.index
        account.energy_uj += posting.energy_uj
        account.idle_uj += posting.idle_uj
        account.unattributed_uj += posting.unattributed_uj
        _add_all(account.methods_uj, posting.methods)
        _add_all(account.parts_uj, posting.parts)
        other_uj = sum(posting.others.values())
        self._post_jobs(index, posting)
        live, late = self._live, self._late
        unlisted, least_uj = self._unlisted, self.rules.least_uj
        for process, uj in posting.processes.items():
            series = live.get(process) or late.get(process)
            if series is not None:
                energy_uj = series.energy_uj
                if index >= len(energy_uj):
                    energy_uj.extend([0] * (index + 1 - len(energy_uj)))
                energy_uj[index] += uj
                series.fresh_uj += uj
                series.shown = None
            elif uj:
                other_uj += uj
                if not process.alive:
                    continue
                entry = unlisted.get(process)
                if entry is None:
                    entry = unlisted[process] = _Unlisted(memory_mark=self._memory_index)
                entry.uj += uj
                if entry.uj >= least_uj:
                    self._candidates[process] = entry
        account.other_uj += other_uj

    def _post_jobs(self, index: int, posting: Posting) -> None:
        by_job = dict(posting.others)
        for process, uj in posting.processes.items():
            by_job[process.job_uid] = by_job.get(process.job_uid, 0) + uj
        jobs = self.book.jobs
        for job_uid, uj in by_job.items():
            if uj:
                (jobs.get(job_uid) or self.book.account(job_uid)).add(index, uj)

    def charge_memory(self, uj: int, memory_bytes: int) -> None:
        """Remember what the memory of unlisted processes cost together (already posted)."""
        self._memory_index += uj / memory_bytes

    def weigh_memory(self, processes: Iterable[Process]) -> None:
        """Count what memory has cost each unlisted process towards a series of its own.

        DRAM is posted to them together, so that the work of a sample does not grow with the
        processes that sleep; this looks at all of them now and then.
        """
        for process in processes:
            if process.memory_bytes and process not in self._live and process.job_uid != UNDECIDED:
                entry = self._unlisted.get(process)
                if entry is None:
                    entry = self._unlisted[process] = _Unlisted(memory_mark=self._memory_index)
                    continue
                entry.uj += process.memory_bytes * (self._memory_index - entry.memory_mark)
                entry.memory_mark = self._memory_index
                if entry.uj >= self.rules.least_uj:
                    self._candidates[process] = entry

    # --- series ---------------------------------------------------------------------------------

    @property
    def listed(self) -> Iterable[Process]:
        """Live processes that have a series."""
        return self._live.keys()

    def close_interval(
        self,
        now_ns: int,
        span_ns: int,
        usage: Usage,
        refresh: Callable[[Process], None],
    ) -> None:
        """Open and close series after all devices of a sample are posted.

        Args:
            now_ns: monotonic time.
            span_ns: time since the last sample.
            usage: who has ended since, and which jobs are there.
            refresh: reads a process's name and owner anew, before they are frozen in labels.
        """
        self._follow_power(now_ns, span_ns)
        for process in usage.ended:
            self._unlisted.pop(process, None)
            self._candidates.pop(process, None)
            series = self._end(process, now_ns)
            if series is not None:  # a slow meter may still tell what it used
                series.ended = process
                self._late[process] = series
        self._expire(now_ns)
        for job in self.book.close(now_ns, span_ns, usage.jobs):
            for account, uj in zip(self.accounts, job.energy_uj, strict=False):
                account.job_retired_uj += uj
        self.dropped.update(self.book.dropped)
        self._follow_owners(now_ns)
        self._admit(now_ns, refresh)

    def _follow_power(self, now_ns: int, span_ns: int) -> None:
        span_ns = max(1, span_ns)
        step = smoothing_step(span_ns)
        for series in self._live.values():
            if series.fresh_uj or series.power_uw >= 1:
                series.power_uw += (series.fresh_uj * NS / span_ns - series.power_uw) * step
                series.shown = None
            if series.fresh_uj:
                series.recent.add(series.fresh_uj, now_ns)
                series.fresh_uj = 0

    def _follow_owners(self, now_ns: int) -> None:
        """End the series of processes that belong to another job by now, and begin others."""
        moved = [p for p, series in self._live.items() if p.job_uid != series.labels.job_uid]
        for process in moved:
            recent = self._live[process].recent
            self._end(process, now_ns)
            least_uj = float(self.rules.least_uj)
            entry = _Unlisted(least_uj, least_uj, recent, memory_mark=self._memory_index)
            self._unlisted[process] = self._candidates[process] = entry

    def _admit(self, now_ns: int, refresh: Callable[[Process], None]) -> None:
        """Give the processes that have used enough a series, as far as there is room."""
        candidates, self._candidates = self._candidates, {}
        least: tuple[_Series, Process | None] | None = None
        for process, entry in candidates.items():
            if process.job_uid == UNDECIDED:
                self._candidates[process] = entry
                continue
            if entry.recent is None:
                entry.recent = _Recent(at_ns=now_ns)
                refresh(process)
            entry.recent.add(entry.uj - entry.weighed_uj, now_ns)
            entry.weighed_uj = entry.uj
            resumes = self._labels(process) in self._ended
            if not resumes and len(self._live) + len(self._ended) >= self.rules.most:
                least = least or self._least_busy(now_ns)
                if least is None or not _is_busier(entry.recent, least[0].recent, now_ns):
                    self._refuse(entry)
                    continue
                self._displace(*least)
            del self._unlisted[process]
            self._open(process, entry.recent)
            least = None

    def _least_busy(self, now_ns: int) -> tuple[_Series, Process | None] | None:
        everyone: list[tuple[_Series, Process | None]] = [(s, p) for p, s in self._live.items()]
        everyone += [(series, None) for series in self._ended.values()]
        return min(everyone, key=lambda item: item[0].recent.faded(now_ns), default=None)

    def _displace(self, series: _Series, process: Process | None) -> None:
        """Retire a series, of a live `process` or lingering, to make room."""
        if process is None:
            self._leave(series)
        else:
            del self._live[process]
            uj = float(self.rules.least_uj)
            entry = _Unlisted(uj, uj, series.recent, memory_mark=self._memory_index)
            self._unlisted[process] = entry
            self._refuse(entry)
        self._retire(series)

    def _refuse(self, entry: _Unlisted) -> None:
        if not entry.refused:
            entry.refused = True
            self.dropped["process_cap"] = self.dropped.get("process_cap", 0) + 1

    def _labels(self, process: Process) -> SeriesLabels:
        return SeriesLabels(process.pid, process.comm, process.user, process.job_uid)

    def _open(self, process: Process, recent: _Recent) -> None:
        labels = self._labels(process)
        series = self._ended.get(labels)
        if series is not None:
            self._leave(series)
        else:
            self._opened += 1
            series = _Series(
                labels, [0] * len(self.accounts), recent, self._opened, process.start_ticks
            )
        series.start_ticks = process.start_ticks
        series.ended_ns = None
        series.shown = None
        self._live[process] = series

    def _end(self, process: Process, now_ns: int) -> _Series | None:
        """Let a process's series linger; return it."""
        series = self._live.pop(process, None)
        if series is None:
            return None
        series.ended_ns = now_ns
        series.power_uw = 0.0
        series.shown = None
        self._ended[series.labels] = series
        return series

    def _leave(self, series: _Series) -> None:
        """End a series's lingering."""
        del self._ended[series.labels]
        if series.ended is not None:
            self._late.pop(series.ended, None)
            series.ended = None

    def _expire(self, now_ns: int) -> None:
        due = now_ns - self.rules.linger_ns
        for series in [s for s in self._ended.values() if (s.ended_ns or 0) <= due]:
            self._leave(series)
            self._retire(series)

    def _retire(self, series: _Series) -> None:
        for account, uj in zip(self.accounts, series.energy_uj, strict=False):
            account.retired_uj += uj

    # --- state ----------------------------------------------------------------------------------

    def dump(self) -> dict[str, Row]:
        """Return the accounts as rows; `restore` takes them back.

        Names have rows of their own, written once; the amounts that move with every sample share a
        few.
        """
        rows: dict[str, Row] = {
            f"device {account.index}": (
                account.device.name,
                account.device.component.value,
                account.device.source.value,
                account.device.package,
                account.device.model,
            )
            for account in self.accounts
        }
        rows["devices"] = tuple((account.index, *_KEPT(account)) for account in self.accounts)
        rows["active"] = tuple(account.index for account in self.devices.values())
        for account in self.accounts:
            if account.methods_uj or account.parts_uj:
                amounts = tuple(account.methods_uj.items()), tuple(account.parts_uj.items())
                rows[f"gpu {account.index}"] = amounts
        rows["domains"] = tuple((d.domain, d.package, uj) for d, uj in self.domains_uj.items())
        every = [series for group in (self._live, self._ended) for series in group.values()]
        for series in every:
            rows[f"series {series.number}"] = series.names
        rows.update(self.book.dump())
        rows["series"] = tuple((series.number, *series.energy_uj) for series in every)
        return rows

    def restore(self, rows: Rows, now_ns: int, wall: float, *, same_boot: bool) -> None:
        """Take back the accounts of an earlier run; all series linger until they are adopted.

        A process of another boot is none of this one's, whatever its pid and start.

        Raises:
            ValueError, TypeError, LookupError: the rows are not those of `dump`.
        """
        for index, *amounts in rows.get("devices", ()):
            name, component, source, package, model = rows[f"device {index}"]
            number = None if package is None else int(package)
            device = Device(Component(component), str(name), Source(source), number, str(model))
            account = self.account(device)
            if account.index != index:
                raise ValueError("devices are out of order")
            for field_name, amount in zip(_KEPT_FIELDS, amounts, strict=True):
                setattr(account, field_name, int(amount))
            methods, parts = rows.get(f"gpu {index}", ((), ()))
            account.methods_uj = {str(key): int(uj) for key, uj in methods}
            account.parts_uj = {str(key): int(uj) for key, uj in parts}
        for index in rows.get("active", ()):
            self.account(self.accounts[index].device)
        self.book.restore(rows, now_ns, wall)
        for domain, package, uj in rows.get("domains", ()):
            self.add_domain(RaplDomain(str(domain), str(package)), int(uj))
        for number, *energy_uj in rows.get("series", ()):
            pid, start_ticks, comm, user, job_uid = rows[f"series {number}"]
            labels = SeriesLabels(int(pid), str(comm), str(user), str(job_uid))
            self._opened = max(self._opened, int(number))
            self._ended[labels] = _Series(
                labels,
                [int(uj) for uj in energy_uj],
                _Recent(at_ns=now_ns),
                int(number),
                int(start_ticks) if same_boot else NO_PROCESS,
                ended_ns=now_ns,
            )
        self._check_balance()

    def _check_balance(self) -> None:
        """Raise ValueError where the invariant does not hold: somebody else wrote these rows."""
        series = [s.energy_uj for s in self._ended.values()]
        jobs = [job.energy_uj for job in self.book.jobs.values()]
        if any(len(energy_uj) > len(self.accounts) for energy_uj in (*series, *jobs)):
            raise ValueError("there is energy of a device that is not there")
        for at, account in enumerate(self.accounts):
            active_uj = account.energy_uj - account.idle_uj - account.unattributed_uj
            by_process = account.other_uj + account.retired_uj + _sum_of(series, at)
            if by_process != active_uj or account.job_retired_uj + _sum_of(jobs, at) != active_uj:
                raise ValueError(f"the accounts of {account.device.name} do not add up")

    def adopt(self, processes: Iterable[Process]) -> None:
        """Let processes that live on go on with the series that they had before a restart."""
        known = {(s.labels.pid, s.start_ticks): s for s in self._ended.values()}
        for process in processes:
            series = known.get((process.pid, process.start_ticks))
            if series is not None and series.labels.job_uid == process.job_uid:
                self._leave(series)
                series.ended_ns = None
                self._live[process] = series

    # --- views ----------------------------------------------------------------------------------

    def series_views(self) -> tuple[SeriesView, ...]:
        """Return all series as they are now, live ones first."""
        return tuple(
            series.view() for group in (self._live, self._ended) for series in group.values()
        )

    def job_views(self) -> tuple[JobView, ...]:
        """Return all jobs as they are now."""
        return tuple(job.view() for job in self.book.jobs.values())

    def device_views(self) -> tuple[DeviceView, ...]:
        """Return all devices' accounts as they are now."""
        return tuple(account.view() for account in self.accounts)


def _add_all(totals: dict[str, int], amounts: Mapping[str, int]) -> None:
    for name, uj in amounts.items():
        totals[name] = totals.get(name, 0) + uj


def _sum_of(amounts: Iterable[list[int]], at: int) -> int:
    return sum(energy_uj[at] for energy_uj in amounts if at < len(energy_uj))


def _is_busier(one: _Recent, other: _Recent, now_ns: int) -> bool:
    return one.faded(now_ns) > other.faded(now_ns) * DISPLACE_FACTOR
