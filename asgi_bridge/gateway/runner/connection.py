"""One connection to the runner: frames in and out, with timeouts, and the errors of both sides as exceptions."""

import asyncio
from dataclasses import dataclass
from typing import TypeVar, cast

from ...errors import LocalProtocolError, RemoteProtocolError
from ...wire import Role, decode, encode
from ...wire.frames import FrameReader, FrameType
from ...wire.messages import ErrCode, ErrResp, Message
from ..nginx.headers import LuaError

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
    """One connection to the runner. Bytes that come while it is idle belong to no call, so they end it.

    Args:
        seconds: for each send and each receive.
    """

    transport: asyncio.Transport

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._frames = FrameReader()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self.idle = False

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
        """Whether the other end is open, and nothing has come behind the last answer."""
        return not (self._frames.pending or self._lost.is_set() or self.transport.is_closing())

    async def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            RunnerError: it fits no frame, or cannot be sent in time.
        """
        if self._lost.is_set():
            raise RunnerError("closed")
        try:
            frame = encode(message)
        except LocalProtocolError as exc:
            raise RunnerError(str(exc)) from exc
        self.transport.write(frame)
        await self._wait(self._writable)

    async def receive(self, what: str) -> tuple[int, bytes]:
        """Wait for one frame: its type and payload.

        Args:
            what: is waited for, for the message of an error.

        Raises:
            TokenNotFound, RunnerError: the runner says so.
            RunnerError: nothing comes in time.
        """
        try:
            while (frame := self._frames.next_frame()) is None:
                if self._lost.is_set():
                    raise RunnerError("closed")
                self._arrived.clear()
                await self._wait(self._arrived)
            if frame[0] == FrameType.ERROR:
                code = decoded(*frame, ErrResp).code
                error = TokenNotFound if code == ErrCode.CONF_TOKEN_NOT_FOUND else RunnerError
                raise error(_ERROR_TEXTS[code] if isinstance(code, ErrCode) else f"unknown err {code}")
        except RunnerError as exc:
            raise type(exc)(f"failed to receive {what}: {exc}") from exc
        return frame

    async def _wait(self, event: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await event.wait()
        except TimeoutError:
            raise RunnerError("timeout") from None

    async def close(self) -> None:
        """Close the connection, whatever is still to be sent."""
        self.transport.abort()
        await self._lost.wait()


def decoded(frame_type: int, payload: bytes, expected: type[_T]) -> _T:
    """Decode a payload.

    Raises:
        LuaError: it is malformed. APISIX's Lua raises then, and nothing catches that: 500.
    """
    try:
        message = decode(frame_type, payload, Role.GATEWAY)
    except RemoteProtocolError as exc:
        raise LuaError(f"undecodable payload of a frame of type {frame_type}: {exc}") from exc
    assert isinstance(message, expected)
    return message
