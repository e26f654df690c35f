"""The settings as options of a command."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import click

from jobwatt.config import SETTINGS, Config, Setting, load_config
from jobwatt.errors import UsageError

__all__ = ["with_config"]


def with_config(
    *names: str, defaults: Config | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of the settings that begin with `names` (none: all).

    The command is called with the whole `Config`; its own options come as they are. `defaults` are
    the command's own.
    """
    defaults = defaults or Config()
    chosen = [s for s in SETTINGS if s.metavar and (not names or s.name.startswith(names))]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def call(**given: Any) -> None:  # noqa: ANN401 - click passes what each option makes
            flags = {s.name: given.pop(s.field) for s in chosen}
            flags["config.file"] = given.pop("config_file")
            try:
                config = load_config(flags, os.environ, command=command.__name__, defaults=defaults)
            except UsageError as error:
                raise click.UsageError(str(error)) from error
            command(config, **given)

        wrapped: Callable[..., None] = call
        for setting in reversed(chosen):
            wrapped = _option(setting, defaults)(wrapped)
        return click.option(
            "--config.file", "config_file", metavar="FILE", help="Settings in YAML."
        )(wrapped)

    return decorate


def _option(setting: Setting, defaults: Config) -> Callable[[Any], Any]:
    default = getattr(defaults, setting.field)
    shown = "" if default in (None, "") else f"  [default: {default}]"
    return click.option(
        f"--{setting.name}", setting.field, metavar=setting.metavar, help=setting.help + shown
    )
