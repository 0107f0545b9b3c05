"""The lines of a recording: messages as JSON objects, and back. Bytes are texts in latin-1.

A line is one of these objects::

    {"recording": 1, "asks_origin": false}
    {"preparation": ID, "key": …, "plugins": [[NAME, CONFIGURATION], …], "redacted": [FIELD, …]}
    {"at": SECONDS, "milliseconds": …, "preparation": ID, "request" or "response": MESSAGE, "extra": [[ASK, …], …],
     "parked": …, "halves": …, "redacted": [WHAT, …], "action": ACTION}
    {"left_out": CALLS, "too_large": CALLS}
"""

import socket
from collections.abc import Sequence
from typing import Any, TypeAlias

from ..errors import ConfigurationError
from ..wire import (
    ErrCode,
    ErrResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    Info,
    ReqBody,
    RespBody,
    Stop,
    TextEntry,
    Var,
)
from .redact import Redactor

__all__ = ["VERSION", "Answer", "Json", "action_of", "ask_of", "call_of", "message_of", "raw", "text"]

VERSION = 1
"""Version of these lines."""

Json: TypeAlias = dict[str, Any]
Answer: TypeAlias = HTTPReqCallResp | HTTPRespCallResp | ErrResp
"""What a call is answered with."""


def text(value: bytes | None) -> str | None:
    """Return bytes as a text in latin-1."""
    return None if value is None else value.decode("latin-1")


def raw(value: Any) -> bytes | None:
    """Return the bytes that :func:`text` was given.

    Raises:
        ValueError: `value` is something else.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.100} is no text")
    return value.encode("latin-1")


def _texts(entries: Sequence[TextEntry] | None, redactor: Redactor | None) -> list[list[str | None]] | None:
    if entries is None:
        return None
    if redactor is None or not redactor.known:
        return [[text(name), text(value)] for name, value in entries]
    return [[text(name), text(value and redactor.rest(value))] for name, value in entries]


def ask_of(info: Info) -> str:
    """Return what the gateway is asked for: ``$request_id``, ``request body`` or ``response body``."""
    if isinstance(info, Var):
        return f"${(info.name or b'').decode('latin-1')}"
    return {ReqBody: "request body", RespBody: "response body"}.get(type(info), "something unknown")


def call_of(
    message: HTTPReqCallReq | HTTPRespCallReq, extra: Sequence[tuple[Info, bytes | None]], redactor: Redactor | None
) -> Json:
    """Return the part of a line that says what a call is about.

    Args:
        message: The call.
        extra: What the gateway was asked for, and its answers.
        redactor: Takes the secrets out; None: they stay.
    """
    headers, args = message.headers, message.args if isinstance(message, HTTPReqCallReq) else None
    answers = list(extra)
    if redactor is not None:
        headers, args = redactor.headers(headers), redactor.args(args)
        answers = [(info, _without(info, answer, redactor)) for info, answer in answers]
    found: Json = {}
    if isinstance(message, HTTPReqCallReq):
        path = message.path if redactor is None or message.path is None else redactor.rest(message.path)
        found["request"] = {
            "id": message.id,
            "src_ip": _address(message.src_ip),
            "method": message.method,
            "path": text(path),
            "args": _texts(args, redactor),
            "headers": _texts(headers, redactor),
        }
    else:
        found["response"] = {"id": message.id, "status": message.status, "headers": _texts(headers, redactor)}
    found["extra"] = [
        [ask_of(info), text(answer if redactor is None or answer is None else redactor.rest(answer))]
        for info, answer in answers
    ]
    return found


def _without(info: Info, answer: bytes | None, redactor: Redactor) -> bytes | None:
    if answer is None:
        return None
    return redactor.variable(info.name or b"", answer) if isinstance(info, Var) else redactor.body(answer, ask_of(info))


def _address(src_ip: bytes | None) -> str | None:
    if src_ip is None or len(src_ip) not in (4, 16):
        return text(src_ip)
    return socket.inet_ntop(socket.AF_INET if len(src_ip) == 4 else socket.AF_INET6, src_ip)


def _src_ip(address: str | None) -> bytes | None:
    if address is None:
        return None
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, address)
        except OSError:
            pass
    return raw(address)


def action_of(answer: Answer, redactor: Redactor | None) -> Json:
    """Return an answer as a JSON object, without its id. Its ``kind`` is pass, rewrite, stop, response or error.

    Args:
        answer: What the runner answered.
        redactor: Takes the secrets out; None: they stay.
    """
    if isinstance(answer, ErrResp):
        code = answer.code
        return {"kind": "error", "code": code.name if isinstance(code, ErrCode) else code}
    fields: dict[str, Any] = {}
    if isinstance(answer, HTTPRespCallResp):
        kind, body = "response", answer.body
        fields = {"status": answer.status, "headers": answer.headers}
    elif isinstance(answer.action, Stop):
        kind, body = "stop", answer.action.body
        fields = {"status": answer.action.status, "headers": answer.action.headers}
    elif answer.action is None:
        return {"kind": "pass"}
    else:
        rewrite: Any = answer.action
        kind, body = "rewrite", rewrite.body
        fields = {"path": rewrite.path, "headers": rewrite.headers, "args": rewrite.args}
        fields["resp_headers"] = rewrite.resp_headers
    if redactor is not None:
        for name in ("headers", "resp_headers"):
            fields[name] = redactor.headers(fields.get(name))
        fields["args"] = redactor.args(fields.get("args"))
        body = None if body is None else redactor.rest(redactor.body(body, "body"))
        if fields.get("path") is not None:
            fields["path"] = redactor.rest(fields["path"])
    for name in ("headers", "resp_headers", "args"):
        fields[name] = _texts(fields.get(name), redactor)
    fields["path"], fields["body"] = text(fields.get("path")), text(body)
    return {"kind": kind, **{name: value for name, value in fields.items() if value is not None}}


def _entries(value: Any) -> list[TextEntry] | None:
    return None if value is None else [(raw(name), raw(content)) for name, content in value]


def message_of(line: Json) -> HTTPReqCallReq | HTTPRespCallReq:
    """Return the call of a line; its token is 0.

    Raises:
        ConfigurationError: The line is not one of a recording.
    """
    try:
        if "request" in line:
            request = line["request"]
            return HTTPReqCallReq(
                int(request["id"]),
                _src_ip(request["src_ip"]),
                str(request["method"]),
                raw(request["path"]),
                _entries(request["args"]),
                _entries(request["headers"]),
            )
        response = line["response"]
        return HTTPRespCallReq(int(response["id"]), int(response["status"]), _entries(response["headers"]))
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigurationError(f"a call of the recording cannot be read: {type(exc).__name__}: {exc}") from None
