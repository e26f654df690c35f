import contextlib
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobwatt.errors import RunError
from jobwatt.store import Store

NOISE = random.Random(1).randbytes(50_000)  # noqa: S311 - the same each time
ROWS = {"device package-0": (0, "cpu", 12, None), "boot": ("abc",)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def reload(folder: Path) -> dict[str, tuple[object, ...]]:
    """What the next start would read, if this one were killed now."""
    with tempfile.TemporaryDirectory() as copy:
        for path in folder.glob("state.sqlite*"):
            shutil.copy(path, copy)
        again = Store(Path(copy))
        again.close()
    return dict(again.rows)


def aside(folder: Path) -> list[Path]:
    """What was set aside, without the logs that belong to it."""
    return [p for p in folder.glob("state.sqlite.damaged-*") if not p.name.endswith("-wal")]


@contextlib.contextmanager
def full_disk(byte: int = 0) -> Iterator[None]:
    """A disk on which no file grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (byte, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_new_state_is_empty(store: Store) -> None:
    """There is nothing to go on from."""
    assert store.rows == {}


def test_what_was_saved_is_there_at_the_next_start(store: Store, tmp_path: Path) -> None:
    """Numbers, texts and nothing; also while the first still has it open."""
    store.save(ROWS)
    assert reload(tmp_path) == ROWS


def test_only_the_last_values_count(store: Store, tmp_path: Path) -> None:
    """Rows change, come and go."""
    store.save(ROWS)
    store.save({"boot": ("def",), "new": (1,)})
    assert reload(tmp_path) == {"boot": ("def",), "new": (1,)}


def test_rows_that_have_not_changed_are_not_written(store: Store, tmp_path: Path) -> None:
    """A quiet node writes nothing."""
    store.save(ROWS)
    wal = tmp_path / "state.sqlite-wal"
    size = wal.stat().st_size
    store.save(dict(ROWS))
    assert wal.stat().st_size == size


def test_what_was_saved_survives_kill_9(tmp_path: Path) -> None:
    """No close, no fsync: the kernel has it."""
    code = (
        "import os, signal, pathlib\n"
        "from jobwatt.store import Store\n"
        f"Store(pathlib.Path({str(tmp_path)!r})).save({{'a': (1, 'x')}})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert reload(tmp_path) == {"a": (1, "x")}


def test_tells_when_the_disk_had_it_for_sure(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing before the first time; then the moment before it began."""
    monkeypatch.setattr("jobwatt.store.SYNC_SECONDS", 0.01)
    assert store.synced is None
    before = time.time()
    store.start()
    deadline = before + 10
    while store.synced is None:
        assert time.time() < deadline
        time.sleep(0.01)
    assert before <= store.synced <= time.time()


def test_all_is_in_the_file_itself_when_it_was_made_safe(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file without its log, as a backup may have it, is whole; so it is when closed."""
    monkeypatch.setattr("jobwatt.store.SYNC_SECONDS", 0.01)
    store.save(ROWS)
    store.start()
    deadline = time.time() + 10
    while store.synced is None:
        assert time.time() < deadline
        time.sleep(0.01)
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "state.sqlite", tmp_path / "copy")
    assert reload(tmp_path / "copy") == ROWS
    store.save({"a": (2,)})
    store.close()
    assert [path.name for path in tmp_path.glob("state.sqlite*")] == ["state.sqlite"]
    assert reload(tmp_path) == {"a": (2,)}


def sql(*statements: str) -> Callable[[Path], None]:
    """Change the file as somebody else would."""

    def change(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"not a database at all, but long enough to be one" * 10),
        lambda path: path.write_bytes(NOISE),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:100] + b"\xff" * 4000),
        sql("UPDATE state SET value = 'half a r' WHERE key = 'boot'"),
        sql("UPDATE state SET value = '{}' WHERE key = 'boot'"),
        sql("UPDATE state SET value = CAST(x'ff' AS TEXT) WHERE key = 'boot'"),
        sql("PRAGMA user_version = 99"),
        sql("DROP TABLE state"),
        sql("DROP TABLE state", "CREATE TABLE state (name TEXT, energy REAL)"),
        sql("DROP TABLE state", "CREATE TABLE other (name TEXT)", "PRAGMA user_version = 0"),
    ],
    ids=[
        "text",
        "random",
        "truncated",
        "overwritten",
        "half-row",
        "other-row",
        "no-utf8",
        "newer",
        "no-table",
        "other-columns",
        "not-ours",
    ],
)
def test_a_file_that_is_no_state_of_ours_is_set_aside(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Half a state is none, and what another program or version has written is not ours."""
    path = tmp_path / "state.sqlite"
    store = Store(tmp_path)
    store.save({**ROWS, "more": ("x" * 10_000,)})
    store.close()
    damage(path)
    content = path.read_bytes()
    again = Store(tmp_path)
    assert again.rows == {}
    again.save(ROWS)
    again.close()
    assert reload(tmp_path) == ROWS
    assert [kept.read_bytes() for kept in aside(tmp_path)] == [content]
    assert f"{path} cannot be used" in caplog.text


def test_an_empty_file_is_filled(tmp_path: Path) -> None:
    """Nothing was in it."""
    (tmp_path / "state.sqlite").write_bytes(b"")
    store = Store(tmp_path)
    store.save(ROWS)
    assert (reload(tmp_path), aside(tmp_path)) == (ROWS, [])
    store.close()


@pytest.mark.parametrize("damage", ["missing", "random", "half"])
def test_without_its_log_the_file_is_as_it_was_made_safe_last(tmp_path: Path, damage: str) -> None:
    """A log that is lost or damaged costs what came after, and nothing is half."""
    store = Store(tmp_path)
    store.save(ROWS)
    store.close()
    store = Store(tmp_path)
    store.save({"boot": ("abc",), "a": (1,)})
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "state.sqlite", copy)
    log = (tmp_path / "state.sqlite-wal").read_bytes()
    if damage == "random":
        (copy / "state.sqlite-wal").write_bytes(NOISE)
    elif damage == "half":
        (copy / "state.sqlite-wal").write_bytes(log[: len(log) // 2])
    store.close()
    assert reload(copy) == ROWS


def test_two_exporters_do_not_share_a_state(tmp_path: Path) -> None:
    """The second says which folder, and what to do."""
    store = Store(tmp_path)
    with pytest.raises(RunError, match=rf"{tmp_path}.*--state.directory"):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_a_warning_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter runs without a state, and with one as soon as it can."""
    caplog.set_level("INFO")
    folder = tmp_path / "file" / "state"
    (tmp_path / "file").write_text("")
    store = Store(folder)
    store.save(ROWS)
    assert caplog.text.count("cannot be opened") == 1
    assert "--state.directory" in caplog.text
    (tmp_path / "file").unlink()
    store.save(ROWS)
    assert not folder.exists()  # it is left alone for a while
    monkeypatch.setattr(store, "_retry_at", 0.0)
    store.save(ROWS)
    assert reload(folder) == ROWS
    assert "can be opened again" in caplog.text
    store.close()


def test_a_disk_that_refuses_is_reported_once_and_healed(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Sampling goes on; what could not be written is written when it can."""
    caplog.set_level("INFO")
    store.save({"a": (1,)})
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite")) as locker:
        locker.execute("BEGIN IMMEDIATE")
        assert store._connection is not None
        store._connection.execute("PRAGMA busy_timeout = 1")
        store.save({"a": (2,)})
        store.save({"a": (3,)})
        locker.rollback()
    assert caplog.text.count("cannot be written") == 1
    store.save({"a": (4,)})
    assert reload(tmp_path) == {"a": (4,)}
    assert "can be written again" in caplog.text


def test_a_disk_that_fills_up_is_reported_once_and_healed(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was there stays whole."""
    store.save({"a": (1,)})
    with full_disk((tmp_path / "state.sqlite-wal").stat().st_size):
        for number in range(2, 5):
            store.save({"a": (number,), "b": ("x" * 10_000,)})
    assert reload(tmp_path) == {"a": (1,)}
    assert caplog.text.count("cannot be written") == 1
    store.save({"a": (5,)})
    assert reload(tmp_path) == {"a": (5,)}


@pytest.mark.parametrize("closed", [True, False], ids=["stopped", "killed"])
def test_a_start_on_a_full_disk_goes_on_from_what_is_there(
    tmp_path: Path, closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No counter begins at 0 because nothing can be written; and nothing is written over."""
    folder = tmp_path / "state"
    store = Store(tmp_path)
    store.save(ROWS)
    if closed:
        store.close()
    folder.mkdir()
    for path in tmp_path.glob("state.sqlite*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, folder)
    monkeypatch.setattr("sqlite3.connect", _refuse_below(folder))
    again = Store(folder)
    assert again.rows == ROWS
    again.save({"a": (2,)})
    monkeypatch.undo()
    again._retry_at = 0.0
    again.save({"a": (3,)})
    assert (reload(folder), aside(folder)) == ({"a": (3,)}, [])
    again.close()
    store.close()


def _refuse_below(folder: Path) -> Callable[..., sqlite3.Connection]:
    """A disk on which SQLite cannot make the files that it needs beside the state."""
    connect = sqlite3.connect

    def refuse(path: Path, timeout: float, *, check_same_thread: bool) -> sqlite3.Connection:
        if Path(path).parent == folder:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return connect(path, timeout, check_same_thread=check_same_thread)

    return refuse


def test_what_could_not_be_read_at_the_start_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is set aside when the disk is back."""
    store = Store(tmp_path)
    store.save(ROWS)
    store.close()

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("shutil.copyfile", fail)
    monkeypatch.setattr("sqlite3.connect", _refuse_below(tmp_path))
    again = Store(tmp_path)
    assert again.rows == {}
    monkeypatch.undo()
    again._retry_at = 0.0
    again.save({"a": (1,)})
    again.close()
    assert reload(tmp_path) == {"a": (1,)}
    assert len(aside(tmp_path)) == 1


def test_a_folder_that_is_removed_is_made_and_filled_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite itself would write on into files that have no name any more."""
    folder = tmp_path / "state"
    store = Store(folder)
    store.save(ROWS)
    shutil.rmtree(folder)
    store.save(ROWS)
    assert reload(folder) == ROWS
    with pytest.raises(RunError):
        Store(folder)
    store.close()
    assert caplog.text.count("has been removed or replaced") == 1


def test_a_file_that_breaks_while_it_is_written_is_begun_anew(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything is known: nothing is lost."""
    store.save(ROWS)
    assert store._connection is not None
    store._connection.execute("DROP TABLE state")
    store.save({"a": (1,)})
    store.save({"a": (1,)})
    assert reload(tmp_path) == {"a": (1,)}
    assert "cannot be written" in caplog.text
    assert len(aside(tmp_path)) == 1


def test_rows_that_nobody_can_read_are_set_aside(tmp_path: Path) -> None:
    """By who asked for them, who begins at 0."""
    store = Store(tmp_path)
    store.save(ROWS)
    store.close()
    store = Store(tmp_path)
    store.discard("ValueError: no")
    assert store.rows == {}
    store.save({"a": (1,)})
    store.close()
    assert reload(tmp_path) == {"a": (1,)}
    assert len(aside(tmp_path)) == 1


def test_the_state_is_the_exporters_alone(tmp_path: Path) -> None:
    """Names of users and programs are nobody else's business."""
    store = Store(tmp_path / "state")
    store.save(ROWS)
    files = [tmp_path / "state", *(tmp_path / "state").iterdir()]
    modes = {file.name: file.stat().st_mode & 0o077 for file in files}
    store.close()
    names = ("state", "lock", "state.sqlite", "state.sqlite-wal", "state.sqlite-shm")
    assert modes == dict.fromkeys(names, 0)
