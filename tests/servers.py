"""Real servers for tests: how to start them, ask them, and be sure that they are gone."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

ROOT = Path(__file__).resolve().parents[1]
JOBWATT = Path(sys.executable).with_name("jobwatt")

STOP_SECONDS = 15

T = TypeVar("T")


def free_port() -> int:
    """A port that nobody had a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def get(url: str) -> tuple[int, bytes]:
    """Status and body of a page."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}")
        answer = connection.getresponse()
        return answer.status, answer.read()


def answers(url: str) -> bool:
    """Whether a page is there and good."""
    try:
        return get(url)[0] == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def eventually(what: Callable[[], T], seconds: float, otherwise: str = "") -> T:
    """The first true value of `what`, asked again and again."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {otherwise or value}")
        time.sleep(0.1)
    return value


def prometheus3() -> Path:
    """The folder with the programs of Prometheus 3, fetched where they are not there yet."""
    return _fetched("prometheus3.sh")


def vmalert() -> Path:
    """VictoriaMetrics' program that evaluates rules, fetched where it is not there yet."""
    return _fetched("vmalert.sh") / "vmalert"


def _fetched(script: str) -> Path:
    done = subprocess.run([ROOT / "tools" / script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@contextlib.contextmanager
def running(command: Sequence[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs with its output in a file, and is stopped in the end."""
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


class Prometheus:
    """The query API of a Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """The vector or matrix that an expression gives, as the API has it."""
        given = {"query": expr} | ({} if at is None else {"time": f"{at:.3f}"})
        status, body = get(f"{self.url}/api/v1/query?{urlencode(given)}")
        answer = json.loads(body)
        assert (status, answer["status"]) == (200, "success"), f"{expr}: {answer.get('error')}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def value(self, expr: str, at: float | None = None) -> float:
        """The one value that an expression gives."""
        result = self.query(expr, at)
        assert len(result) == 1, f"{expr}: {len(result)} series"
        return float(result[0]["value"][1])

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Data of another part of the API."""
        status, body = get(f"{self.url}/api/v1/{path}")
        assert status == http.client.OK
        return json.loads(body)["data"]
