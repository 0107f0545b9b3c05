"""Request ids, context, security headers, CORS."""

from piccolo_api.csp.middleware import CSPConfig, CSPMiddleware

from ...compare import get, sent
from ..stage import Row, Volatile

__all__ = ["ROWS"]

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
KNOWN = "1f6b2d5e4a2c4a539d0a111111111111"
TELL = {"middleware": "tests.alike.ecosystem.inside:Tell", "phase": "both"}

ROWS = [
    Row(
        "correlation-id",
        "asgi-correlation-id",
        {
            "correlation-id": {"middleware": "asgi_correlation_id:CorrelationIdMiddleware", "phase": "both"},
            "tell": TELL,
        },
        "both",
        [
            get("/text", x_request_id=KNOWN),
            get("/text", x_request_id="not one"),
            sent("POST", "/echo", b"x", x_request_id=KNOWN),
            get("/status/404", x_request_id=KNOWN),
        ],
        inside=[("tell", {"what": "correlation-id"})],
        volatile=[Volatile(name, r"\b(?!1f6b)[0-9a-f]{32}\b") for name in ("x-request-id", "x-tell")],
        alone=["beside"],
    ),
    Row(
        "babel",
        "asgi-babel",
        {"babel": {"middleware": "asgi_babel:BabelMiddleware", "phase": "both"}, "tell": TELL},
        "both",
        [
            get("/text", accept_language="de-AT,de;q=0.8,en;q=0.5"),
            get("/text", accept_language="fr"),
            get("/json"),
            sent("POST", "/echo", b"x", accept_language="pt-BR"),
        ],
        conf={"default_locale": "es"},
        inside=[("tell", {"what": "locale"})],
    ),
    Row(
        "correlation-id-request",
        "asgi-correlation-id",
        {"correlation-id-request": {"middleware": "asgi_correlation_id:CorrelationIdMiddleware", "phase": "request"}},
        "request",
        [
            get("/text", x_trace=KNOWN),
            get("/text", x_trace="not one"),
            sent("POST", "/echo", b"x", x_trace=KNOWN),
            sent("HEAD", "/text", x_trace=KNOWN),
        ],
        conf={"header_name": "X-Trace"},
        volatile=[Volatile("x-trace", r"\b(?!1f6b)[0-9a-f]{32}\b")],
    ),
    Row(
        "request-id",
        "asgi-request-id",
        {"request-id": {"middleware": "asgi_request_id:RequestIDMiddleware", "phase": "both"}, "tell": TELL},
        "both",
        [
            get("/text", request_id="given"),
            sent("POST", "/echo", b"x", request_id="given"),
            get("/status/404"),
            get("/json", request_id="gate-x"),
        ],
        conf={"prefix": "gate-"},
        inside=[("tell", {"what": "request-id"})],
        volatile=[Volatile(name, UUID) for name in ("request-id", "x-tell")],
        alone=["beside"],
    ),
    Row(
        "context",
        "starlette-context",
        {
            "context": {
                "middleware": "starlette_context.middleware:RawContextMiddleware",
                "phase": "both",
                "defaults": {"plugins": "tests.alike.ecosystem.gate:context_plugins"},
            },
            "tell": TELL,
        },
        "both",
        [
            get("/text", x_request_id=KNOWN, x_correlation_id=KNOWN),
            get("/text", x_request_id="not one", limit="blank"),
            sent("POST", "/echo", b"x", x_correlation_id=KNOWN),
            get("/status/404", user_agent="another"),
        ],
        inside=[("tell", {"what": "context"})],
        volatile=[
            Volatile(name, r"\b(?!1f6b)[0-9a-f]{32}\b") for name in ("x-request-id", "x-correlation-id", "x-tell")
        ],
        alone=["beside"],
    ),
    Row(
        "context-base",
        "starlette-context",
        {
            "context-base": {
                "middleware": "starlette_context.middleware:ContextMiddleware",
                "phase": "both",
                "defaults": {"plugins": "tests.alike.ecosystem.gate:context_plugins"},
            },
            "tell": TELL,
        },
        "both",
        [
            get("/text", x_request_id=KNOWN, x_correlation_id=KNOWN),
            get("/text", x_request_id="not one", limit="blank"),
            sent("POST", "/echo", b"x", x_correlation_id=KNOWN),
        ],
        inside=[("tell", {"what": "context"})],
        volatile=[
            Volatile(name, r"\b(?!1f6b)[0-9a-f]{32}\b") for name in ("x-request-id", "x-correlation-id", "x-tell")
        ],
    ),
    Row(
        "secure",
        "secure",
        {
            "secure": {
                "middleware": "secure.middleware.asgi:SecureASGIMiddleware",
                "phase": "response",
                "defaults": {"secure": "tests.alike.ecosystem.gate:secure_headers"},
            }
        },
        "response",
        [get("/image"), sent("HEAD", "/page"), get("/status/500")],
        limits=["path"],
        remark="its server header is APISIX's own in the answer",
    ),
    Row(
        "csp",
        "piccolo_api",
        {
            "csp": {
                "middleware": "piccolo_api.csp.middleware:CSPMiddleware",
                "phase": "request",
                "defaults": {"config": "tests.alike.ecosystem.gate:csp"},
            }
        },
        "request",
        [get("/image"), sent("HEAD", "/page"), get("/status/500")],
        limits=["beside"],
    ),
    Row(
        "csp-of-route",
        "piccolo_api",
        {"csp-of-route": {"middleware": "piccolo_api.csp.middleware:CSPMiddleware", "phase": "response"}},
        "response",
        [get("/image"), sent("HEAD", "/page"), get("/status/500")],
        conf={"config": {"default_src": "none"}},
        plain=lambda app: CSPMiddleware(app, CSPConfig(default_src="none")),
        limits=["path"],
        remark="its dataclass is checked and made of the route's JSON",
    ),
    Row(
        "cors-headers",
        "asgi-cors",
        {"cors-headers": {"middleware": "asgi_cors:asgi_cors", "phase": "both"}},
        "both",
        [
            get("/text", origin="https://a.test"),
            get("/text", origin="https://x.b.test"),
            get("/text", origin="https://c.test"),
            sent("POST", "/echo", b"x", origin="https://a.test"),
            sent("OPTIONS", "/echo", origin="https://a.test", access_control_request_method="PUT"),
        ],
        conf={
            "hosts": ["https://a.test"],
            "host_wildcards": ["https://*.b.test"],
            "methods": ["PUT"],
            "headers": ["x-a"],
        },
    ),
    Row(
        "cross-origin-protection",
        "asgi-cross-origin-protection",
        {
            "cross-origin-protection": {
                "middleware": "asgi_cross_origin_protection:CrossOriginProtection",
                "phase": "request",
            }
        },
        "request",
        [
            sent("POST", "/echo", b"x", origin="https://a.test"),
            sent("POST", "/echo", b"x", origin="https://evil.test"),
            sent("POST", "/echo", b"x", origin="https://friend.test"),
            sent("POST", "/echo", b"x", sec_fetch_site="cross-site"),
            sent("POST", "/echo", b"x", sec_fetch_site="same-origin"),
            sent("DELETE", "/echo", origin="null"),
            sent("POST", "/echo/hook/1", b"x", origin="https://evil.test"),
            get("/text", sec_fetch_site="cross-site"),
        ],
        conf={"allowed_origins": ["https://friend.test"], "exempt_paths": ["/echo/hook"]},
    ),
    Row(
        "cross-origin-isolation",
        "asgi-cross-origin-protection",
        {
            "cross-origin-isolation": {
                "middleware": "asgi_cross_origin_protection.isolation:CrossOriginIsolation",
                "phase": "request",
            }
        },
        "request",
        [get("/image"), sent("HEAD", "/page"), get("/status/500")],
        conf={"embedder_policy": None},
        remark="in the response phase it sees headers that the upstream set itself, and leaves them",
    ),
    Row(
        "user-agents",
        "asgi-user-agents",
        {
            "user-agents": {"middleware": "asgi_user_agents:UAMiddleware", "phase": "request"},
            "tell": {**TELL, "phase": "request"},
        },
        "request",
        [
            get(
                "/text",
                user_agent="Mozilla/5.0 (iPhone; CPU iPhone OS 16_0 like Mac OS X) Version/16.0 Mobile Safari/604.1",
            ),
            get("/text", user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
            get("/text", user_agent="Googlebot/2.1 (+http://www.google.com/bot.html)"),
            sent("POST", "/echo", b"x", user_agent=""),
        ],
        inside=[("tell", {"what": "user-agent"})],
    ),
    Row(
        "proxy-headers",
        "uvicorn",
        {
            "proxy-headers": {
                "middleware": "uvicorn.middleware.proxy_headers:ProxyHeadersMiddleware",
                "phase": "request",
                "exact": True,
            },
            "tell": {**TELL, "phase": "request"},
        },
        "request",
        [
            get("/text", x_forwarded_for="198.51.100.9"),
            get("/text", x_forwarded_for="198.51.100.9, 10.0.0.1", x_forwarded_proto="https", limit="forwarded"),
            get("https://a.test/text", x_forwarded_for="198.51.100.9"),
            sent("POST", "/echo", b"x", x_forwarded_for="2001:db8::1"),
            get("/text", x_forwarded_for="nonsense"),
        ],
        conf={"trusted_hosts": ["203.0.113.0/24", "10.0.0.0/8"]},
        inside=[("tell", {"what": "client"})],
    ),
]
