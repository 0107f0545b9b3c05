"""`Gateway`: sends requests through real frames and all of APISIX's rules."""

import asyncio
import contextlib
import dataclasses
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from ..bridge import Bridge
from ..errors import PluginError
from ..extras import NamesExtra
from ..lifespan import answer_lifespan
from ..plugins.lifespan import Lifespan
from ..server.process import runner_config
from ..server.protocol import RunnerProtocol
from ..server.runner import Runner, RunnerOptions
from .client import SHUTDOWN_SECONDS, STARTUP_SECONDS

with NamesExtra("asgi_bridge.testing"):
    from ..check import check_routes
    from ..gateway import GatewayApp, Limits, Routes, echo, load_routes, read_routes

__all__ = ["Gateway"]

logger = logging.getLogger("asgi_bridge.testing")

BACKGROUND_SECONDS = 2.0
"""Seconds that background tasks have when the gateway ends. A server waits for them too when it stops."""
_LIMITS = Limits(connect=60.0, lock=60.0)
"""Timeouts of the gateway in seconds. The defaults, 1 and 5, are short for a machine that is busy with tests."""


class Gateway:
    """An ASGI application that is a gateway with its runner: real frames, and all of APISIX's rules.

    Use it with Starlette's TestClient. The runner works in the test's own event loop, over a real unix socket. With
    TestClient as a context manager it starts once, with the lifespans of plugins and upstream. Otherwise it starts for
    each request, without lifespans of the upstream.

    An exception in a plugin is raised again in the test if it comes before the client has the response, unless
    TestClient's `raise_server_exceptions` is False.

    The log has what is wrong about routes and plugins together: a plugin that is not mounted, or one of
    ``phase="both"`` that a route lists in one phase only (`asgi_bridge.check.check_routes`).

    Args:
        bridge: The plugins.
        routes: APISIX's routes: the path of an ``apisix.yaml``, its content as a dict, or a list of routes. Routes of a
            dict or list need no ``id`` and no ``upstream``.
        upstream: The upstream of all routes; None: an application that answers with what it got, as JSON.
        options: How the runner works; None: the defaults.
        strict: True: it is an error if APISIX would refuse something, or if the stand-in for APISIX cannot do it.
            False: the log says so. Routes that APISIX would drop are dropped; plugins and fields that the stand-in does
            not have are ignored.

    Raises:
        ConfigurationError: The routes cannot be read.

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
            await answer_lifespan(receive, send, self._running(), (PluginError,))
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

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        """Start the gateway before the first request, and stop it after the last one."""
        async with self._started(lifespan=True) as self._app:
            try:
                yield
            finally:
                self._app = None

    def _note(self, exc: BaseException) -> None:
        """Keep an exception, unless it comes from a background task of an earlier request."""
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
                runner.host.parked.close()
                await _end(state.tasks, {call.task for call in runner.calls})
                await server.wait_closed()


async def _end(tasks: set[asyncio.Task[None]], unanswered: Set[asyncio.Task[None] | None]) -> None:
    """End the tasks of all calls.

    Args:
        tasks: All tasks. Those whose call has its answer get time for what they do after it.
        unanswered: The others. Nobody waits for their answers any more.
    """
    answered = tasks - unanswered
    if answered:
        await asyncio.wait(answered, timeout=BACKGROUND_SECONDS)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _routes(routes: str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]], strict: bool) -> Routes:
    if isinstance(routes, str | Path):
        return load_routes(routes, strict=strict)
    content = dict(routes) if isinstance(routes, Mapping) else {"routes": list(routes)}
    if not (isinstance(content.get("routes"), list) and all(isinstance(route, Mapping) for route in content["routes"])):
        return read_routes(content, strict=strict)  # raises an error that says what is wrong
    upstream = {"type": "roundrobin", "nodes": {"upstream.test:80": 1}}
    content["routes"] = [
        route if {"upstream", "upstream_id", "service_id"} & set(route) else {**route, "upstream": upstream}
        for route in content["routes"]
    ]
    return read_routes(content, strict=strict)
