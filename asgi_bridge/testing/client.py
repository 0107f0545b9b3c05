"""`PluginClient`: calls a plugin as plain ASGI, without frames and without a gateway."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from ..apisix_constants import POST_RESP, PRE_REQ
from ..bridge import Bridge
from ..echo import echo_request
from ..errors import ConfigurationError, PluginError
from ..extras import NamesExtra
from ..lifespan import answer_lifespan
from ..plugins import Chain, MountedLifespans, PlainCall, build_chain
from ..plugins.lifespan import Lifespan
from ..plugins.replay import Replay

with NamesExtra("asgi_bridge.testing"):
    from starlette.testclient import TestClient

__all__ = ["SHUTDOWN_SECONDS", "STARTUP_SECONDS", "PluginClient"]

STARTUP_SECONDS = 60.0
"""Seconds that an application gets to start up. A machine that is busy with tests may need many."""
SHUTDOWN_SECONDS = 10.0
"""Seconds that an application gets to shut down."""

Conf = Any
"""The configuration of a plugin on a route: anything that JSON has, or JSON text."""


class PluginClient(TestClient):
    """A Starlette TestClient around one plugin, or a list of them, and an ASGI upstream.

    A plugin that is mounted with ``shadow=True`` acts here as it would without.

    Used as a context manager it runs the lifespans of the plugins and of the upstream. Exceptions of a plugin reach the
    test, unless `raise_server_exceptions` is False.

    Args:
        bridge: The plugins.
        plugin: The name of a plugin, or a list of (name, configuration), outermost first.
        conf: Configuration of the plugin: anything that JSON has, or JSON text; None: an empty one.
        upstream: What the plugin wraps; None: an application that answers with what it got, as JSON.
        variables: nginx variables that the plugin can ask for, name → value.
        route_id: Id of the route, as the plugin sees it.
        phase: The phase that the plugin runs in: ``"request"``, ``"response"``, or ``"both"``, in which it runs once,
            around the upstream. None: the phase that it is mounted with; for ``"auto"`` the request phase.
        kwargs: Further arguments of TestClient.

    Raises:
        ConfigurationError: `phase` has another value. At the first request, or on entering the context: the runner
            would refuse the plugin or its configuration.

    Example::

        with PluginClient(bridge, "cors", {"allow_origins": ["*"]}, upstream=app) as client:
            assert client.get("/", headers={"origin": "https://a.test"}).headers["access-control-allow-origin"] == "*"
    """

    def __init__(
        self,
        bridge: Bridge,
        plugin: str | Sequence[tuple[str, Conf]],
        conf: Conf = None,
        *,
        upstream: ASGIApp | None = None,
        variables: Mapping[str, bytes | str | None] | None = None,
        route_id: str = "1",
        phase: Literal["request", "response", "both"] | None = None,
        **kwargs: Any,
    ) -> None:
        if phase not in (None, "request", "response", "both"):
            raise ConfigurationError(f'phase must be "request", "response" or "both", not {phase!r}')
        plugins = [(plugin, conf)] if isinstance(plugin, str) else list(plugin)
        application = _PluginApplication(bridge, plugins, upstream or _echo, dict(variables or {}), route_id, phase)
        super().__init__(application, **kwargs)


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    """The upstream where the test gives none."""
    await echo_request(scope, receive, send, _target)


def _target(scope: Scope) -> bytes:
    query: bytes = scope["query_string"]
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return path + (b"?" + query if query else b"")


def _text(conf: Conf) -> str:
    return conf if isinstance(conf, str) else "" if conf is None else json.dumps(conf)


class _PluginApplication:
    """The application that the client calls: the chain of the plugins around the upstream."""

    def __init__(
        self,
        bridge: Bridge,
        plugins: list[tuple[str, Conf]],
        upstream: ASGIApp,
        variables: dict[str, bytes | str | None],
        route_id: str,
        phase: str | None,
    ) -> None:
        self._plugins = {name: plugin.acting() for name, plugin in bridge.plugins.items()}
        self._conf = [(name.encode(), _text(conf).encode()) for name, conf in plugins]
        mounted = [bridge.plugins[name] for name, _ in plugins if name in bridge.plugins]
        response = any(each.options.phase == "response" for each in mounted) if phase is None else phase == "response"
        self._phase = "response" if response else "request"
        place = PRE_REQ if self._phase == "request" else POST_RESP
        self._key = f"route#{route_id}#{place}#1".encode()
        self._host = Starlette()
        self._upstream = upstream
        self._upstream_state: dict[str, Any] = {}
        self._variables = variables
        self._chain: Chain | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send, self._started(), (ConfigurationError, PluginError))
            return
        if self._chain is None:
            # Without the context manager each request has an event loop of its own, so there is no lifespan.
            self._chain = await build_chain(self._plugins, self._key, self._conf, None)
        call = PlainCall(self._phase, self._chain, self._upstream, self._upstream_state, self._variables)
        outer = {"asgi": {"version": "3.0", "spec_version": "2.4"}, "app": self._host, **scope}
        outer.pop("state", None)  # it is the client's; plugins and upstream have their own
        await self._chain.enter(call, outer, Replay(receive), send)

    @contextlib.asynccontextmanager
    async def _started(self) -> AsyncIterator[None]:
        mounted = MountedLifespans()
        async with contextlib.AsyncExitStack() as stack:
            upstream = Lifespan(self._upstream, "upstream")
            await upstream.start(STARTUP_SECONDS)
            stack.push_async_callback(upstream.stop, SHUTDOWN_SECONDS)
            self._upstream_state = upstream.state
            stack.push_async_callback(mounted.stop, SHUTDOWN_SECONDS)
            for name, _ in self._conf:
                plugin = self._plugins.get(name.decode())
                if plugin is not None:
                    await mounted.start(plugin, STARTUP_SECONDS)
            self._chain = await build_chain(self._plugins, self._key, self._conf, mounted)
            stack.push_async_callback(self._chain.close, SHUTDOWN_SECONDS)
            yield
