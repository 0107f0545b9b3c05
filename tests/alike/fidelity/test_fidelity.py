"""A client gets the same response from uvicorn with a middleware, and from the gateway with it as a plugin.

Real servers on both sides, the same upstream behind them. Where a response differs there is a limit of the protocol
in the way: it has a line in the documentation, and a function here that says what becomes of uvicorn's response.
"""

import dataclasses
import json
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import itsdangerous
import pytest
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, SimpleUser
from starlette.datastructures import MutableHeaders
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge
from tests.alike.fidelity.stage import Answer, Request, Side, Subject, standing
from tests.alike.fidelity.upstream import make_upstream

ROOT = Path(__file__).parents[3]

# the middleware, and what stands inside it to be seen at work


class Basic(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        given = conn.headers.get("authorization")
        if given is None:
            return None
        scheme, _, name = given.partition(" ")
        if scheme.lower() != "user":
            raise AuthenticationError(f"no such scheme: {scheme}")
        return AuthCredentials(["authenticated"]), SimpleUser(name)


class Identify:
    """Tells the upstream who the user is."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = MutableHeaders(scope=scope)
            headers["x-user"] = scope["user"].display_name or "nobody"
            headers["x-scopes"] = ",".join(scope["auth"].scopes) or "none"
        await self.app(scope, receive, send)


class Visits:
    """Counts a client's requests in its session, or ends the session."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["query_string"].startswith(b"logout"):
            scope["session"].clear()
        elif scope["type"] == "http" and not scope["query_string"].startswith(b"quiet"):
            scope["session"]["visits"] = scope["session"].get("visits", 0) + 1
        await self.app(scope, receive, send)


class Editing(BaseHTTPMiddleware):
    """Edits the request, and the response's status, headers and body."""

    async def dispatch(self, request: StarletteRequest, call_next: RequestResponseEndpoint) -> Response:
        if request.headers.get("x-refuse"):
            return Response("refused", 403, {"x-by": "editing"})
        headers = MutableHeaders(scope=request.scope)
        headers["x-edited"] = "yes"
        if "x-drop" in headers:
            del headers["x-drop"]
        if request.query_params.get("move"):
            request.scope["path"] = request.scope["path"] + "/moved"
            request.scope["raw_path"] = request.scope["raw_path"] + b"/moved"
        method = request.method
        response = await call_next(request)
        response.headers["x-method"] = method
        response.set_cookie("edited", "1")
        if request.headers.get("x-shout"):
            assert isinstance(response, StreamingResponse) or hasattr(response, "body_iterator")
            body = b"".join([chunk async for chunk in response.body_iterator])  # type: ignore[attr-defined]
            del response.headers["content-length"]
            return Response(body.upper(), 299 if response.status_code == 200 else response.status_code,
                            dict(response.headers))  # fmt: skip
        return response


class Faulty:
    """Raises where a request says so."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = dict(scope.get("headers", ())).get(b"x-fault")
        if fault == b"before":
            raise KeyError("before the upstream")
        if fault == b"read":
            await receive()
            raise KeyError("after reading")

        async def sending(message: Any) -> None:
            if fault == b"start":
                raise KeyError("at the start of the response")
            await send(message)

        await self.app(scope, receive, sending)
        if fault == b"after":
            raise KeyError("after the response")


async def told(request: StarletteRequest, exc: Exception) -> Response:
    return Response(f'{{"error": "{type(exc).__name__}"}}', 500, {"x-by": "told"}, "application/json")


CORS = {
    "allow_origins": ["https://a.test", "https://b.test"],
    "allow_credentials": True,
    "allow_methods": ["GET", "PUT"],
    "allow_headers": ["x-a"],
    "expose_headers": ["x-upstream"],
}
HOSTS = {"allowed_hosts": ["a.test", "*.b.test", "www.c.test"]}
SECRET = "a secret for tests only"
REQUEST, RESPONSE = ("ext-plugin-pre-req",), ("ext-plugin-post-resp",)
BOTH = (*REQUEST, *RESPONSE)

SUBJECTS = [
    Subject("cors", lambda app: CORSMiddleware(app, **CORS), [("cors", CORS)], BOTH),  # type: ignore[arg-type]
    Subject("gzip", GZipMiddleware, [("gzip", {})], RESPONSE),
    Subject(
        "session",
        lambda app: SessionMiddleware(Visits(app), SECRET),
        [("session", {"secret_key": SECRET}), ("visits", {})],
        BOTH,
    ),
    Subject("trusted-host", lambda app: TrustedHostMiddleware(app, **HOSTS), [("trusted-host", HOSTS)], REQUEST),  # type: ignore[arg-type]
    Subject("https-redirect", HTTPSRedirectMiddleware, [("https-redirect", {})], REQUEST),
    Subject(
        "authentication",
        lambda app: AuthenticationMiddleware(Identify(app), Basic()),
        [("authentication", {}), ("identify", {})],
        REQUEST,
    ),
    Subject("base-http", Editing, [("editing", {})], BOTH),
    Subject(
        "server-error", lambda app: ServerErrorMiddleware(Faulty(app)), [("server-error", {}), ("faulty", {})], BOTH
    ),
    Subject(
        "server-error-handler",
        lambda app: ServerErrorMiddleware(Faulty(app), told),
        [("server-error-handler", {}), ("faulty", {})],
        BOTH,
    ),
]


def make_bridge() -> Bridge:
    """The same middleware, each in the phase that docs/phases.md gives it."""
    bridge = Bridge()
    bridge.add_middleware("cors", CORSMiddleware, phase="both")
    bridge.add_middleware("gzip", GZipMiddleware, phase="response", request_headers=["accept-encoding"])
    bridge.add_middleware("session", SessionMiddleware, phase="both")
    bridge.add_middleware("visits", Visits, phase="both")
    bridge.add_middleware("trusted-host", TrustedHostMiddleware, phase="request", exact=True)
    bridge.add_middleware("https-redirect", HTTPSRedirectMiddleware, phase="request", exact=True)
    bridge.add_middleware("authentication", AuthenticationMiddleware, phase="request", defaults={"backend": Basic()})
    bridge.add_middleware("identify", Identify, phase="request")
    bridge.add_middleware("editing", Editing, phase="both")
    bridge.add_middleware("server-error", ServerErrorMiddleware, phase="both")
    bridge.add_middleware("server-error-handler", ServerErrorMiddleware, phase="both", defaults={"handler": told})
    bridge.add_middleware("faulty", Faulty, phase="both")
    return bridge


# the requests


def get(target: str, **headers: str) -> Request:
    return Request("GET", target, _headers(headers))


def _headers(headers: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name.replace("_", "-"), value) for name, value in headers.items())


def sent(method: str, target: str, body: bytes = b"", **headers: str) -> Request:
    return Request(method, target, _headers(headers), body)


def session_of(content: object) -> str:
    signed = itsdangerous.TimestampSigner(SECRET).sign(b64encode(json.dumps(content).encode()))
    return f"session={signed.decode()}"


TAG = '"tag"'
COMMON = [
    get("/text"),
    get("/text?size=3000", accept_encoding="gzip, br"),
    get("/text?size=3000", accept_encoding="br"),
    get("/text?size=3000", origin="https://a.test", cookie="a=1; b=2"),
    sent("HEAD", "/text?size=300"),
    sent("HEAD", "/text?size=3000", origin="https://a.test"),
    sent("HEAD", "/files/file.txt"),
    sent("HEAD", "/status/204"),
    sent("HEAD", "/status/404"),
    sent("POST", "/echo", b'{"a": 1}', content_type="application/json"),
    sent("POST", "/echo", bytes(range(256)) * 40, content_type="application/octet-stream", x_a="1"),
    sent("POST", "/echo", b"x" * 300_000),
    sent("PUT", "/echo", b"put", origin="https://b.test"),
    sent("PATCH", "/echo?a=1", b"patch"),
    sent("DELETE", "/echo?a=1&b=%20x&a=2&c"),
    sent("OPTIONS", "/echo"),
    get("/echo/a%20b%3Fc", x_a="a", cookie="a=1"),
    get("/echo?q=%C3%BC+%26&q=2", accept="text/html;q=0.5, */*"),
    get("/page", origin="https://a.test"),
    get("/data?n=500"),
    get("/data?n=500", accept_encoding="gzip"),
    get("/stream?n=3"),
    get("/stream?n=200", accept_encoding="gzip"),
    get("/stream?n=5&type=text/event-stream", accept_encoding="gzip"),
    sent("POST", "/stream?n=3", b"x"),
    get("/cookies"),
    sent("POST", "/cookies", b"x", origin="https://a.test"),
    get("/encoded", accept_encoding="gzip"),
    get("/image", accept_encoding="gzip"),
    get("/untyped"),
    get("/files/file.txt", range="bytes=0-99"),
    get("/files/file.txt", range="bytes=-5", accept_encoding="gzip"),
    get("/files/file.txt", range="bytes=9000-"),
    get("/files/file.txt", if_modified_since="Sun, 13 Sep 2020 12:26:40 GMT"),
    get("/files/file.txt", if_modified_since="Sat, 12 Sep 2020 12:26:40 GMT"),
    get("/files/file.txt", if_none_match='"another"'),
    get("/files/nothing"),
    get("/status/204"),
    sent("POST", "/status/204", b"x"),
    get("/status/304", if_none_match='"of-it"'),
    get("/status/201"),
    get("/status/400"),
    get("/status/401", accept_encoding="gzip"),
    get("/status/418", origin="https://a.test"),
    sent("PUT", "/status/503", b"x"),
    get("/redirect"),
    get("/empty/200"),
    get("/empty/404"),
    Request(
        "GET", "/echo", (("x-a", "1"), ("x-a", "2"), ("cookie", "a=1"), ("accept", "text/html"), ("accept", "*/*"))
    ),
]
"""What every middleware is tried with; and then with what it is about:"""

OWN: dict[str, list[Request]] = {
    "cors": [
        sent("OPTIONS", "/echo", origin="https://a.test", access_control_request_method="PUT"),
        sent("OPTIONS", "/echo", origin="https://a.test", access_control_request_method="DELETE"),
        sent("OPTIONS", "/echo", origin="https://c.test", access_control_request_method="GET"),
        sent(
            "OPTIONS",
            "/echo",
            origin="https://b.test",
            access_control_request_method="GET",
            access_control_request_headers="x-a, content-type",
        ),
        sent(
            "OPTIONS",
            "/echo",
            origin="https://b.test",
            access_control_request_method="GET",
            access_control_request_headers="x-b",
        ),
        get("/echo", origin="https://c.test"),
        get("/cookies", origin="https://b.test", cookie="a=1"),
        get("/status/304", origin="https://a.test"),
        get("/stream?n=9", origin="https://a.test"),
        get("/stream?n=0", origin="https://a.test"),
        get("/tagged", origin="https://a.test"),
        get("/tagged", origin="https://a.test", if_none_match=TAG),
        get("/bare", origin="https://a.test"),
    ],
    "gzip": [
        get("/text?size=499", accept_encoding="gzip"),
        get("/text?size=500", accept_encoding="gzip"),
        get("/text?size=300000", accept_encoding="gzip"),
        get("/files/file.json", accept_encoding="gzip"),
        get("/files/file.json", accept_encoding="gzip", range="bytes=0-9"),
        get("/stream?n=1", accept_encoding="gzip"),
        get("/stream?n=0", accept_encoding="br"),
        get("/page", accept_encoding="gzip;q=1.0"),
        get("/status/500", accept_encoding="gzip"),
        sent("HEAD", "/text?size=3000", accept_encoding="gzip"),
        get("/bare", accept_encoding="gzip"),
        get("/echo/a%2Fb"),
    ],
    "session": [
        get("/echo", cookie=session_of({"visits": 4})),
        get("/echo?quiet", cookie=session_of({"visits": 4})),
        get("/echo?quiet"),
        get("/echo?logout", cookie=session_of({"visits": 4})),
        get("/echo", cookie="session=forged"),
        get("/cookies", cookie=session_of({"visits": 1, "name": "ü"}) + "; other=1"),
        sent("POST", "/status/204", b"x", cookie=session_of({"visits": 7})),
        sent("HEAD", "/text", cookie=session_of({"visits": 7})),
        get("/status/404", cookie=session_of({"visits": 7})),
        get("/redirect", cookie=session_of({})),
    ],
    "trusted-host": [
        get("/echo", host="a.test:8000"),
        get("/echo", host="x.b.test"),
        get("/echo", host="b.test"),
        get("/echo", host="evil.test"),
        sent("HEAD", "/echo", host="evil.test"),
        sent("POST", "/echo", b"x", host="evil.test"),
        get("/echo/a%20b?c=%20d&e", host="c.test"),
        sent("HEAD", "/echo?a=1&b=2&a=3", host="c.test"),
        sent("HEAD", "/echo", host="c.test:8000", x_listener_tls="1"),
        get("/echo", host="A.test"),
    ],
    "https-redirect": [
        *[Request(one.method, one.target, (*one.headers, ("x-listener-tls", "1")), one.body) for one in COMMON],
        sent("HEAD", "/echo/a%2Fb/%7Ec?a=%20b", host="a.test:80"),
        sent("HEAD", "/echo?b=2&a=1&b=3", host="[::1]:8000"),
        sent("HEAD", "/", host="a.test:443"),
        sent("HEAD", "/echo/a%20b%3Fc"),
        get("/echo/a%20b%3Fc?d=%20e&f", host="a.test:80"),
        sent("POST", "/echo", b"x", origin="https://a.test"),
    ],
    "authentication": [
        get("/echo", authorization="User ann"),
        get("/echo?a=1", authorization="Bearer x"),
        sent("HEAD", "/echo", authorization="Bearer x"),
        sent("POST", "/echo", b"x", authorization="user bob"),
        sent("POST", "/echo", b"x", authorization="Basic bob"),
        get("/echo/a%20b", authorization="user bob", x_user="forged"),
    ],
    "base-http": [
        get("/echo", x_refuse="1"),
        sent("POST", "/echo", b"x", x_refuse="1"),
        get("/echo", x_drop="1", x_a="2"),
        get("/echo?move=1"),
        sent("POST", "/echo?move=1", b"moved"),
        get("/echo/a%20b?move=1"),
        get("/text?size=200", x_shout="1"),
        get("/stream?n=20", x_shout="1"),
        get("/status/404", x_shout="1"),
        sent("POST", "/echo", b"body", x_shout="1"),
        sent("HEAD", "/echo", x_refuse="1"),
    ],
    "server-error": [
        get("/text", x_fault="before"),
        sent("POST", "/echo", b"x", x_fault="before"),
        sent("POST", "/echo", b"x", x_fault="read"),
        sent("HEAD", "/text", x_fault="before"),
        get("/text", x_fault="start"),
        get("/text", x_fault="start", accept="text/html"),
        sent("POST", "/status/204", b"x", x_fault="start"),
        get("/cookies", x_fault="start"),
        get("/text", x_fault="after"),
        get("/raising"),
    ],
    "server-error-handler": [
        get("/text", x_fault="before"),
        get("/text", x_fault="start"),
        sent("PUT", "/echo", b"x", x_fault="read"),
        get("/status/304", x_fault="start"),
        get("/raising"),
    ],
}

# the limits

Gives = Callable[[Answer], Answer]
PAGE = b"<any page of nginx>"


@dataclasses.dataclass(frozen=True)
class Limit:
    """Something that the protocol, or APISIX itself, does not let through.

    Attributes:
        gives: what becomes of uvicorn's answer.
        document, line: where it says so.
    """

    gives: Gives
    document: str
    line: str


def changed(**headers: list[str] | None) -> Gives:
    """Other headers; None: it is not there."""

    def gives(answer: Answer) -> Answer:
        after = {**answer.headers, **{name.replace("_", "-"): values for name, values in headers.items()}}
        return dataclasses.replace(
            answer, headers={name: values for name, values in after.items() if values is not None}
        )

    return gives


def as_page(answer: Answer) -> Answer:
    return Answer(502, {}, None, PAGE)


def not_modified(answer: Answer) -> Answer:
    without = changed(content_type=None)(answer)
    return dataclasses.replace(without, status=304, body=b"")


def uncompressed(answer: Answer) -> Answer:
    length = "3000"
    return dataclasses.replace(changed(vary=None, content_encoding=None)(answer), length=length)


LIMITS = {
    "a blank": Limit(
        lambda answer: dataclasses.replace(answer, body=b" "),
        "docs/mapping.md",
        "| empty body, status 300 or more | a body of one blank | else nginx puts its own HTML page there (a *cure*) |",
    ),
    "an empty stream": Limit(
        lambda answer: dataclasses.replace(answer, body=b" "),
        "docs/mapping.md",
        "| empty body, streamed by the upstream | a body of one blank (warning) |",
    ),
    "conditions": Limit(
        not_modified, "docs/mapping.md", "APISIX answers conditional requests itself where a plugin's answer is a 200"
    ),
    "charset": Limit(
        changed(content_type=["text/plain; charset=utf-8"]),
        "docs/mapping.md",
        "APISIX adds `; charset=utf-8` to a `content-type` of text",
    ),
    "upstream status": Limit(
        changed(x_apisix_upstream_status=["503"]),
        "docs/mapping.md",
        "APISIX adds `x-apisix-upstream-status` to an upstream's 5xx",
    ),
    "HEAD has no body": Limit(uncompressed, "docs/phases.md", "On HEAD there is no body for anybody"),
    "escaped path": Limit(
        as_page, "docs/phases.md", "A path that needs escaping (`%20`, `%3F`, `%23`) is answered with 502"
    ),
    "escaped slash": Limit(
        lambda answer: dataclasses.replace(answer, body=answer.body.replace(b"/echo/a%2Fb", b"/echo/a/b")),
        "docs/phases.md",
        "and `%2F` arrives as `/`",
    ),
}

PLAIN_REDIRECT = [
    one for one in OWN["https-redirect"] if one.method != "HEAD" and ("x-listener-tls", "1") not in one.headers
]
EXCEPTIONS: dict[tuple[str, Request], str] = {
    **{("https-redirect", one): "a blank" for one in PLAIN_REDIRECT},
    ("trusted-host", get("/echo/a%20b?c=%20d&e", host="c.test")): "a blank",
    ("cors", get("/stream?n=0", origin="https://a.test")): "an empty stream",
    ("gzip", get("/stream?n=0", accept_encoding="br")): "an empty stream",
    ("cors", get("/tagged", origin="https://a.test", if_none_match=TAG)): "conditions",
    ("cors", get("/bare", origin="https://a.test")): "charset",
    ("gzip", get("/bare", accept_encoding="gzip")): "charset",
    ("trusted-host", sent("PUT", "/status/503", b"x")): "upstream status",
    ("authentication", sent("PUT", "/status/503", b"x")): "upstream status",
    ("https-redirect", sent("PUT", "/status/503", b"x", x_listener_tls="1")): "upstream status",
    ("gzip", sent("HEAD", "/text?size=3000", origin="https://a.test")): "HEAD has no body",
    ("gzip", sent("HEAD", "/text?size=3000", accept_encoding="gzip")): "HEAD has no body",
    ("gzip", get("/echo/a%20b%3Fc", x_a="a", cookie="a=1")): "escaped path",
    ("gzip", get("/echo/a%2Fb")): "escaped slash",
}

CASES = [
    (subject.name, request)
    for subject in SUBJECTS
    for request in (COMMON if subject.name != "https-redirect" else []) + OWN[subject.name]
]

# the tests

Sides = dict[str, tuple[Side, Side]]


def without_time(answer: Answer) -> Answer:
    """Session cookies without the second in which they were signed."""
    cookies = answer.headers.get("set-cookie", [])
    return changed(set_cookie=[_without_time(cookie) for cookie in cookies] or None)(answer)


def _without_time(cookie: str) -> str:
    value, _, rest = cookie.removeprefix("session=").partition(";")
    if value == "null" or not cookie.startswith("session="):
        return cookie
    return f"session={itsdangerous.TimestampSigner(SECRET).unsign(value).decode()}; signed;{rest}"


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    folder = Path(tempfile.mkdtemp(prefix="ab-", dir="/tmp"))  # a short path, for the socket
    upstream = make_upstream(tmp_path_factory.mktemp("files"))
    with standing(upstream, make_bridge(), SUBJECTS, folder) as found:
        yield found
    shutil.rmtree(folder)


def test_every_middleware_has_its_requests() -> None:
    assert len(set(CASES)) == len(CASES)
    assert {name: len([one for one, _ in CASES if one == name]) >= 20 for name in OWN} == dict.fromkeys(OWN, True)
    assert set(EXCEPTIONS) <= set(CASES)


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_has_its_line_in_the_documentation(name: str) -> None:
    limit = LIMITS[name]
    assert name in EXCEPTIONS.values()
    assert limit.line in " ".join((ROOT / limit.document).read_text().split())


@pytest.mark.parametrize(("subject", "request_"), CASES, ids=lambda value: str(value))
def test_the_client_gets_what_uvicorn_sends(
    sides: Sides, record_property: Callable[[str, object], None], subject: str, request_: Request
) -> None:
    uvicorn, gateway = sides[subject]
    expected, found = without_time(uvicorn.ask(request_)), without_time(gateway.ask(request_))
    limit = EXCEPTIONS.get((subject, request_))
    if limit is None:
        assert found == expected
        record_property("fidelity", "equal")
        return
    assert found != expected, "there is no limit any more"
    expected = LIMITS[limit].gives(expected)
    if expected.body is PAGE:
        found = as_page(found) if found.status == expected.status else found
    assert found == expected
    record_property("fidelity", "limited")
