"""What a job's own environment says of it: its name, account, queue, deadline and budget.

The environment is the user's. It is heard once a job, from the first process that speaks for it,
and only where nothing that root wrote says otherwise. An account is taken from it only in its
scheduler's words, and within the scheduler's own cgroup, which proves that the scheduler owns the
job: what anybody can claim to be may not be charged to anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import is_

from jobwatt.model import Process
from jobwatt.records import (
    NO_ACCOUNT,
    BudgetOrigin,
    JobRecord,
    budget_of,
    even_share,
    is_scheduled,
    kind_of,
    moment,
    numbers,
    shown_name,
)

__all__ = ["VARIABLES", "JobNames", "told_by_environment"]

BUDGET = "JOBWATT_BUDGET"
"""What a user of any scheduler may set."""


@dataclass(frozen=True, slots=True)
class _Words:
    """The variables in which a scheduler tells of a job, the better first.

    Attributes:
        job_id: names the job that the environment is of.
    """

    job_id: tuple[str, ...] = ()
    name: tuple[str, ...] = ()
    account: tuple[str, ...] = ()
    queue: tuple[str, ...] = ()
    deadline: tuple[str, ...] = ()
    cpus: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()


_WORDS = {
    "slurm": _Words(
        ("SLURM_JOB_ID",),
        ("SLURM_JOB_NAME",),
        ("SLURM_JOB_ACCOUNT",),
        ("SLURM_JOB_PARTITION", "SLURM_JOB_QOS"),
        ("SLURM_JOB_END_TIME",),
        ("SLURM_CPUS_ON_NODE",),
        ("SLURM_JOB_GPUS",),
    ),
    "pbs": _Words(("PBS_JOBID",), ("PBS_JOBNAME",), ("PBS_ACCOUNT",), ("PBS_QUEUE",)),
    "lsf": _Words((), ("LSB_JOBNAME",), (), ("LSB_QUEUE",)),
    "flux": _Words((), ("FLUX_JOB_NAME",)),
    "htcondor": _Words(),
    "k8s": _Words(),
    "container": _Words(),
    "systemd": _Words(),
    "run": _Words(name=("JOBWATT_NAME",)),
}
"""Kinds of jobs that a process can speak for; sessions and the system are nobody's to speak for."""

VARIABLES = (
    BUDGET,
    *dict.fromkeys(
        name
        for words in _WORDS.values()
        for names in (
            words.job_id,
            words.name,
            words.account,
            words.queue,
            words.deadline,
            words.cpus,
            words.gpus,
        )
        for name in names
    ),
)
"""What is read of a process's environment."""


def told_by_environment(
    job_uid: str, environment: Mapping[str, str], *, proven: bool
) -> JobRecord | None:
    """Return what an environment says of the job that its process belongs to.

    Args:
        job_uid: the job.
        environment: of the process, of which `VARIABLES` count.
        proven: whether a scheduler's cgroup, or a setting, vouches for the job.

    Returns:
        None where it does not speak of that job.
    """
    words = _WORDS.get(kind_of(job_uid))
    if words is None:
        return None

    def say(names: tuple[str, ...]) -> str:
        return next((environment[name] for name in names if environment.get(name)), "")

    if words.job_id:
        if not _is_about(job_uid, say(words.job_id)):
            return None
    elif BUDGET not in environment and not say(words.name):
        return None
    account = shown_name(say(words.account)) if proven else ""
    return JobRecord(
        name=shown_name(say(words.name)),
        account=account or NO_ACCOUNT,
        queue=shown_name(say(words.queue)),
        deadline=moment(say(words.deadline)),
        cpus=even_share(say(words.cpus)),
        gpus=numbers(say(words.gpus)) if words.gpus else (),
    ).over(budget_of(environment.get(BUDGET, ""), BudgetOrigin.ENVIRONMENT))


def _is_about(job_uid: str, job_id: str) -> bool:
    """Whether an id in an environment is that of the job: `7` is also `slurm:7:r1`'s."""
    inner = job_uid.partition(":")[2]
    if not job_id:
        return False
    return inner.startswith("s") or inner.partition(":r")[0] == job_id


class JobNames:
    """All that is told of jobs: by files and APIs, and by their processes.

    Args:
        trusted: return, at each look, what root wrote, by `job_uid`, the same mapping while that
            has not changed; the first goes before.
        trust_environment: whether a scheduler's job is believed without its cgroup.
    """

    def __init__(
        self,
        *trusted: Callable[[], Mapping[str, JobRecord]],
        trust_environment: bool = False,
    ) -> None:
        self._trusted = trusted
        self._told: list[Mapping[str, JobRecord]] = []
        self._records: Mapping[str, JobRecord] = {}
        self._trust_environment = trust_environment

    def refresh(self) -> Mapping[str, JobRecord]:
        """Return what is known for sure of jobs now, by `job_uid`.

        The same mapping while nothing has changed.
        """
        told = [source() for source in self._trusted]
        if len(told) == len(self._told) and all(map(is_, told, self._told)):
            return self._records
        self._told = told
        found: dict[str, JobRecord] = {}
        for records in told:
            for job_uid, record in records.items():
                before = found.get(job_uid)
                found[job_uid] = record if before is None else before.over(record)
        self._records = found
        return found

    def told_by(self, process: Process, *, by_cgroup: bool) -> JobRecord | None:
        """Return what a process says of its job, None where it does not speak for it.

        Outside of cgroups root does not: it carries the variables of others' jobs, in Prologs.
        """
        trusted = self._trust_environment and is_scheduled(process.job_uid)
        if trusted and not by_cgroup and process.uid == 0:
            return None
        return told_by_environment(
            process.job_uid, process.environment, proven=by_cgroup or trusted
        )
