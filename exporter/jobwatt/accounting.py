"""From what was seen in one sample to postings in the ledger.

Holds what must be remembered between samples: where each counter stood, what is learned of each
device's idle power, and who was busy while a device could not be read. Does no I/O.
"""

from __future__ import annotations

import logging
from collections import Counter as Count
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from jobwatt.attribution.apportion import apportion
from jobwatt.attribution.counters import Advance, CounterTrack
from jobwatt.attribution.gpu import gpu_weights, is_unheld
from jobwatt.attribution.gpu_claims import claimed_gpus, given_gpus, named_gpus
from jobwatt.attribution.idle import IdleLearner, UnheldLearner
from jobwatt.attribution.policy import (
    DramPolicy,
    Posting,
    Weights,
    cpu_weights,
    divide,
    memory_weights,
)
from jobwatt.errors import Absent, Denied, Failed, TimedOut
from jobwatt.gpus import GpuHolder, GpuMethod, GpuState
from jobwatt.ledger import Ledger
from jobwatt.model import (
    Component,
    Device,
    Fault,
    IdleMethod,
    IdlePower,
    Process,
    Reading,
    Report,
    Row,
    Rows,
    Source,
    Usage,
)
from jobwatt.units import NS, mean_power_uw
from jobwatt.usage.contract import UsageProbe

__all__ = ["Accountant", "SourceHealth"]

log = logging.getLogger(__name__)

WEIGH_MEMORY_NS = 20 * NS
"""How often the memory of processes without a series is weighed."""

PROVEN_NS = 10 * NS
"""How far back drivers' samples of processes reach."""

IMPLAUSIBLE = "implausible"
"""Reason of a reading that would mean an impossible power."""

REASONS = (Absent.reason, Denied.reason, Failed.reason, TimedOut.reason, IMPLAUSIBLE)
"""All reasons for which a reading can fail."""


@dataclass(slots=True)
class SourceHealth:
    """How the sources answer: `up` by source, `errors` by (source, reason)."""

    up: dict[str, bool] = field(default_factory=dict)
    errors: dict[tuple[str, str], int] = field(default_factory=dict)
    _failing: dict[tuple[str, str], str] = field(default_factory=dict)

    def note(self, source: Source, faults: Iterable[Fault], skipped: Iterable[str] = ()) -> None:
        """Count one look at a source; log what begins or ceases to fail, once.

        Nothing is news of the devices that were `skipped` in it.
        """
        unseen = tuple(skipped)
        for reason in REASONS:  # a series that is born at 1 loses its first error in increase()
            self.errors.setdefault((source.value, reason), 0)
        failing: dict[tuple[str, str], str] = {}
        news: dict[str, list[str]] = {}
        for fault in faults:
            key = (source.value, fault.reason)
            self.errors[key] = self.errors.get(key, 0) + 1
            failing[source.value, fault.what] = fault.reason
            if self._failing.get((source.value, fault.what)) != fault.reason:
                news.setdefault(fault.reason, []).append(fault.message)
        for messages in news.values():
            more = f" (and {len(messages) - 1} more alike)" if len(messages) > 1 else ""
            log.warning("%s: %s%s", source.value, messages[0], more)
        failing |= {
            (name, what): reason
            for (name, what), reason in self._failing.items()
            if name == source.value and unseen and what.startswith(unseen)
        }
        for name, what in self._failing.keys() - failing.keys():
            if name == source.value:
                log.info("%s: %s can be read again", name, what)
        others = {key: r for key, r in self._failing.items() if key[0] != source.value}
        self._failing = others | failing
        self.up[source.value] = not failing  # a GPU that sleeps is not read, and no fault


@dataclass(slots=True)
class _Spent:
    """A device's energy since its last good reading, over all of its counters.

    No time has passed where this was the first.
    """

    uj: int = 0
    span_ns: int = 0
    gap: bool = False
    clean: bool = True  # one ordinary interval: fit to learn from


