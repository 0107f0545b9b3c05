"""What the client gets: status, headers and body as nginx's filters finish them.

Filters, in their order: not-modified, APISIX's header filter (plugins, ``Server``), charset, chunked, header.
"""

import logging
import re
from collections.abc import AsyncIterable
from email.utils import formatdate

from ..builtin import finish
from ..conditions import status_after_conditions
from ..exchange import Exchange
from .headers import Header
from .pages import CLOSING, VARIANTS_OF_400, page
from .variables import lookup

__all__ = ["SERVER", "exit_with", "instead", "refuse", "send_generated", "send_page", "send_upstream"]

logger = logging.getLogger("asgi_bridge.gateway")

SERVER = b"APISIX/3.18.0"
"""The Server header of all responses but nginx's own."""

DEFAULT_TYPE = b"text/plain"
"""The Content-Type of a response that Lua has made, where no plugin sets one."""

_CLOSED_WITHOUT_A_BYTE = frozenset({408, 444, 499})

# nginx's proxy module does not pass these on (ngx_http_upstream.c, ngx_http_proxy_hide_headers)
_NOT_PASSED = frozenset(
    b"connection keep-alive transfer-encoding server x-pad x-accel-expires x-accel-redirect x-accel-limit-rate "
    b"x-accel-buffering x-accel-charset status content-type content-length".split()
)
# ASGI servers refuse to send these
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


# charset_types of nginx
_CHARSET_TYPES = frozenset(
    b"text/html text/xml text/plain text/vnd.wap.wml application/javascript application/rss+xml".split()
)


def _bodiless(exchange: Exchange, status: int) -> bool:
    return exchange.request.method == "HEAD" or status in (204, 304)


def _headers(exchange: Exchange) -> list[Header]:
    """Give all headers of the response, as the client gets them."""
    response, version = exchange.response, exchange.request.http_version
    front: list[Header] = []
    kind = response.content_type
    if kind:
        # nginx's charset filter, set to utf-8 by APISIX; it leaves the redirects 301 and 302 alone
        with_charset = response.status not in (301, 302) and kind.lower() in _CHARSET_TYPES
        front.append((b"Content-Type", kind + b"; charset=utf-8" if with_charset else kind))
    if response.content_length is not None:
        front.append((b"Content-Length", b"%d" % response.content_length))
    if response.chunked:
        front.append((b"Transfer-Encoding", b"chunked"))
    if version.startswith("1"):
        # under 1.0 a body without a length ends with the connection (ngx_http_chunked_filter_module.c)
        endless = version == "1.0" and response.content_length is None and not _bodiless(exchange, response.status)
        closing = response.close or exchange.request.closing or endless
        front.append((b"Connection", b"close" if closing else b"keep-alive"))
    # an ASGI server may refuse blanks around a value (h11), and no client sees them
    return [(name, value.strip(b" \t")) for name, value in (*front, *response)]


def _date() -> Header:
    return b"Date", formatdate(usegmt=True).encode()


async def _filter(exchange: Exchange, upstream_status: bytes | None = None) -> None:
    """Run APISIX's header filter.

    It sets the ``Server`` header, and ``X-APISIX-Upstream-Status`` where the upstream failed. Then APISIX's own plugins
    run.
    """
    exchange.response.set(b"Server", SERVER)
    if upstream_status is not None:
        # it replaces a plugin's (set_resp_upstream_status)
        exchange.response.set(b"X-APISIX-Upstream-Status", upstream_status)
    for plugins in (exchange.global_rules, exchange.plugins):
        running = await plugins.builtin(lookup(exchange, exchange.response.status, exchange.response))
        finish(exchange, running)


async def _rewritten(exchange: Exchange, status: int) -> int:
    """Give the status that response-rewrite makes of another one."""
    for plugins in (exchange.global_rules, exchange.plugins):
        running = await plugins.builtin(lookup(exchange, status))
        status = running.get("response-rewrite", {}).get("status_code", status)
    return status


