"""A report for programs: JSON and CSV, in base units. docs/report.md lists the keys."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

import jobwatt
from jobwatt.report.collect import Report
from jobwatt.report.jobs import Job
from jobwatt.report.rows import Figures, Row
from jobwatt.report.timerange import moment_text

__all__ = ["SCHEMA_VERSION", "as_csv", "as_json"]

SCHEMA_VERSION = 1
"""It grows when a key goes or means something else; new keys may come without that."""

COMPONENTS = ("cpu", "dram", "gpu")

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a text that begins so for a formula, and names are strangers' texts."""


def as_json(report: Report) -> str:
    """Return one object; what is not known is null."""
    window = report.wanted.window
    site = report.site
    page = {
        "schema_version": SCHEMA_VERSION,
        "version": jobwatt.__version__,
        "prometheus": report.prometheus,
        "from": window.start,
        "to": window.end,
        "from_text": moment_text(window.start),
        "to_text": moment_text(window.end),
        "by": report.wanted.by,
        "method": report.method,
        "rows": [_about(row, report.wanted.by) | _figures(row.figures) for row in report.rows],
        "others": _figures(report.others) if report.others.jobs else None,
        "total": _figures(report.total),
        "site": None
        if site is None
        else {
            "measured_joules": site.measured,
            "jobs_joules": site.jobs,
            "idle_joules": site.idle,
            "unattributed_joules": site.unattributed,
            "difference_joules": site.difference,
        },
        "notes": list(report.notes),
    }
    return json.dumps(page, indent=2, allow_nan=False) + "\n"


def as_csv(report: Report) -> str:
    """Return a line a row below a head; what is not known is empty. There is no line of sums."""
    currencies = sorted(report.total.cost)
    lines = [_about(row, report.wanted.by) | _flat(row.figures, currencies) for row in report.rows]
    head = [
        *(_of_job(Job("", "")) if report.wanted.by == "job" else (report.wanted.by,)),
        *_flat(Figures(), currencies),
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, head, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in line.items()} for line in lines)
    return text.getvalue()


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _about(row: Row, by: str) -> dict[str, Any]:
    return {by: row.key or None} if row.job is None else _of_job(row.job)


def _of_job(job: Job) -> dict[str, Any]:
    names = job.names
    return {
        "cluster": job.cluster or None,
        "job_uid": job.job_uid,
        "kind": names.kind or None,
        "job_name": names.job_name or None,
        "user": names.user or None,
        "account": names.account or None,
        "queue": names.queue or None,
        "namespace": names.namespace or None,
        "state": job.state().value,
        "started": job.start,
        "ended": job.end,
        "nodes": len(job.nodes),
    }


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        "jobs": figures.jobs,
        "began_before": figures.began_before,
        "goes_on": figures.goes_on,
        "energy_joules": figures.energy_joules,
        "components": dict(sorted(figures.components.items())),
        "full_energy_joules": figures.full_energy_joules,
        "estimated_joules": figures.estimated_joules,
        "gpu_idle_joules": figures.gpu_idle_joules,
        "gpu_idle_ratio": figures.gpu_idle_ratio,
        "gpu_seconds": figures.gpu_seconds,
        "cpu_seconds": figures.cpu_seconds,
        "carbon_grams": figures.carbon_grams,
        "cost": dict(sorted(figures.cost.items())),
        "node_seconds": figures.seconds,
        "measured_ratio": figures.coverage_ratio,
    }


def _flat(figures: Figures, currencies: list[str]) -> dict[str, Any]:
    """Return the figures of a row without objects in them."""
    flat = _figures(figures)
    components: Mapping[str, float] = flat.pop("components")
    cost: Mapping[str, float] = flat.pop("cost")
    flat |= {f"{name}_joules": components.get(name) for name in COMPONENTS}
    return flat | {f"cost_{currency}": cost.get(currency) for currency in currencies}
