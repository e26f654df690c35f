"""`jobwatt top`: the jobs of a node by power, then its devices and processes, live in a terminal.

It shows what an exporter says; where none runs on this machine, it measures by itself for as long
as it is open.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import json
import logging
import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote

import click
from click.core import ParameterSource

from jobwatt.cli.options import with_config
from jobwatt.cli.output import PIPE_COLUMNS
from jobwatt.config import Config
from jobwatt.errors import ReadError, RunError, UsageError
from jobwatt.http_client import ask, basic_auth, is_local, split_url, without_password
from jobwatt.units import duration_seconds, mean_power_uw

if TYPE_CHECKING:
    from rich.console import Console

    from jobwatt.cli.top_view import Frame, Page, ProcessRow
    from jobwatt.snapshot import Snapshot

__all__ = ["Origin", "from_exporter", "from_this_machine", "top"]

DEFAULT_URL = "http://localhost:9743"
STATUS_PATH = "api/v1/status"

TIMEOUT_SECONDS = 3.0
MOST_BYTES = 16 * 2**20
"""An answer that is longer comes from something else."""

LEAST_INTERVAL = 0.2
LISTING_SECONDS, FIRST_LOOK_SECONDS = 0.2, 1.0
"""Power is a difference: the first frame of an own measurement takes so long, together."""

MOST_ARGUMENTS = 400
"""Characters of a command line: more than a terminal shows."""

PIPE_ROWS, MOST_ROWS = 20, 1000
"""Jobs, and processes, where nobody says how many: what fits into a terminal is less."""

_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;]*[a-z~]|o[a-z])?")
MOST_TYPED = 4096
"""A terminal keeps no more, so that no sequence is cut: N_TTY_BUF_SIZE in Linux' n_tty.c."""

QUIT = "q"
KEYS = "j jobs  p processes  w by power  e energy  b budget  q quit"


