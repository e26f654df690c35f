from __future__ import annotations

import pytest

from jobwatt.simulation.load import Daily, Phases, Steady


def test_steady_is_always_the_same() -> None:
    """A steady load has one level."""
    load = Steady(0.3)

    assert [load.level(0), load.level(1e6)] == [0.3, 0.3]


def test_a_day_is_lowest_half_a_period_from_noon() -> None:
    """A daily load goes from noon's level to night's and back."""
    load = Daily(night=0.1, day=0.9, period_seconds=100, noon_seconds=20)

    assert pytest.approx([0.9, 0.5, 0.1, 0.9]) == [load.level(t) for t in (20, 45, 70, 120)]


def test_phases_follow_each_other_for_ever() -> None:
    """A cycle begins again after its last phase, ahead by what was asked for."""
    load = Phases(((10, 0.2), (5, 1.0)), ahead_seconds=2)

    assert [load.level(t) for t in (0, 7.9, 8, 12.9, 13)] == [0.2, 0.2, 1.0, 1.0, 0.2]


def test_phases_hold_at_every_moment() -> None:
    """Rounding never leads out of the cycle."""
    load = Phases(((0.1, 0.2), (0.2, 1.0)), ahead_seconds=0.3)

    assert {0.2, 1.0} == {load.level(tenth / 10) for tenth in range(1000)}
