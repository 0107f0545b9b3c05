"""`PassOn`, the response of Starlette and FastAPI: what goes upstream, and what comes back."""

import logging
import time
from typing import Annotated, Any

import pytest
from click import unstyle
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, PassOn, PluginError
from asgi_bridge.one_call import Request as Call
from asgi_bridge.one_call import as_text, call_in_process

from .stage import Stage, Upstream, gateway, plain

ANY = ["GET", "HEAD", "POST", "PUT"]
stages = pytest.mark.parametrize("stage", [plain, gateway])


def passing(read: str = "", **changes: Any) -> Starlette:
    """An application that lets every request go on, after it has read the body in one of Starlette's ways."""

    async def endpoint(request: Request) -> Response:
        if read:
            await getattr(request, read)()
        return PassOn(**changes)

    return Starlette(routes=[Route("/{path:path}", endpoint, methods=ANY)])


def bridge_of(app: ASGIApp, **options: Any) -> Bridge:
    bridge = Bridge()
    bridge.mount("gate", app, **options)
    return bridge


@stages
def test_all_changes_reach_the_upstream(stage: Stage) -> None:
    shop = Upstream()
    app = passing(headers={"x-user": "ada", "authorization": None}, path="/v2/ä", query={"page": "2"}, body="new")
    sent = [("x_user", "root"), ("x-user", "eve"), ("authorization", "secret"), ("x-trace", "7")]
    with stage(bridge_of(app), ["gate"], shop) as client:
        answer = client.post("/orders?page=1", headers=sent, content=b"old one")

    assert (answer.status_code, answer.text) == (201, "from the upstream")
    assert shop.seen == [("POST", "/v2/ä?page=2", b"new")]
    assert {name: shop.headers.get(name) for name in ("x-user", "x_user", "authorization", "content-length")} == {
        "x-user": ["ada"], "x_user": None, "authorization": None, "content-length": ["3"],
    }  # fmt: skip
    assert shop.headers["x-trace"] == ["7"]


@stages
@pytest.mark.parametrize("read", ["", "body", "json"])
@pytest.mark.parametrize("request_body", [True, False])
def test_the_body_goes_on_though_the_endpoint_has_read_it(stage: Stage, read: str, request_body: bool) -> None:
    shop = Upstream()
    with stage(bridge_of(passing(read), request_body=request_body), ["gate"], shop) as client:
        client.post("/orders", json={"sku": "ä" * 100_000})
        client.put("/orders", content=b"7")
        if read != "json":
            client.get("/orders")

    long = ('{"sku":"' + "ä" * 100_000 + '"}').encode()
    expected = [("POST", "/orders", long), ("PUT", "/orders", b"7"), ("GET", "/orders", b"")]
    assert shop.seen == expected[: 2 if read == "json" else 3]


@stages
@pytest.mark.parametrize("options", [{"on_error": "open"}, {"exact": True}, {"timeout": 5.0, "cures": False}])
def test_the_options_of_a_mount_do_not_matter(stage: Stage, options: dict[str, Any]) -> None:
    shop = Upstream()
    app = passing("body", headers={"x-user": "ada"})
    bridge = bridge_of(app, **options)
    bridge.mount("inner", passing("body"), **options)
    with stage(bridge, ["gate", "inner"], shop) as client:
        assert client.post("/orders", content=b"a").status_code == 201
    assert (shop.seen, shop.headers["x-user"]) == ([("POST", "/orders", b"a")], ["ada"])


@stages
def test_a_plugin_that_is_passed_over_leaves_the_body_to_the_next(stage: Stage) -> None:
    shop = Upstream()

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await receive()
            raise ZeroDivisionError

    bridge = bridge_of(passing("body"))
    bridge.mount("broken", broken, on_error="open")
    with stage(bridge, ["broken", "gate"], shop) as client:
        assert client.post("/orders", content=b"a").status_code == 201
    assert shop.seen == [("POST", "/orders", b"a")]


class Wrapping:
    """A middleware with a receive of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapped() -> Message:
            return await receive()

        await self.app(scope, wrapped, send)


class Shouting(Wrapping):
    """A middleware that makes the body upper case."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def louder() -> Message:
            message = await receive()
            return {**message, "body": message["body"].upper()} if message["type"] == "http.request" else message

        await self.app(scope, louder, send)


