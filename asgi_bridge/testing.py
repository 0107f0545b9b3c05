"""Tests of plugins without a gateway and with one.

:class:`PluginClient` calls a plugin as plain ASGI; :class:`Gateway` sends the request through real frames and all of
APISIX's rules. Both are for Starlette's TestClient.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from .bridge import Bridge
from .errors import ConfigurationError, PluginError
from .extras import extra_of
from .plugins import Chain, PlainCall, build_chain
from .plugins.lifespan import Lifespan
from .server.process import runner_config
from .server.protocol import RunnerProtocol
from .server.runner import Runner, RunnerOptions

try:
    from starlette.testclient import TestClient

    from .check import check_routes
    from .gateway import GatewayApp, Limits, Routes, echo, load_routes, read_routes
except (ModuleNotFoundError, RuntimeError) as exc:  # Starlette makes the latter of the former
    missing = extra_of(exc)
    if not missing:
        raise
    raise ModuleNotFoundError(f"asgi_bridge.testing {missing}") from exc

__all__ = ["Gateway", "PluginClient"]

logger = logging.getLogger("asgi_bridge.testing")

Conf = Any
"""The configuration of a plugin on a route: anything that JSON has, or JSON text."""

_LIMITS = Limits(connect=60.0, lock=60.0)
"""Seconds, in place of the gateway's 1 and 5: those are short for a machine that is busy with tests."""
STARTUP_SECONDS = 60.0
SHUTDOWN_SECONDS = 10.0


