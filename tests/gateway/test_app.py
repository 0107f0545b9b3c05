"""The application as callers use it: in process, with an ASGI upstream, with or without a lifespan."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge.errors import ConfigurationError
from asgi_bridge.gateway import Call, GatewayApp, Limits, Routes, echo, read_routes
from asgi_bridge.gateway.nginx.request import TARGET
from asgi_bridge.gateway.upstream import BrokenAnswer, UpstreamTimeout
from asgi_bridge.wire.messages import (
    ErrCode,
    ErrResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    Message,
    PrepareConfReq,
    ReqBody,
    RespBody,
    Rewrite,
    Stop,
    Var,
)
from tests.doubles.runner_double import Ask, RunnerDouble

CONF = {"conf": [{"name": "a", "value": "{}"}]}
PRE = {"ext-plugin-pre-req": CONF}
RESP = {"ext-plugin-post-resp": CONF}
NONE = {"_meta": {"disable": True}}


def routes(plugins: dict[str, Any] | None = None, **fields: Any) -> Routes:
    up = {"nodes": {"up.test:80": 1}}
    return read_routes({"routes": [{"id": "r", "uri": "/*", "plugins": plugins or {}, "upstream": up, **fields}]})


def client(runner: RunnerDouble, plugins: dict[str, Any] | None = None, **options: Any) -> TestClient:
    options.setdefault("upstream", echo)
    return TestClient(GatewayApp(routes(plugins), runner.path, **options))


def action(answer: Any) -> Callable[[Any, Ask], Message]:
    return lambda message, ask: HTTPReqCallResp(message.id, answer)


def answering(status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> ASGIApp:
    """Give an upstream that always answers the same."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def test_without_plugins_the_upstream_gets_the_request_as_nginx_sends_it(runner: RunnerDouble) -> None:
    answer = client(runner).get("/a%20b?q=%20", headers={"X-A": "1"})
    assert answer.json()["target"] == "/a%20b?q=%20"
    assert [pair for pair in answer.json()["headers"] if not pair[0].startswith(("accept", "user"))] == [
        ["host", "testserver"],
        ["x-real-ip", "127.0.0.1"],
        ["x-forwarded-for", "127.0.0.1"],
        ["x-a", "1"],
        ["x-forwarded-proto", "http"],
        ["x-forwarded-host", "testserver"],
        ["x-forwarded-port", "80"],
    ]
    assert answer.headers["server"] == "APISIX/3.18.0"
    assert "date" not in answer.headers
    assert runner.got == []


def test_rewrite_in_process(runner: RunnerDouble) -> None:
    runner.calls(action(Rewrite(b"/new", [(b"X-A", b"1")], [(b"q", b"1")], [(b"X-R", b"r")], b"body")))
    answer = client(runner, PRE).post("/x", content=b"old")
    assert {key: answer.json()[key] for key in ("target", "path", "query", "body")} == {
        "target": "/new?q=1",
        "path": "/new",
        "query": "q=1",
        "body": "body",
    }
    assert answer.headers["x-r"] == "r"


def test_stop_in_process(runner: RunnerDouble) -> None:
    runner.calls(action(Stop(403, [(b"X-A", b"1")], b"no")))
    answer = client(runner, PRE).get("/x")
    assert (answer.status_code, answer.text, answer.headers["x-a"]) == (403, "no", "1")
    assert "date" in answer.headers


def test_deleted_date_is_not_made_up_for(runner: RunnerDouble) -> None:
    for deleted in ([(b"Date", None)], [(b"date", b"")], [(b"Date", b"d"), (b"Date", b"")]):
        for stop in (Stop(200, [*deleted], b"ok"), Stop(404, [*deleted])):
            runner.calls(action(stop))
            assert "date" not in client(runner, PRE).get("/x").headers
        runner.calls(lambda message, ask, deleted=deleted: HTTPRespCallResp(message.id, 0, deleted, b"b"))
        assert "date" not in client(runner, RESP).get("/x").headers


def test_response_phase_in_process(runner: RunnerDouble) -> None:
    def answer(message: Message, ask: Ask) -> Message:
        assert isinstance(message, HTTPRespCallReq)
        assert (b"content-type", b"application/json") in (message.headers or [])
        assert ask(Var(b"uri")) == b"/x"
        assert ask(ReqBody()) is None
        body = ask(RespBody()) or b""
        return HTTPRespCallResp(message.id, 201, [(b"X-A", b"1")], body[:1])

    runner.calls(answer)
    response = client(runner, RESP).get("/x")
    assert (response.status_code, response.text, response.headers["x-a"]) == (201, "{", "1")


def test_exceptions_of_the_upstream_application_propagate(runner: RunnerDouble) -> None:
    async def before(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("before")

    async def after(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise LookupError("in the middle")

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})
        raise LookupError("at the end")

    for app, plugins in ((before, {}), (after, {}), (slow, {}), (before, RESP), (slow, RESP)):
        with pytest.raises(LookupError):
            client(runner, plugins, upstream=app).get("/x")


def test_upstream_application_that_answers_nothing(runner: RunnerDouble) -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        return

    answer = client(runner, upstream=silent).get("/x")
    assert (answer.status_code, answer.headers["x-apisix-upstream-status"]) == (502, "502")
    assert client(runner, RESP, upstream=silent).get("/x").status_code == 502


def test_upstream_application_that_stops_in_the_middle(runner: RunnerDouble) -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})

    assert client(runner, upstream=half).get("/x").text == "x"


