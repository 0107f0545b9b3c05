"""Applications of frameworks as plugins."""

from collections.abc import Callable
from typing import Any

from ...compare import Request, get, sent
from .. import django_app, frameworks
from ..frameworks import noted
from ..stage import Row, Volatile

__all__ = ["ROWS"]

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = (
    b'--limit\r\ncontent-disposition: form-data; name="file"; filename="a.bin"\r\n'
    b"content-type: application/octet-stream\r\n\r\n" + bytes(range(256)) * 20 + b"\r\n--limit--\r\n"
)
ROUTED = [
    get("/items/1?q=x"),
    get("/items/one"),
    sent("HEAD", "/items/1"),
    sent("DELETE", "/items/1"),
    sent("POST", "/items", b'{"name": "a", "price": 2.5, "tags": ["x"]}', content_type=JSON),
    sent("POST", "/items", b'{"name": "a", "price": -1}', content_type=JSON),
    sent("POST", "/items", b"{", content_type=JSON),
    get("/parts"),
    get("/nothing/here"),
]


def tasks(count: int) -> Callable[[], list[Any]]:
    return lambda: list(noted.wait(count))


DJANGO: list[Request] = [
    get("/items/1/?q=%C3%BC"),
    get("/items/1"),
    get("/items/one/"),
    sent("HEAD", "/items/1/"),
    get("/nothing/"),
    get("/token/"),
    sent("POST", "/items/", b"name=a&price=2", content_type=FORM),
    sent("POST", "/items/", b"name=a&price=2", content_type=FORM, x_csrftoken="{cookie:csrftoken}"),
    sent("POST", "/items/", b"name=a+long+name&price=0", content_type=FORM, x_csrftoken="{cookie:csrftoken}"),
    sent("POST", "/async/", b"body", content_type="text/plain", x_csrftoken="{cookie:csrftoken}"),
    get("/async/"),
    get("/session/"),
    get("/session/"),
    get("/parts/"),
    get("/refused/"),
    get("/broken/"),
    get("/away/"),
    get("/items/1/", host="evil.test"),
    sent("OPTIONS", "/items/1/"),
]
DJANGO_VOLATILE = [
    Volatile("set-cookie", r"csrftoken=\w+|(?<=:)[\w-]{6}:[\w-]{43}|expires=[^;]+"),
]

