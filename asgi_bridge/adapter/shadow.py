"""Runs of shadows beside a call: what the plugin's answer would have been, without a trace on the call.

A run is a call of its own, with the code of the real ones, so its answer is the one that the plugin would have given.
What it answers goes to :class:`Beside` and no further. That object is also its way to the gateway, which can be asked
only while the real call is open.
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import cast

from starlette.types import Message, Receive, Scope, Send

from ..apisix_constants import BODYLESS_STATUSES
from ..errors import PluginError
from ..plugins import Chain, ShadowRun
from ..plugins.shadow_record import Verdict
from ..wire import ErrResp, HTTPReqCallReq, HTTPReqCallResp, HTTPRespCallReq, Info, Rewrite, Stop, TextEntry, Var
from .answer import answer_response
from .call import Call, Host
from .connection import Answer, Connection
from .faults import Faults
from .request import RequestCall
from .request_body import RequestBody, UnframedRequestBody
from .response import ResponseCall
from .scope import Headers, parse_query
from .stage import EXPIRED, REFUSED, RUNNING, Event
from .upstream_response import Response, UpstreamBody

__all__ = ["MAX_BODY", "SETTLE_SECONDS", "shadow_run"]

MAX_BODY = 64 * 1024
"""Maximum size of a body that a shadow gets, in bytes. nginx has read a request body of this size, or reads it before
it calls the upstream, so asking for it delays nothing that would not wait anyway."""
SETTLE_SECONDS = 0.1
"""Seconds that a request waits, at most, for the gateway's answers to what a shadow asks first."""
MAX_NAMES = 20
"""Maximum number of names of headers or arguments in a line."""

_TOO_LONG = f"it reads the request body, which a shadow gets up to {MAX_BODY} bytes of known length"
_TURNS = 3
"""Turns of the event loop until a plugin goes on, once the gateway has answered what it asked."""
_WITHOUT_BODY = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
"""Methods that have no body, if no header says otherwise."""