@dataclass(frozen=True, slots=True)
class Choice:
    """What the reader wants to see now: a view, and in which order."""

    view: str
    by: str

    def after(self, key: str) -> Choice:
        """Return the choice after a key; one that means nothing changes nothing."""
        views = {
            "j": "jobs",
            "p": "processes",
            "\t": "jobs" if self.view != "jobs" else "processes",
        }
        orders = {"w": "power", "e": "energy", "b": "budget"}
        return Choice(views.get(key, self.view), orders.get(key, self.by))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where statuses come from.

    Attributes:
        read: returns the status of now; raises `RunError` where there is none.
        node: whose it is, for people.
        is_local: whether its processes are this machine's.
        note: what the reader should know of it.
    """

    read: Callable[[], Mapping[str, Any]]
    node: str
    is_local: bool
    note: str = ""


class _NoExporterError(Exception):
    """Nothing at the address answers as an exporter does."""


def _interval(ctx: click.Context, param: click.Parameter, value: str) -> float:
    del ctx, param
    try:
        seconds = duration_seconds(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if seconds < LEAST_INTERVAL:
        raise click.BadParameter(f"{value!r} is less than {LEAST_INTERVAL}s")
    return seconds


@click.command()
@click.option(
    "--url",
    envvar="JOBWATT_URL",
    default=DEFAULT_URL,
    show_default=True,
    show_envvar=True,
    help="The exporter to ask; user:password@ for one behind basic auth.",
)
@click.option(
    "--interval",
    metavar="DURATION",
    default="2s",
    show_default=True,
    callback=_interval,
    help="Time between two frames.",
)
@click.option("--once", is_flag=True, help="Print one frame and end; so does a pipe.")
@click.option(
    "--sort",
    "by",
    type=click.Choice(["power", "energy", "budget"]),
    default="power",
    show_default=True,
    help="Order of the jobs and the processes.",
)
@click.option(
    "--view",
    type=click.Choice(["jobs", "processes", "all"]),
    help="What to show first.  [default: jobs; all with --once and in a pipe]",
)
@click.option(
    "-n",
    "rows",
    type=click.IntRange(min=1),
    help="Most jobs, and most processes.  [default: what fits; 20 with --once and in a pipe]",
)
@with_config("path.", "cpu.", "dram.")
def top(
    config: Config,
    *,
    url: str,
    interval: float,
    once: bool,
    by: str,
    view: str | None,
    rows: int | None,
) -> None:
    """Show jobs by power, live, then devices and processes.

    Keys: j jobs, p processes and GPUs, Tab the other; w by power, e by energy, b by budget; q ends.
    Without an exporter on this machine it measures by itself, under the settings of path, cpu and
    dram, and counts energy from its own start.
    """
    given = click.get_current_context().get_parameter_source("url") is not ParameterSource.DEFAULT
    origin = _origin(config, url, interval, given=given)
    live = not once and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    from rich.console import Console  # noqa: PLC0415 - `jobwatt --help` does not draw

    from jobwatt.cli.top_view import Frame, Page  # noqa: PLC0415

    def read() -> Page:
        try:
            return Page.parse(origin.read())
        except ValueError as error:
            raise RunError(f"{origin.node} speaks another version's status: {error}") from error

    choice = Choice(view or ("jobs" if live else "all"), by)
    notes = [origin.note] if origin.note else []
    arguments = _arguments if origin.is_local else _no_arguments
    most = rows or (MOST_ROWS if live else PIPE_ROWS)
    if live:

        def frame(page: Page, choice: Choice, before: Page | None, trouble: str) -> Frame:
            said = [*notes, *([trouble] if trouble else [])]
            return Frame(
                page,
                origin.node,
                choice.by,
                most,
                said,
                arguments,
                fill=True,
                view=choice.view,
                before=before,
                keys=KEYS,
            )

        _watch(Console(), read, frame, choice, interval)
    else:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a pipe without UTF-8 is no reason to fail
        columns = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_COLUMNS
        frame_once = Frame(read(), origin.node, by, most, notes, arguments, view=choice.view)
        Console(width=columns).print(frame_once)


# --- where statuses come from -------------------------------------------------------------------


def _origin(config: Config, url: str, interval: float, *, given: bool) -> Origin:
    origin = from_exporter(url)
    try:
        _fetch(url)
    except _NoExporterError as error:
        if given:
            raise RunError(f"{error}; is the exporter running there?") from error
        note = f"no exporter at {url}: measured by this command, since its start"
        return replace(from_this_machine(config, interval), note=note)
    return origin


def from_exporter(url: str) -> Origin:
    """Return the exporter at `url` as an origin.

    Raises:
        UsageError: the URL is none.
    """
    parts = _split(url)
    host = parts.hostname or ""
    here = is_local(host)

    def read() -> Mapping[str, Any]:
        try:
            return _fetch(url)
        except _NoExporterError as error:
            raise RunError(str(error)) from error

    return Origin(read, socket.gethostname() if here else host, here)


def from_this_machine(config: Config, interval: float) -> Origin:
    """Return an own measurement of this machine as an origin; it looks whenever it is read."""
    from jobwatt.app import local_sampler  # noqa: PLC0415 - most often an exporter answers
    from jobwatt.exposition.status import status  # noqa: PLC0415

    # What an operator is told in a log, a reader of the frame sees there.
    logging.getLogger("jobwatt").addHandler(logging.NullHandler())
    # A reader wants to see who is busy now, and opened no account for it.
    sampler = local_sampler(replace(config, process_min_joules=0.0, sample_interval=interval))
    before: Snapshot | None = None

    def read() -> Mapping[str, Any]:
        nonlocal before
        if before is None:
            # A process is listed from its second sample on, and has a power from its third on.
            sampler.sample()
            time.sleep(LISTING_SECONDS)
            before = sampler.sample()
            time.sleep(min(interval, FIRST_LOOK_SECONDS))
        snapshot = sampler.sample()
        shown, before = _with_mean_power(snapshot, before), snapshot
        return status(shown)

    return Origin(read, socket.gethostname(), is_local=True)


def _with_mean_power(snapshot: Snapshot, before: Snapshot) -> Snapshot:
    """Return a snapshot with the processes' and jobs' mean power since `before`.

    An exporter's is smoothed over some seconds, which would rise slowly from 0 W here.
    """
    span_ns = max(snapshot.monotonic_ns - before.monotonic_ns, 1)
    used = {view.job_uid: sum(view.energy_uj) for view in before.jobs}
    jobs = tuple(
        view._replace(
            power_uw=mean_power_uw(sum(view.energy_uj) - used.get(view.job_uid, 0), span_ns)
        )
        for view in snapshot.jobs
    )
    earlier = {view.labels: sum(view.energy_uj) for view in before.series}
    series = tuple(
        view._replace(
            power_uw=mean_power_uw(sum(view.energy_uj) - earlier.get(view.labels, 0), span_ns)
        )
        for view in snapshot.series
    )
    return replace(snapshot, series=series, jobs=jobs)


def _split(url: str) -> SplitResult:
    try:
        return split_url(url, DEFAULT_URL)
    except ValueError as error:
        raise UsageError(f"--url: {error}") from error


def _fetch(url: str) -> Mapping[str, Any]:
    """Ask an exporter for its status.

    Raises:
        RunError: there is an exporter, and it does not let this reader in or has no sample yet.
        _NoExporterError: nothing answers, or something that is no exporter.
    """
    parts = _split(url)
    shown = without_password(parts)
    headers = {}
    if parts.username is not None:
        username, password = unquote(parts.username), unquote(parts.password or "")
        headers["Authorization"] = basic_auth(username, password)
    try:
        answer = ask(
            f"{shown.rstrip('/')}/{STATUS_PATH}",
            headers=headers,
            timeout=TIMEOUT_SECONDS,
            most_bytes=MOST_BYTES,
        )
    except ReadError as error:
        raise _NoExporterError(f"{shown} does not answer: {error}") from error
    if answer.elsewhere:
        raise _NoExporterError(f"{shown} sends us to {answer.elsewhere}")
    status = f"{answer.status} {answer.reason}"
    if answer.status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
        raise RunError(f"{shown} refuses ({status}); give --url with user:password@")
    if answer.status == http.client.SERVICE_UNAVAILABLE:
        raise RunError(f"{shown} has no sample yet; try again in a moment")
    if answer.status != http.client.OK:
        raise _NoExporterError(f"{shown} answers {status}")
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise _NoExporterError(f"{shown} answers, but not as JobWatt does") from error
    if not isinstance(found, dict) or "devices" not in found:
        raise _NoExporterError(f"{shown} answers, but not as JobWatt does")
    return found


# --- what this machine knows of its processes ---------------------------------------------------


def _no_arguments(process: ProcessRow) -> str:
    del process
    return ""


def _arguments(process: ProcessRow) -> str:
    """Return the rest of a process's command line; "" where it has gone or cannot be read."""
    import psutil  # noqa: PLC0415 - for local processes only

    try:
        found = psutil.Process(process.pid)
        with found.oneshot():
            name, command = found.name(), found.cmdline()
    except (psutil.Error, OSError, ValueError):
        return ""
    # Its pid may be another process's by now: then nothing is known.
    if not name.startswith(process.comm) or not command:
        return ""
    first = command[0].rpartition("/")[2]
    words = command[1:] if first in {name, process.comm} else command
    # Names of files need not be text.
    text = " ".join(words)[:MOST_ARGUMENTS]
    return text.encode(errors="surrogateescape").decode(errors="replace")


