"""As much of protobuf's wire format as one small answer needs (protobuf.dev, encoding)."""

from __future__ import annotations

from collections.abc import Iterator

from jobwatt.errors import Failed

__all__ = ["fields"]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_WIDTH = {FIXED64: 8, FIXED32: 4}
_MOST_VARINT = 10


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of a message's fields of bytes: texts and messages within.

    Numbers are skipped. Raises Failed where it is no message.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            _, at = _varint(message, at)
            continue
        if wire == BYTES:
            length, at = _varint(message, at)
        elif wire in _WIDTH:
            length = _WIDTH[wire]
        else:
            raise Failed(f"no protobuf: wire type {wire}")
        if at + length > len(message):
            raise Failed("no protobuf: it ends within a field")
        if wire == BYTES:
            yield number, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a number, and where what follows begins."""
    value = 0
    for index in range(_MOST_VARINT):
        if at + index >= len(message):
            raise Failed("no protobuf: it ends within a number")
        byte = message[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that it goes on
            return value, at + index + 1
    raise Failed("no protobuf: a number is too long")
