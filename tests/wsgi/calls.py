"""WSGI code called as plain ASGI, without frames."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Asked", "ask", "call", "environ_of", "request", "responding", "started"]

Asked = list[str]


def request(*headers: tuple[bytes, bytes], **changes: Any) -> Scope:
    """Return the scope of ``GET http://a.test/x``, with changes."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/x",
        "raw_path": b"/x",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"a.test"), *headers],
        "client": ("192.0.2.1", 5000),
        "server": ("a.test", 80),
        "extensions": {},
        **changes,
    }


async def ask(app: ASGIApp, scope: Scope, body: bytes = b"", asked: Asked | None = None) -> tuple[Any, ...]:
    """Return status, headers and body of the response to one request.

    Args:
        asked: Gets an entry for each ``receive``.
    """
    sent: list[Message] = []
    parts: list[Message] = [
        {"type": "http.request", "body": body[:3], "more_body": True},
        {"type": "http.request", "body": body[3:]},
    ]

    async def receive() -> Message:
        if asked is not None:
            asked.append("receive")
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    assert start["type"] == "http.response.start"
    assert [message["type"] for message in rest] == ["http.response.body"] * len(rest)
    assert [message["more_body"] for message in rest] == [True] * (len(rest) - 1) + [False]
    return start["status"], start["headers"], b"".join(message["body"] for message in rest)


def call(app: ASGIApp, scope: Scope | None = None, body: bytes = b"", asked: Asked | None = None) -> tuple[Any, ...]:
    """Do what `ask` does, in an event loop of its own."""
    return asyncio.run(ask(app, request() if scope is None else scope, body, asked))


def started(*chunks: bytes, headers: Iterable[tuple[str, str]] = (("Content-Type", "text/plain"),)) -> Any:
    """Make a WSGI application that answers 200 with these headers and chunks."""

    def wsgi(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", list(headers))
        return list(chunks)

    return wsgi


def responding(
    body: bytes = b"inner",
    status: int = 200,
    headers: Iterable[tuple[bytes, bytes]] = ((b"content-type", b"text/plain"),),
    scopes: list[Scope] | None = None,
    bodies: list[bytes] | None = None,
) -> ASGIApp:
    """Make an ASGI application that answers with this body, status and headers.

    Args:
        scopes: Gets the scope that it was called with.
        bodies: Gets the request body. Without this the body is not read.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scopes is not None:
            scopes.append(scope)
        if bodies is not None:
            read = b""
            while (message := await receive())["type"] == "http.request":
                read += message.get("body", b"")
                if not message.get("more_body", False):
                    break
            bodies.append(read)
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    return app


def environ_of(scope: Scope) -> dict[str, Any]:
    """Return the environ that a WSGI application sees."""
    from asgi_bridge.wsgi import WSGIApp

    seen: dict[str, Any] = {}

    def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.update(environ)
        start_response("200 OK", [])
        return []

    call(WSGIApp(wsgi), scope)
    return seen
