"""From jobs to the rows of a report: grouping, order, totals. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jobwatt.report.jobs import Job
from jobwatt.report.timerange import Window

__all__ = ["GROUPS", "ORDERS", "Figures", "Row", "figures", "grouped", "ordered", "total"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What jobs used within the range, in base units; None is not known, which is not 0.

    Attributes:
        jobs: how many.
        energy_joules, components: their own energy; `components` by name.
        full_energy_joules: with the idle energy of what they held.
        estimated_joules: the part of their own that is no measurement.
        gpu_idle_joules: idle energy of the GPUs that they held; not in energy_joules.
        gpu_seconds, cpu_seconds: GPUs held times time; time on CPUs.
        carbon_grams, cost: with the site's PUE; cost by currency.
        seconds, measured_seconds: how long they were there, summed over their nodes, and for how
            long of that they were measured.
        began_before, goes_on: how many of them have more life before and after the range.
    """

    jobs: int = 0
    energy_joules: float | None = None
    components: Mapping[str, float] = field(default_factory=dict)
    full_energy_joules: float | None = None
    estimated_joules: float | None = None
    gpu_idle_joules: float | None = None
    gpu_seconds: float | None = None
    cpu_seconds: float | None = None
    carbon_grams: float | None = None
    cost: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    measured_seconds: float = 0.0
    began_before: int = 0
    goes_on: int = 0

    @property
    def coverage_ratio(self) -> float | None:
        """The share of their life within the range that was measured."""
        return self.measured_seconds / self.seconds if self.seconds > 0 else None

    @property
    def gpu_idle_ratio(self) -> float | None:
        """Held GPUs' idle energy, of that and the jobs' own energy."""
        if self.energy_joules is None or self.gpu_idle_joules is None:
            return None
        whole = self.energy_joules + self.gpu_idle_joules
        return self.gpu_idle_joules / whole if whole > 0 else None

    @property
    def estimated_ratio(self) -> float | None:
        """The share of their energy that is no measurement."""
        if not self.energy_joules or self.estimated_joules is None:
            return None
        return self.estimated_joules / self.energy_joules


def figures(job: Job, window: Window) -> Figures:
    """Return what one job used."""
    lives = [node.seconds(window) for node in job.nodes.values()]
    end = job.end
    return Figures(
        jobs=1,
        energy_joules=job.energy_joules,
        components=job.energy,
        full_energy_joules=job.sums.get("full_energy"),
        estimated_joules=job.sums.get("estimated"),
        gpu_idle_joules=job.sums.get("gpu_idle"),
        gpu_seconds=job.sums.get("gpu_seconds"),
        cpu_seconds=job.sums.get("cpu_seconds"),
        carbon_grams=job.sums.get("carbon"),
        cost=job.cost,
        seconds=sum(life for life, _ in lives),
        measured_seconds=sum(measured for _, measured in lives),
        began_before=int(job.began_before(window)),
        goes_on=int(any(n.is_live for n in job.nodes.values()) or bool(end and end > window.end)),
    )


def total(parts: Sequence[Figures]) -> Figures:
    """Return the sums; what no part knows is not known, what some know is the sum of theirs."""
    return Figures(
        jobs=sum(part.jobs for part in parts),
        energy_joules=_sum(part.energy_joules for part in parts),
        components=_sums(part.components for part in parts),
        full_energy_joules=_sum(part.full_energy_joules for part in parts),
        estimated_joules=_sum(part.estimated_joules for part in parts),
        gpu_idle_joules=_sum(part.gpu_idle_joules for part in parts),
        gpu_seconds=_sum(part.gpu_seconds for part in parts),
        cpu_seconds=_sum(part.cpu_seconds for part in parts),
        carbon_grams=_sum(part.carbon_grams for part in parts),
        cost=_sums(part.cost for part in parts),
        seconds=sum(part.seconds for part in parts),
        measured_seconds=sum(part.measured_seconds for part in parts),
        began_before=sum(part.began_before for part in parts),
        goes_on=sum(part.goes_on for part in parts),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _sums(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            sums[name] = sums.get(name, 0.0) + value
    return dict(sorted(sums.items()))


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what it is about, and its figures.

    Attributes:
        key: the group's name; a job's job_uid.
        job: None where the row is about several.
    """

    key: str
    figures: Figures
    job: Job | None = None


GROUPS: Mapping[str, Callable[[Job], str]] = {
    "job": lambda job: job.job_uid,
    "user": lambda job: job.names.user,
    "account": lambda job: job.names.account,
    "queue": lambda job: job.names.queue,
    "namespace": lambda job: job.names.namespace,
    "kind": lambda job: job.names.kind,
    "state": lambda job: job.state().value,
    "cluster": lambda job: job.cluster,
}
"""What jobs are put together by."""


def grouped(jobs: Iterable[Job], by: str, window: Window) -> list[Row]:
    """Return the rows of jobs; `job_uid`s of two clusters are two jobs."""
    if by == "job":
        return [Row(job.job_uid, figures(job, window), job) for job in jobs]
    groups: dict[str, list[Figures]] = {}
    for job in jobs:
        groups.setdefault(GROUPS[by](job), []).append(figures(job, window))
    return [Row(key, total(parts)) for key, parts in groups.items()]


def _cost(row: Row) -> float:
    # Amounts of several currencies have no order; most sites have one.
    return max(row.figures.cost.values(), default=0.0)


ORDERS: Mapping[str, Callable[[Row], float]] = {
    "energy": lambda row: row.figures.energy_joules or 0.0,
    "carbon": lambda row: row.figures.carbon_grams or 0.0,
    "cost": _cost,
    "gpu-hours": lambda row: row.figures.gpu_seconds or 0.0,
    "gpu-idle": lambda row: row.figures.gpu_idle_joules or 0.0,
    "jobs": lambda row: row.figures.jobs,
    "start": lambda row: (row.job.start if row.job else None) or 0.0,
    "name": lambda _: 0.0,
}
"""The biggest first; equal ones by name."""


def ordered(rows: Iterable[Row], order: str) -> list[Row]:
    """Return rows in order."""
    size = ORDERS[order]
    return sorted(rows, key=lambda row: (-size(row), row.key, row.job.cluster if row.job else ""))
