"""Starlette's middleware and applications in the request phase, none of them changed for it."""

import asyncio
import base64
import gzip
from dataclasses import replace
from typing import Any

import itsdangerous
import pytest
from asgiref.testing import ApplicationCommunicator
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, SimpleUser
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.wire import HTTPReqCallReq, Info, ReqBody, Rewrite, Stop, Var

from .calls import BODY_IF_ANY, answer, errors, passing, request, warnings

POST = request((b"content-length", b"5"), method="POST")


def through(
    middleware: Any, message: HTTPReqCallReq | None = None, inner: ASGIApp | None = None, **keywords: Any
) -> Any:
    """The answer of a middleware, around a plugin `inner` or nothing."""
    bridge = Bridge()
    body, asked = keywords.pop("body", None), keywords.pop("asked", None)
    options = {name: keywords.pop(name) for name in ("request_body",) if name in keywords}
    bridge.add_middleware("m", middleware, defaults=keywords, **options)
    if inner is not None:
        bridge.mount("inner", inner)
    return answer(bridge=bridge, message=message, body=body, asked=asked)


def unvaried(found: Any) -> Any:
    """`found` without ``vary``, in which versions of Starlette differ."""
    name = "headers" if isinstance(found, Stop) else "resp_headers"
    return replace(found, **{name: [entry for entry in getattr(found, name) if entry[0] != b"vary"]})


def test_cors() -> None:
    origin = request((b"origin", b"https://b.test"))
    assert unvaried(through(CORSMiddleware, origin, allow_origins=["*"])) == Rewrite(
        resp_headers=[(b"access-control-allow-origin", b"*")]
    )
    found = through(CORSMiddleware, origin, allow_origins=["https://b.test"], allow_credentials=True)
    assert unvaried(found) == Rewrite(
        resp_headers=[
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-allow-origin", b"https://b.test"),
        ]
    )
    assert dict(found.resp_headers)[b"vary"].startswith(b"Origin")
    found = through(CORSMiddleware, request(), allow_origins=["*"])
    assert found is None or unvaried(found) == Rewrite(resp_headers=[])


def preflight(origin: bytes) -> HTTPReqCallReq:
    return request((b"origin", origin), (b"access-control-request-method", b"PUT"), method="OPTIONS")


def test_cors_preflight() -> None:
    keywords: dict[str, Any] = {"allow_origins": ["https://b.test"], "allow_methods": ["PUT"], "max_age": 5}
    found = through(CORSMiddleware, preflight(b"https://b.test"), **keywords)
    assert (found.status, found.body) == (200, b"OK")
    assert dict(unvaried(found).headers) == {
        b"access-control-allow-methods": b"PUT",
        b"access-control-allow-headers": b"Accept, Accept-Language, Content-Language, Content-Type",
        b"access-control-max-age": b"5",
        b"access-control-allow-origin": b"https://b.test",
        b"content-type": b"text/plain; charset=utf-8",
    }
    found = through(CORSMiddleware, preflight(b"https://c.test"), **keywords)
    assert (found.status, found.body) == (400, b"Disallowed CORS origin")


def test_gzip_leaves_the_empty_response_alone(caplog: pytest.LogCaptureFixture) -> None:
    assert through(GZipMiddleware, request((b"accept-encoding", b"gzip")), minimum_size=1) in (
        None,
        Rewrite(resp_headers=[(b"vary", b"Accept-Encoding")]),
    )
    assert warnings(caplog) == []


def test_gzip_of_a_plugins_own_response() -> None:
    text = b"a long answer " * 50
    found = through(
        GZipMiddleware, request((b"accept-encoding", b"gzip")), PlainTextResponse(text.decode()), minimum_size=100
    )
    assert dict(found.headers) == {
        b"content-type": b"text/plain; charset=utf-8",
        b"content-encoding": b"gzip",
        b"vary": b"Accept-Encoding",
    }
    assert gzip.decompress(found.body) == text


