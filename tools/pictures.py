"""Take the pictures of the page and of `jobwatt top` in docs/images, of the made-up Slurm node.

Needs Debian's chromium (tools/packages.sh test).
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import sync_playwright
from rich.console import Console

from jobwatt.cli.top import KEYS, from_exporter
from jobwatt.cli.top_view import Frame, Page

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SCENARIO = "slurm-node"
CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")

WIDTH, HEIGHT = 1280, 1400
SETTLING_MS = 6_000
"""Some looks, after which the page knows where power goes now."""

COLUMNS, ROWS = 132, 26


def main() -> None:
    """Take them all."""
    with simulated() as url:
        themes: tuple[Literal["dark", "light"], ...] = ("dark", "light")
        for theme in themes:
            take_page(url, theme)
        draw_top(url)


@contextmanager
def simulated() -> Iterator[str]:
    """Run the made-up node, and give its address."""
    command = ["-m", "jobwatt", "simulate", f"--scenario={SCENARIO}"]
    with subprocess.Popen(
        [sys.executable, *command, "--web.listen-address=127.0.0.1:0"],
        stderr=subprocess.PIPE,
        text=True,
    ) as exporter:
        try:
            assert exporter.stderr is not None  # noqa: S101 - it is a pipe
            found = next(filter(None, (re.search(r"127\.0\.0\.1:\d+", x) for x in exporter.stderr)))
            yield f"http://{found[0]}"
        finally:
            exporter.terminate()


def take_page(url: str, theme: Literal["dark", "light"]) -> None:
    """Take the upper part of the page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme, reduced_motion="reduce"
        )
        page.goto(url)
        page.wait_for_timeout(SETTLING_MS)
        page.evaluate(f"document.getElementById('host').textContent = '{SCENARIO}'")
        page.screenshot(path=IMAGES / f"page-{theme}.png")
        browser.close()


def draw_top(url: str) -> None:
    """Draw a frame of the live view."""
    console = Console(record=True, width=COLUMNS, height=ROWS, file=io.StringIO())
    page = Page.parse(from_exporter(url).read())
    console.print(Frame(page, SCENARIO, "power", ROWS, fill=True, view="jobs", keys=KEYS))
    console.save_svg(str(IMAGES / "top.svg"), title="jobwatt top", code_format=svg_format())


def svg_format() -> str:
    """Return rich's own format with fonts that need no network."""
    from rich._export_format import CONSOLE_SVG_FORMAT  # noqa: PLC0415 - to change it

    without = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return without.replace("Fira Code, monospace", "ui-monospace, DejaVu Sans Mono, monospace")


if __name__ == "__main__":
    main()