async def _send(
    exchange: Exchange,
    body: bytes,
    more: AsyncIterable[bytes] | None = None,
    after: AsyncIterable[bytes] | None = None,
) -> None:
    response = exchange.response
    if response.body is not None:
        body, more = response.body, None
    await exchange.send({"type": "http.response.start", "status": response.status, "headers": _headers(exchange)})
    without = _bodiless(exchange, response.status)

    async def pass_on(first: bytes, parts: AsyncIterable[bytes]) -> None:
        if first and not without:
            await exchange.send({"type": "http.response.body", "body": first, "more_body": True})
        async for chunk in parts:
            if chunk and not without:
                await exchange.send({"type": "http.response.body", "body": chunk, "more_body": True})

    for parts in (more, after):
        if parts is not None:
            await exchange.body.while_client_waits(pass_on(body, parts))
            body = b""
    await exchange.send({"type": "http.response.body", "body": b"" if without else body, "more_body": False})


async def send_page(exchange: Exchange, status: int, *, upstream_status: bytes | None = None) -> None:
    """Send nginx's own page (``ngx_http_special_response_handler``), or an empty body where it has none.

    Args:
        exchange: The request.
        status: 300 or more.
        upstream_status: Of a request that got no answer from the upstream.
    """
    content = page(status)
    response = exchange.response
    response.status = 400 if status in VARIANTS_OF_400 else status
    response.content_length = len(content or b"")
    response.close = status in CLOSING
    response.content_type = None if content is None else b"text/html"
    response.remove(b"accept-ranges", b"last-modified", b"etag")
    if not response.date_set:
        response.items.append(_date())
    await _filter(exchange, upstream_status)
    await _send(exchange, content or b"")


async def refuse(exchange: Exchange, status: int) -> None:
    """Send the answer of nginx itself, which refuses the request before APISIX sees it."""
    content = page(status) or b""
    headers = [
        (b"Server", b"openresty"),
        _date(),
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Content-Length", b"%d" % len(content)),
        (b"Connection", b"close"),
    ]
    shown = 400 if status in VARIANTS_OF_400 else status
    await exchange.send({"type": "http.response.start", "status": shown, "headers": headers})
    body = b"" if exchange.request.method == "HEAD" else content
    await exchange.send({"type": "http.response.body", "body": body, "more_body": False})


async def instead(exchange: Exchange, what: str) -> None:
    """Answer 502 where APISIX's answer would hang or break the client's connection, and log that.

    Args:
        exchange: The request.
        what: What APISIX would have done: "closed the connection".
    """
    logger.warning("%s: answered 502; APISIX would have %s", exchange, what)
    # a response-rewrite of the route must not change the answer
    exchange.begin_anew()
    await send_page(exchange, 502)


async def exit_with(exchange: Exchange, status: int, body: bytes | None) -> None:
    """``core.response.exit``: send the status, and the body if there is one.

    Trap: without a body nginx writes its own page for a status of 300 or more.
    """
    if 0 < status < 200:
        await instead(exchange, f"left the client waiting for ever: status {status}")
    elif status in _CLOSED_WITHOUT_A_BYTE:
        await instead(exchange, f"closed the connection without a byte: status {status}")
    elif body is None and status >= 300:
        await send_page(exchange, status)
    elif status == 204 and body is not None and not _bodiless(exchange, final := await _rewritten(exchange, status)):
        # nginx waits for the end of a body that ngx.exit(204) never gives
        await instead(
            exchange,
            f"left the client waiting for ever: a plugin of the runner answered 204 with a body (the filler byte), and "
            f"response-rewrite made it {final}; cures=False on the plugin leaves the byte out",
        )
    else:
        await send_generated(exchange, status, body or b"")


