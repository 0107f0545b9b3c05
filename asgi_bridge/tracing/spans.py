"""What the spans of calls and those of plugins share: parents, attributes, and faults.

No span shows a secret of a configuration. Texts of exceptions may hold one, and so may a path.

Samplers, span processors and propagators are the operator's, and OpenTelemetry lets what they raise through. It ends in
the log: a request is worth more than its span.
"""

import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import INVALID_SPAN, Span, Status, StatusCode, Tracer

from ..errors import PluginError, RemoteProtocolError
from ..hiding import SECRETS
from ..logs import one_line, traceback_text
from ..plugins.reasons import text_of
from ..trace_headers import carrier

__all__ = ["end", "extracted", "fail", "note_exception", "propagated_headers", "shown", "start", "type_of"]

logger = logging.getLogger("asgi_bridge.tracing")


def start(tracer: Tracer, name: str, *args: Any, **kwargs: Any) -> Span:
    """Start a span, and do not make it the current one.

    Args:
        tracer: Makes it.
        name: Its name.
        args, kwargs: Further arguments of ``Tracer.start_span``.
    """
    try:
        return tracer.start_span(name, *args, **kwargs)
    except Exception:
        logger.exception("OpenTelemetry: a sampler or span processor failed, so there is no span")
        return INVALID_SPAN


def end(span: Span) -> None:
    """End a span."""
    try:
        span.end()
    except Exception:
        logger.exception("OpenTelemetry: a span processor failed, so a span is lost")


def propagated_headers() -> frozenset[bytes]:
    """Return the names of the headers that the global propagator reads, in lower case."""
    return _headers_of(propagate.get_global_textmap())


@lru_cache(maxsize=4)
def _headers_of(propagator: TextMapPropagator) -> frozenset[bytes]:
    return frozenset(field.lower().encode("latin-1") for field in propagator.fields)


def extracted(headers: Iterable[tuple[bytes | None, bytes | None]]) -> Context:
    """Return the context that the headers of a request carry: the client's span, and its baggage.

    Args:
        headers: Names and values; names in any case.
    """
    try:
        return propagate.get_global_textmap().extract(carrier(headers, propagated_headers()), Context())
    except Exception:
        logger.exception("OpenTelemetry: the propagator failed, so a new trace begins")
        return Context()


def shown(text: str) -> str:
    """Return `text` as a span may show it: one line, without secrets of configurations."""
    return one_line(SECRETS.taken_out(text))


def type_of(exc: BaseException) -> str:
    """Return the name of an exception's class, with its module unless that is built in."""
    cls = type(exc)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def fail(span: Span, reason: str, kind: str) -> None:
    """Set the status of a span to ERROR.

    Args:
        span: The span.
        reason: What went wrong.
        kind: The attribute ``error.type``: an exception's class, or a word.
    """
    span.set_status(Status(StatusCode.ERROR, shown(reason)))
    span.set_attribute("error.type", kind)


def note_exception(span: Span, exc: BaseException) -> None:
    """Add an exception to a span, as an event. The runner's own errors say all in their text, and have no traceback."""
    attributes = {"exception.type": type_of(exc), "exception.message": shown(text_of(exc))}
    if not isinstance(exc, PluginError | RemoteProtocolError):
        attributes["exception.stacktrace"] = traceback_text(exc)
    span.add_event("exception", attributes)