def test_upstream_application_sees_its_body_and_then_a_disconnect(runner: RunnerDouble) -> None:
    seen: list[Any] = []

    async def curious(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        seen.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        await send({"type": "http.response.body", "body": b"too late"})
        seen.append(await receive())

    client(runner, upstream=curious).post("/x?a", content=b"body")
    scope = seen[0]
    assert (scope["http_version"], scope["raw_path"], scope["query_string"], scope["server"]) == (
        "1.1", b"/x", b"a", ("up.test", 80),
    )  # fmt: skip
    assert seen[1:] == [
        {"type": "http.request", "body": b"body", "more_body": False},
        {"type": "http.disconnect"},
    ]


def test_post_resp_sends_the_decoded_path(runner: RunnerDouble) -> None:
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id))
    assert client(runner, RESP).get("/caf%C3%A9%41").json()["target"] == "/cafÃ©A"
    assert client(runner, RESP).get("/a%20b").status_code == 502


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/x/%3Cy%3E", 502),
        ("/x/%60", 502),
        ("/x/%7F", 200),
        ("/x/%22%7B%7C%7D", 200),
        ("/x?a=<b>", 502),
        ("/x?a=`", 502),
        ("/x??a", 200),
    ],
)
def test_post_resp_sends_what_lua_resty_http_lets_through(runner: RunnerDouble, target: str, status: int) -> None:
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id))
    path, _, query = target.partition("?")
    app = GatewayApp(routes(RESP), runner.path, upstream=echo)
    sent = asyncio.run(called(app, path=path, raw_path=path.encode(), query_string=query.encode()))
    assert sent[0]["status"] == status


@pytest.mark.parametrize(
    ("rewrite", "sent"),
    [
        (Rewrite(headers=[(b"X-A", b"a\r\nX-Injected: 1")]), None),
        (Rewrite(headers=[(b"X-A", b"a\tb")]), "/x?a=1"),
        (Rewrite(headers=[(b"X Bad", b"1")]), None),
        (Rewrite(headers=[(b"", b"1")]), None),
        (Rewrite(b"abc"), "abc?a=1"),
        (Rewrite(b""), "?a=1"),
        (Rewrite(args=[(b"?a", b"1"), (b"a", None)]), "/x?%3Fa=1"),
    ],
)
def test_post_resp_checks_what_was_rewritten(runner: RunnerDouble, rewrite: Rewrite, sent: str | None) -> None:
    def answer(message: Message, ask: Ask) -> Message:
        if isinstance(message, HTTPReqCallReq):
            return HTTPReqCallResp(message.id, rewrite)
        assert isinstance(message, HTTPRespCallReq)
        return HTTPRespCallResp(message.id)

    runner.calls(answer)
    got = client(runner, {**PRE, **RESP}).get("/x?a=1")
    assert (got.status_code, got.json()["target"] if sent else None) == (200 if sent else 502, sent)


def test_post_resp_says_who_it_is_and_frames_its_body(runner: RunnerDouble) -> None:
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id))
    scope_headers = [(b"host", b"h.test")]
    sent = asyncio.run(called(GatewayApp(routes(RESP), runner.path, upstream=echo), "POST", "/x", scope_headers))
    assert b'"user-agent",\n   "lua-resty-http/' in sent[1]["body"]
    assert b'"content-length",\n   "0"' in sent[1]["body"]


