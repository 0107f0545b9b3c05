"""The session: which message may come when on one connection, without any input or output.

Bytes go in by `Session.receive_data`, messages come out by `Session.next_message`, and `Session.send` turns a message
into the bytes to write. Both sides of the protocol are here: the runner's, and the gateway's for the stand-in and for
tests.
"""

from enum import Enum
from typing import Any, NoReturn, TypeAlias

from asgi_bridge.errors import LocalProtocolError, RemoteProtocolError
from asgi_bridge.wire.codec import Role, decode, encode
from asgi_bridge.wire.frames import Buffer, FrameReader, FrameType
from asgi_bridge.wire.messages import (
    ErrResp,
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    Message,
    PrepareConfReq,
    PrepareConfResp,
)

__all__ = ["Session", "State"]

# How it works
#
# The gateway is the client. It opens at most one *call* on a connection (PrepareConf, HTTPReqCall or HTTPRespCall), and
# the runner ends it with one answer: the Resp of the same type, or an error. While an HTTP call is open the runner may
# *ask* (ExtraInfo), any number of times at once; the gateway answers each ask in order, and reads the next frame after
# that. So both sides always agree about the connection's state, but for what is on its way, and one table serves both
# roles: what one side sends is what the other receives.
#
#                PrepareConfReq ┌─────────────┐ PrepareConfResp, ErrResp
#              ┌───────────────▶│  PREPARING  │───────────────────────────────────┐
#              │                └─────────────┘                                   │
#              │                     ┌──┐ ExtraInfoReq: asks + 1                  │
#   ┌──────┐   │ HTTPReqCallReq ┌────┴──▼─────┐ HTTPReqCallResp, ErrResp          │
#   │ IDLE │───┼───────────────▶│ REQ_CALLED  │──────────────────────────────────▶├──▶ IDLE, or DRAINING
#   └──────┘   │                └────▲──┬─────┘                                   │    while asks > 0
#              │                     └──┘ ExtraInfoResp, or the gateway's ErrResp │
#              │                     ┌──┐ in its place: asks - 1                  │
#              │HTTPRespCallReq ┌────┴──▼─────┐ HTTPRespCallResp, ErrResp         │
#              └───────────────▶│ RESP_CALLED │───────────────────────────────────┘
#                               └─────────────┘
#
# Besides the state there is one number, the asks that have no answer yet.
#
# DRAINING is the runner's only. Its answer may overtake the answers to its asks, which nobody waits for then: the
# session reads and drops them, and is IDLE after the last. The gateway never sees that state, because its session does
# what APISIX does: it holds back the next frame until the ask before it is answered.
#
# A frame whose payload cannot be decoded counts as the message that its type promises, and moves the state like it.
# The framing is intact, so the error is recoverable: a call like that can be answered with an ErrResp, and an ask whose
# answer was garbage has had its answer.
#
# Any other frame breaks the protocol: ERROR, from where no way leads. CLOSED: the other side has closed between frames,
# be a call open or not; within a frame that is an ERROR.


class State(Enum):
    """Where the connection is in the protocol."""

    IDLE = "idle"
    PREPARING = "in a preparation"
    REQ_CALLED = "in a request call"
    RESP_CALLED = "in a response call"
    DRAINING = "waiting for answers to asks that nobody needs"
    CLOSED = "closed by the other side"
    ERROR = "broken by the other side"

    # Enum hashes the name, in Python; states are keys on the way of every message.
    __hash__ = object.__hash__


# Members of an Enum take a call to get at in Python 3.11.
_IDLE, _DRAINING, _ERROR = State.IDLE, State.DRAINING, State.ERROR
_EXTRA_INFO = FrameType.EXTRA_INFO.value

_Moves: TypeAlias = dict[State, dict[int, State]]

# What the gateway sends, by frame type. In all states but IDLE these are answers to asks.
_FROM_GATEWAY: _Moves = {
    State.IDLE: {
        FrameType.PREPARE_CONF: State.PREPARING,
        FrameType.HTTP_REQ_CALL: State.REQ_CALLED,
        FrameType.HTTP_RESP_CALL: State.RESP_CALLED,
    },
    State.PREPARING: {},
    State.REQ_CALLED: {FrameType.EXTRA_INFO: State.REQ_CALLED, FrameType.ERROR: State.REQ_CALLED},
    State.RESP_CALLED: {FrameType.EXTRA_INFO: State.RESP_CALLED, FrameType.ERROR: State.RESP_CALLED},
    State.DRAINING: {FrameType.EXTRA_INFO: State.DRAINING, FrameType.ERROR: State.DRAINING},
    State.CLOSED: {},
    State.ERROR: {},
}

# What the runner sends.
_FROM_RUNNER: _Moves = {
    State.IDLE: {},
    State.PREPARING: {FrameType.PREPARE_CONF: State.IDLE, FrameType.ERROR: State.IDLE},
    State.REQ_CALLED: {
        FrameType.EXTRA_INFO: State.REQ_CALLED,
        FrameType.HTTP_REQ_CALL: State.IDLE,
        FrameType.ERROR: State.IDLE,
    },
    State.RESP_CALLED: {
        FrameType.EXTRA_INFO: State.RESP_CALLED,
        FrameType.HTTP_RESP_CALL: State.IDLE,
        FrameType.ERROR: State.IDLE,
    },
    State.DRAINING: {},
    State.CLOSED: {},
    State.ERROR: {},
}

