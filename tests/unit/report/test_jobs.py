from __future__ import annotations

import random

import pytest

from jobwatt.report.jobs import Fold, Job, Names, Node, State
from jobwatt.report.rows import Figures, figures, grouped, ordered, total
from jobwatt.report.sample import Sample
from jobwatt.report.timerange import Window

RANGE = Window(1_000_000, 2_000_000)
"""From 1000 s to 2000 s."""


@pytest.mark.parametrize(
    ("node", "seconds"),
    [
        (Node(1100, 1100.9, 1200), (100, 100)),  # the account has what was before its opening
        (Node(1100, 1150, 1200), (100, 50)),
        (Node(900, 900, 1200), (200, 200)),
        (Node(900, 950, 1200), (200, 200)),  # what nobody measured is before the range
        (Node(900, 1050, 1200), (200, 150)),
        (Node(1900, 1900, 2500), (100, 100)),
        (Node(1900, 1900, None, is_live=True), (100, 100)),
        (Node(1500, 1500, 1600, is_live=True), (500, 500)),  # it came back while it lingered
        (Node(800, 800, 900), (0, 0)),
        (Node(1100, 1100, None), (0, 0)),  # nobody knows when it ended
        (Node(None, 1100, 1200), (100, 100)),
        (Node(None, None, 1200), (0, 0)),
    ],
)
def test_life_within_the_range(node: Node, seconds: tuple[float, float]) -> None:
    """How long the job was there, and for how long of that it was measured."""
    assert node.seconds(RANGE) == seconds


@pytest.mark.parametrize(
    ("nodes", "deadline", "state"),
    [
        ([Node(1, 1, 5), Node(1, 1, 9)], None, State.ENDED),
        ([Node(1, 1, 5), Node(1, 1, None, is_live=True)], None, State.RUNNING),
        ([Node(1, 1, None)], None, State.UNKNOWN),
        ([Node(1, 1, 5)], 5.0, State.DEADLINE),
        ([Node(1, 1, 5)], 5.5, State.ENDED),
    ],
)
def test_state(nodes: list[Node], deadline: float | None, state: State) -> None:
    """Of all nodes, at the range's end."""
    job = Job("", "a", nodes={f"n{i}": node for i, node in enumerate(nodes)}, deadline=deadline)
    assert job.state() is state


def sample(value: float, **labels: str) -> Sample:
    return Sample({"cluster": "c", "job_uid": "a"} | labels, value)


ANSWERS = [
    ("energy", sample(10.0, component="cpu")),
    ("energy", sample(5.0, component="cpu")),
    ("energy", sample(1.5, component="gpu")),
    ("cost", sample(2.0, currency="EUR")),
    ("cost", sample(1.0, currency="EUR")),
    ("carbon", sample(7.0)),
    ("carbon", sample(8.0)),
    ("start", sample(1100.0, instance="n1")),
    ("start", sample(1000.0, instance="n1")),
    ("since", sample(1000.5, instance="n1")),
    ("end", sample(1700.0, instance="n1")),
    ("end", sample(1800.0, instance="n1")),
    ("deadline", sample(1900.0)),
    ("names", sample(1.0, kind="slurm", user="alice")),
    ("names", sample(1.0, kind="slurm", user="alice", job_name="bert", account="nlp")),
    ("names", sample(1.0, kind="slurm")),
]


@pytest.mark.parametrize("seed", range(5))
def test_answers_in_any_order(seed: int) -> None:
    """Sums add up, ends are the outermost, names are those of the node that knows most."""
    answers = ANSWERS[:]
    random.Random(seed).shuffle(answers)  # noqa: S311 - no secret
    fold = Fold()
    for name, one in answers:
        assert fold.take(name, [one]) == 1
    assert fold.within(RANGE) == [
        Job(
            "c",
            "a",
            names=Names("slurm", "bert", "alice", "nlp"),
            nodes={"n1": Node(1000.0, 1000.5, 1800.0)},
            deadline=1900.0,
            energy={"cpu": 15.0, "gpu": 1.5},
            cost={"EUR": 3.0},
            sums={"carbon": 15.0},
        )
    ]


def test_counters_of_a_job_that_began_before() -> None:
    """What they showed first is taken off, and only then."""
    for start, energy, seconds in ((900.0, 60.0, 3.0), (1100.0, 100.0, 4.0)):
        fold = Fold()
        fold.take("start", [sample(start, instance="n1")])
        fold.take("energy_max", [sample(100.0, component="cpu")])
        fold.take("energy_min", [sample(40.0, component="cpu")])
        fold.take("cpu_seconds_max", [sample(4.0)])
        fold.take("cpu_seconds_min", [sample(1.0)])
        fold.settle_counters(RANGE)
        (job,) = fold.within(RANGE)
        assert (job.energy, job.sums) == ({"cpu": energy}, {"cpu_seconds": seconds})


def test_figures_of_one_and_of_all() -> None:
    """What nobody knows is not known; what some know is the sum of theirs."""
    one = Job("", "a", energy={"cpu": 30.0}, sums={"gpu_idle": 10.0}, cost={"EUR": 1.0})
    two = Job("", "b", nodes={"n": Node(900, 900, None, is_live=True)}, cost={"CHF": 2.0})
    parts = [figures(job, RANGE) for job in (one, two)]

    whole = total(parts)

    assert whole == Figures(
        jobs=2,
        energy_joules=30.0,
        components={"cpu": 30.0},
        gpu_idle_joules=10.0,
        cost={"CHF": 2.0, "EUR": 1.0},
        seconds=1000.0,
        measured_seconds=1000.0,
        began_before=1,
        goes_on=1,
    )
    assert whole.gpu_idle_ratio == 0.25
    assert whole.carbon_grams is None
    assert total([]).energy_joules is None
    assert total([]).coverage_ratio is None


def test_order() -> None:
    """The biggest first, equal ones by name, what is not known last."""
    jobs = [
        Job("", "b", energy={"cpu": 1.0}),
        Job("", "a", energy={"cpu": 1.0}, sums={"carbon": 2.0}),
        Job("", "d"),
        Job("", "c", energy={"cpu": 5.0}),
    ]
    rows = grouped(jobs, "job", RANGE)
    assert [row.key for row in ordered(rows, "energy")] == ["c", "a", "b", "d"]
    assert [row.key for row in ordered(rows, "carbon")] == ["a", "b", "c", "d"]
    assert [row.key for row in ordered(rows, "name")] == ["a", "b", "c", "d"]


def test_groups() -> None:
    """Jobs of one user are one row; those whose user is not known are one, too."""
    jobs = [
        Job("", "a", names=Names(user="alice"), energy={"cpu": 1.0}),
        Job("x", "a", names=Names(user="alice"), energy={"cpu": 2.0}),
        Job("", "b", energy={"cpu": 4.0}),
    ]
    rows = {row.key: row.figures for row in grouped(jobs, "user", RANGE)}
    assert {key: (row.jobs, row.energy_joules) for key, row in rows.items()} == {
        "alice": (2, 3.0),
        "": (1, 4.0),
    }