async def untouched(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


@stages
@pytest.mark.parametrize("read", ["", "body"])
@pytest.mark.parametrize(
    ("outer", "body"),
    [(Wrapping, b"a"), (Shouting, b"A"), (lambda app: BaseHTTPMiddleware(app, dispatch=untouched), b"a")],
)
def test_an_outer_plugin_with_its_own_receive(stage: Stage, read: str, outer: Any, body: bytes) -> None:
    shop = Upstream()
    bridge = bridge_of(passing(read))

    @bridge.plugin("outer")
    def _(app: ASGIApp, conf: dict[str, str]) -> ASGIApp:
        return outer(app)  # type: ignore[no-any-return]

    with stage(bridge, ["outer", "gate"], shop) as client:
        assert client.post("/orders", content=b"a").status_code == 201
    assert shop.seen == [("POST", "/orders", body)]


@stages
@pytest.mark.parametrize("read", ["", "body"])
def test_a_middleware_of_the_application_itself(stage: Stage, read: str) -> None:
    shop = Upstream()
    app = passing(read)
    app.add_middleware(BaseHTTPMiddleware, dispatch=untouched)
    with stage(bridge_of(app), ["gate"], shop) as client:
        assert client.post("/orders", content=b"a").status_code == 201
    assert shop.seen == [("POST", "/orders", b"a")]


@stages
def test_middleware_and_exception_handlers_may_return_it(stage: Stage) -> None:
    async def by_path(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return PassOn(headers={"x-by": "middleware"}) if request.url.path == "/early" else await call_next(request)

    async def handler(request: Request, error: Exception) -> Response:
        return PassOn(headers={"x-by": "handler"})

    async def failing(request: Request) -> Response:
        await request.body()
        raise KeyError

    app = Starlette(routes=[Route("/late", failing, methods=ANY)], exception_handlers={KeyError: handler, 404: handler})
    app.add_middleware(BaseHTTPMiddleware, dispatch=by_path)
    shop, by = Upstream(), []
    with stage(bridge_of(app), ["gate"], shop) as client:
        for path in ("/early", "/late", "/unknown"):
            assert client.post(path, content=b"a").status_code == 201
            by += shop.headers["x-by"]
    assert (shop.seen, by) == (
        [("POST", path, b"a") for path in ("/early", "/late", "/unknown")], ["middleware", "handler", "handler"],
    )  # fmt: skip


@stages
def test_an_inner_plugin_gets_the_body_that_an_outer_one_has_read(stage: Stage) -> None:
    shop = Upstream()
    bridge = bridge_of(passing("body", body=b"second"))
    bridge.mount("first", passing("json", headers={"x-first": "1"}))
    bridge.mount("last", passing("body"))
    with stage(bridge, ["first", "gate", "last"], shop) as client:
        client.post("/", json="first")
    assert (shop.seen, shop.headers["x-first"]) == ([("POST", "/", b"second")], ["1"])


@stages
def test_headers_of_the_response_are_added(stage: Stage) -> None:
    shop = Upstream()

    async def endpoint(request: Request) -> Response:
        response = PassOn(response_headers={"x-a": "1"})
        response.headers["x-b"] = "2"
        response.headers["x-a"] += "1"
        response.set_cookie("own", "1")
        return response

    with stage(bridge_of(Starlette(routes=[Route("/", endpoint)])), ["gate"], shop) as client:
        answer = client.get("/")
    assert {name: answer.headers.get_list(name) for name in ("x-a", "x-b", "x-of")} == {
        "x-a": ["11"], "x-b": ["2"], "x-of": ["upstream"],
    }  # fmt: skip
    # APISIX puts the cookies of the gateway first
    assert sorted(answer.headers.get_list("set-cookie")) == [
        "of=upstream; Path=/; Partitioned", "of=upstream; Path=/a", "own=1; Path=/; SameSite=lax",
    ]  # fmt: skip


def test_in_both_phases_the_real_response_is_changed() -> None:
    shop = Upstream()
    app = passing("body", response_headers={"x-of": "gate", "vary": None, "set-cookie": "own=1"})
    with gateway(bridge_of(app, phase="both"), ["gate"], shop, "both") as client:
        answer = client.post("/", content=b"a")
    assert (answer.status_code, answer.text, answer.headers["x-of"]) == (201, "from the upstream", "gate")
    assert ("vary" in answer.headers, answer.headers.get_list("set-cookie")) == (
        False, ["of=upstream; Path=/; Partitioned", "of=upstream; Path=/a", "own=1"],
    )  # fmt: skip
    assert shop.seen == [("POST", "/", b"a")]


@stages
def test_the_background_task_runs(stage: Stage) -> None:
    done: list[str] = []

    def log() -> None:
        time.sleep(0.1)  # the client has its answer by then
        done.append("logged")

    app = passing(background=BackgroundTask(log))
    with stage(bridge_of(app), ["gate"], Upstream()) as client:
        client.get("/")
    assert done == ["logged"]


@stages
def test_under_a_root_path_the_path_is_that_of_the_upstream(stage: Stage) -> None:
    shop = Upstream()
    with stage(bridge_of(passing(path="/api/orders"), root_path="/api"), ["gate"], shop) as client:
        client.get("/")
    with stage(bridge_of(passing(), root_path="/api"), ["gate"], shop) as client:
        client.get("/x")
    assert [target for _, target, _ in shop.seen] == ["/api/orders", "/x"]


def test_a_call_by_hand_shows_what_each_changes() -> None:
    bridge = bridge_of(passing("body", headers={"x-user": "ada"}))
    bridge.mount("last", passing("body", body="new"))
    request = Call([("gate", "{}"), ("last", "{}")], method="POST", path="/orders", body=b"old")
    outcome = call_in_process(request, bridge.plugins)

    assert (outcome.error, [watch.body for watch in outcome.watches]) == (None, [b"old", b"old"])
    lines = [line.strip() for line in unstyle("\n".join(as_text(request, outcome))).splitlines()]
    assert [line for line in lines if "x-user" in line or "3 → 3 bytes" in line] == [
        "request header + x-user: ada", "request body 3 → 3 bytes: new", "header  x-user: ada",
    ]  # fmt: skip


class Order(BaseModel):
    sku: str


def caller(request: Request) -> str:
    if "x-api-key" not in request.headers:
        raise HTTPException(401)
    return request.headers["x-api-key"]


def fastapi_app() -> FastAPI:
    app = FastAPI(dependencies=[Depends(caller)])

    @app.post("/orders")
    async def order(order: Order, user: Annotated[str, Depends(caller)]) -> PassOn:
        return PassOn(headers={"x-user": user, "x-sku": order.sku})

    @app.api_route("/{path:path}", methods=ANY)
    def anything() -> PassOn:
        return PassOn()

    return app


@stages
def test_fastapis_dependencies_guard_it(stage: Stage) -> None:
    shop = Upstream()
    key = {"x-api-key": "ada"}
    with stage(bridge_of(fastapi_app()), ["gate"], shop) as client:
        assert [client.get("/x").status_code, client.post("/orders", json={"sku": "7"}).status_code] == [401, 401]
        assert client.post("/orders", json={}, headers=key).status_code == 422
        assert shop.seen == []
        assert client.post("/orders", json={"sku": "7"}, headers=key).status_code == 201
        assert (shop.headers["x-user"], shop.headers["x-sku"]) == (["ada"], ["7"])
        assert client.put("/x?y", content=b"z", headers=key).status_code == 201
    assert shop.seen == [("POST", "/orders", b'{"sku":"7"}'), ("PUT", "/x?y", b"z")]


@stages
@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            {"body": b"new"},
            {"request_body": False},
            "body= changes the request body, but the plugin is mounted with request_body=False: leave one of the two "
            "out",
        ),
        ({"path": "x"}, {}, "path='x': a path is a str that begins with \"/\""),
    ],
)
def test_what_cannot_be_done_lets_nothing_pass(
    stage: Stage, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    shop = Upstream()
    with (
        stage(bridge_of(passing(**changes), **options), ["gate"], shop) as client,
        pytest.raises(PluginError) as raised,
    ):
        client.post("/", content=b"old")
    assert (str(raised.value), shop.seen) == (message, [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"body": b""}, "the request body was emptied"), ({"headers": {"x-a": "1\r\nx-b: 2"}}, "x-a")],
)
def test_what_the_protocol_cannot_express_is_refused(
    changes: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Upstream()
    caplog.set_level(logging.ERROR)
    with gateway(bridge_of(passing(**changes)), ["gate"], shop) as client, pytest.raises(PluginError, match=message):
        client.post("/", content=b"old")
    assert shop.seen == []
    assert message in caplog.text


def test_outside_of_a_plugin_it_says_so() -> None:
    with TestClient(passing()) as client, pytest.raises(PluginError) as raised:
        client.get("/")
    assert str(raised.value) == "pass_on and PassOn work in a plugin's call only; this scope belongs to none"
