"""Keeps what observers record, to compare it: metrics, spans, events; without times, ids, and what a gateway adds.

A configuration names these objects as it would name a project's own. The `new_` functions make new ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import asgi_prometheus
import elasticapm
import sentry_sdk
import starlette_exporter
from elasticapm.transport.base import Transport as ApmBase
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY, CollectorRegistry
from sentry_sdk.transport import Transport as SentryBase

__all__: list[str] = []


# prometheus

registry = CollectorRegistry()


def new_registry() -> None:
    global registry
    registry = CollectorRegistry()


def _samples(source: CollectorRegistry, prefix: str = "") -> list[Any]:
    """Return all samples without times."""
    return sorted(
        (sample.name, sorted(sample.labels.items()), sample.value)
        for family in source.collect()
        for sample in family.samples
        if sample.name.startswith(prefix)
        and not sample.name.endswith("_created")
        and not (("duration" in sample.name) and not sample.name.endswith("_count"))
    )


def registry_samples() -> list[Any]:
    return _samples(registry)


def clear_exporter() -> None:
    """Forget the metrics of starlette-exporter, which are on its class and in the registry of the process."""
    metrics = starlette_exporter.PrometheusMiddleware._metrics
    for metric in metrics.values():
        REGISTRY.unregister(metric)
    metrics.clear()


def exporter_samples() -> list[Any]:
    return _samples(REGISTRY, "gate_")


def clear_asgi_prometheus() -> None:
    """Return the metrics of asgi-prometheus, which are in its module."""
    for metric in _ASGI_PROMETHEUS:
        metric.clear()


def asgi_prometheus_samples() -> list[Any]:
    return [
        sample
        for sample in _samples(REGISTRY)
        if sample[0].startswith(("requests_", "responses_", "exceptions_"))
        and not sample[0].startswith("requests_time_")
    ]


_ASGI_PROMETHEUS = (
    asgi_prometheus.REQUESTS,
    asgi_prometheus.REQUESTS_TIME,
    asgi_prometheus.REQUESTS_IN_PROGRESS,
    asgi_prometheus.RESPONSES,
    asgi_prometheus.EXCEPTIONS,
)


# timing-asgi


class Timings:
    """A client of timing-asgi."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, Sequence[str]]] = []

    def timing(self, metric_name: str, timing: float, tags: Sequence[str]) -> None:
        self.taken.append((metric_name, list(tags)))


timings = Timings()


# OpenTelemetry

spans = InMemorySpanExporter()
tracer_provider = TracerProvider(shutdown_on_exit=False)
metric_reader = InMemoryMetricReader()
meter_provider = MeterProvider([metric_reader], shutdown_on_exit=False)


def new_telemetry() -> None:
    global spans, tracer_provider, metric_reader, meter_provider
    spans, metric_reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer_provider = TracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(SimpleSpanProcessor(spans))
    meter_provider = MeterProvider([metric_reader], shutdown_on_exit=False)


def telemetry() -> list[Any]:
    """Return spans with name, kind, status, attributes and the trace that they continue, and metrics with counts."""
    finished = [
        (
            span.name,
            span.kind.name,
            span.status.status_code.name,
            sorted((key, str(value)) for key, value in (span.attributes or {}).items()),
            f"{span.context.trace_id:032x}" if span.parent is not None and span.parent.is_remote else "",
            [event.name for event in span.events],
        )
        for span in spans.get_finished_spans()
    ]
    data = metric_reader.get_metrics_data()
    metrics = [
        (
            metric.name,
            sorted((key, str(value)) for key, value in (point.attributes or {}).items()),
            getattr(point, "count", None),
            getattr(point, "sum", None) if "size" in metric.name else None,
        )
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]
    return [*finished, *sorted(metrics, key=repr)]


# Sentry


class SentryTransport(SentryBase):
    """Keeps what the package would send."""

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Any) -> None:
        self.events += [item.payload.json for item in envelope.items if item.payload.json is not None]


sentry = SentryTransport()


def new_sentry() -> None:
    global sentry
    sentry = SentryTransport()
    sentry_sdk.init(
        "https://key@sentry.test/1",
        transport=sentry,
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
        send_default_pii=True,
    )


def sentry_events() -> list[Any]:
    """Return transactions and errors."""
    sentry_sdk.flush()
    events = []
    for event in sentry.events:
        request = event.get("request", {})
        trace = event.get("contexts", {}).get("trace", {})
        events.append({
            "type": event.get("type", "error"),
            "transaction": event.get("transaction"),
            "op": trace.get("op"),
            "status": trace.get("status"),
            "data": trace.get("data", {}).get("http.response.status_code"),
            "continued": trace.get("trace_id") if trace.get("trace_id") == CONTINUED else "",
            "request": [request.get(key) for key in ("method", "url", "query_string")],
            "headers": sorted((name, value) for name, value in request.get("headers", {}).items() if _compared(name)),
            "env": request.get("env"),
            "exceptions": [each["type"] for each in event.get("exception", {}).get("values", ())],
        })  # fmt: skip
    sentry.events.clear()
    return events


CONTINUED = "771a43a4192642f0b136d5159a501700"


def _compared(name: str) -> bool:
    return not name.lower().startswith("x-forwarded-") and name.lower() not in ("connection", "x-real-ip")


# Elastic APM


class ApmTransport(ApmBase):
    """Keeps what the package would send."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        apm_events.clear()

    def queue(self, event_type: str, data: Any, flush: bool = False) -> None:
        apm_events.append((event_type, data))

    def start_thread(self, pid: int | None = None) -> None: ...


apm_events: list[tuple[str, Any]] = []


def new_apm() -> None:
    client = elasticapm.get_client()
    if client is not None:
        client.close()
        elasticapm.base.set_client(None)


def apm_recorded() -> list[Any]:
    """Return transactions and errors."""
    recorded = []
    for kind, data in apm_events:
        context = data.get("context", {})
        request = context.get("request", {})
        recorded.append({
            "kind": kind,
            "name": data.get("name"),
            "result": data.get("result"),
            "outcome": data.get("outcome"),
            "exception": data.get("exception", {}).get("type"),
            "continued": data.get("trace_id") if data.get("trace_id") == CONTINUED else "",
            "method": request.get("method"),
            "url": request.get("url"),
            "from": request.get("socket"),
            "headers": sorted((name, value) for name, value in request.get("headers", {}).items() if _compared(name)),
            "body": request.get("body"),
            "status": context.get("response", {}).get("status_code"),
        })  # fmt: skip
    apm_events.clear()
    return recorded
