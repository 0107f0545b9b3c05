"""The last warnings and errors of this process, for people who look at the admin page."""

import logging
from collections import deque
from datetime import UTC, datetime
from typing import Any

from ..logs import LOGGERS

__all__ = ["LastLines"]

KEPT = 50
"""Maximum number of lines that are kept."""


class LastLines(logging.Handler):
    """Keeps the last warnings and errors of our loggers. Their filter has made one line of each, without secrets."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's text, and what it says of a call."""
        self._lines.append(
            {
                "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
                "level": record.levelname.lower(),
                "message": record.getMessage(),
                **getattr(record, "call", {}),
            }
        )

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines, the newest first."""
        return list(self._lines)[::-1]

    def start(self) -> None:
        """Begin to listen."""
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self)

    def stop(self) -> None:
        """Listen no longer."""
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self)
