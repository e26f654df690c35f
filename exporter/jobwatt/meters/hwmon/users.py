"""Who used a GPU: engine time and memory of the processes that hold it open.

Linux Documentation/gpu/drm-usage-stats.rst: a driver tells the time that each client, that is an
open DRM file, kept the GPU's engines busy. Several descriptors, also of several processes, may be
one client: it is known by its GPU and its number there and charged once, to the lowest pid that
holds it.

What a client did between the last look and its end cannot be read any more. It stays a resident of
that interval, and what it would have done at the rate of the interval before is `unknown`, so that
nobody else is charged with it.

Work that is sent to AMD's GPUs by user queues (ROCm, through /dev/kfd) is in no engine's time.
Where a process held memory that way, engine time cannot tell who was busy: the rest (memory, equal
parts) has to.

To look at all open files of all processes would be dear. Newcomers are looked at at once and again
while they are young, those that hold a GPU at every look for what they have newly opened, and
everybody in a slow round; so a client may be found some time after its birth, and what it did
before is not counted then. Nor is the first interval of xe's clients, whose cycles mean nothing
before the card's clock has been seen twice.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from jobwatt.errors import Absent, Denied, ReadError
from jobwatt.gpus import GpuMethod, GpuUse
from jobwatt.host.drm import Card
from jobwatt.host.fdinfo import DrmClient, list_drm_files, read_fdinfo
from jobwatt.host.procfs import Procfs
from jobwatt.units import NS

__all__ = ["GpuUsers"]

log = logging.getLogger(__name__)

MOST_LISTED = 25
"""Processes whose files the slow round lists in one look."""

LISTING_NS = 5 * NS
"""Processes are listed at least this often, also where no pid seems to have been given out."""

YOUNG_NS = (2 * NS, 5 * NS, 10 * NS, 20 * NS, 40 * NS)
"""Ages at which a newcomer's files are listed again: GPUs are opened some seconds after start."""

MOST_YOUNG = 100
"""Newcomers whose files are listed again in one look."""

_Key = tuple[str, int]
"""PCI address, number of the client."""


@dataclass(slots=True)
class _Holding:
    """A process that holds GPUs: its descriptors, and those of them that are DRM files."""

    fds: set[str]
    files: dict[str, str]
    clients: dict[str, _Key] = field(default_factory=dict)


@dataclass(slots=True)
class _Client:
    """A client as it was at the last look.

    A value may fall back for a while: then the larger one counts (drm-usage-stats.rst).
    """

    engine_ns: dict[str, int] = field(default_factory=dict)
    cycles: dict[str, tuple[int, int]] = field(default_factory=dict)
    worked_ns: int = 0

    @property
    def has_worked(self) -> bool:
        """Whether it has ever kept an engine busy."""
        return any(self.engine_ns.values()) or any(busy for busy, _ in self.cycles.values())

    def advance(self, seen: DrmClient, span_ns: int) -> None:
        """Take what it shows now; `worked_ns` is then the time since the look before.

        More than `span_ns` for each engine is none of this interval.
        """
        self.worked_ns = 0
        for name, now_ns in seen.engine_ns.items():
            before_ns = self.engine_ns.get(name, 0)
            most_ns = span_ns * max(1, seen.capacity.get(name, 1))
            self.worked_ns += min(max(0, now_ns - before_ns), most_ns)
            self.engine_ns[name] = max(before_ns, now_ns)
        for name, (busy, total) in seen.cycles.items():
            busy_before, total_before = self.cycles.get(name, (busy, total))
            if total > total_before and busy > busy_before:
                most_ns = span_ns * max(1, seen.capacity.get(name, 1))
                share_ns = span_ns * (busy - busy_before) // (total - total_before)
                self.worked_ns += min(share_ns, most_ns)
            if total < total_before:  # the card's clock began anew
                busy_before = 0
            self.cycles[name] = max(busy, busy_before), total


@dataclass(slots=True)
class _Look:
    """What one look found on one GPU."""

    memory: dict[int, int | None] = field(default_factory=dict)
    busy: dict[int, int] = field(default_factory=dict)
    unknown_ns: int = 0
    is_told: bool = True
    by_queues: bool = False


