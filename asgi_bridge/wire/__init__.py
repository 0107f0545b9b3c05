"""The external-plugin protocol: frames, messages, the codec between them, and the session of a connection.

Nothing here knows of sockets, event loops, ASGI or plugins. Nothing here imports pydantic, Starlette or asyncio.

`decode` and `encode` are the functions. The modules of the same names hold their pure Python implementation; import
from those with ``from asgi_bridge.wire.decode import …`` only.
"""

from .codec import decode, encode
from .frames import HEADER_SIZE, MAX_PAYLOAD, Buffer, FrameReader, FrameType, frame
from .messages import (
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
    Role,
    Stop,
    TextEntry,
    UnknownUnion,
    Var,
)
from .session import Session, State

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
