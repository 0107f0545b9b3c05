"""Log formats: text for people, and one JSON object a line for programs.

A line about a call says which call that is: method, path, route, plugin, phase, request id and milliseconds. Our own
lines bring this along as ``record.call``. In JSON, a plugin's lines get it from the call that runs. In text, they stay
as the plugin has written them.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from uvicorn.logging import DefaultFormatter

from ..hiding import SECRETS
from ..logs import MAX_LINE, one_line, traceback_text
from ..plugins.extension import about_current

__all__ = ["ACCESS", "JsonFormatter", "TextFormatter", "call_of"]

ACCESS = "asgi_bridge.access"
"""Name of the logger of calls. Its lines name the call by themselves."""
MAX_CALL = 700
"""Maximum length of what TextFormatter says of a call, in bytes."""


def call_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what is known of the call that a log record is about; empty: it is about none.

    Args:
        record: The record. It must be formatted where it was logged.
    """
    call = getattr(record, "call", None)
    return call if isinstance(call, dict) else about_current()


class TextFormatter(DefaultFormatter):
    """uvicorn's format. Behind our own messages it names the call, in brackets."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's name
        """Return the line without the traceback."""
        text = super().formatMessage(record)
        call = call_of(record) if record.name.startswith("asgi_bridge.") and record.name != ACCESS else {}
        request = " ".join(str(call[key]) for key in ("method", "path") if key in call)
        if not request:
            return text
        parts = [
            request,
            *(f"{name} {call[key]}" for key, name in (("route", "route"), ("request_id", "request")) if key in call),
            *([f"{call['milliseconds']:.1f} ms"] if "milliseconds" in call else []),
        ]
        known = one_line(SECRETS.taken_out(", ".join(filter(None, parts)))).encode()[:MAX_CALL].decode(errors="ignore")
        return f"{text} [{known}]"


class JsonFormatter(logging.Formatter):
    """One JSON object a line.

    It has ``time`` (ISO 8601, UTC), ``level``, ``logger`` and ``message``; for an exception also ``traceback``. Of a
    call it has, as far as they are known, ``method``, ``path``, ``route``, ``plugin``, ``phase``, ``request_id`` and
    ``milliseconds``. Access lines have ``action``, ``status`` and ``outcome`` too. A line has at most MAX_LINE bytes.
    Of a longer traceback it has the end.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": SECRETS.taken_out(record.getMessage()),
            **{
                key: SECRETS.taken_out(value) if isinstance(value, str) else value
                for key, value in call_of(record).items()
            },
        }
        if record.exc_info and record.exc_info[1] is not None:
            lines = (record.exc_text or traceback_text(record.exc_info[1])).split("\n")
            entry["traceback"] = "\n".join(lines)
            while len(lines) > 1 and len(_dumped(entry)) > MAX_LINE:
                lines = lines[len(lines) // 4 + 1 :]
                entry["traceback"] = "\n".join(["… (lines left out)", *lines])
        return _dumped(entry).decode()


def _dumped(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, default=str).encode(errors="backslashreplace")
