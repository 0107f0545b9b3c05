"""What the client gets: status, headers and body as nginx's filters finish them.

Filters, in their order: not-modified, APISIX's header filter (plugins, ``Server``), charset, chunked, header.
"""

import logging
import re
from collections.abc import AsyncIterable, Mapping
from email.utils import formatdate
from typing import Any

from asgi_bridge.gateway.builtin import header_operations
from asgi_bridge.gateway.builtin.filters import running
from asgi_bridge.gateway.conditions import status_after_conditions
from asgi_bridge.gateway.exchange import Exchange
from asgi_bridge.gateway.nginx.headers import Header, ResponseHeaders
from asgi_bridge.gateway.nginx.pages import CLOSING, VARIANTS_OF_400, page
from asgi_bridge.gateway.nginx.uri import raw
from asgi_bridge.gateway.routes.route import Plugins

__all__ = ["SERVER", "exit_with", "instead", "refuse", "send_generated", "send_page", "send_upstream"]

logger = logging.getLogger("asgi_bridge.gateway")

SERVER = b"APISIX/3.18.0"
DEFAULT_TYPE = b"text/plain"

# charset_types of nginx
_CHARSET_TYPES = frozenset(
    {
        b"text/html",
        b"text/xml",
        b"text/plain",
        b"text/vnd.wap.wml",
        b"application/javascript",
        b"application/rss+xml",
    }
)
_CLOSED_WITHOUT_A_BYTE = frozenset({408, 444, 499})


def _with_charset(status: int, content_type: bytes) -> bytes:
    """nginx's charset filter, set to utf-8 by APISIX. It leaves the redirects 301 and 302 alone."""
    if status not in (301, 302) and content_type.lower() in _CHARSET_TYPES:
        return content_type + b"; charset=utf-8"
    return content_type


def _bodiless(exchange: Exchange, status: int) -> bool:
    return exchange.request_method == "HEAD" or status in (204, 304)


class _Head:
    """Status and headers, until they are sent.

    Args:
        status: plugins may change it.
        content_type: without the charset, which comes last; None or empty: there is none.
    """

    def __init__(self, status: int, content_type: bytes | None) -> None:
        self.status = status
        self.content_type = content_type
        self.front: list[Header] = []
        self.items: list[Header] = []
        self.close = False

    def headers(self, exchange: Exchange) -> list[Header]:
        front = list(self.front)
        if self.content_type:
            front.insert(0, (b"Content-Type", _with_charset(self.status, self.content_type)))
        if exchange.http_version.startswith("1"):
            closing = self.close or exchange.closing
            if exchange.http_version == "1.0" and not _bodiless(exchange, self.status):
                # without a length the end of the connection is the body's (ngx_http_chunked_filter_module.c)
                closing = closing or all(name.lower() != b"content-length" for name, _ in self.front)
            front.append((b"Connection", b"close" if closing else b"keep-alive"))
        # A server under ASGI may refuse blanks around a value (h11), and no client sees them.
        return [(name, value.strip(b" \t")) for name, value in (*front, *self.items)]


async def _filtered(exchange: Exchange, head: _Head, upstream_status: bytes | None = None) -> bytes | None:
    """APISIX's header filter: its own name, the upstream's failure, then the emulated plugins.

    Returns:
        The new body, if there is one.
    """
    headers = ResponseHeaders()
    headers.items, headers.content_type = head.items, head.content_type
    headers.set(b"Server", SERVER)
    if upstream_status is not None:
        # in place of a plugin's (set_resp_upstream_status)
        headers.set(b"X-APISIX-Upstream-Status", upstream_status)
    body = None
    for plugins in (exchange.global_rules, exchange.plugins):
        builtin = await running(exchange, plugins, head.status, headers.items)
        replaced = _filter(exchange, head, headers, builtin)
        body = body if replaced is None else replaced
    head.items, head.content_type = headers.items, headers.content_type
    return body


async def _rewritten(exchange: Exchange, status: int) -> int:
    """The status that response-rewrite leaves of one."""
    for plugins in (exchange.global_rules, exchange.plugins):
        builtin = await running(exchange, plugins, status)
        status = builtin.get("response-rewrite", {}).get("status_code", status)
    return status


