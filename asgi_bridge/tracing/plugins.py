"""The spans of plugins.

A plugin's span is current while the plugin runs. So the spans that the plugin makes are its children, and so is the
span of the next plugin inwards, which this one calls.
"""

import asyncio
from typing import TYPE_CHECKING

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Tracer
from starlette.types import ASGIApp, Receive, Scope, Send

from ..adapter import RequestCall
from ..plugins import ChainCall, Layer, apisix
from ..plugins.reasons import reason_of
from .spans import end, fail, note_exception, start, type_of

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.util.types import AttributeValue

__all__ = ["traced"]


def traced(tracer: Tracer, layer: Layer) -> ASGIApp:
    """Return the application of a layer, with a span around each run.

    Args:
        tracer: Makes the spans.
        layer: One of a chain that was just built.
    """
    app, name = layer.app, f"plugin {layer.name}"
    attributes: dict[str, AttributeValue] = {"asgi_bridge.plugin": layer.name}
    if layer.options.shadow:
        attributes["asgi_bridge.shadow"] = True
    of_phase = {phase: {**attributes, "apisix.phase": phase} for phase in ("request", "response")}

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        call = apisix(scope)._call
        span = start(tracer, name, kind=SpanKind.INTERNAL, attributes=of_phase[call.phase])
        token: Token[Context] | None = context.attach(trace.set_span_in_context(span))
        try:
            await app(scope, receive, send)
        except GeneratorExit:  # somebody has thrown the coroutine away, in a context that may be another one
            token = None
            raise
        except BaseException as exc:
            _note(span, exc, call)
            raise
        finally:
            if token is not None:
                context.detach(token)
            end(span)

    return run


def _note(span: Span, exc: BaseException, call: ChainCall) -> None:
    """Note what came out of a plugin on its span. The exception itself is shown where it came out first."""
    if not span.is_recording():
        return
    if isinstance(exc, asyncio.CancelledError):
        parking = call.parking if isinstance(call, RequestCall) else None
        if parking is not None and (parking.waits or parking.abandoned):
            span.add_event("no response call came")
        else:
            fail(span, "it was cancelled: its time was over, or the process ends", "cancelled")
        return
    fail(span, reason_of(exc), type_of(exc))
    if call.failed is None or call.failed[0] is not exc:
        note_exception(span, exc)
