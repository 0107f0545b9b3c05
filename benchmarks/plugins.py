"""The plugins that are measured, mounted under the names in the frames. Each is as small as possible."""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

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

    def __init__(self, app: ASGIApp, x: int) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            found = await apisix(scope).var("remote_addr", "server_addr")
            scope["headers"].append((b"x-bench", found["remote_addr"] or b"-"))
        await self.app(scope, receive, send)


bridge.add_middleware("bench-noop", NoOp)
bridge.add_middleware("bench-rewrite", Rewrite)
bridge.add_middleware("rewrite", Rewrite)
bridge.add_middleware("bench-extra", Ask)


async def sleep(scope: Scope, receive: Receive, send: Send) -> None:
    """Wait a tenth of a second, then call the next layer."""
    await asyncio.sleep(0.1)
    await upstream(scope, receive, send)


async def panic(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise in a call."""
    raise RuntimeError("panic")


def panicconf(x: int) -> ASGIApp:
    """Raise when the plugin is configured."""
    raise ConfigurationError("panic")


bridge.mount("bench-sleep", sleep)
bridge.mount("bench-panic", panic)
bridge.plugin("bench-panicconf")(panicconf)
