"""Looks at the machine on a steady schedule and publishes what it found."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from jobwatt.accounting import Accountant
from jobwatt.meters.contract import Meter
from jobwatt.model import Report, Row
from jobwatt.snapshot import Health, HistoryPoint, NodeInfo, Snapshot
from jobwatt.store import Store
from jobwatt.units import NS, mean_power_uw
from jobwatt.usage.contract import UsageProbe

__all__ = ["Sampler"]

log = logging.getLogger(__name__)

HISTORY_STEP_NS = 5 * NS
HISTORY_POINTS = 120
"""Ten minutes for the page."""


class Sampler:
    """Takes samples, one thread, and holds the latest snapshot.

    The snapshot is replaced by one reference assignment, so that any thread may read it at any
    time without a lock.
    """

    def __init__(
        self,
        meters: Sequence[Meter],
        usage: UsageProbe,
        accountant: Accountant,
        node: NodeInfo,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], float] = time.time,
        resident_bytes: Callable[[], int] = lambda: 0,
        store: Store | None = None,
        boot_id: str = "",
        kept: Callable[[], Mapping[str, Row]] = dict,
    ) -> None:
        """Take the parts; `kept` returns what else must outlive a restart, as rows."""
        self._meters = meters
        self._usage = usage
        self._accountant = accountant
        self._node = node
        self._clock = clock
        self._wall = wall
        self._resident_bytes = resident_bytes
        self._store = store
        self._boot_id = boot_id
        self._kept = kept
        self._interval_ns = round(node.interval_seconds * NS)
        self._missed = 0
        self._history: tuple[HistoryPoint, ...] = ()
        self._history_from: tuple[int, tuple[int, ...]] | None = None
        self._resident = 0
        self.snapshot: Snapshot | None = None

    def sample(self) -> Snapshot:
        """Look once, book it, publish the new snapshot and return it."""
        start_ns = self._clock()
        if self.snapshot is None:
            # The first look takes longest, and an earlier run's energy waits to be divided by it:
            # what it sees last must be near what the meters show.
            usage, reports = self._usage.look(self._clock()), self._read_meters()
        else:
            reports, usage = self._read_meters(), self._usage.look(self._clock())
        self._accountant.book(start_ns, reports, usage, self._usage, self._wall())
        if self._store is not None:
            rows = self._accountant.dump(self._boot_id)
            self._store.save({**rows, **self._usage.dump(start_ns), **self._kept()})
        self._keep_history(start_ns)
        snapshot = self._picture(start_ns)
        self.snapshot = snapshot
        return snapshot

    def _read_meters(self) -> list[Report]:
        return [report for meter in self._meters for report in meter.read(self._clock())]

    def run(self, stop: threading.Event) -> None:
        """Sample until `stop` is set, on a schedule that does not drift."""
        due_ns = self._clock()
        while not stop.is_set():
            self.sample()
            due_ns += self._interval_ns
            late_ns = self._clock() - due_ns
            if late_ns > 0:
                skipped = late_ns // self._interval_ns + 1
                self._missed += skipped
                due_ns += skipped * self._interval_ns
                late_ns -= skipped * self._interval_ns
            stop.wait(-late_ns / NS)

    def _picture(self, start_ns: int) -> Snapshot:
        ledger, health = self._accountant.ledger, self._accountant.health
        return Snapshot(
            time=self._wall(),
            monotonic_ns=start_ns,
            node=self._node,
            devices=ledger.device_views(),
            domains_uj=tuple(ledger.domains_uj.items()),
            series=ledger.series_views(),
            jobs=ledger.job_views(),
            accounts=ledger.book.account_views(),
            health=Health(
                source_up=dict(health.up),
                source_errors=dict(health.errors),
                series_dropped=dict(ledger.dropped),
                samples_missed=self._missed,
                sample_seconds=(self._clock() - start_ns) / NS,
                processes=len(self._usage.processes),
                checkpoint=self._store.synced if self._store is not None else None,
                cpu_seconds=time.process_time(),
                resident_bytes=self._resident,
                budget_errors=dict(ledger.book.budget_errors),
            ),
            history=self._history,
        )

    def _keep_history(self, now_ns: int) -> None:
        """Add a point of mean power every few seconds."""
        energy = tuple(account.energy_uj for account in self._accountant.ledger.accounts)
        if self._history_from is not None and now_ns - self._history_from[0] < HISTORY_STEP_NS:
            return
        self._resident = self._resident_bytes()
        if self._history_from is not None:
            from_ns, before = self._history_from
            span_ns = now_ns - from_ns
            power = tuple(
                mean_power_uw(after - earlier, span_ns)
                for after, earlier in zip(energy, before, strict=False)
            )
            kept = self._history[-(HISTORY_POINTS - 1) :]
            self._history = (*kept, HistoryPoint(self._wall(), power))
        self._history_from = (now_ns, energy)
