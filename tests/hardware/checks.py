"""What must hold of what was seen. Pure: `Observed` in, verdicts and figures out.

Expected values come from the GPU as this script read it itself: power at 20 Hz and more, the energy
counter, and the driver's samples of who was busy. Of the exporter only its pages are used.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hardware.curve import Curve
from hardware.measure import Observed
from hardware.page import UJ, Page, without_device

LEAST_HERTZ = 20
MOST_HOLE_SECONDS = 1.0

POWER_RATIO = 0.05
"""Instant power is a sample: on Hopper, of 25 of each 100 ms."""

REFRESH_SECONDS = 0.2
"""A counter may be so old at either end of a span."""

COUNTER_RATIO = 0.005
IDLE_RATIO, IDLE_WATTS = 0.05, 3.0
SHARE_POINTS = 0.05
UNATTRIBUTED_RATIO = 0.02
DEATH_RATIO = 0.15
TAIL_RATIO = 0.3
"""A process's last half second must be paid at least so far: contexts take their time to go."""

SETTLE_INTERVALS = 2
"""So many samples after a change the pages show the new state alone."""

BIN_SECONDS = 1.0


@dataclass(frozen=True)
class Verdict:
    """One check; `holds` is None where it does not apply to this GPU."""

    name: str
    holds: bool | None
    says: str


@dataclass
class Findings:
    """All verdicts, and the figures that they rest on."""

    verdicts: list[Verdict] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def hold(self) -> bool:
        return all(verdict.holds is not False for verdict in self.verdicts)


