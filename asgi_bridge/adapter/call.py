"""What the calls of both phases share: receive and send for the chain, variables, and failing closed.

The answer leaves with the final body message. What the chain does after it (background tasks) happens behind the
gateway's back; whatever goes wrong before it refuses the request.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import LocalProtocolError, PluginError, RemoteProtocolError
from ..plugins import Apart, Apisix, Chain, Layer, State, Step
from ..plugins.reasons import reason_of, text_of
from ..wire import MAX_PAYLOAD, ErrCode, ErrResp, Info, ReqBody, Var
from .answer import check_status
from .changes import checked_headers, shown
from .exchange import Answer, Exchange
from .parking import ParkingLot
from .upstream import Response, UpstreamBody

if TYPE_CHECKING:
    from .scope import Headers

__all__ = ["ALL", "NOTHING", "YIELD_EVERY", "Call", "Host"]

logger = logging.getLogger("asgi_bridge.adapter")


YIELD_EVERY = 64
"""Messages of a call after which the event loop gets its turn. Taking and giving a message needs no waiting, so a
plugin that sends or receives without end would block the whole runner, and its own deadline could not end it."""
MAX_CAUGHT = 8
"""Number of errors of one call that are logged although the plugin has caught them."""


def _untold(exc: BaseException) -> None:
    """Does nothing: faults are in the log already."""


@dataclass(frozen=True, slots=True)
class Host:
    """What all calls of a process share.

    Attributes:
        app: the host application in ``scope["app"]``, with a ``state``.
        ask_origin: ask APISIX for scheme and server instead of reading them from the ``x-forwarded-*`` headers. Where
            APISIX trusts a client, these headers are the client's own.
        lot: the parked calls: request halves that wait for their response.
        on_fault: called with every exception that refuses a call or comes after its answer; for tests.
    """

    app: ASGIApp
    ask_origin: bool = False
    lot: ParkingLot = field(default_factory=ParkingLot)
    on_fault: Callable[[BaseException], None] = _untold


# How much of its response a chain has sent. Plain numbers: to get at members of an Enum takes a call in Python 3.11.
NOTHING, START, ALL = range(3)
_NEVER = float("inf")


class Call(ABC):
    """One call of the gateway.

    Args:
        chain: the plugins to run.
        exchange: the way back to the gateway.
        host: what all calls share.

    Attributes:
        phase: ``"request"`` or ``"response"``.
        task: in which it runs, until its end; expiring ends it.
        answered: the gateway has its answer.
    """

    __slots__ = (
        "_body", "_body_ask", "_body_taken", "_caught", "_chain", "_content", "_disconnected", "_ended", "_exchange",
        "_expired", "_fault", "_given", "_headers", "_host", "_length", "_logged", "_messages", "_protocol", "_reads",
        "_reads_closed", "_scope", "_sent", "_status", "_wrapped", "answered", "apart", "changed_body", "culprit",
        "deadline", "end", "extensions", "late", "request_id", "route_id", "state", "task", "__weakref__",
    )  # fmt: skip
    phase: str

    def __init__(self, chain: Chain, exchange: Exchange, host: "Host") -> None:
        self.route_id = chain.route_id
        self.request_id: str | None = None
        self.deadline = _NEVER
        self.late = chain.names
        self.changed_body = False
        self.culprit: tuple[BaseException, str] | None = None
        self.extensions: list[Apisix] = []
        self.end: Step | None = None
        self.state: State | None = None
        self.apart: Apart[Layer] | None = None
        self.task: asyncio.Task[None] | None = None
        self.answered = False
        self._chain = chain
        self._exchange = exchange
        self._host = host
        self._scope: dict[str, Any] = {}
        self._body: bytes | None = None
        self._body_ask: asyncio.Future[list[bytes | None]] | None = None
        self._body_taken = False
        self._sent = NOTHING
        self._status = 0
        self._headers: Headers = []
        self._content: bytes | bytearray = b""
        self._length = 0
        self._messages = 0
        self._protocol: bytes | None = None
        self._given: Response | None = None
        self._wrapped = False
        self._reads = False
        self._reads_closed = False
        self._fault: PluginError | None = None
        self._logged: PluginError | None = None
        self._caught: dict[str, None] | None = None
        self._expired = False
        self._disconnected = False
        self._ended: asyncio.Future[None] | None = None

    async def run(self, ended: "Callable[[Call], None] | None" = None) -> None:
        """Runs the call to its end, the background tasks of its applications included. Raises nothing.

        Args:
            ended: called with it at the end.
        """
        self._chain.calls += 1
        inside = True
        try:
            running = self._begin()
            if running is not None:
                await running
            inside = False
            if not self.answered:
                raise self._fault or PluginError("it ended without a complete response")
        except BaseException as exc:
            if inside:
                self._blame(exc)
            if self._caught is not None:
                self._caught.pop(text_of(exc), None)  # nobody has caught it
            self._refuse(exc, _reason(exc))
        finally:
            # exceptions hold their frames, and the frames this call: only the cyclic garbage collector would free it
            self.extensions.clear()
            self.state = self.apart = None
            if self._caught is not None:
                self._log_caught("nothing")
            if self.culprit is not None or self._fault is not None or self._logged is not None:
                self.culprit = self._fault = self._logged = None
            self._body_ask = None
            self._end()
            self._chain.leave()
            if ended is not None:
                ended(self)
            # its context holds the extension of a plugin, and that this call
            self.task = None

    @abstractmethod
    def _begin(self) -> Awaitable[None] | None:
        """Makes the scope, and gives the chain's run on it; None: the call is answered.

        No coroutine itself, since most calls have nothing to wait for before their chain.
        """

    @abstractmethod
    def upstream(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        """The innermost application; None: it has nothing to wait for, and is through."""

    @abstractmethod
    def _blame(self, exc: BaseException) -> None:
        """An exception came out of the chain's run: notes out of which plugin, if that is not known yet."""

    @abstractmethod
    def _complete(self) -> None:
        """The chain's response is complete: answers. Raises PluginError for what cannot be answered."""

    def expire(self, reason: str | None = None) -> None:
        """Refuses the call, and ends it. After the answer there is nothing to refuse.

        Args:
            reason: for the log; None: its deadline has passed.
        """
        if self.answered:
            return
        self._expired = True
        if reason is None:
            reason = self._lateness()
        logger.error("plugin %s: request refused: %s", self.late, reason)
        self._host.on_fault(PluginError(f"plugin {self.late}: {reason}"))
        self._answer(ErrResp(ErrCode.SERVICE_UNAVAILABLE), "error timeout")
        if self.task is not None:
            self.task.cancel()

    def _lateness(self) -> str:
        late = self.late.split(", ")
        seconds = min((layer.options.timeout for layer in self._layers() if layer.name in late), default=0.0)
        reason = f"no answer in time (option timeout: {seconds:g} s)"
        if self._has_begun():
            reason += "; it has begun to answer, but an answer is one message here: a stream without end cannot be sent"
        elif self.changed_body and self._body_taken and self._given is None:
            reason += (
                "; it has read the request body, and the receive that it hands on gives no more: mount it with "
                "request_body=False if it does not change the body"
            )
        return reason

    def _has_begun(self) -> bool:
        """Whether a response has begun, and is not complete."""
        return self._sent == START

    def _layers(self) -> list[Layer]:
        """The plugins that its deadline may be due to."""
        return self._chain.layers

    def disconnect(self) -> None:
        """The gateway has closed the connection."""
        self._disconnected = True
        self._end()

    def wraps_send(self, layer: Layer) -> None:
        """A plugin hands on another `send` than it was given: it wants the response's body, unless it says not."""
        self._wrapped = True
        if layer.options.response_body:
            self._reads = True
            self._reads_closed = self._reads_closed or layer.options.on_error == "closed"

    def _join(self, earlier: "Sequence[Call]") -> None:
        """Goes on with the ``state`` of the `earlier` calls of this request, which are parked."""
        others = [call for call in earlier if call.state is not None]
        if not others:
            return
        state = self.state = others[0].state
        assert state is not None
        self.apart, foreign = self._chain.states.join(state, [call._chain.states for call in others])
        for key in foreign:
            names = ", ".join(call._chain.names for call in others)
            self._warn(
                f"state {key}",
                f"its lifespan and that of another plugin of the route ({names}) both give scope['state'] the key "
                f"{key!r}: each sees its own value",
            )

    # what the chain asks

    @property
    def plugins(self) -> str:
        """The names of its plugins, for logs."""
        return self._chain.names

    @overload
    async def var(self, name: str, /) -> bytes | None: ...
    @overload
    async def var(self, name: str, second: str, /, *more: str) -> dict[str, bytes | None]: ...
    async def var(self, *names: str) -> bytes | dict[str, bytes | None] | None:
        """Variables of nginx and APISIX, in one round trip; None: there is no such."""
        if self._is_turn():
            await asyncio.sleep(0)
        try:
            if not names or not all(isinstance(name, str) and name for name in names):
                raise PluginError(f"var takes names of variables, not {names!r:.200}")
            found = await self._variables(names)
        except PluginError as exc:
            self._may_be_caught(exc)
            raise
        return found if len(names) > 1 else found[names[0]]

    async def _variables(self, names: Sequence[str]) -> dict[str, bytes | None]:
        if self.answered:
            raise PluginError("the call has been answered: the gateway cannot be asked any more")
        values = await self._exchange.ask([Var(name.encode()) for name in names])
        found = dict(zip(names, values, strict=True))
        request_id = found.get("request_id")
        if request_id:
            self.request_id = request_id.decode("latin-1")
            for extension in self.extensions:
                extension["request_id"] = self.request_id
        return found

    async def receive(self) -> Message:
        """The whole request body, asked for only now; then, when the response is over, the disconnect."""
        if self._is_turn():
            await asyncio.sleep(0)
        if not (self._body_taken or self.answered or self._disconnected):
            try:
                body = await self._request_body()
            except PluginError as exc:
                if not (self.answered or self._disconnected):
                    self._may_be_caught(exc)
                    raise
            else:
                if not self._body_taken:  # by another task meanwhile
                    self._body_taken = True
                    return {"type": "http.request", "body": body, "more_body": False}
        if not (self.answered or self._disconnected):
            if self._ended is None:
                self._ended = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._ended)
        return {"type": "http.disconnect"}

    async def _request_body(self) -> bytes:
        if self._body is None:
            length, has_body = self._body_headers()
            if has_body is False or (self._body_ask is not None and self._body_ask.done()):
                # Without a step of the loop in between, Starlette's request.is_disconnected(), which cancels a
                # receive that does not return at once, would swallow the body.
                await asyncio.sleep(0)
            if has_body is False:
                self._body = b""
            else:
                if self._body_ask is None:
                    self._check_body_length()
                    self._body_ask = self._exchange.ask(_BODY if length is not None else _BODY_IF_ANY)
                told = await asyncio.shield(self._body_ask)
                self._body = _told_body(length, told)
        return self._body

    def _body_headers(self) -> tuple[bytes | None, bool | None]:
        """The content-length, and whether there may be a request body; None: nothing that is known tells.

        Before HTTP/2 a body has a content-length or a transfer-encoding (RFC 9112, 6.3); since then it needs neither.
        """
        index = dict(self._scope["headers"])
        length: bytes | None = index.get(b"content-length")
        if length is not None:
            return length, length.strip(b"0") != b""
        if b"transfer-encoding" in index:
            return None, True
        return None, None if self._protocol is None else not self._protocol.startswith(b"HTTP/1.")

    def _check_body_length(self) -> None:
        for name, value in self._scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value) > MAX_PAYLOAD):
                raise PluginError(
                    f"the request body has {shown(value)} bytes, and only {MAX_PAYLOAD} can be handed over; "
                    "mount the plugin with request_body=False if it does not change the body"
                )

    async def send(self, message: Message) -> None:
        """Takes the chain's response; the answer leaves with its last message."""
        self._messages += 1
        if not self._messages % YIELD_EVERY:  # `_is_turn`, without the call
            await asyncio.sleep(0)
        try:
            kind = message["type"]
            if self._sent == ALL or self._disconnected:
                self._refuse_message(kind)
            elif kind == "http.response.start":
                if self._sent != NOTHING:
                    raise PluginError("http.response.start twice")
                self._status = check_status(message.get("status"))
                headers = message.get("headers")
                if headers:
                    given = self._given
                    self._headers = checked_headers(headers, () if given is None else given.headers)
                self._sent = START
            elif kind == "http.response.body":
                if self._sent != START:
                    raise PluginError("http.response.body before http.response.start")
                body = message.get("body")
                if body:
                    if type(body) is not bytes:
                        body = _as_bytes(body)
                    self._length += len(body)
                    if self._length > MAX_PAYLOAD:
                        raise PluginError(f"the response body is longer than the protocol's {MAX_PAYLOAD} bytes")
                    if not self._content:
                        self._content = body
                    else:
                        if isinstance(self._content, bytes):
                            self._content = bytearray(self._content)
                        self._content += body
                if not message.get("more_body", False):
                    self._complete()
                    self._sent = ALL
            elif kind != "http.response.debug":
                raise PluginError(f"a message of type {kind!r:.200} is none of an HTTP response")
        except PluginError as exc:
            self._fault = self._fault or exc
            self._may_be_caught(exc)
            raise

    def _is_turn(self) -> bool:
        """Counts a message; whether the event loop has to get its turn before it is dealt with."""
        self._messages += 1
        return not self._messages % YIELD_EVERY

    def _may_be_caught(self, exc: PluginError) -> None:
        """Sees to it that `exc`, which goes to a plugin, gets into the log even if the plugin catches it."""
        if self._expired or self._disconnected:
            return
        if self.answered:
            logger.error("plugin %s: a fault after its answer, which stands: %s", self._chain.names, exc)
            self._logged = exc
            return
        if self._caught is None:
            self._caught = {}
        if len(self._caught) < MAX_CAUGHT:
            self._caught[text_of(exc)] = None

    def _log_caught(self, said: str) -> None:
        """Logs the errors that went to a plugin and did not come out of it."""
        caught, self._caught = self._caught, None
        if not self._disconnected:
            for text in caught or ():
                logger.error(
                    "plugin %s: %s; it has caught this error, and its answer is: %s", self._chain.names, text, said
                )

    def _refuse_message(self, kind: str) -> None:
        """For a message that nobody waits for any more."""
        if kind == "http.response.debug":
            return
        if self._sent == ALL:
            raise PluginError(f"{kind} after the response was complete")
        raise OSError("the gateway has closed the connection")

    # a real response

    async def _respond(self, response: Response, send: Send) -> None:
        """Gives the chain `response`, its body only where somebody wants it."""
        if self._given is not None:
            raise PluginError("the upstream was called twice; the gateway sends a request once")
        body = response.body
        if not isinstance(body, bytes):
            if self._reads and body.too_long and not self._reads_closed:
                self._warn("long", "the upstream's body is too long to be handed over, and passes as it is")
                self._reads = False
            if self._reads:
                body = await response.read()
        self._given = Response(response.status, response.headers, body)
        await send({"type": "http.response.start", "status": response.status, "headers": list(response.headers)})
        content = body if isinstance(body, bytes) else b""
        if content and all(name != b"content-length" for name, _ in response.headers):
            # It was streamed, and middleware treats such a response in its own way: GZip compresses it however short.
            await send({"type": "http.response.body", "body": content, "more_body": True})
            content = b""
        await send({"type": "http.response.body", "body": content, "more_body": False})

    def _response(self) -> Response:
        """The chain's response."""
        body: bytes | UpstreamBody = bytes(self._content)
        given = self._given
        if given is not None and isinstance(given.body, UpstreamBody):
            if body and not given.body.too_long:
                raise PluginError("the response body was changed by a plugin that is mounted with response_body=False")
            body = given.body
        return Response(self._status, self._headers, body)

    # the end

    def _answer(self, message: Answer, said: str) -> None:
        if self.answered:  # it took too long; the connection may carry another call by now
            raise PluginError("an answer after the call was over")
        if not self._disconnected:
            try:
                self._exchange.answer(message, said)
            except LocalProtocolError as exc:
                raise PluginError(str(exc)) from exc
        self.answered = True
        self._end()
        if self._caught is not None:
            self._log_caught(said)

    def _refuse(self, exc: BaseException, reason: str) -> None:
        """Fails closed, unless the answer is out: then it stands."""
        culprit = self.culprit[1] if self.culprit is not None and self.culprit[0] is exc else self._chain.names
        if not self._expired:
            self._host.on_fault(exc if isinstance(exc, Exception) else PluginError(f"plugin {culprit}: {reason}"))
        if self.answered:
            if self._expired:
                logger.debug("plugin %s: after its time was over: %s", culprit, reason)
            elif exc is not self._logged and not isinstance(exc, asyncio.CancelledError):
                logger.error("plugin %s: a fault after its answer, which stands: %s", culprit, reason, exc_info=exc)
            return
        if self._disconnected:
            logger.debug("plugin %s: %s, after the gateway had closed the connection", culprit, reason)
            return
        code = ErrCode.BAD_REQUEST if isinstance(exc, RemoteProtocolError) else ErrCode.SERVICE_UNAVAILABLE
        expected = isinstance(exc, PluginError | RemoteProtocolError | asyncio.CancelledError)
        logger.error("plugin %s: request refused: %s", culprit, reason, exc_info=None if expected else exc)
        self._answer(ErrResp(code), "error")

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _warn(self, about: str, text: str) -> None:
        self._chain.warn_once(about, text)