def test_post_resp_calls_the_upstream_again_where_there_is_nothing_to_send(runner: RunnerDouble) -> None:
    calls: list[str] = []

    def upstream(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            calls.append(scope["method"])
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        return app

    def tries(method: str, app: ASGIApp, *, ask_for_body: bool = False) -> int:
        def answer(message: Message, ask: Ask) -> Message:
            assert isinstance(message, HTTPRespCallReq)
            if ask_for_body:
                ask(RespBody())
            return HTTPRespCallResp(message.id, 0, None, None)

        calls.clear()
        runner.calls(answer)
        client(runner, RESP, upstream=app).request(method, "/x")
        return len(calls)

    length, chunked = [(b"content-length", b"0")], [(b"transfer-encoding", b"chunked")]
    assert tries("HEAD", upstream(200, [], b"x")) == 2
    assert tries("GET", upstream(204, [], b"")) == 2
    assert tries("GET", upstream(200, chunked, b"")) == 2
    assert tries("GET", upstream(200, chunked, b""), ask_for_body=True) == 2
    # an empty body is one empty string for lua-resty-http
    assert tries("GET", upstream(200, length, b"")) == 1
    assert tries("GET", upstream(200, length, b""), ask_for_body=True) == 1
    assert tries("GET", upstream(200, [], b"x"), ask_for_body=True) == 1


def test_bodies_are_streamed(runner: RunnerDouble) -> None:
    """The second part is only made after the first one has reached the client."""

    async def main(plugins: dict[str, Any]) -> list[bytes]:
        arrived = asyncio.Event()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            chunked = [(b"transfer-encoding", b"chunked")]
            await send({"type": "http.response.start", "status": 200, "headers": chunked})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            await arrived.wait()
            await send({"type": "http.response.body", "body": b"two", "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        parts: list[bytes] = []

        async def send(message: Any) -> None:
            if message.get("body"):
                parts.append(message["body"])
                arrived.set()

        async with asyncio.timeout(60):
            app = GatewayApp(routes(plugins), runner.path, upstream=slow)
            await app(scope_of("GET", "/x", []), receive_nothing(), send)
        return parts

    runner.calls(lambda message, ask: HTTPRespCallResp(message.id))
    assert asyncio.run(main({})) == [b"one", b"two"]
    assert asyncio.run(main(RESP)) == [b"one", b"two"]


def scope_of(method: str, path: str, headers: list[tuple[bytes, bytes]], **more: Any) -> dict[str, Any]:
    """Give a scope with only what it must have."""
    hosts = [] if any(name == b"host" for name, _ in headers) or "no_host" in more else [(b"host", b"h.test")]
    more.pop("no_host", None)
    return {"type": "http", "method": method, "path": path, "query_string": b"", "headers": [*hosts, *headers], **more}


def receive_nothing(body: bytes = b"") -> Any:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()

    return receive


async def called(
    app: GatewayApp, method: str = "GET", path: str = "/x", headers: Any = (), body: bytes = b"", **more: Any
) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope_of(method, path, list(headers), **more), receive_nothing(body), send)
    return sent


def test_upstream_is_left_when_the_client_goes_away(runner: RunnerDouble, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> str:
        ended = "not"

        async def endless(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal ended
            await send({"type": "http.response.start", "status": 200, "headers": []})
            try:
                while True:
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
            finally:
                ended = "ended"

        started = asyncio.Event()
        messages: list[Any] = [{"type": "http.request", "body": b""}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await started.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            started.set()
            await asyncio.sleep(0)

        app = GatewayApp(routes(), runner.path, upstream=endless)
        async with asyncio.timeout(60):
            await app(scope_of("GET", "/x", []), receive, send)
        return ended

    with caplog.at_level(logging.INFO, "asgi_bridge.gateway"):
        assert asyncio.run(main()) == "ended"
    assert "GET /x: the client went away" in caplog.text


def test_client_that_goes_away_before_its_request_is_whole(runner: RunnerDouble) -> None:
    async def main() -> None:
        async def receive() -> Any:
            return {"type": "http.disconnect"}

        app = GatewayApp(routes(), runner.path, upstream=echo)
        await app(scope_of("POST", "/x", []), receive, None)  # type: ignore[arg-type]

    asyncio.run(main())


def test_least_scope(runner: RunnerDouble) -> None:
    runner.calls(action(None))
    app = GatewayApp(routes(PRE), runner.path, upstream=echo)
    sent = asyncio.run(called(app, path="/ä b"))
    assert sent[0]["status"] == 200
    call = runner.got[1]
    assert isinstance(call, HTTPReqCallReq)
    assert (call.path, call.src_ip) == ("/ä b".encode(), b"\x7f\0\0\1")
    assert b'"target": "/%C3%A4%20b"' in sent[1]["body"]
    # no Connection header where HTTP has none
    sent = asyncio.run(called(app, http_version="2", server=("::1", None), scheme="https", client=None, no_host=True))
    assert b"Connection" not in dict(sent[0]["headers"])
    call = runner.got[-1]
    assert isinstance(call, HTTPReqCallReq)
    assert dict(call.headers or [])[b"x-forwarded-port"] == b"443"


def test_target_in_absolute_form_names_the_host(runner: RunnerDouble) -> None:
    """uvicorn passes it on like this with its parser h11."""
    up = {"nodes": {"up.test:80": 1}}
    table = read_routes({"routes": [{"id": "r", "uri": "/x", "host": "line.test", "upstream": up}]})
    app = GatewayApp(table, runner.path, upstream=echo)
    sent = asyncio.run(called(app, path="http://Line.test./x", raw_path=b"http://Line.test./x", query_string=b"a=1"))
    assert (sent[0]["status"], b'"target": "/x?a=1"' in sent[1]["body"]) == (200, True)
    assert b'"host",\n   "h.test"' in sent[1]["body"]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"headers": [(b"host", b"a"), (b"host", b"b")]}, 400),
        ({"no_host": True}, 400),
        ({"headers": [(b"host", b"")]}, 400),
        ({"headers": [(b"host", b"a..b")]}, 400),
        ({"path": "/.."}, 400),
        ({"headers": [(b"x", b"y" * 9000)]}, 400),
        ({"headers": [(b"x", b"y" * 8000)] * 5}, 400),
        ({"path": "/" + "x" * 9000}, 414),
        ({"method": "TRACE"}, 405),
        ({"method": "CONNECT"}, 405),
    ],
)
def test_what_nginx_refuses(runner: RunnerDouble, more: dict[str, Any], status: int) -> None:
    sent = asyncio.run(called(GatewayApp(routes(), runner.path, upstream=echo), **more))
    assert sent[0]["status"] == status
    assert dict(sent[0]["headers"])[b"Server"] == b"openresty"


def test_head_that_just_fits_the_buffers_of_nginx(runner: RunnerDouble) -> None:
    app = GatewayApp(routes(), runner.path, upstream=echo)
    sent = asyncio.run(called(app, headers=[(b"x", b"y" * (8192 - 7))] * 4))
    assert sent[0]["status"] == 200
    sent = asyncio.run(called(app, raw_path=b"/" + b"x" * (8192 - 16)))
    assert sent[0]["status"] == 404


def test_spaces_behind_a_header_value_are_taken_off(runner: RunnerDouble) -> None:
    """httptools leaves them there."""
    runner.calls(action(None))
    app = GatewayApp(routes(PRE), runner.path, upstream=echo)
    asyncio.run(called(app, headers=[(b"x-a", b"a  b  ")]))
    call = runner.got[1]
    assert isinstance(call, HTTPReqCallReq) and (b"x-a", b"a  b") in (call.headers or [])


@pytest.mark.parametrize(
    ("method", "connection", "length", "seen"),
    [
        ("GET", b"", b"2", b"close"),
        ("GET", b"Keep-Alive", b"2", b"keep-alive"),
        ("GET", b"keep-alive", b"", b"close"),
        ("HEAD", b"keep-alive", b"", b"keep-alive"),
        ("GET", b"keep-alive, close", b"2", b"close"),
    ],
)
def test_http_1_0_is_kept_alive_when_it_asks_and_there_is_a_length(
    runner: RunnerDouble, method: str, connection: bytes, length: bytes, seen: bytes
) -> None:
    runner.calls(action(Stop(200, [(b"Content-Length", length)], b"ok")))
    app = GatewayApp(routes(PRE), runner.path)
    sent = asyncio.run(called(app, method, headers=[(b"connection", connection)], http_version="1.0"))
    assert dict(sent[0]["headers"])[b"Connection"] == seen


def test_head_of_what_nginx_refuses_has_no_body(runner: RunnerDouble) -> None:
    sent = asyncio.run(called(GatewayApp(routes(), runner.path), "HEAD", no_host=True))
    assert sent[1]["body"] == b""


def test_no_route_and_no_upstream(runner: RunnerDouble) -> None:
    answer = TestClient(GatewayApp(Routes(), runner.path)).get("/x")
    assert (answer.status_code, answer.json()) == (404, {"error_msg": "404 Route Not Found"})
    without = read_routes({"routes": [{"uri": "/*", "plugins": {}}]})
    assert TestClient(GatewayApp(without, runner.path)).get("/x").status_code == 503


def test_method_stays_as_the_first_call_had_it(runner: RunnerDouble) -> None:
    plugins = {**PRE, "proxy-rewrite": {"method": "POST"}, "ext-plugin-post-req": CONF}
    runner.calls(action(None))
    for route, methods in ((plugins, ["GET", "GET"]), ({**plugins, **{"ext-plugin-pre-req": NONE}}, ["POST"])):
        runner.got.clear()
        assert client(runner, route).get("/x").json()["method"] == "POST"
        assert [call.method for call in runner.got if isinstance(call, HTTPReqCallReq)] == methods


def test_observer_sees_each_call(runner: RunnerDouble) -> None:
    seen: list[Call] = []
    runner.calls(action(Stop(401)))
    client(runner, PRE, observe=seen.append).get("/x?a=1")
    (call,) = seen
    assert (call.route_id, call.phase, call.plugins, call.request_line) == (
        "r", "ext-plugin-pre-req", ("a",), "GET /x?a=1",
    )  # fmt: skip
    assert call.answer == HTTPReqCallResp(0, Stop(401))
    assert (call.error, call.degraded, call.tries) == (None, False, 1)
    assert call.milliseconds > 0


def test_observer_sees_failures(tmp_path: Any) -> None:
    seen: list[Call] = []
    for degradation, status in ((False, 503), (True, 200)):
        conf = {"ext-plugin-pre-req": {**CONF, "allow_degradation": degradation}}
        app = GatewayApp(routes(conf), str(tmp_path / "nobody.sock"), upstream=echo, observe=seen.append)
        assert TestClient(app).get("/x").status_code == status
    assert [(call.degraded, call.status) for call in seen] == [(False, 503), (True, 0)]
    assert "no such file or directory" in (seen[0].error or "")


def test_new_routes_prepare_again(runner: RunnerDouble) -> None:
    runner.calls(action(None))
    app = GatewayApp(routes(PRE), runner.path, upstream=echo)
    caller = TestClient(app)
    caller.get("/x")
    caller.get("/x")
    app.routes = routes(PRE)
    assert len(app.routes.routes) == 1
    caller.get("/x")
    keys = [message.key for message in runner.got if isinstance(message, PrepareConfReq)]
    assert len(keys) == len(set(keys)) == 2
    assert all(key is not None and key.startswith(b"route#r#ext-plugin-pre-req#") for key in keys)


def test_connections_are_kept_only_within_a_lifespan(runner: RunnerDouble) -> None:
    runner.calls(action(None))
    app = GatewayApp(routes(PRE), runner.path, upstream=echo)
    with TestClient(app) as caller:
        for _ in range(3):
            assert caller.get("/x").status_code == 200
        # one for the call, one for PrepareConf
        assert (runner.accepted, len(app.pool)) == (2, 2)
    assert len(app.pool) == 0
    caller = TestClient(app)
    for _ in range(2):
        assert caller.get("/x").status_code == 200
    assert (runner.accepted, len(app.pool)) == (4, 0)


def test_websockets_are_refused(runner: RunnerDouble) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client(runner).websocket_connect("/x"):
        pass


def test_upstream_application_gets_the_target_as_nginx_writes_it(runner: RunnerDouble) -> None:
    targets: list[Any] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        targets.append(scope["extensions"][TARGET])
        await answering(200, [(b"X-A", b"1")], b"mock")(scope, receive, send)

    answer = client(runner, upstream=handle).get("/x//y")
    assert (answer.text, answer.headers["x-a"], targets) == ("mock", "1", [b"/x//y"])


def test_broken_upstream_body_breaks_the_connection(runner: RunnerDouble) -> None:
    def broken(*parts: bytes, **headers: str) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": 200, "headers": pairs})
            for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            raise BrokenAnswer("broken")

        return app

    with pytest.raises(BrokenAnswer):
        client(runner, upstream=broken(b"x")).get("/x")
    # post-resp: what came, as if it were whole; 502 if nothing did
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id))
    assert client(runner, RESP, upstream=broken(b"x")).get("/x").text == "x"
    assert client(runner, RESP, upstream=broken()).get("/x").status_code == 502
    # a body of known length is read whole before anything is sent; the runner's headers are there already
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id, 200, [(b"X-A", b"1")]))
    answer = client(runner, RESP, upstream=broken(b"x", **{"Content-Length": "2", "X-Up": "1"})).get("/x")
    assert (answer.status_code, answer.headers["x-a"]) == (502, "1")
    assert "502 Bad Gateway" in answer.text


