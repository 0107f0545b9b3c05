"""Messages of the external-plugin protocol, and the numbers of its schema.

Each table of ``ext-plugin.fbs`` (api7/ext-plugin-proto 0.6.1) has a class here, with the same fields in the same order.
Strings are bytes, because header values, paths and query values need not be UTF-8. None means that the field is absent
from its table, which differs from an empty one.

Messages are values: never change one. They are not frozen, because that would double the time to make one.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias, TypeVar

__all__ = [
    "LAST_ACTION",
    "LAST_INFO",
    "METHODS",
    "Action",
    "ErrCode",
    "ErrResp",
    "ExtraInfoReq",
    "ExtraInfoResp",
    "HTTPReqCallReq",
    "HTTPReqCallResp",
    "HTTPRespCallReq",
    "HTTPRespCallResp",
    "Info",
    "Message",
    "PrepareConfReq",
    "PrepareConfResp",
    "ReqBody",
    "RespBody",
    "Rewrite",
    "Role",
    "Stop",
    "TextEntry",
    "UnknownUnion",
    "Var",
]


Class = TypeVar("Class")


class Role(IntEnum):
    """Our side of the connection. A frame's type alone does not tell a request from its answer."""

    RUNNER = 0
    GATEWAY = 1


TextEntry: TypeAlias = tuple[bytes | None, bytes | None]
"""``A6.TextEntry``: a name and a value.

Without a value it is an argument without ``=`` in a request, and deletes the header or argument in a `Rewrite`.
"""

METHODS = (
    "GET", "HEAD", "POST", "PUT", "DELETE", "MKCOL", "COPY", "MOVE", "OPTIONS", "PROPFIND", "PROPPATCH", "LOCK",
    "UNLOCK", "PATCH", "TRACE",
)  # fmt: skip
"""``A6.Method``: names of the HTTP methods. The index is the number in a frame."""


class ErrCode(IntEnum):
    """``A6.Err.Code``: why a call or an ExtraInfo request has no answer."""

    BAD_REQUEST = 0
    SERVICE_UNAVAILABLE = 1
    CONF_TOKEN_NOT_FOUND = 2


def _compared(message: type[Class]) -> type[Class]:
    """Let messages of a class be compared, hashed and shown by their fields.

    `dataclass` would write these methods for each class anew, at each start of a process.
    """
    methods = {"__eq__": _equal, "__hash__": _hash, "__repr__": _shown}
    for name, method in methods.items():
        setattr(message, name, method)
    return message


def _values(message: Any) -> tuple[Any, ...]:
    return tuple([getattr(message, name) for name in message.__match_args__])


def _equal(message: object, other: object) -> bool:
    return _values(message) == _values(other) if type(message) is type(other) else NotImplemented


def _hash(message: object) -> int:
    return hash(_values(message))


def _shown(message: Any) -> str:
    fields = zip(message.__match_args__, _values(message), strict=True)
    return f"{type(message).__name__}({', '.join(f'{name}={value!r}' for name, value in fields)})"


@_compared
@dataclass(slots=True, eq=False, repr=False)
class ErrResp:
    """``A6.Err.Resp``: an error, which may take the place of any answer.

    Attributes:
        code: A code outside of the enum is kept as a plain number, 0 to 255.
    """

    code: ErrCode | int = ErrCode.BAD_REQUEST


@_compared
@dataclass(slots=True, eq=False, repr=False)
class PrepareConfReq:
    """``A6.PrepareConf.Req``: the configuration of one ``ext-plugin-*`` of one route. Asks for a token.

    Attributes:
        conf: Names and configurations (JSON) of the plugins, in order of execution.
        key: Names the route and its phase: ``route#ID#ext-plugin-pre-req#VERSION``.
    """

    conf: list[TextEntry] | None = None
    key: bytes | None = None


@_compared
@dataclass(slots=True, eq=False, repr=False)
class PrepareConfResp:
    """``A6.PrepareConf.Resp``: accepts a configuration.

    Attributes:
        conf_token: The number that names the configuration in calls, 32 bits.
    """

    conf_token: int = 0


@_compared
@dataclass(slots=True, eq=False, repr=False)
class HTTPReqCallReq:
    """``A6.HTTPReqCall.Req``: a request, before it goes upstream.

    Attributes:
        id: Number of the call, 32 bits. The answer repeats it.
        src_ip: The client's address, 4 or 16 bytes.
        method: One of `METHODS`.
        path: Path without the query.
        args: Names and values of the query's arguments.
        headers: Names and values of the headers.
        conf_token: Token of the configuration.
    """

    id: int = 0
    src_ip: bytes | None = None
    method: str = "GET"
    path: bytes | None = None
    args: list[TextEntry] | None = None
    headers: list[TextEntry] | None = None
    conf_token: int = 0


