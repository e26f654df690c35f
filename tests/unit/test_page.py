from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from jobwatt.exposition.page import CONTENT_SECURITY_POLICY, page

VOID = {"meta", "link"}
SHAPES = {"rect", "path"}


class _Markup(HTMLParser):
    """Collects tags and inline parts, and checks that every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self.open: list[str] = []
        self.feed(page().decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SHAPES
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.inline:
            self.inline[self.open[-1]].append(data)


@pytest.fixture(scope="module")
def markup() -> _Markup:
    """The page, taken apart."""
    return _Markup()


def policy() -> dict[str, list[str]]:
    """The content security policy by directive."""
    directives = (part.split() for part in CONTENT_SECURITY_POLICY.split("; "))
    return {name: values for name, *values in directives}


def test_nothing_from_elsewhere() -> None:
    """No address of another host, but for the namespace in the icon, which is no address."""
    addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s'\"]*", page().decode())

    assert addresses == ["http://www.w3.org/2000/svg"]


@pytest.mark.parametrize("tag", ["script", "style"])
def test_policy_allows_exactly_the_inline_parts(markup: _Markup, tag: str) -> None:
    """The hash of what the browser will see, computed here by another parser."""
    (text,) = markup.inline[tag]
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    assert policy()[f"{tag}-src"] == [f"'sha256-{digest}'"]


def test_policy_is_strict() -> None:
    """Nothing but the page's own parts, and data from its own origin."""
    assert policy()["default-src"] == ["'none'"]
    assert policy()["connect-src"] == ["'self'"]
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "*" not in CONTENT_SECURITY_POLICY


def test_no_inline_handlers_or_styles(markup: _Markup) -> None:
    """They would need more than hashes."""
    names = {name for _, attributes in markup.tags for name in attributes}

    assert not [name for name in names if name.startswith("on") or name == "style"]


def test_text_never_becomes_markup(markup: _Markup) -> None:
    """Names of processes are written by anyone."""
    (script,) = markup.inline["script"]

    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script


def test_links_are_relative(markup: _Markup) -> None:
    """The page works behind a path prefix."""
    links = [attributes["href"] for tag, attributes in markup.tags if tag == "a"]

    assert links
    assert not [link for link in links if link is None or link.startswith("/")]


def test_metrics_may_be_elsewhere() -> None:
    """The link follows the telemetry path; the inline parts, and their hashes, stay."""
    moved = page('/a"b:c')

    assert b'href="./a&quot;b:c"' in moved
    assert b'href="./metrics"' not in moved
    assert page("/metrics") == page()
    assert moved.count(b"<script>") == 1


def test_one_name_each(markup: _Markup) -> None:
    """Ids are unique, and what is labelled by an id finds it."""
    ids = [attributes["id"] for _, attributes in markup.tags if "id" in attributes]
    named = {a["aria-labelledby"] for _, a in markup.tags if "aria-labelledby" in a}

    assert len(ids) == len(set(ids))
    assert named <= set(ids)
