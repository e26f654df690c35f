"""HTCondor's job ads: the `.job.ad` in the folder of a running job.

Its name comes out of an environment, so a user may send us anywhere, also to a file system that
does not answer: the files are read by a thread of their own, and the sampler never waits for it.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from pathlib import Path

from jobwatt.errors import ReadError
from jobwatt.host.files import read_foreign

__all__ = ["JobAds", "parse_job_ad"]

log = logging.getLogger(__name__)

_NAME = re.compile(r"(/[^/\0]+)+/dir_\d+/\.job\.ad", re.ASCII)
_ATTRIBUTE = re.compile(rb"^(ClusterId|ProcId)\s*=\s*(\d{1,10})\s*$", re.MULTILINE | re.IGNORECASE)
_MOST_BYTES = 1 << 18
_MOST_NAME = 1024
_MOST_REMEMBERED, _MOST_WAITING = 1024, 64
_AGAIN_SECONDS = 60.0
"""The folder of an ended job is removed, and its name given to another one day."""


def parse_job_ad(data: bytes) -> tuple[int, int] | None:
    """Return `(ClusterId, ProcId)` of a job ad, None where it lacks one of them."""
    found = {key.lower(): int(value) for key, value in _ATTRIBUTE.findall(data)}
    cluster, proc = found.get(b"clusterid"), found.get(b"procid")
    return None if cluster is None or proc is None else (cluster, proc)


class JobAds:
    """The ids in job ads, by file.

    Args:
        rootfs: the host's root, below which the files are.
    """

    def __init__(self, rootfs: Path) -> None:
        self._rootfs = rootfs
        self._known: dict[str, tuple[int, int]] = {}
        self._asked: set[str] = set()
        self._waiting: queue.Queue[str] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None

    def id_of_ad(self, name: str) -> tuple[int, int] | None:
        """Return the cluster and proc in the ad with this name; None while nobody has read it."""
        known = self._known.get(name)
        if known is None and len(name) <= _MOST_NAME and _NAME.fullmatch(name):
            self._ask(name)
        return known

    def _ask(self, name: str) -> None:
        if name in self._asked or self._waiting.full() or "/../" in name:
            return
        self._asked.add(name)
        self._waiting.put_nowait(name)
        if self._thread is None:
            self._thread = threading.Thread(target=self._read_on, name="job-ads", daemon=True)
            self._thread.start()

    def _read_on(self) -> None:
        due = time.monotonic() + _AGAIN_SECONDS
        while True:
            try:
                name = self._waiting.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                for name in list(self._known):
                    self._read(name)
                due = time.monotonic() + _AGAIN_SECONDS
            else:
                self._read(name)
                self._asked.discard(name)

    def _read(self, name: str) -> None:
        try:
            found = parse_job_ad(read_foreign(self._rootfs / name[1:], _MOST_BYTES))
        except ReadError as error:
            log.debug("job ad: %s", error)
            found = None
        if found is None:
            self._known.pop(name, None)
            return
        if name not in self._known and len(self._known) >= _MOST_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[name] = found
