"""Learning a device's idle power from its own power and utilisation."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from jobwatt.model import IdleMethod, IdlePower
from jobwatt.units import NS

__all__ = ["IdleLearner", "UnheldLearner"]

QUIET_RATIO = 0.05
"""CPUs at most this busy are quiet (design: details that others rely on)."""

SUSTAINED_NS = 10 * NS
"""Power counts as sustained when it is the mean of so long a time."""

BINS = 40
"""Utilisation is binned to 1/40: the regression then weighs the range, not the crowd."""

LEAST_SPREAD = 0.3
"""A line through points closer together than this says nothing about 0."""

LEAST_SECONDS = 60
"""Observation before the first fit."""

CURVES = ((4, 24, 0.8), (3, 8, LEAST_SPREAD))
"""Terms of a polynomial, the bins and the spread of utilisation that it needs, best first."""

FIT_SECONDS = 10
"""Observation between two fits."""

BIN_MEMORY_SECONDS = 3600.0
"""A bin's mean forgets older power than about this, so that a fit can follow a slow change."""

UNHELD_WINDOWS = 60
"""So many means of ten unheld seconds are remembered."""

LOW_QUANTILE = 10
"""The lowest tenth of them is passed over: a reading may be too low by chance."""


@dataclass(slots=True)
class _Bin:
    seconds: float = 0.0
    utilisation: float = 0.0
    power: float = 0.0

    def add(self, seconds: float, utilisation: float, power: float) -> None:
        self.seconds = min(self.seconds + seconds, BIN_MEMORY_SECONDS)
        step = min(1.0, seconds / self.seconds)
        self.utilisation += (utilisation - self.utilisation) * step
        self.power += (power - self.power) * step


@dataclass(slots=True)
class _Interval:
    energy_uj: int
    span_ns: int
    busy_ns: float


class IdleLearner:
    """Idle power out of what a device shows.

    `observed`: the lowest mean power of ten seconds in which the CPUs were quiet, less what the
    little that ran then costs, once the cost of load is known from a fit. `fitted`, while
    they never were: where the regression of power against utilisation meets 0, never above the
    lowest sustained power. Power is nearly linear in utilisation (Fan, Weber, Barroso: Power
    provisioning for a warehouse-sized computer, ISCA 2007) but bends where turbo frequencies end,
    so a curve is fitted where the points allow it.
    """

    __slots__ = (
        "_bins",
        "_fit_due",
        "_lowest",
        "_quiet",
        "_quiet_ns",
        "_seconds",
        "_total",
        "_window",
    )

    def __init__(self, observed_uw: int | None = None) -> None:
        """Start anew, or from the `observed_uw` of an earlier run on the same boot."""
        self._bins = [_Bin() for _ in range(BINS + 1)]
        self._window: deque[_Interval] = deque()
        self._total = _Interval(0, 0, 0.0)
        self._quiet_ns = 0  # how long it has been quiet
        self._lowest: float | None = None
        self._quiet: tuple[float, float] | None = None  # power, utilisation
        if observed_uw is not None:
            self._quiet = (float(observed_uw), 0.0)
        self._seconds = 0.0
        self._fit_due: tuple[float, tuple[float, float] | None] = (0.0, None)

    def observe(self, energy_uj: int, span_ns: int, busy_ratio: float) -> None:
        """Take one interval: energy, its time, and how busy the device's CPUs were (0 to 1)."""
        seconds = span_ns / NS
        self._seconds += seconds
        power = energy_uj / seconds
        utilisation = min(1.0, max(0.0, busy_ratio))
        self._bins[int(utilisation * BINS)].add(seconds, utilisation, power)
        self._enter(_Interval(energy_uj, span_ns, utilisation * span_ns), utilisation)
        if self._total.span_ns < SUSTAINED_NS:
            return
        mean = self._total.energy_uj * NS / self._total.span_ns
        if self._lowest is None or mean < self._lowest:
            self._lowest = mean
        if self._quiet_ns >= self._total.span_ns and (self._quiet is None or mean < self._quiet[0]):
            self._quiet = (mean, self._total.busy_ns / self._total.span_ns)

    def _enter(self, interval: _Interval, utilisation: float) -> None:
        """Move the window of sustained power on by one interval."""
        total = self._total
        self._window.append(interval)
        total.energy_uj += interval.energy_uj
        total.span_ns += interval.span_ns
        total.busy_ns += interval.busy_ns
        quiet = utilisation <= QUIET_RATIO
        self._quiet_ns = self._quiet_ns + interval.span_ns if quiet else 0
        while total.span_ns - self._window[0].span_ns >= SUSTAINED_NS:
            oldest = self._window.popleft()
            total.energy_uj -= oldest.energy_uj
            total.span_ns -= oldest.span_ns
            total.busy_ns -= oldest.busy_ns

    @property
    def idle(self) -> IdlePower | None:
        """The idle power as it is known now, None while nothing can be said."""
        fit = self._fit()
        if self._quiet is not None:
            power, utilisation = self._quiet
            slope = 0.0 if fit is None else max(0.0, fit[1])
            lowest = power if self._lowest is None else min(power, self._lowest)
            return IdlePower(round(max(0.0, lowest - slope * utilisation)), IdleMethod.OBSERVED)
        if fit is None or self._lowest is None or fit[0] <= 0:
            return None
        return IdlePower(round(min(fit[0], self._lowest)), IdleMethod.FITTED)

    def _fit(self) -> tuple[float, float] | None:
        """Return power at utilisation 0 and its mean rise to full load, made anew now and then."""
        due, fit = self._fit_due
        if self._seconds < LEAST_SECONDS or self._seconds < due:
            return fit
        points = [b for b in self._bins if b.seconds >= 1]
        fit = None
        if points and points[-1].utilisation - points[0].utilisation >= LEAST_SPREAD:
            fit = _intercept(points), _solve(points, 2)[1]
        self._fit_due = (self._seconds + FIT_SECONDS, fit)
        return fit


