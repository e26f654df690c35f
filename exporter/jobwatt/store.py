"""The state on disk: what must outlive a restart, a crash and an upgrade.

SQLite in WAL mode without fsync at each commit: a commit reaches the kernel before the snapshot
that shows it is published, so a killed exporter loses nothing that a page has shown. A thread of
its own makes it safe against power loss every few seconds (docs/decisions/0005-state.md).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import sqlite3
import threading
import time
from pathlib import Path

from jobwatt.errors import RunError
from jobwatt.model import Row, Rows

__all__ = ["Store", "open_store"]

log = logging.getLogger(__name__)

FORMAT = 1
SYNC_SECONDS = 10.0


class Store:
    """One open state file. `save` belongs to one thread."""

    def __init__(self, path: Path, lock: int | None = None) -> None:
        """Open or create the file; raises sqlite3.Error where it is no state of ours.

        `lock` is a descriptor that is closed with the store.
        """
        self._path = path
        self._lock = lock
        self._connection = _connect(path)
        self._written: dict[str, Row] = {}
        self._failing = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.synced: float | None = None
        try:
            self._prepare()
            self.rows: Rows = self._load()
        except BaseException:
            self._connection.close()
            raise
        self._written.update(self.rows)

    def start(self) -> None:
        """Begin to make what was saved safe against power loss, now and then."""
        self._thread = threading.Thread(target=self._sync_on, name="state", daemon=True)
        self._thread.start()

    def save(self, rows: Rows) -> None:
        """Write what has changed since the last call; a disk that refuses is reported once."""
        written = self._written
        changed = [(key, row) for key, row in rows.items() if written.get(key) != row]
        gone = [(key,) for key in written.keys() - rows.keys()]
        if not changed and not gone:
            return
        try:
            with self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO state VALUES (?, ?)",
                    [(key, json.dumps(row)) for key, row in changed],
                )
                self._connection.executemany("DELETE FROM state WHERE key = ?", gone)
        except sqlite3.Error as error:
            self._report(f"state cannot be written to {self._path}: {error}")
            return
        self._written = dict(rows)
        if self._failing:
            log.info("state is written again")
            self._failing = ""

    def close(self) -> None:
        """Make everything safe and close the file."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        try:
            _sync(self._connection)
        except sqlite3.Error as error:
            self._report(f"state cannot be made safe on disk: {error}")
        self._connection.close()
        if self._lock is not None:
            os.close(self._lock)

    def _prepare(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version not in {0, FORMAT}:
            raise sqlite3.DatabaseError(f"format {version}, not {FORMAT}")
        with self._connection:
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID"
            )
            self._connection.execute(f"PRAGMA user_version = {FORMAT}")

    def _load(self) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        for key, value in self._connection.execute("SELECT key, value FROM state"):
            try:
                row = json.loads(value)
            except (TypeError, ValueError) as error:
                raise sqlite3.DatabaseError(f"row {key!r} is damaged") from error
            if not isinstance(row, list):
                raise sqlite3.DatabaseError(f"row {key!r} is damaged")
            rows[key] = tuple(row)
        return rows

    def discard(self) -> None:
        """Forget what was loaded: rows that nobody can read are no use to the next start either."""
        self.rows = {}

    def _sync_on(self) -> None:
        connection = _connect(self._path)
        with contextlib.closing(connection):
            while not self._stop.wait(SYNC_SECONDS):
                moment = time.time()
                try:
                    _sync(connection)
                except sqlite3.Error as error:
                    self._report(f"state cannot be made safe on disk: {error}")
                else:
                    self.synced = moment

    def _report(self, message: str) -> None:
        if self._failing != message:
            self._failing = message
            log.warning("%s; counters go on, a restart may set them back", message)


def open_store(folder: Path) -> Store | None:
    """Open the state in a folder; None, with a warning, where nothing can be kept.

    A file that is damaged, or not ours, is set aside and a new one begun.

    Raises:
        RunError: another exporter keeps its state there.
    """
    path = folder / "state.sqlite"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        log.warning(
            "no state is kept: %s: %s; counters begin at 0 after a restart (--state.directory)",
            folder,
            error.strerror,
        )
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise RunError(
            f"another exporter keeps its state in {folder}: stop it, or name another folder with "
            "--state.directory"
        ) from error
    try:
        return Store(path, lock)
    except (sqlite3.OperationalError, OSError) as error:
        log.warning("no state is kept: %s: %s", path, error)
        os.close(lock)
        return None
    except sqlite3.DatabaseError as error:
        _set_aside(path, error)
        return Store(path, lock)


def _set_aside(path: Path, error: sqlite3.DatabaseError) -> None:
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    log.warning("%s cannot be used (%s): set aside as %s", path, error, aside.name)
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    # Names of users and programs are nobody else's business; SQLite's other files follow this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=5, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # fsync at checkpoints, not at commits
        connection.execute("PRAGMA wal_autocheckpoint = 0")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _sync(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
