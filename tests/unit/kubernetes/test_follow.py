"""Following pods over real HTTPS, with all that a real API server does wrong now and then."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.kubernetes import FakeApi, Trouble, issue, pod, serving
from fakes.peers import answering
from jobwatt.errors import Absent, Denied, Failed, ReadError, TimedOut
from jobwatt.kubernetes import follow
from jobwatt.kubernetes.client import Endpoint, opened
from jobwatt.kubernetes.follow import ApiPods, Follower, KubeletPods, pause_seconds
from jobwatt.kubernetes.pod import Pod, PodRules, parse_pod

RULES = PodRules()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@dataclass
class Site:
    """An API server, and who follows it."""

    api: FakeApi
    folder: Path
    url: str
    stack: ExitStack
    pauses: list[tuple[int, float]] = field(default_factory=list)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.url, self.folder / "token", self.folder / "ca.crt")

    def pause(self, failures: int, asked: float) -> float:
        self.pauses.append((failures, asked))
        return 0.01

    def start(self, kind: str = "api", node: str = "n1") -> Follower:
        stop = threading.Event()
        follower: Follower
        if kind == "api":
            follower = ApiPods(self.endpoint, node, RULES, stop=stop, pause=self.pause)
        else:
            follower = KubeletPods(self.endpoint, RULES, stop=stop, pause=self.pause)
        thread = threading.Thread(target=follower.run, daemon=True)
        thread.start()
        self.stack.callback(thread.join, 5)
        self.stack.callback(self.api.close)
        self.stack.callback(stop.set)
        return follower

    @property
    def watches(self) -> list[str]:
        """The versions from which was watched."""
        return [asked.query["resourceVersion"] for asked in self.api.asked if asked.watch]

    @property
    def lists(self) -> list[str]:
        """The versions that lists asked for."""
        asked = [asked for asked in self.api.asked if not asked.watch]
        return [one.query.get("resourceVersion", "") for one in asked]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    api = FakeApi()
    with serving(api, tmp_path) as url, ExitStack() as stack:
        yield Site(api, tmp_path, url, stack)


def uids(follower: Follower) -> set[str]:
    return set(follower.pods or {})


def test_list_then_watch(site: Site) -> None:
    """What is there at first, what comes, what changes, what goes."""
    site.api.put(pod(uid="a"), pod(uid="b"))
    follower = site.start()
    wait_until(lambda: uids(follower) == {"a", "b"})
    wait_until(lambda: len(site.watches) == 1)
    site.api.put(pod(uid="c", owner=("Job", "bert", "j")))
    wait_until(lambda: "c" in uids(follower))
    assert follower.pods is not None
    assert follower.pods["c"].job_uid == "k8s:ml/Job/bert:j"
    site.api.put(pod(uid="c", status={"phase": "Succeeded"}))
    wait_until(lambda: follower.pods is not None and follower.pods["c"].over)
    site.api.delete("a")
    wait_until(lambda: uids(follower) == {"b", "c"})
    assert (len(site.api.asked), site.pauses) == (2, [])
    listed, watched = site.api.asked
    assert listed.query == {"fieldSelector": "spec.nodeName=n1", "resourceVersion": "0"}
    assert {**watched.query, "timeoutSeconds": ""} == {
        "fieldSelector": "spec.nodeName=n1",
        "watch": "true",
        "resourceVersion": "1002",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "",
    }
    assert 300 <= int(watched.query["timeoutSeconds"]) <= 600
    assert watched.headers["Accept"] == "application/json"


def test_a_watch_that_ends_goes_on_where_it_stood(site: Site) -> None:
    """From the last event's version, or a bookmark's, without a new list."""
    site.api.put(pod(uid="a"))
    follower = site.start()
    wait_until(lambda: len(site.watches) == 1)
    site.api.put(pod(uid="b"))
    wait_until(lambda: uids(follower) == {"a", "b"})
    site.api.bookmark()
    version = site.api.version
    time.sleep(0.1)
    site.api.end_watches()
    wait_until(lambda: len(site.watches) == 2)
    assert (site.watches[1], len(site.lists), site.pauses) == (version, 1, [])
    site.api.put(pod(uid="c"))
    wait_until(lambda: "c" in uids(follower))


def test_a_connection_cut_within_a_line(site: Site) -> None:
    """Half an event is none; the watch goes on after a pause."""
    site.api.put(pod(uid="a"))
    follower = site.start()
    wait_until(lambda: len(site.watches) == 1)
    site.api.put(pod(uid="b"))
    wait_until(lambda: "b" in uids(follower))
    site.api.end_watches(within_a_line=True)
    wait_until(lambda: len(site.watches) == 2)
    assert (site.watches, len(site.lists)) == (["1001", "1002"], 1)
    assert site.pauses == [(1, 0.0)]
    assert uids(follower) == {"a", "b"}


@pytest.mark.parametrize("by_status", [True, False])
def test_a_forgotten_version_means_to_list_again(site: Site, by_status: bool) -> None:
    """By HTTP status or by an event in the stream: at once, and the latest list only."""
    site.api.gone_by_status = by_status
    site.api.put(pod(uid="a"), pod(uid="b"))
    follower = site.start()
    wait_until(lambda: len(site.watches) == 1)
    site.api.delete("a")
    wait_until(lambda: uids(follower) == {"b"})
    site.api.put(pod(uid="c"))
    wait_until(lambda: uids(follower) == {"b", "c"})
    site.api.forget("b")
    wait_until(lambda: uids(follower) == {"c"})
    assert (site.lists, site.pauses) == (["0", ""], [])


def test_versions_that_are_always_forgotten_are_no_loop(site: Site) -> None:
    """A second time in a row waits."""
    gone = Trouble(410)
    listed = Trouble(200, '{"kind":"PodList","metadata":{"resourceVersion":"5"},"items":[]}')
    site.api.troubles += [listed, gone, listed, gone, listed, gone]
    site.api.put(pod(uid="a"))
    follower = site.start()
    wait_until(lambda: uids(follower) == {"a"})
    assert site.pauses == [(1, 0.0), (2, 0.0)]


@pytest.mark.parametrize(
    ("trouble", "asked"),
    [
        (Trouble(429, headers={"Retry-After": "7"}), 7.0),
        (Trouble(429), 0.0),
        (Trouble(500), 0.0),
        (Trouble(503, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), 0.0),
        (Trouble(200, "<html><title>Sign in</title></html>"), 0.0),
        (Trouble(200, '{"kind":"PodList","items":[{"metadata":'), 0.0),
        (Trouble(302, headers={"Location": "https://elsewhere/"}), 0.0),
    ],
)
def test_after_trouble_it_waits_and_asks_again(site: Site, trouble: Trouble, asked: float) -> None:
    """As long as the server wants at least, longer each time."""
    site.api.put(pod(uid="a"))
    site.api.troubles += [trouble, trouble, trouble]
    follower = site.start()
    wait_until(lambda: uids(follower) == {"a"})
    assert site.pauses == [(1, asked), (2, asked), (3, asked)]


def test_refusals_tell_what_mends_them(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Once, and that it works again."""
    caplog.set_level(logging.INFO)
    site.api.put(pod(uid="a"))
    forbidden = Trouble(403, '{"message":"pods is forbidden: User \\"x\\" cannot list"}')
    site.api.troubles += [forbidden] * 3
    follower = site.start()
    wait_until(lambda: uids(follower) == {"a"})
    site.api.bookmark()
    wait_until(lambda: "works again" in caplog.text)
    told = [record.getMessage() for record in caplog.records if "metadata" in record.getMessage()]
    assert len(told) == 2
    assert "HTTP 403" in told[0]
    assert "get, list and watch pods (deploy/kubernetes/base/rbac.yaml)" in told[0]


