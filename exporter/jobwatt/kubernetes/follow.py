"""Following the pods of a node in a thread of its own; the latest word lies ready for the sampler.

The API server: list once, then watch from the list's version, as its clients are told to
(kubernetes.io, API concepts: efficient detection of changes). A version that the server has
forgotten (410) means to list again; whatever else goes wrong, to wait, longer each time, with
jitter, so that the nodes of a cluster do not come back all at once.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from jobwatt.errors import Denied, Failed, ReadError
from jobwatt.kubernetes.access import Access
from jobwatt.kubernetes.client import UNAUTHORIZED, Endpoint, Refused, Unavailable, opened
from jobwatt.kubernetes.pod import Pod, PodRules, by_cgroup, parse_pod
from jobwatt.kubernetes.stream import Listing, lines

__all__ = ["ApiPods", "Follower", "KubeletPods", "Trouble", "follow_pods", "pause_seconds"]

log = logging.getLogger(__name__)

GONE = 410

LEAST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 1.0, 60.0

WATCH_SECONDS = 300
"""How long the server is asked to keep a watch, up to twice that, as other clients do."""

SILENCE_SECONDS = 30.0
"""How long an answer may stand still. A watch may for as long as it lasts, and this."""

BRIEF_SECONDS = 1.0
"""A watch that ends sooner, with nothing told, is a failure: it must not be asked for at once."""

KUBELET_SECONDS = 5.0

HOPELESS_SECONDS = 10.0
"""Who has been refused for so long is not about to be let in."""

_LASTING = 2
"""Failures in a row that are told; a single one mends itself."""


def pause_seconds(failures: int, asked_seconds: float = 0.0, spread: float | None = None) -> float:
    """Return how long to wait after so many failures in a row, at least what the server asks for.

    `spread` (0 to 1, by chance) is where in the upper half of the pause.
    """
    if spread is None:
        spread = random.random()  # noqa: S311 - not for secrets
    longest = min(MOST_PAUSE_SECONDS, LEAST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10))
    return max(asked_seconds, longest / 2) + longest / 2 * spread


class Trouble:
    """Tells in the log what lasts, once, and that it is over."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told = ""
        self.failures = 0

    def note(self, error: ReadError) -> None:
        """Count a failure."""
        self.failures += 1
        message = str(error)
        lasts = self.failures >= _LASTING or isinstance(error, Denied)
        if lasts and error.reason != self._told:
            self._told = error.reason
            log.warning("%s: %s", self._what, message)

    def clear(self) -> None:
        """Note that all is well."""
        self.failures = 0
        if self._told:
            self._told = ""
            log.info("%s: it works again", self._what)


class Follower:
    """Keeps the pods of a node, by the uid of their cgroup, in `pods`.

    Attributes:
        needs: what it must be allowed to do.
        pods: replaced as a whole when something has changed, never changed itself; None before
            the first answer.
    """

    needs = ""

    def __init__(
        self,
        endpoint: Endpoint,
        rules: PodRules,
        *,
        stop: threading.Event | None = None,
        pause: Callable[[int, float], float] = pause_seconds,
    ) -> None:
        self._endpoint = endpoint
        self._rules = rules
        self._stop = stop or threading.Event()
        self._pause = pause
        self._refused_since: float | None = None
        self._trouble = Trouble(f"metadata of pods, {self.what}")
        self._known: dict[str, Pod] = {}  # by their own uid
        self.pods: Mapping[str, Pod] | None = None

    @property
    def what(self) -> str:
        """Who tells, for people."""
        return self._endpoint.url

    @property
    def hopeless(self) -> bool:
        """Whether we have been refused for so long that nobody needs to wait for an answer."""
        since = self._refused_since
        return since is not None and time.monotonic() - since > HOPELESS_SECONDS

    def start(self) -> None:
        """Begin to follow."""
        threading.Thread(target=self.run, name="pods", daemon=True).start()

    def run(self) -> None:
        """Follow until told to stop."""
        while not self._stop.is_set():
            asked = 0.0
            try:
                self.turn()
                continue
            except Refused as error:
                self._refused_since = self._refused_since or time.monotonic()
                self._trouble.note(self._explained(error))
            except Unavailable as error:
                asked = error.retry_after
                self._trouble.note(error)
            except ReadError as error:
                self._trouble.note(error)
            except Exception:
                log.exception("%s: following failed; please report this", self.what)
                self._trouble.failures += 1
            self._stop.wait(self._pause(self._trouble.failures, asked))

    def turn(self) -> None:
        """Follow as long as it goes well; raises ReadError where it does not."""
        raise NotImplementedError

    def count(self) -> int:
        """Ask once, for the doctor; return how many pods there are.

        Raises:
            ReadError: what keeps us from following; the message says what mends it.
        """
        try:
            self.ask()
        except Refused as error:
            raise self._explained(error) from error
        return len(self.pods or {})

    def ask(self) -> None:
        """Take all pods anew, once, and try all that following takes."""
        raise NotImplementedError

    def _explained(self, error: Refused) -> Denied:
        """Return a refusal with what mends it."""
        if error.status == UNAUTHORIZED:
            return Denied(f"{error}; the token is not known there (kubernetes.token-file)")
        return Denied(f"{error}; the service account must be allowed to {self.needs}")

    def _list(self, target: str) -> str:
        """Take all pods anew; return the version of the list."""
        pods: dict[str, Pod] = {}
        with opened(self._endpoint, target, SILENCE_SECONDS) as answer:
            listing = Listing(answer.chunks())
            for item in listing:
                pod = parse_pod(item, self._rules)
                pods[pod.own_uid] = pod
        self._refused_since = None
        if self.pods is None or pods != self._known:
            self._show(pods)
        return listing.version

    def _show(self, pods: dict[str, Pod]) -> None:
        """Publish the pods, by their own uid, as they are now."""
        self._known = pods
        self.pods = by_cgroup(pods.values())