@_compared
@dataclass(slots=True, eq=False, repr=False)
class Stop:
    """``A6.HTTPReqCall.Stop``: the client gets this response. The upstream gets no request."""

    status: int = 0
    headers: list[TextEntry] | None = None
    body: bytes | None = None


@_compared
@dataclass(slots=True, eq=False, repr=False)
class Rewrite:
    """``A6.HTTPReqCall.Rewrite``: the request goes upstream, changed. An absent field changes nothing.

    Attributes:
        path: New path, decoded and without a query.
        headers: Request headers to set. Of entries with one name the last counts. One without a value deletes.
        args: Arguments to set. Further entries of a name add. One without a value deletes.
        resp_headers: Headers to set on the response. APISIX drops some names (docs/mapping.md).
        body: New request body. APISIX ignores an empty one.
    """

    path: bytes | None = None
    headers: list[TextEntry] | None = None
    args: list[TextEntry] | None = None
    resp_headers: list[TextEntry] | None = None
    body: bytes | None = None


@_compared
@dataclass(slots=True, eq=False, repr=False)
class UnknownUnion:
    """A member of a union that this version of the protocol does not know. APISIX ignores such an action.

    Attributes:
        type: The member's number, up to 255.
    """

    type: int


Action: TypeAlias = Stop | Rewrite | UnknownUnion | None
"""``A6.HTTPReqCall.Action``. None: the request goes upstream unchanged."""

LAST_ACTION = 2
"""Largest number of a known action: 1 is `Stop`, 2 is `Rewrite`."""


@_compared
@dataclass(slots=True, eq=False, repr=False)
class HTTPReqCallResp:
    """``A6.HTTPReqCall.Resp``: answers a request call. The id is that of the call."""

    id: int = 0
    action: Action = None


@_compared
@dataclass(slots=True, eq=False, repr=False)
class Var:
    """``A6.ExtraInfo.Var``: asks for the nginx variable `name`."""

    name: bytes | None = None


@_compared
@dataclass(slots=True, eq=False, repr=False)
class ReqBody:
    """``A6.ExtraInfo.ReqBody``: asks for the whole request body."""


@_compared
@dataclass(slots=True, eq=False, repr=False)
class RespBody:
    """``A6.ExtraInfo.RespBody``: asks for the whole response body."""


Info: TypeAlias = Var | ReqBody | RespBody | UnknownUnion | None
"""``A6.ExtraInfo.Info``: the object of an ExtraInfo request."""

LAST_INFO = 3
"""Largest number of a known info: 1 is `Var`, 2 is `ReqBody`, 3 is `RespBody`."""


@_compared
@dataclass(slots=True, eq=False, repr=False)
class ExtraInfoReq:
    """``A6.ExtraInfo.Req``: the runner asks the gateway during a call."""

    info: Info = None


@_compared
@dataclass(slots=True, eq=False, repr=False)
class ExtraInfoResp:
    """``A6.ExtraInfo.Resp``: answers an ExtraInfo request. A result of None stands for Lua's nil."""

    result: bytes | None = None


@_compared
@dataclass(slots=True, eq=False, repr=False)
class HTTPRespCallReq:
    """``A6.HTTPRespCall.Req``: the upstream's response, before it goes to the client.

    Attributes:
        id: Number of the call, 32 bits. The answer repeats it.
        status: HTTP status of the response.
        headers: Names and values of the response's headers.
        conf_token: Token of the configuration.
    """

    id: int = 0
    status: int = 0
    headers: list[TextEntry] | None = None
    conf_token: int = 0


@_compared
@dataclass(slots=True, eq=False, repr=False)
class HTTPRespCallResp:
    """``A6.HTTPRespCall.Resp``: answers a response call. Absent and empty fields change nothing, except empty headers.

    Attributes:
        id: Number of the call.
        status: New HTTP status; 0: unchanged.
        headers: These replace all headers of the upstream. An empty list keeps most of them, but not
            ``content-type`` and nine others (docs/mapping.md).
        body: New body.
    """

    id: int = 0
    status: int = 0
    headers: list[TextEntry] | None = None
    body: bytes | None = None


Message: TypeAlias = (
    ErrResp
    | PrepareConfReq
    | PrepareConfResp
    | HTTPReqCallReq
    | HTTPReqCallResp
    | ExtraInfoReq
    | ExtraInfoResp
    | HTTPRespCallReq
    | HTTPRespCallResp
)