def _filter(
    exchange: Exchange, head: _Head, headers: ResponseHeaders, builtin: Mapping[str, Mapping[str, Any]]
) -> bytes | None:
    # what the rewrite phase has found or made, unless the response has an id already
    if "request-id" in builtin and headers.get(b"x-request-id") is None:
        headers.set(b"X-Request-Id", exchange.plugin_request_id)
    if "cors" in builtin:
        headers.set(b"Access-Control-Allow-Origin", b"*")
        headers.set(b"Access-Control-Allow-Methods", b"*")
        headers.set(b"Access-Control-Max-Age", b"5")
        headers.set(b"Access-Control-Allow-Headers", b"*")
    conf = builtin.get("response-rewrite", {})
    head.status = conf.get("status_code", head.status)
    body: str | None = conf.get("body")
    if body is not None:
        # the old length and encoding belong to the old body
        headers.remove(b"content-length", b"content-encoding", b"last-modified", b"etag")
        head.front = [item for item in head.front if item[0].lower() != b"content-length"]
    header_operations(conf).apply(headers.add, headers.set)
    if conf.get("status_code") == 204:
        # only of a status that Lua has set, not of the upstream's own (ngx_http_header_filter_module.c, status_line)
        headers.content_type, head.front = None, []
    return None if body is None else raw(body)


async def _send_parts(exchange: Exchange, body: bytes, more: AsyncIterable[bytes], *, bodiless: bool) -> None:
    if body and not bodiless:
        await exchange.send({"type": "http.response.body", "body": body, "more_body": True})
    async for chunk in more:
        if chunk and not bodiless:
            await exchange.send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _send(
    exchange: Exchange,
    head: _Head,
    body: bytes,
    more: AsyncIterable[bytes] | None = None,
    after: AsyncIterable[bytes] | None = None,
) -> None:
    await exchange.send({"type": "http.response.start", "status": head.status, "headers": head.headers(exchange)})
    bodiless = _bodiless(exchange, head.status)
    for parts in (more, after):
        if parts is not None:
            await exchange.while_there(_send_parts(exchange, body, parts, bodiless=bodiless))
            body = b""
    await exchange.send({"type": "http.response.body", "body": b"" if bodiless else body, "more_body": False})


def _date() -> Header:
    return b"Date", formatdate(usegmt=True).encode()


async def send_page(exchange: Exchange, status: int, *, upstream_status: bytes | None = None) -> None:
    """nginx's own page (``ngx_http_special_response_handler``), or an empty body where it has none.

    Args:
        exchange: the request.
        status: 300 or more.
        upstream_status: of a request that got no answer from the upstream.
    """
    content = page(status)
    head = _Head(400 if status in VARIANTS_OF_400 else status, None if content is None else b"text/html")
    head.close = status in CLOSING
    head.front.append((b"Content-Length", str(len(content or b"")).encode()))
    exchange.response.remove(b"accept-ranges", b"last-modified", b"etag")
    head.items = list(exchange.response)
    if not exchange.response.date_set:
        head.items.append(_date())
    replaced = await _filtered(exchange, head, upstream_status)
    await _send(exchange, head, (content or b"") if replaced is None else replaced)


async def refuse(exchange: Exchange, status: int) -> None:
    """Answer for nginx itself, before APISIX has seen the request."""
    content = page(status) or b""
    if status in VARIANTS_OF_400:
        status = 400
    headers = [
        (b"Server", b"openresty"),
        _date(),
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Content-Length", str(len(content)).encode()),
        (b"Connection", b"close"),
    ]
    await exchange.send({"type": "http.response.start", "status": status, "headers": headers})
    body = b"" if exchange.request_method == "HEAD" else content
    await exchange.send({"type": "http.response.body", "body": body, "more_body": False})


async def instead(exchange: Exchange, what: str) -> None:
    """Answer 502 where APISIX's answer would hang or break the client's connection, and log that.

    Args:
        exchange: the request.
        what: what APISIX would have done: "closed the connection".
    """
    line = exchange.request_line
    logger.warning("%s (route %s): answered 502; APISIX would have %s", line, exchange.route_id, what)
    exchange.response = ResponseHeaders()
    # not what a response-rewrite of the route would make of it
    exchange.global_rules = exchange.plugins = Plugins()
    await send_page(exchange, 502)


async def exit_with(exchange: Exchange, status: int, body: bytes | None) -> None:
    """``core.response.exit``: the status, and the body if there is one.

    Trap: without a body nginx writes its own page for a status of 300 or more.
    """
    if 0 < status < 200:
        await instead(exchange, f"left the client waiting for ever: status {status}")
        return
    if status in _CLOSED_WITHOUT_A_BYTE:
        await instead(exchange, f"closed the connection without a byte: status {status}")
        return
    if body is None and status >= 300:
        await send_page(exchange, status)
        return
    if status == 204 and body is not None and not _bodiless(exchange, final := await _rewritten(exchange, status)):
        # nginx waits for the end of a body that ngx.exit(204) never gives
        await instead(
            exchange,
            f"left the client waiting for ever: a plugin of the runner answered 204 with a body (the filler byte), and "
            f"response-rewrite made it {final}; cures=False on the plugin leaves the byte out",
        )
        return
    await send_generated(exchange, status, body or b"")


