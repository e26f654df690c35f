"""From pods to jobs: which job each pod on this node belongs to, decided once and for good.

Cgroups name a pod by its uid; what its job is called, the API tells. It normally knows a pod before
its containers start. Else the decision waits a few seconds, and what the pod uses meanwhile is
nobody's; then the pod's uid is the job. Either way it stays for the pod's life, also over restarts
of the exporter: counters do not change their names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Protocol

from jobwatt.kubernetes.pod import Pod, job_record
from jobwatt.model import UNDECIDED, Row, Rows
from jobwatt.records import JobRecord
from jobwatt.units import NS

__all__ = ["PATIENCE_NS", "DeviceSource", "PodJobs", "PodSource"]

PATIENCE_NS = 10 * NS
"""How long a decision waits for the metadata."""

MOST_DECIDED = 1024
"""Pods whose job is remembered, those that live and those asked for last: kubelet runs up to a few
hundred at a time."""

_PREFIX, _ROW, _WAITING = "k8s:", "pod ", "waiting pod "


class PodSource(Protocol):
    """Who tells of the node's pods, in a thread of its own."""

    @property
    def pods(self) -> Mapping[str, Pod] | None:
        """The pods by the uid of their cgroup, None before the first answer."""
        ...

    @property
    def hopeless(self) -> bool:
        """Whether it makes no sense to wait for an answer."""
        ...


class DeviceSource(Protocol):
    """Who tells which devices pods were given, in a thread of its own."""

    @property
    def devices(self) -> Mapping[tuple[str, str], Iterable[str]]:
        """Ids of devices by namespace and name of the pod."""
        ...

    @property
    def answers(self) -> int:
        """How many answers there were so far, also such as told nothing new."""
        ...


