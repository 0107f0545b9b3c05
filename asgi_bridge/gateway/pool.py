"""Idle connections, to the runner and to upstreams."""

import time
from typing import Any, Protocol

__all__ = ["Pool"]


class _Connection(Protocol):
    @property
    def reusable(self) -> bool:
        """Whether the next call can use it: both ends are open, and all bytes that have come were read."""

    async def close(self) -> None: ...


class Pool:
    """A store of idle connections. The one that was used last is taken first.

    It keeps connections between `start` and `stop` only. Otherwise nobody would close them at the end of the event
    loop, and Starlette's TestClient makes a new loop for each request.
    """

    def __init__(self) -> None:
        self._idle: list[tuple[object, float, _Connection]] = []
        self._keeping = False

    def __len__(self) -> int:
        return len(self._idle)

    def start(self) -> None:
        """Keep connections from now on."""
        self._keeping = True

    async def stop(self) -> None:
        """Close all connections, and keep no more."""
        self._keeping = False
        while self._idle:
            await self._idle.pop()[2].close()

    async def take(self, peer: object) -> Any:
        """Take out an idle connection to a peer; None: there is none."""
        while (entry := next((entry for entry in reversed(self._idle) if entry[0] == peer), None)) is not None:
            self._idle.remove(entry)
            _, until, connection = entry
            if connection.reusable and time.monotonic() < until:
                return connection
            await connection.close()
        return None

    async def put(self, peer: object, connection: _Connection, *, size: int, seconds: float) -> None:
        """Keep a connection for later, or close it if that is not possible.

        Args:
            peer: Where the connection leads.
            connection: What `take` gives.
            size: Maximum number of connections to the same peer.
            seconds: How long the connection is kept.
        """
        if not self._keeping or not connection.reusable:
            await connection.close()
            return
        self._idle.append((peer, time.monotonic() + seconds, connection))
        same = [entry for entry in self._idle if entry[0] == peer]
        if len(same) > size:
            # the one that has waited longest makes room (lua-nginx-module, ngx_http_lua_socket_tcp.c)
            self._idle.remove(same[0])
            await same[0][2].close()
