"""An upstream that says what it got, and one plugin in front of it: in plain ASGI, and behind a gateway."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_bridge import Bridge
from asgi_bridge.testing import Gateway, PluginClient


class Upstream:
    """Answers every request, and records it.

    Attributes:
        seen: Method, target and body of each request.
        headers: The headers of the last one, several lines of a name one after the other.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        self.headers: dict[str, list[str]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.seen.append((request.method, target, await request.body()))
        self.headers = {name: request.headers.getlist(name) for name in request.headers}
        response = PlainTextResponse("from the upstream", 201, {"x-of": "upstream", "vary": "accept"})
        response.headers.append("set-cookie", "of=upstream; Path=/; Partitioned")
        response.headers.append("set-cookie", "of=upstream; Path=/a")
        await response(scope, receive, send)


Stage = Callable[..., Any]
"""Makes a context of a client, from a bridge, the names of its plugins and the upstream."""


@contextmanager
def plain(bridge: Bridge, names: list[str], upstream: Upstream, phase: str = "request") -> Iterator[TestClient]:
    """A client of the plugins as plain ASGI."""
    plugins = [(name, "{}") for name in names]
    with PluginClient(bridge, plugins, upstream=upstream, follow_redirects=False) as client:
        yield client


@contextmanager
def gateway(bridge: Bridge, names: list[str], upstream: Upstream, phase: str = "request") -> Iterator[TestClient]:
    """A client of a gateway whose one route lists the plugins."""
    listed = {"conf": [{"name": name, "value": "{}"} for name in names]}
    plugins = {"ext-plugin-pre-req": listed}
    if phase == "both":
        plugins["ext-plugin-post-resp"] = listed
    routes = [{"uri": "/*", "plugins": plugins}]
    with TestClient(Gateway(bridge, routes, upstream=upstream), follow_redirects=False) as client:
        yield client