# --- the live view ------------------------------------------------------------------------------


def _watch(
    console: Console,
    read: Callable[[], Page],
    frame: Callable[[Page, Choice, Page | None, str], Frame],
    choice: Choice,
    interval: float,
) -> None:
    """Draw until q or Ctrl-C; a connection that is lost later is told in the frame."""
    from rich.live import Live  # noqa: PLC0415

    terminated = signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave the screen clean
    try:
        page, before, trouble = read(), None, ""
        with _keyboard() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
            due = time.monotonic()
            while True:
                live.update(frame(page, choice, before, trouble), refresh=True)
                keys = pressed(max(0.0, due + interval - time.monotonic()))
                if QUIT in keys:
                    return
                if keys:
                    choice = functools.reduce(Choice.after, keys, choice)
                    continue
                due = time.monotonic()
                try:
                    news, trouble = read(), ""
                except RunError as error:
                    trouble = f"old figures: {error}"
                else:
                    before = page if news.time > page.time else before
                    page = news
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, terminated)


@contextlib.contextmanager
def _keyboard() -> Iterator[Callable[[float], str]]:
    """Give a function that waits for keys; "" where none comes in time."""
    if not sys.stdin.isatty():
        yield _sleep
        return
    import termios  # noqa: PLC0415 - needed here only
    import tty  # noqa: PLC0415

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield lambda seconds: _keys(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _sleep(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def _keys(descriptor: int, seconds: float) -> str:
    """Return the keys that are pressed within a time, in order; `QUIT` where the terminal has gone.

    Keys such as arrows come as sequences, which mean nothing here.
    """
    if not select.select([descriptor], [], [], seconds)[0]:
        return ""
    typed = os.read(descriptor, MOST_TYPED).decode("ascii", "replace").lower()
    return _SEQUENCE.sub("?", typed) or QUIT
