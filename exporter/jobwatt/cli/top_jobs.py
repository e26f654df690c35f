"""The jobs in `jobwatt top`: what each draws and has used, of which budget, what it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from jobwatt.cli.top_cells import GAP_COLUMNS, bar, cell, new_table, power_cell
from jobwatt.cli.top_names import names_of
from jobwatt.units import UJ, energy_text

__all__ = ["JobRow", "chosen_jobs", "job_row", "jobs_table", "left_out", "span_text"]

BUDGET_NEAR = 0.8
BUDGET_COLUMNS = 8
ENDED_ROWS = 5
"""At least so many of those that have ended are shown."""

SLACK = 0.1
"""A job that keeps less of its CPUs busy lets them idle."""

MIDDLE_COLUMNS, WIDE_COLUMNS, WIDEST_COLUMNS = 76, 112, 146
"""From so many columns on, more is told of each job."""

NAME_COLUMNS = 16
"""Other columns leave where a name would have less."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job's line; None, or "", is what is not known or not there."""

    job_uid: str
    name: str
    user: str
    account: str
    queue: str
    power_watts: float
    energy_joules: float
    components: Mapping[str, float]
    cpu_seconds: float
    gpus: int
    cpus: float | None
    budget_joules: float | None
    started: float
    measured_since: float
    deadline: float | None
    ended: float | None

    @property
    def budget_ratio(self) -> float | None:
        """The part of its budget that it has used."""
        return self.energy_joules / self.budget_joules if self.budget_joules else None

    def busy_cpus(
        self, now: float, before: tuple[float, Mapping[str, float]] | None
    ) -> float | None:
        """Return how many CPUs it keeps busy: since a time before, else since it is measured.

        None of one that has just been found: there is no time to measure it by.

        Args:
            now: Unix time.
            before: an earlier Unix time, and the CPU seconds by job then.
        """
        if before is not None and now > before[0] and self.job_uid in before[1]:
            return (self.cpu_seconds - before[1][self.job_uid]) / (now - before[0])
        seconds = (now if self.ended is None else self.ended) - self.measured_since
        return self.cpu_seconds / seconds if seconds >= 1 else None


def job_row(job: Mapping[str, Any]) -> JobRow:
    """Take what a status tells of a job; an exporter of an earlier version tells less."""
    account = job.get("account")
    places = (job.get("k8s_namespace"), job.get("queue"))
    return JobRow(
        job_uid=str(job["job_uid"]),
        name=str(job.get("name") or ""),
        user=str(job["user"]),
        account="" if account in {None, "none"} else str(account),
        queue="/".join(str(place) for place in places if place),
        power_watts=float(job["power_watts"]),
        energy_joules=float(job["energy_joules"]),
        components={str(name): float(part) for name, part in job.get("components", {}).items()},
        cpu_seconds=float(job["cpu_seconds"]),
        gpus=int(job["gpus"]),
        cpus=_optional(job.get("cpus")),
        budget_joules=_optional(job.get("budget_joules")),
        started=float(job["started"]),
        measured_since=float(job["measured_since"]),
        deadline=_optional(job.get("deadline")),
        ended=_optional(job.get("ended")),
    )


def _optional(value: float | None) -> float | None:
    return None if value is None else float(value)


def chosen_jobs(jobs: Sequence[JobRow], by: str, rows: int) -> list[JobRow]:
    """Return the jobs to show: live ones in their order, then the latest that have ended.

    Args:
        jobs: all of them.
        by: `power`, `energy` or `budget`.
        rows: how many at most.
    """
    live = sorted((job for job in jobs if job.ended is None), key=_rank(by))
    ended = sorted(
        (job for job in jobs if job.ended is not None), key=lambda job: -(job.ended or 0)
    )
    shown = live[: max(1, rows - min(ENDED_ROWS, len(ended)))]
    return shown + ended[: rows - len(shown)]


