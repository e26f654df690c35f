"""A machine with fake GPUs: what happens on it, moment by moment, and what that really took."""

from __future__ import annotations

import ctypes
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pynvml

from fakes.nvml import library
from fakes.nvml.model import Gpu, GpuProcess, Instance, Sample, Scope, Trace, Truth

NS = 1_000_000_000
LEAD_NS = 100_000_000
"""In real time, a change holds from so much later on: a reader who has integrated up to now with
the old file must not see his counter fall when the new one arrives."""

VIRTUAL_START_NS = 1000 * NS
VIRTUAL_START_US = 1_750_000_000_000_000
"""Virtual time begins here: a boot a quarter of an hour ago, in June 2025."""

ANY = "*"


class Rule(NamedTuple):
    """What befalls the calls of some functions for some devices.

    Attributes:
        number: a fault's return code; a delay's milliseconds, -1 for one without end.
    """

    function: str
    device: str
    number: int


@dataclass(slots=True)
class _Life:
    """A process from its start to its end."""

    process: GpuProcess
    start: int
    sm: Trace
    memory: Trace
    end: int | None = None

    def busy(self, ns: int) -> int:
        alive = self.start <= ns and (self.end is None or ns < self.end)
        return self.sm.at(ns) if alive else 0

    def moments(self) -> set[int]:
        ends = set() if self.end is None else {self.end}
        return {self.start, *(ns for ns, _ in self.sm.points), *ends}


@dataclass(slots=True)
class _Device:
    """A GPU and all that has happened to it."""

    facts: Gpu
    power: dict[Scope, Trace]
    epochs: list[tuple[int, int]]
    layout: list[Instance | None] | None
    lives: list[_Life] = field(default_factory=list)
    gpm: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    garbage: list[Sample] = field(default_factory=list)


