"""`jobwatt simulate`: a made-up node, through the same path from meters to page, or a site."""

from __future__ import annotations

from pathlib import Path

import click

from jobwatt.cli.options import with_config
from jobwatt.config import Config
from jobwatt.logs import set_up_logging
from jobwatt.simulation.fleet_plan import JOBS_A_NODE, make_fleet
from jobwatt.simulation.scenarios import SCENARIOS

__all__ = ["simulate"]

DEFAULT_SCENARIO = "two-socket-server"
MOST_NODES, MOST_JOBS = 20_000, 1_000_000


def _described() -> str:
    """Return all scenarios as a list for the help, one paragraph each."""
    return "\n\n".join(f"{name}: {scenario.description}." for name, scenario in SCENARIOS.items())


@click.command(epilog=_described())
@click.option(
    "--scenario",
    type=click.Choice(sorted(SCENARIOS)),
    help=f"Which node.  [default: {DEFAULT_SCENARIO}]",
)
@click.option("--seed", default=1, show_default=True, help="Another seed, another course.")
@click.option(
    "--fleet",
    type=click.IntRange(1, MOST_NODES),
    metavar="NODES",
    help="A site of so many nodes in place of one: their pages at /nodes/NAME/metrics, where they "
    "are at /sd (http_sd_configs), what jobs have really used at /truth.",
)
@click.option(
    "--jobs",
    type=click.IntRange(0, MOST_JOBS),
    help=f"Jobs that arrive there within --hours.  [default: {JOBS_A_NODE} a node and day]",
)
@click.option(
    "--hours",
    type=click.FloatRange(0, 24 * 366, min_open=True),
    help="For how long jobs arrive there.  [default: 24]",
)
@click.option(
    "--truth",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what the site's jobs have really used to this file in the end, as JSON.",
)
@with_config("web.", "sample.", "process.", "dram.", "grid.", "log.")
def simulate(
    config: Config,
    scenario: str | None,
    seed: int,
    fleet: int | None,
    jobs: int | None,
    hours: float | None,
    truth: Path | None,
) -> None:
    """Serve the metrics of a made-up node (source="simulated"); nothing is kept on disk."""
    # Loaded after the arguments are known to be right.
    if fleet is None:
        for name, given in (("--jobs", jobs), ("--hours", hours), ("--truth", truth)):
            if given is not None:
                raise click.UsageError(f"{name} is for a site; add --fleet NODES")
        from jobwatt import app  # noqa: PLC0415

        set_up_logging(config.log_level, config.log_format)
        parts = app.simulated_parts(scenario or DEFAULT_SCENARIO, seed)
        app.serve(config, parts, keep_state=False)
        return
    if scenario is not None:
        raise click.UsageError("--scenario is for one node; a site has its own: leave one out")
    from jobwatt.simulation.fleet_serve import serve_fleet  # noqa: PLC0415

    set_up_logging(config.log_level, config.log_format)
    seconds = (hours or 24.0) * 3600
    count = round(JOBS_A_NODE * fleet * seconds / 86400) if jobs is None else jobs
    site = make_fleet(
        fleet,
        count,
        seconds,
        seed=seed,
        zone=config.grid_zone,
        interval=config.sample_interval,
    )
    serve_fleet(config, site, truth)
