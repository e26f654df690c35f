"""The composition root of `jobwatt grid`: the only module that names its concrete providers."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Mapping

from jobwatt.config import Config
from jobwatt.exposition.grid_routes import GridRoutes
from jobwatt.exposition.server import Server
from jobwatt.exposition.serving import log_address, stop_event, web_config
from jobwatt.grid import (
    constant,
    electricity_maps,
    rte_eco2mix,
    schedule,
    uk_carbon_intensity,
    watttime,
)
from jobwatt.grid.board import Board
from jobwatt.grid.making import MakerClass
from jobwatt.grid.plan import Plan, read_plan
from jobwatt.grid.poller import Poller

__all__ = ["PROVIDERS", "make_plan", "serve"]

log = logging.getLogger(__name__)

PROVIDERS: Mapping[str, MakerClass] = {
    electricity_maps.NAME: electricity_maps.Maker,
    rte_eco2mix.NAME: rte_eco2mix.Maker,
    uk_carbon_intensity.NAME: uk_carbon_intensity.Maker,
    watttime.NAME: watttime.Maker,
    schedule.NAME: schedule.Maker,
    constant.NAME: constant.Maker,
}
"""What a zone may name, beside the table, which every zone has."""


def make_plan(config: Config, environment: Mapping[str, str] = os.environ) -> Plan:
    """Return what a configuration asks for.

    Raises:
        UsageError: something in it is wrong.
    """
    return read_plan(config, environment, PROVIDERS)


def serve(config: Config, plan: Plan) -> None:
    """Poll and answer until SIGTERM or SIGINT.

    Raises:
        RunError: the address cannot be listened on.
        UsageError: the web configuration is wrong.
    """
    board = Board(plan.snapshot)
    routes = GridRoutes(lambda: board.snapshot, config.web_telemetry_path)
    server = Server(config.web_listen_address, routes.answer, web_config(config))
    stop = stop_event()
    server.start()
    log_address(server, config.web_telemetry_path)
    threads = [
        threading.Thread(
            target=Poller(feed, board).run,
            args=(stop,),
            name=f"{feed.provider.name} {feed.zone}",
            daemon=True,  # nobody waits for a provider at the end
        )
        for feed in plan.feeds
    ]
    gc.collect()
    gc.freeze()  # what lives now lives on
    for thread in threads:
        thread.start()
    stop.wait()
    log.info("stopping")
    server.stop()
