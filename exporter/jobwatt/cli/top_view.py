"""What `jobwatt top` draws: one status as text for a terminal, devices above processes.

Names come from strangers: they are never read as markup, and what is invisible or would steer the
terminal is shown escaped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from jobwatt.units import UJ, energy_text, power_text

__all__ = ["DeviceRow", "Frame", "Page", "ProcessRow", "visible"]

DOUBTS = {"estimate": "ESTIMATED, not measured", "simulated": "SIMULATED, made up"}
"""Sources that must not be taken for a measurement."""

BAR_COLUMNS = 16
NARROW_COLUMNS = 76
"""Below this many columns, what is nice to know is left out."""


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


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process's line."""

    pid: int
    comm: str
    user: str
    job_uid: str
    power_watts: float
    energy_joules: float


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown of a status (`jobwatt.exposition.status`)."""

    time: float
    processes_live: int
    down: tuple[str, ...]
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
    )


def _process_row(process: Mapping[str, Any]) -> ProcessRow:
    return ProcessRow(
        pid=int(process["pid"]),
        comm=str(process["comm"]),
        user=str(process["user"]),
        job_uid=str(process["job_uid"]),
        power_watts=float(process["power_watts"]),
        energy_joules=float(process["energy_joules"]),
    )


def _optional(value: float | None) -> float | None:
    return None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture, drawn by rich to the width of its console.

    Attributes:
        page: what is shown.
        node: whose it is.
        by: `power` or `energy`, the order of the processes.
        rows: the most processes shown.
        notes: sentences for the head, such as a lost connection.
        arguments: the command line of a process as far as it is known, without its name.
        fill: whether the processes must fit into the height of the terminal.
    """

    page: Page
    node: str
    by: str
    rows: int
    notes: Sequence[str] = ()
    arguments: Callable[[ProcessRow], str] = lambda _: ""
    fill: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the head, the devices and the processes."""
        plain, narrow = options.ascii_only, options.max_width < NARROW_COLUMNS
        head = [self._title(plain=plain), *self._warnings(plain=plain)]
        yield from head
        yield self._devices(plain=plain, narrow=narrow)
        rows = self.rows
        if self.fill:
            # The two tables' headings, and the empty line between them.
            rows = min(rows, console.height - len(head) - len(self.page.devices) - 3)
        yield Text("")
        yield self._processes(max(rows, 1), plain=plain, narrow=narrow)

    def _title(self, *, plain: bool) -> Text:
        total = self.page.power_watts
        doubt = "~" if any(d.source in DOUBTS for d in self.page.devices) else ""
        at = time.strftime("%H:%M:%S", time.localtime(self.page.time))
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append("JobWatt", "bold")
        line.append(f"  {visible(self.node, plain=plain)}  ")
        power = "power not known" if total is None else doubt + power_text(total)
        line.append(power, "bold green")
        line.append(f"  {self.page.processes_live} processes  {at}", "dim")
        return line

    def _warnings(self, *, plain: bool) -> list[Text]:
        devices = self.page.devices
        sources = dict.fromkeys(d.source for d in devices if d.source in DOUBTS)
        lines = [
            f"{', '.join(d.name for d in devices if d.source == source)}: {DOUBTS[source]}"
            for source in sources
        ]
        lines += [f"{name} cannot be read in full: see jobwatt doctor" for name in self.page.down]
        lines += self.notes
        return [
            Text(visible(line, plain=plain), "yellow", no_wrap=True, overflow="ellipsis")
            for line in lines
        ]

    def _devices(self, *, plain: bool, narrow: bool) -> Table:
        table = _table()
        for name in ("DEVICE", "SOURCE"):
            table.add_column(name)
        table.add_column("POWER", justify="right", no_wrap=True)
        if not narrow:
            table.add_column("", no_wrap=True)
        table.add_column("LIMIT", justify="right", no_wrap=True)
        table.add_column("IDLE", justify="right", no_wrap=True)
        table.add_column("ENERGY", justify="right", no_wrap=True)
        if not narrow:
            table.add_column("MODEL")
        for device in self.page.devices:
            doubtful = "yellow" if device.source in DOUBTS else ""
            share = (device.power_watts or 0) / device.limit_watts if device.limit_watts else None
            cells = [
                _cell(device.name, "bold", plain=plain),
                _cell(device.source, doubtful, plain=plain),
                _power(device.power_watts, "green"),
                *([] if narrow else [_bar(share, plain=plain)]),
                _power(device.limit_watts),
                _power(device.idle_watts),
                Text(energy_text(device.energy_joules * UJ)),
                *([] if narrow else [_cell(device.model, "dim", plain=plain)]),
            ]
            table.add_row(*cells)
        if not self.page.devices:
            table.add_row(Text("nothing is measured here; jobwatt doctor says why", "yellow"))
        return table

    def _processes(self, rows: int, *, plain: bool, narrow: bool) -> Table:
        table = _table()
        table.add_column("POWER", justify="right", no_wrap=True)
        if not narrow:
            table.add_column("", no_wrap=True)
        table.add_column("ENERGY", justify="right", no_wrap=True)
        table.add_column("PID", justify="right", no_wrap=True)
        table.add_column("USER", max_width=16)
        table.add_column("JOB", max_width=36)
        table.add_column("COMMAND", ratio=1, min_width=8)
        shown = sorted(self.page.processes, key=self._rank)[:rows]
        most = max((process.power_watts for process in shown), default=0.0)
        for process in shown:
            command = _cell(process.comm, "bold", plain=plain)
            if arguments := self.arguments(process):
                command.append(" " + visible(arguments, plain=plain), "not bold dim")
            cells = [
                _power(process.power_watts, "green"),
                *([] if narrow else [_bar(process.power_watts / (most or 1), plain=plain)]),
                Text(energy_text(process.energy_joules * UJ)),
                Text(str(process.pid)),
                _cell(process.user, plain=plain),
                _cell(process.job_uid, "cyan", plain=plain),
                command,
            ]
            table.add_row(*cells)
        if not shown:
            table.add_row(*[""] * (len(table.columns) - 1), Text("no process is listed yet", "dim"))
        return table

    def _rank(self, process: ProcessRow) -> tuple[float, float, int]:
        first, second = -process.power_watts, -process.energy_joules
        return (second, first, process.pid) if self.by == "energy" else (first, second, process.pid)


def visible(text: str, *, plain: bool) -> str:
    """Return a text as one line that is safe to print; `plain` for a terminal of ASCII only."""
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    return shown.encode("ascii", "backslashreplace").decode() if plain else shown


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=False)


def _cell(text: str, style: str = "", *, plain: bool) -> Text:
    # Not wrapped by itself, so that its column may shrink without growing a second line.
    return Text(visible(text, plain=plain), style, no_wrap=True, overflow="ellipsis")


def _power(watts: float | None, style: str = "") -> Text:
    return Text("-", "dim") if watts is None else Text(power_text(watts), style)


def _bar(share: float | None, *, plain: bool) -> Text:
    """Draw a share of 1; nothing where there is no limit to measure it by."""
    if share is None:
        return Text("")
    filled = round(min(max(share, 0.0), 1.0) * BAR_COLUMNS)
    full, empty = ("#", ".") if plain else ("━", "─")
    bar = Text(full * filled, "green")
    bar.append(empty * (BAR_COLUMNS - filled), "dim")
    return bar
