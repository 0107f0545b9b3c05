"""The gateway: an ASGI application that does to requests and responses what APISIX 3.18 does to them.

The phases of a request, in APISIX's order: rewrite (plugins by priority, then those that came with the consumer),
access, before_proxy (post-resp), proxy, header filter; in each of them global rules come first. Not for production: it
is what plugins are tried on.
"""

import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2
from asgiref.typing import ASGI3Application

from asgi_bridge.gateway.builtin import BUILTIN, Refusal, rewrite, with_error_response
from asgi_bridge.gateway.builtin.filters import lookup, runs
from asgi_bridge.gateway.exchange import Breaks, ClientGone, CutOff, Exchange, ResponseSource
from asgi_bridge.gateway.nginx.answer import exit_with, instead, refuse, send_generated, send_page, send_upstream
from asgi_bridge.gateway.nginx.headers import LuaError, SentHeaders
from asgi_bridge.gateway.routes.route import Plugins, Route, Routes
from asgi_bridge.gateway.runner.calls import Observer, RunnerFailed, call_runner, configuration_key
from asgi_bridge.gateway.runner.client import RunnerClient
from asgi_bridge.gateway.runner.connection import Limits
from asgi_bridge.gateway.server import allow_all_statuses
from asgi_bridge.gateway.upstream.inprocess import ASGIUpstream
from asgi_bridge.gateway.upstream.requests import (
    BadUpstreamURI,
    FetchError,
    UpstreamClient,
    chunks_of,
    fetch_request,
    proxied_request,
)

__all__ = ["GatewayApp"]

logger = logging.getLogger("asgi_bridge.gateway")

# client_header_buffer_size and large_client_header_buffers of nginx
_FIRST_BUFFER = 1024
_BUFFER = 8 * 1024
_BUFFERS = 4
# A header that stands there twice is refused (ngx_http_process_unique_header_line).
_UNIQUE = frozenset(
    b"host authorization content-length content-range expect if-match if-modified-since if-none-match if-range "
    b"if-unmodified-since transfer-encoding".split()
)
_POST_RESP = "ext-plugin-post-resp"
_PRE_REQ_PRIORITY = 12000
_NO_ROUTE = b'{"error_msg":"404 Route Not Found"}\n'