def test_timeout_of_the_upstream(runner: RunnerDouble) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        raise UpstreamTimeout("late")

    answer = client(runner, upstream=slow).get("/x")
    assert (answer.status_code, answer.headers["x-apisix-upstream-status"]) == (504, "504")


def test_upstream_errors_are_shown_in_a_header(runner: RunnerDouble) -> None:
    failing = answering(500, [], b"x")
    assert client(runner, upstream=failing).get("/x").headers["x-apisix-upstream-status"] == "500"
    runner.calls(action(Rewrite(resp_headers=[(b"X-APISIX-Upstream-Status", b"1")])))
    answer = client(runner, PRE, upstream=failing).get("/x")
    assert answer.headers.get_list("x-apisix-upstream-status") == ["500"]


def test_rewritten_paths_that_nginx_cannot_use(runner: RunnerDouble) -> None:
    for path, status in ((b"abc", 502), (b"http://x/y", 500), (b":80/x", 502)):
        runner.calls(action(Rewrite(path)))
        assert client(runner, PRE).get("/x").status_code == status


def test_rewritten_path_that_is_empty(runner: RunnerDouble) -> None:
    runner.calls(action(Rewrite(b"")))
    assert client(runner, PRE).get("/x?a=1").json()["target"] == "/?a=1"
    assert client(runner, PRE).get("/x%2Fy").json()["target"] == "/x%2Fy"
    runner.calls(action(Rewrite(b"", None, [(b"b", b"2")])))
    assert client(runner, PRE).get("/x").json()["target"] == "/?b=2"


