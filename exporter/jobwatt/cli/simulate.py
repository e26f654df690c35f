"""`jobwatt simulate`: a made-up node, through the same path from meters to page."""

from __future__ import annotations

import click

from jobwatt.cli.options import with_config
from jobwatt.config import Config
from jobwatt.logs import set_up_logging
from jobwatt.simulation.scenarios import SCENARIOS

__all__ = ["simulate"]


def _described() -> str:
    """Return all scenarios as a list for the help, one paragraph each."""
    return "\n\n".join(f"{name}: {scenario.description}." for name, scenario in SCENARIOS.items())


@click.command(epilog=_described())
@click.option(
    "--scenario",
    type=click.Choice(sorted(SCENARIOS)),
    default="two-socket-server",
    show_default=True,
    help="Which node.",
)
@click.option("--seed", default=1, show_default=True, help="Another seed, another course.")
@with_config("web.", "sample.", "process.", "dram.", "grid.", "log.")
def simulate(config: Config, scenario: str, seed: int) -> None:
    """Serve the metrics of a made-up node (source="simulated"); nothing is kept on disk."""
    from jobwatt import app  # noqa: PLC0415 - after the arguments are known to be right

    set_up_logging(config.log_level, config.log_format)
    app.serve(config, app.simulated_parts(scenario, seed), keep_state=False)
