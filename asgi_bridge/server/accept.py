"""Accepting connections: a few in each turn of the event loop, and none while the system has no more file descriptors.

Without a descriptor asyncio's own server logs a traceback for each place in the backlog, thousands a second, and
uvloop's accepts and closes without a word, so that the gateway's calls fail. Here new connections wait in the backlog
until a descriptor is free again, and the log has one line.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

from .sockets import BACKLOG

__all__ = ["TURN_ACCEPTS", "Acceptor"]

logger = logging.getLogger("asgi_bridge.server")

TURN_ACCEPTS = 32
"""Connections accepted in one turn of the event loop. A flood of them must leave time for the calls in between; with
more, others wait longer, and with fewer, a flood is not accepted any quicker."""
RETRY_SECONDS = 0.1
"""Seconds between two attempts to accept while no file descriptor is free."""
QUIET_SECONDS = 10.0
"""Seconds in which the log gets at most one line about it."""


class Acceptor:
    """Accepts on a listening socket, as long as :meth:`close` is not called.

    It takes the place of an :class:`asyncio.Server` in uvicorn's ``Server.servers``.

    Args:
        sock: listens, and does not block.
        factory: makes the protocol of a connection.
        backlog: the socket's, which :meth:`close` takes what waits in.
    """

    def __init__(
        self, sock: socket.socket, factory: Callable[[], asyncio.BufferedProtocol], backlog: int = BACKLOG
    ) -> None:
        self._sock = sock
        self._backlog = backlog
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.TimerHandle | None = None
        self._told = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self._listen()

    def close(self) -> None:
        """Takes what waits in the backlog, which would be cut off, and then no more.

        As much as a backlog holds, once: whoever goes on connecting must not keep the runner from stopping.
        """
        self._accept(self._backlog + 1)
        self._loop.remove_reader(self._sock)
        if self._waiting is not None:
            self._waiting.cancel()

    async def wait_closed(self) -> None:
        """As an :class:`asyncio.Server` has it; connections are uvicorn's to wait for."""

    def _listen(self) -> None:
        self._loop.add_reader(self._sock, self._accept, TURN_ACCEPTS)

    def _accept(self, most: int) -> None:
        """Accepts up to `most` connections. The reader is called again in the next turn if more are waiting."""
        for _ in range(most):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as exc:
                self._wait(exc)
                return
            task = self._loop.create_task(self._connect(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        await self._loop.connect_accepted_socket(self._factory, sock)

    def _wait(self, exc: OSError) -> None:
        self._loop.remove_reader(self._sock)
        self._waiting = self._loop.call_later(RETRY_SECONDS, self._listen)
        now = self._loop.time()
        if now >= self._told + QUIET_SECONDS:
            self._told = now
            logger.error(
                "No more connections can be accepted (%s); they wait. Is the limit of open files (ulimit -n) too low?",
                exc.strerror,
            )
