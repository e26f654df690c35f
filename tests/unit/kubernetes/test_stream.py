"""Lists and watches, cut into any pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobwatt.errors import Failed
from jobwatt.kubernetes import stream
from jobwatt.kubernetes.stream import Listing, lines


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


ITEMS = [{"n": 1, "s": 'a"]}é\U0001f600'}, {"deep": [{"x": [1, 2.5e3, None, True]}]}, {}]
WHOLE = {"kind": "PodList", "metadata": {"resourceVersion": "77"}, "items": ITEMS}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_items_come_one_by_one(size: int, indent: int | None, ascii_only: bool) -> None:
    """Whatever the pieces: also within a character, an escape or a number."""
    text = json.dumps(WHOLE, indent=indent, ensure_ascii=ascii_only).encode()
    listing = Listing(pieces(text, size))
    assert list(listing) == ITEMS
    assert listing.version == "77"


@given(
    st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False))),
    st.integers(1, 50),
    st.booleans(),
)
def test_any_items(items: list[dict[str, Any]], size: int, last: bool) -> None:
    """The version may stand before or after the items, other keys anywhere."""
    meta = {"metadata": {"resourceVersion": "5"}, "count": 12}
    tree = {"items": items, **meta} if last else {**meta, "items": items}
    listing = Listing(pieces(json.dumps(tree).encode(), size))
    assert (list(listing), listing.version) == (items, "5")


@pytest.mark.parametrize("items", [None, []])
def test_an_empty_list(items: object) -> None:
    """Go writes a list without items as null."""
    listing = Listing([json.dumps({"metadata": {"resourceVersion": "5"}, "items": items}).encode()])
    assert (list(listing), listing.version) == ([], "5")


def test_an_item_is_there_before_the_next_has_come() -> None:
    """Nobody holds the whole list."""
    come: list[int] = []

    def chunks() -> Iterator[bytes]:
        yield b'{"items":[{"n":0}'
        for number in (1, 2):
            come.append(number)
            yield b',{"n":%d}' % number
        yield b"]}"

    seen = [(item["n"], list(come)) for item in Listing(chunks())]
    assert seen == [(0, []), (1, [1]), (2, [1, 2])]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<html><body>login</body></html>", "no list in JSON: '<html><body>"),
        (b"", "ends too early"),
        (b'{"items":[{"n":1},{"n"', "ends too early"),
        (b'{"items":[{"n":1}', "ends too early"),
        (b'{"kind":"Status","code":500}', "no list but a 'Status'"),
        (b'{"items":[1 2]}', "no list in JSON"),
        (b"[1]", "no list in JSON"),
        (b'{"items":' + b"[" * 100_000, "nests too deep|ends too early"),
    ],
)
def test_what_is_no_list_is_told(data: bytes, message: str) -> None:
    """With how it begins, or where it ends."""
    with pytest.raises(Failed, match=message):
        list(Listing([data]))


def test_an_endless_value_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server cannot fill the memory."""
    monkeypatch.setattr(stream, "MOST_CHARACTERS", 1000)
    with pytest.raises(Failed, match="no list in JSON"):
        list(Listing([b'{"items":["', *[b"x" * 500] * 10]))
    with pytest.raises(Failed, match="longer than 1000"):
        list(lines([b"x" * 500] * 10))


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_lines(size: int) -> None:
    """One object a line; what the connection was cut within is none."""
    data = b'{"a":1}\n\n{"b":"\xc3\xa9"}\r\n{"half'
    assert list(lines(pieces(data, size))) == [{"a": 1}, {"b": "é"}]


@pytest.mark.parametrize(
    ("data", "message"), [(b"<html>\n", "not JSON"), (b"[1]\n", "no object"), (b"\xff\n", "not")]
)
def test_lines_that_are_none(data: bytes, message: str) -> None:
    """A proxy's page is told for what it is."""
    with pytest.raises(Failed, match=message):
        list(lines([data]))