class GatewayApp:
    """APISIX's half of the external-plugin protocol, as an ASGI application.

    Any ASGI server will do. Under uvicorn, `asgi_bridge.gateway.server.http_protocol` hands on the request target as
    the client wrote it, which an ASGI scope does not hold.

    Idle connections are kept from the lifespan's start-up to its shutdown; without a lifespan everything works too,
    with a connection for each call.

    Args:
        routes: what to match requests against; may be replaced at any time (`routes`).
        runner_socket: path of the runner's unix socket.
        upstream: None: requests go over the network, to the route's upstream. An ASGI application: they all go to it,
            in process, and its exceptions propagate. A transport of httpx2: they go through that.
        observe: called after each call of the runner.
        limits: times and sizes; APISIX's by default.
    """

    def __init__(
        self,
        routes: Routes,
        runner_socket: str,
        *,
        upstream: httpx2.AsyncBaseTransport | ASGI3Application | None = None,
        observe: Observer | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.runner = RunnerClient(runner_socket, limits or Limits())
        transport = upstream
        if transport is not None and not isinstance(transport, httpx2.AsyncBaseTransport):
            transport = ASGIUpstream(transport)
        self.upstream = UpstreamClient(transport)
        self.observe = observe
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

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """One ASGI call: http, or lifespan. WebSockets are refused."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            logger.warning("%s: refused, the stand-in does not proxy WebSockets", scope["path"])
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
        else:
            exchange = Exchange(scope, receive, send)
            try:
                await self._answer(exchange)
            except ClientGone:
                logger.info("%s: the client went away", exchange.request_line)
            except Breaks as exc:
                await instead(exchange, str(exc))

    async def _lifespan(self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        await receive()
        self.runner.start()
        self.upstream.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.runner.stop()
        await self.upstream.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, exchange: Exchange) -> None:
        status = _refused_by_nginx(exchange)
        if status:
            await refuse(exchange, status)
            return
        if exchange.upgrades_to_websocket:
            logger.warning(
                "%s: the stand-in does not proxy WebSockets; the handshake goes upstream as a plain request, as APISIX "
                "sends it for a route without enable_websocket",
                exchange.request_line,
            )
        exchange.add_forwarded_headers()
        exchange.global_rules = self._routes.global_rules
        exchange.route = await self._matched(exchange)
        try:
            refusal = await self._request_phases(exchange)
        except LuaError:
            refusal = Refusal(500)
        if refusal is not None:
            await exit_with(exchange, refusal.status, refusal.body)
            return
        if exchange.upstream is None or exchange.upstream.node is None:
            logger.error("%s (route %s): missing upstream configuration", exchange.request_line, exchange.route_id)
            await send_page(exchange, 503)
            return
        lists = [
            plugins
            for plugins in (exchange.global_rules, exchange.plugins)
            if _POST_RESP in plugins.ext and await runs(exchange, plugins, _POST_RESP)
        ]
        while lists:
            if await self._response_phase(exchange, lists.pop(0), lists):
                return
        await self._proxy(exchange)

    async def _matched(self, exchange: Exchange) -> Route | None:
        look = lookup(exchange)
        for route in self._routes.candidates(exchange.method, exchange.host, exchange.path):
            if await route.fits(exchange.remote_address, look):
                return route
        return None

    # --- request phases ---------------------------------------------------------------------------------------------

    async def _request_phases(self, exchange: Exchange) -> Refusal | None:
        # global rules first, in each phase (and, in the end, for nothing where there is no route)
        refusal = await self._rewrite(exchange, exchange.global_rules)
        if refusal is None and exchange.route is not None:
            exchange.plugins = exchange.route.plugins
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
        # the consumer's plugins come over the route's; those the route did not have run now (rewrite_in_consumer)
        theirs = exchange.consumer.plugins
        exchange.plugins = theirs.over(own)
        return await self._rewrite(
            exchange,
            replace(
                theirs,
                ext={name: conf for name, conf in theirs.ext.items() if name not in own},
                builtin={name: conf for name, conf in theirs.builtin.items() if name not in own},
            ),
        )

    async def _rewrite(self, exchange: Exchange, plugins: Plugins) -> Refusal | None:
        # response-rewrite has no part in this phase, so its filter is not asked before there is a response
        builtin = [(name, conf) for name, conf in plugins.builtin.items() if name != "response-rewrite"]
        names: list[tuple[int, str]] = [(_priority(name, conf), name) for name, conf in builtin]
        pre_req = plugins.ext.get("ext-plugin-pre-req")
        if pre_req is not None:
            priority = _PRE_REQ_PRIORITY if pre_req.priority is None else pre_req.priority
            names.append((priority, "ext-plugin-pre-req"))
        for _, name in sorted(names, key=lambda entry: -entry[0]):
            if not await runs(exchange, plugins, name):
                continue
            if name == "ext-plugin-pre-req":
                refusal = await self._ext(exchange, name, plugins)
            else:
                conf = plugins.builtin[name]
                refusal = rewrite(exchange, name, conf, self._routes.consumers)
                if refusal is not None:
                    refusal = with_error_response(refusal, conf.get("_meta", {}).get("error_response"))
            if refusal is not None:
                return refusal
        return None

    async def _ext(self, exchange: Exchange, phase: str, plugins: Plugins) -> Refusal | None:
        """Run a list of the request phases."""
        plugin = plugins.ext.get(phase)
        if plugin is None or not await runs(exchange, plugins, phase):
            return None
        try:
            refusal = await self._call(exchange, phase, plugins)
        except RunnerFailed:
            refusal = Refusal(503)
        return None if refusal is None else with_error_response(refusal, plugin.error_response)

    async def _call(self, exchange: Exchange, phase: str, plugins: Plugins) -> Refusal | None:
        of_global_rules = plugins is exchange.global_rules
        key = configuration_key(exchange, phase, self._version, of_global_rules=of_global_rules)
        return await call_runner(self.runner, exchange, phase, plugins.ext[phase], key, self.observe)

    # --- the upstream -----------------------------------------------------------------------------------------------

    async def _proxy(self, exchange: Exchange) -> None:
        """nginx's own proxying. Its request body is buffered whole, as nginx does unless told otherwise."""
        assert exchange.upstream is not None
        exchange.node = exchange.upstream.node
        body = await exchange.read_body()
        if exchange.length is not None and exchange.length != len(body):
            raise Breaks(f"hung or cut the request: Content-Length: {exchange.length} for {len(body)} bytes")
        if body and not exchange.has_body:
            logger.warning(
                "%s (route %s): a plugin has deleted Content-Length: the request goes on without its body, which nginx "
                "takes for the client's next request",
                exchange.request_line,
                exchange.route_id,
            )
        try:
            request = proxied_request(exchange)
        except BadUpstreamURI as exc:
            logger.error(
                "%s: no such upstream: apisix_backend%s", exchange.request_line, exchange.upstream_uri.decode("latin-1")
            )
            await send_page(exchange, exc.status)
            return
        started = False
        try:
            async with self.upstream.send(exchange, request) as response:
                started = True
                await send_upstream(exchange, response.status_code, response.headers.raw, chunks_of(response))
        except httpx2.TransportError as exc:
            logger.error("%s: the upstream failed: %s", exchange.request_line, str(exc) or type(exc).__name__)
            if started:
                # the head is out, so all that is left is to break the connection, as nginx does
                raise
            status = 504 if isinstance(exc, httpx2.TimeoutException) else 502
            tries = ", ".join([str(status)] * getattr(exc, "tries", 1))
            await send_page(exchange, status, upstream_status=tries.encode())

    async def _response_phase(self, exchange: Exchange, plugins: Plugins, further: list[Plugins]) -> bool:
        """post-resp: fetch the upstream's response, ask the runner, answer.

        Args:
            exchange: the request.
            plugins: that the list belongs to.
            further: that have such a list too.

        Returns:
            False: nothing was sent, so nginx proxies the request after all. Trap: that is a second request upstream,
            and happens whenever there is nothing to send: HEAD, 204, 304, a chunked body without a chunk, a body that
            was asked for and cannot be read.
        """
        try:
            async with self._fetched(exchange) as source:
                return await self._respond(exchange, source, plugins, further)
        except (FetchError, httpx2.TransportError) as exc:
            logger.error("%s: failed to request: %s", exchange.request_line, exc)
            refusal = with_error_response(Refusal(502), plugins.ext[_POST_RESP].error_response)
            await exit_with(exchange, refusal.status, refusal.body)
            return True

    @asynccontextmanager
    async def _fetched(self, exchange: Exchange) -> AsyncIterator[ResponseSource]:
        """The response that post-resp fetches for itself.

        Raises:
            Breaks: the upstream would wait for ever.
            FetchError, httpx2.TransportError: there is none.
        """
        assert exchange.upstream is not None
        exchange.node = exchange.upstream.node
        _check_fetch(exchange, await exchange.read_body())
        async with self.upstream.send(exchange, fetch_request(exchange), fetch=True) as response:
            headers = list(response.headers.raw)
            exchange.source = ResponseSource(response.status_code, headers, chunks_of(response))
            yield exchange.source

    async def _after_response(self, exchange: Exchange, lists: list[Plugins]) -> AsyncIterator[bytes]:
        """A further post-resp list runs although the client has its response already.

        Trap: the upstream is called once more for it, and the client's connection broken, because Lua cannot set
        headers any more.

        Raises:
            CutOff: as always, unless the call fails or there is no header to set.
        """
        length = exchange.response.content_length
        exchange.response = SentHeaders()
        for plugins in lists:
            try:
                async with self._fetched(exchange) as source:
                    answer = await self._call(exchange, _POST_RESP, plugins) or Refusal(0)
                    if length is not None:
                        raise CutOff(f"more bytes than Content-Length: {length}")
                    if answer.body is not None:
                        yield answer.body
                        return
                    async for chunk in _rest(exchange, source.chunks):
                        yield chunk
            except RunnerFailed:
                return
            except LuaError as exc:
                raise CutOff(f"{exc}: ext-plugin-post-resp is in a global rule and on the route") from exc
            except Breaks as exc:
                raise CutOff(f"APISIX would have {exc}") from exc
            except (FetchError, httpx2.TransportError) as exc:
                logger.error("%s: failed to request: %s", exchange.request_line, exc)
                return

    async def _respond(
        self, exchange: Exchange, source: ResponseSource, plugins: Plugins, further: list[Plugins]
    ) -> bool:
        """Ask the runner what to do with a fetched response, and do it. See `_response_phase`."""
        after = self._after_response(exchange, further) if further else None
        try:
            answer = await self._call(exchange, _POST_RESP, plugins) or Refusal(0)
        except RunnerFailed:
            # 503, yet with the upstream's body
            answer = Refusal(503)
        except LuaError:
            await send_page(exchange, 500)
            return True
        status = answer.status or source.status
        if answer.body is not None:
            refusal = with_error_response(Refusal(status, answer.body), plugins.ext[_POST_RESP].error_response)
            await exit_with(exchange, status, refusal.body)
            return True
        names = {name.lower() for name, _ in source.headers}
        chunked = b"transfer-encoding" in names
        if exchange.method == "HEAD" or source.status in (204, 304):
            return False
        if not source.asked and not chunked and b"content-length" in names and await source.ask() is None:
            # lua-resty-http reads a body of known length in one piece, so of one that is cut short nothing is sent
            await send_page(exchange, 502)
            return True
        if source.asked:
            if source.body is None or (chunked and not source.body):
                return False
            await send_generated(exchange, status, source.body, after=after)
            return True
        # An error before the first chunk is the caller's: 502.
        first = await anext(source.chunks, None)
        if first is None and chunked:
            # lua-resty-http gives one empty string for an empty body, but for a chunked one nothing
            return False
        await send_generated(exchange, status, first or b"", _rest(exchange, source.chunks), after)
        return True


async def _rest(exchange: Exchange, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks after the first one. What breaks off here ends the response as if it were whole, as in APISIX."""
    try:
        async for chunk in chunks:
            yield chunk
    except httpx2.TransportError as exc:
        logger.error("%s: read response failed: %s", exchange.request_line, exc)


def _priority(name: str, conf: Mapping[str, Any]) -> int:
    priority: int = conf.get("_meta", {}).get("priority", BUILTIN[name])
    return priority


def _too_large(lines: list[int]) -> int:
    """414, 494 or 0: whether the lines of a head fit nginx's buffers (``ngx_http_alloc_large_header_buffer``)."""
    size, used, buffers = _FIRST_BUFFER, 0, 0
    for number, line in enumerate(lines):
        if used + line > size:
            # no line is spread over two buffers
            size, used, buffers = _BUFFER, 0, buffers + 1
            if line > _BUFFER or buffers > _BUFFERS:
                return 494 if number else 414
        used += line
    return 0


def _refused_by_nginx(exchange: Exchange) -> int:
    """The status of nginx's refusal; 0: it does not refuse."""
    too_large = _too_large(exchange.head_lines)
    if too_large:
        return too_large
    counts = Counter(name.lower() for name, _ in exchange.headers.nginx)
    if any(counts[name] > 1 for name in _UNIQUE) or (not counts[b"host"] and exchange.http_version == "1.1"):
        return 400
    if exchange.chunked:
        if exchange.http_version == "1.0" or counts[b"content-length"]:
            return 400
        if exchange.headers.values(b"transfer-encoding")[0].lower() != b"chunked":
            return 501
    if not exchange.host or exchange.uri is None:
        return 400
    if exchange.request_method in ("TRACE", "CONNECT"):
        return 405
    return 0


def _check_fetch(exchange: Exchange, body: bytes) -> None:
    """Look whether the upstream can read the request of post-resp. Its headers are those of the Lua table.

    Raises:
        Breaks: it would wait for ever.
    """
    if exchange.rest:
        raise Breaks(exchange.taken_for_a_request)
    table = exchange.headers.table
    if b"transfer-encoding" in table:
        raise Breaks("left the upstream waiting: Transfer-Encoding: chunked, but the body is sent as it is")
    declared = table.get(b"content-length", [b"%d" % len(body)])[-1]
    if not declared.isdigit() or int(declared) > len(body):
        raise Breaks(f"left the upstream waiting: Content-Length: {declared.decode('latin-1')} for {len(body)} bytes")
    if int(declared) < len(body):
        logger.warning(
            "%s (route %s): a plugin has changed the body: ext-plugin-post-resp sends %d bytes under the old "
            "Content-Length: %d, and the upstream takes the rest for another request",
            exchange.request_line,
            exchange.route_id,
            len(body),
            int(declared),
        )


def _warn_of_two_lists(routes: Routes) -> None:
    if _POST_RESP not in routes.global_rules.ext:
        return
    for route in routes.routes:
        if _POST_RESP in route.plugins.ext:
            logger.warning(
                "route %s and a global rule both have ext-plugin-post-resp: APISIX then calls the upstream twice and "
                "cuts the client's response off, or passes over the route's list; keep one of the two",
                route.id,
            )
