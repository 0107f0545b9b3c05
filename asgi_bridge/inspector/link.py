"""The end of the link to the runner: a unix socket that takes what the runner tells."""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

from .store import Records

__all__ = ["Listener"]

MAX_LINE = 32 * 1024 * 1024
"""Maximum size of what a runner tells in one piece, in bytes."""


class Listener:
    """Takes what runners tell.

    Args:
        sock: The unix socket, which listens. Only its folder keeps others away, so that is a private one.
        records: Take the news of calls.
        loaded: Called with what a runner has loaded, when it has started.
    """

    def __init__(self, sock: socket.socket, records: Records, loaded: Callable[[dict[str, Any]], None]) -> None:
        self._sock = sock
        self._records = records
        self._loaded = loaded
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, sock=self._sock, limit=MAX_LINE)

    def stop(self) -> None:
        """Listen no longer."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                news = json.loads(line)
                if "loaded" in news:
                    self._loaded(news)
                else:
                    self._records.tell(news)
        except (OSError, ValueError):  # the runner was killed in the middle of a line
            pass
        finally:
            writer.close()
