"""The files that a scheduler's Prolog writes, one a job: `<folder>/<id>.json` (deploy/slurm).

They are believed because root wrote them: a file, or a folder, that anybody else could have written
is not read. The folder is looked into when it has changed.

However many files there are, each job that has not ended counts, and of the others those that ended
last. What is beyond is read once, to know that, and forgotten but for its stamp.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jobwatt.errors import Failed, ReadError, translated
from jobwatt.host.files import read_bytes
from jobwatt.records import (
    NO_ACCOUNT,
    JobRecord,
    comment_budget,
    even_share,
    moment,
    numbers,
    shown_name,
)
from jobwatt.units import NS

__all__ = ["JobFile", "JobFiles", "parse_job_file"]

log = logging.getLogger(__name__)

_NAME = re.compile(r"([1-9]\d{0,9})\.json", re.ASCII)
_SLUID = re.compile(r"s[0-9A-HJKMNP-TV-Z]{13}")
_MOST_BYTES = 1 << 16
MOST_ENDED = 4096
"""Files of ended jobs that count; the Epilog keeps fewer."""

_MOST_RESTARTS = 1_000_000
_UNSURE_NS = 2 * NS
"""A folder's time of change is coarse: what has just changed may change again unnoticed."""

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH

_Known = tuple[int, "JobFile | None"]
"""A file's stamp, and what it tells; None where that does not count."""


@dataclass(frozen=True, slots=True)
class JobFile:
    """A job as its Prolog wrote it down.

    Attributes:
        job_id: its number.
        restarts: how often it has been requeued.
        sluid: Slurm's name of this run, "" where it tells none.
        uid: its user's, None where not told.
        record: the rest.
    """

    job_id: str
    restarts: int = 0
    sluid: str = ""
    uid: int | None = None
    record: JobRecord = field(default_factory=JobRecord)

    @property
    def job_uid(self) -> str:
        """The name of this run of the job."""
        run = f":r{self.restarts}" if self.restarts else ""
        return f"slurm:{self.job_id}{run}"