def _as_bytes(body: Any) -> bytes:
    try:
        return bytes(memoryview(body))  # bytes() alone takes a number for a length
    except TypeError:
        raise PluginError(f"the body of http.response.body is {type(body).__name__}; it has to be bytes") from None


_BODY: Sequence[Info] = (ReqBody(),)
_BODY_IF_ANY: Sequence[Info] = (Var(b"server_protocol"), ReqBody(), Var(b"request_body_file"))
"""Asked for where no content-length tells, in this order: the file is there once the body has been read."""


def _told_body(length: bytes | None, told: list[bytes | None]) -> bytes:
    """The request body, out of what ``_BODY`` or, without a content-length, ``_BODY_IF_ANY`` were answered with.

    Trap: APISIX gives nil for an empty body, and also for one that it could not read from its own temporary file.

    Raises:
        PluginError: there is a body, and it could not be read.
    """
    body = told[0] if length is not None else told[1]
    if body is None and (length is not None or told[2]):
        size = f"{shown(length)} bytes" if length is not None else "a body without content-length"
        raise PluginError(
            f"the gateway could not read the request body ({size}): its error log says why; is its disk full, or "
            "client_body_temp_path not readable?"
        )
    return body or b""


def _reason(exc: BaseException) -> str:
    if isinstance(exc, PluginError):
        return text_of(exc)
    if isinstance(exc, asyncio.CancelledError):
        task = asyncio.current_task()
        return "it was cut off by the shutdown" if task and task.cancelling() else "CancelledError"
    return reason_of(exc)
