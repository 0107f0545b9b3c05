"""Metrics, traces and error reports: what the packages recorded is compared too."""

from ...compare import Request, get, sent
from .. import recorders
from ..stage import Row

__all__ = ["ROWS"]

FAULTY = {"middleware": "tests.alike.ecosystem.inside:Faulty", "phase": "both"}
TRACEPARENT = f"00-{recorders.CONTINUED}-00f067aa0ba902b7-01"

WATCHED: list[Request] = [
    get("/status/500"),
    get("/text", traceparent=TRACEPARENT),
    sent("POST", "/echo", b"x" * 1000, traceparent=TRACEPARENT),
    get("https://a.test/text"),
    sent("HEAD", "/json"),
]
FAULTS = [get("/text?a=1", x_fault="before", limit="fault"), get("/text", x_fault="start", limit="fault")]


ROWS = [
    Row(
        "instrumentator",
        "prometheus-fastapi-instrumentator",
        {
            "instrumentator": {
                "middleware": "prometheus_fastapi_instrumentator.middleware:PrometheusInstrumentatorMiddleware",
                "phase": "both",
                "defaults": {"registry": "tests.alike.ecosystem.recorders:registry", "should_group_untemplated": False},
            },
            "faulty": FAULTY,
        },
        "both",
        [*WATCHED, *FAULTS],
        inside=[("faulty", {})],
        reset=recorders.new_registry,
        recorded=recorders.registry_samples,
        remark="metrics compared",
    ),
    Row(
        "asgi-prometheus",
        "asgi-prometheus",
        {
            "asgi-prometheus": {"middleware": "asgi_prometheus:PrometheusMiddleware", "phase": "both"},
            "faulty": FAULTY,
        },
        "both",
        [*WATCHED, *FAULTS, get("/json/deep/down")],
        conf={"group_paths": ["/json"]},
        inside=[("faulty", {})],
        reset=recorders.clear_asgi_prometheus,
        recorded=recorders.asgi_prometheus_samples,
        remark="metrics compared",
    ),
    Row(
        "exporter",
        "starlette_exporter",
        {
            "exporter": {"middleware": "starlette_exporter:PrometheusMiddleware", "phase": "both"},
            "faulty": FAULTY,
        },
        "both",
        [*WATCHED, *FAULTS],
        conf={"prefix": "gate", "filter_unhandled_paths": False, "group_paths": False},
        inside=[("faulty", {})],
        reset=recorders.clear_exporter,
        recorded=recorders.exporter_samples,
        remark="metrics compared",
    ),
    Row(
        "otel",
        "opentelemetry-instrumentation-asgi",
        {
            "otel": {
                "middleware": "opentelemetry.instrumentation.asgi:OpenTelemetryMiddleware",
                "phase": "both",
                "exact": True,
                "defaults": {
                    "tracer_provider": "tests.alike.ecosystem.recorders:tracer_provider",
                    "meter_provider": "tests.alike.ecosystem.recorders:meter_provider",
                    "exclude_spans": ["receive", "send"],
                },
            },
            "faulty": FAULTY,
        },
        "both",
        [*WATCHED, *FAULTS],
        inside=[("faulty", {})],
        reset=recorders.new_telemetry,
        recorded=recorders.telemetry,
        remark="spans and metrics compared; traceparent is continued",
    ),
    Row(
        "otel-starlette",
        "starlette",
        {
            "otel-starlette": {
                "middleware": "starlette.middleware.opentelemetry:OpenTelemetryMiddleware",
                "phase": "both",
                "exact": True,
                "defaults": {
                    "tracer_provider": "tests.alike.ecosystem.recorders:tracer_provider",
                    "meter_provider": "tests.alike.ecosystem.recorders:meter_provider",
                },
            },
            "faulty": FAULTY,
        },
        "both",
        [*WATCHED, *FAULTS],
        inside=[("faulty", {})],
        reset=recorders.new_telemetry,
        recorded=recorders.telemetry,
        remark="spans compared; experimental in Starlette",
    ),
    Row(
        "sentry",
        "sentry-sdk",
        {
            "sentry": {
                "middleware": "sentry_sdk.integrations.asgi:SentryAsgiMiddleware",
                "phase": "both",
                "exact": True,
            },
            "faulty": FAULTY,
        },
        "both",
        [*WATCHED, *FAULTS, get("/text", sentry_trace=f"{recorders.CONTINUED}-b7ad6b7169203331-1")],
        inside=[("faulty", {})],
        reset=recorders.new_sentry,
        recorded=recorders.sentry_events,
        remark="transactions and errors compared",
    ),
    Row(
        "elastic-apm",
        "elastic-apm",
        {
            "elastic-apm": {
                "middleware": "elasticapm.contrib.asgi:ASGITracingMiddleware",
                "phase": "both",
                "exact": True,
                "defaults": {
                    "service_name": "gate",
                    "transport_class": "tests.alike.ecosystem.recorders.ApmTransport",
                    "capture_body": "all",
                    "instrument": False,
                    "central_config": False,
                    "cloud_provider": "none",
                    "metrics_interval": "0ms",
                },
            },
            "faulty": FAULTY,
        },
        "both",
        [*WATCHED, *FAULTS],
        inside=[("faulty", {})],
        reset=recorders.new_apm,
        recorded=recorders.apm_recorded,
        remark="transactions and errors compared",
    ),
    Row(
        "timing",
        "timing-asgi",
        {
            "timing": {
                "middleware": "timing_asgi:TimingMiddleware",
                "phase": "both",
                "defaults": {
                    "client": "tests.alike.ecosystem.recorders:timings",
                    "metric_namer": "tests.alike.ecosystem.gate:path_to_name",
                },
            },
            "faulty": FAULTY,
        },
        "both",
        [*WATCHED, *FAULTS],
        inside=[("faulty", {})],
        reset=lambda: recorders.timings.taken.clear(),
        recorded=lambda: list(recorders.timings.taken),
        remark="metric names and tags compared",
    ),
]
