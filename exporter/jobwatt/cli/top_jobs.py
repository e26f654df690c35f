"""The jobs in `jobwatt top`: what each draws and has used, of which budget, what it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from jobwatt.cli.top_cells import bar, cell, new_table, power_cell
from jobwatt.units import UJ, energy_text

__all__ = ["JobRow", "chosen_jobs", "job_row", "jobs_table", "left_out"]

BUDGET_NEAR = 0.8
BUDGET_COLUMNS = 8
ENDED_ROWS = 5
"""At least so many of those that have ended are shown."""

SLACK = 0.1
"""A job that keeps less of its CPUs busy lets them idle."""

MIDDLE_COLUMNS, WIDE_COLUMNS, WIDEST_COLUMNS = 76, 112, 146
"""From so many columns on, more is told of each job."""


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

    columns: list[tuple[str, bool, bool, Callable[[JobRow], Text]]] = [
        ("POWER", True, True, _power),
        ("", widest, False, power_bar),
        ("ENERGY", True, True, lambda job: Text(energy_text(job.energy_joules * UJ))),
        ("", wide, False, _parts),
        ("BUDGET", True, True, lambda job: _budget(job, wide=widest, plain=plain)),
        ("GPUS", middle, True, lambda job: _gpus(job, idle_gpus.get(job.job_uid, 0))),
        ("CPUS", middle, True, lambda job: _cpus(job, job.busy_cpus(now, cpu_before), now)),
        ("TIME", middle, True, lambda job: Text(_span((job.ended or now) - job.started))),
        ("ENDS", wide, False, lambda job: _end(job, now)),
        ("USER", middle, False, lambda job: cell(job.user, plain=plain)),
        ("ACCOUNT", widest, False, lambda job: cell(job.account, plain=plain)),
        ("QUEUE", widest, False, lambda job: cell(job.queue, plain=plain)),
        ("JOB", True, False, lambda job: _name(job, plain=plain)),
    ]
    chosen = [(name, right, make) for name, is_there, right, make in columns if is_there]
    table = new_table()
    for name, right, _ in chosen:
        names = {"USER": 10, "ACCOUNT": 12, "QUEUE": 22}
        if name == "JOB":
            table.add_column(name, ratio=1, min_width=8)
        elif name in names:
            table.add_column(name, max_width=names[name])
        else:
            table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for job in shown:
        table.add_row(*(make(job) for _, _, make in chosen), style="dim" if job.ended else "")
    return table


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


def _gpus(job: JobRow, idle: int) -> Text:
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


def _span(seconds: float) -> str:
    """Return a duration in at most five characters: `59s`, `12m`, `2h05m`, `3d02h`."""
    whole = max(0, round(seconds))
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


def _end(job: JobRow, now: float) -> Text:
    if job.ended is not None:
        return Text(f"{_span(now - job.ended)} ago")
    if job.deadline is None:
        return Text("-", "dim")
    return Text(f"in {_span(job.deadline - now)}" if job.deadline > now else "overdue")


def _name(job: JobRow, *, plain: bool) -> Text:
    if not job.name:
        return cell(job.job_uid, "cyan", plain=plain)
    text = cell(job.name, "bold", plain=plain)
    text.append_text(Text(" "))
    text.append_text(cell(job.job_uid, "not bold cyan", plain=plain))
    return text