class PluginClient(TestClient):
    """A TestClient around one plugin, or a list of them, and a real ASGI upstream: pure ASGI, no frames.

    Used as a context manager it runs the lifespans of the plugins and of the upstream. Exceptions of the plugin
    reach the test, unless `raise_server_exceptions` is False.

    Args:
        bridge: the plugins.
        plugin: the name of one, or a list of (name, configuration), outermost first.
        conf: its configuration on the route.
        upstream: what the plugin wraps; without it an application that echoes what it gets.
        variables: what ``var`` gives, name → value.
        route_id: the route that the plugin is told.
        phase: of the list that the plugin stands in, for one that may stand in either: ``"request"``, ``"response"``,
            or ``"both"``, in which it runs once, in the request. Without it the plugin's own decides.
        kwargs: TestClient's own.

    Raises:
        ConfigurationError: at the first request (or on entering the context), for what the runner would refuse.

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
            raise ConfigurationError(f'phase is "request", "response" or "both", not {phase!r}')
        plugins = [(plugin, conf)] if isinstance(plugin, str) else list(plugin)
        application = _PluginApplication(bridge, plugins, upstream or echo, dict(variables or {}), route_id, phase)
        super().__init__(application, **kwargs)


def _text(conf: Conf) -> str:
    return conf if isinstance(conf, str) else "" if conf is None else json.dumps(conf)


class _PluginApplication:
    def __init__(
        self,
        bridge: Bridge,
        plugins: list[tuple[str, Conf]],
        upstream: ASGIApp,
        variables: dict[str, bytes | str | None],
        route_id: str,
        phase: str | None,
    ) -> None:
        self._bridge = bridge
        self._conf = [(name.encode(), _text(conf).encode()) for name, conf in plugins]
        mounted = [bridge.plugins[name] for name, _ in plugins if name in bridge.plugins]
        response = any(each.options.phase == "response" for each in mounted) if phase is None else phase == "response"
        self._phase = "response" if response else "request"
        place = "ext-plugin-pre-req" if self._phase == "request" else "ext-plugin-post-resp"
        self._key = f"route#{route_id}#{place}#1".encode()
        self._host = Starlette()
        self._upstream = upstream
        self._upstream_state: dict[str, Any] = {}
        self._variables = variables
        self._chain: Chain | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if self._chain is None:
            # without the context manager each request has an event loop of its own: there is no lifespan
            self._chain = await build_chain(self._bridge.plugins, self._key, self._conf, None)
        call = PlainCall(self._phase, self._chain, self._upstream, self._upstream_state, self._variables)
        outer = {"asgi": {"version": "3.0", "spec_version": "2.4"}, "app": self._host, **scope}
        outer.pop("state", None)  # the client's own: the plugins bring theirs
        await self._chain.enter(call, outer, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.AsyncExitStack() as stack:
            await receive()
            try:
                await stack.enter_async_context(self._started())
            except (ConfigurationError, PluginError) as exc:
                await send({"type": "lifespan.startup.failed", "message": str(exc)})
                raise
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    @contextlib.asynccontextmanager
    async def _started(self) -> AsyncIterator[None]:
        mounted: dict[int, Lifespan | ConfigurationError] = {}
        async with contextlib.AsyncExitStack() as stack:
            upstream = Lifespan(self._upstream, "upstream")
            await upstream.start(STARTUP_SECONDS)
            stack.push_async_callback(upstream.stop, SHUTDOWN_SECONDS)
            self._upstream_state = upstream.state
            for name, _ in self._conf:
                plugin = self._bridge.plugins.get(name.decode())
                if plugin is not None and plugin.application is not None and id(plugin.application) not in mounted:
                    lifespan = Lifespan(plugin.application, plugin.name)
                    await lifespan.start(STARTUP_SECONDS)
                    stack.push_async_callback(lifespan.stop, SHUTDOWN_SECONDS)
                    mounted[id(plugin.application)] = lifespan
            self._chain = await build_chain(self._bridge.plugins, self._key, self._conf, mounted)
            stack.push_async_callback(self._chain.close, SHUTDOWN_SECONDS)
            yield


class Gateway:
    """An ASGI application that is a gateway with its runner: real frames, and all of APISIX's rules.

    The runner works in the test's own event loop, over a real unix socket. Used with TestClient as a context manager
    it starts once, the lifespans of plugins and upstream included; otherwise once for each request. An exception that
    refuses a request, or comes behind its answer before the client has it, is raised again in the test, unless
    TestClient's `raise_server_exceptions` is False.

    Args:
        bridge: the plugins.
        routes: APISIX's routes: the path of an ``apisix.yaml``, its content as a dict, or a list of routes. Routes of a
            dict or list need no ``id`` and no ``upstream``.
        upstream: the upstream of all routes; without it an application that echoes what it gets.
        options: how the runner works.
        strict: True: what APISIX would refuse, and what the stand-in cannot do, is an error. False: routes that APISIX
            would drop are not there, plugins and fields that the stand-in does not have are passed over, and the log
            says so.

    What is strange about the routes and the plugins together is in the log too: a plugin that is not mounted, or one of
    ``phase="both"`` whose other half is missing (`asgi_bridge.check.check_routes`).

    Raises:
        ConfigurationError: routes that cannot be read.

    Example::

        routes = [{"uri": "/*", "plugins": {"ext-plugin-pre-req": {"conf": [{"name": "say", "value": "{}"}]}}}]
        with TestClient(Gateway(bridge, routes, upstream=app)) as client:
            assert client.get("/").status_code == 200
    """

    def __init__(
        self,
        bridge: Bridge,
        routes: str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        upstream: ASGIApp | None = None,
        *,
        options: RunnerOptions | None = None,
        strict: bool = True,
    ) -> None:
        self._bridge = bridge
        self._routes = _routes(routes, strict)
        for finding in (*self._routes.findings, *check_routes(self._routes, bridge.plugins)):
            logger.log(logging.ERROR if finding.severity == "error" else logging.WARNING, "%s", finding)
        self._upstream = upstream or echo
        self._options = options
        self._app: GatewayApp | None = None
        self._faults: list[BaseException] = []
        self._server = ServerState()
        self._earlier: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            async with contextlib.AsyncExitStack() as stack:
                await receive()
                try:
                    self._app = await stack.enter_async_context(self._started(lifespan=True))
                except PluginError as exc:
                    await send({"type": "lifespan.startup.failed", "message": str(exc)})
                    raise
                await send({"type": "lifespan.startup.complete"})
                await receive()
                self._app = None
            await send({"type": "lifespan.shutdown.complete"})
        elif self._app is not None:
            await self._request(self._app, scope, receive, send)
        else:
            async with self._started(lifespan=False) as app:
                await self._request(app, scope, receive, send)

    async def _request(self, app: GatewayApp, scope: Scope, receive: Receive, send: Send) -> None:
        self._faults.clear()
        self._earlier = set(self._server.tasks)
        await app(scope, receive, send)
        if self._faults:
            raise self._faults[0]

    def _note(self, exc: BaseException) -> None:
        """What an earlier request's task does in the background is not this one's fault."""
        if asyncio.current_task() not in self._earlier:
            self._faults.append(exc)

    @contextlib.asynccontextmanager
    async def _started(self, lifespan: bool) -> AsyncIterator[GatewayApp]:
        async with contextlib.AsyncExitStack() as stack:
            if lifespan:
                upstream = Lifespan(self._upstream, "upstream")
                await upstream.start(STARTUP_SECONDS)
                stack.push_async_callback(upstream.stop, SHUTDOWN_SECONDS)
            runner = Runner(self._bridge.plugins, self._options)
            runner.host = dataclasses.replace(runner.host, on_fault=self._note)
            await runner.start()
            stack.push_async_callback(runner.stop)
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="asgi-bridge-"))
            path = os.path.join(folder, "runner.sock")
            config = runner_config(lambda: runner)
            config.load()
            state = self._server = ServerState()
            server = await asyncio.get_running_loop().create_unix_server(
                lambda: RunnerProtocol(config=config, server_state=state), path
            )
            app = GatewayApp(self._routes, path, upstream=self._upstream, limits=_LIMITS)
            app.pool.start()
            try:
                yield app
            finally:
                await app.pool.stop()
                server.close()
                for connection in list(state.connections):
                    connection.shutdown()
                for task in list(state.tasks):
                    task.cancel()
                await asyncio.gather(*state.tasks, return_exceptions=True)
                await server.wait_closed()


def _routes(routes: str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]], strict: bool) -> Routes:
    if isinstance(routes, str | Path):
        return load_routes(routes, strict=strict)
    content = dict(routes) if isinstance(routes, Mapping) else {"routes": list(routes)}
    if not (isinstance(content.get("routes"), list) and all(isinstance(route, Mapping) for route in content["routes"])):
        return read_routes(content, strict=strict)  # which says what is wrong
    upstream = {"type": "roundrobin", "nodes": {"upstream.test:80": 1}}
    content["routes"] = [
        route if {"upstream", "upstream_id", "service_id"} & set(route) else {**route, "upstream": upstream}
        for route in content["routes"]
    ]
    return read_routes(content, strict=strict)
