"""``forward-auth``: an application that the operator gives decides whether a request may pass."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgi_bridge_apps import bridge, forward_auth, ready_made
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import ConfigurationError, PluginError
from asgi_bridge.testing import PluginClient

Endpoint = Callable[[Request], Awaitable[Response]]


def answering(response: ASGIApp) -> tuple[ASGIApp, list[Scope]]:
    """Auth application that always gives the same answer, and records the scopes of its calls."""
    asked: list[Scope] = []

    async def auth_app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked.append(scope)
            await response(scope, receive, send)

    return auth_app, asked


def client(auth_app: ASGIApp, conf: Any = None, **kwargs: Any) -> PluginClient:
    return PluginClient(ready_made(auth_app=auth_app), "forward-auth", conf or {}, **kwargs)


def permission(*headers: tuple[str, str]) -> Response:
    response = Response(status_code=204)
    for name, value in headers:
        response.headers.append(name, value)
    return response


def test_a_permission_lets_the_request_pass_with_the_named_headers() -> None:
    auth_app, _ = answering(permission(("X-User", "ada"), ("X-Secret", "1"), ("X-Role", "a"), ("X-Role", "b")))

    answer = client(auth_app, {"upstream_headers": ["X-User", "X-Role"]}).post("/a?b=1", content=b"body")

    seen = answer.json()
    assert (seen["method"], seen["target"], seen["body"]) == ("POST", "/a?b=1", "body")
    assert [pair for pair in seen["headers"] if pair[0].startswith("x-")] == [
        ["x-user", "ada"],
        ["x-role", "a"],
        ["x-role", "b"],
    ]
    assert "x-user" not in answer.headers


@pytest.mark.parametrize("granted", [[], [("X-User", "ada")]])
def test_the_clients_own_headers_of_those_names_never_reach_the_upstream(granted: list[tuple[str, str]]) -> None:
    auth_app, _ = answering(permission(*granted))
    spoofed = [("x-user", "root"), ("X-USER", "root"), ("x_user", "root"), ("x-users", "kept")]

    seen = client(auth_app, {"upstream_headers": ["x-user"]}).get("/", headers=spoofed).json()

    assert [pair for pair in seen["headers"] if pair[0].startswith("x")] == [
        ["x-users", "kept"],
        *([["x-user", "ada"]] if granted else []),
    ]


def test_the_application_gets_our_forwarded_headers_and_never_the_clients() -> None:
    auth_app, asked = answering(permission())
    spoofed = {f"x-forwarded-{name}": "spoofed" for name in ("proto", "method", "host", "uri", "for")}
    spoofed |= {"x_forwarded_for": "spoofed", "X-Real-IP": "10.0.0.1", "x_real_ip": "10.0.0.1", "Forwarded": "for=a"}
    sent = {"Cookie": "session=1", "Host": "shop.test", "Content-Type": "text/plain"}

    client(auth_app, {"uri": "/check%20it?level=2"}).put("/a%20b/?c=%2F", content=b"body", headers={**spoofed, **sent})

    (scope,) = asked
    assert {key: scope[key] for key in ("method", "path", "raw_path", "query_string")} == {
        "method": "GET",
        "path": "/check it",
        "raw_path": b"/check%20it",
        "query_string": b"level=2",
    }
    headers = [pair for pair in scope["headers"] if not pair[0].startswith((b"accept", b"user-agent"))]
    assert sorted(headers) == [
        (b"content-type", b"text/plain"),
        (b"cookie", b"session=1"),
        (b"host", b"shop.test"),
        (b"x-forwarded-for", b"testclient"),
        (b"x-forwarded-host", b"shop.test"),
        (b"x-forwarded-method", b"PUT"),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-uri", b"/a%20b/?c=%2F"),
    ]


@pytest.mark.parametrize(
    ("names", "values"), [(["Authorization", "X-A"], {b"authorization": 1, b"x-a": 2}), ([], {}), (["x-none"], {})]
)
def test_a_route_may_name_the_headers_that_the_application_gets(names: list[str], values: dict[bytes, int]) -> None:
    auth_app, asked = answering(permission())
    headers = [("authorization", "Bearer 1"), ("x-a", "1"), ("x-a", "2"), ("cookie", "a=1")]

    client(auth_app, {"request_headers": names}).get("/", headers=headers)

    got = [name for name, _ in asked[0]["headers"] if not name.startswith(b"x-forwarded-") and name != b"host"]
    assert {name: got.count(name) for name in got} == values


def test_the_application_gets_no_body_and_the_upstream_gets_it_whole() -> None:
    bodies = []

    async def auth(request: Request) -> Response:
        bodies.append(await request.body())
        return Response()

    answer = client(Starlette(routes=[Route("/", auth)])).post("/", content=b"body")

    assert (bodies, answer.json()["body"]) == ([b""], "body")


def test_the_application_sees_the_disconnect_once_it_has_answered() -> None:
    received = []

    async def auth_app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            received.append(await receive())
            await permission()(scope, receive, send)
            received.append(await receive())

    assert client(auth_app).get("/").status_code == 200
    assert received == [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]


@pytest.mark.parametrize("status", [199 + 101, 401, 403, 404, 500])
def test_any_other_response_goes_to_the_client(status: int) -> None:
    response = PlainTextResponse("no", status, {"WWW-Authenticate": "Basic", "X-Why": "1"})
    response.headers.append("x-why", "2")
    auth_app, _ = answering(response)

    answer = client(auth_app, follow_redirects=False).get("/")

    assert (answer.status_code, answer.text) == (status, "no")
    assert (answer.headers["www-authenticate"], answer.headers.get_list("x-why")) == ("Basic", ["1", "2"])


def test_a_redirect_to_the_login_page_reaches_the_client() -> None:
    auth_app, _ = answering(RedirectResponse("https://login.test/"))

    answer = client(auth_app, follow_redirects=False).get("/")

    assert (answer.status_code, answer.headers["location"]) == (307, "https://login.test/")


def test_a_route_may_name_the_headers_of_a_refusal() -> None:
    auth_app, _ = answering(JSONResponse({}, 401, {"X-Why": "expired", "X-Internal": "1"}))

    headers = client(auth_app, {"client_headers": ["X-Why"]}).get("/").headers

    assert sorted(headers) == ["content-type", "x-why"]


def test_head_gets_the_refusal_without_a_body() -> None:
    auth_app, asked = answering(PlainTextResponse("no", 401))

    answer = client(auth_app).head("/")

    assert (answer.status_code, answer.content) == (401, b"")
    assert (b"x-forwarded-method", b"HEAD") in asked[0]["headers"]


def test_a_streamed_refusal_reaches_the_client_whole() -> None:
    async def auth_app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await send({"type": "http.response.body", "body": b"b"})

    assert client(auth_app).get("/").text == "ab"


async def _silent(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def _broken_off(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": True})


async def _raising(scope: Scope, receive: Receive, send: Send) -> None:
    raise PluginError("the database is gone")


async def _raising_late(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await permission()(scope, receive, send)
        raise PluginError("the database is gone")


async def _without_start(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.body", "body": b"ok"})


async def _of_another_kind(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.debug", "info": {}})
        await permission()(scope, receive, send)


async def _started_twice(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await permission()(scope, receive, send)


@pytest.mark.parametrize(
    "auth_app",
    [_silent, _broken_off, _raising, _raising_late, _without_start, _of_another_kind, _started_twice],
)
def test_a_fault_of_the_application_never_lets_the_request_pass(auth_app: ASGIApp) -> None:
    asked = []

    async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked.append(scope)

    with pytest.raises(PluginError, match="without a complete response|the database is gone|response.start"):
        client(auth_app, upstream=upstream).get("/")
    assert asked == []


def test_the_lifespan_of_the_application_runs_once_for_all_routes_and_its_state_is_in_the_scope() -> None:
    events = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        events.append("up")
        yield {"users": ["ada"]}
        events.append("down")

    async def auth(request: Request) -> Response:
        return permission(("x-user", request.state.users[0]))

    made = ready_made(auth_app=Starlette(routes=[Route("/", auth)], lifespan=lifespan))
    twice = [("forward-auth", {"upstream_headers": ["x-user"]}), ("forward-auth", {})]
    with PluginClient(made, twice) as opened:
        assert ["x-user", "ada"] in opened.get("/").json()["headers"]
        assert events == ["up"]
    assert events == ["up", "down"]
    assert forward_auth._shared == {}


def test_an_application_that_does_not_start_refuses_the_route() -> None:
    async def auth_app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with (
        pytest.raises(ConfigurationError, match="plugin forward-auth: .*the auth application: .*no database"),
        client(auth_app),
    ):
        pass
    assert forward_auth._shared == {}


def test_without_an_application_every_configuration_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="^plugin forward-auth: there is no auth application: "):
        PluginClient(bridge, "forward-auth", {}).get("/")


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"auth_app": "os:abort"}, "field 'auth_app': Input should be callable"),
        ({"auth_app": None}, "field 'auth_app': Input should be callable"),
        ({"uri": "http://auth.test/"}, "field 'uri': String should match pattern"),
        ({"uri": "/a b"}, "field 'uri': String should match pattern"),
        ({"request_headers": "cookie"}, "field 'request_headers': Input should be a valid array"),
        ({"request_headers": ["a:"]}, "field 'request_headers.0': String should match pattern"),
        ({"upstream_headers": ["Host"]}, "field 'upstream_headers.0': Value error, host selects the upstream"),
        ({"upstream_headers": ["content-length"]}, "field 'upstream_headers.0': Value error, content-length belongs"),
        ({"client_headers": [1]}, "field 'client_headers.0': Input should be a valid string"),
        ({"timeout": 3000}, "field 'timeout': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration(conf: object, reason: str) -> None:
    auth_app, _ = answering(permission())

    with pytest.raises(ConfigurationError, match=f"^plugin forward-auth: {reason}"):
        client(auth_app, conf).get("/")


def test_can_be_mounted_from_a_configuration_file() -> None:
    from asgi_bridge import Bridge

    made = Bridge()
    made.configure(
        {
            "plugins": {
                "auth": {
                    "middleware": "asgi_bridge_apps.forward_auth:ForwardAuth",
                    "defaults": {"auth_app": f"{__name__}:refusing", "client_headers": ["x-a"]},
                }
            }
        }
    )

    assert PluginClient(made, "auth", {}).get("/").status_code == 418
    assert "auth_app" not in made.plugins["auth"].describe()["schema"]["properties"]


refusing = PlainTextResponse("no", 418)
