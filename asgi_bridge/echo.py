"""The answer of an echo upstream: what the request was, as JSON."""

import base64
import json
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

__all__ = ["echo_request"]


async def echo_request(scope: Scope, receive: Receive, send: Send, target_of: Callable[[Scope], bytes]) -> None:
    """Answer 200 with JSON: method, raw target, path, query, headers (a list of pairs) and body of the request.

    A body that is not UTF-8 comes as ``{"base64": ...}``. Bytes of headers and targets are shown as latin-1.

    Args:
        scope: Of type ``http``.
        receive: Gives the request's body.
        send: Takes the response.
        target_of: Function that returns the raw target of `scope`: path and query, as the client wrote them.

    Raises:
        RuntimeError: The scope has another type.
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
        "target": target_of(scope).decode("latin-1"),
        "path": scope["path"],
        "query": scope["query_string"].decode("latin-1"),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": text,
    }
    content = json.dumps(answer, ensure_ascii=False, indent=1).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
