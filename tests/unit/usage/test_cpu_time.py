import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobwatt.host.procfs import Procfs
from jobwatt.usage.cpu_time import GONE, CpuTimeReader, ProcessClocks, StatFiles, choose_reader

BURN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
READERS = [ProcessClocks(), StatFiles(Procfs(Path("/proc")))]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.method)
def test_reads_what_this_process_has_used(reader: CpuTimeReader) -> None:
    """Within the 10 ms tick of /proc."""
    (read,) = reader.read([reader.key(os.getpid(), 0)])
    assert read / 1e9 == pytest.approx(time.process_time(), abs=0.05)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.method)
def test_an_ended_process_costs_only_its_own_reading(reader: CpuTimeReader) -> None:
    """Those before and after it are read all the same."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    own = reader.key(os.getpid(), 0)
    before, gone, after, gone_too = reader.read([own, reader.key(ended.pid, 0)] * 2)
    assert gone == gone_too == GONE
    assert 0 < before <= after


def test_counts_threads_that_have_ended() -> None:
    """The clock is the whole thread group's, dead threads included."""
    code = f"import threading\nt = threading.Thread(target=lambda: exec({BURN!r}))\nt.start()\n"
    code += "t.join()\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        reader = ProcessClocks()
        (read,) = reader.read([reader.key(process.pid, 0)])
        process.communicate(b"\n")
    assert read / 1e9 > 0.3


def test_a_zombie_keeps_its_time() -> None:
    """Until its parent has asked for it."""
    process = subprocess.Popen([sys.executable, "-c", BURN])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    reader = ProcessClocks()
    (read,) = reader.read([reader.key(process.pid, 0)])
    process.wait()
    assert read / 1e9 > 0.3
    assert reader.read([reader.key(process.pid, 0)]) == [GONE]


def test_clocks_are_chosen_where_pids_are_our_own() -> None:
    """The machine's own /proc."""
    assert isinstance(choose_reader(Procfs(Path("/proc"))), ProcessClocks)


def test_files_are_chosen_where_pids_mean_something_else(tmp_path: Path) -> None:
    """A recorded tree, or the host's /proc seen from a container."""
    assert isinstance(choose_reader(Procfs(tmp_path)), StatFiles)
