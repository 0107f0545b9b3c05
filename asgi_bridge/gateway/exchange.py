"""One request of a client on its way through the gateway: what APISIX keeps in ``api_ctx`` and nginx in ``r``."""

import asyncio
import ipaddress
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import httpx2

from asgi_bridge.gateway.nginx.headers import Header, RequestHeaders, ResponseHeaders
from asgi_bridge.gateway.nginx.uri import (
    Args,
    encode_args,
    escape_uri,
    host_name,
    normalise_path,
    parse_args,
    split_authority,
    split_target,
)
from asgi_bridge.gateway.routes.route import Consumer, Node, Plugins, Route, Upstream

__all__ = ["TARGET", "Breaks", "ClientGone", "CutOff", "Exchange", "ResponseSource", "target_of"]

logger = logging.getLogger("asgi_bridge.gateway")

# nginx drops other names (ignore_invalid_headers); APISIX turns underscores_in_headers on
_NAME_CHARACTERS = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_")
# nginx_config.http.real_ip_from of APISIX's defaults
_TRUSTED = frozenset({"127.0.0.1"})
_PORT_OF_HOST = re.compile(rb":([0-9]+)$")
_ADDRESS_AND_PORT = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]+)")


TARGET = "asgi_bridge.target"
"""The ASGI extension that holds the request target as the client wrote it; `asgi_bridge.gateway.server` gives it.

An ASGI scope cannot tell ``/x?`` from ``/x``. Without the extension the target is made of path and query.
"""


class ClientGone(Exception):
    """The client went away before its request was whole."""


class Breaks(Exception):
    """APISIX would hang here, or break a connection. The client gets 502, and the log says what APISIX would do.

    Args:
        what: it would have done: "closed the connection".
    """


class CutOff(Exception):
    """APISIX breaks a response off that has begun. All that is left is to break the client's connection, as it does."""


class ResponseSource:
    """The response that post-resp has fetched, and that ExtraInfo RespBody reads.

    Args:
        status, headers: the upstream's.
        chunks: reads the body, once.
    """

    def __init__(self, status: int, headers: list[Header], chunks: AsyncIterator[bytes]) -> None:
        self.status = status
        self.headers = headers
        self.chunks = chunks
        self.asked = False
        self.body: bytes | None = None

    async def ask(self) -> bytes | None:
        """RespBody: the whole body; None: it cannot be read.

        Trap: the second one gets nothing, the reader in Lua has come to its end.
        """
        if self.asked:
            return None
        self.asked = True
        try:
            self.body = b"".join([chunk async for chunk in self.chunks])
        except httpx2.TransportError as exc:
            logger.error("read response failed: %s", exc)
        return self.body


def target_of(scope: Any) -> bytes:
    """Give the request target of a scope of type http, as the client wrote it if that is known (`TARGET`)."""
    whole: bytes | None = (scope.get("extensions") or {}).get(TARGET)
    if whole is None:
        query: bytes = scope.get("query_string", b"")
        whole = (scope.get("raw_path") or escape_uri(scope["path"].encode())) + (b"?" + query if query else b"")
    return whole


def _length(headers: RequestHeaders) -> int | None:
    values = headers.values(b"content-length")
    return int(values[-1]) if values and values[-1].isdigit() else None


def _address(client: Any) -> str:
    # Starlette's TestClient has ("testclient", 50000), a unix socket nothing
    try:
        return str(ipaddress.ip_address(client[0]))
    except (TypeError, ValueError, IndexError):
        return "127.0.0.1"