class FakeNvml:
    """Some GPUs behind a libnvidia-ml.so.1 of their own.

    Every change is written at once, and a library that runs on it heeds it at its next call. A GPU
    is named by its index.

    Args:
        folder: where the state file is kept.
        gpus: in the order of their indices.
        virtual: time stands still but for `advance`; else it is this machine's own, and what is
            changed holds `LEAD_NS` later.
        driver, cuda: their versions.
        without: patterns of functions that the library does not even export.
    """

    def __init__(
        self,
        folder: Path,
        gpus: Sequence[Gpu],
        *,
        virtual: bool = True,
        driver: str = "590.48.01",
        cuda: int = 13010,
        without: Sequence[str] = (),
    ) -> None:
        self.library = library.build(tuple(without))
        self.path = folder / "nvml.state"
        self._calls = folder / "nvml.state.calls"
        self._versions = f"{driver} {cuda // 1000}.{driver} {cuda}"
        self._virtual_ns = VIRTUAL_START_NS if virtual else None
        self.start_ns = self.now_ns()
        now_us = time.time_ns() // 1000
        self._wall_offset_us = (VIRTUAL_START_US if virtual else now_us) - self.start_ns // 1000
        self._faults: list[Rule] = []
        self._delays: list[Rule] = []
        self._written = int(time.time())
        self._devices = [self._device(gpu) for gpu in gpus]
        folder.mkdir(parents=True, exist_ok=True)
        self.forget_calls()
        self.write()

    # ---- time --------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """The moment that it is, on the clock of the traces."""
        return time.monotonic_ns() if self._virtual_ns is None else self._virtual_ns

    def wall_us(self, ns: int | None = None) -> int:
        """A moment in microseconds since 1970, as samples carry it."""
        return (self.now_ns() if ns is None else ns) // 1000 + self._wall_offset_us

    def advance(self, seconds: float) -> None:
        """Let virtual time pass."""
        if self._virtual_ns is None:
            raise RuntimeError("this machine's time is real: sleep instead")
        self._virtual_ns += round(seconds * NS)
        self.write()

    def shift_wall_clock(self, seconds: float) -> None:
        """Step the clock that samples are stamped with, as NTP does."""
        self._wall_offset_us += round(seconds * 1_000_000)
        self.write()

    def _moment(self) -> int:
        return self.now_ns() + (LEAD_NS if self._virtual_ns is None else 0)

    # ---- what happens ------------------------------------------------------------------------

    def gpu(self, gpu: int) -> Gpu:
        """What does not change over time, as it was described last."""
        return self._devices[gpu].facts

    def describe(self, gpu: int, facts: Gpu) -> None:
        """Give a GPU other temperatures, limits, clocks, UUID, unsupported functions and so on.

        Power, energy, processes and instances have methods of their own, and stay.
        """
        self._devices[gpu].facts = facts
        self.write()

    def set_power(self, gpu: int, milliwatts: int, scope: Scope = Scope.GPU) -> None:
        """Draw this much from now on."""
        power = self._devices[gpu].power.setdefault(scope, Trace())
        power.set(self._moment(), milliwatts)
        self.write()

    def start_process(self, gpu: int, process: GpuProcess) -> None:
        """Start a process."""
        self._devices[gpu].lives.append(_born(process, self._moment()))
        self.write()

    def stop_process(self, gpu: int, pid: int) -> None:
        """End a process; its samples stay in the ring."""
        self._alive(gpu, pid).end = self._moment()
        self.write()

    def set_sm(self, gpu: int, pid: int, percent: int, memory: int | None = None) -> None:
        """Keep a process this busy from now on."""
        life = self._alive(gpu, pid)
        life.sm.set(self._moment(), percent)
        if memory is not None:
            life.memory.set(self._moment(), memory)
        self.write()

    def inject(self, gpu: int, *samples: Sample) -> None:
        """Mix these rows into every list of samples, until called anew; with none: no more."""
        self._devices[gpu].garbage = list(samples)
        self.write()

    def reset(self, gpu: int) -> None:
        """Reset a GPU: its counter restarts at 0, its processes and samples are gone."""
        device, moment = self._devices[gpu], self._moment()
        device.epochs.append((moment, 0))
        for life in device.lives:
            if life.end is None:
                life.end = moment
        self.write()

    def set_mig(self, gpu: int, instances: Sequence[Instance | None] | None) -> None:
        """Lay out the MIG instances anew, by slot; None: turn MIG off.

        Processes in instances that are gone end.
        """
        device, moment = self._devices[gpu], self._moment()
        device.layout = None if instances is None else list(instances)
        left = {found.uuid for found in instances or () if found}
        for life in device.lives:
            if life.end is None and life.process.instance not in {None, *left}:
                life.end = moment
        self.write()

    def set_gpm(self, gpu: int, *, graphics: int, sm: int, gpu_instance: int | None = None) -> None:
        """Show this activity in GPM's metrics from now on, of a GPU instance or of the GPU."""
        key = -1 if gpu_instance is None else gpu_instance
        self._devices[gpu].gpm.setdefault(key, []).append((self._moment(), graphics, sm))
        self.write()

    # ---- what goes wrong ---------------------------------------------------------------------

    def fault(self, function: str, code: int, device: int | str = ANY) -> None:
        """Let calls fail: of a function or a pattern, for a GPU's index or UUID, or all."""
        self._faults.insert(0, Rule(function, str(device), code))
        self.write()

    def heal(self, function: str | None = None, device: int | str | None = None) -> None:
        """Take faults back: those that were given for this function and device, or for any."""
        self._faults = [rule for rule in self._faults if not _matches(rule, function, device)]
        self.write()

    def delay(self, function: str, milliseconds: int, device: int | str = ANY) -> None:
        """Let calls take so much longer."""
        self._delays.append(Rule(function, str(device), milliseconds))
        self.write()

    def hang(self, function: str, device: int | str = ANY) -> None:
        """Let calls hang, until `release`."""
        self.delay(function, -1, device)

    def release(self, function: str | None = None, device: int | str | None = None) -> None:
        """Take delays and hangs back; calls that hang go on at once."""
        self._delays = [rule for rule in self._delays if not _matches(rule, function, device)]
        self.write()

    # ---- the truth ---------------------------------------------------------------------------

    def energy_uj(self, gpu: int, since_ns: int | None = None, until_ns: int | None = None) -> int:
        """What a GPU has taken, since the scenario began and up to now unless told otherwise.

        Resets, and how often the counter moves, are no part of it.
        """
        start, end = self._span(since_ns, until_ns)
        return self._devices[gpu].power[Scope.GPU].integral(start, end) // 1_000_000

    def truth(
        self,
        gpu: int,
        idle_mw: int,
        since_ns: int | None = None,
        until_ns: int | None = None,
    ) -> Truth:
        """Where that went: `idle_mw` to nobody, the rest at each moment by SM utilisation."""
        device = self._devices[gpu]
        start, end = self._span(since_ns, until_ns)
        power = device.power[Scope.GPU]
        moments = {ns for life in device.lives for ns in life.moments()}
        moments |= {ns for ns, _ in power.points}
        cuts = [start, *sorted(ns for ns in moments if start < ns < end), end]
        total, idle, nobody = 0, 0, 0
        by_pid: defaultdict[int, Fraction] = defaultdict(Fraction)
        for begin, stop in pairwise(cuts):
            drawn = power.at(begin)
            active = max(0, drawn - idle_mw) * (stop - begin)
            total += drawn * (stop - begin)
            idle += min(drawn, idle_mw) * (stop - begin)
            busy = [(life.process.pid, life.busy(begin)) for life in device.lives]
            weight = sum(percent for _, percent in busy)
            if weight == 0:
                nobody += active
            for pid, percent in busy:
                if percent > 0:
                    by_pid[pid] += Fraction(active * percent, weight)
        return Truth(
            total // 1_000_000,
            idle // 1_000_000,
            nobody // 1_000_000,
            {pid: round(share / 1_000_000) for pid, share in by_pid.items()},
        )

    def _span(self, since_ns: int | None, until_ns: int | None) -> tuple[int, int]:
        start = self.start_ns if since_ns is None else since_ns
        return start, self.now_ns() if until_ns is None else until_ns

    # ---- running on it -----------------------------------------------------------------------

    def calls(self, function: str) -> int:
        """How often a function has been called, in all processes that ran on this."""
        return self.all_calls()[function]

    def all_calls(self) -> dict[str, int]:
        """How often each function has been called."""
        slots = library.COUNTER.iter_unpack(self._calls.read_bytes())
        return {name.rstrip(b"\0").decode(): count for name, count in slots}

    def forget_calls(self) -> None:
        """Count the calls from 0 again."""
        names = library.functions()
        table = b"".join(library.COUNTER.pack(name.encode(), 0) for name in names)
        mode = "r+b" if self._calls.exists() else "wb"
        with self._calls.open(mode) as file:  # in place: libraries have it mapped
            file.write(table)

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment for a child process that shall find these GPUs."""
        inherited = dict(os.environ if base is None else base)
        paths = (str(self.library.parent), inherited.get("LD_LIBRARY_PATH", ""))
        found = ":".join(path for path in paths if path)
        return inherited | {"LD_LIBRARY_PATH": found, "FAKE_NVML_STATE": str(self.path)}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let this process's pynvml run on these GPUs, as if freshly imported; one at a time.

        Calls that still hang at the end return as if nvmlShutdown had been called.
        """
        fake = ctypes.CDLL(str(self.library))
        fake.fakeNvmlUse(os.fsencode(self.path))
        before = pynvml.nvmlLib, pynvml._nvmlLib_refcount
        cached = dict(pynvml._nvmlGetFunctionPointer_cache)
        _point_pynvml_at(fake, 0, {})
        try:
            yield
        finally:
            fake.fakeNvmlUse(None)
            _point_pynvml_at(*before, cached)

    # ---- the state file ----------------------------------------------------------------------

    def write(self) -> None:
        """Put the state file in place, at once, with a time of its own so that nobody misses it."""
        new = self.path.with_name(".nvml.state")
        new.write_text("".join(f"{line}\n" for line in self._lines()))
        self._written += 1
        os.utime(new, (self._written, self._written))
        new.rename(self.path)

    def _lines(self) -> Iterator[str]:
        yield f"clock {_or_minus_one(self._virtual_ns)} {self._wall_offset_us}"
        yield f"versions {self._versions}"
        for rule in self._faults:
            yield f"fault {rule.function} {rule.device} {rule.number}"
        for rule in self._delays:
            yield f"delay {rule.function} {rule.device} {rule.number}"
        for index, device in enumerate(self._devices):
            yield f"gpu {index}"
            yield from _facts(index, device)
            yield from _history(device)

    def _device(self, gpu: Gpu) -> _Device:
        drawn = {
            Scope.GPU: gpu.power_mw,
            Scope.MODULE: gpu.module_power_mw,
            Scope.MEMORY: gpu.memory_power_mw,
        }
        return _Device(
            gpu,
            {scope: Trace([(0, mw)]) for scope, mw in drawn.items() if mw is not None},
            [(self.start_ns, gpu.energy_mj)],
            None if gpu.instances is None else list(gpu.instances),
            [_born(process, self.start_ns) for process in gpu.processes],
        )

    def _alive(self, gpu: int, pid: int) -> _Life:
        for life in self._devices[gpu].lives:
            if life.process.pid == pid and life.end is None:
                return life
        raise LookupError(f"no process {pid} on GPU {gpu}")


