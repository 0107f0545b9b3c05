"""The messages of the external-plugin protocol, as typed values.

One class for each table of ``ext-plugin.fbs`` (api7/ext-plugin-proto 0.6.1), with the table's fields in the table's
order. Strings are bytes: header values, paths and query values need not be UTF-8. ``None`` is a field that is absent
from its table, which is not the same as an empty one. Messages are values, and nobody changes one; they are not frozen
because that would make building one twice as slow.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

__all__ = [
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
    "Stop",
    "TextEntry",
    "UnknownUnion",
    "Var",
]

TextEntry: TypeAlias = tuple[bytes | None, bytes | None]
"""A name and a value; what an absent value means depends on the place: delete it, or an argument without ``=``."""

METHODS = (
    "GET", "HEAD", "POST", "PUT", "DELETE", "MKCOL", "COPY", "MOVE", "OPTIONS", "PROPFIND", "PROPPATCH", "LOCK",
    "UNLOCK", "PATCH", "TRACE",
)  # fmt: skip
"""``A6.Method``: the number on the wire is the index here."""


class ErrCode(IntEnum):
    """``A6.Err.Code``."""

    BAD_REQUEST = 0
    SERVICE_UNAVAILABLE = 1
    CONF_TOKEN_NOT_FOUND = 2


@dataclass(slots=True, unsafe_hash=True)
class ErrResp:
    """``A6.Err.Resp``: in place of any answer. A code outside the enum is kept as a plain number."""

    code: ErrCode | int = ErrCode.BAD_REQUEST


@dataclass(slots=True, unsafe_hash=True)
class PrepareConfReq:
    """``A6.PrepareConf.Req``: the plugins of one ``ext-plugin-*`` of one route, in order of execution."""

    conf: list[TextEntry] | None = None
    key: bytes | None = None


@dataclass(slots=True, unsafe_hash=True)
class PrepareConfResp:
    """``A6.PrepareConf.Resp``."""

    conf_token: int = 0


@dataclass(slots=True, unsafe_hash=True)
class HTTPReqCallReq:
    """``A6.HTTPReqCall.Req``: a request, before it goes upstream."""

    id: int = 0
    src_ip: bytes | None = None
    method: str = "GET"
    path: bytes | None = None
    args: list[TextEntry] | None = None
    headers: list[TextEntry] | None = None
    conf_token: int = 0


@dataclass(slots=True, unsafe_hash=True)
class Stop:
    """``A6.HTTPReqCall.Stop``: the client gets this response, the upstream gets nothing."""

    status: int = 0
    headers: list[TextEntry] | None = None
    body: bytes | None = None


@dataclass(slots=True, unsafe_hash=True)
class Rewrite:
    """``A6.HTTPReqCall.Rewrite``: what is present replaces that part of the request."""

    path: bytes | None = None
    headers: list[TextEntry] | None = None
    args: list[TextEntry] | None = None
    resp_headers: list[TextEntry] | None = None
    body: bytes | None = None


@dataclass(slots=True, unsafe_hash=True)
class UnknownUnion:
    """A member of a union that this version of the protocol does not know. APISIX takes such an action as none."""

    type: int


Action: TypeAlias = Stop | Rewrite | UnknownUnion | None
"""``A6.HTTPReqCall.Action``; None: the request goes on unchanged."""


@dataclass(slots=True, unsafe_hash=True)
class HTTPReqCallResp:
    """``A6.HTTPReqCall.Resp``."""

    id: int = 0
    action: Action = None


@dataclass(slots=True, unsafe_hash=True)
class Var:
    """``A6.ExtraInfo.Var``: asks for an nginx variable."""

    name: bytes | None = None


@dataclass(slots=True, unsafe_hash=True)
class ReqBody:
    """``A6.ExtraInfo.ReqBody``: asks for the whole request body."""


@dataclass(slots=True, unsafe_hash=True)
class RespBody:
    """``A6.ExtraInfo.RespBody``: asks for the whole response body."""


Info: TypeAlias = Var | ReqBody | RespBody | UnknownUnion | None
"""``A6.ExtraInfo.Info``."""


@dataclass(slots=True, unsafe_hash=True)
class ExtraInfoReq:
    """``A6.ExtraInfo.Req``: the runner asks in the middle of a call."""

    info: Info = None


@dataclass(slots=True, unsafe_hash=True)
class ExtraInfoResp:
    """``A6.ExtraInfo.Resp``; a result of None: there is none (nil in Lua)."""

    result: bytes | None = None


@dataclass(slots=True, unsafe_hash=True)
class HTTPRespCallReq:
    """``A6.HTTPRespCall.Req``: the upstream's response, before it goes to the client."""

    id: int = 0
    status: int = 0
    headers: list[TextEntry] | None = None
    conf_token: int = 0


@dataclass(slots=True, unsafe_hash=True)
class HTTPRespCallResp:
    """``A6.HTTPRespCall.Resp``."""

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
