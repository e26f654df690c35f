"""A receiver of what Alertmanager sends."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Webhook(ThreadingHTTPServer):
    """Takes what Alertmanager sends."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.messages: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/alerts"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def firing(self, **labels: str) -> dict[str, Any] | None:
        """An alert that has arrived with these labels, None as long as there is none."""
        for message in tuple(self.messages):
            for alert in message["alerts"]:
                if alert["status"] == "firing" and labels.items() <= alert["labels"].items():
                    found: dict[str, Any] = alert
                    return found
        return None


class _Receiver(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.messages.append(json.loads(self.rfile.read(length)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay silent."""