def left_out(jobs: Sequence[JobRow], shown: Sequence[JobRow]) -> Text | None:
    """Say how many jobs are not shown; None where all are."""
    live, ended = (
        sum(is_live is (job.ended is None) for job in jobs)
        - sum(is_live is (job.ended is None) for job in shown)
        for is_live in (True, False)
    )
    words = [f"{count} more {what}" for count, what in ((live, "live"), (ended, "ended")) if count]
    return Text(", ".join(words), "dim", no_wrap=True, overflow="ellipsis") if words else None


def jobs_table(
    shown: Sequence[JobRow],
    now: float,
    *,
    width: int,
    plain: bool,
    idle_gpus: Mapping[str, int],
    cpu_before: tuple[float, Mapping[str, float]] | None = None,
) -> Table:
    """Return the table of jobs.

    Args:
        shown: the jobs, in this order.
        now: Unix time.
        width: of the terminal, in columns.
        plain: for a terminal of ASCII only.
        idle_gpus: how many of the GPUs that a job holds do nothing, by job.
        cpu_before: an earlier time and the CPU seconds by job then.
    """
    middle, wide, widest = (w <= width for w in (MIDDLE_COLUMNS, WIDE_COLUMNS, WIDEST_COLUMNS))
    most = max((job.power_watts for job in shown), default=0.0)

    def power_bar(job: JobRow) -> Text:
        share = None if job.ended is not None else job.power_watts / (most or 1)
        return bar(share, plain=plain)

    columns = [
        _Column("POWER", _power, right=True),
        _Column("", power_bar, is_there=widest, leaves=1),
        _Column("ENERGY", lambda job: Text(energy_text(job.energy_joules * UJ)), right=True),
        _Column("", _parts, is_there=wide, leaves=2),
        _Column(
            "BUDGET", lambda job: _budget(job, wide=widest, plain=plain), right=True, leaves=10
        ),
        _Column("GPUS", lambda job: _gpus(job, idle_gpus), right=True, is_there=middle, leaves=9),
        _Column(
            "CPUS",
            lambda job: _cpus(job, job.busy_cpus(now, cpu_before), now),
            right=True,
            is_there=middle,
            leaves=8,
        ),
        _Column("TIME", lambda job: _time(job, now), right=True, is_there=middle, leaves=6),
        _Column("ENDS", lambda job: _end(job, now), is_there=wide, leaves=5),
        _Column("USER", lambda job: cell(job.user, plain=plain), 10, is_there=middle, leaves=7),
        _Column(
            "ACCOUNT", lambda job: cell(job.account, plain=plain), 12, is_there=widest, leaves=4
        ),
        _Column("QUEUE", lambda job: cell(job.queue, plain=plain), 22, is_there=widest, leaves=3),
    ]
    names = names_of(_name(job, plain=plain) for job in shown)
    longest = max((name.text.cell_len for name in names), default=0)
    fitting = _fitting(
        [c for c in columns if c.is_there], shown, width - min(longest, NAME_COLUMNS)
    )
    table = new_table()
    for column, _ in fitting:
        if column.most is not None:
            table.add_column(column.heading, max_width=column.most)
        else:
            justify: Literal["right", "left"] = "right" if column.right else "left"
            table.add_column(column.heading, justify=justify, no_wrap=True)
    table.add_column("JOB", ratio=1, min_width=8)
    for row, (job, name) in enumerate(zip(shown, names, strict=True)):
        cells = (cells[row] for _, cells in fitting)
        table.add_row(*cells, name, style="dim" if job.ended else "")
    return table


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table, beside that of the names.

    Attributes:
        make: writes a job's cell.
        most: how wide it may be; None: as wide as its cells are.
        right: whether it is aligned to the right.
        is_there: whether a terminal of this width has it.
        leaves: those with the smallest go first where names need its place; None: it stays.
    """

    heading: str
    make: Callable[[JobRow], Text]
    most: int | None = None
    right: bool = False
    is_there: bool = True
    leaves: int | None = None

    def columns(self, cells: Sequence[Text]) -> int:
        """Return how wide it is, with what parts it from the next."""
        widest = max((cell.cell_len for cell in cells), default=0)
        return max(len(self.heading), min(widest, self.most or widest)) + GAP_COLUMNS


def _fitting(
    columns: Sequence[_Column], shown: Sequence[JobRow], room: int
) -> list[tuple[_Column, list[Text]]]:
    """Return the columns that there is room for, and their cells."""
    made = [(column, [column.make(job) for job in shown]) for column in columns]
    for leaving in sorted(c.leaves for c in columns if c.leaves is not None):
        if sum(column.columns(cells) for column, cells in made) <= room:
            break
        made = [(column, cells) for column, cells in made if column.leaves != leaving]
    return made


def _rank(by: str) -> Callable[[JobRow], tuple[float, float, str]]:
    def rank(job: JobRow) -> tuple[float, float, str]:
        ratio = job.budget_ratio
        first = {
            "power": job.power_watts,
            "energy": job.energy_joules,
            "budget": -1.0 if ratio is None else ratio,
        }[by]
        return -first, -job.energy_joules, job.job_uid

    return rank


def _power(job: JobRow) -> Text:
    return Text("ended") if job.ended is not None else power_cell(job.power_watts, "green")


def _parts(job: JobRow) -> Text:
    """Name the component that used the most."""
    if job.energy_joules <= 0 or not job.components:
        return Text("")
    name, most = max(job.components.items(), key=lambda part: part[1])
    return Text(f"{name} {most / job.energy_joules:.0%}", "dim")


def _budget(job: JobRow, *, wide: bool, plain: bool) -> Text:
    """Say how much of its budget is used; beyond it also without colours."""
    ratio = job.budget_ratio
    if ratio is None:
        return Text("-", "dim")
    style = "bold red" if ratio >= 1 else "yellow" if ratio >= BUDGET_NEAR else "green"
    text = Text()
    if wide:
        text.append_text(bar(ratio, plain=plain, style=style, columns=BUDGET_COLUMNS))
        text.append(" ")
    text.append(f"{ratio:4.0%}{'!' if ratio >= 1 else ' '}", style)
    return text


def _gpus(job: JobRow, idle_gpus: Mapping[str, int]) -> Text:
    idle = idle_gpus.get(job.job_uid, 0)
    if job.ended is not None or not job.gpus:
        return Text("-", "dim")
    if not idle:
        return Text(str(job.gpus))
    return Text(f"{job.gpus} idle" if idle >= job.gpus else f"{job.gpus}, {idle} idle", "yellow")


def _cpus(job: JobRow, busy: float | None, now: float) -> Text:
    """Say how many CPUs are busy, of how many that it holds."""
    if job.ended is not None or (busy is None and job.cpus is None):
        return Text("-", "dim")
    if busy is None:
        return Text(f"-/{job.cpus:g}")
    if job.cpus is None:
        return Text(f"{busy:.1f}")
    slack = busy < SLACK * job.cpus and now - job.started > 60  # noqa: PLR2004 - it has settled
    return Text(f"{busy:.1f}/{job.cpus:g}", "yellow" if slack else "")


def span_text(seconds: float) -> str:
    """Return what has passed, or is left, rounded down, in at most five characters: `59s`, `2h05m`.

    The page (`exposition/page.html`) says the same.
    """
    whole = max(0, int(seconds))
    if whole < 100:  # noqa: PLR2004
        return f"{whole}s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 100:  # noqa: PLR2004
        return f"{minutes}m"
    if hours < 10:  # noqa: PLR2004
        return f"{hours}h{minutes % 60:02}m"
    if hours < 100:  # noqa: PLR2004
        return f"{hours}h"
    return f"{days}d"


def _time(job: JobRow, now: float) -> Text:
    return Text(span_text((job.ended or now) - job.started))


def _end(job: JobRow, now: float) -> Text:
    if job.ended is not None:
        return Text(f"{span_text(now - job.ended)} ago")
    if job.deadline is None:
        return Text("-", "dim")
    return Text(f"in {span_text(job.deadline - now)}" if job.deadline > now else "overdue")


def _name(job: JobRow, *, plain: bool) -> Text:
    if not job.name:
        return cell(job.job_uid, "cyan", plain=plain)
    text = cell(job.name, "bold", plain=plain)
    text.append_text(Text(" "))
    text.append_text(cell(job.job_uid, "not bold cyan", plain=plain))
    return text