def parse_job_file(data: bytes) -> JobFile:
    """Parse a Prolog's file; a value that is not of its kind counts as not there.

    Raises:
        Failed: it is no such file.
    """
    try:
        tree = json.loads(data.decode("utf-8", errors="replace"), parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise Failed(f"not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise Failed("no job in it")
    job_id = _text(tree, "id")
    if not _NAME.fullmatch(f"{job_id}.json"):
        raise Failed(f"no job id in it: {job_id[:40]!r}")
    sluid, uid = _text(tree, "sluid"), _integer(tree, "uid")
    record = JobRecord(
        name=shown_name(_text(tree, "name")),
        user=shown_name(_text(tree, "user")),
        account=shown_name(_text(tree, "account")) or NO_ACCOUNT,
        queue=shown_name(_text(tree, "partition") or _text(tree, "qos")),
        started=moment(str(_integer(tree, "started"))),
        ended=moment(str(_integer(tree, "ended"))),
        deadline=moment(str(_integer(tree, "deadline"))),
        cpus=even_share(_text(tree, "cpus_per_node")),
        gpus=numbers(_text(tree, "gpus")),
    )
    if record.ended is not None and record.started is not None and record.ended < record.started:
        record = replace(record, ended=None)
    return JobFile(
        job_id,
        min(_integer(tree, "restarts") or 0, _MOST_RESTARTS),
        sluid if _SLUID.fullmatch(sluid) else "",
        uid,
        record.over(comment_budget(_text(tree, "comment"))),
    )


def _text(tree: dict[str, Any], key: str) -> str:
    value = tree.get(key)
    return value if isinstance(value, str) else ""


def _integer(tree: dict[str, Any], key: str) -> int | None:
    value = tree.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class JobFiles:
    """The jobs in a folder. For one thread.

    Args:
        folder: where the Prolog writes.
        user_name: returns the name of a user or its number as text.
    """

    def __init__(self, folder: Path, user_name: Callable[[int], str] = str) -> None:
        self._folder = str(folder)
        self._user_name = user_name
        self._stamp: tuple[int, int] | None = None
        self._unsure = False
        self._files: dict[str, _Known] = {}
        self._records: dict[str, JobRecord] = {}
        self._uids: dict[str, int] = {}
        self._by_id: dict[str, JobFile] = {}
        self._by_sluid: dict[str, JobFile] = {}
        self._complaint = ""

    def refresh(self) -> Mapping[str, JobRecord]:
        """Look whether the folder has changed; return the jobs in it by `job_uid`."""
        self._follow(unsure=True)
        return self._records

    def restarts(self, job_id: str, sluid: str) -> int:
        """Return how often a job was requeued before the run with that SLUID, or the latest."""
        self._follow(unsure=False)
        if sluid and sluid in self._by_sluid:
            return self._by_sluid[sluid].restarts
        known = self._by_id.get(job_id)
        # The file of another run says nothing about this one.
        return 0 if known is None or (sluid and known.sluid) else known.restarts

    def uid_of(self, job_uid: str) -> int | None:
        """Return the uid of the user of a run of a job, None where no file tells."""
        self._follow(unsure=False)
        return self._uids.get(job_uid)

    def id_of_sluid(self, sluid: str) -> str | None:
        """Return the id of the job whose run has that SLUID, None where no file tells."""
        self._follow(unsure=False)
        known = self._by_sluid.get(sluid)
        return None if known is None else known.job_id

    def _follow(self, *, unsure: bool) -> None:
        try:
            found = os.stat(self._folder)  # noqa: PTH116 - no Path on a hot path
        except OSError:
            if self._stamp is not None:
                self._stamp = None
                self._take({})
            return
        stamp = found.st_ino, found.st_mtime_ns
        if stamp == self._stamp and not (unsure and self._unsure):
            return
        self._stamp = stamp
        self._unsure = time.time_ns() - found.st_mtime_ns < _UNSURE_NS
        if not _is_trusted(found):
            self._complain(f"{self._folder} is not root's alone: its files are not believed")
            self._take({})
            return
        try:
            self._take(self._without_the_oldest(self._list()))
        except OSError as error:
            self._complain(str(translated(error, self._folder)))

    def _list(self) -> dict[str, _Known]:
        files: dict[str, _Known] = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                name = _NAME.fullmatch(entry.name)
                if name is None:
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # replaced or removed this moment
                # One number: there may be tens of thousands.
                stamp = hash((found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size))
                known = self._files.get(entry.name)
                if known is None or known[0] != stamp:
                    known = stamp, self._read(entry.path, name[1], found)
                files[entry.name] = known
        return files

    def _without_the_oldest(self, files: dict[str, _Known]) -> dict[str, _Known]:
        """Return the files, without the word of those whose jobs ended first if they are many."""
        ended = [
            (file.record.ended, name)
            for name, (_, file) in files.items()
            if file is not None and file.record.ended is not None
        ]
        if len(ended) > MOST_ENDED:
            self._complain(
                f"{self._folder} has files of more than {MOST_ENDED} ended jobs: the oldest are "
                "not used; the Epilog removes them (deploy/slurm)"
            )
            for _, name in sorted(ended)[:-MOST_ENDED]:
                files[name] = files[name][0], None
        return files

    def _read(self, path: str, job_id: str, found: os.stat_result) -> JobFile | None:
        if not stat.S_ISREG(found.st_mode) or not _is_trusted(found):
            log.warning("%s is not root's alone: it is not believed", path)
            return None
        try:
            # In a folder that only root can write, it is still the file that was looked at.
            file = parse_job_file(read_bytes(path, _MOST_BYTES)[:_MOST_BYTES])
            if file.job_id != job_id:
                raise Failed(f"it is about job {file.job_id}")
        except ReadError as error:
            log.warning("%s: %s", path, error)
            return None
        if file.uid is None:
            return file
        return replace(file, record=replace(file.record, user=self._user_name(file.uid)))

    def _take(self, files: dict[str, _Known]) -> None:
        self._files = files
        known = [file for _, file in files.values() if file is not None]
        self._by_id = {file.job_id: file for file in known}
        self._records = {file.job_uid: file.record for file in known}
        self._uids = {file.job_uid: file.uid for file in known if file.uid is not None}
        # A requeued job's file tells of its new run; the old one may still be on its way out.
        by_sluid = {file.sluid: file for file in known if file.sluid}
        replaced = [item for item in self._by_sluid.items() if item[0] not in by_sluid]
        self._by_sluid = {**dict(replaced[-MOST_ENDED:]), **by_sluid}

    def _complain(self, message: str) -> None:
        if self._complaint != message:
            self._complaint = message
            log.warning("%s", message)


def _is_trusted(found: os.stat_result) -> bool:
    """Whether a file is root's, or our own, and nobody else may write it."""
    return found.st_uid in {0, os.geteuid()} and not found.st_mode & _OTHERS_MAY_WRITE
