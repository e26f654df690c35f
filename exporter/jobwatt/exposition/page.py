"""The page at `/`: one HTML file without outside parts, under a strict content security policy."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from functools import cache
from importlib import resources

__all__ = ["CONTENT_SECURITY_POLICY", "page"]

_METRICS_LINK = 'href="metrics"'


def page(metrics_path: str = "/metrics") -> bytes:
    """Return the page, in UTF-8, with a link to where the metrics are served.

    It is the same for everyone and at all times; what it shows it fetches from `api/v1/status`,
    relative to its own address, so that it works behind a path prefix.
    """
    return _page(metrics_path)


@cache
def _page(metrics_path: str) -> bytes:
    # "./" keeps a path with a colon from being read as a scheme.
    link = html.escape("./" + metrics_path.lstrip("/"))
    return _source().replace(_METRICS_LINK, f'href="{link}"').encode()


@cache
def _source() -> str:
    return resources.files("jobwatt.exposition").joinpath("page.html").read_text("utf-8")


def _hashes(tag: str) -> str:
    """Return the CSP sources that allow exactly the inline parts of the page with this tag."""
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", _source(), re.DOTALL)
    digests = (hashlib.sha256(part.encode()).digest() for part in parts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_hashes('script')}",
        f"style-src {_hashes('style')}",
        "img-src data:",  # the icon
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Text from processes never becomes markup: the browser refuses innerHTML and its like.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""The header `Content-Security-Policy` to send with the page."""
