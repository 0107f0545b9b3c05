"""A request of a client and its response: what APISIX keeps of them in ``api_ctx`` and nginx in ``r``."""

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from .nginx.headers import RequestHeaders, ResponseHeaders
from .nginx.request import ClientRequest
from .nginx.uri import Args, encode_args, parse_args
from .routes.expressions import Lookup
from .routes.route import Consumer, Node, Plugins, Route, Upstream

if TYPE_CHECKING:
    from .upstream import Response

__all__ = ["ActivePlugins", "Breaks", "ClientGone", "CutOff", "Exchange"]

logger = logging.getLogger("asgi_bridge.gateway")


class ClientGone(Exception):
    """The client went away before its request was whole."""


class Breaks(Exception):
    """APISIX would hang here, or break a connection. The client gets 502, and the log says what APISIX would do.

    Args:
        what: What APISIX would have done, such as "closed the connection".
    """


class CutOff(Exception):
    """APISIX breaks off a response that has begun. The gateway breaks the client's connection, as APISIX does."""


class RequestBody:
    """The body of a request, as nginx reads and keeps it.

    Args:
        request: Says how long the body is.
        receive: Of the ASGI call.

    Attributes:
        length: Number of bytes that nginx reads from the client and sends upstream (``content_length_n``); None:
            unknown.
        content: The body, as read or as a plugin replaced it; None: it has not been read.
        replaced: A plugin has replaced the body.
        unread: Number of bytes that nginx leaves unread.
    """

    def __init__(self, request: ClientRequest, receive: Callable[[], Awaitable[Any]]) -> None:
        self._chunked = request.chunked
        self._receive = receive
        self.length = request.headers.content_length
        self.content: bytes | None = None
        self.replaced = False
        self.unread = 0

    async def read(self) -> bytes:
        """Give the whole body, which nginx buffers before it goes on.

        Raises:
            Breaks: A plugin has changed Content-Length, which says how much nginx reads.
        """
        body = await self.buffer()
        if self.unread and not self.replaced:
            raise Breaks(self.what_becomes_of_the_rest)
        return body

    @property
    def what_becomes_of_the_rest(self) -> str:
        """What nginx does with the `unread` bytes, for people."""
        return (
            f"taken {self.unread} bytes of the body for the client's next request, for a plugin made Content-Length "
            "smaller before the body was read"
        )

    async def buffer(self) -> bytes:
        """Read the body, even if it is longer than the length that a plugin has set."""
        if self.content is not None:
            return self.content
        parts: list[bytes] = []
        more = True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        self.content = b"".join(parts)
        if self._chunked:
            self.length = len(self.content)
        elif self.length is not None and self.length > len(self.content):
            raise Breaks(
                f"left the client waiting: a plugin set Content-Length: {self.length} before the body of "
                f"{len(self.content)} bytes was read"
            )
        elif self.length is not None:
            self.unread = len(self.content) - self.length
        return self.content

    async def while_client_waits(self, work: Coroutine[Any, Any, None]) -> None:
        """Do some work until the client goes away, so that nobody reads the upstream in vain.

        Raises:
            ClientGone: The client went away first.
        """
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientGone
            working.result()
        finally:
            for task in (working, gone):
                task.cancel()
            await asyncio.wait({working, gone})

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


class Outgoing:
    """Method, URI and host of the request to the upstream, as plugins have made them.

    Attributes:
        method: The request's.
        host: The Host header (``$upstream_host``).
        uri: Path and query that a plugin has written (``$upstream_uri``); empty: none has.
        args: The query (``$args``); None: there is none.
        args_changed: A plugin has set the query. Until then nginx sends the target upstream as the client wrote it.
    """

    def __init__(self, request: ClientRequest) -> None:
        self.method = request.method
        self.host = request.http_host or b""
        self.uri = b""
        self.args: bytes | None = request.args or None
        self.args_changed = False
        self._parsed: Args | None = None

    def uri_args(self) -> Args:
        """``core.request.get_uri_args``: decoded, and cached until the query changes."""
        if self._parsed is None:
            self._parsed = parse_args(self.args or b"")
        return self._parsed

    def set_args(self, args: Args | bytes) -> None:
        """``core.request.set_uri_args``."""
        self.args = args if isinstance(args, bytes) else encode_args(args)
        self.args_changed = True
        self._parsed = None


class ActivePlugins:
    """The plugins of all global rules, or those of the route, and which of them run for this request.

    Args:
        plugins: As the routes have them.
    """

    def __init__(self, plugins: Plugins | None = None) -> None:
        self.plugins = plugins or Plugins()
        self._runs: dict[str, bool] = {}

    async def runs(self, name: str, lookup: Lookup) -> bool:
        """Whether a plugin runs: its ``_meta.filter`` holds (``meta_filter`` in plugin.lua).

        The first answer counts for the rest of the request.
        """
        expression = self.plugins.filters.get(name)
        if expression is None:
            return True
        if name not in self._runs:
            self._runs[name] = await expression.holds(lookup)
        return self._runs[name]

    async def builtin(self, lookup: Lookup) -> dict[str, Mapping[str, Any]]:
        """Give the emulated plugins that run: name and configuration."""
        return {name: conf for name, conf in self.plugins.builtin.items() if await self.runs(name, lookup)}


