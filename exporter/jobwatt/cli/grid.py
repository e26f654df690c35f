"""`jobwatt grid`: the grid-intensity exporter."""

from __future__ import annotations

import click

from jobwatt.cli.options import with_config
from jobwatt.config import Config
from jobwatt.logs import set_up_logging

__all__ = ["grid"]


@click.command()
@with_config("web.", "log.", defaults=Config(web_listen_address=":9744"))
def grid(config: Config) -> None:
    """Serve carbon intensity, PUE and price of the zones in --config.file; one a cluster."""
    from jobwatt import grid_app  # noqa: PLC0415 - after the arguments are known to be right

    set_up_logging(config.log_level, config.log_format)
    grid_app.serve(config, grid_app.make_plan(config))
