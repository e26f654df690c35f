"""What `jobwatt top` draws: one status as text for a terminal, jobs first."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from jobwatt.cli.top_cells import bar, cell, new_table, power_cell, visible
from jobwatt.cli.top_jobs import JobRow, chosen_jobs, job_row, jobs_table, left_out
from jobwatt.cli.top_names import Name, names_of
from jobwatt.units import UJ, energy_text, power_text

__all__ = ["VIEWS", "DeviceRow", "Frame", "GpuRow", "InstanceRow", "Page", "ProcessRow", "visible"]

VIEWS = ("jobs", "processes", "all")

DOUBTS = {"estimate": "ESTIMATED, not measured", "simulated": "SIMULATED, made up"}
"""Sources that must not be taken for a measurement."""

LEAST_COLUMNS, SMALL_COLUMNS, NARROW_COLUMNS = 48, 60, 76
"""Below so many columns, more and more of what is nice to know is left out."""

WIDE_COLUMNS, BARS_COLUMNS = 112, 130
"""From so many columns on, GPUs tell more and devices have bars; GPUs have bars."""

GIB = 2**30

_UUID = re.compile(r"((?:GPU|MIG)-[0-9a-f]{8})-[0-9a-f-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """A MIG instance's line."""

    name: str
    memory_used_bytes: int | None
    pids: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class GpuRow:
    """What a GPU tells beside its power; None is what is not known."""

    index: int | None
    utilization_ratio: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: float | None
    throttled: tuple[str, ...]
    contexts: int | None
    holders: tuple[tuple[str, tuple[int, ...]], ...] | None
    instances: tuple[InstanceRow, ...]

    @property
    def is_idle(self) -> bool:
        """Whether somebody holds it and it does nothing."""
        held = bool(self.holders or self.contexts)
        return held and self.utilization_ratio is not None and self.utilization_ratio < 0.005  # noqa: PLR2004 - shown as 0 %

    @property
    def is_free(self) -> bool:
        """Whether nobody holds it, for sure."""
        return self.contexts == 0 and self.holders == ()


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device's line; None is what is not known."""

    name: str
    component: str
    source: str
    model: str
    power_watts: float | None
    limit_watts: float | None
    idle_watts: float | None
    energy_joules: float
    gpu: GpuRow | None = None

    @property
    def short_name(self) -> str:
        """Its name for people: a UUID is too long for a line."""
        if self.gpu is not None and self.gpu.index is not None:
            return str(self.gpu.index)
        return _brief(self.name)


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process's line."""

    pid: int
    comm: str
    user: str
    job_uid: str
    power_watts: float
    energy_joules: float
    gpu_joules: float = 0.0


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown of a status (`jobwatt.exposition.status`)."""

    time: float
    processes_live: int
    down: tuple[str, ...]
    jobs: tuple[JobRow, ...]
    devices: tuple[DeviceRow, ...]
    processes: tuple[ProcessRow, ...]

    @classmethod
    def parse(cls, status: Mapping[str, Any]) -> Page:
        """Take a status as JSON gave it.

        Raises:
            ValueError: it is not one.
        """
        try:
            return cls(
                time=float(status["time"]),
                processes_live=int(status["node"]["processes"]),
                down=tuple(str(s["source"]) for s in status["sources"] if not s["up"]),
                jobs=tuple(job_row(job) for job in status.get("jobs", ())),
                devices=tuple(_device_row(device) for device in status["devices"]),
                processes=tuple(_process_row(process) for process in status["processes"]),
            )
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    @property
    def power_watts(self) -> float | None:
        """Power of all devices whose power is known."""
        known = [d.power_watts for d in self.devices if d.power_watts is not None]
        return sum(known) if known else None

    @property
    def gpus(self) -> list[DeviceRow]:
        """The devices that are GPUs."""
        return [device for device in self.devices if device.component == "gpu"]

    @property
    def others(self) -> list[DeviceRow]:
        """The other devices."""
        return [device for device in self.devices if device.component != "gpu"]

    @property
    def live_jobs(self) -> int:
        """How many jobs have not ended."""
        return sum(job.ended is None for job in self.jobs)

    @property
    def idle_gpus(self) -> dict[str, int]:
        """By job, how many of the GPUs that it holds do nothing."""
        found: dict[str, int] = {}
        for gpu in (device.gpu for device in self.gpus):
            for job_uid, _ in (gpu.holders if gpu and gpu.is_idle else None) or ():
                found[job_uid] = found.get(job_uid, 0) + 1
        return found

    @property
    def gpus_of(self) -> dict[int, list[str]]:
        """By pid, the GPUs that a process has a context on."""
        found: dict[int, list[str]] = {}
        for device in self.gpus:
            for _, pids in (device.gpu.holders if device.gpu else None) or ():
                for pid in pids:
                    found.setdefault(pid, []).append(device.short_name)
        return found


def _device_row(device: Mapping[str, Any]) -> DeviceRow:
    return DeviceRow(
        name=str(device["device"]),
        component=str(device["component"]),
        source=str(device["source"]),
        model=str(device["model"]),
        power_watts=_optional(device["power_watts"]),
        limit_watts=_optional(device["limit_watts"]),
        idle_watts=_optional(device["idle_watts"]),
        energy_joules=float(device["energy_joules"]),
        gpu=_gpu_row(device) if device["component"] == "gpu" else None,
    )


def _gpu_row(device: Mapping[str, Any]) -> GpuRow:
    """Take what a GPU tells; an exporter of an earlier version tells less."""
    holders = device.get("holders")
    return GpuRow(
        index=_whole(device.get("index")),
        utilization_ratio=_optional(device.get("utilization_ratio")),
        memory_used_bytes=_whole(device.get("memory_used_bytes")),
        memory_total_bytes=_whole(device.get("memory_total_bytes")),
        temperature_celsius=_optional(device.get("temperature_celsius")),
        throttled=tuple(map(str, device.get("throttled") or ())),
        contexts=_whole(device.get("contexts")),
        holders=None
        if holders is None
        else tuple((str(h["job_uid"]), tuple(map(int, h["pids"]))) for h in holders),
        instances=tuple(_instance_row(one) for one in device.get("instances") or ()),
    )


def _instance_row(instance: Mapping[str, Any]) -> InstanceRow:
    pids = instance["pids"]
    return InstanceRow(
        name=str(instance["name"]),
        memory_used_bytes=_whole(instance["memory_used_bytes"]),
        pids=None if pids is None else tuple(map(int, pids)),
    )


def _process_row(process: Mapping[str, Any]) -> ProcessRow:
    return ProcessRow(
        pid=int(process["pid"]),
        comm=str(process["comm"]),
        user=str(process["user"]),
        job_uid=str(process["job_uid"]),
        power_watts=float(process["power_watts"]),
        energy_joules=float(process["energy_joules"]),
        gpu_joules=float(process.get("components", {}).get("gpu", 0.0)),
    )


def _optional(value: float | None) -> float | None:
    return None if value is None else float(value)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture, drawn by rich to the width of its console.

    Attributes:
        page: what is shown.
        node: whose it is.
        by: `power`, `energy` or `budget`: the order of the jobs, and of the processes.
        rows: the most jobs, and the most processes, shown.
        notes: sentences for the head, such as a lost connection.
        arguments: the command line of a process as far as it is known, without its name.
        fill: whether the last table must fit into the height of the terminal.
        view: one of `VIEWS`; devices and GPUs are shown with the processes.
        before: an earlier page, by which what is busy now is known; without, a job's mean is shown.
        keys: what can be pressed, for the last line.
    """

    page: Page
    node: str
    by: str
    rows: int
    notes: Sequence[str] = ()
    arguments: Callable[[ProcessRow], str] = lambda _: ""
    fill: bool = False
    view: str = "all"
    before: Page | None = None
    keys: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the head and the tables of the view."""
        plain, width = options.ascii_only, options.max_width
        head = [self._title(plain=plain), *self._warnings(plain=plain)]
        # An exporter of an earlier version tells of no jobs.
        with_jobs = self.view != "processes" and bool(self.page.jobs)
        with_processes = self.view != "jobs" or not with_jobs
        if not with_processes:
            head.append(self._summary())
        yield from head
        tables = self._device_tables(plain=plain, width=width) if with_processes else []
        rows = self.rows
        if self.fill:
            # Each table has a heading and an empty line below; the last has a heading.
            above = sum(table.row_count + 2 for table in tables)
            rows = max(min(rows, console.height - len(head) - above - 1 - bool(self.keys)), 1)
        if with_jobs:
            yield from self._jobs(rows, plain=plain, width=width)
        if with_processes:
            if with_jobs:
                yield Text("")
            for table in tables:
                yield table
                yield Text("")
            bars = width >= (BARS_COLUMNS if self.page.gpus else WIDE_COLUMNS)
            yield self._processes(rows, plain=plain, width=width, bars=bars)
        if self.keys:
            yield Text(self.keys, "dim", no_wrap=True, overflow="ellipsis", end="")

    def _device_tables(self, *, plain: bool, width: int) -> list[Table]:
        tables = []
        if self.page.others or not self.page.gpus:
            tables.append(self._devices(plain=plain, width=width))
        if self.page.gpus:
            tables.append(self._gpus(plain=plain, width=width))
        return tables

    def _jobs(self, rows: int, *, plain: bool, width: int) -> Iterator[Table | Text]:
        jobs, before = self.page.jobs, self.before
        shown = chosen_jobs(jobs, self.by, rows)
        if self.fill and rows > 1 and left_out(jobs, shown):
            shown = chosen_jobs(jobs, self.by, rows - 1)
        cpu_before = {job.job_uid: job.cpu_seconds for job in before.jobs} if before else {}
        yield jobs_table(
            shown,
            self.page.time,
            width=width,
            plain=plain,
            idle_gpus=self.page.idle_gpus,
            cpu_before=(before.time, cpu_before) if before else None,
        )
        if (rest := left_out(jobs, shown)) is not None:
            yield rest

    def _summary(self) -> Text:
        """Return the power by component, in one line."""
        line = Text(no_wrap=True, overflow="ellipsis")
        for component in dict.fromkeys(device.component for device in self.page.devices):
            known = [
                device.power_watts
                for device in self.page.devices
                if device.component == component and device.power_watts is not None
            ]
            line.append(f"{component.upper()} ", "dim")
            line.append(f"{power_text(sum(known)) if known else '-'}  ")
        gpus = [device.gpu for device in self.page.gpus if device.gpu is not None]
        idle, free = sum(gpu.is_idle for gpu in gpus), sum(gpu.is_free for gpu in gpus)
        if idle:
            line.append(f"{idle} GPU{'s' * (idle > 1)} held but idle  ", "yellow")
        if free:
            line.append(f"{free} free", "dim")
        return line

    def _title(self, *, plain: bool) -> Text:
        total = self.page.power_watts
        doubt = "~" if any(d.source in DOUBTS for d in self.page.devices) else ""
        at = time.strftime("%H:%M:%S", time.localtime(self.page.time))
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append("JobWatt", "bold")
        line.append(f"  {visible(self.node, plain=plain)}  ")
        power = "power not known" if total is None else doubt + power_text(total)
        line.append(power, "bold green")
        count = self.page.live_jobs
        jobs = f"{count} job{'s' * (count != 1)}  " if self.page.jobs else ""
        line.append(f"  {jobs}{self.page.processes_live} processes  {at}", "dim")
        return line

    def _warnings(self, *, plain: bool) -> list[Text]:
        devices = self.page.devices
        sources = dict.fromkeys(d.source for d in devices if d.source in DOUBTS)
        lines = [
            f"{_names([d for d in devices if d.source == source])}: {DOUBTS[source]}"
            for source in sources
        ]
        lines += [f"{name} cannot be read in full: see jobwatt doctor" for name in self.page.down]
        lines += self.notes
        return [
            Text(visible(line, plain=plain), "yellow", no_wrap=True, overflow="ellipsis")
            for line in lines
        ]

    def _devices(self, *, plain: bool, width: int) -> Table:
        narrow, wide = width < NARROW_COLUMNS, width >= WIDE_COLUMNS
        with_source, with_limits = width >= LEAST_COLUMNS, width >= SMALL_COLUMNS
        table = new_table()
        table.add_column("DEVICE", no_wrap=True)
        if with_source:
            table.add_column("SOURCE", no_wrap=True)
        table.add_column("POWER", justify="right", no_wrap=True)
        if wide:
            table.add_column("", no_wrap=True)
        if with_limits:
            table.add_column("LIMIT", justify="right", no_wrap=True)
            table.add_column("IDLE", justify="right", no_wrap=True)
        table.add_column("ENERGY", justify="right", no_wrap=True)
        if not narrow:
            table.add_column("MODEL")
        for device in self.page.others:
            doubtful = "yellow" if device.source in DOUBTS else ""
            share = (device.power_watts or 0) / device.limit_watts if device.limit_watts else None
            limits = [power_cell(device.limit_watts), power_cell(device.idle_watts)]
            cells = [
                cell(device.name, "bold", plain=plain),
                *([cell(device.source, doubtful, plain=plain)] if with_source else []),
                power_cell(device.power_watts, "green"),
                *([bar(share, plain=plain)] if wide else []),
                *(limits if with_limits else []),
                Text(energy_text(device.energy_joules * UJ)),
                *([] if narrow else [cell(device.model, "dim", plain=plain)]),
            ]
            table.add_row(*cells)
        if not self.page.devices:
            table.add_row(Text("nothing is measured here; jobwatt doctor says why", "yellow"))
        return table

    def _gpus(self, *, plain: bool, width: int) -> Table:
        narrow, wide, bars = width < NARROW_COLUMNS, width >= WIDE_COLUMNS, width >= BARS_COLUMNS
        table = new_table()
        table.add_column("GPU", no_wrap=True)
        if not narrow:
            table.add_column("MODEL", max_width=None if wide else 10)
        table.add_column("POWER", justify="right", no_wrap=True)
        if bars:
            table.add_column("", no_wrap=True)
        if not narrow:
            table.add_column("LIMIT", justify="right", no_wrap=True)
        table.add_column("BUSY", justify="right", no_wrap=True)
        if not narrow:
            table.add_column("MEMORY", justify="right", no_wrap=True)
        if wide:
            table.add_column("TEMP", justify="right", no_wrap=True)
            table.add_column("ENERGY", justify="right", no_wrap=True)
        table.add_column("HELD BY", ratio=1, min_width=8)
        held = iter(names_of(self._holders(plain=plain)))
        for device in self.page.gpus:
            share = (device.power_watts or 0) / device.limit_watts if device.limit_watts else None
            gpu = device.gpu
            assert gpu is not None  # noqa: S101 - `gpus` are those that have it
            cells: list[Text | Name] = [
                cell(device.short_name, "bold", plain=plain),
                *([] if narrow else [cell(_short_model(device.model), "dim", plain=plain)]),
                power_cell(device.power_watts, "green"),
                *([bar(share, plain=plain)] if bars else []),
                *([] if narrow else [power_cell(device.limit_watts)]),
                _amount(gpu.utilization_ratio, lambda ratio: f"{ratio:.0%}"),
                *([] if narrow else [_memory(gpu)]),
                *([_warmth(gpu, plain=plain)] if wide else []),
                *([Text(energy_text(device.energy_joules * UJ))] if wide else []),
                next(held),
            ]
            table.add_row(*cells)
            for instance in gpu.instances:
                cells = [
                    cell(f"  {instance.name}" if narrow else "  MIG", "dim", plain=plain),
                    *([] if narrow else [cell(instance.name, plain=plain)]),
                    *[Text("")] * (1 + bars + (not narrow) + 1),
                    *([] if narrow else [_amount(instance.memory_used_bytes, _size)]),
                    *[Text("")] * (2 * wide),
                    next(held),
                ]
                table.add_row(*cells)
        return table

    def _holders(self, *, plain: bool) -> Iterator[Text]:
        """Say of each GPU, and then of its instances, who holds it."""
        for gpu in (device.gpu for device in self.page.gpus):
            if gpu is not None:
                yield _held(gpu, plain=plain)
                yield from (_held_part(gpu, part, plain=plain) for part in gpu.instances)

    def _processes(self, rows: int, *, plain: bool, width: int, bars: bool) -> Table:
        with_gpus, gpus_of = bool(self.page.gpus) and width >= NARROW_COLUMNS, self.page.gpus_of
        with_energy, with_user = width >= LEAST_COLUMNS, width >= SMALL_COLUMNS
        table = new_table()
        table.add_column("POWER", justify="right", no_wrap=True)
        if bars:
            table.add_column("", no_wrap=True)
        if with_energy:
            table.add_column("ENERGY", justify="right", no_wrap=True)
        if with_gpus:
            table.add_column("ON GPUS", justify="right", no_wrap=True)
            table.add_column("GPU", max_width=9)
        table.add_column("PID", justify="right", no_wrap=True)
        if with_user:
            table.add_column("USER", max_width=16)
        table.add_column("JOB", max_width=36)
        table.add_column("COMMAND", ratio=1, min_width=8)
        shown = sorted(self.page.processes, key=self._rank)[:rows]
        jobs = names_of(cell(process.job_uid, "cyan", plain=plain) for process in shown)
        most = max((process.power_watts for process in shown), default=0.0)
        for process, job in zip(shown, jobs, strict=True):
            on_gpus = cell(",".join(gpus_of.get(process.pid, ())), plain=plain)
            cells: list[Text | Name] = [
                power_cell(process.power_watts, "green"),
                *([bar(process.power_watts / (most or 1), plain=plain)] if bars else []),
                *([Text(energy_text(process.energy_joules * UJ))] if with_energy else []),
                *([_energy(process.gpu_joules), on_gpus] if with_gpus else []),
                Text(str(process.pid)),
                *([cell(process.user, plain=plain)] if with_user else []),
                job,
                self._command(process, plain=plain),
            ]
            table.add_row(*cells)
        if not shown:
            table.add_row(*[""] * (len(table.columns) - 1), Text("no process is listed yet", "dim"))
        return table

    def _command(self, process: ProcessRow, *, plain: bool) -> Text:
        command = cell(process.comm, "bold", plain=plain)
        if arguments := self.arguments(process):
            command.append(" " + visible(arguments, plain=plain), "not bold dim")
        return command

    def _rank(self, process: ProcessRow) -> tuple[float, float, int]:
        first, second = -process.power_watts, -process.energy_joules
        return (second, first, process.pid) if self.by == "energy" else (first, second, process.pid)


def _names(devices: Sequence[DeviceRow]) -> str:
    """Name devices; of several GPUs only how many there are."""
    gpus = [device for device in devices if device.component == "gpu"]
    names = [device.name for device in devices if device.component != "gpu"]
    return ", ".join(
        [*names, *([f"{len(gpus)} GPUs"] if len(gpus) > 1 else [g.name for g in gpus])]
    )


def _brief(name: str) -> str:
    match = _UUID.fullmatch(name)
    return match[1] if match else name


def _short_model(model: str) -> str:
    return model.removeprefix("NVIDIA ").removeprefix("Simulated ")


def _size(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def _amount(value: float | None, text: Callable[[float], str]) -> Text:
    return Text("-", "dim") if value is None else Text(text(value))


def _energy(joules: float) -> Text:
    return Text(energy_text(joules * UJ)) if joules > 0 else Text("-", "dim")


def _memory(gpu: GpuRow) -> Text:
    used, total = gpu.memory_used_bytes, gpu.memory_total_bytes
    if used is None or total is None:
        return _amount(used, _size)
    return Text(f"{used / GIB:.1f}/{_size(total)}")


def _warmth(gpu: GpuRow, *, plain: bool) -> Text:
    """Return the temperature, marked where the clocks are held down."""
    degrees = "C" if plain else "°C"
    text = _amount(gpu.temperature_celsius, lambda celsius: f"{celsius:.0f} {degrees}")
    if gpu.throttled:
        text.append(" throttled", "yellow")
    return text


def _held(gpu: GpuRow, *, plain: bool) -> Text:
    """Say who holds a GPU, or that nobody does, or that this is not known."""
    if gpu.holders is None or (gpu.contexts is None and not gpu.holders):
        return Text("-", "dim")
    if not gpu.contexts and not gpu.holders:
        return Text("free", "dim")
    unseen = (gpu.contexts or 0) - len({pid for _, pids in gpu.holders for pid in pids})
    return _line([job for job, _ in gpu.holders], unseen, is_idle=gpu.is_idle, plain=plain)


def _held_part(gpu: GpuRow, instance: InstanceRow, *, plain: bool) -> Text:
    if instance.pids is None:
        return Text("-", "dim")
    if not instance.pids:
        return Text("free", "dim")
    there = set(instance.pids)
    jobs = [(job, there.intersection(pids)) for job, pids in gpu.holders or ()]
    unseen = len(there.difference(*(pids for _, pids in jobs)))
    return _line([job for job, pids in jobs if pids], unseen, is_idle=False, plain=plain)


def _line(jobs: Sequence[str], unseen: int, *, is_idle: bool, plain: bool) -> Text:
    # The shortest first: a long one may then be cut.
    words = [*sorted(jobs, key=len), *([f"{unseen} unseen"] if unseen > 0 else [])]
    line = Text("idle: " if is_idle else "", "yellow", no_wrap=True, overflow="ellipsis")
    line.append(visible(", ".join(words), plain=plain), "not bold cyan")
    return line
