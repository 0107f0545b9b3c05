"""Frames as decoded messages, in words and values that JSON has."""

import ipaddress
import json
from collections.abc import Callable, Sequence
from typing import Any

from ..dev_runner.body import Body
from ..dev_runner.story import text
from ..hiding import hidden
from ..wire.messages import (
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
    Var,
)

__all__ = ["asked_of", "fields_of", "name_of"]

_NAMES: dict[type, str] = {
    ErrResp: "Err.Resp",
    ExtraInfoReq: "ExtraInfo.Req",
    ExtraInfoResp: "ExtraInfo.Resp",
    HTTPReqCallReq: "HTTPReqCall.Req",
    HTTPReqCallResp: "HTTPReqCall.Resp",
    HTTPRespCallReq: "HTTPRespCall.Req",
    HTTPRespCallResp: "HTTPRespCall.Resp",
    PrepareConfReq: "PrepareConf.Req",
    PrepareConfResp: "PrepareConf.Resp",
}


def name_of(message: Message) -> str:
    """Return the message's name in the protocol: ``HTTPReqCall.Req``."""
    return _NAMES[type(message)]


def asked_of(info: Info) -> str:
    """Return what the runner asks for: ``$request_id``, ``request body`` or ``response body``."""
    if isinstance(info, Var):
        return "$" + text(info.name or b"")
    return {ReqBody: "request body", RespBody: "response body"}.get(type(info), "something unknown")


def fields_of(message: Message, keep: Callable[[bytes], Body]) -> dict[str, Any]:
    """Return the fields of a message by name, without those that are absent.

    Args:
        message: The message.
        keep: Makes of a body what is kept of it.

    Returns:
        Texts, numbers, bodies, and lists of pairs.
    """
    match message:
        case PrepareConfReq(conf, key):
            found: dict[str, Any] = {"key": _text(key), "conf": _hidden(conf)}
        case PrepareConfResp(token):
            found = {"conf_token": token}
        case HTTPReqCallReq(number, src_ip, method, path, args, headers, token):
            found = {
                "id": number, "src_ip": _address(src_ip), "method": method, "path": _text(path),
                "args": _entries(args), "headers": _entries(headers), "conf_token": token,
            }  # fmt: skip
        case HTTPReqCallResp(number, action):
            found = {"id": number, **_action(action, keep)}
        case HTTPRespCallReq(number, status, headers, token):
            found = {"id": number, "status": status, "headers": _entries(headers), "conf_token": token}
        case HTTPRespCallResp(number, status, headers, body):
            found = {"id": number, "status": status, "headers": _entries(headers), "body": _body(body, keep)}
        case ExtraInfoReq(info):
            found = {"info": asked_of(info)}
        case ExtraInfoResp(result):
            found = {"result": _body(result, keep)}
        case ErrResp(code):
            found = {"code": code.name if isinstance(code, ErrCode) else code}
    return {name: value for name, value in found.items() if value is not None}


def _action(action: Any, keep: Callable[[bytes], Body]) -> dict[str, Any]:
    match action:
        case None:
            return {"action": "none: the request goes on unchanged"}
        case Stop(status, headers, body):
            return {"action": "Stop", "status": status, "headers": _entries(headers), "body": _body(body, keep)}
        case Rewrite(path, headers, args, resp_headers, body):
            return {
                "action": "Rewrite", "path": _text(path), "headers": _entries(headers), "args": _entries(args),
                "resp_headers": _entries(resp_headers), "body": _body(body, keep),
            }  # fmt: skip
    return {"action": f"unknown, number {action.type}"}


def _text(data: bytes | None) -> str | None:
    return None if data is None else text(data)


def _entries(entries: Sequence[TextEntry] | None) -> list[list[str | None]] | None:
    return None if entries is None else [[_text(name), _text(value)] for name, value in entries]


def _body(data: bytes | None, keep: Callable[[bytes], Body]) -> Body | None:
    return None if data is None else keep(data)


def _address(src_ip: bytes | None) -> str | None:
    if src_ip is None or len(src_ip) not in (4, 16):
        return _text(src_ip)
    return str(ipaddress.ip_address(src_ip))


def _hidden(conf: Sequence[TextEntry] | None) -> list[list[str | None]] | None:
    """Return the configurations of plugins without their secrets."""
    found = []
    for name, value in conf or ():
        try:
            shown: str | None = json.dumps(hidden(json.loads(value or b"")), ensure_ascii=False)
        except (ValueError, RecursionError):
            shown = _text(value)
        found.append([_text(name), shown])
    return None if conf is None else found
