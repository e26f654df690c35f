"""What the next run on this boot must know of clocks and groups, and what an earlier run kept.

All of it is kept now and then, and at every look what that look has changed: this is written with
every sample, and must cost in proportion to who was busy.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jobwatt.host.procfs import CpuTimes
from jobwatt.model import Process, Row, Rows
from jobwatt.units import NS
from jobwatt.usage.groups import Group, KeptGroup

__all__ = ["Keeper", "Look", "Past", "PastGroup", "read_past"]

DUMP_NS = 30 * NS
"""How often all clocks are kept for the next run; those who ran are kept at every look."""


@dataclass(frozen=True, slots=True)
class PastGroup:
    """A group of an earlier run: where its counter stood (see `Group`), and whose it was."""

    kept: KeptGroup
    job_uid: str | None
    used_ns: int | None
    credit_ns: int


@dataclass(frozen=True, slots=True)
class Past:
    """CPU times of an earlier run on this boot.

    Attributes:
        at_ns: when it looked last.
        listed_ns: since when it has known of every process that ran.
        busy: of CPUs, at its last look.
        times_ns: of processes, by pid and start, up to its last look.
        groups: up to its last look, those above before those below.
    """

    at_ns: int
    listed_ns: int
    busy: CpuTimes
    times_ns: dict[tuple[int, int], int]
    groups: Collection[PastGroup]


@dataclass(frozen=True, slots=True)
class Look:
    """What a look has changed.

    Attributes:
        busy: CPU times of CPUs, None where they could not be read.
        used: what processes used.
        moved: the groups that were accounted.
        made: the groups that are new since the last that was kept.
    """

    busy: CpuTimes | None
    used: Mapping[Process, int]
    moved: Collection[Group]
    made: Collection[Group]


class Keeper:
    """Makes the rows that `read_past` reads."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._all_due_ns = 0

    def keep(self, now_ns: int, look: Look, groups: Iterable[Group]) -> Mapping[str, Row]:
        """Return all clocks and `groups` now and then, and what each look has changed since."""
        busy = () if look.busy is None else tuple(look.busy.busy_ns.items())
        if now_ns >= self._all_due_ns:
            self._all_due_ns = now_ns + DUMP_NS
            every = list(groups)
            clocks = [
                (process.pid, process.start_ticks, time_ns)
                for group in every
                for process, time_ns in zip(group.processes, group.times, strict=True)
            ]
            self._rows = {"clocks": (now_ns, busy, clocks), "groups": tuple(_group_rows(every))}
        else:
            # Flat, since this is written with every look.
            ran = [x for p, time_ns in look.used.items() for x in (p.pid, p.start_ticks, time_ns)]
            moved = [
                x
                for group in look.moved
                if (kept := group.kept) is not None
                for x in (kept.number, group.used_ns, group.credit_ns)
            ]
            row = now_ns, busy, ran, moved, list(_group_rows(look.made))
            self._rows[f"used {len(self._rows) - 1}"] = row
        return self._rows


def read_past(rows: Rows) -> Past | None:
    """Return what an earlier run kept, None where it has kept nothing.

    Raises:
        ValueError, TypeError, LookupError: the rows are not those of a `Keeper`.
    """
    if "clocks" not in rows or "groups" not in rows:
        return None
    listed_ns, busy, clocks = rows["clocks"]
    at_ns = listed_ns
    known = {(int(pid), int(start)): int(time_ns) for pid, start, time_ns in clocks}
    groups = dict(map(_past_group, rows["groups"]))
    looks = 1
    while (row := rows.get(f"used {looks}")) is not None:
        at_ns, busy, ran, moved, made = row
        for pid, start, time_ns in _triples(ran):
            key = int(pid), int(start)
            known[key] = known.get(key, 0) + int(time_ns)
        groups.update(map(_past_group, made))
        for number, used_ns, credit_ns in _triples(moved):
            if (group := groups.get(number)) is not None:  # else it counts as new
                groups[number] = replace(group, used_ns=int(used_ns), credit_ns=int(credit_ns))
        looks += 1
    times = CpuTimes({int(cpu): int(time_ns) for cpu, time_ns in busy})
    return Past(int(at_ns), int(listed_ns), times, known, groups.values())


def _group_rows(groups: Iterable[Group]) -> Iterator[Row]:
    """Return what the next run must know of groups, of those that it can find again."""
    for group in groups:
        kept = group.kept
        if kept is not None:
            place = kept.number, kept.controller, kept.path, kept.identity
            yield *place, group.job_uid, group.used_ns, group.credit_ns


def _past_group(row: Row) -> tuple[int, PastGroup]:
    """Read a row of `_group_rows`; return its number and what it tells."""
    number, controller, path, identity, job_uid, used_ns, credit_ns = row
    if b"\0" in os.fsencode(path) or not path.startswith("/"):
        raise ValueError("no path of a cgroup")
    kept = KeptGroup(int(number), str(controller), path, int(identity))
    owner = None if job_uid is None else str(job_uid)
    used_ns = None if used_ns is None else int(used_ns)
    return kept.number, PastGroup(kept, owner, used_ns, int(credit_ns))


def _triples(flat: Iterable[Any]) -> Iterator[tuple[Any, Any, Any]]:
    values = iter(flat)
    return zip(values, values, values, strict=True)