class Exchange:
    """The state of one request.

    Args:
        scope: an ASGI scope of type http; ``raw_path``, ``asgi``, ``client`` and ``server`` may be missing.
        receive, send: of the ASGI call.
    """

    def __init__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]):
        self.receive = receive
        self.send = send
        self.started = time.time()
        self.clock = time.monotonic()
        self.method: str = scope["method"]
        self.request_method = self.method
        self.scheme: str = scope.get("scheme", "http")
        self.http_version: str = scope.get("http_version", "1.1")
        authority, self.target = split_authority(target_of(scope))
        path, self.original_args = split_target(self.target)
        # $args: there is none where the query is empty
        self.args: bytes | None = self.original_args or None
        self.uri = normalise_path(path)
        # nginx's quoted_uri: only then it escapes the path when it puts a target together
        self.quoted = b"%" in path
        # nginx sends the raw target upstream until somebody has changed the query
        self.raw_target_valid = True
        all_headers: list[Header] = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        headers_lines = [len(name) + len(value) + 4 for name, value in all_headers]
        self.head_lines = [len(self.method) + len(self.target) + 12, *headers_lines, 2]
        self.head_size = sum(self.head_lines)
        # httptools leaves the spaces behind a value; nginx takes them off (ngx_http_parse_header_line)
        self.headers = RequestHeaders(
            (name, value.rstrip(b" ")) for name, value in all_headers if name and _NAME_CHARACTERS.issuperset(name)
        )
        # what nginx has seen, whatever a plugin makes of the header later
        self.chunked = bool(self.headers.values(b"transfer-encoding"))
        # content_length_n: so many bytes nginx reads of the client, and sends upstream
        self.length = _length(self.headers)
        hosts = self.headers.values(b"host")
        self.hosts = len(hosts)
        self.http_host = hosts[0] if hosts else None
        # the one in the request line counts; empty: nginx refuses it
        named = authority if authority is not None else self.http_host
        self.host = b"_" if named is None else host_name(named) or b""
        server = scope.get("server") or ("127.0.0.1", None)
        self.server_address = _address(server)
        self.server_port: int = server[1] or (443 if self.scheme == "https" else 80)
        client = scope.get("client")
        self.client_address = _address(client)
        self.client_port: int = client[1] if client is not None and len(client) > 1 and client[1] else 0
        self.remote_address, self.remote_port = self._real_address()
        connection = b",".join(self.headers.values(b"connection")).lower()
        self.closing = b"close" in connection or (self.http_version == "1.0" and b"keep-alive" not in connection)
        # what Lua has made of it
        self.upstream_uri = b""
        self.upstream_host = self.http_host or b""
        self.request_id = secrets.token_hex(16)
        self.plugin_request_id: bytes | None = None
        self.response = ResponseHeaders()
        self.route: Route | None = None
        self.plugins = Plugins()
        self.global_rules = Plugins()
        self.upstream: Upstream | None = None
        self.node: Node | None = None
        self.consumer: Consumer | None = None
        self.source: ResponseSource | None = None
        self.variables: dict[str, bytes] = {}
        # what filters.runs has found: in global rules, with a consumer, name of the plugin
        self.filtered: dict[tuple[bool, bool, str], bool] = {}
        self.cookies: dict[bytes, bytes] | None = None
        self._args: Args | None = None
        self.body: bytes | None = None
        self.body_changed = False
        # so many bytes of the body nginx leaves unread
        self.rest = 0

    def _real_address(self) -> tuple[str, int]:
        """``X-Real-IP`` of a trusted client (nginx's realip module): of the first such header the last address.

        Returns:
            The address and its port, which is 0 where there is none.
        """
        values = self.headers.values(b"x-real-ip")
        if self.client_address in _TRUSTED and values:
            text = values[0].strip(b" ,").replace(b",", b" ").rpartition(b" ")[2].decode("latin-1")
            host, port = text, "0"
            with_port = _ADDRESS_AND_PORT.fullmatch(text)
            if with_port is not None and 0 < int(with_port[3]) < 65536:
                host, port = with_port[1] or with_port[2], with_port[3]
            try:
                return str(ipaddress.ip_address(host)), int(port)
            except ValueError:
                pass
        return self.client_address, self.client_port

    def add_forwarded_headers(self) -> None:
        """What APISIX 3.18 puts on each request whose client is no trusted proxy, in place of the client's own."""
        self.headers.set(b"Forwarded", None)
        self.headers.set(b"X-Forwarded-Proto", self.scheme.encode())
        self.headers.set(b"X-Forwarded-Host", self.forwarded_host)
        self.headers.set(b"X-Forwarded-Port", self.forwarded_port)

    @property
    def forwarded_host(self) -> bytes:
        """The client's Host as it wrote it, with its port; ``$host`` where there is none (ngx_tpl.lua)."""
        return self.http_host or self.host

    @property
    def forwarded_port(self) -> bytes:
        """The port in the client's Host; the listener's where there is none (ngx_tpl.lua)."""
        named = _PORT_OF_HOST.search(self.http_host or b"")
        return str(self.server_port).encode() if named is None else named[1]

    @property
    def upgrades_to_websocket(self) -> bool:
        """The client asks for a WebSocket."""
        connection = b",".join(self.headers.values(b"connection")).lower()
        return b"upgrade" in connection and b"websocket" in [v.lower() for v in self.headers.values(b"upgrade")]

    @property
    def path(self) -> bytes:
        """``$uri``: decoded and normalised."""
        return self.uri or b"/"

    @property
    def request_line(self) -> str:
        """Method and target, for people."""
        return f"{self.request_method} {self.target.decode('latin-1')}"

    @property
    def route_id(self) -> str:
        """The route's id, for people; global rules run without a route too."""
        return "?" if self.route is None else self.route.id

    @property
    def src_ip(self) -> bytes:
        """The client's address as 4 or 16 bytes."""
        return ipaddress.ip_address(self.remote_address).packed

    def uri_args(self) -> Args:
        """``core.request.get_uri_args``: decoded, and cached until the query changes."""
        if self._args is None:
            self._args = parse_args(self.args or b"")
        return self._args

    def set_args(self, args: Args | bytes) -> None:
        """``core.request.set_uri_args``."""
        self.args = args if isinstance(args, bytes) else encode_args(args)
        self._args = None
        self.raw_target_valid = False

    def set_header(self, name: bytes, value: bytes | None) -> None:
        """``core.request.set_header``: in nginx's list and in the table, and the variable is read afresh.

        Trap: its name is made with the header's dashes, ``http_x-a``, so ``http_x_a`` stays as it was. nginx itself
        keeps ``http_referer``, because the format of the access log has it.
        """
        self.headers.set(name, value)
        if name.lower() == b"content-length":
            self.length = _length(self.headers)
        self._forget(name)

    def add_header(self, name: bytes, value: bytes) -> None:
        """``core.request.add_header``: as `set_header`, beside what is there."""
        self.headers.add(name, value)
        self._forget(name)

    def _forget(self, name: bytes) -> None:
        if name.lower() != b"referer":
            self.variables.pop("http_" + name.lower().decode("latin-1"), None)

    @property
    def has_body(self) -> bool:
        """A body is announced, be it an empty one. Trap: a plugin that deletes Content-Length takes it away."""
        return self.chunked or bool(self.headers.values(b"content-length"))

    async def read_body(self) -> bytes:
        """Give the whole request body, as nginx buffers it before it goes on.

        Raises:
            Breaks: a plugin has changed Content-Length, which says how much nginx reads.
        """
        body = await self._buffered()
        if self.rest and not self.body_changed:
            raise Breaks(self.taken_for_a_request)
        return body

    @property
    def taken_for_a_request(self) -> str:
        """What nginx does with the `rest` of the body, for people."""
        return (
            f"taken {self.rest} bytes of the body for the client's next request, for a plugin made Content-Length "
            "smaller before the body was read"
        )

    async def _buffered(self) -> bytes:
        if self.body is None:
            parts: list[bytes] = []
            more = True
            while more:
                message = await self.receive()
                if message["type"] != "http.request":
                    raise ClientGone
                parts.append(message.get("body", b""))
                more = message.get("more_body", False)
            self.body = b"".join(parts)
            if self.chunked:
                self.length = len(self.body)
            elif self.length is not None and self.length > len(self.body):
                raise Breaks(
                    f"left the client waiting: a plugin set Content-Length: {self.length} before the body of "
                    f"{len(self.body)} bytes was read"
                )
            elif self.length is not None:
                self.rest = len(self.body) - self.length
        return self.body

    async def while_there(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something for the client; end it when the client goes away, so that the upstream is not read for nobody.

        Raises:
            ClientGone: the client went away first.
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
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def replace_body(self, body: bytes) -> None:
        """Read the body, as APISIX does before a Rewrite, and put another one in its place.

        Raises:
            Breaks: the read would not end.
        """
        await self._buffered()
        if self.rest:
            logger.warning("%s: APISIX would have %s", self.request_line, self.taken_for_a_request)
        self.set_body(body)

    def set_body(self, body: bytes) -> None:
        """``ngx.req.set_body_data``: nginx's Content-Length follows, the Lua table does not notice."""
        self.body = body
        self.body_changed = True
        self.length = len(body)
        kept = [item for item in self.headers.nginx if item[0].lower() not in (b"transfer-encoding", b"content-length")]
        self.headers.nginx = [*kept, (b"Content-Length", str(len(body)).encode())]
