"""What the jobs of a made-up site have really used: the truth for totals and receipts."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from jobwatt.simulation.fleet import ALWAYS, Fleet, FleetNode, Stay
from jobwatt.simulation.fleet_page import fleet_devices

__all__ = ["truth"]

JOULES_PER_KWH = 3_600_000.0


def truth(fleet: Fleet, at: float, epoch: float) -> dict[str, Any]:
    """Return what each job that ends some day has used up to a moment, ready for JSON.

    Args:
        fleet: the site.
        at: seconds after the start of the simulation.
        epoch: the Unix time of that start.

    Returns:
        `time`, and a list `jobs` with `job_uid`, `account`, `user`, `nodes`, `start` and `end`
        (Unix times; planned where it lies ahead), `joules` by component, `carbon_grams`, `cost` by
        currency.
    """
    stays: dict[str, list[tuple[FleetNode, Stay]]] = defaultdict(list)
    for node in fleet.nodes.values():
        for stay in node.stays:
            if stay.start <= at and stay.end != ALWAYS:
                stays[stay.job.job_uid].append((node, stay))
    jobs = [_of_job(fleet, places, at, epoch) for places in stays.values()]
    return {"time": epoch + at, "jobs": jobs}


def _of_job(
    fleet: Fleet, places: list[tuple[FleetNode, Stay]], at: float, epoch: float
) -> dict[str, Any]:
    joules: dict[str, float] = defaultdict(float)
    cost: dict[str, float] = defaultdict(float)
    grams = 0.0
    for node, stay in places:
        seconds = stay.busy_seconds(stay.start, at)
        for device, watts in zip(fleet_devices(node.hardware, ""), stay.watts, strict=True):
            joules[device.component.value] += watts * seconds
        if (zone := fleet.zones.get(node.grid_zone)) is not None:
            kwh = sum(stay.watts) * seconds * zone.pue / JOULES_PER_KWH
            grams += kwh * zone.grams_per_kwh
            cost[zone.currency] += kwh * zone.price
    job = places[0][1].job
    return {
        "job_uid": job.job_uid,
        "account": job.account,
        "user": job.user,
        "nodes": sorted({node.name for node, _ in places}),
        "start": epoch + min(stay.start for _, stay in places),
        "end": epoch + max(stay.end for _, stay in places),
        "joules": dict(joules),
        "carbon_grams": grams,
        "cost": dict(cost),
    }
