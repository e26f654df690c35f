"""`jobwatt serve`: the exporter."""

from __future__ import annotations

import click

from jobwatt.cli.options import with_config
from jobwatt.config import Config
from jobwatt.logs import set_up_logging

__all__ = ["serve"]


@click.command()
@with_config()
def serve(config: Config) -> None:
    """Measure this machine and serve the metrics."""
    from jobwatt import app  # noqa: PLC0415 - after the arguments are known to be right

    set_up_logging(config.log_level, config.log_format)
    app.serve(config, app.host_parts(config))
