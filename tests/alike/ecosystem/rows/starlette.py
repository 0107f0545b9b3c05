"""Starlette's own middleware."""

from ...compare import Request, get, sent
from ..stage import Row, Volatile

__all__ = ["ROWS"]

CORS = {
    "allow_origins": ["https://a.test", "https://b.test"],
    "allow_credentials": True,
    "allow_methods": ["GET", "PUT"],
    "allow_headers": ["x-a"],
    "expose_headers": ["x-upstream"],
}
VISITS = {"middleware": "tests.alike.ecosystem.inside:Visits", "phase": "both"}
FAULTY = {"middleware": "tests.alike.ecosystem.inside:Faulty", "phase": "both"}


def preflight(origin: str, method: str, headers: str = "") -> Request:
    asked = [("origin", origin), ("access-control-request-method", method)]
    if headers:
        asked.append(("access-control-request-headers", headers))
    return Request("OPTIONS", "/echo", tuple(asked))


ROWS = [
    Row(
        "cors",
        "starlette",
        {"cors": {"middleware": "starlette.middleware.cors:CORSMiddleware", "phase": "both"}},
        "both",
        [
            preflight("https://a.test", "PUT"),
            preflight("https://a.test", "DELETE"),
            preflight("https://c.test", "GET"),
            preflight("https://b.test", "GET", "x-a, content-type"),
            preflight("https://b.test", "GET", "x-b"),
            get("/page", origin="https://a.test", cookie="a=1"),
            get("/page", origin="https://c.test"),
            sent("POST", "/echo", b"x", origin="https://b.test"),
            get("/status/404", origin="https://b.test"),
        ],
        conf=CORS,
    ),
    Row(
        "gzip",
        "starlette",
        {"gzip": {"middleware": "starlette.middleware.gzip:GZipMiddleware", "phase": "response"}},
        "response",
        [
            get("/text?size=3000", accept_encoding="gzip, br"),
            get("/text?size=3000", accept_encoding="br"),
            get("/text?size=20", accept_encoding="gzip"),
            get("/stream", accept_encoding="gzip"),
            get("/encoded", accept_encoding="gzip"),
            get("/image", accept_encoding="gzip"),
            get("/page", accept_encoding="gzip"),
            sent("HEAD", "/text?size=3000", accept_encoding="gzip"),
        ],
        conf={"minimum_size": 400},
        limits=["path"],
    ),
    Row(
        "trusted-host",
        "starlette",
        {"trusted-host": {"middleware": "starlette.middleware.trustedhost:TrustedHostMiddleware", "phase": "request"}},
        "request",
        [
            get("/text", host="x.b.test"),
            get("/text", host="b.test"),
            get("/text", host="evil.test"),
            get("/text?a=1", host="c.test", limit="blank"),
            sent("POST", "/echo", b"x", host="evil.test"),
        ],
        conf={"allowed_hosts": ["a.test", "*.b.test", "www.c.test"]},
    ),
    Row(
        "https-redirect",
        "starlette",
        {
            "https-redirect": {
                "middleware": "starlette.middleware.httpsredirect:HTTPSRedirectMiddleware",
                "phase": "request",
                "exact": True,
            }
        },
        "request",
        [
            get("https://a.test/text"),
            sent("POST", "https://a.test/echo", b"x"),
            get("https://a.test/json?a=1"),
            get("/echo/a%20b?q=%2F"),
            get("/text", host="a.test:8000"),
        ],
        limits=["blank"],
    ),
    Row(
        "session",
        "starlette",
        {
            "session": {"middleware": "starlette.middleware.sessions:SessionMiddleware", "phase": "both"},
            "visits": VISITS,
        },
        "both",
        [
            get("/text?logout"),
            get("/text?quiet"),
            get("/text"),
            get("/text?quiet"),
            get("/text", cookie="session=forged"),
            sent("POST", "/echo", b"x"),
        ],
        conf={"secret_key": "a secret for tests only"},
        inside=[("visits", {})],
        volatile=[Volatile(name, r"(?<=\.)[\w-]{6}\.[\w-]{27}") for name in ("set-cookie", "cookie")],
        remark="needs itsdangerous",
    ),
    Row(
        "asgi-sessions",
        "asgi-sessions",
        {"asgi-sessions": {"middleware": "asgi_sessions:SessionMiddleware", "phase": "both"}, "visits": VISITS},
        "both",
        [
            get("/text?logout"),
            get("/text?quiet"),
            get("/text"),
            get("/text"),
            sent("POST", "/echo", b"x"),
            get("/status/404?quiet"),
        ],
        conf={"secret_key": "a secret for tests only", "cookie_name": "gate"},
        inside=[("visits", {})],
    ),
    Row(
        "authentication",
        "starlette",
        {
            "authentication": {
                "middleware": "starlette.middleware.authentication:AuthenticationMiddleware",
                "phase": "request",
                "defaults": {"backend": "tests.alike.ecosystem.gate:basic"},
            },
            "tell": {"middleware": "tests.alike.ecosystem.inside:Tell", "phase": "request"},
        },
        "request",
        [
            get("/text", authorization="User ann"),
            get("/text?a=1", authorization="Bearer x"),
            sent("HEAD", "/text", authorization="User ann"),
            sent("POST", "/echo", b"x", authorization="user bob"),
            sent("POST", "/echo", b"x", authorization="Basic bob"),
        ],
        inside=[("tell", {"what": "user"})],
    ),
    Row(
        "base-http",
        "starlette",
        {
            "base-http": {
                "middleware": "starlette.middleware.base:BaseHTTPMiddleware",
                "phase": "both",
                "defaults": {"dispatch": "tests.alike.ecosystem.gate:edit"},
            }
        },
        "both",
        [
            get("/text", x_refuse="1"),
            sent("POST", "/echo", b"x", x_refuse="1"),
            get("/text?size=200", x_shout="1"),
            get("/stream", x_shout="1"),
            get("/status/404", x_shout="1"),
            sent("POST", "/echo", b"body", x_shout="1"),
        ],
        remark="whatever stands on BaseHTTPMiddleware works likewise",
    ),
    Row(
        "server-error",
        "starlette",
        {
            "server-error": {
                "middleware": "starlette.middleware.errors:ServerErrorMiddleware",
                "phase": "both",
                "defaults": {"handler": "tests.alike.ecosystem.gate:answer_fault"},
            },
            "faulty": FAULTY,
        },
        "both",
        [
            get("/text", x_fault="before"),
            get("/text", x_fault="start"),
            sent("POST", "/echo", b"x", x_fault="before"),
            sent("HEAD", "/text", x_fault="before"),
        ],
        inside=[("faulty", {})],
        remark="it raises the exception again after its answer: the runner logs it",
    ),
    Row(
        "exception",
        "starlette",
        {
            "exception": {
                "middleware": "starlette.middleware.exceptions:ExceptionMiddleware",
                "phase": "both",
                "defaults": {"handlers": "tests.alike.ecosystem.gate:handlers"},
            },
            "faulty": FAULTY,
        },
        "both",
        [
            get("/text", x_fault="forbidden"),
            sent("POST", "/echo", b"x", x_fault="forbidden"),
            sent("HEAD", "/text", x_fault="forbidden"),
            get("/text", x_fault="before", limit="fault"),
        ],
        inside=[("faulty", {})],
    ),
    Row(
        "body-limit",
        "starlette",
        {
            "body-limit": {
                "middleware": "starlette.middleware.body_limit:RequestBodyLimitMiddleware",
                "phase": "request",
            }
        },
        "request",
        [
            sent("POST", "/echo", b"x" * 60),
            sent("POST", "/echo", b"x" * 61),
            sent("PUT", "/echo", b"x" * 60000),
            sent("POST", "/status/404", b"x" * 61),
        ],
        conf={"max_body_size": 60},
    ),
]