class PodJobs:
    """The jobs of this node's pods. For one thread.

    Args:
        source: who tells of pods, None where nobody does: then nothing is waited for.
        devices: who tells of their devices, None where nobody does.
        clock: monotonic time.

    Attributes:
        live: the jobs that have live processes, as whoever looks at these keeps it.
    """

    def __init__(
        self,
        source: PodSource | None = None,
        devices: DeviceSource | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._source = source
        self._devices = devices
        self._clock = clock
        self._now_ns = clock()
        self._pods: Mapping[str, Pod] = {}
        self._given: Mapping[tuple[str, str], Iterable[str]] = {}
        self._records: Mapping[str, JobRecord] = {}
        self._answers = 0
        self._namesakes: dict[str, int] = {}  # by how many answers there were before them
        self._decided: dict[str, str] = {}  # those asked for last at the end
        self._asked_ns: dict[str, int] = {}
        self._rows: dict[str, Row] | None = None
        self.live: Container[str] = ()

    def refresh(self) -> Mapping[str, JobRecord]:
        """Take the latest word; return what is told of jobs, the same mapping while that holds.

        What is decided until the next call is decided by this word.
        """
        self._now_ns = self._clock()
        pods = self._source.pods if self._source is not None else None
        is_news = False
        if self._devices is not None:
            self._answers = self._devices.answers  # first: what it counts is there then
            given = self._devices.devices
            is_news = given is not self._given
            self._given = given
        if pods is not None and pods is not self._pods:
            self._note_namesakes(pods.values())
            self._pods = pods
            is_news = True
        if self._namesakes:
            is_news |= self._let_go_of_namesakes()
        if is_news:
            self._records = self._tell()
        if self._asked_ns:
            self._forget_unasked()
        return self._records

    def job_of(self, claim: str) -> str:
        """Return the job of a pod, `k8s:<its uid>`; what is no pod's stays as it is.

        `UNDECIDED` while that may still be told in a moment.
        """
        if not claim.startswith(_PREFIX):
            return claim
        uid = claim[len(_PREFIX) :]
        job_uid = self._decided.pop(uid, None)
        if job_uid is None:
            job_uid = self._decide(uid)
            if job_uid == UNDECIDED:
                return UNDECIDED
            self._asked_ns.pop(uid, None)
            self._rows = None
            if len(self._decided) >= MOST_DECIDED:
                self._forget_one()
        self._decided[uid] = job_uid
        return job_uid

    def dump(self) -> Mapping[str, Row]:
        """Return what was decided, and who waits, as rows."""
        if self._rows is None:
            self._rows = {f"{_ROW}{uid}": (job_uid,) for uid, job_uid in self._decided.items()}
            for uid, since_ns in self._asked_ns.items():
                self._rows[f"{_WAITING}{uid}"] = (since_ns,)
        return self._rows

    def restore(self, rows: Rows, *, same_boot: bool = True) -> None:
        """Take back what an earlier run decided, also on an earlier boot: pods outlive both.

        Who waits goes on waiting; on another boot, whose clock began anew, from now on.

        Raises:
            ValueError, TypeError: the rows are not those of `dump`.
        """
        self._decided, self._asked_ns, self._rows = {}, {}, None
        now_ns = self._clock()
        for key, row in rows.items():
            if key.startswith(_ROW):
                (job_uid,) = row
                self._decided[key[len(_ROW) :]] = str(job_uid)
            elif key.startswith(_WAITING) and same_boot:
                (since_ns,) = row
                since_ns = min(now_ns, max(now_ns - PATIENCE_NS, int(since_ns)))
                self._asked_ns[key[len(_WAITING) :]] = since_ns

    def _decide(self, uid: str) -> str:
        pod = self._pods.get(uid)
        if pod is not None:
            return pod.job_uid
        if self._source is None or self._source.hopeless:
            return f"{_PREFIX}{uid}"
        since_ns = self._asked_ns.get(uid)
        if since_ns is None:
            since_ns = self._asked_ns[uid] = self._now_ns
            self._rows = None
        return UNDECIDED if self._now_ns - since_ns < PATIENCE_NS else f"{_PREFIX}{uid}"

    def _note_namesakes(self, pods: Iterable[Pod]) -> None:
        """Note pods with the name of one that devices were told of before.

        Until they are told of again, the devices may be those of its predecessor.
        """
        known = {pod.own_uid for pod in self._pods.values()}
        for pod in pods if known else ():
            if pod.own_uid not in known and (pod.namespace, pod.name) in self._given:
                self._namesakes[pod.own_uid] = self._answers

    def _let_go_of_namesakes(self) -> bool:
        """Drop those that have been told of again; whether there were any."""
        told = [uid for uid, before in self._namesakes.items() if self._answers > before]
        for uid in told:
            del self._namesakes[uid]
        return bool(told)

    def _forget_unasked(self) -> None:
        """Drop pods that came and went undecided."""
        due_ns = self._now_ns - 2 * PATIENCE_NS
        for uid in [uid for uid, since_ns in self._asked_ns.items() if since_ns < due_ns]:
            del self._asked_ns[uid]
            self._rows = None

    def _forget_one(self) -> None:
        """Forget a pod that has ended, the one asked for longest ago, where there is one."""
        for uid, job_uid in self._decided.items():
            if not self._may_live(uid, job_uid):
                del self._decided[uid]
                return

    def _may_live(self, uid: str, job_uid: str) -> bool:
        pod = self._pods.get(uid)
        if pod is not None:
            return not pod.over
        # A named job may have live processes in other pods: where pods are told, this is none.
        is_told = self._source is not None and self._source.pods is not None
        return job_uid in self.live and not (is_told and job_uid != f"{_PREFIX}{uid}")

    def _tell(self) -> dict[str, JobRecord]:
        by_job: dict[str, list[Pod]] = {}
        for pod in self._pods.values():
            job_uid = self._decided.get(pod.uid, pod.job_uid)
            by_job.setdefault(job_uid, []).append(pod)
        return {
            job_uid: job_record(
                pods,
                (
                    device
                    for pod in pods
                    if not pod.over and pod.own_uid not in self._namesakes
                    for device in self._given.get((pod.namespace, pod.name), ())
                ),
            )
            for job_uid, pods in by_job.items()
        }
