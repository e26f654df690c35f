"""From questions to a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from jobwatt.errors import RunError
from jobwatt.report.asking import Asker
from jobwatt.report.client import Prometheus, TooMuch
from jobwatt.report.jobs import Fold, Job, Names
from jobwatt.report.questions import (
    BY_COUNTERS,
    EXPORTERS,
    JOBS,
    LAST_EVALUATION,
    RECORDED,
    SITE,
    Question,
    equal,
    is_live,
    unrecorded,
)
from jobwatt.report.rows import Figures, Row, figures, grouped, ordered, total
from jobwatt.report.timerange import Window, moment_text
from jobwatt.units import UJ, duration_text, energy_text

__all__ = ["Report", "Site", "Wanted", "collect"]

RECORDED_METHOD, COUNTER_METHOD = "recorded", "counters"

NO_NAMES = Names()

BY_COUNTERS_NOTE = (
    "energy is not recorded here, so figures are the counters' highest values: exact for jobs "
    "within the range unless a counter began anew; with prometheus/rules/recording there are "
    "carbon, cost and GPU-hours, too"
)

MOST_LAG_MS = 60_000
"""A rule that was evaluated longer ago is not the one of that moment."""

MADE_UP_FOR_SECONDS = 3600.0
"""The rules compare with what they saw in the last hour."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a report is to be about; an empty filter lets all through.

    Attributes:
        by, order: of `GROUPS` and `ORDERS`.
        top: the most rows, None for all.
        devices: whether to tell where all devices' energy went.
    """

    window: Window
    by: str = "job"
    order: str = "energy"
    top: int | None = None
    devices: bool = True
    jobs: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    @property
    def matchers(self) -> tuple[str, ...]:
        """What Prometheus itself can sort out."""
        return equal("cluster", self.clusters) + equal("job_uid", self.jobs)

    @property
    def tells_devices(self) -> bool:
        """Whether it tells of the devices' energy, whose sum is of all jobs of their clusters."""
        return self.devices and not (self.jobs or any(wanted for wanted, _ in self._names()))

    def wants(self, job: Job) -> bool:
        """Return whether a job's names pass the filters."""
        return all(not wanted or name in wanted for wanted, name in self._names(job.names))

    def _names(self, names: Names = NO_NAMES) -> Iterator[tuple[tuple[str, ...], str]]:
        yield self.users, names.user
        yield self.accounts, names.account
        yield self.queues, names.queue
        yield self.namespaces, names.namespace
        yield self.kinds, names.kind


@dataclass(frozen=True, slots=True)
class Site:
    """Where the energy of all devices of the clusters went, in joules.

    `difference` is what is left of measured after jobs, idle and unattributed: what no rule has
    seen, and what a node had used before its first scrape.
    """

    measured: float
    jobs: float
    idle: float
    unattributed: float

    @property
    def difference(self) -> float:
        """Joules; small where all is well."""
        return self.measured - self.jobs - self.idle - self.unattributed


@dataclass(frozen=True, slots=True)
class Report:
    """What is shown.

    Attributes:
        prometheus: its address, without a password.
        method: `recorded` or `counters`: how a job's energy was added up.
        rows: those that are shown; `others` sums up those that are not.
        total: of all rows.
        site: None where the report is not about all jobs, or no device is told of.
        notes: what the reader should know.
    """

    wanted: Wanted
    prometheus: str
    method: str
    rows: Sequence[Row]
    others: Figures
    total: Figures
    site: Site | None
    notes: Sequence[str]

    @property
    def clusters(self) -> set[str]:
        """The clusters of the rows that are about one job."""
        return {row.job.cluster for row in self.rows if row.job is not None}


def collect(
    prometheus: Prometheus, wanted: Wanted, progress: Callable[[float], None] = lambda _: None
) -> Report:
    """Ask all there is to ask, and add up.

    `progress` is told the share of the work that is done.

    Raises:
        RunError: Prometheus does not answer, or knows nothing of JobWatt in this range.
    """
    window = wanted.window
    asking = _Asking(prometheus, wanted, progress)
    asking.fold(JOBS)
    jobs = asking.jobs
    live = prometheus.query(is_live(wanted.matchers), window.end_ms)
    jobs.take("live", live)
    method = RECORDED_METHOD
    recorded = asking.fold(RECORDED)
    if not recorded["energy"] and jobs.jobs:
        method = COUNTER_METHOD
        asking.fold(BY_COUNTERS)
        jobs.settle_counters(window)
        told = [BY_COUNTERS_NOTE]
    else:
        told = _unrecorded(prometheus, window)
    if not jobs.jobs:
        _check_has_jobwatt(asking, prometheus, window)
    found = jobs.within(window)
    chosen = [job for job in found if wanted.wants(job)]
    rows = ordered(grouped(chosen, wanted.by, window), wanted.order)
    shown = rows if wanted.top is None else rows[: wanted.top]
    whole = total([row.figures for row in rows])
    site = None
    if wanted.tells_devices:
        all_jobs = total([figures(job, window) for job in found])
        site = _site(prometheus, asking, window, all_jobs)
    return Report(
        wanted,
        prometheus.url,
        method,
        shown,
        total([row.figures for row in rows[len(shown) :]]),
        whole,
        site,
        [*_notes(chosen, window), *told, *prometheus.warnings],
    )


