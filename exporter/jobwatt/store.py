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

__all__ = ["Store"]

log = logging.getLogger(__name__)

FORMAT = 1
SYNC_SECONDS = 10.0

RETRY_SECONDS = 10.0
"""How long a state that cannot be opened is left alone."""

PATIENCE_SECONDS = 1.0
"""How long a sample waits for somebody else who writes to the file."""

_CIRCUMSTANCES = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_AUTH,
    }
)
"""SQLite's codes for what is wrong around a file, not with it."""

_MASK = 0xFF
"""Of an extended result code, the code itself."""


class Store:
    """The state in one folder. `save` belongs to one thread.

    What cannot be kept is kept in memory by those who call, so nothing here ever stops them: a disk
    that is full, read-only or gone is reported once, and tried again.

    Attributes:
        rows: what an earlier run has left.
        synced: when the disk had everything for sure, None before the first time.
    """

    def __init__(self, folder: Path) -> None:
        """Open or begin the state of a folder; one that is damaged, or not ours, is set aside.

        Raises:
            RunError: another exporter keeps its state there.
        """
        self._folder = folder
        self._path = folder / "state.sqlite"
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._written: dict[str, Row] = {}
        self._known = True  # whether what lies there is in `rows`
        self._failing: dict[str, str] = {}
        self._retry_at = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.synced: float | None = None
        self.rows: Rows = {}
        if self._open():
            self.rows = dict(self._written)
        else:
            copied = _read_copy(self._path)
            self._known = copied is not None
            self.rows = copied or {}

    def start(self) -> None:
        """Begin to make what was saved safe against power loss, now and then."""
        self._thread = threading.Thread(target=self._sync_on, name="state", daemon=True)
        self._thread.start()

    def save(self, rows: Rows) -> None:
        """Write what has changed since the last call."""
        if self._connection is not None and _identity(self._path) != self._file:
            log.warning("%s has been removed or replaced: writing all of it anew", self._path)
            self._release()
        if self._connection is None and not self._open_again():
            return
        written = self._written
        changed = [(key, row) for key, row in rows.items() if written.get(key) != row]
        gone = [(key,) for key in written.keys() - rows.keys()]
        if not changed and not gone:
            return
        try:
            self._write([(key, json.dumps(row)) for key, row in changed], gone)
        except sqlite3.Error as error:
            self._report("written", error)
            if not _is_circumstance(error):
                self._release()  # the file itself: begin another one
            return
        self._written = dict(rows)
        self._healed("written")

    def discard(self, why: str) -> None:
        """Set the file aside: nobody can read the rows in it."""
        self.rows = {}
        if self._connection is not None:
            self._release(keep_lock=True)
            with contextlib.suppress(OSError):
                _set_aside(self._path, why)
            self._open()
        else:
            self._known = False

    def close(self) -> None:
        """Make everything safe and close the file."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        if self._connection is not None:
            try:
                _sync(self._connection, "TRUNCATE")
            except sqlite3.Error as error:
                self._report("made safe", error)
        self._release()

    # --- opening --------------------------------------------------------------------------------

    def _open(self) -> bool:
        """Open the file and load `_written`; report, and return False, where that cannot be."""
        try:
            if self._lock is None:
                self._lock = _lock(self._folder)
            self._load_or_replace()
        except (OSError, sqlite3.Error) as error:
            self._release()
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._report("opened", error)
            return False
        except RunError:
            self._release()
            raise
        self._file = _identity(self._path)
        self._healed("opened")
        return True

    def _open_again(self) -> bool:
        if time.monotonic() < self._retry_at:
            return False
        try:
            opened = self._open()
        except RunError as error:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._report("opened", error)
            return False
        if opened and self._written and not self._known:
            # An earlier run's that could not be read: not ours to write over.
            self.discard("it could not be read when this run began")
        self._known = True
        return self._connection is not None

    def _load_or_replace(self) -> None:
        try:
            self._load()
        except sqlite3.Error as error:
            if _is_circumstance(error):
                raise
            self._close_file()
            _set_aside(self._path, str(error))
            self._load()

    def _load(self) -> None:
        self._connection = _connect(self._path)
        _prepare(self._connection)
        self._written = _load_rows(self._connection)

    def _close_file(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._file, self._written = None, None, {}

    def _release(self, *, keep_lock: bool = False) -> None:
        """Let go of the file and, but for `keep_lock`, of the folder."""
        self._close_file()
        if self._lock is not None and not keep_lock:
            os.close(self._lock)
            self._lock = None

    # --- writing --------------------------------------------------------------------------------

    def _write(self, changed: list[tuple[str, str]], gone: list[tuple[str]]) -> None:
        assert self._connection is not None  # noqa: S101 - `save` has opened it
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", changed)
            self._connection.executemany("DELETE FROM state WHERE key = ?", gone)

    def _sync_on(self) -> None:
        while not self._stop.wait(SYNC_SECONDS):
            file, moment = self._file, time.time()
            if file is None or file != _identity(self._path):
                continue  # `save` sees to it
            try:
                with contextlib.closing(_connect(self._path)) as connection:
                    # Passive: a writer does not wait for it, and no sample for the disk.
                    _sync(connection, "PASSIVE")
            except (OSError, sqlite3.Error) as error:
                self._report("made safe", error)
            else:
                self.synced = moment
                self._healed("made safe")

    def _report(self, what: str, error: Exception) -> None:
        """Warn once of what cannot be done to the state."""
        message = getattr(error, "strerror", None) or str(error)
        if self._failing.get(what) != message:
            self._failing[what] = message
            log.warning(
                "the state in %s cannot be %s: %s; counters go on, a restart may set them back "
                "(--state.directory)",
                self._folder,
                what,
                message,
            )

    def _healed(self, what: str) -> None:
        if self._failing.pop(what, None) is not None:
            log.info("the state in %s can be %s again", self._folder, what)


def _is_circumstance(error: sqlite3.Error) -> bool:
    """Whether the file itself may be good."""
    return getattr(error, "sqlite_errorcode", 0) & _MASK in _CIRCUMSTANCES


def _lock(folder: Path) -> int:
    """Take a folder for this exporter alone; return what holds it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if not isinstance(error, BlockingIOError):
            raise
        raise RunError(
            f"another exporter keeps its state in {folder}: stop it, or name another folder with "
            "--state.directory"
        ) from error
    return lock


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another under its name; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - no Path on a hot path
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _connect(path: Path) -> sqlite3.Connection:
    # Names of users and programs are nobody else's business; SQLite's other files follow this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=PATIENCE_SECONDS, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # fsync at checkpoints, not at commits
        connection.execute("PRAGMA wal_autocheckpoint = 0")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the table of a new file; raises sqlite3.DatabaseError for a file that is not ours."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == FORMAT:
        return
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version or tables:
        raise sqlite3.DatabaseError(f"format {version}, not {FORMAT}")
    with connection:
        connection.execute("CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        connection.execute(f"PRAGMA user_version = {FORMAT}")


def _load_rows(connection: sqlite3.Connection) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for key, value in connection.execute("SELECT key, value FROM state"):
        try:
            row = json.loads(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise sqlite3.DatabaseError(f"row {key!r} is damaged") from error
        if not isinstance(row, list):
            raise sqlite3.DatabaseError(f"row {key!r} is damaged")
        rows[key] = tuple(row)
    return rows


def _read_copy(path: Path) -> Rows | None:
    """Return the rows of a file that cannot be opened where it lies; None where they are lost.

    SQLite must write beside a file even to read it: on a full or read-only disk a copy has to do.
    """
    import shutil  # noqa: PLC0415 - only where there is trouble
    import tempfile  # noqa: PLC0415

    if not path.exists():
        return {}
    for place in ("/dev/shm", None):  # noqa: S108 - in a folder of our own
        with (
            contextlib.suppress(OSError, sqlite3.Error),
            tempfile.TemporaryDirectory(dir=place) as folder,
        ):
            for suffix in ("", "-wal"):
                if path.with_name(path.name + suffix).exists():
                    shutil.copyfile(f"{path}{suffix}", f"{folder}/state.sqlite{suffix}")
            with contextlib.closing(_connect(Path(folder) / "state.sqlite")) as connection:
                _prepare(connection)
                return _load_rows(connection)
    return None


def _set_aside(path: Path, why: str) -> None:
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    log.warning("%s cannot be used (%s): set aside as %s", path, why, aside.name)
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.with_name(f"{path.name}-wal").rename(f"{aside}-wal")
    path.rename(aside)


def _sync(connection: sqlite3.Connection, mode: str) -> None:
    """Bring what was committed so far onto the disk; raises sqlite3.Error."""
    busy, *_ = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    if busy:
        raise sqlite3.OperationalError("somebody else is at work in the file")
