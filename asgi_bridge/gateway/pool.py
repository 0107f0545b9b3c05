"""Idle connections, to the runner and to upstreams."""

import time
from typing import Any, Protocol

__all__ = ["Pool"]


class _Connection(Protocol):
    @property
    def reusable(self) -> bool:
        """Both ends are open, and nothing has come that belongs to no answer."""

    async def close(self) -> None: ...


class Pool:
    """Keeps idle connections, and gives the one that was used last.

    It keeps them between `start` and `stop` only: nobody else would close them when the event loop ends, and
    Starlette's TestClient makes a new loop for each request.
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
        """Take out an idle connection to somebody; None: there is none."""
        while (entry := next((entry for entry in reversed(self._idle) if entry[0] == peer), None)) is not None:
            self._idle.remove(entry)
            _, until, connection = entry
            if connection.reusable and time.monotonic() < until:
                return connection
            await connection.close()
        return None

    async def put(self, peer: object, connection: _Connection, *, size: int, seconds: float) -> None:
        """Keep a connection for the next one who wants it, or close it.

        Args:
            peer: where the connection leads.
            connection: what `take` gives.
            size: so many connections to the same peer are kept.
            seconds: how long it is kept.
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
