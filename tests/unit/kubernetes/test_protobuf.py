"""Protobuf's wire format, as far as it is read."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.kubelet import pod_resources, text, varint
from jobwatt.errors import Failed
from jobwatt.kubernetes.pod_resources import parse_devices
from jobwatt.kubernetes.protobuf import fields


def test_fields_of_bytes_are_found_and_others_skipped() -> None:
    """Numbers, fixed widths, and what later versions add."""
    message = (
        varint(1 << 3)
        + varint(1 << 40)
        + text(2, "a")
        + varint(3 << 3 | 1)
        + bytes(8)
        + varint(4 << 3 | 5)
        + bytes(4)
        + text(2000, b"\xff" * 300)
    )
    assert list(fields(message)) == [(2, b"a"), (2000, b"\xff" * 300)]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"\x0a\x05ab", "ends within a field"),
        (b"\x0a", "ends within a number"),
        (b"\xff" * 11, "a number is too long"),
        (b"\x0b", "wire type 3"),
        (b"<html>", "no protobuf"),
    ],
)
def test_what_is_no_message_is_told(message: bytes, why: str) -> None:
    """Instead of something made up."""
    with pytest.raises(Failed, match=why):
        list(fields(message))


@given(st.binary(max_size=200))
def test_any_bytes_are_devices_or_an_error(message: bytes) -> None:
    """Ids are texts, and nothing but the domain's error is raised."""
    with contextlib.suppress(Failed):
        ids = [device for devices in parse_devices(message).values() for device in devices]
        assert all(isinstance(device, str) for device in ids)


def test_devices_by_pod() -> None:
    """All containers' devices, of all resources; pods without any are left out."""
    message = (
        pod_resources("ml", "bert-0", {"nvidia.com/gpu": ["GPU-1", "GPU-2"]}, {"x/nic": ["n0"]})
        + pod_resources("web", "nginx", {})
        + pod_resources("ml", "mig", {}, {"nvidia.com/mig-1g.10gb": ["MIG-7"]})
        + text(9, "later")
    )
    assert parse_devices(message) == {
        ("ml", "bert-0"): ("GPU-1", "GPU-2", "n0"),
        ("ml", "mig"): ("MIG-7",),
    }
