"""What the doctor is asked and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Group", "Level", "many"]


class Level(StrEnum):
    """How good a finding is, from good to bad."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


class Group(StrEnum):
    """What a finding is about."""

    MACHINE = "machine"
    ENERGY = "energy"
    GPUS = "gpus"
    PROCESSES = "processes"
    CGROUPS = "cgroups"
    KUBERNETES = "kubernetes"
    STATE = "state"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        level: `ok`, `note` (worth knowing, nothing is lost), `problem` (cannot be measured).
        group: what it is about.
        subject: the thing, in a word or two.
        message: what was found.
        remedy: what mends it, on lines of its own; those that start with two spaces are commands
            or settings just as they are to be written. None where nothing is to be done.
    """

    level: Level
    group: Group
    subject: str
    message: str
    remedy: str | None = None


def many(count: int, one: str, more: str | None = None) -> str:
    """Return a count with its noun: `1 package`, `2 packages`."""
    return f"{count} {one if count == 1 else more or one + 's'}"
