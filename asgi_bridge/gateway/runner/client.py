"""The gateway's way to its runner: connections and tokens.

This follows ``ext-plugin/init.lua``. A connection carries one RPC at a time. A call without a token keeps its
connection open while PrepareConf runs on a second one. An error closes the connection that it happened on.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from ...wire.frames import FrameType
from ...wire.messages import PrepareConfReq, PrepareConfResp, TextEntry
from ..nginx.headers import LuaError
from ..pool import Pool
from .connection import Limits, RunnerConnection, RunnerError, decoded

__all__ = ["MAX_TRIES", "RunnerClient"]

MAX_TRIES = 3
"""Number of times that a call is made while the runner does not know its token (``communicate`` in init.lua)."""

MAX_ID = 1 << 22
"""Numbers of calls stay below this, and begin again at 0."""


class RunnerClient:
    """A runner, as the gateway sees it: a socket, connections, tokens.

    Args:
        path: The runner's socket.
        limits: Times and sizes.
        pool: Keeps idle connections.
    """

    def __init__(self, path: str, limits: Limits, pool: Pool) -> None:
        self.path = path
        self.limits = limits
        self.next_id = 0
        self._pool = pool
        self._tokens: dict[str, tuple[int, float]] = {}
        self._locked_until = 0.0

    def flush_tokens(self) -> None:
        """Forget the tokens of all routes, as APISIX does after one CONF_TOKEN_NOT_FOUND."""
        self._tokens.clear()

    @contextlib.asynccontextmanager
    async def call(self, key: str, conf: list[TextEntry] | None) -> AsyncIterator[tuple[RunnerConnection, int, int]]:
        """Get ready for one try of a call: give a connection, the number of the call and the token.

        This prepares the configuration first, if there is no token. After the context the connection is kept for
        another call. An exception closes it.

        Args:
            key: Of the configuration.
            conf: Plugin names and configurations.

        Raises:
            RunnerError: There is no connection, or the configuration cannot be prepared.
            LuaError: The runner's answer to PrepareConf cannot be decoded.
        """
        async with self._connection() as connection:
            token = await self._token(key, conf)
            number = self.next_id
            self.next_id = (number + 1) % MAX_ID
            yield connection, number, token

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[RunnerConnection]:
        connection: RunnerConnection = await self._pool.take(self) or await self._connect()
        connection.idle = False
        try:
            yield connection
        except BaseException:
            await connection.close()
            raise
        connection.idle = True
        await self._pool.put(self, connection, size=self.limits.pool, seconds=self.limits.idle)

    async def _connect(self) -> RunnerConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.connect):
                _, connection = await loop.create_unix_connection(
                    lambda: RunnerConnection(self.limits.exchange), self.path
                )
        except TimeoutError:
            raise RunnerError(f"failed to connect to the unix socket unix:{self.path}: timeout") from None
        except OSError as exc:
            reason = (exc.strerror or str(exc)).lower()
            raise RunnerError(f"failed to connect to the unix socket unix:{self.path}: {reason}") from exc
        return connection

    def _known(self, key: str) -> int | None:
        token, until = self._tokens.get(key, (0, 0.0))
        return token if time.monotonic() < until else None

    async def _token(self, key: str, conf: list[TextEntry] | None) -> int:
        known = self._known(key)
        if known is not None:
            return known
        async with self._connection() as connection:
            await self._lock()
            try:
                token = self._known(key)
                if token is None:
                    token = await self._prepare(connection, key, conf)
                    self._tokens[key] = token, time.monotonic() + self.limits.token
            except LuaError:
                # Trap: APISIX does not unlock after a Lua error. For 30 s every unprepared route waits 5 s and fails.
                raise
            except BaseException:
                self._locked_until = 0.0
                raise
            self._locked_until = 0.0
        return token

    async def _prepare(self, connection: RunnerConnection, key: str, conf: list[TextEntry] | None) -> int:
        connection.send(PrepareConfReq(conf, key.encode()))
        return decoded(*await connection.receive(FrameType.PREPARE_CONF), PrepareConfResp).conf_token

    async def _lock(self) -> None:
        # It polls, as lua-resty-lock does. A lock of asyncio would belong to one event loop.
        give_up = time.monotonic() + self.limits.lock
        step = 0.001
        while time.monotonic() < self._locked_until:
            if time.monotonic() >= give_up:
                raise RunnerError("failed to acquire the lock: timeout")
            await asyncio.sleep(step)
            step = min(step * 2, 0.1)
        self._locked_until = time.monotonic() + self.limits.lock_held
