"""What goes upstream: the request as nginx's proxy module sends it, and as post-resp fetches for itself."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from asgi_bridge.gateway.exchange import Exchange
from asgi_bridge.gateway.nginx.headers import Header
from asgi_bridge.gateway.nginx.uri import escape_uri, raw
from asgi_bridge.gateway.upstream.network import NetworkTransport

__all__ = ["BadUpstreamURI", "FetchError", "UpstreamClient", "chunks_of", "fetch_request", "proxied_request"]

# nginx's proxy module: these of the client's are replaced or left out (ngx_http_proxy_headers, ngx_tpl.lua)
_REPLACED = frozenset(
    b"host connection content-length transfer-encoding te keep-alive expect upgrade x-real-ip x-forwarded-for".split()
)
# lua-resty-http says who it is when the client did not; its version is that of APISIX 3.18's rockspec
_RESTY_AGENT = b"lua-resty-http/0.17.2 (Lua) ngx_lua/10027"
# what lua-resty-http refuses to send (is_allowed_path and its kin); a path without a slash it does send
_INVALID_IN_PATH = re.compile(rb"[\x00-\x20#<>?`]")
_INVALID_IN_QUERY = re.compile(rb"[\x00-\x20#<>`]")
_HEADER_KEY = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_INVALID_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class BadUpstreamURI(Exception):
    """The URI that a plugin wrote makes no request.

    Args:
        status: what nginx answers.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class FetchError(Exception):
    """post-resp's own fetch cannot be made: 502."""


def _check_absolute(uri: bytes) -> None:
    """nginx puts scheme and ``apisix_backend`` before the URI, so one without a slash becomes part of the host."""
    if uri.startswith((b"/", b"?")):
        return
    _, colon, port = re.split(rb"[/?]", uri, maxsplit=1)[0].partition(b":")
    valid_port = port.isdigit() and 0 < int(port) < 65536
    raise BadUpstreamURI(500 if colon and not valid_port else 502)


def _body(exchange: Exchange) -> bytes:
    # without a length nginx reads no body, so there is none to send
    return (exchange.body or b"") if exchange.has_body else b""


def proxied_request(exchange: Exchange) -> tuple[str, bytes, list[Header], bytes]:
    """Method, target, headers and body of the request that nginx proxies.

    Raises:
        BadUpstreamURI: a plugin wrote a URI that nginx cannot use.
    """
    if exchange.upstream_uri:
        target = exchange.upstream_uri
        _check_absolute(target)
        if target.startswith(b"?"):
            target = b"/" + target
    elif exchange.raw_target_valid:
        # nobody touched it, so it goes as it came: //, .., %2f and a fragment too
        target = exchange.target
    else:
        # trap: a path that came without an escape is sent without one, whatever characters it has
        path = escape_uri(exchange.path) if exchange.quoted else exchange.path
        target = path + (b"?" + exchange.args if exchange.args else b"")
    assert exchange.upstream is not None and exchange.node is not None
    host = exchange.upstream_host
    if exchange.upstream.pass_host == "node":
        host = exchange.upstream.authority(exchange.node)
    elif exchange.upstream.pass_host == "rewrite":
        host = raw(exchange.upstream.upstream_host)
    address = exchange.remote_address.encode()
    forwarded_for = exchange.headers.values(b"x-forwarded-for")
    body = _body(exchange)
    headers: list[Header] = [(b"Host", host)] if host else []
    headers.append((b"X-Real-IP", address))
    headers.append((b"X-Forwarded-For", b", ".join([*forwarded_for, address])))
    if exchange.has_body:
        headers.append((b"Content-Length", str(len(body)).encode()))
    headers += [item for item in exchange.headers.nginx if item[0].lower() not in _REPLACED]
    return exchange.method, target, headers, body


def fetch_request(exchange: Exchange) -> tuple[str, bytes, list[Header], bytes]:
    """Method, target, headers and body of the request that post-resp makes (``get_response``, lua-resty-http).

    Raises:
        FetchError: lua-resty-http refuses the path, which is sent as it is, decoded; or the query, or a header.
    """
    path, question, query = (exchange.upstream_uri or exchange.path).partition(b"?")
    if not exchange.upstream_uri:
        path, question = exchange.path, b""
    if not question:
        query = exchange.args or b""
    if query and not query.startswith(b"?"):
        query = b"?" + query
    if _INVALID_IN_PATH.search(path):
        raise FetchError("invalid characters found in path")
    if _INVALID_IN_QUERY.search(query):
        raise FetchError("invalid characters found in query")
    body = _body(exchange)
    # The Lua table, so: lower-case names, hop-by-hop headers too, no X-Real-IP, no X-Forwarded-For
    headers = [(name, value) for name, values in exchange.headers.table.items() for value in values]
    for name, value in headers:
        if not _HEADER_KEY.fullmatch(name):
            raise FetchError("invalid characters found in header key")
        if _INVALID_IN_VALUE.search(value):
            raise FetchError("invalid characters found in header value")
    names = set(exchange.headers.table)
    unframed = b"content-length" not in names and b"transfer-encoding" not in names
    if unframed and (body or exchange.method in ("POST", "PUT", "PATCH")):
        headers.append((b"Content-Length", str(len(body)).encode()))
    if b"host" not in names:
        assert exchange.upstream is not None and exchange.node is not None
        headers.append((b"Host", exchange.upstream.authority(exchange.node)))
    if b"user-agent" not in names:
        headers.append((b"User-Agent", _RESTY_AGENT))
    return exchange.method, path + query, headers, body


async def chunks_of(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The body of a response as it came: not decoded, and also of one that a transport has read already."""
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)
    async for chunk in stream:
        yield chunk


class _Whole(httpx2.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._body:
            yield self._body


class UpstreamClient:
    """The way to the upstream.

    Args:
        transport: None: over the network.
    """

    def __init__(self, transport: httpx2.AsyncBaseTransport | None) -> None:
        self.transport = NetworkTransport() if transport is None else transport

    def start(self) -> None:
        """Begin to keep idle connections."""
        if isinstance(self.transport, NetworkTransport):
            self.transport.start()

    async def stop(self) -> None:
        """Close them."""
        await self.transport.aclose()

    @asynccontextmanager
    async def send(
        self, exchange: Exchange, request: tuple[str, bytes, list[Header], bytes], *, fetch: bool = False
    ) -> AsyncIterator[httpx2.Response]:
        """Send a request to the exchange's node; the response's body is still to be read.

        Args:
            exchange: the request of the client.
            request: what to send.
            fetch: it is post-resp's own: over a connection of its own, and with a look at the upstream's certificate.

        Raises:
            httpx2.TransportError: there is no answer.
        """
        method, target, headers, body = request
        upstream, node = exchange.upstream, exchange.node
        assert upstream is not None and node is not None
        extensions: dict[str, Any] = {
            "target": target,
            "keep": not fetch and not upstream.client_cert,
            "verify": fetch,
            "timeout": {
                "connect": upstream.connect,
                "read": upstream.read,
                "write": upstream.send,
                "pool": upstream.connect,
            },
        }
        if upstream.client_cert and not fetch:
            # ext-plugin-post-resp's own fetch shows none
            extensions["certificate"] = upstream.client_cert, upstream.client_key
        host = f"[{node.host}]" if ":" in node.host else node.host
        outgoing = httpx2.Request(
            method,
            f"{upstream.scheme}://{host}:{node.port}/",
            headers=headers,
            stream=_Whole(body),
            extensions=extensions,
        )
        response = await self.transport.handle_async_request(outgoing)
        try:
            yield response
        finally:
            await response.aclose()
