"""The session: which message may come when on a connection. It does no input or output itself.

Give it what a read brings with `Session.receive_data`. Take messages from `Session.next_message`. `Session.send` turns
a message into bytes to write. The session plays either side of the protocol: the runner's, or the gateway's for the
stand-in and tests.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any, NoReturn, TypeAlias

from ..errors import LocalProtocolError, RemoteProtocolError
from .codec import decode, encode
from .frames import Buffer, FrameReader, FrameType
from .messages import (
    ErrResp,
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    Info,
    Message,
    PrepareConfReq,
    PrepareConfResp,
    Role,
    Var,
)

__all__ = ["Session", "State", "var_asks"]

# How it works
#
# The gateway is the client. It opens a *call*: PrepareConf, HTTPReqCall or HTTPRespCall. A connection has at most one
# open call. The runner ends it with one answer: the Resp of the same type, or an error.
#
# While an HTTP call is open, the runner may *ask* (ExtraInfo). It may ask again before it has the answer. The gateway
# answers the asks in order, and reads the next frame only after its answer.
#
# So both sides agree about the state, except for frames that are on their way. What one side sends, the other receives:
# one table serves both roles.
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
# The session also counts the asks that have no answer yet.
#
# Only a runner can be DRAINING: it has answered the call before all its asks were answered. Nobody waits for the
# missing answers. The session reads and drops them, and is IDLE after the last one. A gateway's session is never
# DRAINING. As APISIX does, it holds back the next frame until the ask before it is answered.
#
# A frame whose payload cannot be decoded moves the state as the message of its type would. The borders of frames are
# still known, so the error is recoverable. The runner can answer such a call with an ErrResp. Such an answer to an ask
# counts as its answer.
#
# A frame that may not come now breaks the protocol. The state is ERROR and never changes again. CLOSED means that the
# other side closed the connection between two frames, with or without an open call. Closing within a frame is an ERROR.


class State(Enum):
    """State of the connection. The values complete the sentence "while the connection is …"."""

    IDLE = "idle"
    PREPARING = "in a preparation"
    REQ_CALLED = "in a request call"
    RESP_CALLED = "in a response call"
    DRAINING = "waiting for answers to asks that nobody needs"
    CLOSED = "closed by the other side"
    ERROR = "broken by the other side"

    # Enum's own hash is a Python function, and every message looks its state up in a dict.
    __hash__ = object.__hash__


# Access to a member of an Enum costs a function call in Python 3.11.
_IDLE, _DRAINING, _ERROR = State.IDLE, State.DRAINING, State.ERROR
_EXTRA_INFO = FrameType.EXTRA_INFO.value

_Moves: TypeAlias = dict[State, dict[int, State]]

# State and frame type -> next state, for frames from the gateway. In all states but IDLE these are answers to asks.
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

# Frames that open a call or a preparation.
_OPENS = _FROM_GATEWAY[State.IDLE]

# The same for frames from the runner.
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

# Messages that each role sends, and the types of their frames.
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

_KEPT_ASKS = 1024
"""Maximum number of asks in the cache. Plugins may make up names of variables, so number and lengths are bounded."""
_KEPT_LENGTH = 64
"""Maximum length of such a name, in bytes."""


class _VarAsks(dict[bytes | None, bytes]):
    """Cache: the name of a variable → the frame that asks for it. Plugins ask for the same few in each call."""

    def __missing__(self, name: bytes | None) -> bytes:
        ask = encode(ExtraInfoReq(Var(name)))
        if name is not None and len(name) <= _KEPT_LENGTH and len(self) < _KEPT_ASKS:
            self[name] = ask
        return ask


var_asks = _VarAsks()
"""The frames of the asks, by the names of the variables."""

_NAMES = {kind.value: kind.name for kind in FrameType}


class Session:
    """One side of one connection.

    Args:
        role: Our side.

    Attributes:
        role: Our side.

    Example:
        A runner that lets every request pass::

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
        """State of the connection."""
        return self._state

    @property
    def asks(self) -> int:
        """Number of ExtraInfo requests that have no answer yet."""
        return self._asks

    @property
    def buffered(self) -> bool:
        """Whether bytes may be left after a message. If not, `next_message` would return None."""
        return bool(self._reader.buffer)

    @property
    def pending(self) -> int:
        """Number of bytes that have arrived and belong to no message that was returned."""
        return self._reader.pending

    def unread(self) -> bytes:
        """Return these bytes. With them another session, in the state IDLE, can go on where this one is IDLE."""
        return self._reader.unread()

    def receive_data(self, data: Buffer) -> None:
        """Add the bytes of one read.

        Args:
            data: The bytes. They are copied, so the buffer may be used again.

        Raises:
            RemoteProtocolError: The other side has broken the protocol before. Not recoverable.
            LocalProtocolError: `receive_eof` has been called.
        """
        if self._state is _ERROR:
            self._refuse()
        if self._eof:
            raise LocalProtocolError("data after the end of the stream")
        self._reader.receive_data(data)

    def receive(self, data: Buffer) -> Message | None:
        """Do what `receive_data` and `next_message` do, in one call."""
        if self._state is not _IDLE or not self._runner or self._eof:
            self.receive_data(data)
            return self.next_message()
        # the same, for a read that opens a call
        found = self._reader.receive(data)
        if found is None:
            return None
        kind, payload = found
        state = _OPENS.get(kind)
        if state is None:
            self._break_for(kind)
        self._state = state
        return decode(kind, payload, self.role)

    def receive_eof(self) -> None:
        """Note that the other side has closed the connection.

        `next_message` still returns all messages that had arrived. After the last one, the state is `State.CLOSED`.
        """
        self._eof = True

    def next_message(self) -> Message | None:
        """Return the next message; None until it has arrived whole.

        In the gateway's role it also returns None while an ask waits for its answer. Call it again after `send`.

        Raises:
            RemoteProtocolError: Not recoverable, and the state is `State.ERROR`: the frame may not come now, or the
                stream ended within a frame. Recoverable: the payload cannot be decoded. The frame then counts as
                received, so that an `ErrResp` can answer the call.
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
                self._break_for(kind)
            if state is not _DRAINING:
                return decode(kind, payload, self.role)
        return None

    def send(self, message: Message) -> bytes:
        """Encode a message, and change the state as if it had been written.

        Args:
            message: A message of our role.

        Returns:
            The bytes to write.

        Raises:
            LocalProtocolError: The message may not be sent now, or cannot be encoded. The state does not change, so a
                call can still be answered otherwise.
        """
        kind = self._types.get(type(message))
        if kind is None:
            raise LocalProtocolError(f"a {self.role.name.lower()} does not send {type(message).__name__}")
        data = encode(message)
        if not self._move(kind, self._runner):
            raise LocalProtocolError(f"{type(message).__name__} while the connection is {self._state.value}")
        return data

    def ask(self, infos: Sequence[Info]) -> bytes:
        """Do what `send` does with an `ExtraInfoReq` for each of `infos`, for one write.

        Args:
            infos: What the runner asks for.

        Returns:
            The bytes to write.

        Raises:
            LocalProtocolError: Nothing may be asked now, or an ask cannot be encoded. The state does not change.
        """
        asks = [var_asks[info.name] if type(info) is Var else encode(ExtraInfoReq(info)) for info in infos]
        if not self._runner or _EXTRA_INFO not in _FROM_RUNNER[self._state]:
            raise LocalProtocolError(f"{ExtraInfoReq.__name__} while the connection is {self._state.value}")
        self._asks += len(asks)
        return b"".join(asks)

    def _move(self, kind: int, by_runner: bool) -> bool:
        """Change the state for a frame of type `kind`. Returns False, and changes nothing, if it may not come now."""
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

    def _break_for(self, kind: int) -> NoReturn:
        self._break(f"a frame of type {_NAMES.get(kind, kind)} while the connection is {self._state.value}")

    def _break(self, reason: str) -> NoReturn:
        self._state = State.ERROR
        raise RemoteProtocolError(reason, recoverable=False)

    def _refuse(self) -> NoReturn:
        raise RemoteProtocolError("the other side has broken the protocol before", recoverable=False)
