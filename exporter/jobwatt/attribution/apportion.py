"""Dividing an integer amount without losing a unit."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["apportion"]


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Divide `total` in proportion to `weights`, to integers whose sum is `total` exactly.

    Largest-remainder rounding (Hare quota): no share is further than one unit from its exact
    value. Of equal remainders the first come first.

    Args:
        total: the amount, ≥ 0.
        weights: integers ≥ 0, of which at least one is positive.

    Raises:
        ValueError: the weights add up to nothing.
    """
    whole = sum(weights)
    if whole <= 0:
        raise ValueError("weights must add up to more than 0")
    shares = [total * weight // whole for weight in weights]
    missing = total - sum(shares)
    if missing:
        remainders = [total * weight % whole for weight in weights]
        # Stable also in reverse: of equals the first stay first.
        largest = sorted(range(len(weights)), key=remainders.__getitem__, reverse=True)
        for index in largest[:missing]:
            shares[index] += 1
    return shares
