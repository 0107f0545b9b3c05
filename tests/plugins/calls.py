"""A call for chains, and small ASGI applications, for the tests of plugins."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge
from asgi_bridge.plugins import Chain, ChainCall, Layer, build_chain

KEY = b"route#1#ext-plugin-pre-req#7"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeCall(ChainCall):
    """What the layers know of a call, and nothing else.

    Not a mock of behaviour under test: the real calls belong to the adapter, need a connection and a gateway, and
    hide what the layers told them. Behind its last layer it answers an empty 200 and keeps what it was called with.
    """

    phase = "request"

    def __init__(self, body: Sequence[bytes] = (b"",)) -> None:
        super().__init__(Chain([], None))
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []
        self.wrapped_send: list[str] = []
        self.sent: list[Message] = []
        self.fault: Exception | None = None
        self.receive_fault: Exception | None = None
        self._body = list(body)

    async def var(self, *names: str) -> Any:
        return dict.fromkeys(names, b"value") if len(names) > 1 else b"value"

    def wraps_send(self, layer: Layer) -> None:
        self.wrapped_send.append(layer.name)

    async def innermost(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.fault is not None:
            raise self.fault
        self.scopes.append(scope)
        self.bodies.append(await read(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive(self) -> Message:
        if self.receive_fault is not None:
            raise self.receive_fault
        part = self._body.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self._body)}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def through(self, chain: Chain) -> None:
        """Run this call through `chain`, as the adapter does."""
        self.chain = chain
        await chain.enter(self, scope(), self.receive, self.send)

    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None


def scope() -> Scope:
    return {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", b"a.test")],
        "extensions": {"other": {}},
    }


async def read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        part: bytes = message["body"]
        body += part
        if not message["more_body"]:
            return body


def answering(status: int) -> ASGIApp:
    """An application that answers by itself."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


def chain_of(bridge: Bridge, *names: str | tuple[str, str], key: bytes | None = KEY) -> Chain:
    """Build the chain of plugins, given by name or by name and JSON text, without any lifespan."""
    conf = [(name, "") if isinstance(name, str) else name for name in names]
    return asyncio.run(build_chain(bridge.plugins, key, [(name.encode(), text.encode()) for name, text in conf], None))


class Tap:
    """A middleware that calls `before` with what it gets, before it passes the request on."""

    def __init__(self, app: ASGIApp, before: Callable[[Scope], None]) -> None:
        self.app = app
        self.before = before

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.before(scope)
        await self.app(scope, receive, send)
