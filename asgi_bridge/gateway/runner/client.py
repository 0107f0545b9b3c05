"""The gateway's side of the socket: the pool of idle connections, tokens, and one call.

After ``ext-plugin/init.lua``: a connection carries one RPC at a time; a call without a token keeps its connection open
while PrepareConf runs on a second one; whatever fails closes the connection it failed on.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from asgi_bridge.gateway.nginx.headers import LuaError
from asgi_bridge.gateway.runner.connection import Limits, RunnerConnection, RunnerError, decoded
from asgi_bridge.wire.frames import FrameType
from asgi_bridge.wire.messages import (
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    PrepareConfReq,
    PrepareConfResp,
    TextEntry,
    UnknownUnion,
)

__all__ = ["MAX_TRIES", "RunnerClient"]

_T = TypeVar("_T")

MAX_TRIES = 3
"""So often a call is made when the runner does not know its token (``communicate`` in ext-plugin/init.lua)."""

MAX_ID = 1 << 22
"""Ids of a worker count up to here and begin again at 0."""


class RunnerClient:
    """What the gateway knows of its runner: the path of the socket, idle connections, tokens.

    Idle connections are kept between `start` and `stop` only: nobody else would close them when the event loop ends,
    and Starlette's TestClient makes a new loop for each request.

    Args:
        path: the runner's socket.
        limits: times and sizes.
    """

    def __init__(self, path: str, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self.next_id = 0
        self._idle: list[RunnerConnection] = []
        self._keeping = False
        self._tokens: dict[str, tuple[int, float]] = {}
        self._locked_until = 0.0

    def start(self) -> None:
        """Begin to keep idle connections."""
        self._keeping = True

    async def stop(self) -> None:
        """Close idle connections and keep no more."""
        self._keeping = False
        await self.close_idle()

    async def close_idle(self) -> None:
        """Close idle connections."""
        while self._idle:
            await self._idle.pop().close()

    @property
    def idle_connections(self) -> int:
        """How many connections wait for a call."""
        return len(self._idle)

    def flush_tokens(self) -> None:
        """Forget all tokens, of all routes; that is what one CONF_TOKEN_NOT_FOUND does."""
        self._tokens.clear()

    async def call(
        self,
        key: str,
        conf: list[TextEntry] | None,
        request: Callable[[int, int], HTTPReqCallReq | HTTPRespCallReq],
        tell: Callable[[ExtraInfoReq], Awaitable[bytes | None]],
        apply: Callable[[HTTPReqCallResp | HTTPRespCallResp], Awaitable[_T]],
    ) -> _T:
        """Make one call, prepare its configuration before if there is no token. It is one try.

        Args:
            key: of the configuration.
            conf: plugin names and configurations.
            request: gives the request for an id and a token.
            tell: answers what the runner asks in the middle of the call.
            apply: does what the answer says; what it gives is given back. The connection is closed when it raises, and
                kept only after it.

        Raises:
            TokenNotFound: the runner does not know the token (`flush_tokens`, then another try).
            RunnerError: the call failed.
            LuaError: the answer cannot be decoded or applied.
        """
        connection = await self._connect()
        try:
            token = await self._token(key, conf)
            message = request(self._take_id(), token)
            expected = FrameType.HTTP_REQ_CALL if isinstance(message, HTTPReqCallReq) else FrameType.HTTP_RESP_CALL
            await connection.send(message, self.limits.exchange)
            while True:
                frame_type, payload = await self._receive(connection, f"RPC_{expected.name}")
                if frame_type != FrameType.EXTRA_INFO:
                    break
                asked = decoded(frame_type, payload, ExtraInfoReq)
                if asked.info is None or isinstance(asked.info, UnknownUnion):
                    number = 0 if asked.info is None else asked.info.type
                    raise RunnerError(f"failed to handle RPC_EXTRA_INFO: unsupported info type: {number}")
                try:
                    await connection.send(ExtraInfoResp(await tell(asked)), self.limits.exchange)
                except RunnerError as exc:
                    raise RunnerError(f"failed to reply RPC_EXTRA_INFO: {exc}") from exc
            if frame_type != expected:
                raise RunnerError(f"failed to receive RPC_{expected.name}: unexpected type {frame_type}")
            answer: HTTPReqCallResp | HTTPRespCallResp
            if expected is FrameType.HTTP_REQ_CALL:
                answer = decoded(frame_type, payload, HTTPReqCallResp)
            else:
                answer = decoded(frame_type, payload, HTTPRespCallResp)
            result = await apply(answer)
        except BaseException:
            await connection.close()
            raise
        await self._release(connection)
        return result

    def _take_id(self) -> int:
        number = self.next_id
        self.next_id = (number + 1) % MAX_ID
        return number

    async def _connect(self) -> RunnerConnection:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and time.monotonic() < connection.idle_until:
                connection.idle = False
                return connection
            await connection.close()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.connect):
                _, connection = await loop.create_unix_connection(RunnerConnection, self.path)
        except TimeoutError:
            raise RunnerError(f"failed to connect to the unix socket unix:{self.path}: timeout") from None
        except OSError as exc:
            reason = (exc.strerror or str(exc)).lower()
            raise RunnerError(f"failed to connect to the unix socket unix:{self.path}: {reason}") from exc
        return connection

    async def _release(self, connection: RunnerConnection) -> None:
        if not self._keeping or not connection.reusable:
            await connection.close()
            return
        connection.idle = True
        connection.idle_until = time.monotonic() + self.limits.idle
        self._idle.append(connection)
        if len(self._idle) > self.limits.pool:
            # the one that has waited longest makes room (lua-nginx-module, ngx_http_lua_socket_tcp.c)
            await self._idle.pop(0).close()

    async def _receive(self, connection: RunnerConnection, what: str) -> tuple[int, bytes]:
        try:
            return await connection.receive(self.limits.exchange)
        except RunnerError as exc:
            raise type(exc)(f"failed to receive {what}: {exc}") from exc

    def _known(self, key: str) -> int | None:
        token, until = self._tokens.get(key, (0, 0.0))
        return token if time.monotonic() < until else None

    async def _token(self, key: str, conf: list[TextEntry] | None) -> int:
        known = self._known(key)
        if known is not None:
            return known
        connection = await self._connect()
        try:
            await self._lock()
            known = self._known(key)
            if known is not None:
                self._unlock()
                await self._release(connection)
                return known
            try:
                token = await self._prepare(connection, key, conf)
            except LuaError:
                # Trap: nothing unlocks after a Lua error, so for 30 s every unprepared route waits 5 s and fails.
                raise
            except BaseException:
                self._unlock()
                raise
            self._unlock()
        except BaseException:
            await connection.close()
            raise
        self._tokens[key] = token, time.monotonic() + self.limits.token
        await self._release(connection)
        return token

    async def _prepare(self, connection: RunnerConnection, key: str, conf: list[TextEntry] | None) -> int:
        await connection.send(PrepareConfReq(conf, key.encode()), self.limits.exchange)
        frame_type, payload = await self._receive(connection, "RPC_PREPARE_CONF")
        if frame_type != FrameType.PREPARE_CONF:
            raise RunnerError(f"failed to receive RPC_PREPARE_CONF: unexpected type {frame_type}")
        return decoded(frame_type, payload, PrepareConfResp).conf_token

    async def _lock(self) -> None:
        # Polled, as lua-resty-lock does: a primitive of asyncio would be tied to one event loop.
        give_up = time.monotonic() + self.limits.lock
        step = 0.001
        while time.monotonic() < self._locked_until:
            if time.monotonic() >= give_up:
                raise RunnerError("failed to acquire the lock: timeout")
            await asyncio.sleep(step)
            step = min(step * 2, 0.1)
        self._locked_until = time.monotonic() + self.limits.lock_held

    def _unlock(self) -> None:
        self._locked_until = 0.0
