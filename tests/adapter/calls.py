"""Calls as the server makes them, against a gateway in memory."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, upstream
from asgi_bridge.adapter import Host, RequestCall
from asgi_bridge.errors import PluginError
from asgi_bridge.plugins import Chain, build_chain
from asgi_bridge.wire import (
    ErrCode,
    ErrResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    Info,
    ReqBody,
    Rewrite,
    Stop,
    TextEntry,
    Var,
    encode,
)

__all__ = [
    "BODY_IF_ANY",
    "FORWARDED",
    "HOST",
    "KEY",
    "REFUSED",
    "Gateway",
    "answer",
    "chain_of",
    "errors",
    "passing",
    "request",
    "responding",
    "run",
    "warnings",
]

KEY = b"route#7#ext-plugin-pre-req#1"
HOST = Host(Starlette())
FORWARDED: list[TextEntry] = [
    (b"host", b"a.test"),
    (b"x-forwarded-proto", b"http"),
    (b"x-forwarded-host", b"a.test"),
    (b"x-forwarded-port", b"9080"),
]
REFUSED = ErrResp(ErrCode.SERVICE_UNAVAILABLE)
BODY_IF_ANY: list[Info] = [Var(b"server_protocol"), ReqBody(), Var(b"request_body_file")]
"""What is asked for in one round trip where no content-length tells whether there is a request body."""


def request(
    *headers: TextEntry,
    method: str = "GET",
    path: bytes | None = b"/x",
    args: list[TextEntry] | None = None,
    src_ip: bytes | None = b"\x7f\x00\x00\x01",
) -> HTTPReqCallReq:
    """A request from 127.0.0.1 for ``http://a.test:9080/x``, as APISIX 3.18 hands it over."""
    return HTTPReqCallReq(5, src_ip, method, path, args, [*FORWARDED, *headers], 1)


class Gateway:
    """The other end of one call's exchange.

    In memory, since the call is what these tests are about: asks and answers are compared as messages, without the
    bytes, and a test decides when the gateway answers an ask, and when it goes away.

    Args:
        variables: by name; any other is nil, but for $request, which follows from its parts.
        body: the request body, None: nil, as APISIX says of an empty one.
        holding: asks are answered at :meth:`release` only.
    """

    def __init__(
        self, variables: Mapping[str, bytes | None] | None = None, body: bytes | None = None, *, holding: bool = False
    ) -> None:
        self.asked: list[list[Info]] = []
        self.answers: list[Any] = []
        self.outcomes: list[str] = []
        self.answered = asyncio.Event()
        self.call: RequestCall | None = None
        self._variables = variables or {}
        self._body = body
        self._holding = holding
        self._pending: list[tuple[asyncio.Future[list[bytes | None]], list[bytes | None]]] = []
        self._closed = False

    def ask(self, infos: Sequence[Info]) -> "asyncio.Future[list[bytes | None]]":
        future: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        self.asked.append(list(infos))
        if self._closed:
            future.set_exception(PluginError("the gateway has closed the connection"))
            return future
        self._pending.append((future, [self._told(info) for info in infos]))
        if not self._holding:
            # never at once: an answer takes a turn of the event loop at least
            asyncio.get_running_loop().call_soon(self.release)
        return future

    def _told(self, info: Info) -> bytes | None:
        if isinstance(info, ReqBody):
            return self._body
        assert isinstance(info, Var) and info.name is not None
        if info.name == b"request" and "request" not in self._variables:
            return self._request_line()
        return self._variables.get(info.name.decode())

    def _request_line(self) -> bytes | None:
        """$request, where the test gives some of its parts."""
        parts = {"request_method": b"GET", "real_request_uri": b"/x", "server_protocol": b"HTTP/1.1"}
        if not parts.keys() & self._variables.keys():
            return None
        return b" ".join(self._variables.get(name, default) or b"" for name, default in parts.items())

    def release(self) -> None:
        """Answers what was asked."""
        for future, results in self._pending:
            if not future.done():
                future.set_result(results)
        self._pending.clear()

    def fail(self) -> None:
        """Answers what was asked with an error frame."""
        for future, _ in self._pending:
            if not future.done():
                future.set_exception(PluginError("the gateway could not tell"))
                future.exception()
        self._pending.clear()

    def disconnect(self) -> None:
        """Closes the connection, as the server sees it."""
        self._closed = True
        self.fail()
        assert self.call is not None
        self.call.disconnect()

    def answer(self, message: Any, outcome: str) -> None:
        assert not self.answers, "a call is answered once"
        encode(message)  # raises what the server's session raises
        self.answers.append(message)
        self.outcomes.append(outcome)
        self.answered.set()


async def chain_of(*apps: ASGIApp, bridge: Bridge | None = None, **options: Any) -> Chain:
    """The chain of plugins "p0", "p1", … that are `apps`; or of all plugins of `bridge`."""
    if bridge is None:
        bridge = Bridge()
        for number, app in enumerate(apps):
            bridge.mount(f"p{number}", app, **options)
    return await build_chain(bridge.plugins, KEY, [(name.encode(), b"") for name in bridge.plugins], None)


async def run(
    chain: Chain, message: HTTPReqCallReq | None = None, gateway: Gateway | None = None, host: Host = HOST
) -> Gateway:
    """Runs one call in a task of its own, as the server does, to the end of its background tasks."""
    gateway = gateway or Gateway()
    call = RequestCall(message or request(), chain, gateway, host)
    gateway.call = call
    call.task = asyncio.get_running_loop().create_task(call.run())
    with contextlib.suppress(asyncio.CancelledError):
        await call.task
    gateway.call = None  # as the server's connection forgets it
    return gateway


def answer(
    *apps: ASGIApp,
    message: HTTPReqCallReq | None = None,
    variables: Mapping[str, bytes | None] | None = None,
    body: bytes | None = None,
    asked: list[list[Info]] | None = None,
    bridge: Bridge | None = None,
    host: Host = HOST,
    **options: Any,
) -> Any:
    """The answer of a call through `apps`: a Stop, a Rewrite, None (pass), or an ErrResp.

    Args:
        asked: what the call must have asked for, one list a round trip; None: anything.
    """

    async def main() -> Gateway:
        chain = await chain_of(*apps, bridge=bridge, **options)
        return await run(chain, message, Gateway(variables, body), host)

    gateway = asyncio.run(main())
    assert asked is None or gateway.asked == asked
    (found,) = gateway.answers
    if isinstance(found, ErrResp):
        return found
    assert isinstance(found, HTTPReqCallResp)
    assert found.id == 5
    kind = "rewrite" if isinstance(found.action, Rewrite) else "pass"
    assert gateway.outcomes == [f"stop {found.action.status}" if isinstance(found.action, Stop) else kind]
    return found.action


def responding(*messages: Message) -> ASGIApp:
    """An application that sends `messages`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def passing(change: Callable[[Scope], Awaitable[None] | None] = lambda scope: None) -> ASGIApp:
    """An application that changes its scope and hands it on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        change(scope)
        await upstream(scope, receive, send)

    return app


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages that were logged as errors."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages that were logged as warnings."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