class UnheldLearner:
    """Idle power of a device that is either held by somebody or by nobody, such as a GPU.

    `observed`: a low quantile of the mean powers of ten seconds in which nobody held it. It cools
    and clocks down for a while after its last user has left.
    """

    __slots__ = ("_means", "_span_ns", "_uj")

    def __init__(self, observed_uw: int | None = None) -> None:
        """Start anew, or from the `observed_uw` of an earlier run."""
        self._means: deque[float] = deque(maxlen=UNHELD_WINDOWS)
        if observed_uw is not None:
            self._means.append(observed_uw)
        self._uj = 0
        self._span_ns = 0

    def observe(self, energy_uj: int, span_ns: int, *, unheld: bool) -> None:
        """Take one interval: energy, its time, and whether nobody held the device."""
        if not unheld:
            self._uj = self._span_ns = 0
            return
        self._uj += energy_uj
        self._span_ns += span_ns
        if self._span_ns >= SUSTAINED_NS:
            self._means.append(self._uj * NS / self._span_ns)
            self._uj = self._span_ns = 0

    @property
    def idle(self) -> IdlePower | None:
        """The idle power as it is known now, None while nothing can be said."""
        if not self._means:
            return None
        low = sorted(self._means)[len(self._means) // LOW_QUANTILE]
        return IdlePower(round(low), IdleMethod.OBSERVED)


def _intercept(points: list[_Bin]) -> float:
    """Return the weighted least-squares power at utilisation 0.

    A higher degree only where the points reach far enough to hold it down.
    """
    line = _solve(points, 2)
    spread = points[-1].utilisation - points[0].utilisation
    for terms, least_bins, least_spread in CURVES:
        if len(points) < least_bins or spread < least_spread:
            continue
        curve = _solve(points, terms)
        slope_at_full = sum(power * factor for power, factor in enumerate(curve))
        # A curve that leaves the plausible (falling towards either end, or far below the line) is
        # noise bent into shape.
        if curve[1] >= 0 and slope_at_full >= 0 and curve[0] > line[0] / 3:
            return curve[0]
    return line[0]


def _solve(points: list[_Bin], terms: int) -> list[float]:
    """Return the coefficients of the weighted polynomial fit with `terms` terms (normal equations).

    A bin's weight is its seconds up to ten: its mean is then as good as it will get.
    """
    rows = [[0.0] * (terms + 1) for _ in range(terms)]
    for point in points:
        weight = min(point.seconds, 10.0)
        for i in range(terms):
            for j in range(terms):
                rows[i][j] += weight * point.utilisation ** (i + j)
            rows[i][terms] += weight * point.power * point.utilisation**i
    for i in range(terms):
        pivot = max(range(i, terms), key=lambda r: abs(rows[r][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for r in range(terms):
            if r != i:
                factor = rows[r][i] / rows[i][i]
                rows[r] = [a - factor * b for a, b in zip(rows[r], rows[i], strict=True)]
    return [rows[i][terms] / rows[i][i] for i in range(terms)]
