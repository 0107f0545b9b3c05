"""Spans that a test can read: OpenTelemetry's real SDK, which keeps them in memory."""

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from asgi_bridge import Bridge
from asgi_bridge.server.runner import RunnerOptions
from asgi_bridge.testing import Gateway

__all__ = ["CLIENT", "PARENT", "TRACE", "Spans", "Tree", "attributes_of", "context_of", "route"]

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLIENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1", "baggage": "a=1"}
"""Headers of a client with a trace."""

Tree = tuple[str, list[Any]]
"""Name of a span, and the trees of its children in the order in which they began."""


class Spans:
    """The spans of a process.

    Attributes:
        provider: makes them.
    """

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def all(self) -> list[ReadableSpan]:
        """All that have ended, in the order in which they began."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def of(self, name: str) -> ReadableSpan:
        """Return the span of this name. There has to be one."""
        (found,) = [span for span in self.all if span.name == name]
        return found

    def trees(self) -> list[Tree]:
        """Return the spans without a parent among them, each with what is below it."""
        known = {context_of(span).span_id for span in self.all}
        return [self._tree(span) for span in self.all if span.parent is None or span.parent.span_id not in known]

    def _tree(self, span: ReadableSpan) -> Tree:
        below = [each for each in self.all if each.parent and each.parent.span_id == context_of(span).span_id]
        return span.name, [self._tree(each) for each in below]

    def request(
        self,
        bridge: Bridge,
        routes: Sequence[Any],
        path: str = "/a",
        *,
        upstream: ASGIApp | None = None,
        headers: Any = None,
        options: RunnerOptions | None = None,
    ) -> int:
        """Send a request through the gateway and a runner, and stop them. Returns the status."""
        gateway = Gateway(bridge, routes, upstream, options=options)
        with TestClient(gateway, raise_server_exceptions=False) as client:
            return client.get(path, headers=headers).status_code


def context_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def route(*plugins: str, post_resp: Sequence[str] = (), conf: str = "{}") -> dict[str, Any]:
    """Return the route ``r`` that lists plugins in the request phase, and others in the response phase."""
    lists = {"ext-plugin-pre-req": plugins, "ext-plugin-post-resp": post_resp}
    return {
        "id": "r",
        "uri": "/*",
        "plugins": {
            each: {"conf": [{"name": name, "value": conf} for name in names]} for each, names in lists.items() if names
        },
    }


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})
