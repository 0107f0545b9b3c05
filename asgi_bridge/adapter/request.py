"""One request-phase call, of ``ext-plugin-pre-req`` or ``ext-plugin-post-req``.

The life of a call::

    run ── scope ──▶ chain ──▶ innermost   what the chain passed on is compared: a Rewrite, or nothing
                       │  ◀── empty 200 ──┘
                       └─ send ──▶ answer: not passed on, or 400 and more → Stop; else → the Rewrite

and with a plugin of ``phase="both"``, for which the upstream is the real one::

    run ── scope ──▶ chain ──▶ innermost ──▶ answer: the Rewrite; the call is parked
                       │          │ ◀─ resume: the response call has come
                       │  ◀── the real response
                       └─ send ──▶ the response call's answer
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Any, cast

from starlette.types import Message, Receive, Scope, Send

from ..errors import LocalProtocolError, PluginError
from ..plugins import Chain, Layer
from ..plugins.replay import Replay
from ..wire import MAX_PAYLOAD, HTTPReqCallReq, HTTPReqCallResp, Rewrite, Stop
from .call import YIELD_EVERY, Call, Host
from .changes import encoding_args
from .connection import CLOSED, Connection
from .parking import Parking
from .request_body import RequestBody
from .scope import (
    Args,
    Headers,
    build_scope,
    checked_fields,
    exact_scope,
    first_variables,
    forwarded_origin,
    needs_escaping,
)
from .sent import Sent
from .stage import ANSWERED, GONE, PARKED, RUNNING, Event
from .upstream_response import Response
from .way_back import differences, response_headers, stop

__all__ = ["MAX_HEADERS", "NO_CHANGE", "RequestCall", "send_empty"]

logger = logging.getLogger("asgi_bridge.adapter")

MAX_HEADERS = 99
"""APISIX hands over the first 100 headers and hides the rest, so 100 may be more (``core.request.headers``)."""

_UNKNOWN = "http", ("", 80)
NO_CHANGE = Rewrite()
"""What a chain passes on that changes nothing."""
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
TOO_MANY_HEADERS = Stop(431, [_TEXT], b"100 or more header fields: the gateway cannot check them\n")
LENGTH_REQUIRED = Stop(411, [_TEXT], b"a request body needs a content-length here\n")


class RequestCall(Call):
    """A call of the request phase.

    Args:
        message: The request.
        chain: The plugins to run.
        connection: To the gateway.
        host: What all calls share.

    Attributes:
        parking: How it is parked; None: none of its plugins waits for the response call.
    """

    __slots__ = ("_before", "_message", "_rewrite", "_scope", "parking")
    phase = "request"

    def __init__(self, message: HTTPReqCallReq, chain: Chain, connection: Connection, host: Host) -> None:
        Call.__init__(self, chain, connection, host)
        self._message = message
        # The compiled core makes a scope for the first layer alone, and keeps what is compared at the end.
        self._before: tuple[str, bytes, str, bytes, Headers] | None = None
        self._scope: dict[str, Any] | None = None
        self._rewrite: Rewrite | None = None
        self.parking: Parking | None = None

    @property
    def scope(self) -> dict[str, Any]:
        """The scope of the request, but for what each layer adds; empty: the call has not begun."""
        if self._scope is None:
            if self._before is None:
                return {}
            headers, args, index = checked_fields(self._message)
            self._scope = build_scope(self._message, headers, args, forwarded_origin(index) or _UNKNOWN, self._host.app)
        return self._scope

    @scope.setter
    def scope(self, scope: dict[str, Any]) -> None:
        self._scope = scope

    @property
    def number(self) -> int:
        """The number of the call in its frames."""
        return self._message.id

    @property
    def names(self) -> tuple[str, ...]:
        """The plugins of its list, outermost first."""
        return tuple(layer.name for layer in self.chain.acting)

    @property
    def layers(self) -> list[Layer]:
        """The layers of its list, outermost first."""
        return self.chain.acting

    def _request_line(self) -> tuple[str | None, str | None]:
        message = self._message  # a call may fail before it has a scope
        return message.method, self.scope.get("path") or (message.path or b"/").decode("utf-8", "replace")

    def _begin(self) -> Awaitable[None] | None:
        message, chain = self._message, self.chain
        headers, args, index = checked_fields(message)
        if len(headers) > MAX_HEADERS:
            logger.warning(
                "plugin %s: request refused with 431: 100 or more header fields", chain.names,
                extra={"call": self.about()},
            )  # fmt: skip
            self._answer(HTTPReqCallResp(message.id, TOO_MANY_HEADERS), "stop 431")
            return None
        if not chain.request:
            raise PluginError("it is for the response phase: list it in ext-plugin-post-resp")
        asks = chain.exact or self._host.ask_origin
        if chain.both and self._host.parked.admits(self):
            if b"transfer-encoding" in index:
                logger.warning(
                    "plugin %s: request refused with 411: APISIX hangs in ext-plugin-post-resp on a chunked request "
                    "body", chain.names, extra={"call": self.about()},
                )  # fmt: skip
                self._answer(HTTPReqCallResp(message.id, LENGTH_REQUIRED), "stop 411")
                return None
            self.parking = Parking(None)
            asks = True
        origin = forwarded_origin(index)
        scope = self._scope = build_scope(message, headers, args, origin or _UNKNOWN, self._host.app)
        if asks or origin is None:
            return self._ask_and_enter()
        return chain.begin(self, scope, self.receive, self.send)

    async def _ask_and_enter(self) -> None:
        """Run the chain on the scope once the gateway has told what the message does not."""
        parking = self.parking
        found = await self._variables(first_variables(self._message, self.chain, self._host.ask_origin))
        if parking is not None:
            if not self.request_id:
                raise PluginError(
                    "the gateway gives no $request_id, by which phase='both' finds the response of a request"
                )
            parking.uri = found.get("uri")
        _, protocol = exact_scope(self.scope, found)
        self.request_body = RequestBody(self.scope["headers"], protocol or None)
        self._join(self._host.parked.of(self.request_id))
        await self.chain.enter(self, self.scope, self.receive, self.send)

    # what the chain does

    def innermost(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        """Note what it is called with, and answer an empty 200; or park the call, and answer the real response."""
        self._messages += 1
        if (
            self._rewrite is not None
            or self.changed_body
            or self.parking is not None
            or not self._messages % YIELD_EVERY
        ):
            return self._pass_on(scope, receive, send)
        try:
            self._rewrite = self._differences(scope, None)
            if self.sent is not None or self.stage is not RUNNING:
                return send_empty(send)
            # the same, where no plugin looks at it on its way
            self._finish()
        except PluginError as exc:
            self._note(exc, forbids=True)
            raise
        return None

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do what `innermost` does, where there may be something to wait for."""
        if not self._messages % YIELD_EVERY:
            await asyncio.sleep(0)
        try:
            if self._rewrite is not None:
                raise PluginError("the upstream was called twice; the gateway sends a request once")
            # no names for the body: a parked call would keep it
            self._rewrite = self._differences(scope, await self._changed_body(receive) if self.changed_body else None)
            response = await self._park(self.parking) if self.parking is not None else None
            if response is not None:
                await self._respond(response, send)
        except PluginError as exc:
            self._note(exc, forbids=True)
            raise
        if response is None:
            await send_empty(send)

    async def _changed_body(self, receive: Receive) -> bytes | None:
        """Return the body that `receive` gives; None: it is the request's own.

        Raises:
            PluginError: The body is empty or too long, or `receive` gave something else.
            OSError: The gateway has closed the connection.
        """
        if isinstance(receive, Replay):
            receive.forget()
        whole = bytearray()
        while True:
            if self._is_turn():  # that receive need not wait for anything
                await asyncio.sleep(0)
            message = await receive()
            if message["type"] != "http.request":
                if self.stage is GONE:
                    raise OSError("the client went away")
                raise PluginError(f"receive gave {message['type']!r:.200} before the end of the request body")
            whole += memoryview(message.get("body", b""))
            if len(whole) > MAX_PAYLOAD:
                raise PluginError(f"the request body was changed to more than the protocol's {MAX_PAYLOAD} bytes")
            if not message.get("more_body", False):
                break
        own = self._body()
        if not whole and own.content is None:
            # nobody has asked for the request's own: it may be empty too
            await own.read(self._connection)
        body = bytes(whole)
        if body == own.content:
            return None
        if not body:
            raise PluginError(
                "the request body was emptied, which the protocol cannot express; a plugin that only reads the body "
                "and does not hand it on (as after request.form()) is mounted with request_body=False"
            )
        return body

    def _differences(self, scope: Scope, body: bytes | None) -> Rewrite:
        """Return what makes of the request as it came the request that the chain passed on."""
        return differences(self._scope or self.scope, scope, self._message.args, body, self._warn) or NO_CHANGE

    def _finish(self) -> None:
        if self.parking is not None and self.parking.begun:
            self._deliver(self.parking)
            return
        message, sent, rewrite = self._message, self.sent, self._rewrite
        if rewrite is None or (sent is not None and sent.status >= 400):
            assert sent is not None
            action = stop(message.method, sent.status, sent.headers, bytes(sent.content), self.chain.cures, self._warn)
            self._answer(HTTPReqCallResp(message.id, action), f"stop {sent.status}")
            return
        if self.faults is not None and self.faults.first is not None:
            raise self.faults.first  # caught by the chain: what went wrong must not let a request pass
        if sent is not None:
            rewrite = self._with_response(rewrite, sent)
        if rewrite is NO_CHANGE:
            self._answer(HTTPReqCallResp(message.id, None), "pass")
        else:
            self._answer(HTTPReqCallResp(message.id, rewrite), "rewrite")

    def _with_response(self, rewrite: Rewrite, sent: Sent) -> Rewrite:
        """Return `rewrite` with what the chain did to the empty response that stands for the upstream's."""
        if sent.status != 200:
            self._warn(
                "status",
                "in the request phase the upstream has not answered yet: a change of the status to "
                f"{sent.status} is dropped (400 and above refuse the request)",
            )
        if sent.content:
            self._warn("body", "in the request phase the upstream has not answered yet: a response body is dropped")
        resp_headers = response_headers(sent.headers, self._warn) if sent.headers else None
        if not resp_headers:
            return rewrite
        return Rewrite(rewrite.path, rewrite.headers, rewrite.args, resp_headers, rewrite.body)

    # parked

    async def _park(self, parking: Parking) -> Response:
        """Send the Rewrite, and wait for the real response."""
        if self.request_body is not None:
            # another task may read the body: with the answer this connection is over
            await self.request_body.settled()
        if self.stage is GONE:
            raise OSError("the gateway has closed the connection")
        if self.stage is not RUNNING:
            raise PluginError("an answer after the call was over")
        # shielded: a plugin that does not wait for the upstream any longer answers instead, and the gateway gets that
        # answer when its response call comes
        return await asyncio.shield(self._answer_and_park(parking))

    def _answer_and_park(self, parking: Parking) -> "asyncio.Future[Response]":
        """Send the Rewrite. Returns what the real response will come in."""
        rewrite = self._rewrite
        assert rewrite is not None
        own = self.request_body
        if rewrite.body is not None and len(rewrite.body) != len((own and own.content) or b""):
            raise PluginError(
                "the length of the request body was changed; APISIX hangs on that in ext-plugin-post-resp. Change the "
                "body in a plugin of the request phase, on a route without ext-plugin-post-resp"
            )
        if self.chain.cures:
            rewrite = self._cured(rewrite, parking.uri)
        action = None if rewrite is NO_CHANGE else rewrite
        outcome = "parked" if action is None else "rewrite, parked"
        resumed = parking.begin()
        # parked before the answer leaves: the response call may be quick
        self._host.parked.park(self)
        try:
            self._connection.answer(HTTPReqCallResp(self._message.id, action), outcome)
        except LocalProtocolError as exc:
            self._host.parked.remove(self)
            parking.undo()
            raise PluginError(str(exc)) from exc
        self.stage = Event.PARK[self.stage]  # not its end: whoever waits for a disconnect goes on waiting
        self.deadline = float("inf")
        if self.faults is not None:
            self._log_caught(outcome)
        # many calls may be parked, for a long time: without the bodies that nobody asks for any more
        self._rewrite = NO_CHANGE
        if own is not None:
            own.forget()
        return resumed

    def _cured(self, rewrite: Rewrite, uri: bytes | None) -> Rewrite:
        """Return `rewrite` with what keeps APISIX's own fetch, in ext-plugin-post-resp, from answering 502.

        That fetch sends path and query as they are, unless a Rewrite had APISIX encode them. A path that another plugin
        has set is encoded already.
        """
        message = self._message
        path, args = rewrite.path, rewrite.args
        own = message.path or b"/"
        if path is None and uri == own and needs_escaping(own):
            path = own
        if args is None:
            args = encoding_args(cast("Args", message.args or []), self.scope["query_string"])
        if path is rewrite.path and args is rewrite.args:
            return rewrite
        return Rewrite(path, rewrite.headers, args, None, rewrite.body)

    @property
    def waits(self) -> bool:
        """Whether it is parked, and waits for its response call."""
        return self.parking is not None and self.parking.waits

    async def _variables(self, names: Sequence[str]) -> dict[str, bytes | None]:
        if self.parking is not None:
            await self.parking.until_resumed()
        return await super()._variables(names)

    async def receive(self) -> Message:
        """Do what every call does; while it is parked there is nobody to ask, so it waits."""
        if self.parking is not None:
            await self.parking.until_resumed()
        return await super().receive()

    async def resume(self, response: Response, connection: Connection) -> Response:
        """Go on with the real response.

        Args:
            response: The upstream's, or what plugins further inside made of it.
            connection: Of the response call, over which the gateway is asked from now on.

        Returns:
            The chain's response.

        Raises:
            PluginError: The request half has ended.
            Exception: What the chain raised; ``parking.failed_plugin`` is the plugin.
        """
        parking = self.parking
        assert parking is not None
        if not parking.waits or self.stage is GONE:
            raise PluginError("its request half has ended")
        if self.stage is PARKED:
            self._connection = connection
            self.stage = Event.RESUME[self.stage]
        return await parking.resume(response)

    @property
    def timeout(self) -> float:
        """Seconds that the response half may take."""
        return min(layer.options.timeout for layer in self.chain.acting)

    def _deliver(self, parking: Parking) -> None:
        assert self.sent is not None
        response = self.sent.response()
        parking.deliver(response)
        self.stage = Event.ANSWER.get(self.stage, self.stage)
        self._end(f"response {response.status}")

    def _came_out(self, exc: BaseException) -> None:
        # the outermost layer was begun without its `enter`, which notes that
        if self.extension is not None:
            self.fails(exc, self.chain.acting[0].name)

    def _refuse(self, exc: BaseException, reason: str) -> None:
        parking = self.parking
        if parking is None or not parking.begun:
            super()._refuse(exc, reason)
        elif parking.owes:
            # the response call says so, and logs it
            if self.failed is not None and self.failed[0] is exc:
                parking.failed_plugin = self.failed[1]
            parking.fail(exc if isinstance(exc, Exception) else PluginError(reason))
            self.stage = Event.REFUSE[self.stage]
        elif parking.abandoned:
            logger.debug("plugin %s: %s, after nobody waited for it any more", self.chain.names, reason)
        elif self.stage is ANSWERED:
            super()._refuse(exc, reason)

    def abandon(self) -> None:
        """End it: no response call will come for it."""
        if self.parking is not None:
            self.parking.abandon()
        self._connection = CLOSED
        self.disconnect()
        if self.task is not None:
            self.task.cancel()


async def send_empty(send: Send) -> None:
    """Send the response that stands for the upstream's, which has not answered yet."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
