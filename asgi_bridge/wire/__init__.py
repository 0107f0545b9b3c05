"""The external-plugin protocol: frames, messages, and the session that says which may come when.

Nothing here knows of sockets, event loops, ASGI or plugins.
"""

from asgi_bridge.wire.codec import Role, decode, encode
from asgi_bridge.wire.frames import HEADER_SIZE, MAX_PAYLOAD, Buffer, FrameReader, FrameType, frame
from asgi_bridge.wire.messages import (
    METHODS,
    Action,
    ErrCode,
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
    ReqBody,
    RespBody,
    Rewrite,
    Stop,
    TextEntry,
    UnknownUnion,
    Var,
)
from asgi_bridge.wire.session import Session, State

__all__ = [
    "HEADER_SIZE",
    "MAX_PAYLOAD",
    "METHODS",
    "Action",
    "Buffer",
    "ErrCode",
    "ErrResp",
    "ExtraInfoReq",
    "ExtraInfoResp",
    "FrameReader",
    "FrameType",
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
    "Session",
    "State",
    "Stop",
    "TextEntry",
    "UnknownUnion",
    "Var",
    "decode",
    "encode",
    "frame",
]