class Accountant:
    """Books one sample after the other."""

    def __init__(
        self,
        ledger: Ledger,
        configured_idle_watts: Mapping[str, float],
        dram_policy: DramPolicy = DramPolicy.MEMORY,
    ) -> None:
        """Take the rules.

        Args:
            ledger: receives the postings.
            configured_idle_watts: idle power by pattern of the device's name, first match.
            dram_policy: what DRAM's active energy follows.
        """
        self.ledger = ledger
        self.health = SourceHealth()
        self._configured = configured_idle_watts
        self._dram_policy = dram_policy
        self._learned: dict[tuple[str, Source], IdlePower] = {}
        self._resumed: dict[str, tuple[int, int]] = {}
        self._alone: dict[str, tuple[int, int]] = {}
        self._alone_before: dict[str, tuple[int, int]] = {}
        self._tracks: dict[str, CounterTrack] = {}
        self._learners: dict[tuple[str, Source], IdleLearner | UnheldLearner] = {}
        self._owners: dict[str, Source] = {}
        self._waiting: dict[str, Weights] = {}
        self._held = False  # whether any GPU was at the sample before
        self._last_ns: int | None = None
        self._weigh_due_ns = 0
        self.same_boot = False

    def book(
        self,
        now_ns: int,
        reports: Iterable[Report],
        usage: Usage,
        probe: UsageProbe,
        wall: float = 0.0,
    ) -> None:
        """Book a sample.

        Args:
            now_ns: monotonic time of the sample.
            reports: of all meters that have news.
            usage: who was busy since the sample before.
            probe: where `usage` is from; asked for more about processes now and then.
            wall: Unix time of the sample.
        """
        self.ledger.book.begin(wall, usage)
        if self._last_ns is None:
            self.ledger.adopt(probe.processes)
        claims = _Claims(usage, self._dram_policy, self.ledger.listed, probe.find)
        for report in reports:
            spent = self._follow_counters(report)
            self._show_gpus(report, usage, probe)
            for device, amount in spent.items():
                state = report.gpus.get(device)
                weights = claims.on(device, state)
                if state is not None and not state.span_ns:
                    span_ns = 0 if amount is None else amount.span_ns
                    weights = self._claim_of_one_alone(device, span_ns, state, probe)
                self._post(device, amount, weights, usage, state)
        self._count_gpus()
        span_ns = 0 if self._last_ns is None else now_ns - self._last_ns
        self._last_ns = now_ns
        if now_ns >= self._weigh_due_ns:
            self._weigh_due_ns = now_ns + WEIGH_MEMORY_NS
            self.ledger.weigh_memory(probe.processes)
        self.ledger.close_interval(now_ns, span_ns, usage, probe.refresh)

    def dump(self, boot_id: str) -> dict[str, Row]:
        """Return all that must outlive a restart, as rows; `restore` takes them back."""
        rows, accounts = self.ledger.dump(), self.ledger.devices.values()
        rows["boot"] = (boot_id,)
        # What this run has not read yet is as it was.
        counters = dict(self._resumed)
        counters |= {key: track.last for key, track in self._tracks.items() if track.last}
        alone = self._alone_before | self._alone
        rows["alone"] = tuple((name, *process) for name, process in alone.items())
        rows["counters"] = tuple((key, *last) for key, last in counters.items())
        idle = [(a.index, a.idle_power or self._learned.get(_key(a.device))) for a in accounts]
        rows["idle"] = tuple(
            (index, power.uw, power.method.value)
            for index, power in idle
            if power is not None and power.method is not IdleMethod.CONFIGURED
        )
        return rows

    def restore(self, rows: Rows, boot_id: str, now_ns: int, wall: float = 0.0) -> None:
        """Go on from an earlier run's rows.

        On the same boot the hardware's counters have gone on meanwhile, and the monotonic clock
        with them: the first reading then covers the time in which no exporter ran. What was
        learned of a package's idle power holds for a boot, too: firmware may have changed between
        two. A GPU's is kept: it may never be free again.

        Raises:
            ValueError, TypeError, LookupError: the rows are not those of `dump`.
        """
        same_boot = self.same_boot = bool(boot_id) and rows.get("boot") == (boot_id,)
        self.ledger.restore(rows, now_ns, wall, same_boot=same_boot)
        for index, uw, method in rows.get("idle", ()):
            device = self.ledger.accounts[index].device
            if same_boot or device.component is Component.GPU:
                self._learned[_key(device)] = IdlePower(int(uw), IdleMethod(method))
        if same_boot:
            for key, value, at_ns in rows.get("counters", ()):
                self._resumed[key] = int(value), int(at_ns)
            for name, pid, start in rows.get("alone", ()):
                self._alone_before[str(name)] = int(pid), int(start)

    def idle_power(self, device: Device) -> IdlePower | None:
        """Return a device's idle power as it is in use now."""
        for pattern, watts in self._configured.items():
            if fnmatchcase(device.name, pattern):
                return IdlePower(round(watts * 1_000_000), IdleMethod.CONFIGURED)
        return self._learner(device).idle or self._learned.get(_key(device))

    def _learner(self, device: Device) -> IdleLearner | UnheldLearner:
        learner = self._learners.get(_key(device))
        if learner is None:
            before = self._learned.get(_key(device))
            observed = before.uw if before and before.method is IdleMethod.OBSERVED else None
            kind = UnheldLearner if device.component is Component.GPU else IdleLearner
            learner = self._learners[_key(device)] = kind(observed)
        return learner

    # --- counters -------------------------------------------------------------------------------

    def _follow_counters(self, report: Report) -> dict[Device, _Spent | None]:
        """Advance a source's counters; return what its devices spent, None where unread."""
        faults = list(report.faults)
        spent: dict[Device, _Spent | None] = {}
        for reading in report.readings:
            track = self._tracks.get(reading.counter.key)
            begins = track is None
            if track is None:
                track = self._tracks[reading.counter.key] = CounterTrack(reading.counter)
                before = self._resumed.pop(reading.counter.key, None)
                if before is not None and reading.counter.lasting:
                    begins = self._resume(track, reading, *before)
            advance = track.advance(reading.value_uj, reading.at_ns or report.at_ns)
            if track.doubtful:
                faults.append(_implausible(reading))
            self._add(reading, advance, spent, begins=begins and not track.doubtful)
        for device, limit_uw in report.limits_uw.items():
            account = self.ledger.devices.get(device.name)
            if account is not None:  # a device that was never read is not shown
                account.limit_uw = limit_uw
        others = (a.device for a in self.ledger.devices.values() if not report.has(a.device))
        skipped = [device.name for device in others if device.source is report.source]
        self.health.note(report.source, faults, skipped)
        for account in self.ledger.devices.values():
            if report.has(account.device) and account.device not in spent:
                spent[account.device] = None
        return spent

    def _add(
        self,
        reading: Reading,
        advance: Advance | None,
        spent: dict[Device, _Spent | None],
        *,
        begins: bool,
    ) -> None:
        device, domain = reading.counter.device, reading.counter.domain
        if domain is not None:
            self.ledger.add_domain(domain, advance.uj if advance else 0)
        if device is None or not self._may_measure(device):
            return
        self.ledger.account(device).gap_ns += reading.lost_ns
        if advance is None:
            if begins:
                spent[device] = spent.get(device) or _Spent()
            else:
                spent.setdefault(device, None)
            return
        self.ledger.note(device, advance)
        total = spent.get(device) or _Spent()
        total.uj += advance.uj
        total.span_ns = max(total.span_ns, advance.span_ns - reading.lost_ns)
        total.gap |= advance.gap
        total.clean &= not (advance.gap or advance.reset or reading.lost_ns)
        spent[device] = total

    def _resume(self, track: CounterTrack, reading: Reading, value: int, at_ns: int) -> bool:
        """Go on from an earlier run's reading; whether the counter begins anew instead.

        It does where the time since then has been estimated: no time is counted twice.
        """
        device = reading.counter.device
        if device is not None and self._owners.get(device.name) is Source.ESTIMATE:
            return True
        track.resume(value, at_ns)
        return False

    def _may_measure(self, device: Device) -> bool:
        """Whether a source has this device to itself; a measurement takes over from an estimate.

        Each has an account of its own: a joule that was estimated never becomes a measured one.
        """
        owner = self._owners.get(device.name)
        owner = self._owners.setdefault(device.name, device.source)
        if owner is Source.ESTIMATE and device.source is not owner:
            log.warning("%s is measured now (%s), not estimated", device.name, device.source.value)
            owner = self._owners[device.name] = device.source
        return owner is device.source

    # --- posting --------------------------------------------------------------------------------

    def _post(
        self,
        device: Device,
        spent: _Spent | None,
        weights: Weights,
        usage: Usage,
        state: GpuState | None,
    ) -> None:
        account = self.ledger.account(device)
        waiting = self._waiting.pop(device.name, None)
        if spent is None:
            # The next good reading covers this interval too: keep its claims until then.
            waiting = waiting or Weights({})
            waiting.add(weights)
            self._waiting[device.name] = waiting
            account.power_uw = None
            return
        account.power_uw = None
        if spent.span_ns == 0:
            account.idle_power = self.idle_power(device)
            return
        account.power_uw = mean_power_uw(spent.uj, spent.span_ns)
        if spent.clean and waiting is None:
            self._learn(device, spent, usage, state)
        account.idle_power = self.idle_power(device)
        if spent.gap:
            self.ledger.post(device, Posting(spent.uj, 0, spent.uj, {}, {}))
            return
        if waiting is not None:
            waiting.add(weights)
            waiting.let_go_of_undecided()
            weights = waiting
        idle_uw = account.idle_power.uw if account.idle_power else None
        posting = divide(spent.uj, spent.span_ns, idle_uw, weights)
        self.ledger.post(device, posting)
        is_known = state is not None and (state.span_ns or weights.processes)
        if posting.idle_uj and account.holders and is_known:  # they held it all the time
            self._charge_holders(account.holders, posting.idle_uj)
        if device.component is Component.DRAM and (others := sum(weights.others.values())):
            self.ledger.charge_memory(sum(posting.others.values()), others)

    def _learn(self, device: Device, spent: _Spent, usage: Usage, state: GpuState | None) -> None:
        """Let the device's idle power be learned from an ordinary interval."""
        learner = self._learner(device)
        if isinstance(learner, UnheldLearner):
            unheld = state is not None and is_unheld(state)
            learner.observe(spent.uj, spent.span_ns, unheld=unheld)
        elif (busy := _busy_ratio(usage, device.package)) is not None:
            learner.observe(spent.uj, spent.span_ns, busy)

    # --- GPUs -----------------------------------------------------------------------------------

    def _show_gpus(self, report: Report, usage: Usage, probe: UsageProbe) -> None:
        """Keep what each GPU of a source showed, and who holds it."""
        infos = {
            name: account.gpu_info
            for name, account in self.ledger.devices.items()
            if account.gpu_info is not None
        }
        infos |= {device.name: state.info for device, state in report.gpus.items()}
        claimed: dict[str, set[str]] = {}
        for process in probe.claimants if infos else ():
            for name in claimed_gpus(process.environment, infos):
                claimed.setdefault(name, set()).add(process.job_uid)
        instances = self._instances(report) if infos else {}
        for job_uid, record in usage.records.items() if infos else ():
            if (record.gpus or record.gpu_ids) and job_uid in usage.jobs:
                given = given_gpus(record.gpus, infos)
                for name in given | named_gpus(record.gpu_ids, infos, instances):
                    claimed.setdefault(name, set()).add(job_uid)
        for account in self.ledger.devices.values():
            if report.has(account.device):
                state = report.gpus.get(account.device)
                account.gpu = state
                account.holders = ()
                if state is not None:
                    account.gpu_info = state.info
                    account.holders = _holders(state, claimed.get(account.device.name, ()), probe)
                self._note_who_is_alone(account.device.name, state, probe)

    def _note_who_is_alone(self, name: str, state: GpuState | None, probe: UsageProbe) -> None:
        """Remember it for the next run."""
        process = None if state is None else _one_alone(state, probe)
        if process is None:
            self._alone.pop(name, None)
        else:
            self._alone[name] = process.pid, process.start_ticks

    def _claim_of_one_alone(
        self, device: Device, span_ns: int, state: GpuState, probe: UsageProbe
    ) -> Weights:
        """Return the claim on the time before the first look at a GPU.

        A process that was alone on it at an earlier run's last look, and is alone on it now, with
        no sample of another between, was alone for as long as samples are kept. Of what was before
        nobody knows.
        """
        before = self._alone_before.pop(device.name, None)
        process = _one_alone(state, probe)
        if process is None or before != (process.pid, process.start_ticks):
            return Weights({})
        proven_ns = min(span_ns, PROVEN_NS)
        methods = {GpuMethod.EXCLUSIVE.value: proven_ns}
        return Weights({process: proven_ns}, nobody=span_ns - proven_ns, methods=methods)

    def _instances(self, report: Report) -> dict[str, str]:
        """Return the device of each MIG instance, by its UUID."""
        states = {name: account.gpu for name, account in self.ledger.devices.items()}
        states |= {device.name: state for device, state in report.gpus.items()}
        return {
            instance.uuid: name
            for name, state in states.items()
            for instance in (state.instances if state is not None else ())
        }

    def _charge_holders(self, holders: Sequence[GpuHolder], idle_uj: int) -> None:
        """Show a GPU's idle energy to those that hold it, in equal parts; it stays idle."""
        for holder, uj in zip(holders, apportion(idle_uj, [1] * len(holders)), strict=True):
            self.ledger.book.account(holder.job_uid).gpu_idle_uj += uj

    def _count_gpus(self) -> None:
        """Tell each job how many GPUs it holds."""
        held = Count(
            holder.job_uid for account in self.ledger.devices.values() for holder in account.holders
        )
        for job in self.ledger.book.jobs.values() if held or self._held else ():
            job.gpus = held[job.job_uid]
        self._held = bool(held)