class Beside:
    """A run's way to the gateway, and the place of its answer.

    Args:
        real: The call that it runs beside.
        receive: The receive that the plugin would have got.

    Attributes:
        verdict: What the plugin would have done; None: nothing is known yet.
        late: True: it asked for something after the real call was answered.
        missing: Why the verdict would tell nothing; None: it does.
        request: Method and path, for the log.
    """

    __slots__ = ("_asked", "_own_receive", "_real", "late", "missing", "request", "verdict")

    def __init__(self, real: Call, receive: Receive, scope: Scope) -> None:
        self._real: Call | None = real
        self._own_receive = receive == real.receive
        self._asked: list[asyncio.Future[list[bytes | None]]] = []
        self.verdict: Verdict | None = None
        self.late = False
        self.missing: str | None = None
        self.request = f"{scope['method']} {scope['path']}"

    def ask(self, infos: Sequence[Info]) -> "asyncio.Future[list[bytes | None]]":
        """Ask the gateway, if the real call is open."""
        real = self._real
        if real is None or not real.can_ask():
            return self._too_late()
        return self._follow(real.connection.ask(infos))

    def _too_late(self) -> "asyncio.Future[list[bytes | None]]":
        self.late = True
        return self.refused("it asked the gateway too late, for which requests wait from now on")

    def refused(self, reason: str) -> "asyncio.Future[list[bytes | None]]":
        """Return a failed future, after which the verdict tells nothing."""
        self.missing = self.missing or reason
        future: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        future.set_exception(PluginError(reason))
        future.exception()
        return future

    def _follow(self, future: "asyncio.Future[list[bytes | None]]") -> "asyncio.Future[list[bytes | None]]":
        self._asked.append(future)
        future.add_done_callback(self._answered)
        return future

    def _answered(self, future: "asyncio.Future[list[bytes | None]]") -> None:
        if self.verdict is None and (future.cancelled() or future.exception() is not None):
            real = self._real
            self.late = self.late or real is None or not real.can_ask()
            self.missing = self.missing or "the gateway has not answered what it asked"

    def answer(self, message: Answer, outcome: str) -> None:
        """Take the answer, for which nobody waits."""
        if self.verdict is not None:
            return
        if self.missing is not None:
            self.verdict = Verdict("unknown", f"nothing is known: {self.missing}", self.request, logging.INFO)
        elif isinstance(message, HTTPReqCallResp):
            self.verdict = _verdict(message, self.request)

    def fault(self, outcome: str, text: str) -> None:
        """Note that the run has failed.

        Args:
            outcome: ``"error"`` or ``"timeout"``.
            text: For the log.
        """
        if self.verdict is None and self.missing is None:
            self.verdict = Verdict(outcome, text, self.request)
        else:
            self.answer(ErrResp(), outcome)

    async def settle(self) -> None:
        """Wait until the gateway has answered what was asked, and what is asked after that, but not long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SETTLE_SECONDS
        await asyncio.sleep(0)
        while True:
            pending = [future for future in self._asked if not future.done()]
            left = deadline - loop.time()
            if not pending or left <= 0:
                return
            await asyncio.wait(pending, timeout=left)
            for _ in range(_TURNS):
                await asyncio.sleep(0)

    # bodies

    def request_body(self) -> RequestBody:
        """Return the request body for the plugin: the real one, where its length is known and allowed."""
        real = self._real
        if real is None or not self._own_receive:
            reason = "it reads the request body, which an outer plugin may change"
            return _Withheld(self, reason if real is not None else "it reads the request body after the request")
        headers: Headers = real.scope["headers"]
        index = dict(headers)
        known = real.request_body
        protocol = None if known is None else known.protocol
        if known is not None and known.content is not None and len(known.content) <= MAX_BODY:
            return _Known(headers, known.content)
        if isinstance(known, UnframedRequestBody):
            return _Bounded(self, headers, protocol)
        length = index.get(b"content-length")
        if b"transfer-encoding" not in index and b"expect" not in index:
            if length is not None and length.isdigit() and int(length) <= MAX_BODY:
                return RequestBody(headers, protocol)
            framed = protocol is not None and protocol.startswith(b"HTTP/1.")
            if length is None and (framed or real.scope["method"] in _WITHOUT_BODY):
                return RequestBody(headers, b"HTTP/1.1")
        return _Withheld(self, _TOO_LONG)

    def upstream_body(self) -> "asyncio.Future[list[bytes | None]] | None":
        """Ask the gateway for the upstream's body. Returns the future of the answer; None: a shadow does not get it."""
        real = self._real
        body = real.real_body if isinstance(real, ResponseCall) else None
        if body is None or body.bodyless or not body.length or body.length > MAX_BODY:
            return None
        assert real is not None
        if body.content is None and not real.can_ask():
            return self._too_late()
        return self._follow(body.ask())

    def passes_without_body(self) -> bool:
        """Whether the upstream's body passes the real call without being fetched."""
        sent = None if self._real is None else self._real.sent
        return sent is not None and sent.upstream is not None and isinstance(sent.upstream.body, UpstreamBody)

    def let_go(self) -> None:
        """Drop the real call."""
        self._real = None
        self._asked.clear()


class _Known(RequestBody):
    """A request body that the real call has got already."""

    __slots__ = ()

    def __init__(self, headers: Headers, content: bytes) -> None:
        super().__init__(headers, None)
        self._asked = asyncio.get_running_loop().create_future()
        # as the gateway answers, with and without a content-length
        has_length = any(name == b"content-length" for name, _ in headers)
        self._asked.set_result([content] if has_length else [None, content, None])


class _Bounded(UnframedRequestBody):
    """A request body of the response phase. Only the gateway's answer tells whether a shadow gets it."""

    __slots__ = ("_beside",)

    def __init__(self, beside: Beside, headers: Headers, protocol: bytes | None) -> None:
        super().__init__(headers, protocol)
        self._beside = beside

    async def read(self, connection: Connection) -> bytes:
        if self.content is None:
            await self._learn_framing(connection)
            length, has_body = self._framing()
            if has_body is not False and not (length is not None and length.isdigit() and int(length) <= MAX_BODY):
                await self._beside.refused(_TOO_LONG)
        return await super().read(connection)


class _Withheld(RequestBody):
    """A request body that a shadow does not get."""

    __slots__ = ("_beside", "_reason")

    def __init__(self, beside: Beside, reason: str) -> None:
        super().__init__([], None)
        self._beside = beside
        self._reason = reason

    async def read(self, connection: object) -> bytes:
        await self._beside.refused(self._reason)
        raise AssertionError


