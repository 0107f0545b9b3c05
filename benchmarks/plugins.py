"""The plugins that are measured, mounted under the names in the frames. Each is as small as possible."""

import asyncio
import gc
import json
import sys

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError, apisix, upstream

bridge = Bridge()
bridge.configure(
    {"plugins": {"say": {"factory": "asgi_bridge_apps.say:say"}, "stop": {"factory": "asgi_bridge_apps.stop:stop"}}}
)


class NoOp:
    """A middleware that does nothing."""

    def __init__(self, app: ASGIApp, x: int) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Rewrite:
    """A middleware that sets a header and the path."""

    def __init__(self, app: ASGIApp, x: int = 1, body: str = "") -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = "/rewritten"
            scope["headers"].append((b"x-bench", b"1"))
        await self.app(scope, receive, send)


class Ask:
    """A middleware that asks for two variables and sets a header."""

    names: tuple[str, ...] = ("remote_addr", "server_addr")

    def __init__(self, app: ASGIApp, x: int) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            found = await apisix(scope).var(*self.names)
            scope["headers"].append((b"x-bench", found[self.names[0]] or b"-"))
        await self.app(scope, receive, send)


class Ask1(Ask):
    """The same with one variable."""

    names = ("remote_addr",)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"].append((b"x-bench", await apisix(scope).var("remote_addr") or b"-"))
        await self.app(scope, receive, send)


class Ask4(Ask):
    """The same with four variables."""

    names = ("remote_addr", "server_addr", "remote_user", "request_length")


class Body:
    """A middleware that reads the request body, and sets a header."""

    def __init__(self, app: ASGIApp, x: int) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            message = await receive()
            scope["headers"].append((b"x-bench", b"%d" % len(message["body"])))
        await self.app(scope, receive, send)


class Tag:
    """A middleware that adds a header to the response."""

    def __init__(self, app: ASGIApp, x: int) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tagging(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-bench", b"1")]
            await send(message)

        await self.app(scope, receive, tagging)


bridge.add_middleware("bench-noop", NoOp)
bridge.add_middleware("bench-rewrite", Rewrite)
bridge.add_middleware("rewrite", Rewrite)
bridge.add_middleware("bench-extra", Ask)
bridge.add_middleware("bench-ask-1", Ask1)
bridge.add_middleware("bench-ask-2", Ask)
bridge.add_middleware("bench-ask-4", Ask4)
bridge.add_middleware("bench-body", Body)
bridge.add_middleware("bench-response", Tag, phase="response", response_body=False)
bridge.add_middleware("bench-both", Tag, phase="both", response_body=False)


async def sleep(scope: Scope, receive: Receive, send: Send) -> None:
    """Wait a tenth of a second, then call the next layer."""
    await asyncio.sleep(0.1)
    await upstream(scope, receive, send)


async def panic(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise in a call."""
    raise RuntimeError("panic")


async def forbid(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 403."""
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"no"})


async def memory(scope: Scope, receive: Receive, send: Send) -> None:
    """Search for garbage. Answer how much is left."""
    gc.collect()
    found = {"objects": len(gc.get_objects()), "blocks": sys.getallocatedblocks()}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(found).encode()})


def panicconf(x: int) -> ASGIApp:
    """Raise when the plugin is configured."""
    raise ConfigurationError("panic")


bridge.mount("bench-sleep", sleep)
bridge.mount("bench-panic", panic)
bridge.mount("bench-forbid", forbid)
bridge.mount("bench-memory", memory)
bridge.plugin("bench-panicconf")(panicconf)


def with_frameworks() -> Bridge:
    """Return a bridge with these plugins and the applications of frameworks, which take time to import."""
    from .apps import Tagging, cors, fastapi, router

    more = Bridge()
    more.include(bridge)
    more.add_middleware("bench-cors", cors)
    more.add_middleware("bench-base", Tagging, request_body=False)
    more.mount("bench-router", router)
    more.mount("bench-fastapi", fastapi)
    more.configure({"plugins": {"bench-flask": {"wsgi": "benchmarks.apps:flask"}}})
    return more
