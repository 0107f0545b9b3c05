"""The gateway: an ASGI application that does to requests and responses what APISIX 3.18 does to them.

A request goes through APISIX's phases: rewrite (plugins by priority, then those of the consumer), access, before_proxy
(post-resp), proxy, header filter. In each of them global rules come first. Use it to try plugins, not in production.
"""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from ..lifespan import answer_lifespan
from .builtin import BUILTIN, Refusal, with_error_response
from .exchange import ActivePlugins, Breaks, ClientGone, Exchange
from .nginx.answer import exit_with, instead, refuse, send_page, send_upstream
from .nginx.headers import LuaError
from .nginx.request import refusal as nginx_refusal
from .nginx.variables import lookup
from .pool import Pool
from .post_resp import POST_RESP, ResponsePhase
from .routes.route import TWO_LISTS, Route, Routes
from .runner.calls import Observer, RunnerFailed, call_runner, configuration_key
from .runner.client import RunnerClient
from .runner.connection import Limits
from .server import allow_all_statuses
from .upstream import UpstreamError, UpstreamTimeout
from .upstream.inprocess import InProcessUpstream
from .upstream.network import NetworkUpstream
from .upstream.requests import BadUpstreamURI, proxied_request
from .watch import watched, watching

__all__ = ["GatewayApp"]

logger = logging.getLogger("asgi_bridge.gateway")

_PRE_REQ = "ext-plugin-pre-req"
_PRE_REQ_PRIORITY = 12000
_NO_ROUTE = b'{"error_msg":"404 Route Not Found"}\n'


