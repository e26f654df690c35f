import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobwatt.attribution.apportion import apportion

weights = st.lists(st.integers(0, 10**15), min_size=1, max_size=60).filter(any)


def test_splits_evenly_what_can_be_split_evenly() -> None:
    """Equal weights get equal shares."""
    assert apportion(9, [1, 1, 1]) == [3, 3, 3]


def test_gives_the_missing_units_to_the_largest_remainders() -> None:
    """10 among 1:2:4 is 1.43, 2.86, 5.71: the two larger remainders are rounded up."""
    assert apportion(10, [1, 2, 4]) == [1, 3, 6]


def test_breaks_ties_by_order() -> None:
    """Of equal remainders the first come first."""
    assert apportion(2, [1, 1, 1]) == [1, 1, 0]


def test_gives_nothing_to_a_weight_of_nothing() -> None:
    """A zero weight has no remainder to round up."""
    assert apportion(7, [0, 3, 0]) == [0, 7, 0]


@pytest.mark.parametrize("nothing", [[], [0], [0, 0]])
def test_refuses_weights_that_add_up_to_nothing(nothing: list[int]) -> None:
    """Nobody to give to is the caller's decision."""
    with pytest.raises(ValueError, match="more than 0"):
        apportion(1, nothing)


@given(st.integers(0, 10**18), weights)
def test_loses_nothing(total: int, shares: list[int]) -> None:
    """The shares add up to the total, whatever the weights."""
    assert sum(apportion(total, shares)) == total


@given(st.integers(0, 10**18), weights)
def test_is_fair_to_one_unit(total: int, shares: list[int]) -> None:
    """No share is further than one unit from its exact value."""
    whole = sum(shares)
    for got, weight in zip(apportion(total, shares), shares, strict=True):
        assert abs(got * whole - total * weight) < whole