def test_deleted_content_length_takes_the_body_away(runner: RunnerDouble, caplog: pytest.LogCaptureFixture) -> None:
    def sent(*headers: tuple[bytes | None, bytes | None], body: Any = b"hello") -> tuple[str, list[str]]:
        runner.calls(action(Rewrite(headers=list(headers))))
        answer = client(runner, PRE).post("/x", content=body).json()
        return answer["body"], [value for name, value in answer["headers"] if name == "content-length"]

    assert sent((b"Content-Length", None)) == ("", [])
    assert "a plugin has deleted Content-Length: the request goes on without its body" in caplog.text
    # post-resp's fetch has nothing to send either, and says so
    runner.calls(
        lambda message, ask: (
            HTTPReqCallResp(message.id, Rewrite(headers=[(b"Content-Length", None)]))
            if isinstance(message, HTTPReqCallReq)
            else HTTPRespCallResp(message.id)
        )
    )
    fetched = client(runner, {**PRE, **RESP}).post("/x", content=b"hello").json()
    assert (fetched["body"], dict(fetched["headers"])["content-length"]) == ("", "0")
    # nginx does not look at this header again
    assert sent((b"Transfer-Encoding", None), body=iter([b"hel", b"lo"])) == ("hello", ["5"])
    runner.calls(action(Rewrite(headers=[(b"Transfer-Encoding", b"chunked")])))
    assert not {"content-length", "transfer-encoding"} & {
        pair[0] for pair in client(runner, PRE).get("/x").json()["headers"]
    }


def test_entries_that_are_lua_errors(runner: RunnerDouble) -> None:
    number = Rewrite(headers=[(b"Content-Length", b"abc")])
    for rewrite in (Rewrite(args=[(None, b"1")]), Rewrite(headers=[(None, b"1")]), number):
        runner.calls(action(rewrite))
        assert client(runner, PRE).get("/x").status_code == 500
    # the headers for the response come before the query
    runner.calls(action(Rewrite(args=[(None, b"1")], resp_headers=[(b"X-R", b"1")])))
    assert client(runner, PRE).get("/x").headers["x-r"] == "1"


def test_conditions_of_the_request(runner: RunnerDouble) -> None:
    date, later = "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 02 Jan 1970 00:00:00 GMT"
    stop = Stop(200, [(b"ETag", b'W/"e"'), (b"Last-Modified", later.encode()), (b"Content-Length", b"2")], b"ok")
    runner.calls(action(stop))
    caller = client(runner, PRE)

    def status(**headers: str) -> int:
        return caller.get("/x", headers={name.replace("_", "-"): value for name, value in headers.items()}).status_code

    assert status() == 200
    assert status(if_none_match='"a", "e"') == 304
    assert status(if_none_match="*") == 304
    assert status(if_none_match='"a"') == 200
    assert status(if_modified_since=later) == 304
    assert status(if_modified_since=date) == 200
    assert status(if_match='"e"') == 412
    assert status(if_match='W/"e"') == 200
    assert status(if_modified_since="Friday, 02-Jan-70 00:00:00 GMT") == 304
    assert status(if_modified_since="never") == 200
    assert status(if_unmodified_since=later) == 200
    assert status(if_unmodified_since=date) == 412
    assert status(if_unmodified_since="never") == 412
    runner.calls(action(Stop(200, [(b"Last-Modified", date.encode())], b"ok")))
    assert status(if_unmodified_since=date) == 200
    runner.calls(action(Stop(200, None, b"ok")))
    assert status(if_none_match='"e"') == 200
    assert status(if_modified_since=date) == 200
    assert status(if_unmodified_since=date) == 412


def test_what_is_left_of_a_response_that_the_conditions_have_changed(runner: RunnerDouble) -> None:
    headers = [
        (b"ETag", b'"e"'),
        (b"Content-Length", b"2"),
        (b"Content-Encoding", b"x"),
        (b"X-A", b"1"),
        (b"Date", b"d"),
    ]
    runner.calls(action(Stop(200, [*headers], b"ok")))
    caller = client(runner, {**PRE, "cors": {}})
    answer = caller.get("/x", headers={"If-None-Match": '"e"'})
    assert [name for name in answer.headers if not name.startswith("access-")] == [
        "connection", "etag", "x-a", "date", "server",
    ]  # fmt: skip
    answer = caller.get("/x", headers={"If-Match": '"f"'})
    assert list(answer.headers) == ["content-type", "content-length", "connection", "date", "server"]
    assert (answer.status_code, answer.headers["date"] == "d") == (412, False)
    # a status that the runner itself has given is not looked at
    runner.calls(action(Stop(412, [*headers], b"ok")))
    assert caller.get("/x").headers["x-a"] == "1"


