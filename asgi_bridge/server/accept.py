"""Accepting connections: a few in each turn of the event loop, and none while the system has no more file descriptors.

When no descriptor is free, asyncio's own server logs a traceback for each place in the backlog: thousands a second.
uvloop's accepts each connection and closes it without a log line, so the gateway's calls fail. Here new connections
wait in the backlog until a descriptor is free again, and the log has one line.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

from ..succession.sockets import BACKLOG

__all__ = ["TURN_ACCEPTS", "Acceptor"]

logger = logging.getLogger("asgi_bridge.server")

TURN_ACCEPTS = 32
"""Maximum number of connections accepted in one turn of the event loop, so that a flood of them leaves time for calls.
With a higher number calls wait longer. With a lower one a flood is not accepted any quicker."""
RETRY_SECONDS = 0.1
"""Seconds between two attempts to accept, while no file descriptor is free."""
QUIET_SECONDS = 10.0
"""Seconds between two log lines about it, at least."""


class Acceptor:
    """Accepts connections on a listening socket until :meth:`close` is called.

    It takes the place of an :class:`asyncio.Server` in uvicorn's ``Server.servers``.

    Args:
        sock: The socket. It listens already, and does not block.
        factory: Makes the protocol of a connection.
        backlog: Size of the socket's backlog.
    """

    def __init__(
        self, sock: socket.socket, factory: Callable[[], asyncio.BufferedProtocol], backlog: int = BACKLOG
    ) -> None:
        self._sock = sock
        self._backlog = backlog
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.TimerHandle | None = None
        self._logged = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self._listens = True
        self._listen()

    def close(self) -> None:
        """Accept the connections that wait in the backlog, and then no more.

        The end of the process would cut off the waiting ones. No more are accepted than a backlog holds, so a client
        that goes on connecting cannot keep the runner from stopping.
        """
        if self._listens:
            self._accept(self._backlog + 1)
        self.stop()

    def stop(self) -> None:
        """Accept no more connections. Those in the backlog wait for the process that has the socket next."""
        if not self._listens:
            return
        self._listens = False
        self._loop.remove_reader(self._sock)
        if self._waiting is not None:
            self._waiting.cancel()

    def resume(self) -> None:
        """Accept again after :meth:`stop`."""
        self._listens = True
        self._listen()

    @property
    def is_connecting(self) -> bool:
        """Whether there are accepted connections whose protocol is not made yet."""
        return bool(self._tasks)

    async def wait_closed(self) -> None:
        """Do nothing: :class:`asyncio.Server` has this method, and uvicorn itself waits for the connections."""

    def _listen(self) -> None:
        self._loop.add_reader(self._sock, self._accept, TURN_ACCEPTS)

    def _accept(self, most: int) -> None:
        """Accept up to `most` connections. If more wait, the loop calls the reader again in its next turn."""
        for _ in range(most):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as exc:
                if self._listens:
                    self._wait(exc)
                return
            self._start(sock)

    def adopt(self, sock: socket.socket, unread: bytes) -> None:
        """Serve a connection that another process has accepted.

        Args:
            sock: The connection.
            unread: Bytes that the other process has read from it, and not handled.
        """
        self._start(sock, unread)

    def _start(self, sock: socket.socket, unread: bytes = b"") -> None:
        task = self._loop.create_task(self._connect(sock, unread))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, sock: socket.socket, unread: bytes) -> None:
        sock.setblocking(False)
        await self._loop.connect_accepted_socket(lambda: self._made(unread), sock)

    def _made(self, unread: bytes) -> asyncio.BufferedProtocol:
        protocol = self._factory()
        if unread:
            protocol.unread = unread  # type: ignore[attr-defined]  # RunnerProtocol has it
        return protocol

    def _wait(self, exc: OSError) -> None:
        self._loop.remove_reader(self._sock)
        self._waiting = self._loop.call_later(RETRY_SECONDS, self._listen)
        now = self._loop.time()
        if now >= self._logged + QUIET_SECONDS:
            self._logged = now
            logger.error(
                "No more connections can be accepted (%s); they wait. Is the limit of open files (ulimit -n) too low?",
                exc.strerror,
            )
