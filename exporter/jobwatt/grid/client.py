"""JSON from a provider, or why there is none: a reason to count, and how long to wait."""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import time
from collections.abc import Mapping

from jobwatt.errors import ReadError, TimedOut
from jobwatt.grid.contract import GridError, Reason
from jobwatt.http_client import GOOD, Answer, Unreachable, ask, split_url, without_password

__all__ = ["get_json"]

MOST_BYTES = 1 << 20
"""Of a body. The longest that is asked for, three hours of five-minute values, has 3 kB."""

_MOST_WAIT_SECONDS = 86400.0
"""What a provider may ask us to wait."""

_SERVER_ERRORS = range(500, 600)
_REASONS = {
    401: Reason.DENIED,
    403: Reason.DENIED,
    404: Reason.NOT_FOUND,
    408: Reason.TIMEOUT,
    429: Reason.RATE_LIMITED,
}


def get_json(url: str, headers: Mapping[str, str], seconds: float) -> object:
    """Return the JSON at an address.

    Args:
        url: http or https, without a secret in its path: that is named in errors.
        headers: may hold secrets.
        seconds: for everything from the connection to the last byte.

    Raises:
        GridError: there is none; the message names the server and never a header or the body.
    """
    try:
        where = without_password(split_url(url, "https://host"))
    except ValueError as error:
        raise GridError(Reason.REJECTED, str(error)) from None
    try:
        answer = ask(url, headers=headers, timeout=seconds, most_bytes=MOST_BYTES)
    except ReadError as error:
        raise GridError(_reason(error), f"{where}: {error}") from None
    if answer.status not in GOOD:
        raise _refusal(where, answer)
    try:
        return json.loads(answer.body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise GridError(Reason.MALFORMED, f"{where}: the answer is not JSON") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _reason(error: ReadError) -> Reason:
    if isinstance(error, TimedOut):
        return Reason.TIMEOUT
    return Reason.UNREACHABLE if isinstance(error, Unreachable) else Reason.MALFORMED


def _refusal(where: str, answer: Answer) -> GridError:
    if answer.elsewhere:
        return GridError(
            Reason.REJECTED,
            f"{where}: redirected to {answer.elsewhere}; if that is right, make it the provider's "
            "url",
        )
    server = Reason.SERVER_ERROR if answer.status in _SERVER_ERRORS else Reason.REJECTED
    reason = _REASONS.get(answer.status, server)
    word = http.client.responses.get(answer.status, "unknown status")
    wait = _wait(answer.headers.get("Retry-After"), time.time())
    return GridError(reason, f"{where}: {answer.status} {word}", wait)


def _wait(retry_after: str | None, now: float) -> float | None:
    """Return the seconds of a `Retry-After`: a number, or a date."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return None if math.isnan(seconds) else min(max(0.0, seconds), _MOST_WAIT_SECONDS)
