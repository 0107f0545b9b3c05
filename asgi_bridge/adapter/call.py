"""What the calls of both phases share: receive and send for the chain, variables, and failing closed.

The answer leaves with the final body message. What the chain does after it (background tasks) happens behind the
gateway's back; whatever goes wrong before it refuses the request.
"""

import asyncio
import logging
import weakref
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import LocalProtocolError, PluginError, RemoteProtocolError
from ..logs import handler_raised
from ..plugins import Chain, ChainCall, Layer, ShadowRun
from ..wire import ErrCode, ErrResp
from .about import about_call
from .connection import Answer, Connection, asks_for
from .faults import Faults, reason_for_refusal
from .parked_calls import ParkedCalls
from .request_body import RequestBody
from .sent import Sent
from .stage import ANSWERED, EXPIRED, GONE, OPEN, PARKED, REFUSED, RUNNING, Event, Moves
from .upstream_response import Response

__all__ = ["YIELD_EVERY", "Call", "Host"]

logger = logging.getLogger("asgi_bridge.adapter")

YIELD_EVERY = 64
"""Messages of a call after which the event loop gets its turn. Taking and giving a message needs no waiting, so a
plugin that sends or receives without end would block the whole runner, and its own deadline could not end it."""


def _ignore(exc: BaseException) -> None:
    """Do nothing: faults are in the log already."""


@dataclass(frozen=True, slots=True)
class Host:
    """What all calls of a process share.

    Attributes:
        app: The host application in ``scope["app"]``, with a ``state``.
        ask_origin: True: ask APISIX for scheme and server instead of reading them from the ``x-forwarded-*`` headers.
            Where APISIX trusts a client, these headers are the client's own.
        parked: The request halves that wait for their response half.
        on_fault: Called with each exception that refuses a call or comes after its answer. Such an exception is in the
            log already; this is for programs that want the exception itself.
        shadow: Makes the run of a shadow beside a call; None: plugins with ``shadow=True`` do not run.
    """

    app: ASGIApp
    ask_origin: bool = False
    parked: ParkedCalls = field(default_factory=ParkedCalls)
    on_fault: Callable[[BaseException], None] = _ignore
    shadow: "Callable[[Call, Host, Chain, Scope, Receive], ShadowRun] | None" = None


