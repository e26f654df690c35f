"""The accounts of jobs: what each has used on this node, from its first to its last process.

Part of the ledger: it belongs to the sampler's thread and does no I/O. All amounts are integer
microjoules.

The names of a job are labels: they are settled once, when they are known, and never change. Until
then the job has no info, and its energy is in no account yet.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from jobwatt.budgets import BudgetRule, holding
from jobwatt.model import UNDECIDED, JobPresence, Row, Rows, Usage
from jobwatt.records import (
    NO_ACCOUNT,
    BadBudget,
    Budget,
    BudgetOrigin,
    JobRecord,
    is_scheduled,
    kind_of,
)
from jobwatt.snapshot import JobView
from jobwatt.units import NS, smoothing_step

__all__ = ["OTHER_ACCOUNT", "JobAccount", "JobBook", "Owners"]

PATIENCE_NS = 6 * NS
"""How long a job's own processes may take to tell its name: after fork come setuid and exec."""

log = logging.getLogger(__name__)

LINES_SECONDS, MOST_LINES = 60.0, 10
"""Lines about budgets that are none, and in what time: who has thousands of jobs fills no log."""

OTHER_ACCOUNT = "other"
"""Of jobs whose account came when there were too many."""

MOST_ACCOUNTS = 1000

FORESEEN_SECONDS = 60.0
"""An end that lies further ahead is no end."""


class Owners(Protocol):
    """Who bounds the jobs that only their users vouch for; told of ends, asked for room."""

    def end(self, job_uid: str) -> None:
        """Note that a job has ended and lingers."""
        ...

    def forget(self, job_uid: str) -> None:
        """Note that a job has been retired."""
        ...

    def take_displaced(self) -> Sequence[str]:
        """Return the ended jobs that must make room now."""
        ...

    @property
    def refusals(self) -> Mapping[str, int]:
        """How many jobs did not get room, by reason."""
        ...

    def dump(self) -> Row:
        """Return whose each job is, for the next run."""
        ...

    def restore(self, row: Row, known: Collection[str]) -> None:
        """Take back what `dump` returned, of the jobs that are known; all count as live.

        Raises:
            ValueError, TypeError: it is no such row.
        """
        ...


@dataclass(slots=True, eq=False)
class JobAccount:
    """One job on this node.

    Attributes:
        energy_uj: by device, in the order of the ledger's accounts; it may be shorter.
        gpu_idle_uj: its part of the idle energy of the GPUs that it holds: a view, the energy
            stays idle.
        gpus: how many it holds now.
        started: Unix time of its first process, or as its scheduler has it.
        measured_since: Unix time since which its energy is in this account: of a job that began
            after the sample before, its beginning.
        ended: Unix time since which it has no process, None while it has; or as its scheduler has
            it.
        record: what is known of it.
        settled: whether its names are final.
        heard: whether a process of it has spoken for it.
        account: the one that its energy is counted in, None until it is settled.
        budget: the one that holds.
        limit: how many CPUs its cgroups leave it now, None where that is all of the machine.
        asked_ns: monotonic time since which its own processes might have told its name.
        names: what names it over a restart, None where it has changed.
    """

    job_uid: str
    number: int
    user: str
    started: float
    measured_since: float
    energy_uj: list[int] = field(default_factory=list)
    cpu_ns: int = 0
    gpu_idle_uj: int = 0
    gpus: int = 0
    ended: float | None = None
    ended_ns: int = 0
    fresh_uj: int = 0
    power_uw: float = 0.0
    record: JobRecord = field(default_factory=JobRecord)
    settled: bool = False
    heard: bool = False
    account: str | None = None
    budget: Budget | None = None
    limit: float | None = None
    asked_ns: int | None = None
    names: Row | None = None

    def add(self, index: int, uj: int) -> None:
        """Add energy of a device."""
        try:
            self.energy_uj[index] += uj
        except IndexError:  # a device that came later
            self.energy_uj.extend([0] * (index - len(self.energy_uj)) + [uj])
        self.fresh_uj += uj

    @property
    def cpus(self) -> float | None:
        """How many CPUs it holds, None where none are reserved, or it has ended."""
        if self.ended is not None:
            return None
        return self.record.cpus if self.limit is None else self.limit

    def view(self) -> JobView:
        """Return the account as it is now."""
        return JobView(
            self.job_uid,
            self.user,
            tuple(self.energy_uj),
            self.cpu_ns,
            self.gpu_idle_uj,
            self.gpus,
            round(self.power_uw),
            self.started,
            self.measured_since,
            self.ended,
            self.record if self.settled else None,
            self.account,
            self.budget,
            self.cpus,
        )


