"""One connection to the runner: frames in and out, with timeouts, and the errors of both sides as exceptions."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar, cast

from ...errors import LocalProtocolError, RemoteProtocolError
from ...wire import Role, decode, encode
from ...wire.frames import HEADER_SIZE, FrameReader, FrameType
from ...wire.messages import (
    ErrCode,
    ErrResp,
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    Message,
    UnknownUnion,
)
from ..nginx.headers import LuaError
from ..watch import watching

__all__ = ["Limits", "RunnerConnection", "RunnerError", "TokenNotFound", "decoded"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, and the size of the pool; the defaults are APISIX's.

    Attributes:
        connect: How long to wait for a connection.
        exchange: How long to wait for each frame of the runner.
        idle: How long an idle connection is kept.
        pool: How many idle connections are kept.
        token: How long a token is kept.
        lock: How long a call waits for the preparation of another one.
        lock_held: How long a preparation may hold the lock before others ignore that.
    """

    connect: float = 1.0
    exchange: float = 60.0
    idle: float = 180.0
    pool: int = 32
    token: float = 0.9 * 3600
    lock: float = 5.0
    lock_held: float = 30.0


class RunnerError(Exception):
    """The RPC failed. The client gets 503, or the request goes on without the plugins, with ``allow_degradation``."""


class TokenNotFound(RunnerError):
    """The runner does not know the token."""


_ERROR_TEXTS = {
    ErrCode.BAD_REQUEST: "bad request",
    ErrCode.SERVICE_UNAVAILABLE: "service unavailable",
    ErrCode.CONF_TOKEN_NOT_FOUND: "conf token not found",
}


class RunnerConnection(asyncio.Protocol):
    """One connection to the runner. Bytes that come while it is idle belong to no call, and close it.

    Args:
        seconds: How long to wait for each frame.
    """

    transport: asyncio.Transport

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._frames = FrameReader()
        self._arrived = asyncio.Event()
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

    @property
    def reusable(self) -> bool:
        """Whether the other end is open, and nothing has come behind the last answer."""
        return not (self._frames.pending or self._lost.is_set() or self.transport.is_closing())

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            RunnerError: It fits no frame, or the connection is closed.
        """
        if self._lost.is_set():
            raise RunnerError("closed")
        try:
            frame = encode(message)
        except LocalProtocolError as exc:
            raise RunnerError(str(exc)) from exc
        self.transport.write(frame)
        watch = watching.get()
        if watch is not None:
            watch.frame(message, len(frame), sent=True)

    async def receive(self, expected: FrameType, *others: FrameType) -> tuple[int, bytes]:
        """Wait for one frame: its type and payload.

        Args:
            expected, others: Types that it may have.

        Raises:
            TokenNotFound, RunnerError: The runner says so.
            RunnerError: Nothing comes in time, or something else.
        """
        try:
            while (frame := self._frames.next_frame()) is None:
                if self._lost.is_set():
                    raise RunnerError("closed")
                self._arrived.clear()
                async with asyncio.timeout(self._seconds):
                    await self._arrived.wait()
            if frame[0] == FrameType.ERROR:
                code = decoded(*frame, ErrResp).code
                error = TokenNotFound if code == ErrCode.CONF_TOKEN_NOT_FOUND else RunnerError
                raise error(_ERROR_TEXTS[code] if isinstance(code, ErrCode) else f"unknown err {code}")
            if frame[0] not in (expected, *others):
                raise RunnerError(f"unexpected type {frame[0]}")
        except TimeoutError:
            raise RunnerError(f"failed to receive RPC_{expected.name}: timeout") from None
        except RunnerError as exc:
            raise type(exc)(f"failed to receive RPC_{expected.name}: {exc}") from exc
        return frame

    async def ask(
        self,
        message: HTTPReqCallReq | HTTPRespCallReq,
        extra_info: Callable[[ExtraInfoReq], Awaitable[bytes | None]],
    ) -> HTTPReqCallResp | HTTPRespCallResp:
        """Make a call and wait for its answer.

        Args:
            message: The call.
            extra_info: Answers what the runner asks in the middle of the call.

        Raises:
            TokenNotFound: The runner does not know the token.
            RunnerError: The call failed.
            LuaError: The answer cannot be decoded.
        """
        of_request = isinstance(message, HTTPReqCallReq)
        expected = FrameType.HTTP_REQ_CALL if of_request else FrameType.HTTP_RESP_CALL
        self.send(message)
        while (frame := await self.receive(expected, FrameType.EXTRA_INFO))[0] == FrameType.EXTRA_INFO:
            asked = decoded(*frame, ExtraInfoReq)
            if asked.info is None or isinstance(asked.info, UnknownUnion):
                number = 0 if asked.info is None else asked.info.type
                raise RunnerError(f"failed to handle RPC_EXTRA_INFO: unsupported info type: {number}")
            try:
                self.send(ExtraInfoResp(await extra_info(asked)))
            except RunnerError as exc:
                raise RunnerError(f"failed to reply RPC_EXTRA_INFO: {exc}") from exc
        return decoded(*frame, HTTPReqCallResp) if of_request else decoded(*frame, HTTPRespCallResp)

    async def close(self) -> None:
        """Close the connection, whatever is still to be sent."""
        self.transport.abort()
        await self._lost.wait()


def decoded(frame_type: int, payload: bytes, expected: type[_T]) -> _T:
    """Decode a payload.

    Raises:
        LuaError: The payload is malformed. APISIX's Lua raises then, and nothing catches that: 500.
    """
    try:
        message = decode(frame_type, payload, Role.GATEWAY)
    except RemoteProtocolError as exc:
        raise LuaError(f"undecodable payload of a frame of type {frame_type}: {exc}") from exc
    assert isinstance(message, expected)
    watch = watching.get()
    if watch is not None:
        watch.frame(message, HEADER_SIZE + len(payload), sent=False)
    return message