class _Asking:
    """Asks groups of questions, folds what is about jobs, and tells how far it is."""

    def __init__(
        self, prometheus: Prometheus, wanted: Wanted, progress: Callable[[float], None]
    ) -> None:
        self.jobs = Fold()
        self._prometheus = prometheus
        self._cluster_matchers = equal("cluster", wanted.clusters)
        self._matchers = wanted.matchers
        self._progress = progress
        self._questions = len(JOBS) + len(RECORDED) + len(SITE) * wanted.tells_devices
        self._done = 0
        self._asker = Asker(prometheus, wanted.window, self._tell)

    def fold(self, questions: Iterable[Question]) -> dict[str, int]:
        """Ask, and return how many answers each question had."""
        counts = {}
        for question in questions:
            answers = self._asker.ask(question, self._matchers)
            counts[question.name] = self.jobs.take(question.name, answers)
            self._done += 1
        return counts

    def sums(self, questions: Iterable[Question], window: Window) -> list[float | None]:
        """Ask about whole clusters, and return the sums; None where there is no answer."""
        asker = Asker(self._prometheus, window, self._tell)
        sums: list[float | None] = []
        for question in questions:
            answers = list(asker.ask(question, self._cluster_matchers))
            sums.append(sum(answer.value for answer in answers) if answers else None)
            self._done += 1
        return sums

    def _tell(self, share: float) -> None:
        self._progress(min(1.0, (self._done + share) / self._questions))


def _site(prometheus: Prometheus, asking: _Asking, window: Window, jobs: Figures) -> Site | None:
    # The jobs' energy is that between two evaluations of the rules, so the devices' is, too.
    evaluated = Window(
        _evaluated(prometheus, window.start_ms), _evaluated(prometheus, window.end_ms)
    )
    measured, idle, unattributed = asking.sums(SITE, evaluated)
    if measured is None:
        return None
    return Site(measured, jobs.energy_joules or 0.0, idle or 0.0, unattributed or 0.0)


def _evaluated(prometheus: Prometheus, at_ms: int) -> int:
    """Return when rules were last evaluated; `at_ms` itself where that is not known."""
    found = prometheus.query(LAST_EVALUATION, at_ms)
    last_ms = round(found[0].value * 1000) if found else 0
    return last_ms if 0 <= at_ms - last_ms < MOST_LAG_MS else at_ms


def _check_has_jobwatt(asking: _Asking, prometheus: Prometheus, window: Window) -> None:
    if asking.sums([EXPORTERS], window) == [None]:
        raise RunError(
            f"Prometheus at {prometheus.url} has no JobWatt data between "
            f"{moment_text(window.start)} and {moment_text(window.end)}: does it scrape the "
            "exporters (port 9743), and does it keep data for that long?"
        )


def _unrecorded(prometheus: Prometheus, window: Window) -> list[str]:
    """Tell for how long rules were away; they make up for less than an hour by themselves."""
    expr, step_ms = unrecorded(window)
    try:
        found = prometheus.query(expr, window.end_ms)
    except TooMuch:
        return ["whether energy was recorded all the time is not known: too much to ask at once"]
    seconds = found[0].value * step_ms / 1000 if found else 0.0
    if seconds <= MADE_UP_FOR_SECONDS:
        return []
    span = duration_text(seconds)
    return [
        f"jobs ran for about {span} while their energy was not recorded: some of it may be missing"
    ]


def _notes(jobs: Sequence[Job], window: Window) -> Iterable[str]:
    if not jobs:
        yield "no job matches in this range"
    unmeasured = sum(job.energy_joules is None for job in jobs)
    if unmeasured:
        yield f"the energy of {_jobs(unmeasured)} is not known, and in no sum"
    for what, known in (("carbon", _has_carbon), ("cost", _has_cost)):
        without = [job.energy_joules or 0.0 for job in jobs if job.energy_joules and not known(job)]
        # Where no job has it the site has no such data, and the report no such column.
        if without and any(map(known, jobs)):
            yield (
                f"the {what} of {_jobs(len(without))} ({energy_text(sum(without) * UJ)}) is not "
                "known, and in no sum"
            )
    before = sum(job.began_before(window) for job in jobs)
    if before:
        yield f"{_jobs(before)} began before the range: only energy within it is told"


def _has_carbon(job: Job) -> bool:
    return "carbon" in job.sums


def _has_cost(job: Job) -> bool:
    return bool(job.cost)


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"
