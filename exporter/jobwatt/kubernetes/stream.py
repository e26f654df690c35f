"""JSON out of a stream, one object at a time: a node's list of pods is megabytes, a pod is not."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

from jobwatt.errors import Failed

__all__ = ["Listing", "lines"]

MOST_CHARACTERS = 1 << 22
"""Of one object: etcd takes 1.5 MiB (its --max-request-bytes)."""

_SPACE = " \t\r\n"
_CLOSED = frozenset('}]"el')
"""Last characters of values that cannot go on: what ends in a digit may be half a number."""


class Listing:
    """The items of a list as they come, and then the version of the whole.

    Attributes:
        version: the list's `resourceVersion`, "" where it tells none.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._json = json.JSONDecoder()
        self._text = ""
        self.version = ""

    def __iter__(self) -> Iterator[Any]:
        """Yield the items; raises Failed where it is no list, or ends too early."""
        mark = self._mark("{")
        while mark != "}":
            key = self._value()
            self._mark(":")
            if key == "items" and self._peek() == "[":
                yield from self._elements()
            else:
                value = self._value()
                if key == "metadata" and isinstance(value, dict):
                    self.version = str(value.get("resourceVersion") or "")
                elif key == "kind" and not str(value).endswith("List"):
                    raise Failed(f"the answer is no list but a {str(value)[:40]!r}")
            mark = self._mark(",}")

    def _elements(self) -> Iterator[Any]:
        self._mark("[")
        if self._peek() == "]":
            self._mark("]")
            return
        mark = ","
        while mark == ",":
            yield self._value()
            mark = self._mark(",]")

    def _mark(self, allowed: str) -> str:
        """Take one character, which must be one of these."""
        mark = self._peek()
        if mark not in allowed:
            raise Failed(f"the answer is no list in JSON: {self._text[:40]!r}")
        self._text = self._text[1:]
        return mark

    def _peek(self) -> str:
        while not (text := self._text.lstrip(_SPACE)):
            self._more()
        self._text = text
        return text[0]

    def _value(self) -> Any:  # noqa: ANN401 - JSON
        self._peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._text)
            except json.JSONDecodeError:
                self._more()  # it may only be half there
                continue
            except RecursionError as error:
                raise Failed("the answer nests too deep") from error
            if end == len(self._text) and self._text[-1] not in _CLOSED:
                self._more()
                continue
            self._text = self._text[end:]
            return value

    def _more(self) -> None:
        if len(self._text) > MOST_CHARACTERS:
            raise Failed(f"the answer is no list in JSON: {self._text[:40]!r}")
        chunk = next(self._chunks, None)
        if chunk is None:
            raise Failed(f"the answer ends too early, after {self._text[-40:]!r}")
        self._text += self._decoder.decode(chunk)


def lines(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a stream that has one a line; what ends without a newline is none.

    Raises:
        Failed: a line is no object, or too long.
    """
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line.strip():
                yield _object(line)
        if len(rest) > MOST_CHARACTERS:
            raise Failed(f"a line is longer than {MOST_CHARACTERS} bytes")


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Failed(f"not JSON: {line[:40]!r}") from error
    if not isinstance(value, dict):
        raise Failed(f"no object: {line[:40]!r}")
    return value