class _Claims:
    """The claims on each device in one sample, made once for all devices of a package."""

    def __init__(
        self,
        usage: Usage,
        dram_policy: DramPolicy,
        listed: Iterable[Process],
        find: Callable[[int], Process | None],
    ) -> None:
        self._usage = usage
        self._dram_policy = dram_policy
        self._listed = listed
        self._find = find
        self._made: dict[tuple[bool, int | None], Weights] = {}

    def on(self, device: Device, state: GpuState | None) -> Weights:
        """Return the claims on a device; `state` is what it showed, of a GPU."""
        if device.component is Component.GPU:
            return Weights({}) if state is None else gpu_weights(state, self._find)
        by_memory = device.component is Component.DRAM and self._dram_policy is DramPolicy.MEMORY
        key = (by_memory, device.package)
        if key not in self._made:
            self._made[key] = (
                memory_weights(self._usage, device.package, self._listed)
                if by_memory
                else cpu_weights(self._usage, device.package)
            )
        return self._made[key]


def _key(device: Device) -> tuple[str, Source]:
    """What is learned of a device holds for one source: an estimate's idle power is its own."""
    return device.name, device.source


def _busy_ratio(usage: Usage, package: int | None) -> float | None:
    """Return how busy a package's CPUs were, or all CPUs where it has none of its own."""
    if package is not None and usage.capacity_ns.get(package):
        return usage.busy_ns[package] / usage.capacity_ns[package]
    capacity_ns = sum(usage.capacity_ns.values())
    return sum(usage.busy_ns.values()) / capacity_ns if capacity_ns else None