def test_session() -> None:
    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        scope["session"]["count"] = scope["session"].get("count", 0) + 1
        await upstream(scope, receive, send)

    found = through(SessionMiddleware, None, counting, secret_key="s")
    headers = dict(found.resp_headers)
    assert set(headers) <= {b"set-cookie", b"vary"}
    cookie = headers[b"set-cookie"].split(b";")[0]
    assert found == Rewrite(resp_headers=found.resp_headers)

    found = through(SessionMiddleware, request((b"cookie", cookie)), counting, secret_key="s")
    value = dict(found.resp_headers)[b"set-cookie"].split(b";")[0].removeprefix(b"session=")
    signed = itsdangerous.TimestampSigner("s").unsign(value)
    assert base64.b64decode(signed) == b'{"count": 2}'


def test_trusted_host() -> None:
    assert through(TrustedHostMiddleware, allowed_hosts=["a.test"]) is None
    assert through(TrustedHostMiddleware, allowed_hosts=["b.test"]) == Stop(
        400, [(b"content-type", b"text/plain; charset=utf-8")], b"Invalid host header"
    )
    assert through(TrustedHostMiddleware, request(args=[(b"q", b"1")]), allowed_hosts=["www.a.test"]) == Stop(
        307, [(b"location", b"http://www.a.test/x?q=1"), (b"content-type", b"")], b" "
    )


def test_https_redirect() -> None:
    assert through(HTTPSRedirectMiddleware, request(path=b"/a b", args=[(b"q", b"1")])) == Stop(
        307, [(b"location", b"https://a.test/a%20b?q=1"), (b"content-type", b"")], b" "
    )
    headers = [(b"host", b"a.test"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"a.test")]
    assert through(HTTPSRedirectMiddleware, HTTPReqCallReq(5, None, "GET", b"/", None, [*headers])) is None


