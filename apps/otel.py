"""``otel``: makes an OpenTelemetry span for each request, a child of the client's span and a parent of the upstream's.

The span continues the client's trace, as ``traceparent`` or any other header of ``OTEL_PROPAGATORS`` names it. The
upstream gets a new header of that kind. Spans that inner plugins start are children of the span. Mounted with
``phase="both"`` and listed in both phases, the span lasts until the upstream has answered, and has the status that the
client gets. Listed in the request phase alone, it covers the inner plugins.

The operator sets up OpenTelemetry's SDK, which decides where spans go. Without the SDK nothing is recorded, and headers
pass unchanged::

    pip install opentelemetry-distro opentelemetry-exporter-otlp
    opentelemetry-instrument asgi-bridge run asgi_bridge_apps:bridge

The package opentelemetry-instrumentation-asgi is for servers. It makes a further span for each message, and gives the
upstream no header.
"""

from collections.abc import Mapping
from typing import Annotated

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from pydantic import Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import apisix, upstream
from asgi_bridge.trace_headers import carrier

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
    """Make a span for each request.

    Args:
        conf: The route's configuration.
        provider: Makes the spans; None uses the provider of the process.
    """
    tracer = trace.get_tracer("asgi_bridge_apps.otel", tracer_provider=provider)

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await upstream(scope, receive, send)
            return
        propagator = propagate.get_global_textmap()
        fields = {field.lower().encode("latin-1") for field in propagator.fields}
        # attached, so that inner plugins see the baggage too
        token = context.attach(
            propagator.extract(carrier(scope["headers"], fields) if conf.trust_client else {}, Context())
        )
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


def _inject(propagator: TextMapPropagator, scope: Scope, fields: set[bytes]) -> None:
    """Replace the client's tracing headers by those of the current span."""
    injected: dict[str, str] = {}
    propagator.inject(injected)
    after = without(scope["headers"], fields)
    after += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in injected.items()]
    if sorted(after) != sorted(scope["headers"]):
        scope["headers"] = after


def _attributes(scope: Scope) -> Mapping[str, str]:
    """Return the attributes of a span, by OpenTelemetry's names for HTTP servers.

    The query is left out, because it may contain secrets.
    """
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