def test_stop_where_no_body_can_be_keeps_the_headers_of_the_runner(runner: RunnerDouble) -> None:
    """nginx forgets the places of these headers, and still writes them (ngx_http_header_filter_module.c)."""
    headers: list[tuple[bytes | None, bytes | None]] = [
        (b"Content-Type", b"text/html"),
        (b"Content-Length", b"77"),
        (b"Accept-Ranges", b"bytes"),
        (b"Last-Modified", b"x"),
        (b"Date", None),
    ]
    rest = {"content-length": "77", "accept-ranges": "bytes", "last-modified": "x"}
    html = {"content-type": "text/html; charset=utf-8"}
    for method, status, seen in (("HEAD", 200, html | rest), ("GET", 204, rest), ("GET", 304, html | rest)):
        runner.calls(action(Stop(status, headers, b" ")))
        answer = client(runner, PRE).request(method, "/x")
        assert answer.content == b""
        assert dict(answer.headers) == {**seen, "connection": "keep-alive", "server": "APISIX/3.18.0"}
    runner.calls(action(Stop(304, None, b" ")))
    assert "content-type" not in client(runner, PRE).get("/x").headers


@pytest.mark.parametrize(
    ("status", "seen"),
    [
        (494, (400, "keep-alive", "Request Header Or Cookie Too Large")),
        (496, (400, "close", "No required SSL certificate was sent")),
        (498, (498, "keep-alive", "404 Not Found")),
    ],
)
def test_numbers_that_only_nginx_knows(runner: RunnerDouble, status: int, seen: tuple[int, str, str]) -> None:
    runner.calls(action(Stop(status)))
    answer = client(runner, PRE).get("/x")
    assert (answer.status_code, answer.headers["connection"]) == seen[:2]
    assert seen[2] in answer.text


def test_response_rewrite_of_content_type_and_status(runner: RunnerDouble) -> None:
    def headers(conf: dict[str, Any], path: str = "/x") -> list[tuple[str, str]]:
        answer = client(runner, {"response-rewrite": conf}).get(path)
        return [pair for pair in answer.headers.multi_items() if pair[0] in ("content-type", "content-length")]

    assert headers({"headers": {"set": {"content_type": "text/html"}}})[0] == (
        "content-type",
        "text/html; charset=utf-8",
    )
    assert headers({"headers": {"set": {"Content-Type": "text/html;a=b"}}})[0] == ("content-type", "text/html;a=b")
    assert headers({"status_code": 302, "headers": {"set": {"Content-Type": "text/html"}}})[0][1] == "text/html"
    assert headers({"status_code": 204}) == []


def test_headers_of_rewriting_plugins(runner: RunnerDouble) -> None:
    def sent(headers: Any) -> list[list[str]]:
        got = client(runner, {"proxy-rewrite": {"headers": headers}}).get("/x", headers={"X-A": "0", "X-B": "0"})
        return [pair for pair in got.json()["headers"] if pair[0] in ("x-a", "x-b")]

    assert sent({"X-A": 1}) == [["x-a", "1"], ["x-b", "0"]]
    assert sent({"add": {"X-A": "1"}, "remove": ["x-b"]}) == [["x-a", "0"], ["x-a", "1"]]
    assert sent({"add": {"X-A": "1"}, "set": {"X-A": "2"}}) == [["x-a", "2"], ["x-b", "0"]]

    def got(headers: Any) -> list[tuple[str, str]]:
        runner.calls(action(Stop(200, [(b"X-A", b"0"), (b"X-B", b"0")], b"ok")))
        answer = client(runner, {**PRE, "response-rewrite": {"headers": headers}}).get("/x")
        return [pair for pair in answer.headers.multi_items() if pair[0] in ("x-a", "x-b", "content-type")][1:]

    assert got({"X_A": 1}) == [("x-a", "1"), ("x-b", "0")]
    assert got({"add": ["X-A : 1"], "remove": ["X-B"]}) == [("x-a", "0"), ("x-a", "1")]
    assert got({"set": {"X-A": "1", "X-B": ""}, "remove": ["x_a", "Content-Type"]}) == []


def test_response_rewrite_may_replace_the_name_of_the_server(runner: RunnerDouble) -> None:
    conf = {"headers": {"Server": "own", "ETag": "e", "X-A": "€"}, "body": "b"}
    start, body = asyncio.run(called(GatewayApp(routes({"response-rewrite": conf}), runner.path, upstream=echo)))
    assert [pair for pair in start["headers"] if pair[0] in (b"Server", b"ETag", b"X-A")] == [
        (b"Server", b"own"), (b"ETag", b"e"), (b"X-A", "€".encode()),
    ]  # fmt: skip
    assert body["body"] == b"b"


def test_added_request_header_reaches_the_runner(runner: RunnerDouble) -> None:
    runner.calls(action(None))
    plugins = {**PRE, "ext-plugin-post-req": CONF, "proxy-rewrite": {"headers": {"add": {"X-A": "1"}}}}
    client(runner, plugins).get("/x", headers={"X-A": "0"})
    calls = [call.headers or [] for call in runner.got if isinstance(call, HTTPReqCallReq)]
    assert [[value for name, value in headers if name == b"x-a"] for headers in calls] == [[b"0"], [b"0", b"1"]]


def test_priority_of_pre_req_is_respected(runner: RunnerDouble) -> None:
    runner.calls(action(None))
    plugins = {"ext-plugin-pre-req": {**CONF, "_meta": {"priority": 1}}, "proxy-rewrite": {"uri": "/new"}}
    client(runner, plugins).get("/x")
    assert [call.path for call in runner.got if isinstance(call, HTTPReqCallReq)] == [b"/new"]