class Judge:
    """Looks at one run."""

    def __init__(self, seen: Observed) -> None:
        self.seen = seen
        self.found = Findings()
        self.integral = Curve.integral(seen.power)
        # The exporter integrates power itself where the counter is missing, or the module's.
        source = next((page.source for _, page in reversed(seen.pages) if page.source), "")
        self.counts = bool(seen.counter) and source != "nvml_power"
        self.energy = Curve(seen.counter) if self.counts else self.integral
        shown = [(at, page) for at, page in seen.pages if page.energy_uj is not None]
        # The exporter counts from 0: where that lies on the counter, most pages agree on.
        self.zero = statistics.median(
            [self.energy.at(at) - (page.energy_uj or 0) / UJ for at, page in shown] or [0.0]
        )
        self.pages = [(self.energy.when(self.zero + (p.energy_uj or 0) / UJ), p) for _, p in shown]
        self.sampled = [at for at, _ in shown]

    def judge(self) -> Findings:
        """Check everything."""
        checks: tuple[Callable[[], Verdict], ...] = (
            self.polling,
            self.pids,
            self.counter_and_power,
            self.exporter_and_counter,
            self.conservation,
            self.sources,
            self.idle,
            self.alone,
            self.shares,
            self.death,
        )
        for check in checks:
            try:
                verdict = check()
            except (LookupError, ZeroDivisionError, ValueError) as error:
                # Nothing to judge by is no proof.
                name = check.__name__.replace("_", " ")
                verdict = Verdict(name, False, f"too little was seen to judge: {error!r}")
            self.found.verdicts.append(verdict)
        return self.found

    # --- the GPU itself -------------------------------------------------------------------------

    def polling(self) -> Verdict:
        times = self.integral.times
        hertz = (len(times) - 1) / (times[-1] - times[0])
        hole = max(after - before for before, after in pairwise(times))
        kind = "instant" if self.seen.instant else "average"
        refused = ", ".join(f"{what} ({times}×)" for what, times in self.seen.refused.items())
        self.found.figures["polling"] = {
            "hertz": hertz,
            "hole_seconds": hole,
            "power": kind,
            "odd_samples": self.seen.odd_samples,
            "refused": self.seen.refused,
        }
        return Verdict(
            "power was polled often enough",
            hertz >= LEAST_HERTZ and hole <= MOST_HOLE_SECONDS and not refused,
            f"{kind} power at {hertz:.1f} Hz, longest hole {hole * 1000:.0f} ms"
            + (f"; refused: {refused}" if refused else ""),
        )

    def pids(self) -> Verdict:
        hidden = [name for name, shown in self.seen.shown.items() if not shown]
        says = "both are listed"
        if hidden:
            says = (
                f"{' and '.join(hidden)} not listed: pids here are not the driver's; run in the "
                "host's PID namespace (docker run --pid=host)"
            )
        return Verdict(
            "the driver lists the processes by their pids",
            bool(self.seen.shown and not hidden),
            says,
        )

    def counter_and_power(self) -> Verdict:
        rows: dict[str, dict[str, float]] = {}
        wrong: list[str] = []
        whole = ("all", self.integral.times[0], self.integral.times[-1])
        for name, start, end in (*self.seen.phases, whole):
            integral = self.integral.over(start, end)
            rows[name] = {
                "seconds": end - start,
                "watts": integral / (end - start),
                "integral_joules": integral,
            }
            if not self.counts:
                continue
            counted = rows[name]["counter_joules"] = self.energy.over(start, end)
            slack = POWER_RATIO * integral + REFRESH_SECONDS * rows[name]["watts"]
            if abs(counted - integral) > slack:
                wrong.append(f"{name}: {counted:.0f} J against {integral:.0f} J")
        self.found.figures["phases"] = rows
        name = "the energy counter agrees with the integral of power"
        if not self.counts:
            return Verdict(name, None, "this GPU has no counter of its own: power is integrated")
        if self.energy.falls:
            wrong.append(f"the counter fell {self.energy.falls} times")
        apart = rows["all"]["counter_joules"] / rows["all"]["integral_joules"] - 1
        return Verdict(name, not wrong, "; ".join(wrong) or f"{apart:+.2%} over the whole run")

    # --- the exporter ---------------------------------------------------------------------------

    def exporter_and_counter(self) -> Verdict:
        apart = [
            self.energy.at(at) - self.zero - (page.energy_uj or 0) / UJ
            for at, (_, page) in zip(self.sampled, self.pages, strict=True)
        ]
        shown = (self.pages[-1][1].energy_uj or 0) / UJ
        late = [self.energy.at(at) - self.energy.at(at - self.seen.interval) for at in self.sampled]
        refresh = REFRESH_SECONDS * max(watts for _, watts in self.seen.power)
        slack = [COUNTER_RATIO * shown + refresh + one for one in late]
        wrong = sum(not -refresh <= one <= most for one, most in zip(apart, slack, strict=True))
        self.found.figures["exporter"] = {
            "pages": len(self.pages),
            "joules": shown,
            "counter_joules": self.energy.at(self.sampled[-1]) - self.zero,
            "zero_joules": self.zero,
            "median_apart_joules": statistics.median(map(abs, apart)),
            "most_apart_joules": max(map(abs, apart)),
        }
        last = abs(apart[-1])
        fits = last <= COUNTER_RATIO * shown + refresh / 2 + late[-1]
        return Verdict(
            "the exporter's energy follows the counter",
            not wrong and fits and without_device([p for _, p in self.seen.pages[2:]]) == 0,
            f"{shown:.1f} J at the end, {apart[-1]:+.1f} J apart; on {len(self.pages)} pages at "
            f"most {max(map(abs, apart)):.1f} J apart, {wrong} of them too far",
        )

    def conservation(self) -> Verdict:
        broken = [(at, page.open_sums) for at, page in self.seen.pages if page.open_sums]
        says = f"{len(self.seen.pages)} pages close to the microjoule"
        if broken:
            says = f"{len(broken)} of {len(self.seen.pages)} pages do not close: {broken[0][1]} µJ"
        self.found.figures["open_pages"] = len(broken)
        return Verdict(
            "energy = processes + other + retired + idle + unattributed",
            bool(self.pages) and not broken,
            says,
        )

    def sources(self) -> Verdict:
        pages = [page for _, page in self.seen.pages]
        source = pages[-1].source
        down = sum(not page.up.get(source, False) for page in pages[2:])
        errors = {key: n for key, n in pages[-1].errors.items() if key.startswith("nvml")}
        self.found.figures["source"] = {"name": source, "down": down, "errors": errors}
        return Verdict(
            "every reading succeeded",
            down == 0 and not errors,
            f"{source}: down on {down} pages, errors: {errors or 'none'}",
        )

    def idle(self) -> Verdict:
        learned = next((page.idle for _, page in self.pages if page.idle), None)
        name, start, end = self.seen.phases[0]
        own = self.energy.over(start, end) / (end - start)
        watts = learned[0] if learned else None
        self.found.figures["idle"] = {"learned_watts": watts, "own_watts": own}
        if learned is None:
            return Verdict("idle power is learned", False, f"not within {end - start:.0f} s")
        return Verdict(
            "idle power is learned",
            abs(learned[0] - own) <= max(IDLE_RATIO * own, IDLE_WATTS),
            f"{learned[0]:.2f} W ({learned[1]}); {own:.2f} W in the phase {name!r}",
        )

    def alone(self) -> Verdict:
        """Whoever is alone on the GPU pays for all that is above idle."""
        wrong: list[str] = []
        figures = {}
        for phase in ("one process", "one again"):
            (_, first), (_, last) = self._span(phase)
            active = last.active_uj - first.active_uj
            nobody = last.parts["unattributed"] - first.parts["unattributed"]
            pid = self.seen.workers["A"][0]
            paid = last.processes.get(pid, 0) - first.processes.get(pid, 0)
            figures[phase] = {"active_joules": active / UJ, "paid_joules": paid / UJ}
            if nobody > UNATTRIBUTED_RATIO * active or paid < (1 - UNATTRIBUTED_RATIO) * active:
                wrong.append(f"{phase}: {paid / UJ:.1f} J of {active / UJ:.1f} J")
        self.found.figures["alone"] = figures
        says = ", ".join(
            f"{f['paid_joules']:.1f} J of {f['active_joules']:.1f} J" for f in figures.values()
        )
        return Verdict("a process that is alone pays all", not wrong, "; ".join(wrong) or says)

    def shares(self) -> Verdict:
        """Two processes share as the driver's samples say."""
        (start, first), (end, last) = self._span("two processes")
        pids = {name: pid for name, (pid, *_) in self.seen.workers.items()}
        paid = {
            name: last.processes.get(pid, 0) - first.processes.get(pid, 0)
            for name, pid in pids.items()
        }
        busy = {name: self._busy(pid, start, end) for name, pid in pids.items()}
        figures = {
            name: {
                "joules": paid[name] / UJ,
                "share": paid[name] / sum(paid.values()),
                "sm_share": busy[name] / sum(busy.values()),
                "mean_sm": busy[name] / max(1, self._slots(start, end)),
            }
            for name in pids
        }
        methods = {
            name: (uj - first.methods.get(name, 0)) / UJ
            for name, uj in last.methods.items()
            if uj > first.methods.get(name, 0)
        }
        nobody = (last.parts["unattributed"] - first.parts["unattributed"]) / UJ
        self.found.figures["shares"] = figures
        self.found.figures["methods_of_two"] = methods
        self.found.figures["unattributed_of_two_joules"] = nobody
        apart = max(abs(one["share"] - one["sm_share"]) for one in figures.values())
        by_samples = set(methods) == {"sm_utilization"}
        return Verdict(
            "two processes share by their SM utilisation",
            by_samples and apart <= SHARE_POINTS and all(paid.values()),
            ", ".join(f"{n} {f['share']:.1%} (SM {f['sm_share']:.1%})" for n, f in figures.items())
            + f"; by {', '.join(methods) or 'nothing'}; {nobody:.1f} J nobody's",
        )

    def death(self) -> Verdict:
        """What a process used before it died between two samples reaches its account."""
        pid, _, died = self.seen.workers["B"]
        start, first = self._span("two processes")[0]
        before_at, before = [(at, p) for at, p in self.pages if at <= died][-1]
        after = [p for at, p in self.pages if at > died + SETTLE_INTERVALS * self.seen.interval]
        last, paid_at_last = self.pages[-1][1], after[0].processes[pid]
        paid = (last.processes[pid] - first.processes[pid]) / UJ
        tail = (last.processes[pid] - before.processes[pid]) / UJ
        owed, owed_tail = self._owed(pid, start, died), self._owed(pid, before_at, died)
        late = (last.processes[pid] - paid_at_last) / UJ
        self.found.figures["death"] = {
            "since": start,
            "seconds_after_sample": died - before_at,
            "joules": paid,
            "expected_joules": owed,
            "tail_joules": tail,
            "expected_tail_joules": owed_tail,
            "late_joules": late,
        }
        return Verdict(
            "a process that died between two samples has paid",
            abs(paid - owed) <= DEATH_RATIO * owed and tail >= TAIL_RATIO * owed_tail and late == 0,
            f"died {died - before_at:.2f} s after a sample: {paid:.1f} J, expected {owed:.1f} J; "
            f"after that sample {tail:.1f} J, expected {owed_tail:.1f} J; later {late:.1f} J",
        )

    # --- helpers --------------------------------------------------------------------------------

    def _span(self, phase: str) -> tuple[tuple[float, Page], tuple[float, Page]]:
        """The first and the last page of a phase on which nothing else shows."""
        _, start, end = next(one for one in self.seen.phases if one[0] == phase)
        settled = start + SETTLE_INTERVALS * self.seen.interval
        pages = [(at, page) for at, page in self.pages if settled <= at <= end]
        if len(pages) < 2:
            raise ValueError(f"{len(pages)} pages in the phase {phase!r}")
        return pages[0], pages[-1]

    def _busy(self, pid: int, start: float, end: float) -> int:
        return sum(one.sm for one in self.seen.samples if one.pid == pid and start < one.at <= end)

    def _slots(self, start: float, end: float) -> int:
        return len({one.at for one in self.seen.samples if start < one.at <= end})

    def _owed(self, pid: int, start: float, died: float) -> float:
        """A process's part of what the GPU used above idle, by power and samples of our own."""
        idle = next((page.idle[0] for _, page in self.pages if page.idle), 0.0)
        # The driver's last sample of it may carry a later time than its death.
        end, owed, at = died + BIN_SECONDS, 0.0, start
        while at < end:
            until = min(at + BIN_SECONDS, end)
            sums = {p: self._busy(p, at, until) for p, *_ in self.seen.workers.values()}
            if sums[pid]:
                active = self.integral.over(at, until) - idle * (until - at)
                owed += max(0.0, active) * sums[pid] / sum(sums.values())
            at = until
        return owed