def _born(process: GpuProcess, ns: int) -> _Life:
    return _Life(process, ns, Trace([(ns, process.sm)]), Trace([(ns, process.memory)]))


def _matches(rule: Rule, function: str | None, device: int | str | None) -> bool:
    same_function = function is None or rule.function == function
    return same_function and (device is None or rule.device == str(device))


def _point_pynvml_at(nvml: ctypes.CDLL | None, users: int, cached: Mapping[str, object]) -> None:
    with pynvml.libLoadLock:
        pynvml.nvmlLib = nvml
        pynvml._nvmlLib_refcount = users
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml._nvmlGetFunctionPointer_cache.update(cached)


def _or_minus_one(value: int | None) -> int:
    return -1 if value is None else value


def _facts(index: int, device: _Device) -> Iterator[str]:
    gpu = device.facts
    domain, bus, slot = gpu.bus_id.split(".")[0].split(":")
    yield f"uuid {gpu.uuid}"
    yield f"name {gpu.name}"
    yield f"pci {int(domain, 16)} {int(bus, 16)} {int(slot, 16)} {gpu.pci_id} {gpu.pci_subsystem}"
    util_gpu, util_memory = gpu.utilization or (-1, -1)
    mig = -1 if not gpu.mig_capable else int(device.layout is not None)
    settings = {
        "minor": index if gpu.minor is None else gpu.minor,
        "arch": gpu.architecture,
        "cc_major": gpu.compute_capability[0],
        "cc_minor": gpu.compute_capability[1],
        "refresh_ns": gpu.refresh_ms * 1_000_000,
        "averaging_ns": gpu.averaging_ms * 1_000_000,
        "sample_period_ns": gpu.sample_period_ns,
        "sample_size_exact": gpu.sample_size_exact,
        "limit": gpu.limit_mw,
        "min_limit": gpu.limit_mw if gpu.min_limit_mw is None else gpu.min_limit_mw,
        "max_limit": gpu.limit_mw if gpu.max_limit_mw is None else gpu.max_limit_mw,
        "default_limit": gpu.limit_mw if gpu.default_limit_mw is None else gpu.default_limit_mw,
        "enforced_limit": gpu.limit_mw if gpu.enforced_limit_mw is None else gpu.enforced_limit_mw,
        "memory_total": gpu.memory_bytes,
        "memory_reserved": gpu.reserved_bytes,
        "memory_used": gpu.used_bytes,
        "temperature": gpu.temperature,
        "memory_temperature": _or_minus_one(gpu.memory_temperature),
        "reasons": gpu.event_reasons,
        "reasons_supported": gpu.event_reasons_supported,
        "compute_mode": gpu.compute_mode,
        "persistence": gpu.persistence,
        "pstate": gpu.pstate,
        "util_gpu": util_gpu,
        "util_memory": util_memory,
        "mig": mig,
        "mig_max": gpu.mig_slots,
        "gpm": gpu.gpm,
        **{f"clock{number}": mhz for number, mhz in enumerate(gpu.clocks_mhz)},
        **{f"max{number}": mhz for number, mhz in enumerate(gpu.max_clocks_mhz)},
    }
    yield from (f"set {name} {int(value)}" for name, value in settings.items())
    yield from (f"unsupported {pattern}" for pattern in gpu.unsupported)
    for own in gpu.fields:
        scope, value_type = _or_minus_one(own.scope), _or_minus_one(own.value_type)
        yield f"field {own.id} {int(scope)} {own.result} {value_type}"


