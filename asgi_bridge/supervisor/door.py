"""Where the gateway's connections come in."""

import errno
import logging
import selectors
import socket
import time
from collections.abc import Callable

from ..succession.sockets import BACKLOG, RunnerSocket

__all__ = ["Door"]

logger = logging.getLogger("asgi_bridge.server")

TURN_ACCEPTS = 32
"""Maximum number of connections accepted before the workers' messages are read again."""
REST_SECONDS = 0.1
"""Seconds until a connection that could not be accepted is tried again."""
QUIET_SECONDS = 10.0
"""Seconds between two log lines about connections that cannot be accepted, at least."""


class Door:
    """Accepts connections while it is open. Meanwhile they wait in the backlog of the socket.

    Args:
        selector: The selector that wakes this process.
        take: Called with each connection.

    Attributes:
        listening: The listening socket; None: there is none yet, or no more.
    """

    def __init__(self, selector: selectors.BaseSelector, take: Callable[[socket.socket], object]) -> None:
        self.listening: RunnerSocket | None = None
        self._selector = selector
        self._take = take
        self._is_open = False
        self._shut_until = self._quiet_until = float("-inf")

    def exchange(self, listening: RunnerSocket | None) -> None:
        """Listen on another socket from now on."""
        if listening is not self.listening:
            self.close()
            self.listening = listening

    def open(self) -> None:
        """Accept from now on, or after a rest if no connection can be accepted."""
        if self.listening is not None and not self._is_open and time.monotonic() >= self._shut_until:
            self._selector.register(self.listening.sock, selectors.EVENT_READ, lambda: self._accept(TURN_ACCEPTS))
            self._is_open = True

    def shut(self) -> None:
        """Accept nothing more for now."""
        if self.listening is not None and self._is_open:
            self._selector.unregister(self.listening.sock)
            self._is_open = False

    def close(self) -> None:
        """Close the socket."""
        self.shut()
        if self.listening is not None:
            self.listening.sock.close()
            self.listening = None

    def empty(self) -> None:
        """Accept all that wait in the backlog: closing the socket would cut them off."""
        if self.listening is not None:
            self._accept(BACKLOG + 1)

    def _accept(self, most: int) -> None:
        assert self.listening is not None
        for _ in range(most):
            try:
                sock, _ = self.listening.sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as exc:
                self._despair(exc)
                return
            sock.setblocking(False)
            self._take(sock)

    def _despair(self, exc: OSError) -> None:
        """Shut the door for a rest, or the selector would turn for nothing."""
        self.shut()
        self._shut_until = time.monotonic() + REST_SECONDS
        if time.monotonic() < self._quiet_until:
            return
        self._quiet_until = time.monotonic() + QUIET_SECONDS
        limit = " Is the limit of open files (ulimit -n) too low?" if exc.errno in (errno.EMFILE, errno.ENFILE) else ""
        logger.error("No more connections can be accepted (%s); they wait.%s", exc.strerror, limit)
