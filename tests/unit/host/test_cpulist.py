from __future__ import annotations

import pytest

from jobwatt.host.cpulist import parse_cpulist


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", {0}),
        ("0-3", {0, 1, 2, 3}),
        ("0-1,8,10-11\n", {0, 1, 8, 10, 11}),
        ("3,1,1", {1, 3}),
        ("5-5", {5}),
        ("7-6", set()),
        ("65535", {65535}),
    ],
)
def test_lists(text: str, expected: set[int]) -> None:
    """Numbers and ranges are read as the kernel writes them."""
    assert parse_cpulist(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        ",",
        "0,",
        "a",
        "0-",
        "-3",
        "0--3",
        "0-b",
        "1 2",
        "٣",
        "²",
        "0-99999999",
        "9" * 5000,
    ],
)
def test_what_is_no_list_is_empty(text: str) -> None:
    """Nonsense and impossible numbers name no CPU, and cost nothing."""
    assert parse_cpulist(text) == frozenset()
