"""One connection to the runner: frames in and out, with times, and the errors of both sides as exceptions."""

import asyncio
from dataclasses import dataclass
from typing import TypeVar, cast

from asgi_bridge.errors import LocalProtocolError, RemoteProtocolError
from asgi_bridge.gateway.nginx.headers import LuaError
from asgi_bridge.wire import Role, decode, encode
from asgi_bridge.wire.frames import FrameReader, FrameType
from asgi_bridge.wire.messages import ErrCode, ErrResp, Message

__all__ = ["Limits", "RunnerConnection", "RunnerError", "TokenNotFound", "decoded"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, and the size of the pool; the defaults are APISIX's.

    Attributes:
        connect: for a connection to be made.
        exchange: for each send and each receive.
        idle: how long an idle connection is kept.
        pool: how many idle connections are kept.
        token: how long a token is kept.
        lock: how long a call waits while another one prepares.
        lock_held: after so long the lock of a preparation that went wrong is no longer respected.
    """

    connect: float = 1.0
    exchange: float = 60.0
    idle: float = 180.0
    pool: int = 32
    token: float = 0.9 * 3600
    lock: float = 5.0
    lock_held: float = 30.0


class RunnerError(Exception):
    """The RPC failed: 503, or the request goes on without the plugins where ``allow_degradation`` says so."""


class TokenNotFound(RunnerError):
    """The runner does not know the token."""


_ERROR_TEXTS = {
    ErrCode.BAD_REQUEST: "bad request",
    ErrCode.SERVICE_UNAVAILABLE: "service unavailable",
    ErrCode.CONF_TOKEN_NOT_FOUND: "conf token not found",
}


class RunnerConnection(asyncio.Protocol):
    """One connection to the runner. Bytes that come while it is idle belong to no call, so they end it."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._frames = FrameReader()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self.idle = False
        self.idle_until = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._frames.receive_data(data)
        if self.idle:
            self.transport.abort()
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        self._arrived.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    @property
    def reusable(self) -> bool:
        """An answer with something behind it, or a closed other end: not for the next call."""
        return not (self._frames.pending or self._lost.is_set() or self.transport.is_closing())

    async def send(self, message: Message, seconds: float) -> None:
        if self._lost.is_set():
            raise RunnerError("closed")
        try:
            frame = encode(message)
        except LocalProtocolError as exc:
            raise RunnerError(str(exc)) from exc
        self.transport.write(frame)
        try:
            async with asyncio.timeout(seconds):
                await self._writable.wait()
        except TimeoutError:
            raise RunnerError("timeout") from None

    async def receive(self, seconds: float) -> tuple[int, bytes]:
        """Wait for one frame. An error frame is raised as what it says."""
        while (frame := self._frames.next_frame()) is None:
            if self._lost.is_set():
                raise RunnerError("closed")
            self._arrived.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._arrived.wait()
            except TimeoutError:
                raise RunnerError("timeout") from None
        if frame[0] == FrameType.ERROR:
            error = decoded(*frame, ErrResp)
            if error.code == ErrCode.CONF_TOKEN_NOT_FOUND:
                raise TokenNotFound(_ERROR_TEXTS[ErrCode.CONF_TOKEN_NOT_FOUND])
            code = error.code
            raise RunnerError(_ERROR_TEXTS[code] if isinstance(code, ErrCode) else f"unknown err {code}")
        return frame

    async def close(self) -> None:
        self.transport.abort()
        await self._lost.wait()


def decoded(frame_type: int, payload: bytes, expected: type[_T]) -> _T:
    """Decode a payload. APISIX's Lua raises on a malformed one, which nothing catches: 500."""
    try:
        message = decode(frame_type, payload, Role.GATEWAY)
    except RemoteProtocolError as exc:
        raise LuaError(f"undecodable payload of a frame of type {frame_type}: {exc}") from exc
    assert isinstance(message, expected)
    return message
