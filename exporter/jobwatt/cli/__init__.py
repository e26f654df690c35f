"""The command line: one file a command, loaded when it is called."""

from __future__ import annotations

import importlib
import sys

import click

import jobwatt
from jobwatt.errors import RunError, UsageError

__all__ = ["main"]

COMMANDS = ("serve", "run", "top", "report", "doctor", "grid", "simulate")


class _Commands(click.Group):
    """Imports a command's module only when it is asked for: `serve` must stay small."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"jobwatt.cli.{cmd_name}")
        command = getattr(module, cmd_name)
        if not isinstance(command, click.Command):  # pragma: no cover - a slip of the author
            raise TypeError(f"{cmd_name} is no command")
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(jobwatt.__version__, prog_name="jobwatt")
def cli() -> None:
    """Energy, carbon and cost of every training job, from hardware counters to Prometheus."""


def main() -> None:
    """Run the command line; exit codes: 0 good, 1 failure at run time, 2 usage or configuration."""
    try:
        cli()
    except UsageError as error:
        print(f"jobwatt: {error}", file=sys.stderr)
        sys.exit(2)
    except RunError as error:
        print(f"jobwatt: {error}", file=sys.stderr)
        sys.exit(1)
