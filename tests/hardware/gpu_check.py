"""Runs the exporter beside a training on a real GPU, and checks what it says against the GPU.

    python tests/hardware/gpu_check.py --report DIR [--seconds 20] [--gpu 0]

Nobody uses the GPU at first, then one process, then two with different loads, then one again, then
nobody. Writes report.md (figures and verdicts), report.json (the same) and answers.json (what NVML
answered, with made-up UUIDs and pids) to DIR. Exit code 0: all checks hold; 1: not all, or there is
nothing to check here; 2: wrong usage.

Needs Python 3.11 or newer with PyTorch, and what pyproject.toml names; the exporter is taken from
this repository. `--fake` runs it all on a fake GPU, with gcc instead of PyTorch.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "exporter")]  # where it runs as a script

if TYPE_CHECKING:
    from hardware.measure import Observed, Worker
    from hardware.stage import Stage

NEEDED = {
    "bcrypt": "bcrypt",
    "click": "click",
    "h11": "h11",
    "prometheus_client": "prometheus-client",
    "psutil": "psutil",
    "pynvml": "nvidia-ml-py",
    "rich": "rich",
    "yaml": "pyyaml",
}
"""Modules, and the packages that bring them (pyproject.toml: dependencies)."""

LOADS = {"A": 0.9, "B": 0.3}
"""Part of its time in which each worker works."""

LEAST_IDLE_SECONDS = 13
"""Ten seconds, counted from the exporter's second look on, make an idle power."""

LEAST_SECONDS, MOST_LEFT_SECONDS = 5, 10
SETTLED_SECONDS = 3
"""A process's last energy is on a page within so long."""

DEATH_AFTER_SAMPLE = 0.5

SHOWN_SECONDS = 3
"""The driver lists a process that is at work within so long."""


def main(argv: Sequence[str] | None = None) -> int:
    """Check; return the exit code."""
    options = _options(argv)
    if missing := [package for name, package in NEEDED.items() if not _is_there(name)]:
        print(f"missing: {', '.join(missing)}\n  pip install {' '.join(missing)}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="jobwatt-gpu-check-") as scratch:
        return _check(options, Path(scratch))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu_check.py", description="Run the exporter beside a training on a GPU; check it."
    )
    parser.add_argument("--report", type=Path, required=True, metavar="DIR", help="results go here")
    parser.add_argument("--seconds", type=int, default=20, help="of each phase with a load")
    parser.add_argument("--idle-seconds", type=int, default=20, help="of the phase without")
    parser.add_argument("--gpu", type=int, default=0, metavar="INDEX", help="as nvidia-smi counts")
    parser.add_argument("--interval", type=float, default=1.0, help="of the exporter's samples, s")
    parser.add_argument(
        "--worker",
        choices=("auto", "torch", "sleep"),
        default="auto",
        help="what the processes do (auto: torch; with --fake: sleep)",
    )
    parser.add_argument("--fake", action="store_true", help="on a fake GPU")
    parser.add_argument("--fault", choices=("counter", "lost"), help="which the checks must find")
    options = parser.parse_args(argv)
    if options.worker == "auto":
        options.worker = "sleep" if options.fake else "torch"
    if (options.worker == "sleep") != options.fake:
        parser.error("--worker sleep and --fake belong together: only a fake GPU is busy without")
    if options.fault and not options.fake:
        parser.error("--fault needs --fake")
    if options.seconds < LEAST_SECONDS or options.idle_seconds < LEAST_IDLE_SECONDS:
        parser.error(f"at least --seconds {LEAST_SECONDS} --idle-seconds {LEAST_IDLE_SECONDS}")
    if options.gpu < 0 or not 0.2 <= options.interval <= 1:
        parser.error("--gpu counts from 0, --interval is 0.2 to 1")
    return options


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _check(options: argparse.Namespace, scratch: Path) -> int:
    # What these need has been looked for.
    from hardware.stage import FakeStage, Stage  # noqa: PLC0415
    from jobwatt.errors import ReadError  # noqa: PLC0415
    from jobwatt.meters.nvml.library import Library  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        if options.fake:
            fake = FakeStage(scratch / "fake", options.fault)
            stack.enter_context(fake.running())
            stage: Stage = fake
        else:
            stage = Stage()
        library = Library(stage.soname)
        try:
            library.start()
            count = library.ask("nvmlDeviceGetCount")
        except ReadError as error:
            print(f"no NVIDIA GPU that answers here: {error}", file=sys.stderr)
            return 1
        stack.callback(library.stop)
        if options.gpu >= count:
            print(f"there is no GPU {options.gpu}: there are {count}", file=sys.stderr)
            return 1
        if options.worker == "torch" and not _is_there("torch"):
            print(
                "PyTorch is missing (https://pytorch.org/get-started/locally/); --fake needs none",
                file=sys.stderr,
            )
            return 1
        options.report.mkdir(parents=True, exist_ok=True)
        return _Run(options, scratch, stage).run()


