"""The built-in upstream: an ASGI application that answers with what it got."""

import base64
import json
from typing import Any

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from asgi_bridge.gateway.exchange import target_of
from asgi_bridge.gateway.nginx.uri import split_authority

__all__ = ["echo"]


def _target(scope: Any) -> bytes:
    return split_authority(target_of(scope))[1]


async def echo(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answer with JSON of method, raw target, path, query, headers (a list of pairs) and body.

    A body that is not UTF-8 comes as ``{"base64": ...}``. Bytes of headers and targets are shown as latin-1.
    """
    if scope["type"] != "http":
        raise RuntimeError(f"echo only speaks http, not {scope['type']}")
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    text: str | dict[str, str]
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = {"base64": base64.b64encode(body).decode()}
    answer = {
        "method": scope["method"],
        "target": _target(scope).decode("latin-1"),
        "path": scope["path"],
        "query": scope["query_string"].decode("latin-1"),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": text,
    }
    content = json.dumps(answer, ensure_ascii=False, indent=1).encode() + b"\n"
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())],
            "trailers": False,
        }
    )
    await send({"type": "http.response.body", "body": content, "more_body": False})
