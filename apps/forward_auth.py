"""``forward-auth``: an ASGI application that the operator gives decides whether a request may pass.

APISIX's own ``forward-auth`` asks a service over HTTP. This plugin calls an application in the runner, and has the same
names in its configuration. The application gets a GET without a body. Its headers ``X-Forwarded-Proto``, ``-Method``,
``-Host``, ``-Uri`` and ``-For`` describe the request; the client's own headers of these names are removed. If the
application answers 2xx, the request passes. Any other response, a redirect too, goes to the client. If the application
raises, or ends without a complete response, the request is refused.

Only the operator can choose the application, never a route::

    bridge.add_middleware("forward-auth", ForwardAuth, defaults={"auth_app": app})

or in pyproject.toml::

    [tool.asgi_bridge.plugins.forward-auth]
    middleware = "asgi_bridge_apps.forward_auth:ForwardAuth"
    defaults = { auth_app = "myapp.auth:app" }

The lifespan of the application starts with the first route that needs it, and ends with the last. The request waits
until the background tasks of the application have ended.
"""

import asyncio
from collections.abc import Container
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import ConfigurationError, PluginError
from asgi_bridge.plugins.lifespan import Lifespan

from ._shared.conf import EndToEndName, HeaderName, few
from ._shared.headers import Headers, dashed, encoded, without
from ._shared.whole import YIELD_EVERY

__all__ = ["ForwardAuth", "no_auth_app"]

STARTUP_SECONDS = 3.0
"""Timeout for the start of the application's lifespan. Building a chain has 4 seconds in all."""
SHUTDOWN_SECONDS = 0.15
"""Timeout for the end of the application's lifespan. Each plugin of a chain has 0.2 seconds."""

_FORWARDED = frozenset((
    b"x-forwarded-proto", b"x-forwarded-method", b"x-forwarded-host", b"x-forwarded-uri", b"x-forwarded-for",
    b"x-real-ip", b"forwarded",
))  # fmt: skip
"""Headers that describe the client and its request. The application gets ours, never the client's."""

_REMOVED = _FORWARDED | frozenset((
    b"connection", b"content-encoding", b"content-length", b"expect", b"keep-alive", b"proxy-connection", b"te",
    b"trailer", b"transfer-encoding", b"upgrade",
))  # fmt: skip
"""Headers that the application does not get from the client. The others here describe its connection and its body."""