def test_request_id_of_the_rewrite_phase_is_put_on_responses_that_have_none(runner: RunnerDouble) -> None:
    caller = client(runner, {"request-id": {}, **PRE})
    runner.calls(action(Stop(200, [(b"X-Request-Id", b"own")], b"ok")))
    assert caller.get("/x", headers={"X-Request-Id": "7"}).headers.get_list("x-request-id") == ["own"]
    runner.calls(action(Rewrite(headers=[(b"X-Request-Id", b"8")])))
    answer = caller.get("/x", headers={"X-Request-Id": "7"})
    assert answer.headers.get_list("x-request-id") == ["7"]
    assert ["x-request-id", "8"] in answer.json()["headers"]
    answer = caller.get("/x", headers={"X-Request-Id": ""})
    assert len(answer.headers["x-request-id"]) == 36


def test_second_fetch_keeps_the_content_type_of_the_runner(runner: RunnerDouble) -> None:
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id, 0, [(b"Content-Type", b"a/b")]))
    for headers, seen in (([], "a/b"), ([(b"Content-Type", b"c/d")], "c/d")):
        assert client(runner, RESP, upstream=answering(304, headers)).get("/x").headers["content-type"] == seen


def test_status_that_lua_cannot_set(runner: RunnerDouble) -> None:
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id, 1000))
    assert client(runner, RESP).get("/x").status_code == 200
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id, 100))
    assert client(runner, RESP).get("/x").status_code == 502


def test_response_length_is_compared_with_a_streamed_body(runner: RunnerDouble) -> None:
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id, 0, [(b"Content-Length", b"5")]))
    assert client(runner, RESP, upstream=answering(200, [], b"12345")).get("/x").content == b"12345"
    assert client(runner, RESP, upstream=answering(200, [], b"1")).get("/x").status_code == 502


@pytest.mark.parametrize(
    ("patterns", "path", "target"),
    [
        (["^/x/(.*)/(.*)", "/$2/${1}$9$$?p=1"], "/x/a/b%20c?q=1", "/b%20c/a$?p=1&q=1"),
        (["^/y", "/n", "^/x", "/m"], "/x/x", "/m/x"),
        (["^/y", "/n"], "/x/%41?q=1", "/x/A?q=1"),
        (["^/x(.*)", "/n$1"], "/x%3Fa", "/n%3Fa"),
    ],
)
def test_regex_uri_of_proxy_rewrite(runner: RunnerDouble, patterns: list[str], path: str, target: str) -> None:
    assert client(runner, {"proxy-rewrite": {"regex_uri": patterns}}).get(path).json()["target"] == target


def test_key_auth_elsewhere_and_hidden(runner: RunnerDouble) -> None:
    up = {"nodes": {"h:1": 1}}
    conf = {"header": "X-Key", "query": "k", "hide_credentials": True}
    data = {
        "routes": [{"id": "r", "uri": "/*", "plugins": {"key-auth": conf}, "upstream": up}],
        "consumers": [{"username": "bob", "plugins": {"key-auth": {"key": "s"}}}],
    }
    caller = TestClient(GatewayApp(read_routes(data), runner.path, upstream=echo))
    assert caller.get("/x?apikey=s").status_code == 401
    assert "x-key" not in dict(caller.get("/x", headers={"X-Key": "s"}).json()["headers"])
    assert caller.get("/x?a=1&k=s").json()["target"] == "/x?a=1"


def test_key_auth(runner: RunnerDouble) -> None:
    data = {
        "routes": [
            {
                "id": "r",
                "uri": "/*",
                "plugins": {"key-auth": {}, "cors": {}},
                "upstream": {"nodes": {"h:1": 1}},
            }
        ],
        "consumers": [{"username": "bob", "plugins": {"key-auth": {"key": "k"}, **PRE, "request-id": {}}}],
    }
    runner.calls(action(None))
    caller = TestClient(GatewayApp(read_routes(data), runner.path, upstream=echo))
    assert caller.get("/x").json() == {"message": "Missing API key in request"}
    assert caller.get("/x?apikey=k", headers={"X-Request-Id": "7"}).headers["x-request-id"] == "7"
    assert caller.get("/x", headers={"apikey": "k"}).status_code == 200
    key = runner.got[0]
    assert isinstance(key, PrepareConfReq) and (key.key or b"").startswith(b"route&consumer#r&bob#ext-plugin-pre-req#")


def with_global_rules(runner: RunnerDouble, plugins: dict[str, Any], own: dict[str, Any], **fields: Any) -> TestClient:
    up = {"nodes": {"up.test:80": 1}}
    route = {"id": "r", "uri": "/x", "plugins": own, "upstream": up}
    data = {"routes": [route], "global_rules": [{"id": 7, "plugins": plugins}], **fields}
    return TestClient(GatewayApp(read_routes(data), runner.path, upstream=echo))


def prepared(runner: RunnerDouble) -> list[bytes]:
    keys = [message.key or b"" for message in runner.got if isinstance(message, PrepareConfReq)]
    return [key.rpartition(b"#")[0] for key in keys]


def test_global_rules_run_before_the_route_in_each_phase(runner: RunnerDouble) -> None:
    both = {**PRE, "ext-plugin-post-req": CONF}
    runner.calls(action(None))
    caller = with_global_rules(runner, {**both, "proxy-rewrite": {"uri": "/new"}}, {**both, "key-auth": {}},
        consumers=[{"username": "bob", "plugins": {"key-auth": {"key": "k"}}}],
    )  # fmt: skip
    assert caller.get("/x", headers={"apikey": "k"}).json()["target"] == "/new"
    assert prepared(runner) == [
        b"global_rule#1#ext-plugin-pre-req",
        b"route#r#ext-plugin-pre-req",
        b"global_rule#1#ext-plugin-post-req",
        b"route&consumer#r&bob#ext-plugin-post-req",
    ]
    assert [call.path for call in runner.got if isinstance(call, HTTPReqCallReq)] == [b"/x", b"/new", b"/new", b"/new"]


