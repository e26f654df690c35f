"""`jobwatt doctor`: what can be measured here, what cannot, and the command that mends it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import groupby

import click

from jobwatt.cli.options import with_config
from jobwatt.config import Config
from jobwatt.doctor import Finding, Group, Level, examine

__all__ = ["doctor"]

TITLES = {Group.GPUS: "GPUs"}
MARKS = {Level.OK: "✓", Level.NOTE: "–", Level.PROBLEM: "✗"}
PLAIN_MARKS = {Level.OK: "+", Level.NOTE: "-", Level.PROBLEM: "x"}
ARROWS = {False: "→ ", True: "> "}
COLOURS = {Level.OK: "green", Level.NOTE: "yellow", Level.PROBLEM: "red"}

PLAIN = str.maketrans({"×": "x", "–": "-", "…": "...", "µ": "u"})
"""What stands for our own signs where the terminal has only ASCII."""

MOST_COLUMNS = 100


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@with_config("path.", "state.", "sample.", "cpu.", "kubernetes.")
@click.pass_context
def doctor(ctx: click.Context, config: Config, *, as_json: bool) -> None:
    """Tell what can be measured here, what cannot, and what mends it.

    Ends with 0 when everything can be measured, 1 when something cannot.
    """
    findings = examine(config)
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    if as_json:
        page = {"problems": problems, "findings": [asdict(finding) for finding in findings]}
        click.echo(json.dumps(page, indent=2))
    else:
        _print(findings, problems)
    ctx.exit(1 if problems else 0)


def _print(findings: Iterable[Finding], problems: int) -> None:
    encoding = sys.stdout.encoding or "ascii"
    color = False if os.environ.get("NO_COLOR") else None  # https://no-color.org
    columns = min(shutil.get_terminal_size().columns, MOST_COLUMNS)
    for text in _page(list(findings), problems, columns, plain=not _shows_marks(encoding)):
        click.echo(text.encode(encoding, "replace").decode(encoding), color=color)


def _shows_marks(encoding: str) -> bool:
    try:
        "".join([*MARKS.values(), *ARROWS.values()]).encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _page(findings: list[Finding], problems: int, columns: int, *, plain: bool) -> Iterator[str]:
    """Yield the lines of the report; a remedy that several in a row share is told once, below."""
    width = max(len(finding.subject) for finding in findings)
    marks = PLAIN_MARKS if plain else MARKS
    for group, members in groupby(findings, key=lambda finding: finding.group):
        yield click.style(TITLES.get(group) or group.value.capitalize(), bold=True)
        for remedy, alike in groupby(members, key=lambda finding: finding.remedy):
            for finding in alike:
                start = f"{marks[finding.level]} {finding.subject:<{width}}  "
                first, *rest = _lines(
                    start + _visible(finding.message, plain=plain), columns, start
                )
                mark = click.style(marks[finding.level], fg=COLOURS[finding.level])
                yield f"  {mark}{first[1:]}"
                yield from (f"  {line}" for line in rest)
            for line in (remedy or "").splitlines():
                pointer = "" if line.startswith("  ") else ARROWS[plain]
                yield " " * (width + 6) + pointer + _visible(line, plain=plain)
        yield ""
    if problems:
        text = "1 thing" if problems == 1 else f"{problems} things"
        yield f"{text} cannot be measured here as it is."
    else:
        yield "Everything here can be measured."


def _lines(text: str, columns: int, start: str) -> list[str]:
    return textwrap.wrap(
        text,
        max(columns - 2, len(start) + 30),
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _visible(text: str, *, plain: bool) -> str:
    """Return a text that a terminal can show: names come from the machine."""
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return shown.translate(PLAIN) if plain else shown
