"""The span of a call, from its message to its answer, as the gateway sees it."""

import time
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Tracer

from ..adapter import Answer, Call, Connection
from ..wire import Info
from .spans import end, fail, note_exception, shown, start, type_of

if TYPE_CHECKING:
    import asyncio

    from opentelemetry.util.types import AttributeValue

__all__ = ["CallSpan"]


class CallSpan:
    """The span of one call, and its connection to the gateway: an answer ends the span.

    Args:
        tracer: Makes the spans.
        connection: The real connection.

    Attributes:
        tracer: As the argument.
        call: The call. None once the span has ended, or the two would hold each other until the garbage collector runs.
        span: The span; None: it has not begun.
    """

    __slots__ = ("_connection", "call", "span", "tracer")

    def __init__(self, tracer: Tracer, connection: Connection) -> None:
        self._connection = connection
        self.tracer = tracer
        self.call: Call | None = None
        self.span: Span | None = None

    def ask(self, infos: Sequence[Info]) -> "asyncio.Future[list[bytes | None]]":
        """Ask the gateway."""
        return self._connection.ask(infos)

    def answer(self, message: Answer, outcome: str) -> None:
        """Answer the call, then end the span."""
        self._connection.answer(message, outcome)
        self.end(outcome)

    def begin(self, call: Call, parent: Context, links: Sequence[Link] = ()) -> Span:
        """Begin the span, and make it the current one of this task.

        Args:
            call: The call.
            parent: Holds the parent's span, and the baggage.
            links: To the spans of other calls of the request.
        """
        about = call.about()
        attributes: dict[str, AttributeValue] = {
            "apisix.phase": call.phase,
            "asgi_bridge.plugins": call.chain.names,
        }
        for key, name in (("method", "http.request.method"), ("path", "url.path")):
            if key in about:
                attributes[name] = shown(about[key])
        name, route = call.phase, call.route_id
        if route is not None:
            name = f"{name} {route}"
            attributes["http.route"] = attributes["apisix.route_id"] = route
        assert call.started is not None  # calls look at the clock where they are traced
        started = time.time_ns() - int((monotonic() - call.started) * 1e9)
        self.span = start(self.tracer, name, parent, SpanKind.SERVER, attributes, links, started)
        context.attach(trace.set_span_in_context(self.span, parent))
        return self.span

    def refuse(self, exc: BaseException, reason: str) -> None:
        """Note why the call will be refused, unless the span has ended.

        Args:
            exc: What was raised.
            reason: The same for people.
        """
        call = self.call
        if call is None:
            return
        span = self.span or self.begin(call, Context())
        if span.is_recording():
            failed = call.failed[1] if call.failed is not None and call.failed[0] is exc else call.chain.names
            span.set_attribute("asgi_bridge.failed_plugin", failed)
            fail(span, reason, type_of(exc))
            note_exception(span, exc)

    def end(self, outcome: str) -> None:
        """End the span, unless it has ended.

        Args:
            outcome: The answer in a word or two, as the access log has it.
        """
        call, self.call = self.call, None
        if call is None:
            return
        span = self.span or self.begin(call, Context())
        if span.is_recording():
            action, _, status = outcome.partition(" ")
            attributes: dict[str, AttributeValue] = {
                "asgi_bridge.action": action.rstrip(","),
                "asgi_bridge.outcome": outcome,
            }
            if call.request_id is not None:
                attributes["apisix.request_id"] = shown(call.request_id)
            if "scheme" in call.scope:
                attributes["url.scheme"] = call.scope["scheme"]
            if outcome == "error timeout":
                attributes["asgi_bridge.failed_plugin"] = call.overdue
                fail(span, "no answer in time", "timeout")
            elif status.isdigit():
                attributes["http.response.status_code"] = int(status)
                if int(status) >= 500:
                    fail(span, outcome, status)
            span.set_attributes(attributes)
        end(span)