def test_global_rule_stops_before_the_plugins_of_the_route(runner: RunnerDouble) -> None:
    runner.calls(action(Stop(403, None, b"no")))
    caller = with_global_rules(runner, {**PRE, "response-rewrite": {"headers": {"X-G": "1"}}}, {**PRE, "cors": {}})
    answer = caller.get("/x")
    assert (answer.status_code, answer.text, answer.headers["x-g"]) == (403, "no", "1")
    # the route's plugins are not even loaded
    assert "access-control-allow-origin" not in answer.headers
    assert prepared(runner) == [b"global_rule#1#ext-plugin-pre-req"]


def test_global_rules_run_without_a_route_too(runner: RunnerDouble) -> None:
    runner.calls(action(Rewrite(resp_headers=[(b"X-R", b"1")])))
    caller = with_global_rules(runner, {**PRE, "ext-plugin-post-req": CONF, **RESP, "cors": {}}, {})
    answer = caller.get("/nowhere")
    assert (answer.status_code, answer.headers["x-r"], answer.headers["access-control-max-age"]) == (404, "1", "5")
    assert prepared(runner) == [b"global_rule#1#ext-plugin-pre-req", b"global_rule#1#ext-plugin-post-req"]
    runner.calls(action(Stop(401)))
    assert caller.get("/nowhere").status_code == 401


def test_post_resp_of_a_global_rule_answers(runner: RunnerDouble) -> None:
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id, 201, [(b"X-A", b"1")], b"global"))
    answer = with_global_rules(runner, RESP, RESP).get("/x")
    assert (answer.status_code, answer.text, answer.headers["x-a"]) == (201, "global", "1")
    assert prepared(runner) == [b"global_rule#1#ext-plugin-post-resp"]


def test_header_filters_of_global_rules_come_first(runner: RunnerDouble) -> None:
    def rewriting(value: str, **conf: Any) -> dict[str, Any]:
        return {"response-rewrite": {"headers": {"add": [f"X-A: {value}"]}, **conf}}

    answer = with_global_rules(runner, rewriting("global", body="g"), rewriting("own")).get("/x")
    assert (answer.headers.get_list("x-a"), answer.text) == (["global", "own"], "g")
    answer = with_global_rules(runner, rewriting("global", body="g"), rewriting("own", body="o")).get("/x")
    assert answer.text == "o"


def test_lost_token_is_tried_three_times(runner: RunnerDouble) -> None:
    seen: list[Call] = []
    runner.calls(lambda message, ask: ErrResp(ErrCode.CONF_TOKEN_NOT_FOUND))
    assert client(runner, PRE, observe=seen.append).get("/x").status_code == 503
    assert [(call.tries, call.again, call.status) for call in seen] == [(1, True, 0), (2, True, 0), (3, False, 503)]


def test_observer_sees_that_a_call_is_repeated(runner: RunnerDouble) -> None:
    seen: list[Call] = []

    def answer(message: Message, ask: Ask) -> Message:
        known = len([call for call in runner.got if isinstance(call, HTTPReqCallReq)]) > 1
        return action(Stop(201))(message, ask) if known else ErrResp(ErrCode.CONF_TOKEN_NOT_FOUND)

    runner.calls(answer)
    assert client(runner, PRE, observe=seen.append).get("/x").status_code == 201
    assert [(call.again, call.status, call.error) for call in seen] == [
        (True, 0, "failed to receive RPC_HTTP_REQ_CALL: conf token not found"),
        (False, 0, None),
    ]


def test_observer_sees_what_the_gateway_cannot_apply(runner: RunnerDouble) -> None:
    seen: list[Call] = []
    runner.calls(action(Rewrite(headers=[(None, b"x")])))
    assert client(runner, PRE, observe=seen.append).get("/x").status_code == 500
    assert [(call.again, call.status) for call in seen] == [(False, 500)]


def test_observer_sees_that_the_client_went_away(runner: RunnerDouble) -> None:
    seen: list[Call] = []

    def answer(message: Message, ask: Ask) -> Message:
        ask(ReqBody())
        return action(None)(message, ask)

    runner.calls(answer)
    app = GatewayApp(routes(PRE), runner.path, upstream=echo, observe=seen.append)
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/x", "raw_path": b"/x", "query_string": b"", "headers": [(b"host", b"a"), (b"content-length", b"3")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    asyncio.run(app(scope, receive, send))
    assert [(call.error, call.answer, call.status) for call in seen] == [("the client went away", None, 0)]


def test_response_body_in_the_request_phase_is_nothing(runner: RunnerDouble) -> None:
    asked: list[bytes | None] = []

    def answer(message: Message, ask: Ask) -> Message:
        assert isinstance(message, HTTPReqCallReq)
        asked.append(ask(RespBody()))
        return HTTPReqCallResp(message.id)

    runner.calls(answer)
    assert client(runner, PRE).get("/x").status_code == 200
    assert asked == [None]


def test_limits_can_be_given(runner: RunnerDouble) -> None:
    limits = Limits(pool=1)
    runner.calls(action(None))
    app = GatewayApp(routes(PRE), runner.path, upstream=echo, limits=limits)
    with TestClient(app) as caller:
        caller.get("/x")
        assert len(app.pool) == 1


def test_routes_of_a_bad_mapping_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError):
        routes({"nothing": {}})
