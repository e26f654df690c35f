"""What a run has cost: computed from the statuses before and after it; as text and as JSON.

The JSON object; what is not known is null, never 0:

    version         of JobWatt
    job_uid         whose figures these are: `run:<id>`, or the scheduler's job that the command is
                    part of; then they are all that this job used here while the command ran
    id, account, command, host
    started, ended  of the command, Unix seconds; seconds
    exit_code, signal (its name, where one ended the command)
    measured_by     "exporter" or "jobwatt run", exporter (its address)
    energy_joules   of this node; components {name: joules}; sources {name: joules}
    measured_ratio  share of it that is measured, not estimated or simulated
    power_watts     the mean
    cpu_seconds     of the job as it was measured; cpu_seconds_used of the command as the kernel
                    counts it
    gpu_idle_joules idle energy of the GPUs that the job held; it is not in energy_joules
    coverage        from, to: Unix seconds; ratio of the command's life; own_cgroup: whether also
                    processes were counted that lived between two samples; still_running: whether
                    processes of the job go on; missing [text]: what the figures do not
                    have
    notes           [text]: what else is to be known of them
    carbon          grams, grams_per_kwh, pue: null where no carbon intensity is configured
    cost            amount, price_per_kwh, pue, currency: null where no price is configured
    budget          joules, used_ratio, exceeded: null where none was given
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jobwatt
from jobwatt.config import Config
from jobwatt.records import kind_of
from jobwatt.run.child import Ended
from jobwatt.run.measure import Status, interval_of
from jobwatt.units import (
    UJ,
    carbon_text,
    duration_text,
    energy_text,
    few_digits,
    power_text,
)

__all__ = ["BRIEF_INTERVALS", "Figures", "Run", "as_json", "as_text", "as_told", "figures_of"]

JOULES_PER_KWH = 3.6e6

NOT_MEASURED = frozenset({"estimate", "simulated"})

LATE_INTERVALS = 2
"""A job whose account was opened later than so many intervals after its start has lost some."""

BRIEF_INTERVALS = 3
"""A command that lived shorter may have been seen by no sample."""

LOST_RATIO, LOST_SECONDS = 0.02, 0.1
"""CPU time that is missing is told where it is more than both."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A job of a status."""

    energy_joules: float
    components: Mapping[str, float]
    sources: Mapping[str, float]
    cpu_seconds: float
    gpu_idle_joules: float
    measured_since: float
    is_live: bool

    def since(self, before: Figures | None) -> Figures:
        """Return what was used since an earlier status of the same account."""
        if before is None or before.measured_since != self.measured_since:
            return self
        return Figures(
            self.energy_joules - before.energy_joules,
            _less(self.components, before.components),
            _less(self.sources, before.sources),
            self.cpu_seconds - before.cpu_seconds,
            self.gpu_idle_joules - before.gpu_idle_joules,
            self.measured_since,
            self.is_live,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """All that is known of a run once it has ended.

    Attributes:
        run_id: the value of JOBWATT_JOB.
        job_uid: whose figures are taken.
        is_shared: whether more than this command may be in them.
        exporter: its address, None where this command measured by itself, or nobody did.
        before, after: statuses; None where there is none.
        trouble: why not, and what else the reader should know.
        cpu_seconds_used: of the command and all its children.
        still_running: whether processes of the command go on; None where only its account tells.
    """

    run_id: str
    job_uid: str
    is_shared: bool
    account: str | None
    command: Sequence[str]
    host: str
    started: float
    seconds: float
    end: Ended
    exporter: str | None
    before: Status | None
    after: Status | None
    cpu_seconds_used: float
    own_cgroup: bool
    budget_joules: float | None = None
    still_running: bool | None = None
    trouble: Sequence[str] = field(default_factory=tuple)

    @property
    def ended(self) -> float:
        """Unix time of the command's end."""
        return self.started + self.seconds


def figures_of(told: Status | None, job_uid: str) -> Figures | None:
    """Return a job's figures out of a status; None where it has none."""
    for job in (told or {}).get("jobs", ()):
        if job.get("job_uid") == job_uid:
            return Figures(
                float(job["energy_joules"]),
                dict(job["components"]),
                dict(job["sources"]),
                float(job["cpu_seconds"]),
                float(job["gpu_idle_joules"]),
                float(job["measured_since"]),
                job["ended"] is None,
            )
    return None


def as_told(told: Status | None, job_uid: str) -> str:
    """Return a job's name as a status has it.

    Which run of a requeued Slurm job this is, a file of root's tells: not everybody may read it.
    """
    if kind_of(job_uid) != "slurm":
        return job_uid
    live = [str(job["job_uid"]) for job in (told or {}).get("jobs", ()) if job["ended"] is None]
    runs = [name for name in live if name.startswith(f"{job_uid}:r")]
    return job_uid if job_uid in live or len(runs) != 1 else runs[0]


def as_json(run: Run, config: Config) -> dict[str, Any]:
    """Return the receipt, ready for JSON; the module's docstring is its schema."""
    found = figures_of(run.after, run.job_uid)
    figures = found.since(figures_of(run.before, run.job_uid)) if found else None
    missing = list(run.trouble)
    # A job whose devices tell nothing has not used 0 J: nobody knows what it used.
    if figures is not None and not figures.components:
        missing += _unmeasured(run.after or {})
        energy = None
    elif figures is None:
        if run.after is not None:
            missing.append(_unseen(run))
            missing += _unmeasured(run.after) if not run.after.get("devices") else ()
        energy = None
    else:
        energy = figures.energy_joules
        missing += _lost(run, figures)
    live = bool(figures and figures.is_live) if run.still_running is None else run.still_running
    return {
        "version": jobwatt.__version__,
        "job_uid": run.job_uid,
        "id": run.run_id,
        "account": run.account,
        "command": list(run.command),
        "host": run.host,
        "started": run.started,
        "ended": run.ended,
        "seconds": run.seconds,
        "exit_code": run.end.code,
        "signal": run.end.signal,
        "measured_by": _measured_by(run),
        "exporter": run.exporter,
        "energy_joules": energy,
        "components": dict(figures.components) if figures and energy is not None else None,
        "sources": dict(figures.sources) if figures and energy is not None else None,
        "measured_ratio": _measured_ratio(figures) if figures and energy else None,
        "power_watts": energy / run.seconds if energy is not None and run.seconds > 0 else None,
        "cpu_seconds": figures.cpu_seconds if figures else None,
        "cpu_seconds_used": None if run.is_shared else run.cpu_seconds_used,
        "gpu_idle_joules": figures.gpu_idle_joules if figures else None,
        "coverage": _coverage(run, figures if energy is not None else None)
        | {"still_running": live, "missing": missing},
        "notes": list(_notes(run, is_live=live)),
        "carbon": _carbon(energy, config),
        "cost": _cost(energy, config),
        "budget": _budget(energy, run.budget_joules),
    }


def as_text(receipt: Mapping[str, Any]) -> str:
    """Return a receipt for people, made of what `as_json` returns."""
    return "\n".join(_lines(receipt)) + "\n"


# --- figures ------------------------------------------------------------------------------------


def _less(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: round(joules - before.get(name, 0.0), 6) for name, joules in after.items()}


def _measured_by(run: Run) -> str | None:
    if run.after is None:
        return None
    return "jobwatt run" if run.exporter is None else "exporter"


def _measured_ratio(figures: Figures) -> float | None:
    total = sum(figures.sources.values())
    guessed = sum(j for source, j in figures.sources.items() if source in NOT_MEASURED)
    return (total - guessed) / total if total > 0 else None


def _coverage(run: Run, figures: Figures | None) -> dict[str, Any]:
    if figures is None or run.after is None:
        return {"from": None, "to": None, "ratio": 0.0, "own_cgroup": run.own_cgroup}
    begin = min(run.started + _late(run, figures), run.ended)
    end = max(begin, min(run.ended, float(run.after["time"])))
    ratio = (end - begin) / run.seconds if run.seconds > 0 else 1.0
    return {"from": begin, "to": end, "ratio": ratio, "own_cgroup": run.own_cgroup}


def _late(run: Run, figures: Figures) -> float:
    """Return the seconds between the command's start and the first that was measured of it.

    An account is opened at the sample after, and takes in all since the sample before.
    """
    late = figures.measured_since - run.started
    return late if late > LATE_INTERVALS * interval_of(run.after or {}) else 0.0


def _carbon(energy: float | None, config: Config) -> dict[str, Any] | None:
    if energy is None or config.grid_carbon_intensity is None:
        return None
    grams = energy / JOULES_PER_KWH * config.grid_pue * config.grid_carbon_intensity
    return {
        "grams": grams,
        "grams_per_kwh": config.grid_carbon_intensity,
        "pue": config.grid_pue,
    }


def _cost(energy: float | None, config: Config) -> dict[str, Any] | None:
    if energy is None or config.grid_price is None:
        return None
    return {
        "amount": energy / JOULES_PER_KWH * config.grid_pue * config.grid_price,
        "price_per_kwh": config.grid_price,
        "pue": config.grid_pue,
        "currency": config.grid_currency or None,
    }


def _budget(energy: float | None, budget: float | None) -> dict[str, Any] | None:
    if budget is None:
        return None
    used = None if energy is None else energy / budget
    return {"joules": budget, "used_ratio": used, "exceeded": None if used is None else used > 1}


# --- what is missing ----------------------------------------------------------------------------


def _unseen(run: Run) -> str:
    if "jobs" not in (run.after or {}):
        return "this exporter does not tell of jobs: it is older than this command"
    if run.exporter is None:
        return "nothing of the command was seen: it ended between two samples"
    absent = f"the exporter has no account of {run.job_uid}"
    if kind_of(run.job_uid) == "k8s":
        return f"{absent}: where the API tells it the pod's owner, the job has that name there"
    if run.is_shared:
        return f"{absent}; `jobwatt doctor` tells what it can see"
    interval = interval_of(run.after or {})
    if run.seconds < BRIEF_INTERVALS * interval and not run.own_cgroup:
        return (
            f"{absent}: the command lived {duration_text(run.seconds)}, and may have ended between "
            f"two samples, {interval:g} s apart; where longer ones are not seen either, `jobwatt "
            "doctor` tells why"
        )
    return (
        f"{absent}: it may not be allowed to read the environment of this user's processes; "
        "`jobwatt doctor` tells"
    )


def _unmeasured(told: Status) -> Iterator[str]:
    for name, reasons in _down(told).items():
        yield f"{name} cannot be read ({', '.join(reasons) or 'failed'})"
    yield "no energy can be measured here; `jobwatt doctor` tells why and what mends it"


def _down(told: Status) -> dict[str, list[str]]:
    return {
        source["source"]: [reason for reason, count in source["errors"].items() if count]
        for source in told.get("sources", ())
        if not source["up"]
    }


def _lost(run: Run, figures: Figures) -> Iterator[str]:
    """Say what the figures do not have."""
    after, before = run.after or {}, run.before or {}
    if late := _late(run, figures):
        yield f"the first {duration_text(late)}: the account was opened only then"
    if (early := run.ended - float(after["time"])) > 0:
        yield f"the last {duration_text(early)}: no sample was taken since"
    if not run.is_shared:
        lost = run.cpu_seconds_used - figures.cpu_seconds
        if lost > max(LOST_RATIO * run.cpu_seconds_used, LOST_SECONDS):
            yield (
                f"{lost:.1f} s of {run.cpu_seconds_used:.1f} s of CPU time: processes that lived "
                "between two samples, or of a run within this one"
            )
    for source, reasons in _down(after).items():
        yield f"{source} cannot be read now ({', '.join(reasons) or 'failed'})"
    gaps = {device["device"]: float(device["gap_seconds"]) for device in before.get("devices", ())}
    for device in after.get("devices", ()):
        gap = float(device["gap_seconds"]) - gaps.get(device["device"], 0.0)
        if gap > 0:
            yield f"{device['device']} during {duration_text(gap)}, in which it was not read"


def _notes(run: Run, *, is_live: bool) -> Iterator[str]:
    if run.job_uid != f"run:{run.run_id}":
        yield f"the figures are all that {run.job_uid} used here while the command ran"
    if is_live and not run.is_shared:
        yield "processes of the job still run: these are the figures until now"
    unknown = [d["device"] for d in (run.after or {}).get("devices", ()) if _lacks_idle(d)]
    if unknown:
        yield f"idle power of {', '.join(unknown)} is not known: idle energy is among the energy"


def _lacks_idle(device: Mapping[str, Any]) -> bool:
    return device.get("idle_watts") is None and device.get("energy_joules", 0) > 0


# --- text ---------------------------------------------------------------------------------------


def _lines(receipt: Mapping[str, Any]) -> Iterator[str]:
    end = receipt["signal"] or f"exit code {receipt['exit_code']}"
    yield f"JobWatt  {receipt['job_uid']}  {duration_text(receipt['seconds'])}  {end}"
    if receipt["account"]:
        yield _line("account", receipt["account"])
    yield from _energy_lines(receipt)
    for label, text in (
        ("carbon", _carbon_text),
        ("cost", _cost_text),
        ("budget", _budget_text),
    ):
        if receipt[label] is not None:
            yield _line(label, text(receipt[label]))
    yield _line("measured", _measured_text(receipt))
    for note in receipt["notes"]:
        yield _line("note", note)
    for what in receipt["coverage"]["missing"]:
        yield _line("missing", what)


def _energy_lines(receipt: Mapping[str, Any]) -> Iterator[str]:
    energy, watts = receipt["energy_joules"], receipt["power_watts"]
    if energy is None:
        yield _line("energy", "not measured")
    else:
        mean = "" if watts is None else f", {power_text(watts)} on average"
        yield _line("energy", f"{_energy(energy)}{mean}")
        for name, joules in receipt["components"].items():
            share = f"{100 * joules / energy:4.0f} %" if energy > 0 else ""
            yield _line("", f"{name:<5} {_energy(joules):>12}  {share}".rstrip())
    if receipt["gpu_idle_joules"]:
        yield _line("", f"besides, GPUs held idle: {_energy(receipt['gpu_idle_joules'])}")
    if receipt["cpu_seconds"] is not None:
        yield _line("CPU time", duration_text(receipt["cpu_seconds"]))
    if energy:
        yield _line("sources", _sources(receipt))


def _line(label: str, text: str) -> str:
    return f"  {label:<9} {text}"


def _energy(joules: float) -> str:
    return energy_text(joules * UJ)


def _sources(receipt: Mapping[str, Any]) -> str:
    total = receipt["energy_joules"]
    parts = [f"{name} {100 * j / total:.0f} %" for name, j in receipt["sources"].items() if j > 0]
    ratio = receipt["measured_ratio"]
    kind = {None: "", 1.0: ": all measured", 0.0: ": NOT MEASURED, estimated"}.get(
        ratio, f": {100 * (ratio or 0):.0f} % measured, the rest ESTIMATED"
    )
    return f"{', '.join(parts)}{kind}"


def _carbon_text(carbon: Mapping[str, Any]) -> str:
    amount = carbon_text(carbon["grams"])
    return f"{amount} CO2 ({carbon['grams_per_kwh']:g} g/kWh, PUE {carbon['pue']:g})"


def _cost_text(cost: Mapping[str, Any]) -> str:
    currency = f" {cost['currency']}" if cost["currency"] else ""
    price = f"{cost['price_per_kwh']:g}{currency}/kWh"
    return f"{few_digits(cost['amount'])}{currency} ({price}, PUE {cost['pue']:g})"


def _budget_text(budget: Mapping[str, Any]) -> str:
    size = _energy(budget["joules"])
    if budget["used_ratio"] is None:
        return f"{size}, of which nobody knows how much was used"
    used = f"{few_digits(100 * budget['used_ratio'])} % of {size} used on this node"
    return f"EXCEEDED: {used}" if budget["exceeded"] else used


def _measured_text(receipt: Mapping[str, Any]) -> str:
    coverage = receipt["coverage"]
    if receipt["measured_by"] is None:
        return "by nobody"
    who = (
        f"by the exporter at {receipt['exporter']}"
        if receipt["measured_by"] == "exporter"
        else "by this command, since no exporter answers"
    )
    if coverage["from"] is None:
        return who
    whole = "" if coverage["ratio"] > 0.999 else f", {100 * coverage['ratio']:.1f} % of the time"  # noqa: PLR2004
    short = (
        "all processes"
        if coverage["own_cgroup"]
        else "processes that live between two samples may be missing"
    )
    return f"{who}{whole}; {short}"
