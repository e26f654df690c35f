"""What the meter asks of a device, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from jobwatt.errors import ReadError
from jobwatt.host.hwmon import Chip
from jobwatt.meters.integral import PowerIntegral
from jobwatt.model import Counter, Device, Reading

__all__ = ["Clock", "Integrated", "Part", "Sums", "celsius", "limit", "optional"]

Clock = Callable[[], int]
"""Monotonic nanoseconds."""

Sums = dict[str, PowerIntegral]
"""Energy so far by the key of its counter: it outlives what a look for devices has found."""


class Part(Protocol):
    """A device that is measured."""

    @property
    def key(self) -> str:
        """Its counter's key: the same for as long as the device is itself, whatever the driver."""
        ...

    @property
    def device(self) -> Device:
        """What it measures."""
        ...

    @property
    def limit_uw(self) -> int | None:
        """Its enforced power limit as it was when the device was found."""
        ...

    def read(self, clock: Clock) -> Reading | None:
        """Read its energy; None where it tells none now and that is no fault.

        Raises:
            Absent, Denied, Failed: it cannot be read.
        """
        ...


class Integrated:
    """A device that tells its power and no energy."""

    def __init__(self, key: str, device: Device, limit_uw: int | None, sums: Sums) -> None:
        self.key = key
        self.device = device
        self.limit_uw = limit_uw
        self._integral = sums.setdefault(key, PowerIntegral())

    def add(self, power_uw: int, at_ns: int) -> Reading:
        """Take a reading of power."""
        lost_ns = self._integral.add(power_uw, at_ns)
        counter = Counter(self.key, self.device, limit_uw=self.limit_uw)
        return Reading(counter, self._integral.value_uj, at_ns, lost_ns)


def optional(read: Callable[[], int]) -> int | None:
    """Return what is read, None where it cannot be."""
    try:
        return read()
    except ReadError:
        return None


def celsius(chip: Chip, attribute: str | None) -> float | None:
    """Return a temperature."""
    thousandths = optional(lambda: chip.read(attribute)) if attribute else None
    return None if thousandths is None else thousandths / 1000


def limit(chip: Chip, *attributes: str) -> int | None:
    """Return the first of these power limits that is in force; 0 says that it is not."""
    for attribute in attributes:
        try:
            limit_uw = chip.read(attribute)
        except ReadError:
            continue
        if limit_uw:
            return limit_uw
    return None