class _Run(Call):
    """What runs of both phases share. It writes no log, and refuses nothing."""

    __slots__ = ()
    _connection: Beside

    @property
    def verdict(self) -> Verdict | None:
        return self._connection.verdict

    @property
    def late(self) -> bool:
        return self._connection.late

    async def settle(self) -> None:
        """Wait for what the plugin asks first."""
        await self._connection.settle()

    async def run(self, ended: object = None, begun: object = None) -> None:
        """Run the plugin to its end."""
        beside = self._connection
        try:
            await super().run()
        finally:
            if beside.verdict is None:
                beside.fault("error", "it would have refused the request: it gave no answer")
            beside.let_go()

    def _body(self) -> RequestBody:
        if self.request_body is None:
            self.request_body = self._connection.request_body()
        return self.request_body

    def expire(self, reason: str | None = None) -> None:
        """End it, because the plugin's timeout is over."""
        if self.stage in Event.EXPIRE:
            seconds = self.chain.layers[0].options.timeout
            self._connection.fault("timeout", f"it would have refused the request: no answer within {seconds:g} s")
            self.stage = EXPIRED
        if self.task is not None:
            self.task.cancel()

    def _refuse(self, exc: BaseException, reason: str) -> None:
        if self.stage is not RUNNING:
            return
        task = self.task
        if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
            self._connection.missing = "it was cut off by the shutdown"
        self._connection.fault("error", f"it would have refused the request: {reason}")
        self.stage = REFUSED

    def _note(self, exc: PluginError, *, forbids: bool = False) -> None:
        if forbids:
            if self.faults is None:
                self.faults = Faults()
            self.faults.first = self.faults.first or exc

    def _copy(self, real: Call, scope: Scope) -> None:
        """Take what the plugin would have got."""
        self.request_id = real.request_id
        self.scope = dict(scope)
        self.state = scope["state"]

    def _log_caught(self, outcome: str) -> None:
        pass

    def _warn(self, about: str, text: str) -> None:
        pass


class ShadowRequest(_Run, RequestCall):
    """A run beside a call of the request phase.

    Args:
        real: That call.
        host: What all calls share.
        chain: The plugin alone.
        scope: A copy of what the plugin would have got.
        receive: What the plugin would have got.
    """

    __slots__ = ()

    def __init__(self, real: Call, host: Host, chain: Chain, scope: Scope, receive: Receive) -> None:
        args = cast("list[TextEntry]", parse_query(scope["query_string"]))
        message = HTTPReqCallReq(0, None, scope["method"], scope["path"].encode("utf-8", "replace"), args)
        RequestCall.__init__(self, message, chain, Beside(real, receive, scope), host)
        self._copy(real, scope)

    def _begin(self) -> Awaitable[None] | None:
        return self.chain.begin(self, self.scope, self.receive, self.send)

    def watch(self, send: Send) -> Send:
        """Return `send`: there is no response to see yet."""
        return send

    def lose(self) -> None:
        """Do nothing: there was no response to see."""


class ShadowResponse(_Run, ResponseCall):
    """A run beside a call of the response phase. It gets the response that passes.

    Args:
        real: That call.
        host: What all calls share.
        chain: The plugin alone.
        scope: A copy of what the plugin would have got.
        receive: What the plugin would have got.
    """

    __slots__ = ("_names", "_passing")

    def __init__(self, real: ResponseCall, host: Host, chain: Chain, scope: Scope, receive: Receive) -> None:
        ResponseCall.__init__(self, HTTPRespCallReq(), chain, Beside(real, receive, scope), host)
        self._copy(real, scope)
        self._names = [name for name in chain.request_headers if name not in real.chain.request_headers]
        self._sections = [(None, 0, 1)]
        self._passing: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    async def _begin(self) -> None:
        if self._names:
            await self._add_headers()
        await self.chain.enter(self, self.scope, self.receive, self.send)

    async def _add_headers(self) -> None:
        """Put the request headers into the scope that only this plugin sees."""
        values = await self._connection.ask([Var(b"http_" + name.replace("-", "_").encode()) for name in self._names])
        pairs = zip(self._names, values, strict=True)
        there = {name for name, _ in self.scope["headers"]}
        more = [(name.encode(), value) for name, value in pairs if value is not None and name.encode() not in there]
        self.scope["headers"] = [*self.scope["headers"], *more]

    async def _response_of(self, section: int) -> Response:
        """Return the response that passes, with its body if the plugin wants one."""
        asked = None
        if self.sent is not None and self.sent.wants_body:
            asked = self._connection.upstream_body()
        passing = await self._passing
        self._real = passing
        assert isinstance(passing.body, UpstreamBody)
        if asked is not None and not passing.body.bodyless and passing.body.content is None:
            (passing.body.content,) = await asyncio.shield(asked)
        return passing

    def _finish_with(self, response: Response) -> None:
        real = self._real or Response(0, [], UpstreamBody(_never, None, False))
        answer_response(self.scope["method"], real, response, self.chain.cures, self._warn)
        beside = self._connection
        if beside.missing is None:
            beside.verdict = beside.verdict or _response_verdict(real, response, beside.request)
        self._answer(ErrResp(), "response")

    def watch(self, send: Send) -> Send:
        """Return a `send` that shows this run what goes through it."""
        status, headers, body, sized = 0, [], bytearray(), True

        def see(message: Message) -> None:
            nonlocal status, headers, sized
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
            elif message["type"] == "http.response.body":
                content = message.get("body", b"")
                sized = sized and len(body) + len(content) <= MAX_BODY
                if sized:
                    body.extend(content)
                if not message.get("more_body", False):
                    self._passing.set_result(self._response(status, headers, bytes(body) if sized else None))

        async def passing(message: Message) -> None:
            await send(message)
            if not self._passing.done():
                try:
                    see(message)
                except Exception:  # no such message is one of HTTP; whether that matters is for others to say
                    self.lose()

        return passing

    def _response(self, status: int, headers: Headers, content: bytes | None) -> Response:
        bodyless = self.scope["method"] == "HEAD" or status in BODYLESS_STATUSES
        length = dict(headers).get(b"content-length", b"")
        body = UpstreamBody(self._withheld, int(length) if length.isdigit() else None, bodyless)
        if content or not self._connection.passes_without_body():
            body.content = content
        return Response(status, headers, body)

    def _withheld(self) -> "asyncio.Future[list[bytes | None]]":
        """Return the body that the plugin asks for, if it passed."""
        body = None if self._real is None else self._real.body
        if isinstance(body, UpstreamBody) and body.content is not None:
            future: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
            future.set_result([body.content])
            return future
        return self._connection.refused(
            f"it reads the upstream's body, which a shadow gets up to {MAX_BODY} bytes of known length; "
            "response_body=False if it leaves the body alone"
        )

    def lose(self) -> None:
        """Note that the response has not passed."""
        if not self._passing.done():
            self._connection.missing = self._connection.missing or "the request failed before its response"
            self._passing.cancel()


