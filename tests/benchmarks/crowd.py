"""A crowd of processes for benchmarks: sleepers in cgroups of their own, some of them busy.

Started as a program it makes the crowd, prints a line and waits for its standard input to close:
`crowd.py PROCESSES GROUPS BUSY_PERCENT`. Busy processes run a few percent of a CPU each, so that
the crowd takes `BUSY_PERCENT` of one CPU in all, whatever its size.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup/unified")
BUSY_ONE_IN = 50


def _live(duty: float) -> None:
    """Sleep, or be busy for `duty` of the time, until killed."""
    period = 0.5
    while True:
        if not duty:
            signal.pause()
        end = time.process_time() + duty * period
        while time.process_time() < end:
            pass
        time.sleep(period * (1 - duty))


def main() -> None:
    """Make the crowd."""
    processes, groups, busy_percent = (int(word) for word in sys.argv[1:])
    folders = [CGROUPS / f"jobwatt-bench-{os.getpid()}-{n}.service" for n in range(groups)]
    for folder in folders:
        folder.mkdir()
    busy = range(0, processes, BUSY_ONE_IN)
    duty = busy_percent / 100 / len(busy)
    try:
        for number in range(processes):
            if os.fork() == 0:
                folder = folders[number * groups // processes]
                (folder / "cgroup.procs").write_text(str(os.getpid()))
                _live(duty if number in busy else 0)
        print("ready", flush=True)
        sys.stdin.read()
    finally:
        for folder in folders:
            (folder / "cgroup.kill").write_text("1")
        for _ in range(processes):
            os.wait()
        for folder in folders:
            folder.rmdir()


if __name__ == "__main__":
    main()
