"""What can go wrong, in the domain's own words.

I/O at the edge turns every `OSError` into one of `Absent`, `Denied` and `Failed`; the core never
sees an errno. `UsageError` and `RunError` end the program with the exit codes of the command line.
"""

from __future__ import annotations

import errno

__all__ = [
    "Absent",
    "Denied",
    "Failed",
    "ReadError",
    "RunError",
    "TimedOut",
    "UsageError",
    "translated",
]


class ReadError(Exception):
    """Something could not be read; `reason` is a short word fit for a label."""

    reason = "failed"


class Absent(ReadError):
    """It is not on this machine, or no longer: silence is right."""

    reason = "absent"


class Denied(ReadError):
    """It is there and this user may not read it: say which permission is missing."""

    reason = "denied"


class Failed(ReadError):
    """It is there and did not answer well: count, skip, try again."""

    reason = "failed"


class TimedOut(ReadError):
    """It is there and does not answer: nobody waits for it."""

    reason = "timeout"


class RunError(Exception):
    """The program cannot do its work here; the message names the thing and the remedy (exit 1)."""


class UsageError(Exception):
    """A flag, variable or configuration file is wrong; the message names it (exit 2)."""


_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ESRCH, errno.ENODEV, errno.ENXIO}
_DENIED = {errno.EACCES, errno.EPERM}


def translated(error: OSError, what: object) -> ReadError:
    """Return the domain's error for an `OSError` met while reading `what`."""
    text = f"{what}: {error.strerror or error}"
    if error.errno in _ABSENT:
        return Absent(text)
    if error.errno in _DENIED:
        return Denied(text)
    return Failed(text)