def _misframed(exchange: Exchange, size: int) -> str | None:
    """Say what APISIX does with a body that its headers do not fit; None: they fit, or there is no body."""
    response = exchange.response
    length = response.content_length
    encodings = [value.lower() for value in response.values(b"transfer-encoding")]
    if _bodiless(exchange, response.status):
        return None
    if encodings and length is not None:
        return "left the client waiting: Transfer-Encoding beside a Content-Length"
    if encodings not in ([], [b"chunked"]):
        return f"left the client waiting: Transfer-Encoding: {encodings[0].decode('latin-1')}, but a chunked body"
    if length is not None and length > size:
        return f"left the client waiting: Content-Length: {length}, but a body of {size} bytes"
    if length is not None and length < size:
        return f"sent {size - length} bytes behind the response: Content-Length: {length} is too small"
    return None


async def send_generated(
    exchange: Exchange,
    status: int,
    body: bytes,
    more: AsyncIterable[bytes] | None = None,
    after: AsyncIterable[bytes] | None = None,
) -> None:
    """``ngx.status`` and ``ngx.print``: send a response that Lua has made.

    Args:
        exchange: The request.
        status: Its status.
        body: Its body, or the first part of it.
        more: The further parts.
        after: More parts, which are read only when all of that has been sent.
    """
    if status < 200:
        await instead(exchange, f"left the client waiting for ever: status {status}")
        return
    if status > 999:
        # ngx.status refuses it, so what was there stays
        status = 200
    response = exchange.response
    if more is not None and response.content_length is not None:
        # APISIX believes the plugin's length, so the whole body is needed to compare it
        body += b"".join([chunk async for chunk in more])
        more = None
    asked_for = status
    status = status_after_conditions(exchange, status)
    if status == 412 != asked_for:
        # ngx_http_filter_finalize_request begins anew: no header is left, and no plugin's header filter runs
        exchange.begin_anew()
        await send_page(exchange, 412)
        return
    response.status = status
    if status == 304 != asked_for:
        response.content_length = None
    misframed = _misframed(exchange, len(body))
    if misframed is not None:
        await instead(exchange, misframed)
        return
    if response.content_length is None and not _bodiless(exchange, status):
        # nginx writes its own header, and the plugin's stays
        response.chunked = bool(response.values(b"transfer-encoding"))
    if status not in (204, 304) or asked_for == 204:
        response.content_type = DEFAULT_TYPE if response.content_type is None else response.content_type
    elif asked_for != 304:
        response.content_type = None
        response.remove(b"accept-ranges", b"content-encoding")
    response.remove(b"server")
    if not response.date_set:
        response.items.append(_date())
    await _filter(exchange)
    if response.status == 204:
        # only now: a filter may have made another status of the 204, and that one has a type
        response.content_type = None
    await _send(exchange, body, more, after)


async def send_upstream(exchange: Exchange, status: int, headers: list[Header], body: AsyncIterable[bytes]) -> None:
    """Pass on an upstream's response, as nginx's proxy module does, with the headers that plugins have set."""
    unfit = sorted({name.decode("latin-1") for name, value in headers if _CONTROLS.search(value)})
    if unfit:
        logger.warning(
            "%s: left out of the upstream's response: %s; APISIX passes on a value with a control character, which a "
            "server under ASGI refuses to send",
            exchange.request.line,
            ", ".join(unfit),
        )
        headers = [item for item in headers if not _CONTROLS.search(item[1])]
    response = exchange.response
    values = {name.lower(): value for name, value in headers}
    # where the upstream gives none, a plugin's stays (post-resp may have set one and then sent nothing)
    response.content_type = values.get(b"content-type", response.content_type)
    response.status = status
    if response.content_length is None and b"transfer-encoding" not in values and b"content-length" in values:
        response.content_length = int(values[b"content-length"])
    response.remove(b"server")
    response.items += [item for item in headers if item[0].lower() not in _NOT_PASSED]
    await _filter(exchange, b"%d" % status if 500 <= status <= 599 else None)
    await _send(exchange, b"", body)
