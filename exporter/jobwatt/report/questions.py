"""What is asked of Prometheus, in PromQL.

Totals of a range are sums of recorded differences, which are exact. Where a site does not record
them, the counters' highest values stand for them: exact for a job that lies within the range, as
its counter starts at 0 J and lingers at its end (a maximum over time of a maximum over targets is
taken in the other order here: it is the same, and needs no subquery).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jobwatt.report.timerange import Window

__all__ = [
    "BY_COUNTERS",
    "EXPORTERS",
    "IS_LEFT_OPEN",
    "JOBS",
    "LAST_EVALUATION",
    "MOST_HALVINGS",
    "RECORDED",
    "SITE",
    "Question",
    "equal",
    "halved",
    "is_live",
    "unrecorded",
]

_JOB = "cluster, job_uid"
_NODE = "cluster, instance, job_uid"


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of question.

    Attributes:
        name: what its answers are folded by.
        metric: of the samples that are looked at.
        around: PromQL, in which `{range}` stands for the samples of the window, `{end}` and
            `{start}` for the last ones at its end and start.
        matchers: of the metric, always.
        by_time: whether parts of a range may be asked one by one.
    """

    name: str
    metric: str
    around: str
    matchers: tuple[str, ...] = ()
    by_time: bool = True

    def text(self, window: Window, matchers: Sequence[str], *, left_open: bool) -> str:
        """Return the expression, to be evaluated at the window's end.

        Ranges of Prometheus 2 have their left border in them: there they begin 1 ms later, which is
        the least that its times tell apart.
        """
        length_ms = window.length_ms - (0 if left_open else 1)
        inside = ", ".join((*self.matchers, *matchers))
        braces = f"{{{inside}}}" if inside else ""
        last = f"{self.metric}{braces}"
        return self.around.format(
            range=f"{last}[{length_ms}ms]",
            end=last,
            start=f"{last} offset {window.length_ms}ms",
        )


def _sums(name: str, metric: str, by: str = _JOB) -> Question:
    return Question(name, metric, f"sum by ({by}) (sum_over_time({{range}}))")


RECORDED = (
    _sums("energy", "job_uid:jobwatt_job_energy_joules:delta", f"{_JOB}, component"),
    _sums("full_energy", "job_uid:jobwatt_job_full_energy_joules:delta"),
    _sums("estimated", "job_uid:jobwatt_job_estimated_energy_joules:delta"),
    _sums("gpu_idle", "job_uid:jobwatt_job_gpu_idle_energy_joules:delta"),
    _sums("gpu_seconds", "job_uid:jobwatt_job_gpu_seconds:delta"),
    _sums("cpu_seconds", "job_uid:jobwatt_job_cpu_seconds:delta"),
    _sums("carbon", "job_uid:jobwatt_job_carbon_grams:delta"),
    _sums("cost", "job_uid:jobwatt_job_cost:delta", f"{_JOB}, currency"),
)
"""A job's use within the range. Parts of a range add up."""


def _ends(
    name: str, metric: str, series: str, by: str = _JOB, matchers: tuple[str, ...] = ()
) -> Iterable[Question]:
    for which in ("max", "min"):
        inner = f"{which} by ({series}) ({which}_over_time({{range}}))"
        around = f"sum by ({by}) ({inner})"
        yield Question(f"{name}_{which}", metric, around, matchers, by_time=False)


_DEVICE = f"{_NODE}, component, device, source"
_GUESSED = 'source=~"estimate|simulated"'

BY_COUNTERS = (
    *_ends("energy", "jobwatt_job_energy_joules_total", _DEVICE, f"{_JOB}, component"),
    *_ends("estimated", "jobwatt_job_energy_joules_total", _DEVICE, matchers=(_GUESSED,)),
    *_ends("gpu_idle", "jobwatt_job_gpu_idle_energy_joules_total", _NODE),
    *_ends("cpu_seconds", "jobwatt_job_cpu_seconds_total", _NODE),
)
"""The counters' highest and lowest values; a series' whole range must be asked for at once."""

_NAMES = "kind, job_name, user, account, queue, k8s_namespace"
_KNOWN = f"group by ({_JOB}, {_NAMES}) (last_over_time({{range}}))"
_EARLIEST = f"min by ({_NODE}) (min_over_time({{range}}))"
_LATEST = f"max by ({_NODE}) (max_over_time({{range}}))"