class Tokens(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        token = conn.headers.get("authorization")
        if token is None:
            return None
        if token != "good":
            raise AuthenticationError("bad token")
        return AuthCredentials(["all"]), SimpleUser("jack")


def test_authentication() -> None:
    users: list[Any] = []
    inner = passing(lambda scope: users.append((scope["user"].display_name, scope["auth"].scopes)))
    assert through(AuthenticationMiddleware, None, inner, backend=Tokens()) is None
    assert through(AuthenticationMiddleware, request((b"authorization", b"good")), inner, backend=Tokens()) is None
    assert users == [("", []), ("jack", ["all"])]
    assert through(AuthenticationMiddleware, request((b"authorization", b"bad")), inner, backend=Tokens()) == Stop(
        400, [(b"content-type", b"text/plain; charset=utf-8")], b"bad token"
    )


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise KeyError("secret")


async def forbidding(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPException(403, "not you", {"X-Why": "because"})


TEXT = (b"content-type", b"text/plain; charset=utf-8")


def test_server_error(caplog: pytest.LogCaptureFixture) -> None:
    assert through(ServerErrorMiddleware, None, failing) == Stop(500, [TEXT], b"Internal Server Error")
    # it sends the page, and raises again: for the log
    assert errors(caplog) == ["plugin inner: a fault after its answer, which stands: KeyError: 'secret'"]


def test_exceptions(caplog: pytest.LogCaptureFixture) -> None:
    assert through(ExceptionMiddleware, None, forbidding) == Stop(403, [(b"x-why", b"because"), TEXT], b"not you")
    assert errors(caplog) == []


# BaseHTTPMiddleware


class Base(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await call_next(request)


def test_base_http_that_does_nothing() -> None:
    # it wraps receive always, so a body is fetched and compared; and found the same
    assert through(Base, asked=[BODY_IF_ANY]) is None
    assert through(Base, asked=[], request_body=False) is None
    assert through(Base, POST, body=b"hello", asked=[[ReqBody()]]) is None
    assert through(Base, POST, body=b"hello", asked=[], request_body=False) is None


def test_base_http_around_base_http() -> None:
    bridge = Bridge()
    bridge.add_middleware("a", Base)
    bridge.add_middleware("b", Base)
    assert answer(bridge=bridge, message=POST, body=b"hello", asked=[[ReqBody()]]) is None


class Changing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        body = await request.body()
        request.scope["path"] = "/" + body.decode()
        response = await call_next(request)
        response.headers["x-length"] = str(len(body))
        return response


def test_base_http_that_reads_the_body_and_changes_both_sides() -> None:
    expected = Rewrite(path=b"/hello", resp_headers=[(b"x-length", b"5")])
    assert through(Changing, POST, body=b"hello", asked=[[ReqBody()]]) == expected


class Replacing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        if request.headers.get("x-bad"):
            return JSONResponse({"error": "bad"}, 403)
        return response


def test_base_http_that_refuses_after_the_upstream() -> None:
    assert through(Replacing) is None
    assert through(Replacing, request((b"x-bad", b"1"))) == Stop(
        403, [(b"content-type", b"application/json")], b'{"error":"bad"}'
    )


class Refusing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return PlainTextResponse("no", 403)


def test_base_http_that_never_calls_on() -> None:
    assert through(Refusing, POST, asked=[]) == Stop(403, [TEXT], b"no")


def test_base_http_around_a_plugin_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    assert through(Base, None, failing) is not None
    assert errors(caplog) == ["plugin inner: request refused: KeyError: 'secret'"]


class Unzip:
    """Decodes request bodies, as the decoders that are written for Starlette do."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (b"content-encoding", b"gzip") not in scope.get("headers", ()):
            await self.app(scope, receive, send)
            return
        body = gzip.decompress(await Request(scope, receive).body())
        headers = [entry for entry in scope["headers"] if entry[0] not in (b"content-encoding", b"content-length")]
        headers.append((b"content-length", b"%d" % len(body)))

        async def decoded() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app({**scope, "headers": headers}, decoded, send)


def test_request_decoder(caplog: pytest.LogCaptureFixture) -> None:
    packed = gzip.compress(b"hello" * 100)
    length = (b"content-length", b"%d" % len(packed))
    message = request(length, (b"content-encoding", b"gzip"), method="POST")
    assert through(Unzip, message, body=packed, asked=[[ReqBody()]]) == Rewrite(
        headers=[(b"content-encoding", None)], body=b"hello" * 100
    )
    assert through(Unzip, POST, body=b"hello", asked=[]) is None
    assert warnings(caplog) == []


# applications


async def hello(request: Request) -> Response:
    return PlainTextResponse(f"hello {request.query_params.get('name', 'you')}")


async def consumer(request: Request) -> Response:
    name = await apisix(request.scope).var("consumer_name")
    return JSONResponse({"consumer": (name or b"").decode()}, headers={"x-plugin": apisix(request.scope).plugin})


async def streaming(request: Request) -> Response:
    async def parts() -> Any:
        for number in range(3):
            yield f"{number}\n"

    return StreamingResponse(parts(), media_type="text/plain")


async def posted(request: Request) -> Response:
    return JSONResponse(await request.json(), 201)


async def moved(request: Request) -> Response:
    return RedirectResponse("/hello")


ROUTES = [
    Route("/hello", hello),
    Route("/consumer", consumer),
    Route("/streaming", streaming),
    Route("/posted", posted, methods=["POST"]),
    Route("/moved", moved),
    Mount("/", app=upstream),
]
JSON = (b"content-type", b"application/json")


@pytest.mark.parametrize("app", [Starlette(routes=ROUTES), Router(routes=ROUTES)], ids=["Starlette", "Router"])
@pytest.mark.parametrize(
    ("message", "body", "expected"),
    [
        (request(path=b"/hello", args=[(b"name", b"J\xc3\xbcrgen")]), None, Stop(200, [TEXT], "hello Jürgen".encode())),
        (request(path=b"/hello", method="HEAD"), None, Stop(200, [(b"content-length", b"9"), TEXT], b" ")),
        (request(path=b"/consumer"), None, Stop(200, [(b"x-plugin", b"p0"), JSON], b'{"consumer":"jack"}')),
        (request(path=b"/streaming"), None, Stop(200, [TEXT], b"0\n1\n2\n")),
        (request((b"content-length", b"8"), method="POST", path=b"/posted"), b'{"a": 1}',
         Stop(201, [JSON], b'{"a":1}')),
        (request(path=b"/moved"), None, Stop(307, [(b"location", b"/hello"), (b"content-type", b"")], b" ")),
        (request(path=b"/else"), None, None),
        (request((b"content-length", b"99999999"), method="POST", path=b"/else/more"), None, None),
    ],
)  # fmt: skip
def test_application(app: ASGIApp, message: HTTPReqCallReq, body: bytes | None, expected: Any) -> None:
    assert answer(app, message=message, body=body, variables={"consumer_name": b"jack"}) == expected


def test_application_with_middleware_of_its_own() -> None:
    app = Starlette(routes=ROUTES, middleware=[Middleware(CORSMiddleware, allow_origins=["*"]), Middleware(Base)])
    message = request((b"origin", b"https://b.test"))
    assert unvaried(answer(app, message=message)) == Rewrite(resp_headers=[(b"access-control-allow-origin", b"*")])


def test_an_exception_of_an_application_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async def endpoint(request: Request) -> Response:
        raise KeyError("secret")

    found = answer(Starlette(routes=[Route("/x", endpoint)]))
    assert found == Stop(500, [TEXT], b"Internal Server Error")
    assert errors(caplog) == ["plugin p0: a fault after its answer, which stands: KeyError: 'secret'"]


def test_background_task_of_a_response() -> None:
    done: list[bool] = []
    assert answer(PlainTextResponse("x", background=BackgroundTask(done.append, True))) == Stop(200, [TEXT], b"x")
    assert done == [True]


@pytest.mark.parametrize("path", ["/hello", "/streaming", "/moved"])
def test_an_application_gets_the_same_treatment_as_from_an_asgi_server(path: str) -> None:
    app = Starlette(routes=ROUTES)
    scopes: list[Scope] = []

    async def plugin(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append({**scope, "headers": list(scope["headers"])})
        await app(scope, receive, send)

    found = answer(plugin, message=request(path=path.encode()))

    async def main() -> list[Message]:
        communicator: Any = ApplicationCommunicator(app, scopes[0])  # type: ignore[no-untyped-call]
        await communicator.send_input({"type": "http.request", "body": b"", "more_body": False})
        messages = [await communicator.receive_output()]
        while not messages[-1]["type"].endswith("body") or messages[-1].get("more_body", False):
            messages.append(await communicator.receive_output())
        await communicator.wait()
        return messages

    start, *rest = asyncio.run(main())
    headers = [entry for entry in start["headers"] if entry[0] != b"content-length"]
    untyped = [] if b"content-type" in dict(headers) else [(b"content-type", b"")]
    body = b"".join(message.get("body", b"") for message in rest)
    assert found == Stop(start["status"], headers + untyped, body or b" ")


def test_a_middleware_around_an_application_plugin() -> None:
    bridge = Bridge()
    bridge.add_middleware("cors", CORSMiddleware, defaults={"allow_origins": ["*"]})
    bridge.mount("app", Starlette(routes=ROUTES))
    message = request((b"origin", b"https://b.test"), path=b"/hello")
    assert unvaried(answer(bridge=bridge, message=message)) == Stop(
        200, [TEXT, (b"access-control-allow-origin", b"*")], b"hello you"
    )
    message = request((b"origin", b"https://b.test"), path=b"/else")
    assert unvaried(answer(bridge=bridge, message=message)) == Rewrite(
        resp_headers=[(b"access-control-allow-origin", b"*")]
    )


def test_variables_and_scope_inside_an_applications_own_middleware() -> None:
    found: list[Any] = []

    class Asking(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            found.append(await apisix(request.scope).var("consumer_name"))
            return await call_next(request)

    app = Starlette(routes=ROUTES, middleware=[Middleware(Asking)])
    asked: list[list[Info]] = [[Var(b"consumer_name")], BODY_IF_ANY]
    assert answer(app, message=request(path=b"/else"), variables={"consumer_name": b"jack"}, asked=asked) is None
    assert found == [b"jack"]
