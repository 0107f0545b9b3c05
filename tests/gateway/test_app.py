"""The application as callers use it: in process, with an ASGI upstream, with or without a lifespan."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge.errors import ConfigurationError
from asgi_bridge.gateway import Call, GatewayApp, Limits, Routes, echo, read_routes
from asgi_bridge.wire.messages import (
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
from tests.gateway.runner_double import Ask, RunnerDouble

CONF = {"conf": [{"name": "a", "value": "{}"}]}
PRE = {"ext-plugin-pre-req": CONF}
RESP = {"ext-plugin-post-resp": CONF}


def routes(plugins: dict[str, Any] | None = None, **fields: Any) -> Routes:
    up = {"nodes": {"up.test:80": 1}}
    return read_routes({"routes": [{"id": "r", "uri": "/*", "plugins": plugins or {}, "upstream": up, **fields}]})


def client(runner: RunnerDouble, plugins: dict[str, Any] | None = None, **options: Any) -> TestClient:
    options.setdefault("upstream", echo)
    return TestClient(GatewayApp(routes(plugins), runner.path, **options))  # type: ignore[arg-type]


def action(answer: Any) -> Any:
    return lambda message, ask: HTTPReqCallResp(message.id, answer)


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

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})
        raise LookupError("at the end")

    for app, plugins in ((before, {}), (after, {}), (late, {}), (before, RESP), (late, RESP)):
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
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            await arrived.wait()
            await send({"type": "http.response.body", "body": b"two", "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        parts: list[bytes] = []

        async def send(message: Any) -> None:
            if message.get("body"):
                parts.append(message["body"])
                arrived.set()

        async with asyncio.timeout(5):
            app = GatewayApp(routes(plugins), runner.path, upstream=slow)  # type: ignore[arg-type]
            await app(scope_of("GET", "/x", []), receive_nothing(), send)
        return parts

    runner.calls(lambda message, ask: HTTPRespCallResp(message.id))
    assert asyncio.run(main({})) == [b"one", b"two"]
    assert asyncio.run(main(RESP)) == [b"one", b"two"]


def scope_of(method: str, path: str, headers: list[tuple[bytes, bytes]], **more: Any) -> dict[str, Any]:
    """The least that a scope may have."""
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

        app = GatewayApp(routes(), runner.path, upstream=endless)  # type: ignore[arg-type]
        async with asyncio.timeout(5):
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


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"headers": [(b"host", b"a"), (b"host", b"b")]}, 400),
        ({"no_host": True}, 400),
        ({"path": "/.."}, 400),
        ({"headers": [(b"x", b"y" * 9000)]}, 400),
        ({"path": "/" + "x" * 9000}, 414),
        ({"method": "TRACE"}, 405),
        ({"method": "CONNECT"}, 405),
    ],
)
def test_what_nginx_refuses(runner: RunnerDouble, more: dict[str, Any], status: int) -> None:
    sent = asyncio.run(called(GatewayApp(routes(), runner.path, upstream=echo), **more))
    assert sent[0]["status"] == status
    assert dict(sent[0]["headers"])[b"Server"] == b"openresty"


def test_head_of_what_nginx_refuses_has_no_body(runner: RunnerDouble) -> None:
    sent = asyncio.run(called(GatewayApp(routes(), runner.path), "HEAD", no_host=True))
    assert sent[1]["body"] == b""


def test_no_route_and_no_upstream(runner: RunnerDouble) -> None:
    answer = TestClient(GatewayApp(Routes(), runner.path)).get("/x")  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()) == (404, {"error_msg": "404 Route Not Found"})
    without = read_routes({"routes": [{"uri": "/*"}]})
    assert TestClient(GatewayApp(without, runner.path)).get("/x").status_code == 503  # type: ignore[arg-type]


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
        assert TestClient(app).get("/x").status_code == status  # type: ignore[arg-type]
    assert [call.degraded for call in seen] == [False, True]
    assert "no such file or directory" in (seen[0].error or "")


def test_new_routes_prepare_again(runner: RunnerDouble) -> None:
    runner.calls(action(None))
    app = GatewayApp(routes(PRE), runner.path, upstream=echo)
    caller = TestClient(app)  # type: ignore[arg-type]
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
    with TestClient(app) as caller:  # type: ignore[arg-type]
        for _ in range(3):
            assert caller.get("/x").status_code == 200
        # one for the call, one for PrepareConf
        assert (runner.accepted, app.runner.idle_connections) == (2, 2)
    assert app.runner.idle_connections == 0
    caller = TestClient(app)  # type: ignore[arg-type]
    for _ in range(2):
        assert caller.get("/x").status_code == 200
    assert (runner.accepted, app.runner.idle_connections) == (4, 0)


def test_websockets_are_refused(runner: RunnerDouble) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client(runner).websocket_connect("/x"):
        pass


def test_transport_of_httpx_as_upstream(runner: RunnerDouble) -> None:
    targets: list[Any] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        targets.append(request.extensions["target"])
        return httpx2.Response(200, headers={"X-A": "1"}, content=b"mock")

    answer = client(runner, upstream=httpx2.MockTransport(handle)).get("/x//y")
    assert (answer.text, answer.headers["x-a"], targets) == ("mock", "1", [b"/x//y"])


def test_broken_upstream_body_breaks_the_connection(runner: RunnerDouble) -> None:
    class Broken(httpx2.AsyncByteStream):
        def __init__(self, parts: list[bytes]) -> None:
            self.parts = parts

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for part in self.parts:
                yield part
            raise httpx2.ReadError("broken")

    def transport(*parts: bytes) -> httpx2.MockTransport:
        return httpx2.MockTransport(lambda request: httpx2.Response(200, stream=Broken(list(parts))))

    with pytest.raises(httpx2.ReadError):
        client(runner, upstream=transport(b"x")).get("/x")
    # post-resp: what came, as if it were whole; 502 if nothing did
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id))
    assert client(runner, RESP, upstream=transport(b"x")).get("/x").text == "x"
    assert client(runner, RESP, upstream=transport()).get("/x").status_code == 502


def test_timeout_of_the_upstream(runner: RunnerDouble) -> None:
    def late(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadTimeout("late")

    answer = client(runner, upstream=httpx2.MockTransport(late)).get("/x")
    assert (answer.status_code, answer.headers["x-apisix-upstream-status"]) == (504, "504")


def test_upstream_errors_are_shown_in_a_header(runner: RunnerDouble) -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(500, content=b"x"))
    assert client(runner, upstream=transport).get("/x").headers["x-apisix-upstream-status"] == "500"


def test_rewritten_paths_that_nginx_cannot_use(runner: RunnerDouble) -> None:
    for path, status in ((b"abc", 502), (b"http://x/y", 500), (b":80/x", 502)):
        runner.calls(action(Rewrite(path)))
        assert client(runner, PRE).get("/x").status_code == status


def test_rewritten_path_that_is_empty(runner: RunnerDouble) -> None:
    runner.calls(action(Rewrite(b"")))
    assert client(runner, PRE).get("/x?a=1").json()["target"] == "/x?a=1"
    runner.calls(action(Rewrite(b"", None, [(b"b", b"2")])))
    assert client(runner, PRE).get("/x").json()["target"] == "/?b=2"


def test_entries_without_a_name_are_lua_errors(runner: RunnerDouble) -> None:
    for rewrite in (Rewrite(args=[(None, b"1")]), Rewrite(headers=[(None, b"1")])):
        runner.calls(action(rewrite))
        assert client(runner, PRE).get("/x").status_code == 500


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
    assert status(if_unmodified_since=date) == 412
    assert status(if_unmodified_since="never") == 200
    runner.calls(action(Stop(200, None, b"ok")))
    assert status(if_none_match='"e"') == 200


def test_stop_with_an_impossible_body_on_head_and_204(runner: RunnerDouble) -> None:
    headers: list[tuple[bytes | None, bytes | None]] = [
        (b"Content-Length", b"77"),
        (b"Accept-Ranges", b"bytes"),
        (b"Last-Modified", b"x"),
    ]
    runner.calls(action(Stop(200, headers, b" ")))
    assert client(runner, PRE).head("/x").headers["content-length"] == "77"
    runner.calls(action(Stop(204, headers, b" ")))
    answer = client(runner, PRE).get("/x")
    assert answer.content == b""
    assert not {"content-length", "last-modified"} & set(answer.headers)


def test_numbers_that_only_nginx_knows(runner: RunnerDouble) -> None:
    runner.calls(action(Stop(496)))
    answer = client(runner, PRE).get("/x")
    assert (answer.status_code, answer.headers["connection"]) == (400, "close")
    assert "400 No required SSL certificate was sent" in answer.text


def test_status_that_lua_cannot_set(runner: RunnerDouble) -> None:
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id, 1000))
    assert client(runner, RESP).get("/x").status_code == 200
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id, 100))
    assert client(runner, RESP).get("/x").status_code == 502


def test_response_length_is_compared_with_a_streamed_body(runner: RunnerDouble) -> None:
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id, 0, [(b"Content-Length", b"5")]))
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=b"12345"))
    assert client(runner, RESP, upstream=transport).get("/x").content == b"12345"
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=b"1"))
    assert client(runner, RESP, upstream=transport).get("/x").status_code == 502


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
    caller = TestClient(GatewayApp(read_routes(data), runner.path, upstream=echo))  # type: ignore[arg-type]
    assert caller.get("/x").json() == {"message": "Missing API key in request"}
    assert caller.get("/x?apikey=k", headers={"X-Request-Id": "7"}).headers["x-request-id"] == "7"
    assert caller.get("/x", headers={"apikey": "k"}).status_code == 200
    key = runner.got[0]
    assert isinstance(key, PrepareConfReq) and (key.key or b"").startswith(b"route&consumer#r&bob#ext-plugin-pre-req#")


def test_lost_token_is_tried_three_times(runner: RunnerDouble) -> None:
    from asgi_bridge.wire.messages import ErrCode, ErrResp

    seen: list[Call] = []
    runner.calls(lambda message, ask: ErrResp(ErrCode.CONF_TOKEN_NOT_FOUND))
    assert client(runner, PRE, observe=seen.append).get("/x").status_code == 503
    assert [call.tries for call in seen] == [1, 2, 3]


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
    with TestClient(app) as caller:  # type: ignore[arg-type]
        caller.get("/x")
        assert app.runner.idle_connections == 1


def test_routes_of_a_bad_mapping_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError):
        routes({"nothing": {}})
