"""CPU time that GPUs add to a sample: `gpu_samples.py FOLDER SECONDS`, for bench.py.

Eight GPUs with four processes each, on the fake NVML. Prints medians in ms: a sample without GPUs,
with them, the calls of the library therein, and their number. CPU time of the whole process: the
driver's thread is in it.
"""

from __future__ import annotations

import dataclasses
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fakes.nvml import FakeNvml, Gpu, GpuProcess
from jobwatt.app import Parts, host_parts, make_sampler
from jobwatt.config import Config
from jobwatt.meters.nvml.library import Library
from jobwatt.meters.nvml.meter import NvmlMeter
from jobwatt.meters.own_thread import OwnThread
from jobwatt.sampler import Sampler

GPUS, PROCESSES_EACH = 8, 4


class TimedLibrary(Library):
    """Adds up the time within calls."""

    calls = 0
    seconds = 0.0

    def ask(self, function: str, *arguments: object) -> object:
        """Ask, and look at the clock before and after."""
        start = time.thread_time()
        try:
            return super().ask(function, *arguments)
        finally:
            self.seconds += time.thread_time() - start
            self.calls += 1


def costs(sampler: Sampler, seconds: int) -> list[float]:
    """Return the CPU time of each sample in ms, at a true 1 Hz."""
    times = []
    for _ in range(seconds):
        time.sleep(1)
        start = time.process_time()
        sampler.sample()
        times.append((time.process_time() - start) * 1e3)
    return times


def main() -> None:
    """Measure and print."""
    folder, seconds = Path(sys.argv[1]), int(sys.argv[2])
    config = Config(path_sysfs=folder / "sys", path_cgroupfs=Path("/sys/fs/cgroup"))
    workers = [subprocess.Popen(["sleep", "3600"]) for _ in range(GPUS * PROCESSES_EACH)]
    gpus = []
    for index in range(GPUS):
        own = workers[index * PROCESSES_EACH : (index + 1) * PROCESSES_EACH]
        processes = tuple(GpuProcess(worker.pid, sm=20 + index) for worker in own)
        gpus.append(Gpu(uuid=f"GPU-{index}", power_mw=400_000, processes=processes))
    try:
        with tempfile.TemporaryDirectory() as state:
            fake = FakeNvml(Path(state), gpus, virtual=False)
            with fake.installed():
                parts = host_parts(config)
                bare = [meter for meter in parts.meters if not isinstance(meter, OwnThread)]
                without = make_sampler(config, Parts(bare, parts.usage, parts.cpus))
                without.sample()
                gc.collect()
                alone = costs(without, seconds)
                library = TimedLibrary(str(fake.library))
                nvml = OwnThread(NvmlMeter(config.path_sysfs, library=library))
                parts = dataclasses.replace(host_parts(config), meters=[nvml, *bare])
                sampler = make_sampler(config, parts)
                costs(sampler, 12)  # series have been opened
                gc.collect()
                library.calls, library.seconds = 0, 0.0
                whole = costs(sampler, seconds)
                calls_ms = library.seconds / seconds * 1e3
                calls = library.calls / seconds
                print(statistics.median(alone), statistics.median(whole), calls_ms, calls)
    finally:
        for worker in workers:
            worker.kill()


if __name__ == "__main__":
    main()
