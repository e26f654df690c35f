import random
from collections.abc import Callable

import pytest

from jobwatt.attribution.idle import UNHELD_WINDOWS, IdleLearner, UnheldLearner
from jobwatt.model import IdleMethod, IdlePower

S = 1_000_000_000
IDLE = 50.0


def linear(u: float) -> float:
    return IDLE + 150 * u


def bent(u: float) -> float:
    """Turbo: the first busy cores cost more than the last."""
    return float(IDLE + 150 * u**0.8)


def rising(u: float) -> float:
    """Voltage: the last percent cost more than the first."""
    return IDLE + 110 * u + 40 * u * u


def learn(
    power: Callable[[float], float],
    utilisations: list[float],
    noise: float = 0.02,
    seconds: int = 1,
) -> IdleLearner:
    chance = random.Random(7)  # noqa: S311 - a reproducible trace
    learner = IdleLearner()
    for u in utilisations:
        watts = power(u) * (1 + chance.gauss(0, noise))
        learner.observe(round(watts * seconds * 1e6), seconds * S, u)
    return learner


def walk(low: float, high: float, steps: int) -> list[float]:
    """A load that wanders between two bounds, in stretches like a training's."""
    chance = random.Random(3)  # noqa: S311 - a reproducible trace
    loads: list[float] = []
    while len(loads) < steps:
        level = chance.uniform(low, high)
        loads += [
            min(high, max(low, level + chance.gauss(0, 0.02))) for _ in range(chance.randint(5, 40))
        ]
    return loads[:steps]


def test_says_nothing_before_it_knows() -> None:
    """No idle power is better than a guess."""
    assert learn(linear, [0.5] * 300).idle is None


def test_ten_quiet_seconds_give_a_first_value() -> None:
    """Nine are not enough."""
    assert learn(linear, [0.0] * 9, noise=0).idle is None
    assert learn(linear, [0.0] * 10, noise=0).idle == IdlePower(50_000_000, IdleMethod.OBSERVED)


def test_long_intervals_count_by_their_time() -> None:
    """One interval of 60 s is sustained by itself."""
    assert learn(linear, [0.01], noise=0, seconds=60).idle == IdlePower(
        51_500_000, IdleMethod.OBSERVED
    )


def test_a_busy_second_breaks_the_quiet() -> None:
    """Ten quiet seconds must follow one another."""
    assert learn(linear, [0.0] * 9 + [0.5] + [0.0] * 9, noise=0).idle is None


@pytest.mark.parametrize("power", [linear, bent, rising])
def test_a_trace_with_idle_is_true_within_5_percent(power: Callable[[float], float]) -> None:
    """An hour that includes quiet minutes."""
    idle = learn(power, walk(0.1, 1, 1500) + [0.005] * 120 + walk(0.1, 1, 1500)).idle
    assert idle is not None
    assert idle.method is IdleMethod.OBSERVED
    assert idle.uw / 1e6 == pytest.approx(IDLE, rel=0.05)


@pytest.mark.parametrize("power", [linear, bent, rising])
def test_a_trace_without_idle_is_true_within_15_percent(power: Callable[[float], float]) -> None:
    """An hour between 10 and 100 % load."""
    idle = learn(power, walk(0.1, 1, 3600)).idle
    assert idle is not None
    assert idle.method is IdleMethod.FITTED
    assert idle.uw / 1e6 == pytest.approx(IDLE, rel=0.15)


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.1])
@pytest.mark.parametrize("seed_load", [(0.1, 1.0), (0.3, 0.9), (0.6, 0.61), (0.0, 0.04)])
def test_is_never_above_what_was_observed(noise: float, seed_load: tuple[float, float]) -> None:
    """Idle power is at most the lowest power ever sustained."""
    chance = random.Random(11)  # noqa: S311 - a reproducible trace
    learner = IdleLearner()
    watts: list[float] = []
    for u in walk(*seed_load, 1200):
        watts.append(linear(u) * (1 + chance.gauss(0, noise)))
        learner.observe(round(watts[-1] * 1e6), S, u)
        if learner.idle is not None and len(watts) >= 10:
            lowest = min(sum(watts[i : i + 10]) / 10 for i in range(len(watts) - 9))
            assert learner.idle.uw <= lowest * 1e6 + 1


def test_a_steady_load_fits_no_line() -> None:
    """Points at one load say nothing about none."""
    assert learn(linear, [0.7] * 1000).idle is None


def test_goes_on_from_what_was_observed_before() -> None:
    """An earlier run's observation holds until a lower one comes."""
    learner = IdleLearner(48_000_000)
    assert learner.idle == IdlePower(48_000_000, IdleMethod.OBSERVED)
    for _ in range(10):
        learner.observe(45_000_000, S, 0.0)
    assert learner.idle == IdlePower(45_000_000, IdleMethod.OBSERVED)


# --- devices that somebody holds, or nobody ---------------------------------------------------


def unheld(*watts: float, learner: UnheldLearner | None = None) -> UnheldLearner:
    """A learner after seconds at these powers in which nobody held the device."""
    learner = learner or UnheldLearner()
    for power in watts:
        learner.observe(round(power * 1e6), S, unheld=True)
    return learner


def test_ten_seconds_held_by_nobody_tell_the_idle_power() -> None:
    """Their mean, and no sooner."""
    assert unheld(*[70.0] * 9).idle is None
    assert unheld(*[60.0, 80.0] * 5).idle == IdlePower(70_000_000, IdleMethod.OBSERVED)


def test_what_is_held_tells_nothing_of_idle() -> None:
    """And ends what had begun: the seconds must follow each other."""
    learner = unheld(*[70.0] * 9)
    learner.observe(400_000_000, S, unheld=False)
    assert unheld(*[70.0] * 9, learner=learner).idle is None
    assert unheld(70.0, learner=learner).idle == IdlePower(70_000_000, IdleMethod.OBSERVED)


def test_a_device_that_cools_down_is_not_idle_yet() -> None:
    """The low means count, not the first."""
    learner = unheld(*[110.0] * 10, *[90.0] * 10, *[70.0] * 30)
    assert learner.idle == IdlePower(70_000_000, IdleMethod.OBSERVED)


def test_one_mean_that_is_too_low_is_passed_over() -> None:
    """Once there are enough of them."""
    learner = unheld(*[70.0] * 100, *[10.0] * 10)
    assert learner.idle == IdlePower(70_000_000, IdleMethod.OBSERVED)


def test_an_idle_power_that_has_risen_is_followed() -> None:
    """After ten minutes held by nobody the old means are forgotten."""
    learner = unheld(*[40.0] * 100)
    assert unheld(*[55.0] * 10 * UNHELD_WINDOWS, learner=learner).idle == IdlePower(
        55_000_000, IdleMethod.OBSERVED
    )


def test_one_long_interval_is_enough() -> None:
    """Samples may be far apart."""
    learner = UnheldLearner()
    learner.observe(30 * 70_000_000, 30 * S, unheld=True)
    assert learner.idle == IdlePower(70_000_000, IdleMethod.OBSERVED)


def test_goes_on_from_what_was_learned_of_an_unheld_device() -> None:
    """A GPU may never be free again."""
    learner = UnheldLearner(48_000_000)
    learner.observe(400_000_000, 10 * S, unheld=False)
    assert learner.idle == IdlePower(48_000_000, IdleMethod.OBSERVED)
