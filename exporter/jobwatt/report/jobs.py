"""What is known of jobs, folded from answers in any order and in any parts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from jobwatt.report.sample import Sample
from jobwatt.report.timerange import Window

__all__ = ["Fold", "Job", "Names", "Node", "State"]

LATE_SECONDS = 2.0
"""An account is opened at the sample after a job's start, and has all since the sample before."""


class State(StrEnum):
    """How a job stands at the range's end.

    Whether it succeeded is the scheduler's knowledge, which exporters do not have.
    """

    RUNNING = "running"
    ENDED = "ended"
    DEADLINE = "deadline"
    """It ended when its scheduler's time limit had come."""
    UNKNOWN = "unknown"
    """Nobody said that it ended, and no exporter shows it."""


@dataclass(frozen=True, slots=True)
class Names:
    """A job's names; "" is what is not known."""

    kind: str = ""
    job_name: str = ""
    user: str = ""
    account: str = ""
    queue: str = ""
    namespace: str = ""

    @property
    def known(self) -> int:
        """How many of them are there."""
        return sum(map(bool, self.as_tuple()))

    def as_tuple(self) -> tuple[str, ...]:
        """Return all of them, in order."""
        return (self.kind, self.job_name, self.user, self.account, self.queue, self.namespace)


@dataclass(slots=True)
class Node:
    """A job on one node; Unix seconds, None for what is not told."""

    start: float | None = None
    since: float | None = None
    end: float | None = None
    is_live: bool = False

    def seconds(self, window: Window) -> tuple[float, float]:
        """Return how long it was there within the range, and for how long of that it was measured.

        Where nobody knows when it ended both are 0.
        """
        start = self.since if self.start is None else self.start
        end = window.end if self.is_live else self.end
        if start is None or end is None:
            return 0.0, 0.0
        end = min(end, window.end)
        begin = max(start, window.start)
        late = (start if self.since is None else self.since) - start
        measured = begin if late <= LATE_SECONDS else max(begin, start + late)
        return max(0.0, end - begin), max(0.0, end - measured)


@dataclass(slots=True)
class Job:
    """A job and its use within the range; None is not known, which is not 0."""

    cluster: str
    job_uid: str
    names: Names = field(default_factory=Names)
    nodes: dict[str, Node] = field(default_factory=dict)
    deadline: float | None = None
    energy: dict[str, float] = field(default_factory=dict)
    lowest_energy: dict[str, float] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)

    @property
    def energy_joules(self) -> float | None:
        """The energy of all components."""
        return sum(self.energy.values()) if self.energy else None

    @property
    def start(self) -> float | None:
        """When it started on its first node."""
        return min((n.start for n in self.nodes.values() if n.start is not None), default=None)

    @property
    def end(self) -> float | None:
        """When it ended on its last node; None while it runs."""
        if any(node.is_live for node in self.nodes.values()):
            return None
        return max((n.end for n in self.nodes.values() if n.end is not None), default=None)

    def state(self) -> State:
        """Return how it stands at the range's end."""
        if any(node.is_live for node in self.nodes.values()):
            return State.RUNNING
        if (end := self.end) is None:
            return State.UNKNOWN
        return State.DEADLINE if self.deadline is not None and end >= self.deadline else State.ENDED

    def began_before(self, window: Window) -> bool:
        """Return whether some of its life is before the range."""
        return self.start is not None and self.start < window.start


class Fold:
    """All jobs that answers tell of."""

    def __init__(self) -> None:
        """Begin with none."""
        self.jobs: dict[tuple[str, str], Job] = {}

    def take(self, name: str, samples: Iterable[Sample]) -> int:
        """Take the answers to the question `name`; return how many there were."""
        put = _PUT.get(name)
        count = 0
        for sample in samples:
            job = self._job(sample.labels)
            if put is None:
                _add(job.sums, name, sample.value)
            else:
                put(job, sample.labels, sample.value)
            count += 1
        return count

    def _job(self, labels: Mapping[str, str]) -> Job:
        key = labels.get("cluster", ""), labels.get("job_uid", "")
        job = self.jobs.get(key)
        if job is None:
            job = self.jobs[key] = Job(*key)
        return job

    def within(self, window: Window) -> list[Job]:
        """Return the jobs of the range: not those that only lingered in it."""
        return [job for job in self.jobs.values() if not _only_lingered(job, window)]

    def settle_counters(self, window: Window) -> None:
        """Make sums of the counters' highest and lowest values.

        The counter of a job that began within the range began at 0; of one that began before it,
        what it had used by its first sample in the range is taken off.
        """
        for job in self.jobs.values():
            before = job.began_before(window)
            if before:
                for component, lowest in job.lowest_energy.items():
                    job.energy[component] = job.energy.get(component, 0.0) - lowest
            for name in [key for key in job.sums if key.endswith("_max")]:
                lowest = job.sums.pop(name.replace("_max", "_min"), 0.0)
                used = job.sums.pop(name) - (lowest if before else 0.0)
                job.sums[name.removesuffix("_max")] = used


def _only_lingered(job: Job, window: Window) -> bool:
    end = job.end
    return not job.energy_joules and end is not None and end <= window.start


def _energy(job: Job, labels: Mapping[str, str], value: float) -> None:
    _add(job.energy, labels.get("component", ""), value)


def _lowest_energy(job: Job, labels: Mapping[str, str], value: float) -> None:
    _add(job.lowest_energy, labels.get("component", ""), value)


def _cost(job: Job, labels: Mapping[str, str], value: float) -> None:
    _add(job.cost, labels.get("currency", ""), value)


def _add(sums: dict[str, float], name: str, value: float) -> None:
    sums[name] = sums.get(name, 0.0) + value


_NAME_LABELS = ("kind", "job_name", "user", "account", "queue", "k8s_namespace")


def _names(job: Job, labels: Mapping[str, str], value: float) -> None:
    """Take the names of the node that knows most; nodes may know different ones."""
    del value
    told = Names(*(labels.get(label, "") for label in _NAME_LABELS))
    job.names = max(job.names, told, key=lambda names: (names.known, names.as_tuple()))


def _node(job: Job, labels: Mapping[str, str]) -> Node:
    return job.nodes.setdefault(labels.get("instance", ""), Node())


def _start(job: Job, labels: Mapping[str, str], value: float) -> None:
    node = _node(job, labels)
    node.start = value if node.start is None else min(node.start, value)


def _since(job: Job, labels: Mapping[str, str], value: float) -> None:
    node = _node(job, labels)
    node.since = value if node.since is None else min(node.since, value)


def _end(job: Job, labels: Mapping[str, str], value: float) -> None:
    node = _node(job, labels)
    node.end = value if node.end is None else max(node.end, value)


def _live(job: Job, labels: Mapping[str, str], value: float) -> None:
    del value
    _node(job, labels).is_live = True


def _deadline(job: Job, labels: Mapping[str, str], value: float) -> None:
    del labels
    job.deadline = value if job.deadline is None else max(job.deadline, value)


_PUT: Mapping[str, Callable[[Job, Mapping[str, str], float], None]] = {
    "energy": _energy,
    "energy_max": _energy,
    "energy_min": _lowest_energy,
    "cost": _cost,
    "names": _names,
    "start": _start,
    "since": _since,
    "end": _end,
    "live": _live,
    "deadline": _deadline,
}
"""Where answers go; those of other names are sums."""
