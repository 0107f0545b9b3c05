"""One request-phase call, of ``ext-plugin-pre-req`` or ``ext-plugin-post-req``.

The life of a call::

    run ── scope ──▶ chain ──▶ upstream   what the chain passed on is compared: a Rewrite, or nothing
                       │  ◀── empty 200 ──┘
                       └─ send ──▶ answer: no upstream, or 400 and more → Stop; else → the Rewrite

and with a plugin of ``phase="both"``, for which the upstream is the real one::

    run ── scope ──▶ chain ──▶ upstream ──▶ answer: the Rewrite; the call is parked
                       │          │ ◀─ resume: the response call has come
                       │  ◀── the real response
                       └─ send ──▶ the response call's answer
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import cast

from starlette.types import Message, Receive, Scope, Send

from ..errors import LocalProtocolError, PluginError, RemoteProtocolError
from ..plugins import Chain, Layer
from ..wire import MAX_PAYLOAD, HTTPReqCallReq, HTTPReqCallResp, Info, Rewrite, Stop
from .answer import response_headers, stop
from .call import ALL, NOTHING, YIELD_EVERY, Call, Host
from .changes import changed_args, changed_headers, changed_path, encoding_args
from .exchange import Answer, Exchange
from .scope import (
    EXACT_VARIABLES,
    FORWARDED,
    Args,
    Headers,
    build_scope,
    exact_scope,
    forwarded_origin,
    needs_escaping,
)
from .upstream import Response

__all__ = ["RequestCall"]

logger = logging.getLogger("asgi_bridge.adapter")

MAX_HEADERS = 99
"""APISIX hands over the first 100 headers and hides the rest, so 100 may be more (``core.request.headers``)."""

_UNKNOWN = "http", ("", 80)
_NO_CHANGE = Rewrite()
_LOOKED_AT = frozenset((*FORWARDED, b"transfer-encoding"))
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
TOO_MANY_HEADERS = Stop(431, [_TEXT], b"100 or more header fields: the gateway cannot check them\n")
LENGTH_REQUIRED = Stop(411, [_TEXT], b"a request body needs a content-length here\n")


class RequestCall(Call):
    """A call of the request phase.

    Args:
        message: the request.
        chain: the plugins to run.
        exchange: the way back to the gateway.
        host: what all calls share.
    """

    __slots__ = ("_delivered", "_message", "_parks", "_resumed", "_rewrite", "_uri", "blamed")
    phase = "request"

    def __init__(self, message: HTTPReqCallReq, chain: Chain, exchange: Exchange, host: Host) -> None:
        Call.__init__(self, chain, exchange, host)
        self._message = message
        self._rewrite: Rewrite | None = None
        self._parks = False
        self._resumed: asyncio.Future[Response] | None = None
        self._delivered: asyncio.Future[Response] | None = None
        self._uri: bytes | None = None
        self.blamed: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The plugins of its list, outermost first."""
        return tuple(layer.name for layer in self._chain.layers)

    @property
    def layers(self) -> list[Layer]:
        """The plugins of its list, outermost first."""
        return self._chain.layers

    def _begin(self) -> Awaitable[None] | None:
        message, chain = self._message, self._chain
        headers, args, index = _complete(message)
        if len(headers) > MAX_HEADERS:
            logger.warning("plugin %s: request refused with 431: 100 or more header fields", chain.names)
            self._answer(HTTPReqCallResp(message.id, TOO_MANY_HEADERS), "stop 431")
            return None
        if not chain.request:
            raise PluginError("it is for the response phase: list it in ext-plugin-post-resp")
        asks = chain.exact or self._host.ask_origin
        if chain.both and self._host.lot.admits(self):
            if b"transfer-encoding" in index:
                logger.warning(
                    "plugin %s: request refused with 411: APISIX hangs in ext-plugin-post-resp on a chunked request "
                    "body", chain.names,
                )  # fmt: skip
                self._answer(HTTPReqCallResp(message.id, LENGTH_REQUIRED), "stop 411")
                return None
            self._parks = asks = True
        origin = None if asks else forwarded_origin(index)
        scope = self._scope = build_scope(message, headers, args, origin or _UNKNOWN, self._host.app)
        if origin is None:
            return self._ask_and_enter()
        return chain.begin(self, scope, self.receive, self.send)

    async def _ask_and_enter(self) -> None:
        """Runs the chain on the scope once the gateway has told what the message does not."""
        found = await self._variables((*EXACT_VARIABLES, "uri") if self._parks else EXACT_VARIABLES)
        if self._parks and not self.request_id:
            raise PluginError("the gateway gives no $request_id, by which phase='both' finds the response of a request")
        exact_scope(self._scope, found)
        self._protocol = found.get("server_protocol")
        self._uri = found.get("uri")
        self._join(self._host.lot.of(self.request_id))
        await self._chain.enter(self, self._scope, self.receive, self.send)

    # what the chain does

    def upstream(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        """Notes what it was called with, and answers an empty 200; or parks, and answers the real response."""
        if self._is_turn() or self._rewrite is not None or self.changed_body or self._parks:
            return self._pass_on(scope, receive, send)
        try:
            self._rewrite = self._differences(scope, None)
            if self._wrapped or self._sent != NOTHING or self._disconnected:
                return _send_empty(send)
            # the same, where nobody looks at it on its way
            self._status = 200
            self._complete()
            self._sent = ALL
        except PluginError as exc:
            self._fault = self._fault or exc
            self._may_be_caught(exc)
            raise
        return None

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As `upstream`, where there may be something to wait for."""
        if not self._messages % YIELD_EVERY:
            await asyncio.sleep(0)
        try:
            if self._rewrite is not None:
                raise PluginError("the upstream was called twice; the gateway sends a request once")
            # no names for the body: a parked call would keep it
            self._rewrite = self._differences(scope, await self._changed_body(receive) if self.changed_body else None)
            response = await self._park() if self._parks else None
            if response is not None:
                await self._respond(response, send)
        except PluginError as exc:
            self._fault = self._fault or exc
            self._may_be_caught(exc)
            raise
        if response is None:
            await _send_empty(send)

    async def _changed_body(self, receive: Receive) -> bytes | None:
        """The body that `receive` gives, if it is not the request's."""
        whole = bytearray()
        while True:
            if self._is_turn():  # that receive need not wait for anything
                await asyncio.sleep(0)
            message = await receive()
            if message["type"] != "http.request":
                if self._disconnected:
                    raise OSError("the client went away")
                raise PluginError(f"receive gave {message['type']!r:.200} before the end of the request body")
            whole += memoryview(message.get("body", b""))
            if len(whole) > MAX_PAYLOAD:
                raise PluginError(f"the request body was changed to more than the protocol's {MAX_PAYLOAD} bytes")
            if not message.get("more_body", False):
                break
        if not whole and self._body is None:
            # nobody has asked for the request's own: it may be empty too
            await self._request_body()
        body = bytes(whole)
        if body == self._body:
            return None
        if not body:
            raise PluginError(
                "the request body was emptied, which the protocol cannot express; a plugin that only reads the body "
                "and does not hand it on (as after request.form()) is mounted with request_body=False"
            )
        return body

    def _differences(self, scope: Scope, body: bytes | None) -> Rewrite:
        before = self._scope
        if scope["method"] != before["method"]:
            raise PluginError(f"the method was changed to {scope['method']!r:.200}, which the protocol cannot express")
        path = changed_path(before["path"], scope["path"])
        if path is not None and "\ufffd" in scope["path"]:
            self._warn("path", "a path that is not UTF-8 was changed: what is not goes upstream as U+FFFD")
        if path is None and scope.get("raw_path") not in (before["raw_path"], None):
            self._warn("raw_path", "a change of raw_path alone is dropped: change path")
        query, args = scope["query_string"], None
        if query != before["query_string"]:
            args = changed_args(cast("Args", self._message.args or []), query, self._warn) or None
        headers = None
        if scope["headers"] != before["headers"]:
            headers = changed_headers(before["headers"], list(scope["headers"]), body is not None, self._warn) or None
        if path is None and headers is None and args is None and body is None:
            return _NO_CHANGE
        return Rewrite(path, headers, args, None, body)

    def _complete(self) -> None:
        if self._resumed is not None:
            self._deliver()
            return
        rewrite, status = self._rewrite, self._status
        action: Stop | Rewrite | None
        if rewrite is None or status >= 400:
            body = bytes(self._content)
            action = stop(self._message.method, status, self._headers, body, self._chain.cures, self._warn)
            said = f"stop {status}"
        else:
            if self._fault is not None:  # swallowed by the chain: what went wrong must not let a request pass
                raise self._fault
            if status != 200:
                self._warn(
                    "status",
                    "in the request phase the upstream has not answered yet: a change of the status to "
                    f"{status} is dropped (400 and above refuse the request)",
                )
            if self._length:
                self._warn("body", "in the request phase the upstream has not answered yet: a response body is dropped")
            resp_headers = response_headers(self._headers, self._warn) if self._headers else None
            if resp_headers:
                action = Rewrite(rewrite.path, rewrite.headers, rewrite.args, resp_headers, rewrite.body)
            else:
                action = None if rewrite is _NO_CHANGE else rewrite
            said = "pass" if action is None else "rewrite"
        self._answer(HTTPReqCallResp(self._message.id, action), said)

    # parked

    async def _park(self) -> Response:
        """Sends the Rewrite, and waits for the real response."""
        if self._body_ask is not None and not self._body_ask.done():
            # another task reads the body: with the answer this connection is over
            await asyncio.wait([self._body_ask])
        if self._disconnected:
            raise OSError("the gateway has closed the connection")
        # shielded: a plugin that does not wait for the upstream any longer answers instead, and the gateway gets that
        # answer when its response call comes
        return await asyncio.shield(self._answer_and_park())

    def _answer_and_park(self) -> "asyncio.Future[Response]":
        """Sends the Rewrite; gives what the real response will come in."""
        rewrite = self._rewrite
        assert rewrite is not None
        if rewrite.body is not None and len(rewrite.body) != len(self._body or b""):
            raise PluginError(
                "the request body was changed to another length, on which APISIX hangs in ext-plugin-post-resp; "
                "change it in a plugin of the request phase on a route without ext-plugin-post-resp"
            )
        if self._chain.cures:
            rewrite = self._cured(rewrite)
        action = None if rewrite is _NO_CHANGE else rewrite
        said = "parked" if action is None else "rewrite, parked"
        loop = asyncio.get_running_loop()
        resumed = self._resumed = loop.create_future()
        self._delivered = loop.create_future()
        # in the lot before the answer leaves: the response call may be quick
        self._host.lot.park(self)
        try:
            self._exchange.answer(HTTPReqCallResp(self._message.id, action), said)
        except LocalProtocolError as exc:
            self._host.lot.leave(self)
            self._resumed = self._delivered = None
            raise PluginError(str(exc)) from exc
        self.answered = True  # but not at its end: whoever waits for a disconnect goes on waiting
        self.deadline = float("inf")
        if self._caught is not None:
            self._log_caught(said)
        # many calls may be parked, for a long time: without the bodies that nobody asks for any more
        self._rewrite = _NO_CHANGE
        if self._body_taken:
            self._body = self._body_ask = None
        return resumed

    def _cured(self, rewrite: Rewrite) -> Rewrite:
        """`rewrite` with what keeps APISIX's own fetch, in ext-plugin-post-resp, from answering 502.

        That fetch sends path and query as they are, unless a Rewrite had APISIX encode them. A path that another plugin
        has set is encoded already.
        """
        message = self._message
        path, args = rewrite.path, rewrite.args
        uri = message.path or b"/"
        if path is None and self._uri == uri and needs_escaping(uri):
            path = uri
        if args is None:
            args = encoding_args(cast("Args", message.args or []), self._scope["query_string"])
        if path is rewrite.path and args is rewrite.args:
            return rewrite
        return Rewrite(path, rewrite.headers, args, None, rewrite.body)

    @property
    def parked(self) -> bool:
        """Whether it waits for its response."""
        return self._resumed is not None and not self._resumed.done()

    async def _variables(self, names: Sequence[str]) -> dict[str, bytes | None]:
        await self._until_resumed()
        return await super()._variables(names)

    async def receive(self) -> Message:
        """As in any call; while it is parked there is nobody to ask, so it waits."""
        await self._until_resumed()
        return await super().receive()

    async def _until_resumed(self) -> None:
        if self._resumed is not None and not self._resumed.done():
            await asyncio.wait([self._resumed])

    async def resume(self, response: Response, exchange: Exchange) -> Response:
        """Goes on with the real response, over the response call's connection; gives the chain's response.

        Raises:
            PluginError, or what the chain raises: there will be none. `blamed` is the plugin.
        """
        delivered = self._delivered
        assert self._resumed is not None
        if delivered is None or self._resumed.done():
            raise PluginError("its request half has ended")
        if not delivered.done():
            self._exchange = exchange
            self.answered = False
        self._resumed.set_result(response)
        try:
            return await delivered
        finally:
            # an exception holds its frames, and they this call
            self._delivered = None

    @property
    def timeout(self) -> float:
        """Seconds that the response half may take."""
        return min(layer.options.timeout for layer in self._chain.layers)

    def _deliver(self) -> None:
        response = self._response()
        if self._delivered is not None and not self._delivered.done():
            self._delivered.set_result(response)
        self.answered = True
        self._end()
        if self._caught is not None:
            self._log_caught(f"response {response.status}")

    def _blame(self, exc: BaseException) -> None:
        # its chain was begun without `enter`, which notes that
        if self.extensions and (self.culprit is None or self.culprit[0] is not exc):
            self.culprit = exc, self._chain.layers[0].name

    def _refuse(self, exc: BaseException, reason: str) -> None:
        delivered = self._delivered
        if delivered is not None and not delivered.done():
            # the response call says so, and logs it
            if self.culprit is not None and self.culprit[0] is exc:
                self.blamed = self.culprit[1]
            delivered.set_exception(exc if isinstance(exc, Exception) else PluginError(reason))
            delivered.exception()
            self.answered = True
        elif self._resumed is not None and self._resumed.cancelled():
            logger.debug("plugin %s: %s, after nobody waited for it any more", self._chain.names, reason)
        elif self._resumed is None or self.answered:
            super()._refuse(exc, reason)

    def abandon(self) -> None:
        """Nobody will come for it: ends it."""
        if self._resumed is not None:
            self._resumed.cancel()
        self._delivered = None
        self._exchange = _GONE
        self.disconnect()
        if self.task is not None:
            self.task.cancel()


class _Gone:
    """The connection of a call that nobody waits for."""

    def ask(self, infos: Sequence[Info]) -> "asyncio.Future[list[bytes | None]]":
        future: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        future.set_exception(PluginError("the gateway does not wait for this call any more"))
        return future

    def answer(self, message: Answer, said: str) -> None: ...


_GONE = _Gone()


async def _send_empty(send: Send) -> None:
    """The response that stands for the upstream's, which has not answered yet."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _complete(message: HTTPReqCallReq) -> tuple[Headers, Args, dict[bytes, bytes]]:
    """The headers and arguments of a request, if all have what they need, and the headers that decide how to go on."""
    args, headers = message.args or [], message.headers or []
    for name, _ in args:
        if name is None:
            raise RemoteProtocolError("an argument without a name")
    index: dict[bytes, bytes] = {}
    for name, value in headers:
        if name is None or value is None:
            raise RemoteProtocolError("a header without a name or value")
        if name in _LOOKED_AT:
            index[name] = value
    return cast("Headers", headers), cast("Args", args), index
