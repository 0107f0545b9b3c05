"""The two requests that go upstream: the one that nginx's proxy module sends, and the one that post-resp makes."""

import re

from ..exchange import Exchange
from ..nginx.uri import escape_uri, raw
from . import Request, UpstreamError

__all__ = ["BadUpstreamURI", "FetchError", "fetch_request", "proxied_request"]

# nginx's proxy module replaces these, or leaves them out (ngx_http_proxy_headers, ngx_tpl.lua)
_REPLACED = frozenset(
    b"host connection content-length transfer-encoding te keep-alive expect upgrade x-real-ip x-forwarded-for".split()
)
# lua-resty-http names itself if the client has no User-Agent; its version is that of APISIX 3.18's rockspec
_RESTY_AGENT = b"lua-resty-http/0.17.2 (Lua) ngx_lua/10027"
# lua-resty-http refuses to send these (is_allowed_path and its kin), but not a path without a slash
_INVALID_IN_PATH = re.compile(rb"[\x00-\x20#<>?`]")
_INVALID_IN_QUERY = re.compile(rb"[\x00-\x20#<>`]")
_HEADER_KEY = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_INVALID_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class BadUpstreamURI(Exception):
    """A plugin wrote a URI that nginx cannot use.

    Args:
        status: What nginx answers.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class FetchError(UpstreamError):
    """lua-resty-http refuses to send the request."""


def _check_absolute(uri: bytes) -> None:
    """Check a URI without a slash at its beginning: nginx writes it behind the host ``apisix_backend``."""
    if uri.startswith((b"/", b"?")):
        return
    _, colon, port = re.split(rb"[/?]", uri, maxsplit=1)[0].partition(b":")
    valid_port = port.isdigit() and 0 < int(port) < 65536
    raise BadUpstreamURI(500 if colon and not valid_port else 502)


def _body(exchange: Exchange) -> bytes:
    # without a length nginx reads no body, so it sends none
    return (exchange.body.content or b"") if exchange.has_body else b""


def proxied_request(exchange: Exchange) -> Request:
    """Give the request that nginx proxies.

    Raises:
        BadUpstreamURI: A plugin wrote a URI that nginx cannot use.
    """
    outgoing, upstream, node = exchange.outgoing, exchange.upstream, exchange.node
    assert upstream is not None and node is not None
    if outgoing.uri:
        _check_absolute(outgoing.uri)
        target = b"/" + outgoing.uri if outgoing.uri.startswith(b"?") else outgoing.uri
    elif not outgoing.args_changed:
        # no plugin has changed it, so it goes as it came, with //, .., %2f and a fragment
        target = exchange.request.target
    else:
        # trap: nginx escapes only a path that came with an escape, whatever characters it has
        path = escape_uri(exchange.path) if exchange.request.escaped else exchange.path
        target = path + (b"?" + outgoing.args if outgoing.args else b"")
    host = outgoing.host
    if upstream.pass_host == "node":
        host = upstream.authority(node)
    elif upstream.pass_host == "rewrite":
        host = raw(upstream.upstream_host)
    address = exchange.request.remote[0].encode()
    body = _body(exchange)
    headers = [(b"Host", host)] if host else []
    headers.append((b"X-Real-IP", address))
    headers.append((b"X-Forwarded-For", b", ".join([*exchange.headers.values(b"x-forwarded-for"), address])))
    if exchange.has_body:
        headers.append((b"Content-Length", b"%d" % len(body)))
    headers += [item for item in exchange.headers.nginx if item[0].lower() not in _REPLACED]
    return Request(outgoing.method, target, headers, body, upstream, node)


def fetch_request(exchange: Exchange) -> Request:
    """Give the request that post-resp makes (``get_response``, lua-resty-http).

    Raises:
        FetchError: lua-resty-http refuses the path, which is sent as it is, decoded; or the query, or a header.
    """
    outgoing, upstream, node = exchange.outgoing, exchange.upstream, exchange.node
    assert upstream is not None and node is not None
    path, question, query = outgoing.uri.partition(b"?") if outgoing.uri else (exchange.path, b"", b"")
    if not question:
        query = outgoing.args or b""
    if query and not query.startswith(b"?"):
        query = b"?" + query
    if _INVALID_IN_PATH.search(path):
        raise FetchError("invalid characters found in path")
    if _INVALID_IN_QUERY.search(query):
        raise FetchError("invalid characters found in query")
    body = _body(exchange)
    # the Lua table: lower-case names, hop-by-hop headers too, no X-Real-IP, no X-Forwarded-For
    table = exchange.headers.table
    headers = [(name, value) for name, values in table.items() for value in values]
    for name, value in headers:
        if not _HEADER_KEY.fullmatch(name):
            raise FetchError("invalid characters found in header key")
        if _INVALID_IN_VALUE.search(value):
            raise FetchError("invalid characters found in header value")
    unframed = b"content-length" not in table and b"transfer-encoding" not in table
    if unframed and (body or outgoing.method in ("POST", "PUT", "PATCH")):
        headers.append((b"Content-Length", b"%d" % len(body)))
    if b"host" not in table:
        headers.append((b"Host", upstream.authority(node)))
    if b"user-agent" not in table:
        headers.append((b"User-Agent", _RESTY_AGENT))
    return Request(outgoing.method, path + query, headers, body, upstream, node, fetch=True)
