"""CPU time of single samples: `samples.py FOLDER SECONDS PROCESSES`, for bench.py.

Prints: median and 99th percentile of a sample in ms, µs a process for its clock, ms that psutil
needs for the CPU times of all.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import sys
import time
from pathlib import Path

import psutil

from jobwatt.app import host_parts, make_sampler
from jobwatt.config import Config
from jobwatt.store import Store
from jobwatt.usage.cpu_time import ProcessClocks


def main() -> None:
    """Take samples once a second."""
    folder, seconds = Path(sys.argv[1]), int(sys.argv[2])
    config = Config(path_sysfs=folder / "sys", path_cgroupfs=Path("/sys/fs/cgroup"))
    store = Store(folder / "samples-state")
    sampler = make_sampler(config, host_parts(config), store)
    sampler.sample()
    gc.collect()
    gc.freeze()
    for _ in range(20):  # the young have been looked at again
        time.sleep(1)
        sampler.sample()
    times = []
    for _ in range(seconds):
        time.sleep(1)
        start = time.thread_time()
        sampler.sample()
        times.append((time.thread_time() - start) * 1e3)
    clocks, keys = ProcessClocks(), [(~pid << 3) | 2 for pid in psutil.pids()]
    alone = []
    for _ in range(5):
        time.sleep(1)
        start = time.thread_time()
        clocks.read(keys)
        alone.append((time.thread_time() - start) * 1e6 / len(keys))
    processes = list(psutil.process_iter())
    time.sleep(1)
    start = time.thread_time()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.cpu_times()
    psutil_ms = (time.thread_time() - start) * 1e3
    times.sort()
    p99 = times[round(0.99 * (len(times) - 1))]
    print(statistics.median(times), p99, statistics.median(alone), psutil_ms)
    store.close()


if __name__ == "__main__":
    main()