ROWS = [
    Row(
        "starlette-app",
        "starlette",
        {"starlette-app": {"app": "tests.alike.ecosystem.frameworks:starlette_app", "phase": "both"}},
        "both",
        [
            *ROUTED,
            sent("POST", "/form", b"a=1&b=%20x", content_type=FORM),
            get("/teapot"),
            get("/task"),
            get("/state"),
            get("/endpoint"),
            sent("POST", "/endpoint", b'{"a": 1}', content_type=JSON),
            sent("PUT", "/endpoint", b"x"),
        ],
        plain=frameworks.make_starlette,
        reset=noted.clear,
        recorded=tasks(1),
        remark='routing, forms, exceptions, background task, stream, lifespan state; Mount("/", upstream) at the end',
    ),
    Row(
        "fastapi",
        "fastapi",
        {"fastapi": {"app": "tests.alike.ecosystem.frameworks:fastapi_app", "phase": "both"}},
        "both",
        [
            *ROUTED,
            get("/items/1?q=too+long"),
            sent("POST", "/form", b"name=a&age=2", content_type=FORM),
            sent("POST", "/form", b"age=x", content_type=FORM),
            sent("POST", "/upload", MULTIPART, content_type="multipart/form-data; boundary=limit"),
            get("/me"),
            get("/me", authorization="User ann"),
            get("/task"),
            get("/state"),
            get("/openapi.json"),
            get("/docs"),
            get("/broken"),
            get("/page", origin="https://a.test"),
            sent("OPTIONS", "/items", origin="https://a.test", access_control_request_method="GET"),
        ],
        plain=frameworks.make_fastapi,
        reset=noted.clear,
        recorded=tasks(1),
        remark="routing, validation errors, dependencies, forms, uploads, background task, lifespan state, its own "
        "CORS around the upstream's responses",
    ),
    Row(
        "litestar",
        "litestar",
        {"litestar": {"app": "tests.alike.ecosystem.frameworks:litestar_app", "phase": "request"}},
        "request",
        [
            *ROUTED,
            get("/me"),
            get("/me", authorization="User ann"),
            get("/task"),
            get("/state"),
            get("/refused"),
            get("/cookie"),
        ],
        plain=frameworks.make_litestar,
        reset=noted.clear,
        recorded=tasks(1),
        remark="answers everything: routing, validation errors, dependencies, background task, stream, startup hook",
    ),
    Row(
        "quart",
        "Quart",
        {"quart": {"app": "tests.alike.ecosystem.frameworks:quart_app", "phase": "request"}},
        "request",
        [
            *ROUTED,
            sent("POST", "/form", b"a=1&b=%20x", content_type=FORM),
            get("/task"),
            get("/state"),
            get("/session"),
            get("/session"),
            get("/refused"),
            get("/broken"),
        ],
        plain=frameworks.make_quart,
        volatile=[Volatile("set-cookie", r"(?<=\.)[\w-]{6}\.[\w-]{27}")],
        reset=noted.clear,
        recorded=tasks(1),
        remark="answers everything: routing, JSON errors, sessions, background task, stream, startup hook",
    ),
    Row(
        "flask",
        "Flask",
        {"flask": {"wsgi": "tests.alike.ecosystem.frameworks:flask_app", "phase": "both"}},
        "both",
        [
            *ROUTED,
            sent("POST", "/form", b"a=1&b=%20x", content_type=FORM),
            get("/session"),
            get("/session"),
            get("/refused"),
            get("/broken"),
        ],
        wsgi=True,
        plain=frameworks.make_flask,
        limits=["no-content"],
        volatile=[Volatile("set-cookie", r"(?<=\.)[\w-]{6}\.[\w-]{27}")],
        remark="routing, JSON errors, sessions, error handlers, stream; the rest goes on by "
        "`Response.from_app(asgi_bridge.wsgi.upstream, request.environ)`",
    ),
    Row(
        "flask-cors",
        "flask-cors",
        {"flask-cors": {"wsgi": "tests.alike.ecosystem.frameworks:flask_cors_app", "phase": "both"}},
        "both",
        [
            get("/items/1", origin="https://a.test"),
            get("/items/1", origin="https://evil.test"),
            get("/page", origin="https://a.test"),
            get("/status/404", origin="https://a.test"),
            get("/refused", origin="https://a.test"),
            sent("OPTIONS", "/items/1", origin="https://a.test", access_control_request_method="GET"),
            sent(
                "OPTIONS",
                "/echo",
                origin="https://a.test",
                access_control_request_method="PUT",
                access_control_request_headers="x-a, x-b",
            ),
        ],
        wsgi=True,
        plain=frameworks.make_flask_cors,
        limits=["no-content"],
        remark="in a Flask application that hands the rest on",
    ),
    Row(
        "django-asgi",
        "Django",
        {"django-asgi": {"app": "tests.alike.ecosystem.django_app:asgi", "phase": "request"}},
        "request",
        DJANGO,
        common=[],
        limits=["blank"],
        plain=lambda app: django_app.asgi,
        volatile=DJANGO_VOLATILE,
        remark="answers everything: routing, forms, CSRF, sessions, sync and async views, stream",
    ),
    Row(
        "django-wsgi",
        "Django",
        {"django-wsgi": {"wsgi": "tests.alike.ecosystem.django_app:wsgi", "phase": "request"}},
        "request",
        DJANGO,
        common=[],
        limits=["blank"],
        wsgi=True,
        plain=lambda app: django_app.wsgi,
        volatile=DJANGO_VOLATILE,
        remark="answers everything, as under ASGI",
    ),
]
