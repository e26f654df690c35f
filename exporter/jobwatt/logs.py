"""Logging to standard error, one line an event."""

from __future__ import annotations

import json
import logging
import sys
import time

__all__ = ["set_up_logging"]


def set_up_logging(level: str, log_format: str) -> None:
    """Log from `level` up as `logfmt` or `json` lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Logfmt())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _fields(record: logging.LogRecord, formatter: logging.Formatter) -> dict[str, str]:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    fields = {
        "time": f"{moment}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "msg": record.getMessage(),
    }
    if record.exc_info:
        fields["exception"] = formatter.formatException(record.exc_info)
    return fields


class _Logfmt(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(
            f"{key}={value if _is_plain(value) else _quoted(value)}"
            for key, value in _fields(record, self).items()
        )


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _visible(json.dumps(_fields(record, self), ensure_ascii=False))


def _is_plain(value: str) -> bool:
    return value.isprintable() and not set(value) & set(' "=\\') and value != ""


def _quoted(value: str) -> str:
    return _visible(json.dumps(value, ensure_ascii=False))


def _visible(text: str) -> str:
    """Escape what would move a terminal's cursor, or is no character at all."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
