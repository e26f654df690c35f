"""Reading providers' answers: each step says what it expected and never repeats what it got."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from jobwatt.grid.contract import GridError, Reason

__all__ = ["entries", "fields", "moment"]


def fields(value: object, what: str) -> Mapping[str, object]:
    """Return an object of JSON.

    Raises:
        GridError: it is none.
    """
    if not isinstance(value, dict):
        raise GridError(Reason.MALFORMED, f"{what} is not an object but {type(value).__name__}")
    return value


def entries(value: object, what: str) -> list[object]:
    """Return a list of JSON that has entries.

    Raises:
        GridError: it is none, or empty.
    """
    if not isinstance(value, list):
        raise GridError(Reason.MALFORMED, f"{what} is not a list but {type(value).__name__}")
    if not value:
        raise GridError(Reason.NO_DATA, f"{what} is empty")
    return value


def moment(value: object, what: str) -> float:
    """Return the Unix time of an ISO 8601 text with its offset, such as `2024-05-01T10:00Z`.

    Raises:
        GridError: it is none.
    """
    if not isinstance(value, str):
        raise GridError(Reason.MALFORMED, f"{what} is not a time but {type(value).__name__}")
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is None:
            raise GridError(Reason.MALFORMED, f"{what} is a time without its offset from UTC")
        return found.astimezone(UTC).timestamp()
    except (ValueError, OverflowError) as error:
        raise GridError(Reason.MALFORMED, f"{what} is not a time") from error
