"""WSGI middleware. Static files and frameworks as WSGI are in modules of their own."""

from ...compare import get, sent
from .. import recorders
from ..stage import Row, Volatile
from .observers import FAULTS, WATCHED

__all__ = ["ROWS"]

FAULTY = {"wsgi_middleware": "tests.alike.ecosystem.inside:FaultyWSGI", "phase": "both"}
TELL = {"wsgi_middleware": "tests.alike.ecosystem.inside:TellWSGI", "phase": "request"}
REQ = r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"

ROWS = [
    Row(
        "proxy-fix",
        "Werkzeug",
        {
            "proxy-fix": {
                "wsgi_middleware": "werkzeug.middleware.proxy_fix:ProxyFix",
                "phase": "request",
                "exact": True,
            },
            "tell": TELL,
        },
        "request",
        [
            get("/text", x_forwarded_for="198.51.100.9"),
            get("/text", x_forwarded_for="192.0.2.1, 198.51.100.9"),
            sent("POST", "/echo", b"x", x_forwarded_for="2001:db8::1"),
            get("https://a.test/text", x_forwarded_for="198.51.100.9"),
            get("/text", x_forwarded_proto="https", limit="forwarded"),
            sent("HEAD", "/text", x_forwarded_for="198.51.100.9"),
        ],
        conf={"x_for": 1, "x_proto": 1},
        inside=[("tell", {})],
        wsgi=True,
    ),
    Row(
        "gzipper",
        "Paste",
        {"gzipper": {"wsgi_middleware": "paste.gzipper:middleware", "phase": "response"}},
        "response",
        [
            get("/text?size=3000", accept_encoding="gzip"),
            get("/text?size=3000", accept_encoding="br"),
            get("/json?size=300", accept_encoding="gzip, br"),
            get("/stream", accept_encoding="gzip"),
            get("/encoded", accept_encoding="gzip, br"),
            get("/image", accept_encoding="gzip"),
            get("/status/404", accept_encoding="gzip"),
            sent("HEAD", "/text?size=3000", accept_encoding="gzip"),
        ],
        conf={"compress_level": 5},
        limits=["path"],
        wsgi=True,
    ),
    Row(
        "secure-wsgi",
        "secure",
        {
            "secure-wsgi": {
                "wsgi_middleware": "secure.middleware.wsgi:SecureWSGIMiddleware",
                "phase": "response",
                "defaults": {"secure": "tests.alike.ecosystem.gate:secure_headers"},
            }
        },
        "response",
        [get("/image"), sent("HEAD", "/page"), get("/status/500")],
        limits=["path"],
        wsgi=True,
        remark="its server header is APISIX's own in the answer",
    ),
    Row(
        "oslo-request-id",
        "oslo.middleware",
        {"oslo-request-id": {"wsgi_middleware": "oslo_middleware:RequestId", "phase": "both"}},
        "both",
        [get("/image"), sent("HEAD", "/page"), get("/status/500"), get("/text", x_openstack_request_id="req-1")],
        wsgi=True,
        volatile=[Volatile("x-openstack-request-id", REQ)],
        remark="in the request phase alone it does not see the upstream's redirects, which webob makes absolute",
    ),
    Row(
        "oslo-size-limit",
        "oslo.middleware",
        {
            "oslo-size-limit": {
                "wsgi_middleware": "oslo_middleware:RequestBodySizeLimiter",
                "phase": "both",
                "defaults": {"conf": {"max_request_body_size": 60}},
            }
        },
        "both",
        [
            sent("POST", "/echo", b"x" * 60),
            sent("POST", "/echo", b"x" * 61),
            sent("PUT", "/echo", b"x" * 60000),
            sent("POST", "/echo", b"x" * 61, accept="application/json"),
        ],
        wsgi=True,
    ),
    Row(
        "oslo-cors",
        "oslo.middleware",
        {
            "oslo-cors": {
                "wsgi_middleware": "oslo_middleware:CORS",
                "phase": "both",
                "defaults": {"conf": {"allowed_origin": "https://a.test", "allow_methods": "GET,PUT", "max_age": "60"}},
            }
        },
        "both",
        [
            get("/page", origin="https://a.test"),
            get("/page", origin="https://evil.test"),
            sent("OPTIONS", "/echo", origin="https://a.test", access_control_request_method="PUT"),
            sent("OPTIONS", "/echo", origin="https://a.test", access_control_request_method="DELETE"),
            sent("OPTIONS", "/echo", origin="https://evil.test", access_control_request_method="PUT"),
        ],
        wsgi=True,
    ),
    Row(
        "oslo-catch-errors",
        "oslo.middleware",
        {"oslo-catch-errors": {"wsgi_middleware": "oslo_middleware:CatchErrors", "phase": "both"}, "faulty": FAULTY},
        "both",
        [
            get("/text", x_fault="before"),
            get("/status/500"),
            sent("HEAD", "/text", x_fault="before"),
            sent("POST", "/echo", b"x", x_fault="before", limit="input"),
        ],
        inside=[("faulty", {})],
        wsgi=True,
    ),
    Row(
        "oslo-proxy",
        "oslo.middleware",
        {
            "oslo-proxy": {
                "wsgi_middleware": "oslo_middleware:HTTPProxyToWSGI",
                "phase": "both",
                "defaults": {"conf": {"enable_proxy_headers_parsing": True}},
            },
            "tell": {**TELL, "phase": "both"},
        },
        "both",
        [
            get("/text", x_forwarded_for="198.51.100.9"),
            sent("POST", "/echo", b"x", x_forwarded_for="198.51.100.9"),
            get("/text", x_forwarded_proto="https", limit="forwarded"),
            get("https://a.test/text"),
        ],
        inside=[("tell", {})],
        wsgi=True,
    ),
    Row(
        "otel-wsgi",
        "opentelemetry-instrumentation-wsgi",
        {
            "otel-wsgi": {
                "wsgi_middleware": "opentelemetry.instrumentation.wsgi:OpenTelemetryMiddleware",
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
        wsgi=True,
        reset=recorders.new_telemetry,
        recorded=recorders.telemetry,
        remark="spans and metrics compared; traceparent is continued",
    ),
    Row(
        "sentry-wsgi",
        "sentry-sdk",
        {
            "sentry-wsgi": {
                "wsgi_middleware": "sentry_sdk.integrations.wsgi:SentryWsgiMiddleware",
                "phase": "both",
                "exact": True,
            },
            "faulty": FAULTY,
        },
        "both",
        [*WATCHED, *FAULTS],
        inside=[("faulty", {})],
        wsgi=True,
        reset=recorders.new_sentry,
        recorded=recorders.sentry_events,
        remark="transactions and errors compared",
    ),
]
