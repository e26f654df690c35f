"""`jobwatt report`: receipts of jobs out of Prometheus."""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from jobwatt.cli.output import PIPE_COLUMNS, checked_output, write_whole
from jobwatt.errors import RunError, UsageError
from jobwatt.report.client import EXAMPLE, Access, Prometheus
from jobwatt.report.collect import Report, Wanted, collect
from jobwatt.report.rows import GROUPS, ORDERS
from jobwatt.report.timerange import Window, moment, moment_text
from jobwatt.units import duration_seconds

__all__ = ["report"]

DEFAULT_LAST = "24h"

DEFAULT_TOP = 30
"""Rows for people; programs get all."""

MOST_SECRET_BYTES = 64 * 1024

FORMATS = ("table", "csv", "json", "markdown")


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    del ctx, param
    if value is None:
        return None
    try:
        seconds = duration_seconds(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if seconds < 1:
        raise click.BadParameter(f"{value!r} is less than 1s")
    return seconds


def _texts(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """Refuse what is no text: no label of Prometheus is like it."""
    del ctx, param
    for value in values:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise click.BadParameter(f"{value!r} is not UTF-8") from error
    return tuple(values)


def _filter(name: str, what: str) -> Callable[[Any], Any]:
    return click.option(
        f"--{name}",
        f"{name}s",
        multiple=True,
        metavar=name.upper(),
        callback=_texts,
        help=f"{what} May be given several times.",
    )


@click.command()
@click.option(
    "--prometheus.url",
    "url",
    envvar=["JOBWATT_PROMETHEUS_URL", "PROMETHEUS_URL"],
    show_envvar=True,
    default=EXAMPLE,
    show_default=True,
    metavar="URL",
    help="Prometheus, or Thanos, Mimir, VictoriaMetrics with their path.",
)
@click.option("--from", "begin", metavar="TIME", help="The range's begin.")
@click.option("--to", "end", default="now", show_default=True, metavar="TIME", help="Its end.")
@click.option(
    "--last",
    metavar="DURATION",
    callback=_duration,
    help=f"How long before --to it begins, instead of --from.  [default: {DEFAULT_LAST}]",
)
@click.option(
    "--by",
    type=click.Choice(list(GROUPS)),
    default="job",
    show_default=True,
    help="What a row is about.",
)
@_filter("job", "Only this job_uid, such as slurm:4711.")
@_filter("user", "Only jobs of this user.")
@_filter("account", "Only jobs of this account.")
@_filter("queue", "Only jobs of this queue or partition.")
@_filter("namespace", "Only jobs of this Kubernetes namespace.")
@_filter("kind", "Only jobs of this kind, such as slurm, k8s or systemd.")
@_filter("cluster", "Only jobs with this `cluster` label.")
@click.option(
    "--sort",
    "order",
    type=click.Choice(list(ORDERS)),
    default="energy",
    show_default=True,
    help="What comes first.",
)
@click.option(
    "--top",
    type=click.IntRange(min=0),
    metavar="N",
    help="Most rows; the rest is summed up in one; 0 for all.  "
    f"[default: {DEFAULT_TOP} for table and markdown, else all]",
)
@click.option(
    "--devices/--no-devices",
    default=True,
    show_default=True,
    help="Tell where the energy of all devices went; over weeks of a big site it takes longest.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="csv and json are in base units.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=checked_output,
    help="Write to a file instead of stdout.",
)
@click.option(
    "--prometheus.username",
    "username",
    envvar="JOBWATT_PROMETHEUS_USERNAME",
    show_envvar=True,
    default="",
    metavar="NAME",
    help="For basic authentication.",
)
@click.option(
    "--prometheus.password-file",
    "password_file",
    envvar="JOBWATT_PROMETHEUS_PASSWORD_FILE",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Its password; else the variable JOBWATT_PROMETHEUS_PASSWORD.",
)
@click.option(
    "--prometheus.token-file",
    "token_file",
    envvar="JOBWATT_PROMETHEUS_TOKEN_FILE",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A bearer token; else the variable JOBWATT_PROMETHEUS_TOKEN.",
)
@click.option(
    "--prometheus.ca-file",
    "ca_file",
    envvar="JOBWATT_PROMETHEUS_CA_FILE",
    show_envvar=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Certificates to trust (PEM), instead of the system's.",
)
@click.option(
    "--prometheus.header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="A further header, such as 'X-Scope-OrgID: team-a' (Mimir). May be given several times.",
)
@click.option(
    "--prometheus.timeout",
    "timeout",
    default="60s",
    show_default=True,
    metavar="DURATION",
    callback=_duration,
    help="For each question; there are some dozens.",
)
def report(
    url: str,
    begin: str | None,
    end: str,
    last: float | None,
    order: str,
    top: int | None,
    kind: str,
    output: Path | None,
    username: str,
    password_file: Path | None,
    token_file: Path | None,
    ca_file: Path | None,
    headers: Sequence[str],
    timeout: float,
    **about: Any,  # noqa: ANN401 - fields of `Wanted`, as click passes them
) -> None:
    """Tell what jobs have used in a range of time: energy, carbon, cost, GPU-hours.

    TIME is like now-7d, 2026-11-01 (its midnight), 2026-11-01T08:00 (local time) or
    2026-11-01T08:00:00Z. Figures have what Prometheus booked within the range. A job's energy is
    booked as it is scraped; what a job had used before its first scrape, at that scrape if the job
    was then less than an hour old, else never.
    """
    if top is None and kind in {"table", "markdown"}:
        top = DEFAULT_TOP
    wanted = Wanted(_window(begin, end, last), order=order, top=top or None, **about)
    try:
        access = Access(
            username=username,
            password=_secret(password_file, "JOBWATT_PROMETHEUS_PASSWORD"),
            token=_for_header(_secret(token_file, "JOBWATT_PROMETHEUS_TOKEN"), "the bearer token"),
            headers=dict(map(_header, headers)),
            tls=_tls(ca_file),
        )
        prometheus = Prometheus(url, access, timeout)
    except ValueError as error:
        raise UsageError(f"--prometheus.url: {error}") from error
    with _progress() as told:
        found = collect(prometheus, wanted, told)
    _print(_rendered(found, kind, output), output)


def _window(begin: str | None, end: str, last: float | None) -> Window:
    if begin is not None and last is not None:
        raise click.UsageError("--from and --last exclude each other")
    now = time.time()
    until = _moment("--to", end, now)
    if until > now:
        until = float(int(now))
    if begin is None:
        since = until - int(last or duration_seconds(DEFAULT_LAST))
    else:
        since = _moment("--from", begin, now)
    if since >= until:
        raise click.UsageError(
            f"the range from {moment_text(since)} to {moment_text(until)} has no time in it"
        )
    return Window(int(since) * 1000, int(until) * 1000)


def _moment(option: str, text: str, now: float) -> float:
    try:
        return moment(text, now)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from error


def _secret(path: Path | None, variable: str) -> str:
    """Return a secret out of a file, else out of the environment; "" for none."""
    if path is None:
        return os.environ.get(variable, "").strip()
    try:
        with path.open("rb") as file:
            return file.read(MOST_SECRET_BYTES).decode().strip()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text") from error


def _header(text: str) -> tuple[str, str]:
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not name or not colon:
        raise click.UsageError("--prometheus.header: write it like 'X-Scope-OrgID: team-a'")
    return _for_header(name, "--prometheus.header"), _for_header(value, "--prometheus.header")


def _for_header(text: str, what: str) -> str:
    """Let through what a header may have; what it may not have may be a secret: it is not told."""
    if not (text.isascii() and text.isprintable()):
        raise click.UsageError(f"{what} may have letters, digits and signs of ASCII only")
    return text


def _tls(ca_file: Path | None) -> ssl.SSLContext | None:
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--prometheus.ca-file: {ca_file}: {error.strerror or error}") from error


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[float], None]]:
    """Give a function that shows how much is done, where somebody may be looking."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda _: None
        return
    shown = -1

    def tell(share: float) -> None:
        nonlocal shown
        percent = int(100 * share)
        if percent > shown:
            shown = percent
            click.echo(f"\r\x1b[Kasking Prometheus: {percent} %", err=True, nl=False)

    try:
        yield tell
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)


def _rendered(found: Report, kind: str, output: Path | None) -> str:
    if kind == "json":
        from jobwatt.report.render_data import as_json  # noqa: PLC0415 - the one that is asked for

        return as_json(found)
    if kind == "csv":
        from jobwatt.report.render_data import as_csv  # noqa: PLC0415

        return as_csv(found)
    if kind == "markdown":
        from jobwatt.report.render_markdown import as_markdown  # noqa: PLC0415

        return as_markdown(found)
    from jobwatt.report.render_table import as_table  # noqa: PLC0415

    width = shutil.get_terminal_size((PIPE_COLUMNS, 0)).columns
    plain = output is None and not _speaks_unicode()
    return as_table(found, width, plain=plain)


def _speaks_unicode() -> bool:
    try:
        "…".encode(sys.stdout.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _print(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text.encode(sys.stdout.encoding, "backslashreplace"), nl=False)
        return
    try:
        write_whole(output, text)
    except OSError as error:
        raise RunError(f"--output: {output}: {error.strerror or error}") from error
