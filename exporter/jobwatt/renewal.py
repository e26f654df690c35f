"""A new program image in the same process: what a library that cannot be loaded twice needs."""

from __future__ import annotations

import logging
import os
import signal
import sys

__all__ = ["Renewal"]

log = logging.getLogger(__name__)

VARIABLE = "JOBWATT_RENEWED_FOR"
"""Tells the new image why it is there, so that it does not renew itself for the same reason."""


class Renewal:
    """Ends this image cleanly, then executes the program again; once for each reason."""

    def __init__(self) -> None:
        self._reason = ""

    def want(self, reason: str) -> None:
        """Ask for a new image, from any thread: the program then stops as after SIGTERM."""
        if self._reason or not reason or os.environ.get(VARIABLE) == reason:
            return
        self._reason = reason
        log.warning("starting anew: the NVIDIA driver is %s now", reason)
        os.kill(os.getpid(), signal.SIGTERM)

    def run_if_wanted(self) -> None:
        """Execute the program again with the same arguments, where that was asked for."""
        if self._reason:
            os.environ[VARIABLE] = self._reason
            arguments = [sys.executable, *sys.orig_argv[1:]]
            os.execv(sys.executable, arguments)  # noqa: S606 - our own command line