class Call(ChainCall):
    """One call of the gateway.

    Args:
        chain: The plugins to run.
        connection: To the gateway.
        host: What all calls share.

    Attributes:
        stage: How far it is.
        started: When its message had come, in monotonic seconds; None: nobody counts or logs every call, so nobody has
            looked at the clock.
        task: In which it runs, until its end; expiring ends it.
        scope: Of the request, but for what each layer adds.
        request_body: The request body; None: no plugin has asked for it.
        sent: The chain's response; None: no plugin has sent anything, or wrapped `send`.
        faults: The errors that went to its plugins; None: there are none.
    """

    __slots__ = (
        "_connection", "_host", "_messages", "faults", "request_body", "scope", "sent", "stage", "started", "task",
    )  # fmt: skip

    scope: dict[str, Any]

    def __init__(self, chain: Chain, connection: Connection, host: Host) -> None:
        ChainCall.__init__(self, chain)
        self._connection = connection
        self._host = host
        self._messages = 0
        self.stage = RUNNING
        self.started: float | None = None
        self.task: asyncio.Task[None] | None = None
        self.request_body: RequestBody | None = None
        self.sent: Sent | None = None
        self.faults: Faults | None = None

    @property
    def plugins(self) -> str:
        """The names of its plugins, for logs."""
        return self.chain.names

    @property
    def route_id(self) -> str | None:
        """The id of the APISIX route, if it is known."""
        return self.chain.route_id

    def about(self, plugin: str | None = None) -> dict[str, Any]:
        try:
            return about_call(self, plugin, *self._request_line(), self.started)
        except Exception:  # a plugin has broken what is read here; the line itself is needed all the more
            return {"plugin": plugin} if plugin else {}

    def _request_line(self) -> tuple[str | None, str | None]:
        """Return method and path of the request; None: not known yet."""
        return self.scope.get("method"), self.scope.get("path")

    def _log_error(self, plugin: str, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log an error that names a plugin and this call.

        Args:
            plugin: Name of the plugin.
            message: What comes behind its name, in logging's format.
            args: For `message`.
            exc_info: The exception whose traceback the log shows.
        """
        extra = {"call": self.about(plugin), "of": weakref.ref(self)}
        try:
            logger.error("plugin %s: " + message, plugin, *args, exc_info=exc_info, extra=extra)
        except Exception as exc:
            handler_raised(exc)

    async def run(self, ended: "Callable[[Call], None] | None" = None, begun: Awaitable[None] | None = None) -> None:
        """Run the call to its end, the background tasks of its applications included. Raises nothing.

        Args:
            ended: Called with it at the end, if it has a task or no answer: otherwise there is nothing to clean up.
            begun: The rest of a call that the compiled core has begun; None: it has not begun.
        """
        chain = self.chain
        if begun is None:
            chain.calls += 1
        inside = True
        try:
            running = self._begin() if begun is None else begun
            if running is not None:
                await running
            inside = False
            if self.stage is not ANSWERED and self._lacks_answer():
                raise self._what_went_wrong()
        except BaseException as exc:
            if inside:
                self._came_out(exc)
            if self.faults is not None:
                self.faults.came_out(exc)
            self._refuse(exc, reason_for_refusal(exc))
        finally:
            # exceptions hold their frames, and the frames this call: only the cyclic garbage collector would free it
            self.extension = self.state = self.apart = None
            if self.faults is not None:
                self._log_caught("nothing")
                self.faults = None
            if self.failed is not None:
                self.failed = None
            if self.request_body is not None:
                self.request_body.let_go()
                self.request_body.end()
            chain.call_ended()
            if ended is not None and (self.task is not None or self.stage is not ANSWERED):
                ended(self)
            # its context holds the extension of a plugin, and that this call
            self.task = None

    @abstractmethod
    def _begin(self) -> Awaitable[None] | None:
        """Make the scope, and begin the chain's run on it. Awaiting the result is the run; None: it is done.

        This is no coroutine itself, since most calls have nothing to wait for before their chain.
        """

    @abstractmethod
    def _finish(self) -> None:
        """Answer: the chain's response is complete.

        Raises:
            PluginError: The response cannot be the answer.
        """

    def _came_out(self, exc: BaseException) -> None:
        """Note out of which plugin `exc` came, which came out of the chain's run, unless the chain has noted it."""

    def _lacks_answer(self) -> bool:
        """Whether the chain has ended without the response that it owed."""
        return self.stage not in (ANSWERED, REFUSED, EXPIRED) and (self.sent is None or not self.sent.complete)

    def _what_went_wrong(self) -> PluginError:
        """Return the error for a chain that has ended without its response."""
        first = None if self.faults is None else self.faults.first
        return first or PluginError("it ended without a complete response")

    def expire(self, reason: str | None = None) -> None:
        """Refuse the call, and end it. After the answer there is nothing to refuse.

        Args:
            reason: For the log; None: its deadline has passed.
        """
        if self.stage not in Event.EXPIRE:
            return
        if reason is None:
            reason = self._overdue_reason()
        self._log_error(self.overdue, "request refused: %s", reason)
        self._host.on_fault(PluginError(f"plugin {self.overdue}: {reason}"))
        self._answer(ErrResp(ErrCode.SERVICE_UNAVAILABLE), "error timeout", Event.EXPIRE)
        if self.task is not None:
            self.task.cancel()

    def _overdue_reason(self) -> str:
        overdue = self.overdue.split(", ")
        seconds = min((layer.options.timeout for layer in self._layers() if layer.name in overdue), default=0.0)
        reason = f"no answer in time (option timeout: {seconds:g} s)"
        if self._has_begun():
            reason += "; it has begun to answer, but an answer is one message here: a stream without end cannot be sent"
        elif self._waits_for_changed_body():
            reason += (
                "; it has read the request body, and the receive that it hands on gives no more: mount it with "
                "request_body=False if it does not change the body"
            )
        return reason

    def _has_begun(self) -> bool:
        """Whether a response has begun, and is not complete."""
        return self.sent is not None and self.sent.status != 0 and not self.sent.complete

    def _waits_for_changed_body(self) -> bool:
        return (
            self.changed_body
            and (self.request_body is not None and self.request_body.taken)
            and (self.sent is None or self.sent.upstream is None)
        )

    def _layers(self) -> list[Layer]:
        """Return the plugins whose timeouts its deadline may come from."""
        return self.chain.acting

    def disconnect(self) -> None:
        """Note that the gateway has closed the connection."""
        self.stage = Event.CLOSE[self.stage]
        if self.request_body is not None:
            self.request_body.end()

    @property
    def connection(self) -> Connection:
        """Its side of the connection to the gateway."""
        return self._connection

    def can_ask(self) -> bool:
        """Whether the gateway can be asked for something."""
        return self.stage in OPEN

    def shadow(self, chain: Chain, scope: Scope, receive: Receive) -> ShadowRun | None:
        """Make a run of a shadow beside this call; None: none are made here."""
        make = self._host.shadow
        return None if make is None else make(self, self._host, chain, scope, receive)

    def wraps_send(self, layer: Layer) -> None:
        """Note it. Such a plugin wants the response's body, unless its mount says that it does not."""
        sent = self._sent()
        if layer.options.response_body:
            sent.wants_body = True
            sent.needs_body = sent.needs_body or layer.options.on_error == "closed"

    def _sent(self) -> Sent:
        if self.sent is None:
            self.sent = Sent(self.stage is ANSWERED)
        return self.sent

    def _join(self, earlier: "Sequence[Call]") -> None:
        """Go on with the ``state`` of the `earlier` calls of this request, which are parked."""
        others = [call for call in earlier if call.state is not None]
        if not others:
            return
        state = self.state = others[0].state
        assert state is not None
        self.apart, foreign = self.chain.states.join(state, [call.chain.states for call in others])
        for key in foreign:
            names = ", ".join(call.chain.names for call in others)
            self._warn(
                f"state {key}",
                f"its lifespan and that of another plugin of the route ({names}) both give scope['state'] the key "
                f"{key!r}: each sees its own value",
            )

    # what the chain asks

    @overload
    async def var(self, name: str, /) -> bytes | None: ...
    @overload
    async def var(self, name: str, second: str, /, *more: str) -> dict[str, bytes | None]: ...
    async def var(self, *names: str) -> bytes | dict[str, bytes | None] | None:
        """Return variables of nginx and APISIX, asked for in one round trip; None: there is no such variable."""
        if self._is_turn():
            await asyncio.sleep(0)
        try:
            if not names or not all(isinstance(name, str) and name for name in names):
                raise PluginError(f"var takes names of variables, not {names!r:.200}")
            found = await self._variables(names)
        except PluginError as exc:
            self._note(exc)
            raise
        return found if len(names) > 1 else found[names[0]]

    async def _variables(self, names: Sequence[str]) -> dict[str, bytes | None]:
        if self.stage in (ANSWERED, REFUSED, EXPIRED, PARKED):
            raise PluginError("the call has been answered: the gateway cannot be asked any more")
        values = await self._connection.ask(asks_for[tuple(names)])
        found = dict(zip(names, values, strict=True))
        self.note_request_id(found.get("request_id"))
        return found

    def note_request_id(self, request_id: bytes | None) -> None:
        """Note ``$request_id``, as the gateway has told it; None or empty: there is none."""
        if request_id:
            self.tell_request_id(request_id.decode("latin-1"))

    async def receive(self) -> Message:
        """Return the whole request body, which the gateway is asked for only now; after the answer the disconnect."""
        if self._is_turn():
            await asyncio.sleep(0)
        body = self._body()
        if not body.taken and self._is_open():
            try:
                content = await body.read(self._connection)
            except PluginError as exc:
                if self._is_open():
                    self._note(exc)
                    raise
            else:
                if not body.taken:  # by another task meanwhile
                    body.taken = True
                    return {"type": "http.request", "body": content, "more_body": False}
        if self._is_open():
            await body.until_over()
        return {"type": "http.disconnect"}

    def again(self, receive: Receive) -> Receive:
        body = self.request_body if receive == self.receive else None
        return super().again(receive) if body is None else body.again(receive)

    def _body(self) -> RequestBody:
        if self.request_body is None:
            self.request_body = RequestBody(self.scope["headers"], None)
        return self.request_body

    def _is_open(self) -> bool:
        """Whether the gateway waits for the answer."""
        return self.stage in OPEN

    async def send(self, message: Message) -> None:
        """Take a message of the chain's response. The answer leaves with the last one."""
        self._messages += 1
        if not self._messages % YIELD_EVERY:  # `_is_turn`, without the call
            await asyncio.sleep(0)
        try:
            sent = self.sent
            if sent is None:
                sent = self.sent = Sent(self.stage is ANSWERED)
            if sent.complete or self.stage is GONE:
                self._refuse_message(message["type"], sent)
            elif sent.take(message):
                self._finish()
                sent.complete = True
        except PluginError as exc:
            self._note(exc, forbids=True)
            raise

    def _refuse_message(self, kind: str, sent: Sent) -> None:
        """Refuse a message that nobody waits for any more."""
        if kind == "http.response.debug":
            return
        if sent.complete:
            raise PluginError(f"{kind} after the response was complete")
        raise OSError("the gateway has closed the connection")

    def _is_turn(self) -> bool:
        """Count a message. Returns True if the event loop has to get its turn before the message is dealt with."""
        self._messages += 1
        return not self._messages % YIELD_EVERY

    def _note(self, exc: PluginError, *, forbids: bool = False) -> None:
        """See to it that `exc`, which goes to a plugin, gets into the log even if the plugin catches it.

        Args:
            exc: The error.
            forbids: True: the request must not go upstream after it.
        """
        faults = self.faults
        if faults is None:
            faults = self.faults = Faults()
        if forbids and faults.first is None:
            faults.first = exc
        if self.stage in (ANSWERED, REFUSED, PARKED):
            self._log_error(self.chain.names, "a fault after its answer, which stands: %s", exc)
            faults.logged = exc
        elif self.stage not in (EXPIRED, GONE):
            faults.note(exc)

    def _log_caught(self, outcome: str) -> None:
        """Log the errors that went to a plugin and did not come out of it."""
        assert self.faults is not None
        caught = self.faults.take_caught()
        if self.stage is not GONE:
            for text in caught:
                self._log_error(self.chain.names, "%s; the plugin caught this error and answered: %s", text, outcome)

    # a real response

    async def _respond(self, response: Response, send: Send) -> None:
        """Give the chain `response`, its body only where a plugin wants it."""
        sent = self._sent()
        if sent.upstream is not None:
            raise PluginError("the upstream was called twice; the gateway sends a request once")
        body = response.body
        if not isinstance(body, bytes):
            if sent.wants_body and body.too_long and not sent.needs_body:
                self._warn("long", "the upstream's body is too long to be handed over, and passes as it is")
                sent.wants_body = False
            if sent.wants_body:
                body = await response.read()
        sent.upstream = Response(response.status, response.headers, body)
        await send({"type": "http.response.start", "status": response.status, "headers": list(response.headers)})
        content = body if isinstance(body, bytes) else b""
        if content and all(name != b"content-length" for name, _ in response.headers):
            # It was streamed, and middleware treats such a response in its own way: GZip compresses it however short.
            await send({"type": "http.response.body", "body": content, "more_body": True})
            content = b""
        await send({"type": "http.response.body", "body": content, "more_body": False})

    # the end

    def _answer(self, message: Answer, outcome: str, moves: Moves = Event.ANSWER) -> None:
        stage = moves.get(self.stage)
        if stage is None:  # it took too long; the connection may carry another call by now
            raise PluginError("an answer after the call was over")
        if self.stage is not GONE:
            try:
                self._connection.answer(message, outcome)
            except LocalProtocolError as exc:
                raise PluginError(str(exc)) from exc
        self.stage = stage
        if self.request_body is not None or self.faults is not None:
            self._end(outcome)

    def _end(self, outcome: str) -> None:
        """Tell its parts that the answer is out.

        Args:
            outcome: The answer, for the log.
        """
        if self.request_body is not None:
            self.request_body.end()
        if self.faults is not None:
            self._log_caught(outcome)

    def _refuse(self, exc: BaseException, reason: str) -> None:
        """Fail closed, unless the answer is out: then it stands."""
        stage = self.stage
        plugin = self.failed[1] if self.failed is not None and self.failed[0] is exc else self.chain.names
        if stage is EXPIRED:
            logger.debug("plugin %s: after its time was over: %s", plugin, reason)
            return
        self._host.on_fault(exc if isinstance(exc, Exception) else PluginError(f"plugin {plugin}: {reason}"))
        if stage in (ANSWERED, REFUSED, PARKED) or (self.sent is not None and self.sent.complete):
            logged = self.faults is not None and self.faults.logged is exc
            if not logged and not isinstance(exc, asyncio.CancelledError):
                self._log_error(plugin, "a fault after its answer, which stands: %s", reason, exc_info=exc)
        elif stage is GONE:
            logger.debug("plugin %s: %s, after the gateway had closed the connection", plugin, reason)
        else:
            code = ErrCode.BAD_REQUEST if isinstance(exc, RemoteProtocolError) else ErrCode.SERVICE_UNAVAILABLE
            expected = isinstance(exc, PluginError | RemoteProtocolError | asyncio.CancelledError)
            self._log_error(plugin, "request refused: %s", reason, exc_info=None if expected else exc)
            self._answer(ErrResp(code), "error", Event.REFUSE)

    def _warn(self, about: str, text: str) -> None:
        self.chain.warn_once(about, text)
