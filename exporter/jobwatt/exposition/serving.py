"""What every exporter does to serve: its web configuration, its address in the log, its end."""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING

from jobwatt.config import Config
from jobwatt.exposition.server import Server

if TYPE_CHECKING:
    from jobwatt.exposition.web_config import WebConfig

__all__ = ["log_address", "stop_event", "web_config"]

log = logging.getLogger(__name__)


def web_config(config: Config) -> WebConfig | None:
    """Return what the web configuration file asks for, None where there is none.

    Raises:
        UsageError: something in it is wrong.
    """
    if config.web_config_file is None:
        return None
    from jobwatt.exposition.web_config import load_web_config  # noqa: PLC0415 - TLS is big

    return load_web_config(config.web_config_file)


def stop_event() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set, from now on."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def log_address(server: Server, metrics_path: str) -> None:
    """Say where a started server listens."""
    host, port = server.address
    shown = f"[{host}]" if ":" in host else host
    log.info("listening on %s:%d, metrics at %s", shown, port, metrics_path)