class GpuUsers:
    """Follows the DRM clients of all processes."""

    def __init__(self, procfs: Procfs) -> None:
        self._procfs = procfs
        self._own_pids = procfs.is_own()
        self._youngest: int | None = None
        self._listing_due_ns = 0
        self._listed: set[int] | None = None
        self._young: list[tuple[int, int, int]] = []
        self._round: list[int] = []
        self._holdings: dict[int, _Holding] = {}
        self._clients: dict[_Key, _Client] = {}
        self._before: dict[str, tuple[int, _Look]] = {}
        self._has_warned = False

    def look(
        self,
        now_ns: int,
        cards: Collection[Card],
        in_queues: Mapping[str, Mapping[int, int]],
    ) -> dict[str, tuple[int, GpuUse | None]]:
        """Return who used each card since the look before, and how long that was.

        Args:
            now_ns: monotonic time.
            cards: the GPUs that are measured.
            in_queues: memory of the processes that use user queues, by card and pid.

        Returns:
            `{PCI address: (nanoseconds, use)}`; None at the first look at a card.
        """
        awake = {card.address for card in cards if not card.is_asleep}
        looks = {card.address: _Look() for card in cards}
        fresh = self._find_files(now_ns, cards, awake)
        self._read_clients(now_ns, looks, awake, fresh)
        for address, memory in in_queues.items():
            if look := looks.get(address):
                look.by_queues = bool(memory)
                for pid, size in memory.items():
                    look.memory[pid] = max(size, look.memory.get(pid) or 0)
        uses: dict[str, tuple[int, GpuUse | None]] = {}
        for address, look in looks.items():
            if address in self._before:
                before_ns, before = self._before[address]
                uses[address] = now_ns - before_ns, _use(before, look)
            else:
                uses[address] = 0, None
        self._before = {address: (now_ns, look) for address, look in looks.items()}
        return uses

    # --- files ----------------------------------------------------------------------------------

    def _find_files(
        self, now_ns: int, cards: Collection[Card], awake: Collection[str]
    ) -> set[tuple[int, str]]:
        """Look for open DRM files; return those that were opened since the look before."""
        nodes = {node: card.address for card in cards for node in card.nodes}
        fresh: set[tuple[int, str]] = set()
        try:
            pids = self._list_pids(now_ns)
        except ReadError as error:
            log.warning("processes cannot be listed: %s", error)
            return fresh
        is_first, before = self._listed is None, self._listed or set()
        self._listed = pids
        for pid in before - pids:
            self._forget(pid)
        newcomers = pids - before
        for pid in list(self._holdings):
            fresh |= self._list(pid, nodes, awake, is_known=True)
        for pid in sorted(newcomers):
            found = self._list(pid, nodes, awake)
            if not is_first:
                fresh |= found
                heapq.heappush(self._young, (now_ns + YOUNG_NS[0], 0, pid))
        self._list_young(now_ns, pids, nodes, awake)
        if not self._round:
            self._round = sorted(pids, reverse=True)
        for _ in range(min(MOST_LISTED, len(self._round))):
            pid = self._round.pop()
            if pid not in newcomers:
                self._list(pid, nodes, awake)
        return fresh

    def _list_pids(self, now_ns: int) -> set[int]:
        """List all processes, or return those known if there can be no new one among them."""
        before, self._youngest = self._youngest, None
        if self._own_pids:  # another namespace's counter says nothing about these pids
            with contextlib.suppress(ReadError):
                self._youngest = self._procfs.read_census().youngest_pid
        is_same = self._youngest is not None and self._youngest == before
        if is_same and self._listed is not None and now_ns < self._listing_due_ns:
            return self._listed
        self._listing_due_ns = now_ns + LISTING_NS
        return self._procfs.list_pids()

    def _list_young(
        self,
        now_ns: int,
        pids: Collection[int],
        nodes: Mapping[str, str],
        awake: Collection[str],
    ) -> None:
        for _ in range(min(MOST_YOUNG, len(self._young))):
            if self._young[0][0] > now_ns:
                break
            _, stage, pid = heapq.heappop(self._young)
            if pid not in pids:
                continue
            self._list(pid, nodes, awake)
            if stage + 1 < len(YOUNG_NS):
                due_ns = now_ns + YOUNG_NS[stage + 1] - YOUNG_NS[stage]
                heapq.heappush(self._young, (due_ns, stage + 1, pid))

    def _list(
        self,
        pid: int,
        nodes: Mapping[str, str],
        awake: Collection[str],
        *,
        is_known: bool = False,
    ) -> set[tuple[int, str]]:
        """List a process's files, of a known holder the new ones; return the new DRM files."""
        holding = self._holdings.get(pid)
        known = holding.fds if holding is not None and is_known else ()
        try:
            fds, found = list_drm_files(self._procfs, pid, known)
        except Absent:
            self._forget(pid)
            return set()
        except ReadError as error:
            self._warn(error)
            return set()
        # A card's file is of no interest where it is of none of these cards, and of none yet where
        # it sleeps; what hangs on no card by its name says itself to whom it belongs.
        files = {fd: node for fd, node in found.items() if self._is_wanted(node, nodes, awake)}
        if holding is None:
            if not files:
                return set()
            holding = self._holdings[pid] = _Holding(set(), {})
        postponed = {fd for fd, node in found.items() if nodes.get(node, "") not in {"", *awake}}
        new = {(pid, fd) for fd in files if fd not in holding.files}
        holding.fds = set(fds) - postponed
        holding.files |= files
        return new

    def _is_wanted(self, node: str, nodes: Mapping[str, str], awake: Collection[str]) -> bool:
        return nodes[node] in awake if node in nodes else True

    def _forget(self, pid: int) -> None:
        self._holdings.pop(pid, None)

    def _warn(self, error: ReadError) -> None:
        if isinstance(error, Denied) and not self._has_warned:
            self._has_warned = True
            log.warning(
                "%s; who uses the GPUs is seen in one's own processes only: run as root, or give "
                "the exporter CAP_SYS_PTRACE",
                error,
            )

    # --- clients --------------------------------------------------------------------------------

    def _read_clients(
        self,
        now_ns: int,
        looks: Mapping[str, _Look],
        awake: Collection[str],
        fresh: Collection[tuple[int, str]],
    ) -> None:
        """Read what the clients did, each once, in the name of the lowest pid that holds it."""
        seen: dict[_Key, tuple[int, DrmClient]] = {}
        is_fresh: dict[_Key, bool] = {}
        asleep: dict[_Key, int] = {}
        for pid in sorted(self._holdings):
            holding = self._holdings[pid]
            for fd in list(holding.files):
                key = holding.clients.get(fd)
                if key is not None and key[0] not in awake:
                    asleep.setdefault(key, pid)
                    continue
                client = self._read_client(pid, fd)
                if client is None or client.address not in looks:
                    del holding.files[fd]
                    holding.clients.pop(fd, None)
                    continue
                key = client.address, client.client_id
                holding.clients[fd] = key
                seen.setdefault(key, (pid, client))
                is_fresh[key] = is_fresh.get(key, True) and (pid, fd) in fresh
            if not holding.files:
                del self._holdings[pid]
        self._note_ended(now_ns, looks, seen.keys() | asleep.keys())
        for key, (pid, client) in seen.items():
            span_ns = self._span_ns(key[0], now_ns)
            self._charge(looks[key[0]], pid, client, span_ns, is_fresh=is_fresh[key])
        for key, pid in asleep.items():
            if key[0] in looks and key in self._clients:
                self._clients[key].worked_ns = 0
                before = self._before.get(key[0])
                memory = before[1].memory if before else {}
                if pid in memory:
                    looks[key[0]].memory[pid] = memory[pid]

    def _read_client(self, pid: int, fd: str) -> DrmClient | None:
        """Read a file; None where it is closed, no DRM file, or cannot be read."""
        try:
            return read_fdinfo(self._procfs, pid, fd)
        except ReadError as error:
            self._warn(error)
            return None

    def _span_ns(self, address: str, now_ns: int) -> int:
        before = self._before.get(address)
        return now_ns - before[0] if before else 0

    def _charge(
        self, look: _Look, pid: int, seen: DrmClient, span_ns: int, *, is_fresh: bool
    ) -> None:
        key = seen.address, seen.client_id
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = _Client()
            span_ns = span_ns if is_fresh else 0  # what it did before it was found is not counted
        client.advance(seen, span_ns)
        is_told = bool(seen.engine_ns or seen.cycles)
        if is_told and not client.has_worked and not seen.memory_bytes:
            return  # session managers hold a file of every card and do nothing with it
        look.is_told &= is_told
        known, more = look.memory.get(pid), seen.memory_bytes
        look.memory[pid] = more if known is None else known + (more or 0)
        if client.worked_ns:
            look.busy[pid] = look.busy.get(pid, 0) + client.worked_ns

    def _note_ended(
        self, now_ns: int, looks: Mapping[str, _Look], living: Collection[_Key]
    ) -> None:
        """Forget clients that are gone, and note what they may have done since the look before."""
        for key in [key for key in self._clients if key not in living]:
            client, look = self._clients.pop(key), looks.get(key[0])
            if look is not None and client.worked_ns:
                look.unknown_ns += min(client.worked_ns, self._span_ns(key[0], now_ns))


def _use(before: _Look, look: _Look) -> GpuUse:
    is_told = before.is_told and look.is_told and not (before.by_queues or look.by_queues)
    return GpuUse(
        residents={**before.memory, **look.memory},
        holders=frozenset(look.memory),
        busy=look.busy if is_told else None,
        measure=GpuMethod.ENGINE_TIME,
        unknown=look.unknown_ns if is_told else 0,
    )