class _Run:
    """One run on one stage."""

    def __init__(self, options: argparse.Namespace, scratch: Path, stage: Stage) -> None:
        from hardware.answers import Recorder  # noqa: PLC0415
        from hardware.measure import Gpu, Observed  # noqa: PLC0415

        self._options = options
        self._scratch = scratch
        self._stage = stage
        self._recorder = Recorder(stage.soname)
        self.seen: Observed = Observed(interval=options.interval)
        self._gpu = Gpu(options.gpu, self.seen)

    def run(self) -> int:
        from hardware.checks import Judge  # noqa: PLC0415
        from hardware.measure import machine_facts  # noqa: PLC0415
        from hardware.report import timing, write_report  # noqa: PLC0415

        if self._gpu.is_divided:
            print("this GPU is divided by MIG: this check is for a whole one", file=sys.stderr)
            return 1
        if pids := self._gpu.residents():
            print(f"this GPU is in use, by pids {pids}: choose another (--gpu)", file=sys.stderr)
            return 1
        machine = machine_facts(self._options.gpu)
        if self._options.worker == "torch":
            machine["PyTorch"] = importlib.metadata.version("torch")
        cost = self._watch()
        found = Judge(self.seen).judge()
        calls = {
            name: {**timing(took), "codes": self._recorder.codes[name]}
            for name, took in self._recorder.microseconds.items()
        }
        report = self._options.report
        write_report(report, machine, found, calls, cost)
        answers = json.dumps(self._recorder.answers(), indent=1, sort_keys=True)
        (report / "answers.json").write_text(f"{answers}\n")
        spans = list(self.seen.phases)
        if "death" in found.figures:
            died = self.seen.workers["B"][2]
            spans.append(("death", found.figures["death"]["since"], died + 1))
        self._stage.write_truth(report, spans)
        for verdict in found.verdicts:
            mark = {True: "ok  ", False: "FAIL", None: "–   "}[verdict.holds]
            print(f"{mark} {verdict.name}: {verdict.says}")
        print(f"{report / 'report.md'}")
        return 0 if found.hold else 1

    def _watch(self) -> dict[str, object]:
        """Let everything happen; return what it cost."""
        from hardware.measure import (  # noqa: PLC0415
            LOOK_SECONDS,
            POLL_SECONDS,
            SAMPLES_SECONDS,
            Exporter,
            Looker,
            Repeated,
            Scraper,
        )
        from hardware.report import timing  # noqa: PLC0415
        from hardware.stage import hidden  # noqa: PLC0415
        from jobwatt.meters.nvml.meter import NvmlMeter  # noqa: PLC0415

        environment, interval = self._stage.environment(), self._options.interval
        without = hidden(self._scratch / "hidden", environment)
        looker = Looker(NvmlMeter(Path("/sys"), library=self._recorder))
        with contextlib.ExitStack() as stack:
            # Before the exporter's first sample, so that all of its energy is covered.
            stack.enter_context(Repeated(self._gpu.poll, POLL_SECONDS))
            stack.enter_context(Repeated(self._gpu.read_samples, SAMPLES_SECONDS))
            exporters = [
                stack.enter_context(Exporter(self._scratch / name, env, interval))
                for name, env in (("with", environment), ("without", without))
            ]
            scraper = Scraper(exporters[0], exporters[1], self._gpu.uuid, self.seen)
            stack.enter_context(scraper)
            stack.enter_context(Repeated(looker.look, LOOK_SECONDS))
            for exporter in exporters:
                exporter.mark()
            self._act(scraper, stack)
            for exporter in exporters:
                exporter.mark()
        return {
            "look_ms": timing(looker.milliseconds),
            "look_cpu_ms": timing(looker.cpu_milliseconds),
            "with_gpu_ms": exporters[0].cpu_ms_per_sample(),
            "without_gpu_ms": exporters[1].cpu_ms_per_sample(),
        }

    def _act(self, scraper: object, stack: contextlib.ExitStack) -> None:
        from hardware.measure import Scraper  # noqa: PLC0415

        assert isinstance(scraper, Scraper)
        seconds = self._options.seconds
        self._phase("nobody", self._options.idle_seconds)
        first = self._begin("A", stack)
        self._phase("one process", seconds)
        second = self._begin("B", stack)
        self._phase("two processes", seconds)
        # In the middle between two samples.
        into = (time.monotonic() - scraper.last) / self._options.interval
        time.sleep((DEATH_AFTER_SAMPLE - into) % 1 * self._options.interval)
        self._end("B", second)
        self._phase("one again", seconds)
        self._end("A", first)
        self._phase("none", min(MOST_LEFT_SECONDS, max(SETTLED_SECONDS, seconds // 2)))

    def _phase(self, name: str, seconds: float) -> None:
        self._recorder.phase = name
        start = time.monotonic()
        time.sleep(seconds / 2)
        self._recorder.ask_profile(self._options.gpu)
        time.sleep(max(0.0, start + seconds - time.monotonic()))
        self.seen.phases.append((name, start, time.monotonic()))

    def _begin(self, name: str, stack: contextlib.ExitStack) -> Worker:
        from hardware.measure import Worker  # noqa: PLC0415

        worker = Worker(self._options.worker, LOADS[name], self._gpu.uuid)
        stack.callback(worker.kill)
        self._stage.began(name, worker.pid)
        self.seen.workers[name] = worker.pid, worker.start, float("inf")
        deadline = time.monotonic() + SHOWN_SECONDS
        while not (shown := worker.pid in self._gpu.residents()) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.seen.shown[name] = shown
        return worker

    def _end(self, name: str, worker: Worker) -> None:
        died = worker.kill()
        self._stage.ended(name, worker.pid)
        self.seen.workers[name] = worker.pid, worker.start, died


if __name__ == "__main__":
    sys.exit(main())
