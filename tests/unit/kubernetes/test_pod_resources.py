"""The kubelet's socket: a real gRPC server on the other side, and what is none."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from fakes.kubelet import FakeKubelet, listening, pod_resources
from fakes.peers import answering
from jobwatt.errors import Absent, Denied, Failed, ReadError, TimedOut
from jobwatt.kubernetes import pod_resources as module
from jobwatt.kubernetes.pod_resources import PodResources, list_devices


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_kubelet_answers(tmp_path: Path) -> None:
    """With an empty question."""
    kubelet = FakeKubelet(pod_resources("ml", "bert-0", {"nvidia.com/gpu": ["GPU-1"]}))
    with listening(kubelet, tmp_path / "s"):
        assert list_devices(tmp_path / "s") == {("ml", "bert-0"): ("GPU-1",)}
    assert kubelet.asked == [b""]


@pytest.mark.parametrize("pods", [0, 250, 4000])
def test_answers_of_any_size(tmp_path: Path, pods: int) -> None:
    """Also beyond the windows of HTTP/2, which are 64 KiB."""
    given = {"nvidia.com/gpu": [f"GPU-{'0' * 32}-{index}" for index in range(8)]}
    answer = b"".join(pod_resources("ml", f"bert-{index}", given) for index in range(pods))
    with listening(FakeKubelet(answer), tmp_path / "s"):
        devices = list_devices(tmp_path / "s")
    assert len(devices) == pods
    assert len(answer) >= pods * 300


def test_an_answer_without_end_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket cannot fill the memory."""
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with (
        listening(FakeKubelet(b"\x0a\x00" * 1000), tmp_path / "s"),
        pytest.raises(Failed, match="more than 1000 bytes"),
    ):
        list_devices(tmp_path / "s")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (grpc.StatusCode.UNAVAILABLE, "gRPC status 14: made up"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "gRPC status 8: made up"),
    ],
)
def test_a_status_is_told(tmp_path: Path, status: grpc.StatusCode, message: str) -> None:
    """With the server's words."""
    with (
        listening(FakeKubelet(status=status), tmp_path / "s"),
        pytest.raises(Failed, match=message),
    ):
        list_devices(tmp_path / "s")


def test_another_service_is_told(tmp_path: Path) -> None:
    """A kubelet that does not know the method."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_insecure_port(f"unix:{tmp_path / 's'}")
    server.start()
    with pytest.raises(Failed, match="gRPC status 12"):
        list_devices(tmp_path / "s")
    server.stop(None).wait()


def error_of(path: Path) -> ReadError:
    with pytest.raises(ReadError) as caught:
        list_devices(path)
    return caught.value


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (b"", Failed, "closed within an answer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Failed, ""),
        (b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64", Failed, ""),
        # GOAWAY with an error.
        (
            bytes.fromhex("000000040000000000 000008070000000000 000000000000000b"),
            Failed,
            "HTTP/2 error",
        ),
        (None, TimedOut, "no answer in time"),
    ],
)
def test_what_is_no_answer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes | None,
    kind: type[ReadError],
    message: str,
) -> None:
    """Each in the domain's words, with the socket's name."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.3)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with answering(listener, answer):
            error = error_of(tmp_path / "s")
    assert isinstance(error, kind)
    assert str(error).startswith(f"{tmp_path}/s: ")
    assert message in str(error)


def test_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent, of a kubelet that has gone, or denied."""
    assert isinstance(error_of(tmp_path / "none"), Absent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "dead"))
    assert "Connection refused" in str(error_of(tmp_path / "dead"))

    class Forbidden(socket.socket):
        def connect(self, address: object) -> None:
            raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(socket, "socket", Forbidden)
    assert isinstance(error_of(tmp_path / "dead"), Denied)


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is told."""
    monkeypatch.setitem(sys.modules, "h2.connection", None)
    error = error_of(tmp_path / "s")
    assert isinstance(error, Absent)
    assert "pip install 'jobwatt[kubernetes]'" in str(error)


def test_it_asks_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The same answer stays the same object; a kubelet that restarts is found again."""
    monkeypatch.setattr(module, "PERIOD_SECONDS", 0.05)
    monkeypatch.setattr(module, "ABSENT_SECONDS", 0.05)
    stop = threading.Event()
    resources = PodResources(tmp_path / "s", stop)
    thread = threading.Thread(target=resources.run)
    thread.start()
    kubelet = FakeKubelet(pod_resources("ml", "bert-0", {"nvidia.com/gpu": ["GPU-1"]}))
    try:
        with listening(kubelet, tmp_path / "s"):
            wait_until(lambda: len(kubelet.asked) >= 1)
            wait_until(lambda: bool(resources.devices))
            first = resources.devices
            wait_until(lambda: len(kubelet.asked) >= 4)
            assert resources.devices is first
            wait_until(lambda: resources.answers >= 3)
        time.sleep(0.2)
        assert resources.devices is first
        kubelet.answer = pod_resources("ml", "bert-0", {"nvidia.com/gpu": ["GPU-2"]})
        with listening(kubelet, tmp_path / "s"):
            wait_until(lambda: resources.devices == {("ml", "bert-0"): ("GPU-2",)})
    finally:
        stop.set()
        thread.join()
    assert all("GPUs of pods" in record.getMessage() for record in caplog.records)


def test_no_kubelet_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine without the socket says nothing; one without h2 says so once."""
    monkeypatch.setattr(module, "ABSENT_SECONDS", 0.01)

    def run(path: Path) -> list[str]:
        caplog.clear()
        stop = threading.Event()
        thread = threading.Thread(target=PodResources(path, stop).run)
        thread.start()
        time.sleep(0.2)
        stop.set()
        thread.join()
        return [record.getMessage() for record in caplog.records]

    assert run(tmp_path / "none") == []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        monkeypatch.setitem(sys.modules, "h2.connection", None)
        told = run(tmp_path / "s")
    assert len(told) == 1
    assert "pip install 'jobwatt[kubernetes]'" in told[0]
