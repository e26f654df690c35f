"""What the sampler asks of a meter."""

from __future__ import annotations

from typing import Protocol

from jobwatt.model import Report, Source

__all__ = ["Meter"]


class Meter(Protocol):
    """A source of cumulative energy counters.

    `read` is called once a sample from the sampler's thread. It never raises for what the machine
    does: a counter that cannot be read is a fault in the report, beside the readings of the others.
    """

    @property
    def source(self) -> Source:
        """What its joules are labelled with."""
        ...

    def read(self) -> Report:
        """Read all counters now."""
        ...