async def send_generated(
    exchange: Exchange,
    status: int,
    body: bytes,
    more: AsyncIterable[bytes] | None = None,
    after: AsyncIterable[bytes] | None = None,
) -> None:
    """``ngx.status`` and ``ngx.print``: a response that Lua has made.

    Args:
        exchange: the request.
        status: its status.
        body: its body, or the first part of it.
        more: the further parts.
        after: read when all of that has been sent; what it gives is sent as well.
    """
    if status < 200:
        await instead(exchange, f"left the client waiting for ever: status {status}")
        return
    if status > 999:
        # ngx.status refuses it, so what was there stays
        status = 200
    response = exchange.response
    if more is not None and response.content_length is not None:
        # believed, so it has to be compared
        body += b"".join([chunk async for chunk in more])
        more = None
    encodings = [value.lower() for name, value in response if name.lower() == b"transfer-encoding"]
    length = response.content_length
    asked_for = status
    status = status_after_conditions(exchange, status)
    if status == 412 != asked_for:
        # ngx_http_filter_finalize_request begins anew: no header is left, and no plugin's header filter runs
        exchange.response = ResponseHeaders()
        exchange.global_rules = exchange.plugins = Plugins()
        await send_page(exchange, 412)
        return
    if status == 304 != asked_for:
        length = None
    bodiless = status in (204, 304)
    if not bodiless and exchange.request_method != "HEAD":
        what = None
        if encodings and length is not None:
            what = "left the client waiting: Transfer-Encoding beside a Content-Length"
        elif encodings and encodings != [b"chunked"]:
            what = f"left the client waiting: Transfer-Encoding: {encodings[0].decode('latin-1')}, but a chunked body"
        elif length is not None and length > len(body):
            what = f"left the client waiting: Content-Length: {length}, but a body of {len(body)} bytes"
        elif length is not None and length < len(body):
            what = f"sent {len(body) - length} bytes behind the response: Content-Length: {length} is too small"
        if what is not None:
            await instead(exchange, what)
            return
    head = _Head(status, None)
    if not bodiless or asked_for == 204:
        head.content_type = DEFAULT_TYPE if response.content_type is None else response.content_type
    elif asked_for == 304:
        head.content_type = response.content_type
    elif status == 304:
        response.remove(b"accept-ranges", b"content-encoding")
    if length is not None:
        head.front.append((b"content-length", str(length).encode()))
    elif encodings and not bodiless and exchange.request_method != "HEAD":
        # nginx writes its own beside the plugin's
        head.front.append((b"Transfer-Encoding", b"chunked"))
    head.items = [item for item in response if item[0].lower() != b"server"]
    if not response.date_set:
        head.items.append(_date())
    replaced = await _filtered(exchange, head)
    if replaced is not None:
        body, more = replaced, None
    if head.status == 204:
        # at the very end, so that a 204 which a filter has made another status has its type
        head.content_type = None
    await _send(exchange, head, body, more, after)


# nginx's proxy module reads these and passes none of them on (ngx_http_upstream.c, ngx_http_proxy_hide_headers)
_NOT_PASSED = frozenset(
    b"connection keep-alive transfer-encoding server x-pad x-accel-expires x-accel-redirect x-accel-limit-rate "
    b"x-accel-buffering x-accel-charset status content-type content-length".split()
)


# what servers under ASGI refuse to send
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


async def send_upstream(exchange: Exchange, status: int, headers: list[Header], body: AsyncIterable[bytes]) -> None:
    """Pass an upstream's response on, as nginx's proxy module does; what plugins have set comes beside it."""
    unfit = sorted({name.decode("latin-1") for name, value in headers if _CONTROLS.search(value)})
    if unfit:
        logger.warning(
            "%s: left out of the upstream's response: %s; APISIX passes on a value with a control character, which a "
            "server under ASGI refuses to send",
            exchange.request_line,
            ", ".join(unfit),
        )
        headers = [item for item in headers if not _CONTROLS.search(item[1])]
    response = exchange.response
    values = {name.lower(): value for name, value in headers}
    # without one of the upstream's, that of a plugin stays (after a fetch of post-resp that came to nothing)
    head = _Head(status, values.get(b"content-type", response.content_type))
    length: bytes | None = values.get(b"content-length")
    if b"transfer-encoding" in values:
        length = None
    if response.content_length is not None:
        length = str(response.content_length).encode()
    if length is not None:
        head.front.append((b"Content-Length", length))
    head.items = [item for item in response if item[0].lower() != b"server"]
    head.items += [item for item in headers if item[0].lower() not in _NOT_PASSED]
    replaced = await _filtered(exchange, head, str(status).encode() if 500 <= status <= 599 else None)
    if replaced is not None:
        await _send(exchange, head, replaced)
    else:
        await _send(exchange, head, b"", body)
