"""The built-in upstream: an ASGI application that answers with what it got."""

import base64
import json

from starlette.types import Receive, Scope, Send

from ..nginx.request import target_of
from ..nginx.uri import split_authority

__all__ = ["echo"]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
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
        "target": split_authority(target_of(scope))[1].decode("latin-1"),
        "path": scope["path"],
        "query": scope["query_string"].decode("latin-1"),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": text,
    }
    content = json.dumps(answer, ensure_ascii=False, indent=1).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
