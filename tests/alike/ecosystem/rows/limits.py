"""CSRF, rate and size limits, firewalls, sessions."""

from ...compare import get, sent
from .. import frameworks, gate
from ..stage import COMMON, Row, Volatile

__all__ = ["ROWS"]

FORM = "application/x-www-form-urlencoded"
SECRET = "a secret for tests only"

ROWS = [
    Row(
        "asgi-csrf",
        "asgi-csrf",
        {
            "asgi-csrf": {"middleware": "asgi_csrf:asgi_csrf", "phase": "both"},
            "tell": {"middleware": "tests.alike.ecosystem.inside:Tell", "phase": "both"},
        },
        "both",
        [
            sent("POST", "/echo", b"a=1", content_type=FORM),
            sent("POST", "/echo", b"a=1&csrftoken={cookie:csrftoken}", content_type=FORM),
            sent("POST", "/echo", b"a=1", content_type=FORM, x_csrftoken="{cookie:csrftoken}"),
            sent("POST", "/echo", b"{}", content_type="application/json"),
            sent("POST", "/echo", b"{}", content_type="application/json", authorization="Bearer x"),
            sent("DELETE", "/echo", x_csrftoken="forged"),
        ],
        conf={"signing_secret": SECRET, "always_protect": ["/echo"], "always_set_cookie": True},
        inside=[("tell", {"what": "csrftoken"})],
        volatile=[
            *(Volatile(name, r"csrftoken=[\w.-]+") for name in ("set-cookie", "cookie")),
            Volatile("x-csrftoken", r"[\w-]{20,}\.[\w-]+"),
            Volatile("body", r"csrftoken=[\w.-]+"),
        ],
    ),
    Row(
        "starlette-csrf",
        "starlette-csrf",
        {"starlette-csrf": {"middleware": "starlette_csrf:CSRFMiddleware", "phase": "both"}},
        "both",
        [
            sent("POST", "/echo", b"x"),
            sent("POST", "/echo", b"x", x_csrftoken="{cookie:csrftoken}"),
            sent("POST", "/echo", b"x", x_csrftoken="forged"),
            sent("DELETE", "/echo", x_csrftoken="{cookie:csrftoken}"),
            get("/text"),
        ],
        conf={"secret": SECRET},
        volatile=[
            *(Volatile(name, r"csrftoken=\"?[\w.-]+\"?") for name in ("set-cookie", "cookie")),
            Volatile("x-csrftoken", r"[\w-]{20,}\.[\w-]+"),
        ],
        remark="in Python, required_urls and exempt_urls are compiled patterns",
        alone=[],
    ),
    Row(
        "piccolo-csrf",
        "piccolo_api",
        {"piccolo-csrf": {"middleware": "piccolo_api.csrf.middleware:CSRFMiddleware", "phase": "both"}},
        "both",
        [
            sent("POST", "/echo", b"x"),
            sent("POST", "/echo", b"x", x_csrftoken="{cookie:csrftoken}"),
            sent("POST", "/echo", b"x", x_csrftoken="forged"),
            sent("POST", "/echo", b"a=1&csrftoken={cookie:csrftoken}", content_type=FORM, limit="emptied"),
            sent("DELETE", "/echo", x_csrftoken="{cookie:csrftoken}"),
        ],
        conf={"allow_form_param": True, "allowed_hosts": ["a.test"]},
        volatile=[
            *(Volatile(name, r"(csrftoken=)?[0-9a-f]{8}(-[0-9a-f]+){4}") for name in ("cookie", "x-csrftoken")),
            Volatile("set-cookie", r"csrftoken=[0-9a-f-]{36}|expires=[^;]+"),
        ],
        remark="takes a form for itself, so that nothing is left of it for the application; with request_body=False "
        "the upstream gets it whole",
        alone=[],
    ),
    Row(
        "piccolo-rate-limit",
        "piccolo_api",
        {
            "piccolo-rate-limit": {
                "middleware": "piccolo_api.rate_limiting.middleware:RateLimitingMiddleware",
                "phase": "request",
                "defaults": {"provider": "tests.alike.ecosystem.gate:limit_provider"},
            }
        },
        "request",
        [get("/text"), get("/text"), get("/text"), sent("POST", "/echo", b"x"), sent("HEAD", "/text")],
        reset=gate.forget_limits,
        remark="counts in memory: each runner for itself",
    ),
    Row(
        "ratelimit",
        "asgi-ratelimit",
        {
            "ratelimit": {
                "middleware": "ratelimit:RateLimitMiddleware",
                "phase": "request",
                "defaults": {
                    "authenticate": "tests.alike.ecosystem.gate:limit_by",
                    "backend": "tests.alike.ecosystem.gate:limit_backend",
                    "config": "tests.alike.ecosystem.gate:limit_rules",
                },
            }
        },
        "request",
        [
            *[sent("POST", "/echo", b"x", x_user="ann") for _ in range(8)],
            sent("POST", "/echo", b"x", x_user="bob"),
            sent("POST", "/echo", b"x", x_user="ann", x_group="staff"),
            sent("HEAD", "/echo", x_user="ann"),
            *[get("/json", x_user="ann") for _ in range(3)],
        ],
        volatile=[Volatile("retry-after", r"\d+")],
        limits=["blank"],
        reset=gate.forget_limits,
        remark="its client_ip raises on private addresses; tell users apart by a header or token",
    ),
    Row(
        "slowapi",
        "slowapi",
        {"slowapi": {"app": "tests.alike.ecosystem.frameworks:limited", "phase": "request"}},
        "request",
        [*[get("/text") for _ in range(4)], *[get("/json") for _ in range(2)], sent("POST", "/echo", b"x")],
        common=[one for one in COMMON if one.target != "/stream"],
        plain=frameworks.make_limited,
        volatile=[Volatile("x-ratelimit-reset", r"[\d.]+"), Volatile("retry-after", r"\d+")],
        reset=frameworks.limiter.reset,
        remark="finds its limiter in scope['app'] and limits Routes only: a small Starlette application around "
        "`upstream`, mounted as a whole; streams break without a gateway too: it sends their start once for each part",
    ),
    Row(
        "guard",
        "fastapi-guard",
        {
            "guard": {
                "middleware": "guard.middleware:SecurityMiddleware",
                "phase": "both",
                "defaults": {"config": "tests.alike.ecosystem.gate:guard_config"},
            }
        },
        "both",
        [
            get("/text?q=<script>alert(1)</script>"),
            get("/text?id=1%20UNION%20SELECT%20password%20FROM%20users"),
            get("/text", user_agent="badbot/1.0"),
            get("/text?file=../../../../etc/passwd"),
            sent("POST", "/echo", b'{"q": "1; DROP TABLE users"}', content_type="application/json"),
            *[get("/text") for _ in range(6)],
        ],
        reset=gate.guard_reset,
    ),
    Row(
        "content-size-limit",
        "content-size-limit-asgi",
        {
            "content-size-limit": {
                "middleware": "content_size_limit_asgi:ContentSizeLimitMiddleware",
                "phase": "request",
            }
        },
        "request",
        [
            sent("POST", "/echo", b"x" * 60),
            sent("POST", "/echo", b"x" * 61, limit="fault"),
            sent("PUT", "/echo", b"x" * 60000, limit="fault"),
            sent("DELETE", "/echo", b"x" * 61, limit="fault"),
        ],
        conf={"max_content_size": 60},
        remark="it raises; whatever stands around it answers",
    ),
    Row(
        "content-size-limit-413",
        "content-size-limit-asgi",
        {
            "content-size-limit-413": {
                "middleware": "starlette.middleware.exceptions:ExceptionMiddleware",
                "phase": "request",
                "defaults": {"handlers": "tests.alike.ecosystem.gate:too_large"},
            },
            "content-size-limit": {
                "middleware": "content_size_limit_asgi:ContentSizeLimitMiddleware",
                "phase": "request",
            },
        },
        "request",
        [
            sent("POST", "/echo", b"x" * 60),
            sent("POST", "/echo", b"x" * 61),
            sent("PUT", "/echo", b"x" * 60000),
            sent("DELETE", "/echo", b"x" * 61),
        ],
        inside=[("content-size-limit", {"max_content_size": 60})],
        remark="with Starlette's ExceptionMiddleware listed before it, which turns its exception into a 413",
    ),
    Row(
        "starsessions",
        "starsessions",
        {"starsessions": {"factory": "tests.alike.ecosystem.gate:sessions", "phase": "both"}},
        "both",
        [
            get("/text?quiet"),
            get("/text"),
            get("/text?logout"),
            get("/text?quiet"),
            get("/text"),
            get("/text", cookie="session=forged"),
        ],
        plain=lambda app: gate.sessions(app, {"lifetime": 3600, "rolling": True}),
        conf={"lifetime": 3600, "rolling": True},
        volatile=[Volatile(name, r"session=[0-9a-f]{32}") for name in ("set-cookie", "cookie")],
        reset=gate.store.data.clear,
        remark="what loads the session stands in the same plugin, since it changes the scope afterwards, and each "
        "plugin has a copy; a store in memory is one runner's: with several, its Redis store",
    ),
    Row(
        "authlib-session",
        "starlette-authlib",
        {
            "authlib-session": {
                "middleware": "starlette_authlib.middleware:AuthlibMiddleware",
                "phase": "both",
            },
            "visits": {"middleware": "tests.alike.ecosystem.inside:Visits", "phase": "both"},
        },
        "both",
        [
            get("/text?quiet"),
            get("/text"),
            get("/text?logout"),
            get("/text?quiet"),
            get("/text", cookie="session=forged"),
        ],
        conf={"secret_key": SECRET * 2},
        inside=[("visits", {})],
        volatile=[Volatile(name, r"session=eyJ[\w.-]+") for name in ("set-cookie", "cookie")],
    ),
]
