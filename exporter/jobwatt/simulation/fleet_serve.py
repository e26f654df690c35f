"""Serve a made-up site until told to stop."""

from __future__ import annotations

import gc
import logging
import time
from pathlib import Path

from jobwatt.config import Config
from jobwatt.errors import RunError
from jobwatt.exposition.server import Server
from jobwatt.exposition.serving import log_address, stop_event, web_config
from jobwatt.simulation.fleet import Fleet
from jobwatt.simulation.fleet_web import SD_PATH, FleetRoutes

__all__ = ["serve_fleet"]

log = logging.getLogger(__name__)


def serve_fleet(config: Config, fleet: Fleet, truth_file: Path | None) -> None:
    """Answer until SIGTERM or SIGINT; then write what was really used, where that is asked for.

    Raises:
        RunError: the address cannot be listened on, or the file cannot be written.
        UsageError: the web configuration is wrong.
    """
    if truth_file is not None:
        _write(truth_file, b"")  # what cannot be written shows now, not after hours
    routes = FleetRoutes(fleet, time.time, config.web_telemetry_path)
    server = Server(config.web_listen_address, routes.answer, web_config(config))
    stop = stop_event()
    server.start()
    log_address(server, f"/nodes/NAME{config.web_telemetry_path}")
    log.info("%d nodes; where they are is at %s", len(fleet.nodes), SD_PATH)
    # The plan lives as long as the program: no collection needs to look at it.
    gc.collect()
    gc.freeze()
    stop.wait()
    log.info("stopping")
    server.stop()
    if truth_file is not None:
        _write(truth_file, routes.truth())


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; choose another file") from error