async def no_auth_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand for the application where the operator has given none."""
    raise PluginError("the operator has given no auth application")


def _not_host(name: str) -> str:
    if name.lower() == "host":
        raise ValueError("host selects the upstream: an auth application cannot set it")
    return name


Names = Annotated[list[HeaderName], *few(100)]


class ForwardAuth:
    """Middleware that calls `app` if `auth_app` permits the request.

    Raises:
        ConfigurationError: The operator has given no `auth_app`.
    """

    def __init__(
        self,
        app: ASGIApp,
        auth_app: ASGIApp = no_auth_app,
        uri: Annotated[
            str,
            Field(
                pattern=r"^/[!-~]*$",
                max_length=8192,
                description="Path, and query, that the auth application is asked at.",
            ),
        ] = "/",
        request_headers: Annotated[
            Names | None,
            Field(description="Headers of the client that the auth application gets. Left out: all."),
        ] = None,
        upstream_headers: Annotated[
            list[Annotated[EndToEndName, AfterValidator(_not_host)]],
            *few(100),
            Field(
                description="Headers of a permission that the upstream gets. The client's own of these names are "
                "always removed, also those written with _ for -.",
                examples=[["X-User"]],
            ),
        ] = [],  # noqa: B006  # never changed, and the JSON Schema shows it
        client_headers: Annotated[
            Names | None,
            Field(description="Headers of a refusal that the client gets, besides content-type. Left out: all."),
        ] = None,
    ) -> None:
        if auth_app is no_auth_app:
            raise ConfigurationError(
                "there is no auth application: the operator has to give one, with "
                "asgi_bridge_apps.ready_made(auth_app=...) or as the default auth_app of this plugin"
            )
        self._app = app
        self._auth_app = auth_app
        self._path, _, query = uri.partition("?")
        self._query = query.encode("ascii")
        self._asked = None if request_headers is None else encoded(request_headers)
        self._granted = encoded(upstream_headers)
        self._shown = None if client_headers is None else encoded(client_headers) | {b"content-type"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _share_lifespan(self._auth_app, scope, receive, send)
            return
        asking = _Asking(send, self._shown)
        await self._auth_app(self._auth_scope(scope), asking.receive, asking.send)
        if not asking.complete:
            raise PluginError("the auth application ended without a complete response")
        if asking.refused:
            return
        kept = without(scope["headers"], self._granted)
        scope["headers"] = kept + [header for header in asking.headers if header[0] in self._granted]
        await self._app(scope, receive, send)

    def _auth_scope(self, scope: Scope) -> Scope:
        """Return the scope for the application: the request without its body and without headers to distrust."""
        uri: bytes = scope.get("raw_path") or scope["path"].encode()
        if scope["query_string"]:
            uri += b"?" + scope["query_string"]
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        headers: Headers = [
            (name, value)
            for name, value in scope["headers"]
            if dashed(name) not in _REMOVED and (self._asked is None or name in self._asked or name == b"host")
        ]
        headers += [
            (b"x-forwarded-proto", scope["scheme"].encode("latin-1")),
            (b"x-forwarded-method", scope["method"].encode("latin-1")),
            (b"x-forwarded-host", host),
            (b"x-forwarded-uri", uri),
        ]
        if scope.get("client"):
            headers.append((b"x-forwarded-for", scope["client"][0].encode("latin-1")))
        return {
            **scope,
            "method": "GET",
            "path": unquote(self._path),
            "raw_path": self._path.encode("ascii"),
            "query_string": self._query,
            "headers": headers,
        }


class _Asking:
    """One call of the auth application. A refusal is sent to the client as it comes.

    Attributes:
        headers: Headers of the response, with names in lower case.
        complete: Whether the response is complete.
        refused: Whether the response refuses the request.
    """

    def __init__(self, send: Send, shown: Container[bytes] | None) -> None:
        self.headers: Headers = []
        self.complete = False
        self.refused = False
        self._started = False
        self._messages = 0
        self._send = send
        self._shown = shown
        self._received = False
        self._ended = asyncio.Event()

    async def receive(self) -> Message:
        if not self._received:
            self._received = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._ended.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self._messages += 1
        if not self._messages % YIELD_EVERY:  # nothing else here waits, and a stream may be endless
            await asyncio.sleep(0)
        if message["type"] == "http.response.start":
            if self._started:
                raise PluginError("the auth application sent http.response.start twice")
            self._started = True
            self.headers = [(name.lower(), value) for name, value in message.get("headers") or ()]
            self.refused = not 200 <= message["status"] < 300
            if self._shown is not None:
                shown = [header for header in self.headers if header[0] in self._shown]
                message = {**message, "headers": shown}
        elif not self._started:
            raise PluginError(f"the auth application sent {message['type']!r:.200} before http.response.start")
        if self.refused:
            await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True
            self._ended.set()


class _Shared:
    """The lifespan of an auth application, and the number of configurations that use it."""

    def __init__(self, auth_app: ASGIApp) -> None:
        self.lifespan = Lifespan(auth_app, "forward-auth")
        self.started = asyncio.get_running_loop().create_task(self.lifespan.start(STARTUP_SECONDS))
        self.users = 0


_shared: dict[int, _Shared] = {}
"""``id()`` of an application → its lifespan. Each user keeps the application alive, so the id stays its own."""


async def _share_lifespan(auth_app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Take part in the lifespan of an application: the first user starts it, the last one ends it."""
    await receive()
    shared = _shared.get(id(auth_app))
    if shared is None:
        shared = _shared[id(auth_app)] = _Shared(auth_app)
    shared.users += 1
    try:
        try:
            await asyncio.shield(shared.started)
        except PluginError as exc:
            await send({"type": "lifespan.startup.failed", "message": f"the auth application: {exc}"})
            return
        scope.get("state", {}).update(shared.lifespan.state)
        await send({"type": "lifespan.startup.complete"})
        await receive()
    finally:
        shared.users -= 1
        if not shared.users:
            _shared.pop(id(auth_app), None)
            await shared.lifespan.stop(SHUTDOWN_SECONDS)
    await send({"type": "lifespan.shutdown.complete"})
