"""Idle connections, to the runner and to upstreams."""

import time
from typing import Generic, Protocol, TypeVar

__all__ = ["Pool"]


class _Connection(Protocol):
    @property
    def reusable(self) -> bool:
        """Both ends are open, and nothing has come that belongs to no answer."""

    async def close(self) -> None:
        """Close the connection."""


_C = TypeVar("_C", bound=_Connection)


class Pool(Generic[_C]):
    """Keeps idle connections, and gives the one that was used last.

    It keeps them between `start` and `stop` only: nobody else would close them when the event loop ends, and
    Starlette's TestClient makes a new loop for each request.

    Args:
        size: number of connections that are kept.
        seconds: how long an idle connection is kept.
    """

    def __init__(self, size: int, seconds: float) -> None:
        self._size = size
        self._seconds = seconds
        self._idle: list[tuple[object, float, _C]] = []
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

    async def take(self, peer: object) -> _C | None:
        """Take out an idle connection.

        Args:
            peer: where the connection leads.

        Returns:
            None: there is none.
        """
        for entry in reversed(self._idle):
            _, until, connection = entry
            if entry[0] == peer:
                self._idle.remove(entry)
                if connection.reusable and time.monotonic() < until:
                    return connection
                await connection.close()
        return None

    async def put(self, peer: object, connection: _C) -> None:
        """Keep a connection for the next one who wants it, or close it."""
        if not self._keeping or not connection.reusable:
            await connection.close()
            return
        self._idle.append((peer, time.monotonic() + self._seconds, connection))
        if len(self._idle) > self._size:
            # the one that has waited longest makes room (lua-nginx-module, ngx_http_lua_socket_tcp.c)
            await self._idle.pop(0)[2].close()
