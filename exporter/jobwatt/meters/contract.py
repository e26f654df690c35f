"""What the sampler asks of a meter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from jobwatt.model import Report

__all__ = ["Meter"]


class Meter(Protocol):
    """A source of cumulative energy counters.

    `read` is called once a sample from the sampler's thread. It never raises for what the machine
    does: a counter that cannot be read is a fault in the report, beside the readings of the others.
    """

    def read(self, now_ns: int) -> Sequence[Report]:
        """Read all counters now.

        Returns one report for each source, oldest first; none where there is nothing new.
        """
        ...
