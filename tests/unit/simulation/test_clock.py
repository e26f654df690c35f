from __future__ import annotations

import time

import pytest

from jobwatt.simulation.clock import SimulatedClock
from jobwatt.units import NS


def test_catches_up_in_strides() -> None:
    """It begins so long ago, and is now after the last stride; then nothing is left."""
    clock = SimulatedClock(12)
    lags = []
    for _ in range(5):
        lags.append(time.monotonic_ns() - clock.monotonic_ns())
        behind = time.time() - clock.wall()
        assert behind == pytest.approx(lags[-1] / NS, abs=0.1)
        if not clock.catch_up():
            break

    assert [round(lag / NS) for lag in lags] == [12, 7, 2, 0]


def test_is_the_machines_own_without_a_past() -> None:
    """As for nodes that begin with the program."""
    clock = SimulatedClock()

    before, now, after = time.monotonic_ns(), clock.monotonic_ns(), time.monotonic_ns()

    assert before <= now <= after
    assert not clock.catch_up()