class ApiPods(Follower):
    """The pods of a node, by the API server's watch."""

    needs = "get, list and watch pods (deploy/kubernetes/base/rbac.yaml)"

    def __init__(
        self,
        endpoint: Endpoint,
        node: str,
        rules: PodRules,
        *,
        stop: threading.Event | None = None,
        pause: Callable[[int, float], float] = pause_seconds,
    ) -> None:
        super().__init__(endpoint, rules, stop=stop, pause=pause)
        self._node = node
        self._version = ""
        # Any version will do at first: the server answers out of its cache, by node. Once it has
        # forgotten ours, only the latest will.
        self._list_from = "0"
        self._is_new = False  # a list that no watch has gone on from yet

    def turn(self) -> None:
        """List where we stand nowhere, then watch until the server ends it.

        Where watches fail again and again, whatever the reason, each pause ends with a list, as
        other clients do: what is told there is no older than the pause.
        """
        if self._trouble.failures >= _LASTING:
            self._version = self._list_from = ""
        try:
            if not self._version:
                self._version = self._list(self._target(resourceVersion=self._list_from))
            self._watch()
        except Unavailable as error:
            if error.status != GONE:
                raise
            self._version = self._list_from = ""
            if self._is_new:
                raise
            self._is_new = True  # a second time in a row is not at once
            log.debug("%s: listing anew: %s", self.what, error)

    def ask(self) -> None:
        """List, and begin a watch."""
        self._version = self._list(self._target(resourceVersion=self._list_from))
        target = self._target(watch="true", resourceVersion=self._version, timeoutSeconds=1)
        with opened(self._endpoint, target, SILENCE_SECONDS):
            pass

    def _target(self, **query: str | int) -> str:
        given = {key: value for key, value in query.items() if value}
        chosen = {"fieldSelector": f"spec.nodeName={self._node}", **given}
        return f"{self._endpoint.parts.path.rstrip('/')}/api/v1/pods?{urlencode(chosen)}"

    def _watch(self) -> None:
        seconds = random.randint(WATCH_SECONDS, 2 * WATCH_SECONDS)  # noqa: S311 - not for secrets
        target = self._target(
            watch="true",
            resourceVersion=self._version,
            allowWatchBookmarks="true",
            timeoutSeconds=seconds,
        )
        begun, told = time.monotonic(), False
        with opened(self._endpoint, target, seconds + SILENCE_SECONDS) as answer:
            self._refused_since = None
            for event in lines(answer.chunks()):
                self._take(event)
                told = True
                self._goes_on()
        if not told and time.monotonic() - begun < BRIEF_SECONDS:
            raise Failed(f"{self.what}: the watch ends as soon as it begins")
        self._goes_on()

    def _goes_on(self) -> None:
        self._is_new = False
        self._trouble.clear()

    def _take(self, event: Mapping[str, Any]) -> None:
        """Take in one event of the watch."""
        kind, tree = event.get("type"), event.get("object")
        if not isinstance(tree, dict):
            raise Failed(f"{self.what}: an event without an object")
        if kind == "ERROR":
            code = tree.get("code")
            status = code if isinstance(code, int) else 0
            raise Unavailable(status, f"{self.what}: watch: {tree.get('message')!s:.200}")
        if kind in {"ADDED", "MODIFIED"}:
            pod = parse_pod(tree, self._rules)
            if self._known.get(pod.own_uid) != pod:
                self._show({**self._known, pod.own_uid: pod})
        elif kind == "DELETED":
            uid = parse_pod(tree, self._rules).own_uid
            self._show({key: pod for key, pod in self._known.items() if key != uid})
        elif kind != "BOOKMARK":
            log.debug("%s: unknown event %.40r", self.what, kind)
            return
        version = tree.get("metadata", {}).get("resourceVersion")
        if isinstance(version, str) and version:
            self._version = version


class KubeletPods(Follower):
    """The pods of a node, by the kubelet's own list, every few seconds."""

    needs = "get nodes/pods (before Kubernetes 1.33: nodes/proxy)"

    def turn(self) -> None:
        """List, then wait."""
        self.ask()
        self._trouble.clear()
        self._stop.wait(KUBELET_SECONDS)

    def ask(self) -> None:
        """List."""
        self._list(f"{self._endpoint.parts.path.rstrip('/')}/pods")


def follow_pods(access: Access, rules: PodRules) -> Follower:
    """Return who follows the pods, not started yet."""
    if access.kubelet:
        return KubeletPods(access.endpoint, rules)
    return ApiPods(access.endpoint, access.node, rules)
