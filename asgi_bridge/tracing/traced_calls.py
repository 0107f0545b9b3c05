"""Calls with a span.

The span of a call lasts until its answer. What the plugins do after that (background tasks, a response half) is in
their own spans. The span is current in the task of the call::

    request call                                     response call
    └─ plugin a                                      ├─ plugin c
       └─ plugin b (phase="both")                    └─ plugin b: the part after the upstream's response
          └─ parked: until the response call

In the response phase the gateway tells the headers only when it is asked for them, so that span begins a little late,
with the right start time.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Tracer

from ..adapter import Call, Connection, Host, RequestCall, ResponseCall
from ..adapter.parking import Parking
from ..adapter.upstream_response import Response
from ..plugins import Chain
from ..plugins.reasons import reason_of
from ..wire import HTTPReqCallReq, HTTPRespCallReq
from .call_span import CallSpan
from .spans import end, extracted, fail, propagated_headers, start, type_of

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

__all__ = ["TracedRequestCall", "TracedResponseCall"]


class _Traced(Call):
    """What the traced calls of both phases share.

    Attributes:
        trace: Its span.
    """

    __slots__ = ()
    trace: CallSpan

    def disconnect(self) -> None:
        """Note that the gateway has closed the connection."""
        super().disconnect()
        self.trace.end("gone")

    def _refuse(self, exc: BaseException, reason: str) -> None:
        self.trace.refuse(exc, reason)
        super()._refuse(exc, reason)


class TracedRequestCall(_Traced, RequestCall):
    """A call of the request phase, with a span.

    Args:
        tracer: Makes the spans.
        message: The request.
        chain: The plugins to run.
        connection: To the gateway.
        host: What all calls share.
    """

    __slots__ = ("trace",)

    def __init__(
        self, tracer: Tracer, message: HTTPReqCallReq, chain: Chain, connection: Connection, host: Host
    ) -> None:
        self.trace = CallSpan(tracer, connection)
        RequestCall.__init__(self, message, chain, self.trace, host)
        self.trace.call = self

    async def run(self, ended: Callable[[Call], None] | None = None, begun: Awaitable[None] | None = None) -> None:
        """Run the call in its span."""
        self.trace.begin(self, extracted(self._message.headers or ()))
        await super().run(ended, begun)

    async def _park(self, parking: Parking) -> Response:
        span = start(self.trace.tracer, "parked")
        try:
            return await super()._park(parking)
        finally:
            end(span)

    async def resume(self, response: Response, connection: Connection) -> Response:
        """Go on with the real response. This runs in the task of the response call, whose span gets a child.

        Where another process has the response call, there is no such span. Then the span of this call gets it.
        """
        names = ", ".join(self.names)
        attributes: dict[str, AttributeValue] = {"asgi_bridge.plugin": names, "apisix.phase": "response"}
        parent = None
        if self.trace.span is not None and not trace.get_current_span().get_span_context().is_valid:
            parent = trace.set_span_in_context(self.trace.span)
        span = start(self.trace.tracer, f"plugin {names}", parent, attributes=attributes, links=self.links())
        try:
            return await super().resume(response, connection)
        except Exception as exc:  # the span of the plugin's run shows it
            fail(span, reason_of(exc), type_of(exc))
            raise
        finally:
            end(span)

    def links(self) -> list[Link]:
        """Return a link to its span, for those of the response call."""
        return [] if self.trace.span is None else [Link(self.trace.span.get_span_context())]


class TracedResponseCall(_Traced, ResponseCall):
    """A call of the response phase, with a span.

    Args:
        tracer, chain, connection, host: As of :class:`TracedRequestCall`.
        message: The upstream's status and headers.
    """

    __slots__ = ("_headers", "trace")

    def __init__(
        self, tracer: Tracer, message: HTTPRespCallReq, chain: Chain, connection: Connection, host: Host
    ) -> None:
        self.trace = CallSpan(tracer, connection)
        ResponseCall.__init__(self, message, chain, self.trace, host)
        self.trace.call = self
        self._headers: list[tuple[bytes, bytes | None]] | None = None

    async def _variables(self, names: Sequence[str]) -> dict[str, bytes | None]:
        """Ask for the tracing headers together with what the call itself asks for first."""
        if self._headers is not None:
            return await super()._variables(names)
        fields = {"http_" + field.decode("latin-1").replace("-", "_"): field for field in propagated_headers()}
        found = await super()._variables(list(dict.fromkeys((*names, *fields))))
        self._headers = [(field, found[variable]) for variable, field in fields.items()]
        return {name: found[name] for name in names}

    def _join(self, earlier: Sequence[Call]) -> None:
        """Begin the span: now the call knows its headers, and the request halves that it resumes."""
        if self.trace.call is not None:
            links = [link for half in earlier if isinstance(half, TracedRequestCall) for link in half.links()]
            parent = extracted(self._headers or ())
            if links and not trace.get_current_span(parent).get_span_context().is_valid:
                # without a client's trace both calls of the request are in the trace that its first call has begun
                parent = trace.set_span_in_context(NonRecordingSpan(links[0].context), parent)
            self.trace.begin(self, parent, links)
        super()._join(earlier)