def test_a_single_failure_is_not_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """It mends itself."""
    site.api.put(pod(uid="a"))
    site.api.troubles.append(Trouble(500))
    follower = site.start()
    wait_until(lambda: uids(follower) == {"a"})
    assert caplog.records == []


def test_a_token_is_read_again_at_each_request(site: Site) -> None:
    """Kubelet replaces it; the old one is refused."""
    site.api.put(pod(uid="a"))
    follower = site.start()
    wait_until(lambda: len(site.watches) == 1)
    site.api.token = "the-next"
    (site.folder / "token").write_text("the-next")
    site.api.end_watches()
    wait_until(lambda: len(site.watches) == 2)
    site.api.put(pod(uid="b"))
    wait_until(lambda: uids(follower) == {"a", "b"})
    assert site.pauses in ([], [(1, 0.0)])  # the watch was shorter than a second
    assert site.api.asked[-1].headers["Authorization"] == "Bearer the-next"


def test_an_unknown_token_is_refused_until_there_is_another(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """And nobody waits for an answer after a while."""
    (site.folder / "token").write_text("old")
    follower = site.start()
    wait_until(lambda: len(site.pauses) >= 2)
    assert (follower.pods, follower.hopeless) == (None, False)
    assert follower._refused_since is not None
    follower._refused_since -= follow.HOPELESS_SECONDS
    assert follower.hopeless
    assert "the token is not known there (kubernetes.token-file)" in caplog.text
    (site.folder / "token").write_text(site.api.token)
    wait_until(lambda: follower.pods == {})
    assert not follower.hopeless


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_over_once_a_watch_is_answered(site: Site, status: int) -> None:
    """Also by one that tells nothing yet."""
    follower = site.start()
    wait_until(lambda: len(site.watches) == 1)
    site.api.put(pod(uid="a"))
    wait_until(lambda: uids(follower) == {"a"})
    site.api.troubles.append(Trouble(status))
    site.api.end_watches()
    wait_until(lambda: len(site.watches) == 3)
    wait_until(lambda: follower._refused_since is None)
    assert len(site.lists) == 1


@pytest.mark.parametrize("status", [403, 500, 504])
def test_where_watches_fail_again_and_again_lists_tell(site: Site, status: int) -> None:
    """One a pause, and no pause becomes shorter for it; the first failure is but watched anew."""
    follower = site.start()
    wait_until(lambda: len(site.watches) == 1)
    site.api.put(pod(uid="0"))
    wait_until(lambda: uids(follower) == {"0"})
    site.api.watch_trouble = Trouble(status)
    site.api.end_watches()
    wait_until(lambda: len(site.watches) >= 3)
    site.api.put(pod(uid="a"))
    wait_until(lambda: uids(follower) == {"0", "a"})
    failures = [count for count, _ in site.pauses]
    assert failures == list(range(1, len(failures) + 1))
    assert site.lists[:2] == ["0", ""]
    watched, listed = len(site.watches), len(site.lists)
    site.api.watch_trouble = None
    wait_until(lambda: len(site.watches) > watched)
    site.api.put(pod(uid="b"))
    wait_until(lambda: uids(follower) == {"0", "a", "b"})
    assert len(site.lists) < listed + 3


def test_a_made_up_mirror_leaves_nothing_when_it_goes(site: Site) -> None:
    """Who was first keeps its place while it is there, and afterwards."""
    annotations = {"kubernetes.io/config.mirror": "d" * 32}
    node = ("Node", "n1", "n-uid")
    site.api.put(pod("etcd-n1", "a", annotations=annotations, owner=node))
    late = pod("evil", "b", namespace="evil", annotations=annotations, owner=node)
    late["metadata"]["creationTimestamp"] = "2026-11-29T11:00:00Z"
    follower = site.start()
    wait_until(lambda: len(site.watches) == 1)
    site.api.put(late, pod(uid="c"))
    wait_until(lambda: "c" in uids(follower))
    assert follower.pods is not None
    assert follower.pods["d" * 32].name == "etcd-n1"
    site.api.delete("b")
    site.api.delete("c")
    wait_until(lambda: "c" not in uids(follower))
    assert follower.pods["d" * 32].name == "etcd-n1"


def test_watches_that_end_at_once_are_no_loop(site: Site) -> None:
    """One that told nothing within its first second waits before the next."""
    site.api.empty_watches = 3
    follower = site.start()
    wait_until(lambda: len(site.watches) == 4)
    site.api.put(pod(uid="a"))
    wait_until(lambda: uids(follower) == {"a"})
    assert site.pauses == [(1, 0.0), (2, 0.0), (3, 0.0)]


@pytest.mark.parametrize(
    "line",
    ['{"type":"ADDED"}', '{"type":"ADDED","object":{}}', "<html>", "[]"],
)
def test_an_event_that_is_none_is_a_failure(site: Site, line: str) -> None:
    """The pods stay, and the watch begins again from where it stood."""
    site.api.put(pod(uid="a"))
    listed = Trouble(200, '{"kind":"PodList","metadata":{"resourceVersion":"5"},"items":[]}')
    site.api.troubles += [listed, Trouble(200, f"{line}\n")]
    follower = site.start()
    wait_until(lambda: uids(follower) == {"a"})
    assert site.pauses == [(1, 0.0)]


def test_unknown_events_are_passed_over(site: Site) -> None:
    """A later server may have more kinds of them."""
    listed = Trouble(200, '{"kind":"PodList","metadata":{"resourceVersion":"5"},"items":[]}')
    news = '{"type":"LATER","object":{"metadata":{"resourceVersion":"7"}}}\n'
    site.api.troubles += [listed, Trouble(200, news)]
    site.start()
    wait_until(lambda: len(site.watches) >= 2)
    assert site.watches[:2] == ["5", "5"]


def test_a_slow_server_is_waited_for(site: Site) -> None:
    """Within bounds."""
    site.api.put(pod(uid="a"))
    site.api.troubles.append(Trouble(500, seconds=0.3))
    follower = site.start()
    assert follower.pods is None
    wait_until(lambda: uids(follower) == {"a"})


def test_an_error_nobody_foresaw_is_told_and_survived(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Metadata is no reason to stop measuring."""
    broken = iter([True, False])

    def parse(tree: object, rules: PodRules) -> Pod:
        if next(broken, False):
            raise KeyError("a slip")
        return parse_pod(tree, rules)

    monkeypatch.setattr(follow, "parse_pod", parse)
    site.api.put(pod(uid="a"))
    follower = site.start()
    wait_until(lambda: uids(follower) == {"a"})
    assert "please report this" in caplog.text


def test_a_kubelet_is_asked_for_its_list(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again, and no version is named."""
    monkeypatch.setattr(follow, "KUBELET_SECONDS", 0.05)
    site.api.put(pod(uid="a"))
    follower = site.start("kubelet")
    wait_until(lambda: uids(follower) == {"a"})
    before = follower.pods
    site.api.put(pod(uid="b"))
    wait_until(lambda: uids(follower) == {"a", "b"})
    assert {(asked.path, *asked.query) for asked in site.api.asked} == {("/pods",)}
    assert before is not follower.pods


# --- pauses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "asked", "least", "most"),
    [
        (1, 0.0, 0.5, 1.0),
        (2, 0.0, 1.0, 2.0),
        (4, 0.0, 4.0, 8.0),
        (100, 0.0, 30.0, 60.0),
        (1, 7.0, 7.0, 7.5),
        (100, 7.0, 30.0, 60.0),
    ],
)
def test_pauses_grow_and_differ(failures: int, asked: float, least: float, most: float) -> None:
    """By chance between two bounds, which double; what the server asks for is the least."""
    assert (pause_seconds(failures, asked, 0.0), pause_seconds(failures, asked, 1.0)) == (
        least,
        most,
    )
    assert least <= pause_seconds(failures, asked) <= most
    assert len({pause_seconds(failures, asked) for _ in range(5)}) > 1


# --- one request --------------------------------------------------------------------------------


def error_of(endpoint: Endpoint, seconds: float = 5.0) -> ReadError:
    with pytest.raises(ReadError) as caught, opened(endpoint, "/x", seconds) as answer:
        list(answer.chunks())
    return caught.value


def test_a_server_that_nobody_vouches_for_gets_no_token(site: Site, tmp_path: Path) -> None:
    """The handshake ends before anything is sent."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "ca.crt").write_bytes(issue()[2])
    error = error_of(Endpoint(site.url, site.folder / "token", other / "ca.crt"))
    assert isinstance(error, Failed)
    assert "its certificate is not to be trusted" in str(error)
    assert "(kubernetes.ca-file)" in str(error)
    assert site.api.asked == []


def test_a_server_for_another_address_gets_no_token(tmp_path: Path) -> None:
    """A certificate is for its own name."""
    api = FakeApi()
    with serving(api, tmp_path) as url:
        here = url.replace("127.0.0.1", "localhost")
        error = error_of(Endpoint(here, tmp_path / "token", tmp_path / "ca.crt"))
    assert "not to be trusted" in str(error)


def test_no_token_goes_over_plain_http() -> None:
    """Whoever listens would have it."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                asked.append(peer.recv(65536))
                peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nbody")

        thread = threading.Thread(target=answer)
        thread.start()
        endpoint = Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}", Path("/dev/null"))
        with opened(endpoint, "/x", 5) as answered:
            assert b"".join(answered.chunks()) == b"body"
        thread.join()
    assert b"authorization" not in asked[0].lower()
    assert asked[0].startswith(b"GET /x HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (b"", Failed, ""),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Failed, "illegal status line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", Failed, "without sending complete"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nno, never", Denied, "no, never"),
        (b'HTTP/1.1 409 No\r\n\r\n{"kind":"Status","message":"a\\nb"}', Failed, "HTTP 409: a b"),
        (b'HTTP/1.1 409 No\r\n\r\n["message"]', Failed, 'HTTP 409: ["message"]'),
        (b"HTTP/1.1 404 Not Found\r\n\r\n" + b"x" * 10_000, Failed, "x" * 200),
        (None, TimedOut, "no answer in time"),
    ],
)
def test_what_is_no_answer(answer: bytes | None, kind: type[ReadError], message: str) -> None:
    """Each in the domain's words, with the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener, answering(listener, answer):
        error = error_of(Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}"), 0.2)
    assert isinstance(error, kind)
    assert message in str(error)
    assert "http://127.0.0.1" in str(error)
    assert len(str(error)) < 400


def test_nobody_there(site: Site, tmp_path: Path) -> None:
    """Refused, no such host, no such file."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "Connection refused" in str(error_of(Endpoint(f"http://127.0.0.1:{port}")))
    assert isinstance(error_of(Endpoint("http://no.such.host.invalid")), Failed)
    assert isinstance(error_of(Endpoint(f"http://{'x' * 70}.invalid")), Failed)
    assert isinstance(error_of(Endpoint(site.url, tmp_path / "none")), Absent)
    assert isinstance(error_of(Endpoint(site.url, ca_file=tmp_path / "none")), Absent)
    (tmp_path / "two").write_text("a\nb")
    wrong = error_of(Endpoint(site.url, tmp_path / "two", site.folder / "ca.crt"))
    assert "the token cannot be sent" in str(wrong)
    assert "a\nb" not in str(wrong)
