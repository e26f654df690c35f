"""A made-up site of any size: the same numbers and seed, the same jobs at the same moments.

Most jobs are short, most of the energy is in the few that are long or wide. Jobs wait where no
place is free; no node is oversubscribed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from jobwatt.simulation.blueprint import Hardware
from jobwatt.simulation.fleet import (
    ALWAYS,
    Fleet,
    FleetJob,
    FleetNode,
    Stay,
    Zone,
    power_models,
)
from jobwatt.simulation.gpu_server import GPU_SERVER
from jobwatt.simulation.scenarios import TWO_SOCKET_SERVER

__all__ = ["JOBS_A_NODE", "UNDER_WAY_SECONDS", "make_fleet"]

JOBS_A_NODE = 20
"""Jobs that a node is given in a day on average, each on however many nodes it needs."""

UNDER_WAY_SECONDS = 3000.0
"""Jobs have come for so long when the simulation begins. Less than the hour within which the rules
take a job that they had not known for a new one: none of its energy is lost."""

GPU_NODE_EVERY = 8
PLACES = 4
"""Equal parts of a node, of which a job takes one or more."""

CANDIDATES = 5
"""A job looks at so many nodes for each that it needs, and one more time as many."""

AGE_SECONDS = 30 * 86400.0
"""For how long exporters had counted."""

ZONES = {
    "FR": Zone(56.0, 1.25, 0.18, "EUR"),
    "DE": Zone(344.0, 1.36, 0.25, "EUR"),
    "PL": Zone(615.0, 1.5, 0.21, "EUR"),
}
"""Round figures, for the sake of the arithmetic."""

LENGTHS = ((0.05, 1, 10), (0.6, 30, 600), (0.3, 600, 7200), (0.05, 7200, 43200))
"""(part of the jobs, shortest, longest): seconds, evenly over their logarithm."""

WIDTHS = ((0.86, 1, 1), (0.12, 2, 8), (0.02, 16, 64))
"""(part of the jobs, fewest, most): nodes."""

TEAMS = ("vision", "nlp", "chem", "climate", "robotics", "bio")
USERS_A_TEAM = 5
BUDGETED = 0.3
"""Part of the jobs that have a budget, of one to three times what they will use."""

NAMES = ("pretrain", "finetune", "eval", "sweep", "tokenize", "simulate")
PROCESSES = (("python",), ("python", "pt_data_worker"), ("python", "python", "pt_data_worker"))

SERVICES = (
    (FleetJob("system", "system"), 0.8, ("kworker/u8:2",)),
    (FleetJob("systemd:slurmd.service", "slurmd.service"), 0.4, ("slurmd",)),
    (FleetJob("systemd:ssh.service", "ssh.service"), 0.1, ("sshd",)),
    (FleetJob("systemd:containerd.service", "containerd.service"), 0.2, ("containerd",)),
    (FleetJob("systemd:dbus.service", "dbus.service"), 0.05, ("dbus-daemon",)),
    (FleetJob("systemd:init.scope", "init.scope"), 0.1, ("systemd",)),
    (FleetJob("session:root", "root"), 0.2, ("bash",)),
)
"""What runs on every node, the watts that each draws of each package, and its processes."""

MEMORY_PART = 0.1
"""Of the power of what runs on a package, what it draws in the memory beside it."""


@dataclass(frozen=True, slots=True)
class _Want:
    """What a job asks for; `places` on each of its nodes, `level` of full power."""

    job: FleetJob
    arrival: float
    seconds: float
    width: int
    places: int
    level: float
    processes: tuple[str, ...]


class _Site:
    """The nodes while jobs are laid on them, one after the other."""

    def __init__(self, nodes: int, zone: str, random: Random) -> None:
        self._random = random
        self.names = [f"n{number:04}" for number in range(nodes)]
        self.zones = [zone or list(ZONES)[number % len(ZONES)] for number in range(nodes)]
        self.hardware = [
            GPU_SERVER.hardware if number % GPU_NODE_EVERY == 0 else TWO_SOCKET_SERVER.hardware
            for number in range(nodes)
        ]
        self.stays: list[list[Stay]] = [_services(hardware) for hardware in self.hardware]
        self._all = range(nodes)
        self._free = [[-math.inf] * PLACES for _ in range(nodes)]

    def place(self, want: _Want) -> None:
        """Lay a job on the first free of some nodes, as soon as all of its places are free."""
        some = min(len(self.names), CANDIDATES * (want.width + 1))
        taken = {node: self._places(node, want) for node in self._random.sample(self._all, some)}
        free = {n: max(self._free[n][place] for place in places) for n, places in taken.items()}
        nodes = sorted(taken, key=lambda node: max(want.arrival, free[node]))[: want.width]
        start = max(want.arrival, *(free[node] for node in nodes))
        for number, node in enumerate(nodes):
            # The nodes of a wide job end one after the other.
            end = start + want.seconds * (1 - 0.1 * number / len(nodes))
            for place in taken[node]:
                self._free[node][place] = end
            self.stays[node].append(_stay(want, self.hardware[node], taken[node], start, end))

    def _places(self, node: int, want: _Want) -> list[int]:
        return sorted(range(PLACES), key=self._free[node].__getitem__)[: want.places]


def make_fleet(
    nodes: int, jobs: int, seconds: float, *, seed: int = 1, zone: str = "", interval: float = 1.0
) -> Fleet:
    """Return a site on which so many jobs arrive within a time.

    Args:
        nodes: how many, at least 1.
        jobs: how many.
        seconds: how long after the start the last ones arrive.
        seed: another seed, other jobs.
        zone: the grid of all nodes; "" for three grids in turn.
        interval: seconds between two samples of an exporter.
    """
    random = Random(seed)  # noqa: S311 - made-up numbers, no secrets
    site = _Site(nodes, zone, random)
    arrivals = sorted(random.uniform(-UNDER_WAY_SECONDS, seconds) for _ in range(jobs))
    for number, arrival in enumerate(arrivals):
        site.place(_want(f"slurm:{100_000 + number}", arrival, nodes, random))
    made = (
        FleetNode(name, hardware, tuple(stays), grid_zone, AGE_SECONDS)
        for name, hardware, stays, grid_zone in zip(
            site.names, site.hardware, site.stays, site.zones, strict=True
        )
    )
    zones = {name: known for name, known in ZONES.items() if name in set(site.zones)}
    return Fleet({node.name: node for node in made}, zones, interval)


def _want(job_uid: str, arrival: float, nodes: int, random: Random) -> _Want:
    least, most = _choose(LENGTHS, random)
    seconds = math.exp(random.uniform(math.log(least), math.log(most)))
    width = min(nodes, random.randint(*_choose(WIDTHS, random)))
    team = random.choice(TEAMS)
    level = random.uniform(0.3, 0.95)
    places = random.choice((1, 1, 1, 2, 2, PLACES))
    budget = None
    if random.random() < BUDGETED:
        watts = sum(_active_watts(TWO_SOCKET_SERVER.hardware, level, places))
        budget = round(watts * seconds * width * random.uniform(1, 3))
    job = FleetJob(
        job_uid,
        random.choice(NAMES),
        f"{team}-{random.randrange(USERS_A_TEAM)}",
        team,
        "short" if seconds < LENGTHS[1][2] else "long",
        budget,
    )
    return _Want(job, arrival, seconds, width, places, level, random.choice(PROCESSES))


def _choose(parts: tuple[tuple[float, int, int], ...], random: Random) -> tuple[int, int]:
    (_, least, most), *_ = random.choices(parts, [part for part, _, _ in parts])
    return least, most


def _services(hardware: Hardware) -> list[Stay]:
    packages = len(hardware.packages)
    gpus = (0.0,) * len(hardware.gpus)
    return [
        Stay(
            job,
            -AGE_SECONDS,
            ALWAYS,
            (watts, watts * MEMORY_PART) * packages + gpus,
            processes=processes,
        )
        for job, watts, processes in SERVICES
    ]


def _active_watts(hardware: Hardware, level: float, places: int) -> list[float]:
    """Return the active power of packages and memory for so many places at a level."""
    models = power_models(hardware)[: -len(hardware.gpus) or None]
    return [level * (m.full_watts - m.idle_watts) * places / PLACES for m in models]


def _stay(want: _Want, hardware: Hardware, taken: list[int], start: float, end: float) -> Stay:
    a_place = len(hardware.gpus) // PLACES
    held = tuple(p * a_place + n for p in sorted(taken) for n in range(a_place))
    watts = _active_watts(hardware, want.level, want.places)
    for number, gpu in enumerate(hardware.gpus):
        full = want.level * (gpu.power.full_watts - gpu.power.idle_watts)
        watts.append(full if number in held else 0.0)
    return Stay(
        want.job,
        start,
        end,
        tuple(watts),
        cpus=hardware.threads * want.places // PLACES,
        gpus=held,
        processes=want.processes,
    )
