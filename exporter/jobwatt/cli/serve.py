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
    from jobwatt.renewal import Renewal  # noqa: PLC0415

    set_up_logging(config.log_level, config.log_format)
    renewal = Renewal()
    app.serve(config, app.host_parts(config, renewal.want))
    renewal.run_if_wanted()