class Exchange:
    """A request on its way through the gateway, and what has been made of it.

    Args:
        scope: An ASGI scope of type http; ``raw_path``, ``asgi``, ``client`` and ``server`` may be missing.
        receive, send: Of the ASGI call.

    Attributes:
        request: What the client sent.
        body: The body of the request.
        headers: Those of the request, as plugins have made them.
        outgoing: Method, URI and host, as plugins have made them.
        response: The headers that plugins have put on the response.
        route, upstream: None: there is none, or the request has not got so far.
        node: The server that the balancer has picked; None: not yet.
        global_rules, plugins: The plugins that may run.
        consumer: Whom key-auth has found.
        plugin_request_id: The id that the plugin request-id puts on the response.
        fetched: The response that post-resp has fetched.
        variables: Values of the variables that have been read, by name.
    """

    def __init__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]):
        self.request = ClientRequest(scope)
        self.body = RequestBody(self.request, receive)
        self.send = send
        self.headers = RequestHeaders(self.request.headers.nginx)
        self.outgoing = Outgoing(self.request)
        self.response = ResponseHeaders()
        self.route: Route | None = None
        self.upstream: Upstream | None = None
        self.node: Node | None = None
        self.global_rules = ActivePlugins()
        self.plugins = ActivePlugins()
        self.consumer: Consumer | None = None
        self.plugin_request_id: bytes | None = None
        self.fetched: Response | None = None
        self.variables: dict[str, bytes] = {}

    def __str__(self) -> str:
        """Request line and route, for people."""
        return f"{self.request.line} (route {self.route_id})"

    @property
    def route_id(self) -> str:
        """The route's id, for people; global rules run without a route too."""
        return "?" if self.route is None else self.route.id

    @property
    def path(self) -> bytes:
        """``$uri``: decoded and normalised."""
        return self.request.path or b"/"

    @property
    def client_address(self) -> bytes:
        """The client's address as 4 or 16 bytes."""
        return ipaddress.ip_address(self.request.remote[0]).packed

    def begin_anew(self) -> None:
        """Forget what plugins have put on the response. None of them runs any more."""
        self.response = ResponseHeaders()
        self.global_rules = self.plugins = ActivePlugins()

    def add_forwarded_headers(self) -> None:
        """Replace the client's forwarding headers, as APISIX 3.18 does unless the client is a trusted proxy."""
        self.headers.set(b"Forwarded", None)
        self.headers.set(b"X-Forwarded-Proto", self.request.scheme.encode())
        self.headers.set(b"X-Forwarded-Host", self.request.forwarded_host)
        self.headers.set(b"X-Forwarded-Port", self.request.forwarded_port)

    def set_header(self, name: bytes, value: bytes | None) -> None:
        """``core.request.set_header``: set a header in nginx's list and in the Lua table, and forget its variable.

        Trap: APISIX forgets the variable with the header's dashes, ``http_x-a``, so ``http_x_a`` stays as it was. nginx
        keeps ``http_referer``, because the format of the access log has it.
        """
        self.headers.set(name, value)
        if name.lower() == b"content-length":
            self.body.length = self.headers.content_length
        self._forget(name)

    def add_header(self, name: bytes, value: bytes) -> None:
        """``core.request.add_header``: as `set_header`, and earlier headers of the name stay."""
        self.headers.add(name, value)
        self._forget(name)

    def _forget(self, name: bytes) -> None:
        if name.lower() != b"referer":
            self.variables.pop("http_" + name.lower().decode("latin-1"), None)

    @property
    def has_body(self) -> bool:
        """Whether a body is announced, even an empty one. Trap: a plugin that deletes Content-Length takes it away."""
        return self.request.chunked or bool(self.headers.values(b"content-length"))

    async def replace_body(self, body: bytes) -> None:
        """Read the body, as APISIX does before a Rewrite, and put another one in its place.

        Raises:
            Breaks: The read would not end.
        """
        await self.body.buffer()
        if self.body.unread:
            logger.warning("%s: APISIX would have %s", self.request.line, self.body.what_becomes_of_the_rest)
        self.set_body(body)

    def set_body(self, body: bytes) -> None:
        """``ngx.req.set_body_data``: replace the body, and Content-Length in nginx's list, not in the Lua table."""
        self.body.content = body
        self.body.replaced = True
        self.body.length = len(body)
        kept = [item for item in self.headers.nginx if item[0].lower() not in (b"transfer-encoding", b"content-length")]
        self.headers.nginx = [*kept, (b"Content-Length", str(len(body)).encode())]
