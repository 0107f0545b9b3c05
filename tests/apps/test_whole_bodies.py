"""Plugins that collect a body survive endless streams and bodies of any length."""

import asyncio
from typing import Any

import pytest
from asgi_bridge_apps import hmac_auth
from asgi_bridge_apps.etag import EtagConf, etag
from asgi_bridge_apps.forward_auth import ForwardAuth
from asgi_bridge_apps.response_rewrite import ResponseRewriteConf, response_rewrite
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import PluginError

CHUNKS = 1000


def stream(chunk: bytes, chunks: int) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(chunks):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})

    return app


async def nothing(scope: Scope, receive: Receive, send: Send) -> None: ...


PLUGINS: dict[str, Any] = {
    "etag": lambda app: etag(app, EtagConf()),
    "response-rewrite with a body": lambda app: response_rewrite(app, ResponseRewriteConf(body="other")),
    "response-rewrite with filters": lambda app: response_rewrite(
        app, ResponseRewriteConf.model_validate({"filters": [{"regex": "a"}]})
    ),
    "forward-auth": lambda app: ForwardAuth(nothing, auth_app=app),
}


def scope() -> Scope:
    return {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
        "client": None,
    }


async def receive() -> Message:
    raise AssertionError


async def swallow(message: Message) -> None: ...


async def turns_during(running: Any) -> int:
    """Return how many turns another task got while something ran."""
    turns = 0
    task = asyncio.ensure_future(running)
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    await task
    return turns


@pytest.mark.parametrize("name", PLUGINS)
def test_an_endless_stream_leaves_other_tasks_their_turns(name: str) -> None:
    app = PLUGINS[name](stream(b"", CHUNKS))
    assert asyncio.run(turns_during(app(scope(), receive, swallow))) > CHUNKS / 100


@pytest.mark.parametrize("name", ["etag", "response-rewrite with a body", "response-rewrite with filters"])
def test_no_more_is_collected_than_the_protocol_allows(name: str) -> None:
    sent = 0

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            nonlocal sent
            await send(message)
            sent += len(message.get("body", b""))

        await stream(b"x" * 2**20, 40)(scope, receive, counting)

    with pytest.raises(PluginError, match="longer than the 16777215 bytes that the protocol allows"):
        asyncio.run(PLUGINS[name](counted)(scope(), receive, swallow))
    assert sent == 15 * 2**20


def test_an_endless_request_body_that_is_hashed_leaves_other_tasks_their_turns() -> None:
    left = CHUNKS

    async def empty() -> Message:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": b"", "more_body": left > 0}

    digest = b"SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert asyncio.run(turns_during(hmac_auth._check_body(digest, empty))) > CHUNKS / 100
