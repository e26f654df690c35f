"""Prometheus' HTTP API, as Thanos, Mimir and VictoriaMetrics have it, too: instant queries."""

from __future__ import annotations

import http.client
import json
import math
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlencode

from jobwatt.errors import ReadError, RunError
from jobwatt.http_client import Answer, ask, basic_auth, split_url, without_password
from jobwatt.report.sample import Sample

__all__ = ["Access", "Prometheus", "TooMuch"]

EXAMPLE = "http://localhost:9090"

MOST_BYTES = 512 * 2**20
"""A longer answer is asked for in parts: 10,000 jobs take 4 MiB a question."""

PAUSES = (0.5, 2.0)
"""Seconds before a question is asked again that met a server too busy for it."""

GRACE_SECONDS = 5.0
"""Prometheus gives up first, so that its own words arrive."""

_BUSY = {
    http.client.TOO_MANY_REQUESTS,
    http.client.BAD_GATEWAY,
    http.client.SERVICE_UNAVAILABLE,
}
_REFUSED = {http.client.UNAUTHORIZED, http.client.FORBIDDEN}

# What a query that is too big is told: by Prometheus "query processing would load too many samples
# into memory in query execution", "query timed out in …"; by Thanos "exceeded series limit", by
# Mimir "the query exceeded the maximum number of chunks", by VictoriaMetrics "the number of
# matching unique timeseries exceeds …", "not enough memory", "cannot select more than
# -search.maxSamplesPerQuery". Another error of these words is only asked about once more.
_TOO_MUCH = re.compile(
    r"too many samples|time(d |)out|deadline exceeded|exceed|not enough memory|-search\.max",
    re.IGNORECASE,
)


class TooMuch(RunError):
    """The question is too big for the server: ask for less at once."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a server wants to see; none of it is ever shown.

    Attributes:
        username, password: for basic authentication.
        token: a bearer token, instead.
        headers: further ones, such as `X-Scope-OrgID`.
        tls: whom to trust, None for the system's authorities.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = None


class Prometheus:
    """The API below an address.

    Attributes:
        url: the address, fit to be shown.
        warnings: what answers were given with, such as a store that did not answer (Thanos).
        questions: how many answers have come.
    """

    def __init__(
        self,
        url: str,
        access: Access,
        timeout: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take an address; `user:password@` in it is for basic authentication.

        Raises:
            ValueError: the address is none.
        """
        parts = split_url(url, EXAMPLE)
        self.url = without_password(parts).rstrip("/")
        self.warnings: dict[str, None] = {}
        self.questions = 0
        self._access = access
        self._timeout = timeout
        self._sleep = sleep
        self._headers = {"Accept-Encoding": "gzip", **access.headers}
        username = access.username or unquote(parts.username or "")
        password = access.password or unquote(parts.password or "")
        if access.token:
            self._headers["Authorization"] = f"Bearer {access.token}"
        elif username:
            self._headers["Authorization"] = basic_auth(username, password)

    def query(self, expr: str, at_ms: int) -> list[Sample]:
        """Return the instant vector of an expression at a moment; without values that are none.

        Raises:
            TooMuch: asked for less it might answer.
            RunError: there is no answer, and what would help.
        """
        answer = self._patiently(expr, at_ms)
        page = self._page(answer)
        self.questions += 1
        if page.get("status") != "success":
            raise self._error(answer, page)
        self.warnings |= dict.fromkeys(map(str, page.get("warnings") or ()))
        try:
            vector = page["data"]["result"]
            found = [Sample(one["metric"], float(one["value"][1])) for one in vector]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise self._stranger("its answer is no vector") from error
        return [sample for sample in found if math.isfinite(sample.value)]

    def _patiently(self, expr: str, at_ms: int) -> Answer:
        """Ask until the server is not too busy, or we have asked often enough."""
        for pause in PAUSES:
            answer = self._ask(expr, at_ms)
            if answer.status not in _BUSY or _is_json(answer):
                return answer
            self._sleep(pause)
        return self._ask(expr, at_ms)

    def _ask(self, expr: str, at_ms: int) -> Answer:
        form = {
            "query": expr,
            "time": f"{at_ms // 1000}.{at_ms % 1000:03}",
            "timeout": f"{max(1, round(self._timeout))}s",
        }
        try:
            return ask(
                f"{self.url}/api/v1/query",
                data=urlencode(form).encode(),
                headers=self._headers,
                timeout=self._timeout + GRACE_SECONDS,
                most_bytes=MOST_BYTES,
                error_bodies=True,
                tls=self._access.tls,
            )
        except ReadError as error:
            hint = (
                "give it longer by --prometheus.timeout"
                if error.reason == "timeout"
                else "is Prometheus running there? --prometheus.url says where to ask"
            )
            raise RunError(f"Prometheus at {self.url} does not answer: {error}; {hint}") from error

    def _page(self, answer: Answer) -> Mapping[str, Any]:
        """Return an answer's JSON object, whatever its status.

        Raises:
            RunError: it is none.
        """
        status = f"{answer.status} {answer.reason}"
        if answer.status in _REFUSED:
            raise RunError(
                f"Prometheus at {self.url} refuses ({status}): give --prometheus.username with "
                "--prometheus.password-file, or --prometheus.token-file"
            )
        if "Location" in answer.headers:
            raise self._stranger(f"it sends us elsewhere ({status})")
        if answer.status == http.client.GATEWAY_TIMEOUT and not _is_json(answer):
            raise TooMuch(f"Prometheus at {self.url} takes too long ({status})")
        try:
            page = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            kind = answer.headers.get("Content-Type", "no type")
            raise self._stranger(f"{status}, {kind}") from error
        if not isinstance(page, dict) or "status" not in page:
            raise self._stranger("JSON of something else")
        return page

    def _error(self, answer: Answer, page: Mapping[str, Any]) -> TooMuch | RunError:
        words = str(page.get("error") or f"{answer.status} {answer.reason}")
        if page.get("errorType") in {"timeout", "canceled"} or _TOO_MUCH.search(words):
            return TooMuch(f"Prometheus at {self.url} finds a question too big: {words}")
        return RunError(f"Prometheus at {self.url} cannot answer: {words}")

    def _stranger(self, what: str) -> RunError:
        return RunError(
            f"{self.url} answers, but not as Prometheus' API does ({what}); does the address lack "
            "a path, such as /prometheus (Mimir) or /select/0/prometheus (VictoriaMetrics)?"
        )


def _is_json(answer: Answer) -> bool:
    return "json" in answer.headers.get("Content-Type", "")
