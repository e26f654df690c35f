"""The kernel's lists of CPUs: `0-3,8,10-11`."""

from __future__ import annotations

__all__ = ["parse_cpulist"]

_MOST_CPUS = 65536
_MOST_DIGITS = 6


def parse_cpulist(text: str) -> frozenset[int]:
    """Return the CPUs of a list such as `0-3,8`; what is no such list is empty.

    Format: Linux Documentation/admin-guide/cputopology.rst.
    """
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            return frozenset()
        start, end = int(first), int(last) if dash else int(first)
        if end >= _MOST_CPUS:
            return frozenset()
        cpus.update(range(start, end + 1))
    return frozenset(cpus)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