JOBS = (
    Question("names", "jobwatt_job_info", _KNOWN),
    Question("start", "jobwatt_job_start_timestamp_seconds", _EARLIEST),
    Question("since", "jobwatt_job_measured_since_timestamp_seconds", _EARLIEST),
    Question("end", "jobwatt_job_end_timestamp_seconds", _LATEST),
    Question("deadline", "jobwatt_job_deadline_timestamp_seconds", _LATEST),
)
"""What a job is called, and when it was where."""

_SERIES = "cluster, instance, component, device, source"
_GAIN = (
    "sum by (cluster, component) ("
    f"(max by ({_SERIES}) ({{end}}) - max by ({_SERIES}) ({{start}})) >= 0 or "
    f"max by ({_SERIES}) (max_over_time({{range}})) - "
    f"min by ({_SERIES}) (min_over_time({{range}})))"
)
# Unlike increase(), which extrapolates, it is what a rule's differences add up to. Maximum less
# minimum is for nodes that were away at a border of the window, or whose counter began anew.

SITE = (
    Question("measured", "jobwatt_device_energy_joules_total", _GAIN),
    Question("idle", "jobwatt_device_idle_energy_joules_total", _GAIN),
    Question("unattributed", "jobwatt_device_unattributed_energy_joules_total", _GAIN),
)
"""What the devices' counters gained."""

LAST_EVALUATION = f"max(timestamp({RECORDED[0].metric}))"
"""Unix seconds of the last evaluation of the rules before a moment."""

EXPORTERS = Question("exporters", "jobwatt_build_info", "count(present_over_time({range}))")
"""How many were scraped in a part of the range."""

IS_LEFT_OPEN = "count_over_time(vector(1)[2s:1s])"
"""2 where the left border is not in a range, as since Prometheus 3.0; else 3."""


def is_live(matchers: Sequence[str]) -> str:
    """Return the expression for the jobs that run at a moment, by node."""
    inside = f"{{{', '.join(matchers)}}}" if matchers else ""
    started, ended = "jobwatt_job_start_timestamp_seconds", "jobwatt_job_end_timestamp_seconds"
    return (
        f"group by ({_NODE}) ({started}{inside}) "
        f"unless on ({_NODE}) group by ({_NODE}) ({ended}{inside})"
    )


MINUTE_MS = 60_000
MOST_STEPS = 200


def unrecorded(window: Window) -> tuple[str, int]:
    """Return the expression for the steps at which jobs ran and nothing was recorded.

    With it, the milliseconds of a step.
    """
    step_ms = max(MINUTE_MS, window.length_ms // MOST_STEPS)
    recorded = RECORDED[0].metric
    inner = f"count(jobwatt_job_info) unless on () count({recorded})"
    return f"count_over_time(({inner})[{window.length_ms}ms:{step_ms}ms])", step_ms


def equal(label: str, values: Sequence[str]) -> tuple[str, ...]:
    """Return the matchers for a label with one of these values; none for no values."""
    if not values:
        return ()
    if len(values) == 1:
        return (f"{label}={_quoted(values[0])}",)
    return (f"{label}=~{_quoted('|'.join(map(re.escape, values)))}",)


_BITS = 4
"""Of a character: digits, and letters among themselves, differ by these."""

MOST_HALVINGS = 16
"""Four characters at the end of a job_uid: of 100,000 jobs of Slurm each part then has ten."""


def halved(depth: int) -> tuple[str, str]:
    """Return matchers that divide jobs into halves, by the bits of the job_uid's last characters.

    The second is the first one's negation: whatever a job_uid is made of, one of the two has it.
    """
    back, bit = divmod(depth, _BITS)
    ones = "".join(f"\\x{code:02x}" for code in range(0x80) if code >> bit & 1)
    pattern = _quoted(f"(?s:.*[{ones}]{'.' * back})")
    return f"job_uid=~{pattern}", f"job_uid!~{pattern}"


def _quoted(text: str) -> str:
    # PromQL's strings are Go's: they know all escapes that JSON writes for what is no surrogate.
    return json.dumps(text, ensure_ascii=False)
