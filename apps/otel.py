"""``otel``: an OpenTelemetry span for each request, child of the client's and parent of the upstream's.

The span continues ``traceparent`` (whatever ``OTEL_PROPAGATORS`` says), the upstream gets the new one, and spans that
plugins behind it start are inside. Mounted with ``phase="both"`` and listed in both phases it lasts until the upstream
has answered, and has the status that the client gets; listed in the request phase alone it covers the plugins.

Where spans go is the operator's: OpenTelemetry's own ways to set up its SDK work, and without one nothing is
recorded and headers pass unchanged::

    pip install opentelemetry-distro opentelemetry-exporter-otlp
    opentelemetry-instrument asgi-bridge run asgi_bridge_apps:bridge

The package opentelemetry-instrumentation-asgi is for servers: it makes a span more for each message, and does not tell
the upstream.
"""

import re
from collections.abc import Mapping
from typing import Annotated

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from pydantic import Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import apisix, upstream

from ._shared.conf import Conf, most
from ._shared.headers import dashed, without

__all__ = ["OtelConf", "otel"]


Attribute = Annotated[str, Field(max_length=1024)]


class OtelConf(Conf):
    """What ``otel`` takes."""

    attributes: Annotated[dict[Attribute, Attribute], *most(100)] = Field(
        default={}, description="Further attributes of each span."
    )
    trust_client: bool = Field(
        default=True, description="False: the client's trace is not continued, a new one begins with each request."
    )


def otel(conf: OtelConf, provider: TracerProvider | None = None) -> ASGIApp:
    """Makes a span of each request.

    Args:
        conf: the route's configuration.
        provider: makes the spans; the one that was set up for the process without it.
    """
    tracer = trace.get_tracer("asgi_bridge_apps.otel", tracer_provider=provider)

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await upstream(scope, receive, send)
            return
        propagator = propagate.get_global_textmap()
        fields = {field.lower().encode("latin-1") for field in propagator.fields}
        # attached, so that its baggage is there for the plugins too
        token = context.attach(propagator.extract(_carrier(scope, fields) if conf.trust_client else {}, Context()))
        try:
            attributes = {**_attributes(scope), **conf.attributes}
            with tracer.start_as_current_span(scope["method"], kind=SpanKind.SERVER, attributes=attributes) as span:
                _inject(propagator, scope, fields)

                async def observed(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        _finish(span, message["status"])
                    await send(message)

                await upstream(scope, receive, observed)
        finally:
            context.detach(token)

    return traced


_SIZES = {b"baggage": (8192, 64), b"tracestate": (2048, 32)}
"""Bytes and members of the headers that are lists (W3C Baggage, 3.3.2; Trace Context, 3.3.1.1)."""
_SIZE = 512
"""Bytes of the others."""

_name = rb"[!#$%&'*+.^_`|~0-9A-Za-z/@-]+"
_value = rb"[\x21-\x2b\x2d-\x3a\x3c-\x7e]*"
_member = re.compile(rb"[ \t]*" + _name + rb"[ \t]*=[ \t]*" + _value + rb"[ \t]*(;[\t\x20-\x2b\x2d-\x7e]*)?")
_one = re.compile(rb"[\x21-\x7e]*")


def _readable(name: bytes, value: bytes) -> bool:
    """Whether a propagator gets to see a client's header: OpenTelemetry reads lists of any length, and has a log line,
    which repeats it, for each member that is malformed."""
    size, members = _SIZES.get(name, (_SIZE, 0))
    if len(value) > size or value.count(b",") >= max(members, 1):
        return False
    return all(map(_member.fullmatch, value.split(b","))) if members else bool(_one.fullmatch(value))


def _carrier(scope: Scope, fields: set[bytes]) -> dict[str, str]:
    """The client's headers that a propagator reads. One that is there twice is not read: which would be meant?

    Baggage alone may have several lines (W3C Baggage, 3.1).
    """
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        if name.lower() in fields:
            found.setdefault(name.lower(), []).append(value)
    joined = {name: b",".join(values) for name, values in found.items() if len(values) == 1 or name in _SIZES}
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in joined.items() if _readable(name, value)}


def _inject(propagator: TextMapPropagator, scope: Scope, fields: set[bytes]) -> None:
    """Tells the upstream of the current span, in place of what the client told."""
    told: dict[str, str] = {}
    propagator.inject(told)
    after = without(scope["headers"], fields)
    after += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in told.items()]
    if sorted(after) != sorted(scope["headers"]):
        scope["headers"] = after


def _attributes(scope: Scope) -> Mapping[str, str]:
    """As the semantic conventions of HTTP server spans name them. No query: it may hold secrets."""
    found: dict[str, str | None] = {
        "http.request.method": scope["method"],
        "url.scheme": scope["scheme"],
        "url.path": scope["path"],
        "client.address": scope["client"][0] if scope.get("client") else None,
        "server.address": scope["server"][0] if scope.get("server") else None,
        "user_agent.original": next(
            (value.decode("latin-1") for name, value in scope["headers"] if dashed(name) == b"user-agent"), None
        ),
        "apisix.route_id": apisix(scope).route_id,
    }
    return {name: value for name, value in found.items() if value}


def _finish(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))
