"""Whose a job is that nobody but its user vouches for.

The environment is the user's: anybody may write any job's name into it. So a job that is known by
the environment alone belongs to the uid that something root's names, else to the first uid that
used its id, and each uid has a bounded number of the latter, live or lingering.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from jobwatt.model import Row
from jobwatt.workloads.contract import Facts, Resolver

__all__ = ["JobOwners", "OwnedResolver"]

OVER_CAP, NOT_THEIRS = "job_cap", "job_owner"

_MOST_REMEMBERED = 1000
"""Refused claims that are not counted again, while there are not more."""


class JobOwners:
    """The uid of each job that is known by the environment alone.

    Args:
        most: jobs a uid may have.
        user_name: returns the name of a user or its number as text.
        told: returns the uid whose job it is by what root wrote, None where nothing tells.
    """

    def __init__(
        self,
        most: int,
        user_name: Callable[[int], str],
        told: Callable[[str], int | None] = lambda _: None,
    ) -> None:
        self._most = most
        self._user_name = user_name
        self._told = told
        self._uid_of: dict[str, int] = {}
        self._live: dict[int, set[str]] = {}
        self._ended: dict[int, dict[str, None]] = {}  # the oldest first
        self._vouched: dict[str, int] = {}
        self._displaced: list[str] = []
        self._refusals = {OVER_CAP: 0, NOT_THEIRS: 0}
        self._refused: dict[tuple[str, str, int], None] = {}
        self._row: Row | None = None

    # --- what resolvers ask ---------------------------------------------------------------------

    def admit(self, job_uid: str, uid: int, *, root_gives_way: bool = False) -> str | None:
        """Return what a process of this uid that names this job is accounted as.

        The job where it is the user's (with `root_gives_way` also where only root named it so far:
        prologs and daemons carry the variables of jobs), `session:<user>` where he has too many,
        None where it is another's. What root wrote of its user goes before who was first.
        """
        if uid < 0:
            return None
        told = self._told(job_uid)
        if told is not None and self._vouched.get(job_uid) != told:
            self._vouch(job_uid, told)
        owner = self.owner(job_uid)
        if owner == 0 and uid != 0 and root_gives_way and job_uid not in self._vouched:
            self._drop(job_uid)
            owner = None
        if owner is None:
            if not self._make_room(uid):
                self._refuse(OVER_CAP, job_uid, uid)
                return f"session:{self._user_name(uid)}"
            self._uid_of[job_uid] = owner = uid
            self._row = None
        if owner != uid:
            self._refuse(NOT_THEIRS, job_uid, uid)
            return None
        if job_uid not in self._vouched:
            self._live.setdefault(uid, set()).add(job_uid)
            self._ended.get(uid, {}).pop(job_uid, None)
        return job_uid

    def admit_made(self, job_uid: str, maker: int) -> str | None:
        """Return what a cgroup that names a job is accounted as, by its maker (-1: unknown).

        What root made is the job, and nobody else's from then on; a user's is as `admit` says.
        """
        if maker > 0:
            return self.admit(job_uid, maker)
        if maker == 0 and self._vouched.get(job_uid) != 0:
            self._vouch(job_uid, 0)
        return job_uid

    def vouch(self, job_uid: str, uid: int) -> None:
        """Note that a scheduler's cgroup holds a process of this uid in this job.

        The first that is not root's is the user, whoever claimed the job before; a vouched job
        counts for nobody's cap.
        """
        if uid > 0 and job_uid not in self._vouched:
            self._vouch(job_uid, uid)

    # --- what the accounting tells and asks -----------------------------------------------------

    def end(self, job_uid: str) -> None:
        """Note that a job has ended and lingers; `admit` brings it back."""
        uid = self._uid_of.get(job_uid)
        if uid is not None:
            self._live.get(uid, set()).discard(job_uid)
            self._ended.setdefault(uid, {})[job_uid] = None

    def forget(self, job_uid: str) -> None:
        """Drop a job that has been retired: its id is free again."""
        self._drop(job_uid)
        if self._vouched.pop(job_uid, None) is not None:
            self._row = None

    def take_displaced(self) -> list[str]:
        """Return the ended jobs that had to make room since the last call: retire them."""
        displaced, self._displaced = self._displaced, []
        return displaced

    def owner(self, job_uid: str) -> int | None:
        """Return the uid whose job it is, None for one that is not known by environment."""
        return self._vouched.get(job_uid, self._uid_of.get(job_uid))

    @property
    def refusals(self) -> Mapping[str, int]:
        """How many claims were refused so far, by reason: `job_cap` and `job_owner`.

        One that is repeated counts once, within a bounded memory.
        """
        return dict(self._refusals)

    # --- state ----------------------------------------------------------------------------------

    def dump(self) -> Row:
        """Return whose each job is, for the next run: those of environments, those vouched for."""
        if self._row is None:
            self._row = tuple(self._uid_of.items()), tuple(self._vouched.items())
        return self._row

    def restore(self, row: Row, known: Collection[str]) -> None:
        """Take back what `dump` returned, of the jobs that are `known`, and nothing else.

        All are live until `end` says otherwise.

        Raises:
            ValueError, TypeError: it is no such row.
        """
        claimed, vouched = row or ((), ())
        self._uid_of = {str(job): int(uid) for job, uid in claimed if job in known}
        self._vouched = {str(job): int(uid) for job, uid in vouched if job in known}
        self._live, self._ended, self._row = {}, {}, None
        for job_uid, uid in self._uid_of.items():
            self._live.setdefault(uid, set()).add(job_uid)

    # --- within ---------------------------------------------------------------------------------

    def _make_room(self, uid: int) -> bool:
        """Whether a uid may have one more job; its oldest ended one goes where that helps."""
        ended = self._ended.get(uid, {})
        if len(self._live.get(uid, ())) + len(ended) < self._most:
            return True
        if not ended:
            return False
        oldest = next(iter(ended))
        self._drop(oldest)
        self._displaced.append(oldest)
        return True

    def _vouch(self, job_uid: str, uid: int) -> None:
        self._drop(job_uid)
        self._vouched[job_uid] = uid
        self._row = None

    def _drop(self, job_uid: str) -> None:
        uid = self._uid_of.pop(job_uid, None)
        if uid is None:
            return
        self._row = None
        for jobs in (self._live, self._ended):
            of_uid: set[str] | dict[str, None] = jobs.get(uid, {})
            if isinstance(of_uid, set):
                of_uid.discard(job_uid)
            else:
                of_uid.pop(job_uid, None)
            if not of_uid:
                jobs.pop(uid, None)

    def _refuse(self, reason: str, job_uid: str, uid: int) -> None:
        key = (reason, job_uid, uid)
        if key in self._refused:
            return
        self._refused[key] = None
        self._refusals[reason] += 1
        if len(self._refused) > _MOST_REMEMBERED:
            del self._refused[next(iter(self._refused))]


class OwnedResolver:
    """A resolver that knows jobs by the environment alone, within what their users may claim."""

    def __init__(self, resolver: Resolver, owners: JobOwners, *, root_gives_way: bool) -> None:
        """Ask `resolver`, then `owners` (see `JobOwners.admit`)."""
        self._resolver = resolver
        self._owners = owners
        self._root_gives_way = root_gives_way

    def job_uid(self, facts: Facts) -> str | None:
        """Return the job that the environment names, where it is the process's user's."""
        job_uid = self._resolver.job_uid(facts)
        if job_uid is None:
            return None
        return self._owners.admit(job_uid, facts.uid, root_gives_way=self._root_gives_way)