def _history(device: _Device) -> Iterator[str]:
    for scope, power in device.power.items():
        yield from _points(f"power {int(scope)}", power.points)
    yield from _points("epoch", device.epochs)
    for life in device.lives:
        one = life.process
        yield (
            f"process {one.pid} {int(one.kind)} {_or_minus_one(one.memory_bytes)} "
            f"{life.start} {_or_minus_one(life.end)} {one.instance or '-'}"
        )
        yield from _points("sm", life.sm.points)
        yield from _points("mem", life.memory.points)
    for slot, found in enumerate(device.layout or ()):
        if found is not None:
            yield (
                f"instance {slot} {found.uuid} {found.profile} {found.gpu_instance} "
                f"{found.compute_instance} {found.slices} {found.compute_slices} "
                f"{found.multiprocessors} {found.memory_bytes} {found.used_bytes}"
            )
    for gpu_instance, points in device.gpm.items():
        for ns, graphics, sm in points:
            yield f"gpm {gpu_instance} {ns} {graphics} {sm}"
    for row in device.garbage:
        yield (f"garbage {row.time_us} {row.pid} {row.sm} {row.memory} {row.encoder} {row.decoder}")


def _points(word: str, points: Iterable[tuple[int, int]]) -> Iterator[str]:
    return (f"{word} {ns} {value}" for ns, value in points)