class GatewayApp:
    """APISIX's half of the external-plugin protocol, as an ASGI application.

    Any ASGI server can serve it. With `asgi_bridge.gateway.server.http_protocol`, uvicorn also passes on the request
    target as the client wrote it, which an ASGI scope does not hold.

    It keeps idle connections from the lifespan's start-up to its shutdown. Without a lifespan it makes a connection for
    each call.

    Attributes:
        pool: Idle connections.
        runner: The way to the runner.

    Args:
        routes: What to match requests against; may be replaced at any time (`routes`).
        runner_socket: Path of the runner's unix socket.
        upstream: An ASGI application that gets all requests, in process; its exceptions propagate. None: requests go
            over the network, to the route's upstream.
        observe: Called after each call of the runner.
        limits: Times and sizes; APISIX's by default.
    """

    def __init__(
        self,
        routes: Routes,
        runner_socket: str,
        *,
        upstream: ASGIApp | None = None,
        observe: Observer | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.pool = Pool()
        self.runner = RunnerClient(runner_socket, limits or Limits(), self.pool)
        self.upstream = NetworkUpstream(self.pool) if upstream is None else InProcessUpstream(upstream)
        self._send = watched(self.upstream.send)
        self._response_phase = ResponsePhase(self._send, self._call)
        self._observe = observe
        self._routes = routes
        self._version = int(time.time() * 1000)
        _warn_of_two_lists(routes)
        allow_all_statuses()

    @property
    def routes(self) -> Routes:
        """The routes. New ones get a new version, so that every route prepares again, as with APISIX's route file."""
        return self._routes

    @routes.setter
    def routes(self, routes: Routes) -> None:
        self._routes = routes
        _warn_of_two_lists(routes)
        self._version = max(self._version + 1, int(time.time() * 1000))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI call: http, or lifespan. WebSockets are refused."""
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send, self._running())
        elif scope["type"] == "websocket":
            logger.warning("%s: refused, the stand-in does not proxy WebSockets", scope["path"])
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
        else:
            exchange = Exchange(scope, receive, send)
            watch = watching.get()
            if watch is not None:
                watch.began(exchange)
            try:
                await self._answer(exchange)
            except ClientGone:
                logger.info("%s: the client went away", exchange.request.line)
            except Breaks as exc:
                await instead(exchange, str(exc))

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        self.pool.start()
        yield
        await self.pool.stop()

    async def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        status = nginx_refusal(request)
        if status:
            await refuse(exchange, status)
            return
        if request.upgrades_to_websocket:
            logger.warning(
                "%s: the stand-in does not proxy WebSockets; the handshake goes upstream as a plain request, as APISIX "
                "sends it for a route without enable_websocket",
                request.line,
            )
        exchange.add_forwarded_headers()
        exchange.global_rules = ActivePlugins(self._routes.global_rules)
        exchange.route = await self._matched(exchange)
        try:
            refusal = await self._request_phases(exchange)
        except LuaError:
            refusal = Refusal(500)
        if refusal is not None:
            await exit_with(exchange, refusal.status, refusal.body)
            return
        if exchange.upstream is None or exchange.upstream.node is None:
            logger.error("%s: missing upstream configuration", exchange)
            await send_page(exchange, 503)
            return
        lists = [
            plugins
            for plugins in (exchange.global_rules, exchange.plugins)
            if POST_RESP in plugins.plugins.ext and await plugins.runs(POST_RESP, lookup(exchange))
        ]
        if not await self._response_phase.answer(exchange, lists):
            await self._proxy(exchange)

    async def _matched(self, exchange: Exchange) -> Route | None:
        request = exchange.request
        for route in self._routes.candidates(request.method, request.host, exchange.path):
            if await route.fits(request.remote[0], lookup(exchange)):
                return route
        return None

    # --- request phases ---------------------------------------------------------------------------------------------

    async def _request_phases(self, exchange: Exchange) -> Refusal | None:
        # global rules come first in each phase, and run even where there is no route
        refusal = await self._rewrite(exchange, exchange.global_rules)
        if refusal is None and exchange.route is not None:
            exchange.plugins = ActivePlugins(exchange.route.plugins)
            exchange.upstream = exchange.route.upstream
            refusal = await self._rewrite_phase(exchange)
        for plugins in (exchange.global_rules, exchange.plugins):
            if refusal is None:
                refusal = await self._ext(exchange, "ext-plugin-post-req", plugins)
        if refusal is None and exchange.route is None:
            return Refusal(404, _NO_ROUTE)
        return refusal

    async def _rewrite_phase(self, exchange: Exchange) -> Refusal | None:
        own = exchange.plugins
        refusal = await self._rewrite(exchange, own)
        if refusal is not None or exchange.consumer is None:
            return refusal
        # the consumer's plugins replace the route's; those that the route does not have run now (rewrite_in_consumer)
        exchange.plugins = ActivePlugins(exchange.consumer.plugins.over(own.plugins))
        return await self._rewrite(exchange, exchange.plugins, but=own)

    async def _rewrite(
        self, exchange: Exchange, active: ActivePlugins, but: ActivePlugins | None = None
    ) -> Refusal | None:
        """Run the rewrite phase of plugins, without those whose names `but` has too."""
        plugins = active.plugins
        priorities: dict[str, int] = {
            name: conf.get("_meta", {}).get("priority", BUILTIN[name].priority)
            for name, conf in plugins.builtin.items()
            if BUILTIN[name].rewrite is not None
        }
        pre_req = plugins.ext.get(_PRE_REQ)
        if pre_req is not None:
            priorities[_PRE_REQ] = _PRE_REQ_PRIORITY if pre_req.priority is None else pre_req.priority
        for name in sorted(priorities, key=priorities.__getitem__, reverse=True):
            if but is not None and name in but.plugins:
                continue
            if name == _PRE_REQ:
                refusal = await self._ext(exchange, name, active)
            else:
                refusal = await self._rewrite_builtin(exchange, name, active)
            if refusal is not None:
                return refusal
        return None

    async def _rewrite_builtin(self, exchange: Exchange, name: str, active: ActivePlugins) -> Refusal | None:
        rewrite, conf = BUILTIN[name].rewrite, active.plugins.builtin[name]
        if rewrite is None or not await active.runs(name, lookup(exchange)):
            return None
        refusal = rewrite(exchange, conf, self._routes.consumers)
        return None if refusal is None else with_error_response(refusal, conf.get("_meta", {}).get("error_response"))

    async def _ext(self, exchange: Exchange, phase: str, active: ActivePlugins) -> Refusal | None:
        """Call the runner for the list of a request phase, if the plugins have one."""
        plugin = active.plugins.ext.get(phase)
        if plugin is None or not await active.runs(phase, lookup(exchange)):
            return None
        try:
            refusal = await self._call(exchange, phase, active)
        except RunnerFailed:
            refusal = Refusal(503)
        return None if refusal is None else with_error_response(refusal, plugin.error_response)

    async def _call(self, exchange: Exchange, phase: str, active: ActivePlugins) -> Refusal | None:
        of_global_rules = active is exchange.global_rules
        key = configuration_key(exchange, phase, self._version, of_global_rules=of_global_rules)
        return await call_runner(self.runner, exchange, phase, active.plugins.ext[phase], key, self._observe)

    # --- the upstream -----------------------------------------------------------------------------------------------

    async def _proxy(self, exchange: Exchange) -> None:
        """Send the request upstream, and the response to the client, as nginx does: it reads the whole body first."""
        assert exchange.upstream is not None
        exchange.node = exchange.upstream.node
        body, length = await exchange.body.read(), exchange.body.length
        if length is not None and length != len(body):
            raise Breaks(f"hung or cut the request: Content-Length: {length} for {len(body)} bytes")
        if body and not exchange.has_body:
            logger.warning(
                "%s: a plugin has deleted Content-Length: the request goes on without its body, which nginx takes for "
                "the client's next request",
                exchange,
            )
        try:
            request = proxied_request(exchange)
        except BadUpstreamURI as exc:
            uri = exchange.outgoing.uri.decode("latin-1")
            logger.error("%s: no such upstream: apisix_backend%s", exchange.request.line, uri)
            await send_page(exchange, exc.status)
            return
        started = False
        try:
            async with self._send(request) as response:
                started = True
                await send_upstream(exchange, response.status, response.headers, response.chunks)
        except UpstreamError as exc:
            logger.error("%s: the upstream failed: %s", exchange.request.line, str(exc) or type(exc).__name__)
            if started:
                # the client has the head already, so the connection is broken, as nginx does
                raise
            status = 504 if isinstance(exc, UpstreamTimeout) else 502
            await send_page(exchange, status, upstream_status=", ".join([str(status)] * exc.tries).encode())


def _warn_of_two_lists(routes: Routes) -> None:
    for route in routes.clashing:
        logger.warning(TWO_LISTS, route.id)
