"""A job's total by the rules beside other ways to it: `make bench-exactness`.

The cases of tests/fleet_cases.py without hurry: scrapes and rules every 15 s, twelve minutes.

    exactness.py [--pace 1] [--write docs/exactness.md]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.bench import table
from fleet_cases import CASES, Case
from fleets import METHODS, Site, lived

SERVERS = {
    "2": "all the time",
    "2 restarted": "killed, and away for five minutes",
    "3": "all the time",
}


def version(site: Site, replica: str) -> str:
    """The release of a server."""
    return str(site.replicas[replica].get("status/buildinfo")["version"]).partition("+")[0]


def errors(site: Site, case: Case, replica: str) -> list[str]:
    """How far each method is from the truth: of all jobs of a case, and of the worst."""
    cells = []
    truth = sum(site.joules[uid] for uid in case.jobs)
    for expr in METHODS.values():
        found = site.by_job(site.replicas[replica], expr)
        total = sum(found.get(uid, 0.0) for uid in case.jobs) / truth - 1
        each = [found.get(uid, 0.0) / site.joules[uid] - 1 for uid in case.jobs]
        worst = max(each, key=abs)
        cells.append(
            _percent(total) if len(each) == 1 else f"{_percent(total)} ({_percent(worst)})"
        )
    return cells


def _percent(part: float) -> str:
    return f"{0.0 if abs(part) < 5e-5 else part:+.2%}".replace("+0.00%", "0.00%")


def report(site: Site, pace: float) -> str:
    """Return docs/exactness.md."""
    parts = []
    for replica, how in SERVERS.items():
        rows = [
            [
                case.name,
                str(len(case.jobs)),
                f"{sum(site.joules[uid] for uid in case.jobs) / 1000:,.1f}",
                *errors(site, case, replica),
            ]
            for case in CASES
        ]
        head = ["what happens", "jobs", "truth, kJ", *METHODS]
        parts.append(f"### Prometheus {version(site, replica)}, {how}\n\n{table(head, rows)}")
    tables = "\n".join(parts)
    return f"""\
# How exact totals are

Written by `make bench-exactness` on {time.strftime("%Y-%m-%d")}: real Prometheus servers scraped
simulated nodes, whose truth is known, every {15 * pace:g} s, and evaluated the rules in
`prometheus/rules/recording`. The figures are relative errors of the total of all jobs of a line,
and of its worst job in brackets.

- **the rules**: `sum_over_time(job_uid:jobwatt_job_energy_joules:delta[…])`.
- **`max_over_time`** of the counters, summed over nodes: right for a job whose counters never begin
  anew. It needs the raw series of the job's whole life.
- **`increase`** of the counters: what a series shows in its first scrape never counts, and it
  extrapolates to the ends of the range.
- **mean power**: `rate` over four scrapes, integrated, as dashboards do that record power only.

{tables}
The same runs as a test, at 7.5 times the pace (`tests/stack/test_exactness.py`): no job may be off
by more than 0.1 % under the rules, its carbon and its cost neither, and two replicas read as one
give the same totals.

**Pages that take 4 s to come** are under way while the rules are evaluated, one after the other. A
rule that reads such a counter, and a later one of the same evaluation that reads it again, need not
see the same: jobs on nodes whose phase is unlucky would lose up to all of their energy. Hence each
counter is read once an evaluation, into its snapshot.

What no rule can know: the energy between the last scrape of a counter and the loss of its state,
as when a diskless node crashes (in the case above the job waits just then); jobs that Prometheus
did not reach within the ten minutes after their end. A Prometheus that is killed in the moment in
which it evaluates may miss one interval.
"""


def main() -> None:
    """Let it all happen, and print, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pace", type=float, default=1.0)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="jobwatt-exactness-") as folder,
        lived(Path(folder), arguments.pace) as site,
    ):
        page = report(site, arguments.pace)
    if arguments.write:
        arguments.write.write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main()