@dataclass
class JobBook:
    """All jobs of the node, live ones and those that linger after their end.

    Attributes:
        linger_ns: how long.
        rules: the operator's budgets.
        owners: who bounds jobs, None where nobody does.
        jobs: by `job_uid`.
        accounts: energy of the accounts' jobs that have been dropped, by device.
        budget_errors: budgets that were none, by where they stood.
        accounts_dropped: jobs whose account did not fit.
    """

    linger_ns: int = 600 * NS
    rules: Sequence[BudgetRule] = ()
    owners: Owners | None = None
    jobs: dict[str, JobAccount] = field(default_factory=dict)
    accounts: dict[str, list[int]] = field(default_factory=dict)
    budget_errors: dict[str, int] = field(default_factory=dict)
    accounts_dropped: int = 0
    _opened: int = 0
    _wall: float = 0.0
    _wall_before: float = 0.0
    _records: Mapping[str, JobRecord] = field(default_factory=dict)
    _unsettled: dict[str, JobAccount] = field(default_factory=dict)
    _displaced: list[JobAccount] = field(default_factory=list)
    _lines: int = 0
    _lines_since: float = 0.0
    _overdue: list[JobAccount] = field(default_factory=list)
    _account_views: tuple[tuple[str, tuple[int, ...]], ...] | None = None

    def __post_init__(self) -> None:
        for origin in BudgetOrigin:  # a series that is born at 1 loses its first in increase()
            if origin is not BudgetOrigin.OPERATOR:
                self.budget_errors[origin.value] = 0

    def begin(self, wall: float, usage: Usage) -> None:
        """Open the jobs that are there now, and add the CPU time of all.

        Args:
            wall: Unix time.
            usage: who was busy since the interval before.
        """
        self._wall_before, self._wall = self._wall, wall
        if usage.records is not self._records:
            self._records = usage.records
            self._follow_records()
        self._displace()
        self._retire_overdue(usage.jobs)
        for job_uid, presence in usage.jobs.items():
            job = self.jobs.get(job_uid) or self._open(job_uid, presence)
            job.limit = presence.cpus
            if presence.record is not None and not job.heard:
                self._hear(job, presence.record)
        for process, time_ns in usage.cpu_ns.items():
            self.account(process.job_uid).cpu_ns += time_ns
        for job_uid, time_ns in usage.exited_ns.items():
            self.account(job_uid).cpu_ns += time_ns
        for process in usage.ended:  # perhaps all that there was of a job
            if process.job_uid != UNDECIDED:
                self.account(process.job_uid)

    def account(self, job_uid: str) -> JobAccount:
        """Return a job's account, opened where it is new: nobody has seen it live."""
        job = self.jobs.get(job_uid)
        return job if job is not None else self._open(job_uid, None)

    def close(
        self, now_ns: int, span_ns: int, present: Mapping[str, JobPresence]
    ) -> Iterable[JobAccount]:
        """End what has no process any more; return, and drop, what has lingered long enough."""
        step = smoothing_step(span_ns)
        gone, self._displaced = self._displaced, []
        kept = len(gone)
        for job in self.jobs.values():
            job.power_uw += (job.fresh_uj * NS / max(1, span_ns) - job.power_uw) * step
            job.fresh_uj = 0
            if job.job_uid in present:
                job.ended = None
                continue
            if job.ended is None:
                job.ended, job.ended_ns, job.gpus, job.power_uw = self._wall, now_ns, 0, 0.0
                if self.owners is not None:
                    self.owners.end(job.job_uid)
            elif job.ended_ns <= now_ns - self.linger_ns:
                gone.append(job)
            self._follow_end(job)
        for job in list(self._unsettled.values()):
            self._try_to_settle(job, now_ns, present.get(job.job_uid))
        for job in gone[kept:]:
            self._drop(job)
            if self.owners is not None:
                self.owners.forget(job.job_uid)
        return gone

    def account_views(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Return the energy of each account's dropped jobs, by device."""
        if self._account_views is None:
            self._account_views = tuple((name, tuple(uj)) for name, uj in self.accounts.items())
        return self._account_views

    @property
    def dropped(self) -> Mapping[str, int]:
        """What did not fit, by reason."""
        refusals = self.owners.refusals if self.owners is not None else {}
        return {**refusals, "account_cap": self.accounts_dropped}

    # --- life -----------------------------------------------------------------------------------

    def _open(self, job_uid: str, presence: JobPresence | None) -> JobAccount:
        self._opened += 1
        user = presence.user if presence else ""
        before = self._wall_before or self._wall  # a first sample measures nothing that was before
        started = presence.started if presence else before
        measured_since = started if before <= started <= self._wall else self._wall
        job = JobAccount(job_uid, self._opened, user, started, measured_since)
        self.jobs[job_uid] = self._unsettled[job_uid] = job
        return job

    def _displace(self) -> None:
        """Retire the ended jobs that had to make room, before another takes the id of one."""
        for job_uid in self.owners.take_displaced() if self.owners is not None else ():
            job = self.jobs.get(job_uid)
            if job is not None and job.ended is not None:
                self._drop(job)
                self._displaced.append(job)

    def _retire_overdue(self, present: Mapping[str, JobPresence]) -> None:
        """Retire what has lingered long enough while no exporter ran, before it is opened anew.

        One whose process began while it would have lingered has returned in time.
        """
        overdue, self._overdue = self._overdue, []
        for job in overdue:
            presence = present.get(job.job_uid)
            if presence is not None and job.ended is not None and presence.user == job.user:
                away_ns = round((presence.started - job.ended) * NS)
                if away_ns < self.linger_ns:
                    continue
            self._drop(job)
            self._displaced.append(job)

    def _drop(self, job: JobAccount) -> None:
        if not job.settled:
            self._settle(job, None)
        del self.jobs[job.job_uid]
        total = self.accounts[job.account or NO_ACCOUNT]
        total.extend([0] * (len(job.energy_uj) - len(total)))
        for index, uj in enumerate(job.energy_uj):
            total[index] += uj
        self._account_views = None

    def _follow_end(self, job: JobAccount) -> None:
        """Take a scheduler's word for the end of a job that has no process any more.

        An end from before the account was opened is of an earlier life; an Epilog's clock has whole
        seconds. Nothing ends before it is measured.
        """
        record = self._records.get(job.job_uid)
        if record is None or record.ended is None or record.ended == job.ended:
            return
        earliest = max(job.started, job.measured_since - 1.0)
        if earliest <= record.ended <= self._wall + FORESEEN_SECONDS:
            job.ended = max(record.ended, job.measured_since)

    # --- names ----------------------------------------------------------------------------------

    def _hear(self, job: JobAccount, record: JobRecord) -> None:
        """Take in what a process says of its job; the first word holds."""
        job.heard = True
        job.names = None
        self._complain(job, record.bad_budgets)
        if not job.settled:
            job.record = job.record.over(record)
            return
        # Late: its names are labels already.
        more = replace(
            record, name="", user="", account=NO_ACCOUNT, queue="", k8s_namespace="", started=None
        )
        job.record = job.record.over(more)
        self._rule(job)

    def _follow_records(self) -> None:
        """Take in what is no label and became known, or changed, after names were settled."""
        for job_uid, known in self._records.items():
            job = self.jobs.get(job_uid)
            if job is None or not job.settled or job.ended is not None:
                continue
            record = replace(
                job.record,
                deadline=job.record.deadline if known.deadline is None else known.deadline,
                budget=job.record.budget or known.budget,
                cpus=job.record.cpus if known.cpus is None else known.cpus,
            )
            if record != job.record:
                job.record, job.names = record, None
                self._rule(job)

    def _try_to_settle(self, job: JobAccount, now_ns: int, presence: JobPresence | None) -> None:
        """Settle a job whose names are known, or that nobody will name any more."""
        known = self._records.get(job.job_uid)
        scheduled = is_scheduled(job.job_uid)
        named = job.heard or (known is not None and bool(known.name))
        has_user = presence is None or bool(presence.user)  # else there is a pod's sandbox alone
        if has_user and (named or (presence is not None and not scheduled)):
            self._settle(job, presence)
            return
        if presence is not None and presence.uid == 0:
            job.asked_ns = None  # none but its scheduler's own daemons are there
        elif job.asked_ns is None:
            job.asked_ns = now_ns
        if job.asked_ns is not None and now_ns - job.asked_ns >= PATIENCE_NS:
            self._settle(job, presence)

    def _settle(self, job: JobAccount, presence: JobPresence | None) -> None:
        """Make a job's names final."""
        known = self._records.get(job.job_uid)
        if known is not None:
            self._complain(job, known.bad_budgets)
            job.record = replace(known, ended=None).over(job.record)
        if presence is not None:
            job.user = presence.user
        job.user = job.record.user or job.user
        if job.record.started is not None:
            job.started = job.record.started
        del self._unsettled[job.job_uid]
        job.settled = True
        job.names = None
        self._enter(job)
        self._rule(job)

    def _enter(self, job: JobAccount) -> None:
        """Count a job's energy in its account from now on."""
        account = job.record.account
        if account not in self.accounts:
            if len(self.accounts) >= MOST_ACCOUNTS and account != NO_ACCOUNT:
                self.accounts_dropped += 1
                account = OTHER_ACCOUNT
            self.accounts.setdefault(account, [])
            self._account_views = None
        job.account = account

    def _complain(self, job: JobAccount, bad_budgets: Iterable[BadBudget]) -> None:
        """Count what is no budget of a job, and say so while that is not said too often."""
        for bad in bad_budgets:
            self.budget_errors[bad.origin.value] += 1
            if not 0 <= self._wall - self._lines_since < LINES_SECONDS:
                self._lines, self._lines_since = 0, self._wall
            self._lines += 1
            if self._lines <= MOST_LINES:
                log.warning("%s: no budget by its %s: %s", job.job_uid, bad.origin, bad.reason)
            elif self._lines == MOST_LINES + 1:
                log.warning("more budgets are none: jobwatt_budget_errors_total counts them")

    def _rule(self, job: JobAccount) -> None:
        """Find the budget that holds."""
        names = {
            "kind": kind_of(job.job_uid),
            "user": job.user,
            "account": job.record.account,
            "queue": job.record.queue,
            "k8s_namespace": job.record.k8s_namespace,
        }
        job.budget = holding(job.record.budget, self.rules, names)

    # --- state ----------------------------------------------------------------------------------

    def dump(self) -> dict[str, Row]:
        """Return the jobs as rows; names have rows of their own, which are written once."""
        rows: dict[str, Row] = {f"job {job.number}": _names(job) for job in self.jobs.values()}
        rows["jobs"] = tuple(
            (job.number, job.ended, job.cpu_ns, job.gpu_idle_uj, *job.energy_uj)
            for job in self.jobs.values()
        )
        rows["accounts"] = self.account_views()
        if self.owners is not None:
            rows["owners"] = self.owners.dump()
        return rows

    def restore(self, rows: Rows, now_ns: int, wall: float) -> None:
        """Take back the jobs of an earlier run; those that are gone by now end at its first sample.

        Raises:
            ValueError, TypeError, LookupError: the rows are not those of `dump`.
        """
        for account, uj in rows.get("accounts", ()):
            self.accounts[str(account)] = [int(amount) for amount in uj]
        self._account_views = None
        for number, ended, cpu_ns, gpu_idle_uj, *energy_uj in rows.get("jobs", ()):
            job_uid, user, started, since, *names = rows[f"job {number}"]
            self._opened = max(self._opened, int(number))
            job = JobAccount(str(job_uid), int(number), str(user), float(started), float(since))
            job.energy_uj = [int(uj) for uj in energy_uj]
            job.cpu_ns, job.gpu_idle_uj = int(cpu_ns), int(gpu_idle_uj)
            if ended is not None:
                job.ended = float(ended)
                job.ended_ns = now_ns - round(max(0.0, wall - job.ended) * NS)
            self.jobs[job.job_uid] = job
            self._restore_names(job, names)
        due_ns = now_ns - self.linger_ns
        ended = [job for job in self.jobs.values() if job.ended is not None]
        self._overdue = [job for job in ended if job.ended_ns <= due_ns]
        if self.owners is not None:
            self._restore_owners(self.owners, rows.get("owners", ()))

    def _restore_owners(self, owners: Owners, row: Row) -> None:
        overdue = {job.job_uid for job in self._overdue}  # their ids are free again
        owners.restore(row, {uid: job for uid, job in self.jobs.items() if uid not in overdue})
        ended = [job for job in self.jobs.values() if job.ended is not None]
        for job in sorted(ended, key=lambda job: job.ended_ns):
            owners.end(job.job_uid)

    def _restore_names(self, job: JobAccount, names: Sequence[object]) -> None:
        if not names:  # written before records were kept: it has been shown without names
            job.settled = True
            job.account = NO_ACCOUNT
        else:
            settled, heard, account, record = names
            job.settled, job.heard = bool(settled), bool(heard)
            job.account = None if account is None else str(account)
            job.record = JobRecord.from_row(record)
        if not job.settled:
            self._unsettled[job.job_uid] = job
            return
        self.accounts.setdefault(job.account or NO_ACCOUNT, [])
        self._rule(job)


def _names(job: JobAccount) -> Row:
    if job.names is None:
        job.names = (
            job.job_uid,
            job.user,
            job.started,
            job.measured_since,
            job.settled,
            job.heard,
            job.account,
            job.record.row(),
        )
    return job.names