def _one_alone(state: GpuState, probe: UsageProbe) -> Process | None:
    """Return the process that alone has a context on a GPU, None where it is not so simple."""
    use = state.use
    if use is None or use.strays or state.foreign or state.info.mig or len(use.holders) != 1:
        return None
    (pid,) = use.holders
    process = probe.find(pid)
    return process if process is not None and process.alive else None


def _holders(state: GpuState, claimants: Iterable[str], probe: UsageProbe) -> tuple[GpuHolder, ...]:
    """Return who holds a GPU: by a context on it, or as one of the jobs that it is given to."""
    pids = set(state.use.holders if state.use else ())
    for instance in state.instances:
        pids |= instance.use.holders
    if state.foreign:
        pids.clear()
    residents = {process for pid in pids if (process := probe.find(pid)) is not None}
    by_job: dict[str, list[int]] = {job_uid: [] for job_uid in claimants}
    for process in residents:
        by_job.setdefault(process.job_uid, []).append(process.pid)
    return tuple(GpuHolder(job_uid, tuple(sorted(by_job[job_uid]))) for job_uid in sorted(by_job))


def _implausible(reading: Reading) -> Fault:
    return Fault(
        reading.counter.key,
        IMPLAUSIBLE,
        f"{reading.counter.key} shows {reading.value_uj} µJ, which no possible power explains: "
        "a reset, or a false reading; waiting for the next",
    )
