"""Calls of the response phase, and of both phases of one request, against a gateway in memory."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.types import ASGIApp

from asgi_bridge import Bridge
from asgi_bridge.adapter import Host, RequestCall, ResponseCall
from asgi_bridge.adapter.parked_calls import ParkedCalls
from asgi_bridge.plugins import Chain, build_chain
from asgi_bridge.wire import HTTPReqCallReq, HTTPReqCallResp, HTTPRespCallReq, Info, RespBody, TextEntry

from . import calls
from .calls import request

__all__ = [
    "NGINX",
    "POST_REQ",
    "POST_RESP",
    "PRE_REQ",
    "Exchange",
    "begin",
    "chain",
    "fresh_host",
    "respond",
    "response",
]

PRE_REQ = b"route#7#ext-plugin-pre-req#1"
POST_REQ = b"route#7#ext-plugin-post-req#1"
POST_RESP = b"route#7#ext-plugin-post-resp#1"

NGINX: dict[str, bytes | None] = {
    "scheme": b"http",
    "http_host": b"a.test:9080",
    "server_addr": b"10.0.0.1",
    "server_port": b"9080",
    "server_protocol": b"HTTP/1.1",
    "real_request_uri": b"/x?a=1",
    "remote_port": b"4711",
    "request_id": b"r1",
    "request_method": b"GET",
    "uri": b"/x",
    "remote_addr": b"127.0.0.1",
}
"""Variables of one request."""


class Exchange(calls.Gateway):
    """The other end of a response call.

    Args:
        variables: over those of NGINX.
        upstream: the response body; None: it cannot be read.
        body: of the request.
        kwargs: calls.Gateway's own.
    """

    call: Any

    def __init__(
        self,
        variables: Mapping[str, bytes | None] | None = None,
        upstream: bytes | None = b"upstream",
        body: bytes | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__({**NGINX, **(variables or {})}, body, **kwargs)
        self._upstream = upstream

    def _told(self, info: Info) -> bytes | None:
        if not isinstance(info, RespBody):
            return super()._told(info)
        # a second ask gets nothing, as from APISIX
        upstream, self._upstream = self._upstream, None
        return upstream

    @property
    def bodies(self) -> int:
        """How often the upstream's body was asked for."""
        return sum(infos == [RespBody()] for infos in self.asked)


def fresh_host(**bounds: Any) -> Host:
    """A host with parked calls of its own."""
    return Host(Starlette(), parked=ParkedCalls(**bounds))


async def chain(
    bridge: Bridge | Mapping[str, ASGIApp], key: bytes = POST_RESP, names: Sequence[str] = (), **options: Any
) -> Chain:
    """The chain of `names`, or of all plugins; plugins of a mapping are mounted with `options`."""
    if not isinstance(bridge, Bridge):
        mounted = Bridge()
        for name, app in bridge.items():
            mounted.mount(name, app, **options)
        bridge = mounted
    return await build_chain(bridge.plugins, key, [(name.encode(), b"") for name in names or bridge.plugins], None)


def response(*headers: TextEntry, status: int = 200) -> HTTPRespCallReq:
    """An upstream's response."""
    return HTTPRespCallReq(9, status, list(headers) or None, 1)


async def respond(
    chain: Chain, message: HTTPRespCallReq, exchange: Exchange | None = None, host: Host | None = None
) -> Exchange:
    """Runs one response call to the end of its background tasks."""
    exchange = exchange or Exchange()
    call = ResponseCall(message, chain, exchange, host or fresh_host())
    exchange.call = call
    call.task = asyncio.get_running_loop().create_task(call.run())
    with contextlib.suppress(asyncio.CancelledError):
        await call.task
    return exchange


async def begin(
    chain: Chain, host: Host, message: HTTPReqCallReq | None = None, exchange: Exchange | None = None
) -> tuple[RequestCall, Any]:
    """Runs the request half until its answer; gives the call and the action."""
    exchange = exchange or Exchange()
    call = RequestCall(message or request(), chain, exchange, host)
    exchange.call = call
    call.task = asyncio.get_running_loop().create_task(call.run())
    await exchange.answered.wait()
    (answer,) = exchange.answers
    return call, answer.action if isinstance(answer, HTTPReqCallResp) else answer
