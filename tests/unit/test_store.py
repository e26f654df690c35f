import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobwatt.errors import RunError
from jobwatt.store import Store, open_store

ROWS = {"device package-0": (0, "cpu", 12, None), "boot": ("abc",)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store(path)
    yield opened
    opened.close()


def reload(path: Path) -> dict[str, tuple[object, ...]]:
    """What the next start would read."""
    again = Store(path)
    rows = dict(again.rows)
    again.close()
    return rows


def test_a_new_state_is_empty(store: Store) -> None:
    """There is nothing to go on from."""
    assert store.rows == {}


def test_what_was_saved_is_there_at_the_next_start(store: Store, path: Path) -> None:
    """Numbers, texts and nothing; also while the first still has it open."""
    store.save(ROWS)
    assert reload(path) == ROWS


def test_only_the_last_values_count(store: Store, path: Path) -> None:
    """Rows change, come and go."""
    store.save(ROWS)
    store.save({"boot": ("def",), "new": (1,)})
    assert reload(path) == {"boot": ("def",), "new": (1,)}


def test_rows_that_have_not_changed_are_not_written(store: Store, path: Path) -> None:
    """A quiet node writes nothing."""
    store.save(ROWS)
    size = path.with_name("state.sqlite-wal").stat().st_size
    store.save(dict(ROWS))
    assert path.with_name("state.sqlite-wal").stat().st_size == size


def test_what_was_saved_survives_kill_9(path: Path) -> None:
    """No close, no fsync: the kernel has it."""
    code = (
        "import os, signal, pathlib\n"
        "from jobwatt.store import Store\n"
        f"Store(pathlib.Path({str(path)!r})).save({{'a': (1, 'x')}})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert reload(path) == {"a": (1, "x")}


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


@pytest.mark.parametrize(
    "content",
    [b"", b"not a database at all, but long enough to be one" * 10],
    ids=["empty", "text"],
)
def test_a_file_that_is_no_state_stops_nothing(tmp_path: Path, content: bytes) -> None:
    """It is set aside, or, if empty, filled."""
    (tmp_path / "state.sqlite").write_bytes(content)
    store = open_store(tmp_path)
    assert store is not None
    store.save(ROWS)
    store.close()
    assert reload(tmp_path / "state.sqlite") == ROWS
    kept = [p.read_bytes() for p in tmp_path.glob("state.sqlite.damaged-*")]
    assert kept == ([content] if content else [])


def test_a_damaged_row_sets_the_file_aside(tmp_path: Path) -> None:
    """Half a state is none."""
    store = open_store(tmp_path)
    assert store is not None
    store.save(ROWS)
    store.close()
    with sqlite3.connect(tmp_path / "state.sqlite") as connection:
        connection.execute("UPDATE state SET value = 'half a r' WHERE key = 'boot'")
    connection.close()
    again = open_store(tmp_path)
    assert again is not None
    assert again.rows == {}
    again.close()
    assert len(list(tmp_path.glob("state.sqlite.damaged-*"))) == 1


def test_a_newer_format_sets_the_file_aside(tmp_path: Path) -> None:
    """A downgrade begins anew and keeps what it does not understand."""
    with sqlite3.connect(tmp_path / "state.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    again = open_store(tmp_path)
    assert again is not None
    assert again.rows == {}
    again.close()
    assert len(list(tmp_path.glob("state.sqlite.damaged-*"))) == 1


def test_two_exporters_do_not_share_a_state(tmp_path: Path) -> None:
    """The second says which folder, and what to do."""
    store = open_store(tmp_path)
    assert store is not None
    with pytest.raises(RunError, match=rf"{tmp_path}.*--state.directory"):
        open_store(tmp_path)
    store.close()


def test_a_folder_that_cannot_be_made_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The exporter runs without state."""
    (tmp_path / "file").write_text("")
    assert open_store(tmp_path / "file" / "state") is None
    assert "--state.directory" in caplog.text


def test_a_disk_that_refuses_is_reported_once_and_healed(
    store: Store, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Sampling goes on; what could not be written is written when it can."""
    store.save({"a": (1,)})
    locker = sqlite3.connect(path)
    locker.execute("BEGIN IMMEDIATE")
    store._connection.execute("PRAGMA busy_timeout = 1")
    store.save({"a": (2,)})
    store.save({"a": (3,)})
    locker.rollback()
    locker.close()
    assert caplog.text.count("cannot be written") == 1
    store.save({"a": (4,)})
    assert reload(path) == {"a": (4,)}


def test_the_state_is_the_exporters_alone(tmp_path: Path) -> None:
    """Names of users and programs are nobody else's business."""
    store = open_store(tmp_path / "state")
    assert store is not None
    store.save(ROWS)
    files = [tmp_path / "state", *(tmp_path / "state").iterdir()]
    modes = {file.name: file.stat().st_mode & 0o077 for file in files}
    store.close()
    names = ("state", "lock", "state.sqlite", "state.sqlite-wal", "state.sqlite-shm")
    assert modes == dict.fromkeys(names, 0)
