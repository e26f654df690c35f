"""What happens on a site, as a plan: everything that loses or doubles energy elsewhere.

All is planned in the seconds of a real site; a `pace` of 0.1 lets ten of them pass in one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from jobwatt.simulation.blueprint import Gpu, Hardware, Package, PowerModel
from jobwatt.simulation.fleet import Fleet, FleetJob, FleetNode, Outage, Stay, Zone

SCRAPE_TIMEOUT = 10.0
LINGER = 600.0
AGE = 30 * 86400.0

AWAY = (300.0, 600.0)
"""When a Prometheus is away."""

CUT_OFF = (292.0, 540.0)
"""When a node cannot be reached: that Prometheus is killed before it can note the series' end."""

END = 720.0

HARDWARE = Hardware(
    "A CPU",
    "Some DRAM",
    (Package(32, PowerModel(50.0, 250.0, 260.0), PowerModel(8.0, 30.0)),),
    (Gpu("A GPU", "Hopper", 80 << 30, PowerModel(70.0, 640.0, 700.0), "0000:1b:00.0"),),
)
WATTS = (81.25, 4.5, 303.125)
"""Of a job, on the package, the memory and the GPU of a node."""

ZONES = {"FR": Zone(56.0, 1.25, 0.18, "EUR"), "DE": Zone(344.0, 1.36, 0.25, "EUR")}


@dataclass(frozen=True)
class Case:
    """Jobs to which the same happens."""

    name: str
    nodes: tuple[FleetNode, ...]

    @property
    def jobs(self) -> set[str]:
        """The uids of its jobs."""
        return {stay.job.job_uid for node in self.nodes for stay in node.stays}


def _stay(job_uid: str, start: float, end: float, pause: tuple[float, float] | None = None) -> Stay:
    budget = 10_000_000.0 if job_uid == "slurm:64" else None
    job = FleetJob(job_uid, "job", "ada", "vision", "gpu", budget)
    return Stay(job, start, end, WATTS, pause, cpus=32, gpus=(0,))


def _node(name: str, *stays: Stay, zone: str = "FR") -> FleetNode:
    return FleetNode(name, HARDWARE, stays, zone, AGE)


SLOW = Case(
    "pages that take 4 s to come",
    tuple(_node(f"slow-{n}", _stay(f"slurm:74{n}", 75.2, 400.2)) for n in range(8)),
)


def _cases() -> tuple[Case, ...]:
    forty_five = [_stay(f"slurm:45{n:02}", 61.3 + 52 * n, 106.3 + 52 * n) for n in range(11)]
    three = [_stay(f"slurm:3{n:02}", 63.7 + 17 * n, 66.7 + 17 * n) for n in range(36)]
    wide = (
        _node(f"wide-{n:02}", _stay("slurm:64", 90.4, 210.4 + 4 * n), zone=("FR", "DE")[n % 2])
        for n in range(64)
    )
    reboot = _node("reboot", _stay("slurm:700", 75.2, 180), _stay("slurm:701", 285.5, 360.5))
    # What the last scrape before a loss has not seen nobody can know: the job waits just then.
    diskless = _node(
        "diskless", _stay("slurm:710", 75.2, 180, (140, 180)), _stay("slurm:710", 280.1, 420.1)
    )
    killed = _node("killed", _stay("slurm:720", 75.2, 400.2))
    cut_off = _node(
        "cut-off",
        _stay("slurm:730", 75.2, 680.2),
        _stay("slurm:731", 400.1, 445.1),
        _stay("slurm:732", 500.1, 503.1),
    )
    return (
        Case("45 s jobs", (_node("short", *forty_five),)),
        Case("3 s jobs", (_node("shortest", *three),)),
        Case("a job on 64 nodes that end one by one", tuple(wide)),
        Case("a reboot", (replace(reboot, outages=(Outage(180, 270),)),)),
        Case(
            "a reboot of a diskless node, its job goes on",
            (replace(diskless, outages=(Outage(180, 270, forgets=True),)),),
        ),
        Case(
            "an exporter that is killed, and started 90 s later",
            (replace(killed, outages=(Outage(150, 240),)),),
        ),
        SLOW,
        Case(
            "five minutes without scrapes: jobs across and within",
            (replace(cut_off, unreachable=(CUT_OFF,)),),
        ),
    )


CASES = _cases()
SLOW_SECONDS = 4.0
"""Less than the timeout of a scrape, and long enough to be under way when rules are evaluated."""


def paced(node: FleetNode, pace: float) -> FleetNode:
    """The same node in time that passes faster."""

    def span(start: float, end: float) -> tuple[float, float]:
        return start * pace, end * pace

    return replace(
        node,
        stays=tuple(
            replace(
                stay,
                start=stay.start * pace,
                end=stay.end * pace,
                pause=None if stay.pause is None else span(*stay.pause),
                watts=tuple(watts / pace for watts in stay.watts),
            )
            for stay in node.stays
        ),
        outages=tuple(replace(o, start=o.start * pace, end=o.end * pace) for o in node.outages),
        unreachable=tuple(span(*times) for times in node.unreachable),
    )


def fleet_of(cases: Iterable[Case], pace: float) -> Fleet:
    """The site on which all of these happen."""
    nodes = [paced(node, pace) for case in cases for node in case.nodes]
    return Fleet({node.name: node for node in nodes}, ZONES, pace, LINGER * pace, 120 * pace)
