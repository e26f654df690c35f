"""The report, for people (report.md) and for programs (report.json)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hardware.checks import Findings

MARKS = {True: "holds", False: "**does not hold**", None: "does not apply"}


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest value that `part` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def timing(values: Sequence[float]) -> dict[str, float]:
    """How long something took, and how often it was done."""
    return {
        "count": len(values),
        "p50": quantile(values, 0.5),
        "p99": quantile(values, 0.99),
        "max": max(values),
    }


def write_report(
    folder: Path,
    machine: Mapping[str, str],
    found: Findings,
    calls: Mapping[str, Mapping[str, Any]],
    cost: Mapping[str, Any],
) -> None:
    """Write both."""
    whole = {
        "machine": dict(machine),
        "holds": found.hold,
        "verdicts": [vars(verdict) for verdict in found.verdicts],
        "figures": found.figures,
        "calls": dict(calls),
        "cost": dict(cost),
    }
    (folder / "report.json").write_text(f"{json.dumps(whole, indent=1, ensure_ascii=False)}\n")
    (folder / "report.md").write_text("\n".join(_pages(machine, found, calls, cost)))


def _pages(
    machine: Mapping[str, str],
    found: Findings,
    calls: Mapping[str, Mapping[str, Any]],
    cost: Mapping[str, Any],
) -> Iterable[str]:
    figures = found.figures
    yield "# JobWatt beside a training on a GPU\n"
    yield f"{'All checks hold.' if found.hold else 'Not all checks hold.'}\n"
    yield from table(("machine", ""), machine.items())
    yield "## Checks\n"
    rows = ((one.name, MARKS[one.holds], one.says) for one in found.verdicts)
    yield from table(("", "", "seen"), rows)
    yield "## Phases\n"
    yield from table(
        ("phase", "s", "W", "∫ power, J", "counter, J", "counter / ∫"),
        (
            (
                name,
                f"{row['seconds']:.1f}",
                f"{row['watts']:.1f}",
                f"{row['integral_joules']:.1f}",
                f"{row['counter_joules']:.1f}" if "counter_joules" in row else "–",
                f"{row['counter_joules'] / row['integral_joules'] - 1:+.2%}"
                if "counter_joules" in row
                else "–",
            )
            for name, row in figures.get("phases", {}).items()
        ),
    )
    yield "## Two processes on one GPU\n"
    yield from table(
        ("process", "J", "share of energy", "share of SM samples", "mean SM, %"),
        (
            (
                name,
                f"{row['joules']:.1f}",
                f"{row['share']:.1%}",
                f"{row['sm_share']:.1%}",
                f"{row['mean_sm']:.1f}",
            )
            for name, row in figures.get("shares", {}).items()
        ),
    )
    yield "## NVML calls of the exporter\n"
    yield "Its own meter in another process, four looks a second; power is polled meanwhile.\n"
    yield from table(
        ("function", "calls", "p50, µs", "p99, µs", "max, µs", "codes"),
        (
            (
                f"`{name}`",
                row["count"],
                *(f"{row[key]:.0f}" for key in ("p50", "p99", "max")),
                ", ".join(f"{code}: {times}" for code, times in row["codes"].items()),
            )
            for name, row in sorted(calls.items(), key=lambda one: -one[1]["p50"])
        ),
    )
    look, look_cpu = cost["look_ms"], cost["look_cpu_ms"]
    yield "## What it costs\n"
    yield from table(
        ("", ""),
        (
            ("a look at all GPUs, p50 / p99, ms", f"{look['p50']:.2f} / {look['p99']:.2f}"),
            ("CPU of a look, p50 / p99, ms", f"{look_cpu['p50']:.2f} / {look_cpu['p99']:.2f}"),
            ("CPU a sample, with GPU, ms", f"{cost['with_gpu_ms']:.2f}"),
            ("CPU a sample, without, ms", f"{cost['without_gpu_ms']:.2f}"),
            (
                "CPU a sample for GPUs beyond a look, ms",
                f"{cost['with_gpu_ms'] - cost['without_gpu_ms'] - look_cpu['p50']:+.2f}",
            ),
        ),
    )
    yield "A sample includes one scrape, with and without GPU.\n"


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Iterable[str]:
    """A table in Markdown."""
    yield f"| {' | '.join(map(str, head))} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        cells = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        yield f"| {' | '.join(cells)} |"
    yield ""