# What each role sends, and as which type of frame.
_TYPES: dict[Role, dict[type[Any], FrameType]] = {
    Role.RUNNER: {
        ErrResp: FrameType.ERROR,
        PrepareConfResp: FrameType.PREPARE_CONF,
        HTTPReqCallResp: FrameType.HTTP_REQ_CALL,
        ExtraInfoReq: FrameType.EXTRA_INFO,
        HTTPRespCallResp: FrameType.HTTP_RESP_CALL,
    },
    Role.GATEWAY: {
        ErrResp: FrameType.ERROR,
        PrepareConfReq: FrameType.PREPARE_CONF,
        HTTPReqCallReq: FrameType.HTTP_REQ_CALL,
        ExtraInfoResp: FrameType.EXTRA_INFO,
        HTTPRespCallReq: FrameType.HTTP_RESP_CALL,
    },
}

_NAMES = {kind.value: kind.name for kind in FrameType}


class Session:
    """One side of one connection.

    Args:
        role: Which side we are.

    Example:
        A runner that lets everything pass::

            session = Session(Role.RUNNER)
            session.receive_data(data)
            while (message := session.next_message()) is not None:
                match message:
                    case PrepareConfReq():
                        write(session.send(PrepareConfResp(token(message))))
                    case HTTPReqCallReq():
                        write(session.send(HTTPReqCallResp(message.id)))
    """

    __slots__ = ("_asks", "_eof", "_reader", "_runner", "_state", "_types", "role")

    def __init__(self, role: Role) -> None:
        self.role = role
        self._runner = role is Role.RUNNER
        self._types = _TYPES[role]
        self._state = State.IDLE
        self._asks = 0
        self._reader = FrameReader()
        self._eof = False

    @property
    def state(self) -> State:
        """Where the connection is in the protocol."""
        return self._state

    @property
    def asks(self) -> int:
        """Number of ExtraInfo requests that have no answer yet."""
        return self._asks

    def receive_data(self, data: Buffer) -> None:
        """Take what one read brought. It is copied: the buffer may be used again.

        Raises:
            RemoteProtocolError: The other side has broken the protocol before.
            LocalProtocolError: `receive_eof` has been called.
        """
        if self._state is _ERROR:
            self._refuse()
        if self._eof:
            raise LocalProtocolError("data after the end of the stream")
        self._reader.receive_data(data)

    def receive_eof(self) -> None:
        """Note that the other side has closed; `next_message` tells what that means, after what had arrived before."""
        self._eof = True

    def next_message(self) -> Message | None:
        """Give the next message that has arrived whole; None: more bytes are needed.

        In the gateway's role it is also None while an ask waits for its answer: call again after `send`.

        Raises:
            RemoteProtocolError: The frame may not come now, or the stream has ended within one: not recoverable, the
                state is `State.ERROR`. Or the payload cannot be decoded: recoverable; the frame counts as received, so
                that an undecodable call can be answered with an `ErrResp`.
        """
        while self._runner or not self._asks:
            state = self._state
            if state is _ERROR:
                self._refuse()
            found = self._reader.next_frame()
            if found is None:
                if self._eof:
                    if self._reader.pending:
                        self._break(f"the stream ended after {self._reader.pending} bytes of an unfinished frame")
                    self._state = State.CLOSED
                return None
            kind, payload = found
            if not self._move(kind, not self._runner):
                self._break(f"a frame of type {_NAMES.get(kind, kind)} while the connection is {state.value}")
            if state is not _DRAINING:
                return decode(kind, payload, self.role)
        return None

    def send(self, message: Message) -> bytes:
        """Give the bytes to write for a message.

        Raises:
            LocalProtocolError: The message may not be sent now, or cannot be encoded. The state is as before, so a call
                can still be answered in another way.
        """
        kind = self._types.get(type(message))
        if kind is None:
            raise LocalProtocolError(f"a {self.role.name.lower()} does not send {type(message).__name__}")
        data = encode(message)
        if not self._move(kind, self._runner):
            raise LocalProtocolError(f"{type(message).__name__} while the connection is {self._state.value}")
        return data

    def _move(self, kind: int, by_runner: bool) -> bool:
        """Change the state as a frame demands; False: it may not come now."""
        state = self._state
        new = (_FROM_RUNNER if by_runner else _FROM_GATEWAY)[state].get(kind)
        if new is None:
            return False
        if by_runner:
            if kind == _EXTRA_INFO:
                self._asks += 1
            elif self._asks:
                new = _DRAINING
        elif state is not _IDLE:
            if not self._asks:
                return False
            self._asks -= 1
            if state is _DRAINING and not self._asks:
                new = _IDLE
        self._state = new
        return True

    def _break(self, reason: str) -> NoReturn:
        self._state = State.ERROR
        raise RemoteProtocolError(reason, recoverable=False)

    def _refuse(self) -> NoReturn:
        raise RemoteProtocolError("the other side has broken the protocol before", recoverable=False)
