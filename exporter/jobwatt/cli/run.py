"""`jobwatt run`: a command as a job of its own, with a receipt at its end.

The job is declared by the environment, which children inherit, also those that daemonise. The
node's exporter measures it; where none answers, this command does. What cannot be measured never
keeps the command from running, and shows in the receipt.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from jobwatt.cli.options import with_config
from jobwatt.cli.output import checked_output, write_whole
from jobwatt.cli.top import DEFAULT_URL, from_exporter
from jobwatt.config import Config
from jobwatt.errors import ReadError, RunError, UsageError
from jobwatt.host.run_cgroup import RunCgroup
from jobwatt.run.child import BY_SIGNAL, Ended, Signals, StartError, start, wait
from jobwatt.run.measure import ByExporter, ByOurselves, Measurer, Status, interval_of
from jobwatt.run.receipt import BRIEF_INTERVALS, Run, as_json, as_text, as_told
from jobwatt.units import NS, energy_joules

__all__ = ["run"]

log = logging.getLogger(__name__)

MOST_NAME, MOST_ID, MOST_ACCOUNT = 96, 128, 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@:=-]*", re.ASCII)
_STRANGE = re.compile(r"[^A-Za-z0-9._+@:=-]+", re.ASCII)


def _name(
    most: int,
) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        del ctx, param
        if value is None:
            return None
        if len(value) > most:
            raise click.BadParameter(f"{value[:20]!r}… is longer than {most} characters")
        if not _NAME.fullmatch(value):
            raise click.BadParameter(
                f"{value!r}: write it in letters, digits and . _ + @ : = -, with a letter or digit "
                "first"
            )
        return value

    return check


def _budget(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    del ctx, param
    try:
        return None if value is None else energy_joules(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _address(ctx: click.Context, param: click.Parameter, value: str) -> str:
    del ctx, param
    try:
        from_exporter(value)
    except UsageError as error:
        raise click.BadParameter(str(error).removeprefix("--url: ")) from error
    return value


@click.command(
    context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]}
)
@click.option(
    "--name",
    callback=_name(MOST_NAME),
    metavar="NAME",
    help="What the job is called; each run of it gets a time and a random part added. "
    " [default: the command's name]",
)
@click.option(
    "--id",
    "run_id",
    callback=_name(MOST_ID),
    metavar="ID",
    help="The job's exact name, instead of --name: for a run on several nodes give each the same, "
    "and another to each run.",
)
@click.option(
    "--budget",
    metavar="ENERGY",
    callback=_budget,
    help="Energy that the whole job may use, e.g. 2kWh or 90MJ. Nothing is stopped.",
)
@click.option(
    "--account",
    callback=_name(MOST_ACCOUNT),
    metavar="ACCOUNT",
    help="Whom the job is for: in the receipt, and for the command in JOBWATT_ACCOUNT. Exporters "
    "charge no account by it: they take accounts from schedulers alone.",
)
@click.option("--json", "wants_json", is_flag=True, help="Make the receipt a JSON object.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=checked_output,
    help="Write the receipt to a file; stderr has it as text all the same.",
)
@click.option(
    "--exporter",
    "url",
    envvar="JOBWATT_URL",
    default=DEFAULT_URL,
    show_default=True,
    show_envvar=True,
    callback=_address,
    help="The exporter of this node.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@with_config("path.", "cpu.", "dram.", "sample.", "grid.")
def run(
    config: Config,
    *,
    name: str | None,
    run_id: str | None,
    budget: float | None,
    account: str | None,
    wants_json: bool,
    output: Path | None,
    url: str,
    command: tuple[str, ...],
) -> None:
    """Run a command as a job of its own, and print what it has cost.

    The job is run:<NAME>-<time>-<random>, on the exporter's page, too. All children belong to it,
    also those that daemonise; a `jobwatt run` within is another job. Within a scheduler's job the
    energy is that job's, and the receipt shows what it used meanwhile.

    The command keeps stdin, stdout, the terminal and its exit code (128 + n for signal n, 126 and
    127 where it cannot be started); the receipt goes to stderr. Where no exporter answers on this
    node, this command measures by itself, under the settings of path, cpu, dram and sample.
    """
    if name is not None and run_id is not None:
        raise click.UsageError("--name and --id exclude each other")
    given = click.get_current_context().get_parameter_source("url") is not ParameterSource.DEFAULT
    if run_id is None:
        name = name or _name_of(command[0])
        run_id = _unique(name)
    environment = os.environ | {"JOBWATT_JOB": run_id}
    # What an outer run declared does not hold for this one.
    for variable in ("JOBWATT_NAME", "JOBWATT_BUDGET", "JOBWATT_ACCOUNT"):
        environment.pop(variable, None)
    if name is not None:
        environment["JOBWATT_NAME"] = name
    if budget is not None:
        environment["JOBWATT_BUDGET"] = f"{budget!r}J"
    if account is not None:
        environment["JOBWATT_ACCOUNT"] = account
    # The receipt says what an operator is told in a log.
    logging.getLogger("jobwatt").addHandler(logging.NullHandler())
    job = _Job(config, run_id, environment)
    with Signals() as signals:
        job.find_measurer(url, given=given)
        job.begin()
        if (number := signals.asked_to_end()) is not None:
            job.close()
            sys.exit(BY_SIGNAL + number)
        try:
            end = job.run(command, signals)
            job.finish(signals)
        except StartError as error:
            _tell(f"jobwatt: {error}\n")
            sys.exit(error.code)
        finally:
            job.close()
    receipt = as_json(job.result(command, end, account, budget), config)
    _print(receipt, wants_json=wants_json, output=output)
    sys.exit(end.code)


def _unique(name: str) -> str:
    moment = time.strftime("%Y%m%dT%H%M", time.gmtime())
    return f"{name}-{moment}-{secrets.token_hex(2)}"


def _name_of(program: str) -> str:
    found = _STRANGE.sub("-", os.path.basename(program)).lstrip("._+@:=-")  # noqa: PTH119 - a text
    return found[:MOST_NAME] or "command"


@dataclass
class _Job:
    """A command with all that belongs to it for its life."""

    config: Config
    run_id: str
    environment: Mapping[str, str]
    job_uid: str = ""
    exporter: str | None = None
    measurer: Measurer | None = None
    before: Status | None = None
    after: Status | None = None
    cgroup: RunCgroup | None = None
    own_cgroup: bool = False
    cgroup_before_ns: int = 0
    cpu_seconds_used: float | None = None
    still_running: bool | None = None
    started: float = 0.0
    seconds: float = 0.0
    trouble: list[str] = field(default_factory=list)

    def find_measurer(self, url: str, *, given: bool) -> None:
        """Find the node's exporter, else measure by ourselves, else not at all."""
        from jobwatt import app  # noqa: PLC0415 - after the arguments are known to be right

        try:
            self.job_uid = app.owner_of_child(self.config, self.environment)
        except Exception as error:  # whatever it is, the command must run
            log.debug("own place not found", exc_info=error)
            self.job_uid = f"run:{self.run_id}"
        by_exporter = ByExporter(from_exporter(url).read)
        try:
            self.before = by_exporter.begin()
        except RunError as error:
            if given:
                self.trouble.append(f"the exporter's figures: {error}")
        else:
            self.exporter = _without_password(url)
            self.measurer = by_exporter
            return
        try:
            self.measurer = ByOurselves(app.local_sampler(self.config))
        except Exception as error:  # noqa: BLE001 - whatever it is, the command must run
            self._give_up(error)

    def begin(self) -> None:
        """Take the first sample, and make a cgroup where this is allowed."""
        from jobwatt import app  # noqa: PLC0415

        if self.measurer is not None and self.before is None:
            try:
                self.before = self.measurer.begin()
            except Exception as error:  # noqa: BLE001 - whatever it is, the command must run
                self._give_up(error)
        if self.is_own:
            self.cgroup = app.run_cgroup(self.config, self.run_id)
        if self.cgroup is not None:
            self.cgroup_before_ns = self.cgroup.used_ns() or 0

    @property
    def is_own(self) -> bool:
        """Whether the job is the declared one, and not that of a scheduler around it."""
        return self.job_uid == f"run:{self.run_id}"

    def run(self, command: Sequence[str], signals: Signals) -> Ended:
        """Run the command to its end."""
        with self._inside():
            self.started, begun = time.time(), time.monotonic()
            pid = start(command, self.environment, signals)
        end = wait(pid, signals)
        self.seconds = time.monotonic() - begun
        self.cpu_seconds_used = end.cpu_seconds
        return end

    def finish(self, signals: Signals) -> None:
        """Take the last sample; what asks us to end now cuts the waiting short."""
        if self.own_cgroup and self.cgroup is not None:
            self.still_running = bool(self.cgroup.pids())
            if (used_ns := self.cgroup.used_ns()) is not None:
                self.cpu_seconds_used = (used_ns - self.cgroup_before_ns) / NS
        if self.measurer is None:
            return
        brief = self.seconds < BRIEF_INTERVALS * interval_of(self.before or {})
        try:
            with self._held() if brief else contextlib.nullcontext():
                self.after = self.measurer.finish(self.started + self.seconds, signals.pause)
        except Exception as error:  # noqa: BLE001 - its exit code must not be lost
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Go on without figures."""
        log.debug("measuring failed", exc_info=error)
        self.measurer = None
        known = isinstance(error, RunError | ReadError | OSError)
        name = "" if known else f"{type(error).__name__}: "
        self.trouble.append(f"all figures: {name}{error}")

    def close(self) -> None:
        """Leave nothing behind but what the command left."""
        if self.cgroup is not None:
            self.cgroup.remove()

    def result(
        self, command: Sequence[str], end: Ended, account: str | None, budget: float | None
    ) -> Run:
        """Return all that is known now."""
        used = end.cpu_seconds if self.cpu_seconds_used is None else self.cpu_seconds_used
        return Run(
            run_id=self.run_id,
            job_uid=as_told(self.after, self.job_uid),
            is_shared=not self.is_own,
            account=account,
            command=command,
            host=socket.gethostname(),
            started=self.started,
            seconds=self.seconds,
            end=end,
            exporter=self.exporter,
            before=self.before,
            after=self.after,
            cpu_seconds_used=used,
            own_cgroup=self.own_cgroup,
            budget_joules=budget,
            still_running=self.still_running,
            trouble=self.trouble,
        )

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """Be in the cgroup, if there is one."""
        if self.cgroup is None:
            yield
            return
        with self.cgroup.entered() as inside:
            self.own_cgroup = inside
            yield

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Keep a process in the cgroup, so that the next sample finds it.

        A sampler learns of a cgroup by a process in it, and a command that is gone by then has
        left none. This one reads from us until there is nothing more to read.
        """
        if not self.own_cgroup:
            yield
            return
        theirs, ours = os.pipe()
        pid = 0
        try:
            with self._inside(), contextlib.suppress(OSError):
                pid = os.posix_spawnp(
                    "cat",
                    ["cat"],
                    dict(self.environment),
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, theirs, 0),
                        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                    ],
                )
            yield
        finally:
            os.close(ours)
            os.close(theirs)
            if pid:
                os.waitpid(pid, 0)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _print(receipt: Mapping[str, object], *, wants_json: bool, output: Path | None) -> None:
    """Show the receipt on stderr and in its file; the exit code stays the command's."""
    text = as_text(receipt)
    made = json.dumps(receipt, allow_nan=False) + "\n" if wants_json else text
    shown = text if output is not None else made
    _tell(shown)
    if output is not None:
        try:
            write_whole(output, made)
        except OSError as error:
            _tell(f"jobwatt: --output: {error}\n")


def _tell(text: str) -> None:
    """Write to stderr, unless whoever started us closed it."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()