def shadow_run(real: Call, host: Host, chain: Chain, scope: Scope, receive: Receive) -> ShadowRun:
    """Make a run of a shadow beside a call.

    Args:
        real: That call.
        host: What all calls share.
        chain: The plugin alone.
        scope: A copy of what the plugin would have got.
        receive: What the plugin would have got.
    """
    if real.phase == "request":
        return ShadowRequest(real, host, chain, scope, receive)
    return ShadowResponse(cast("ResponseCall", real), host, chain, scope, receive)


def _never() -> "asyncio.Future[list[bytes | None]]":
    raise PluginError("there is no response")


def _verdict(message: HTTPReqCallResp, request: str) -> Verdict:
    action = message.action
    if isinstance(action, Stop):
        return Verdict(f"stop {action.status}", f"it would have answered {action.status}", request)
    if isinstance(action, Rewrite):
        changes = [
            *(["path"] if action.path is not None else []),
            *_named("headers", [name for name, _ in action.headers or ()]),
            *_named("arguments", [name for name, _ in action.args or ()]),
            *(["body"] if action.body is not None else []),
            *_named("response headers", [name for name, _ in action.resp_headers or ()]),
        ]
        return Verdict("rewrite", f"it would have changed {', '.join(changes)}", request, logging.INFO)
    return Verdict("pass", "", request)


def _response_verdict(real: Response, response: Response, request: str) -> Verdict:
    assert isinstance(real.body, UpstreamBody)
    if not real.status:
        return Verdict(f"response {response.status}", f"it would have answered {response.status}", request)
    before, after = set(real.headers), set(response.headers)
    content = real.body.content
    changes = [
        *([f"the status {real.status} to {response.status}"] if response.status != real.status else []),
        *_named("headers", sorted({name for name, _ in before ^ after})),
        *(["body"] if isinstance(response.body, bytes) and response.body != (content or b"") else []),
    ]
    if not changes:
        return Verdict("pass", "", request)
    level = logging.WARNING if response.status >= 400 > real.status else logging.INFO
    return Verdict(f"response {response.status}", f"it would have changed {', '.join(changes)}", request, level)


def _named(what: str, names: Sequence[bytes | None]) -> list[str]:
    """Return `what` with its names, without values, which may be secrets; empty: there are none."""
    shown = [name.decode("latin-1") for name in dict.fromkeys(names) if name is not None]
    if not shown:
        return []
    rest = f" and {len(shown) - MAX_NAMES} more" if len(shown) > MAX_NAMES else ""
    return [f"{what} {' '.join(shown[:MAX_NAMES])}{rest}"]
