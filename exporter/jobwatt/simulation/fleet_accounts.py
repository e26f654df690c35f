"""The accounts of jobs as the exporter of a made-up node keeps them: energy is power × time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobwatt.simulation.fleet import FleetNode, Stay
from jobwatt.simulation.fleet_samples import Samples
from jobwatt.units import UJ

__all__ = ["Account", "Accounts", "energy_uj"]

OF_SERIES, OF_ALL = 97, 100
"""The part of a job's energy that its processes with a series have used."""


def energy_uj(stay: Stay, since: float, until: float) -> tuple[int, ...]:
    """Return what a stay used between two moments, by device, in microjoules."""
    seconds = stay.busy_seconds(since, until)
    return tuple(round(watts * UJ * seconds) for watts in stay.watts)


@dataclass(frozen=True, slots=True)
class Account:
    """A stay as its exporter knows it.

    Attributes:
        number: of the stay on its node.
        since: the sample at which it was first seen.
        ended: the sample at which its end was seen; None before.
        seconds: for how long it is known to have been there.
        power_uw: now, by device.
        energy_uj: by device.
    """

    number: int
    stay: Stay
    since: float
    ended: float | None
    seconds: float
    power_uw: tuple[int, ...]
    energy_uj: tuple[int, ...]

    def lingers(self, seconds: float, now: float) -> bool:
        """Whether it lives, or has ended less than so long ago."""
        return self.ended is None or now < self.ended + seconds

    def processes_uj(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Return the processes with a series and the energy of each, by device.

        The first has half of what there is, and so on; the last two have the same.
        """
        left = [uj * OF_SERIES // OF_ALL for uj in self.energy_uj]
        *others, last = self.stay.processes
        for comm in others:
            part = tuple(uj // 2 for uj in left)
            left = [uj - taken for uj, taken in zip(left, part, strict=True)]
            yield comm, part
        yield last, tuple(left)


class Accounts:
    """The accounts of one node."""

    def __init__(self, node: FleetNode, samples: Samples, interval_seconds: float) -> None:
        self._samples = samples
        self._interval = interval_seconds
        self._stays = [
            (number, stay, samples.first(stay.start), samples.first(stay.end))
            for number, stay in enumerate(node.stays)
        ]
        self._cut = [stay for stay in node.stays if samples.outage(stay.end) is not None]

    def at(self, since: float, now: float) -> list[Account]:
        """Return all accounts that there are at a sample, those of ended jobs among them.

        Args:
            since: when counters began.
            now: the sample.
        """
        found = []
        for number, stay, seen, ended in self._stays:
            if seen <= now and ended > since and not self._is_missed(stay, seen):
                over = ended if ended <= now else None
                found.append(self._account(number, stay, (max(seen, since), over), since, now))
        return found

    def lost_uj(self, since: float, now: float, devices: int) -> Sequence[int]:
        """Return what jobs used while the exporter was away, and were gone when it came back."""
        lost = [0] * devices
        for stay in self._cut:
            if since < self._samples.first(stay.end) <= now:
                known = max(since, self._samples.last(stay.end))
                for index, uj in enumerate(energy_uj(stay, known, stay.end)):
                    lost[index] += uj
        return lost

    def _is_missed(self, stay: Stay, seen: float) -> bool:
        """Whether it came and went in one outage."""
        return self._samples.outage(stay.end) is not None and seen >= stay.end

    def _account(
        self, number: int, stay: Stay, seen: tuple[float, float | None], since: float, now: float
    ) -> Account:
        until = now
        if seen[1] is not None:
            cut = self._samples.outage(stay.end) is not None
            until = self._samples.last(stay.end) if cut else stay.end
        busy = seen[1] is None and stay.busy_seconds(now - self._interval, now) > 0
        return Account(
            number,
            stay,
            *seen,
            max(0.0, until - max(since, stay.start)),
            tuple(round(watts * UJ) if busy else 0 for watts in stay.watts),
            energy_uj(stay, since, until),
        )
