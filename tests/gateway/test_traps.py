"""What APISIX does although nobody would expect it, beyond the recorded cases."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge.gateway import GatewayApp, echo, read_routes
from asgi_bridge.gateway.exchange import CutOff
from asgi_bridge.gateway.nginx.request import TARGET
from asgi_bridge.wire.messages import (
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    Message,
    PrepareConfReq,
    ReqBody,
    Rewrite,
    Stop,
    TextEntry,
    Var,
)
from tests.doubles.runner_double import Ask, RunnerDouble
from tests.gateway.test_app import CONF, PRE, RESP, action, called, client, routes

POST = {"ext-plugin-post-req": CONF}
UP = {"nodes": {"up.test:80": 1}}
OFF = {"_meta": {"disable": True}}


def both(rewrite: Rewrite | None, response: HTTPRespCallResp | None = None) -> Any:
    """An answer to the calls of both phases."""

    def answer(message: Message, ask: Ask) -> Message:
        if isinstance(message, HTTPReqCallReq):
            return HTTPReqCallResp(message.id, rewrite)
        assert isinstance(message, HTTPRespCallReq)
        return response or HTTPRespCallResp(message.id)

    return answer


def seen(answer: Any, name: str) -> list[str]:
    """The values of a header at the echoing upstream."""
    return [value for key, value in answer.json()["headers"] if key == name]


# --- a request header that the client sent more than once -------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [b"user-agent", b"referer", b"content-type", b"range", b"accept-encoding", b"via", b"date"]
)
def test_rewrite_replaces_the_first_line_of_a_built_in_header(runner: RunnerDouble, name: bytes) -> None:
    runner.calls(action(Rewrite(headers=[(name.title(), b"mine")])))
    app = GatewayApp(routes(PRE), runner.path, upstream=echo)
    headers = [(b"host", b"h"), (name, b"1"), (name, b"2"), (name, b"3")]
    sent = asyncio.run(called(app, headers=headers))
    assert sent[1]["body"].count(b'"mine"') == 1
    assert [value in sent[1]["body"] for value in (b'"1"', b'"2"', b'"3"')] == [False, True, True]


@pytest.mark.parametrize(
    ("entries", "left"),
    [
        ([(b"via", b"mine")], ["mine", "2"]),
        ([(b"via", None)], []),
        ([(b"via", b"")], []),
        ([(b"via", None), (b"via", b"mine")], ["mine"]),
        ([(b"Via", b""), (b"vIA", b"a"), (b"via", b"b")], ["b"]),
        ([(b"via", b"a"), (b"via", b"b")], ["b", "2"]),
        ([(b"via", b"a"), (b"via", None)], []),
    ],
)
def test_deleting_a_built_in_header_takes_all_its_lines(
    runner: RunnerDouble, entries: list[TextEntry], left: list[str]
) -> None:
    runner.calls(action(Rewrite(headers=entries)))
    answer = client(runner, PRE).get("/x", headers=[("Via", "1"), ("via", "2")])
    assert seen(answer, "via") == left


@pytest.mark.parametrize("name", ["x-own", "accept", "accept-language", "cookie", "x-forwarded-for", "te", "if-none"])
def test_rewrite_replaces_all_lines_of_other_headers(runner: RunnerDouble, name: str) -> None:
    runner.calls(action(Rewrite(headers=[(name.encode(), b"mine")])))
    app = GatewayApp(routes(PRE), runner.path, upstream=echo)
    headers = [(b"host", b"h"), (name.encode(), b"first"), (name.encode(), b"second")]
    sent = asyncio.run(called(app, headers=headers))
    assert (b"first" in sent[1]["body"], b"second" in sent[1]["body"]) == (False, False)


def test_runner_sees_the_first_line_only_after_a_rewrite(runner: RunnerDouble) -> None:
    """The Lua table has the new value alone, while nginx's list has the client's second line too."""
    runner.calls(action(Rewrite(headers=[(b"Via", b"mine")])))
    answer = client(runner, {**PRE, **POST}).get("/x", headers=[("Via", "1"), ("via", "2")])
    calls = [message for message in runner.got if isinstance(message, HTTPReqCallReq)]
    assert [[v for n, v in call.headers or () if n == b"via"] for call in calls] == [[b"1", b"2"], [b"mine"]]
    assert seen(answer, "via") == ["mine", "2"]


def test_proxy_rewrite_replaces_a_built_in_header_that_it_adds(runner: RunnerDouble) -> None:
    rewriting = {"proxy-rewrite": {"headers": {"add": {"Referer": "added", "X-Own": "added"}}}}
    answer = client(runner, rewriting).get("/x", headers={"Referer": "own", "X-Own": "own"})
    assert (seen(answer, "referer"), seen(answer, "x-own")) == (["added"], ["own", "added"])
    answer = client(runner, rewriting).get("/x")
    assert (seen(answer, "referer"), seen(answer, "x-own")) == (["added"], ["added"])


# --- hosts, ports, queries --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "forwarded"),
    [
        (b"Up.Test:8443", ("Up.Test:8443", "8443")),
        (b"UP.test", ("UP.test", "80")),
        (b"up.test.", ("up.test.", "80")),
        (b"[::1]:99", ("[::1]:99", "99")),
        (b"[::1]", ("[::1]", "80")),
        (b"a.test:", ("a.test:", "80")),
        (b"a.test:http", ("a.test:http", "80")),
        (b"a.test:0", ("a.test:0", "0")),
    ],
)
def test_forwarded_host_and_port_are_what_the_client_wrote(
    runner: RunnerDouble, host: bytes, forwarded: tuple[str, str]
) -> None:
    app = GatewayApp(routes(), runner.path, upstream=echo)
    headers = [(b"host", host), (b"x-forwarded-host", b"forged"), (b"x-forwarded-port", b"1")]
    sent = asyncio.run(called(app, headers=headers))
    text = sent[1]["body"].decode()
    assert f'"x-forwarded-host",\n   "{forwarded[0]}"' in text
    assert f'"x-forwarded-port",\n   "{forwarded[1]}"' in text


def test_forwarded_host_of_a_request_without_host(runner: RunnerDouble) -> None:
    app = GatewayApp(routes(), runner.path, upstream=echo)
    sent = asyncio.run(called(app, no_host=True, http_version="1.0"))
    assert b'"x-forwarded-host",\n   "_"' in sent[1]["body"]


@pytest.mark.parametrize("host", [b"a/b", b"a..b", b".", b":80", b"a.test:8/0", b"/"])
def test_rewritten_host_that_is_none_is_an_error(runner: RunnerDouble, host: bytes) -> None:
    runner.calls(action(Rewrite(headers=[(b"hOST", host)])))
    answer = client(runner, PRE).get("/x")
    assert (answer.status_code, answer.headers["connection"]) == (500, "close")
    assert client(runner, {"proxy-rewrite": {"headers": {"set": {"Host": host.decode()}}}}).get("/x").status_code == 500


@pytest.mark.parametrize("host", [b"a b", b"A_b", b"a.test:80", b"[::1]:80", b"caf\xc3\xa9", b"a\\b", b"a\x00b"])
def test_rewritten_host_goes_upstream_as_it_is(runner: RunnerDouble, host: bytes) -> None:
    runner.calls(action(Rewrite(headers=[(b"host", host)])))
    assert seen(client(runner, PRE).get("/x"), "host") == [host.decode("latin-1")]


@pytest.mark.parametrize(
    ("target", "args", "upstream"),
    [
        (b"/x", None, "/x"),
        (b"/x?", None, "/x?"),
        (b"/x??", b"?", "/x??"),
        (b"/x?#f", None, "/x?#f"),
        (b"/x?&", b"&", "/x?&"),
        (b"http://other.test?", None, "/?"),
    ],
)
def test_there_are_no_args_without_a_query(
    runner: RunnerDouble, target: bytes, args: bytes | None, upstream: str
) -> None:
    asked: list[Any] = []

    def answer(message: Message, ask: Ask) -> Message:
        assert isinstance(message, HTTPReqCallReq)
        asked.extend(
            [ask(Var(b"args")), ask(Var(b"query_string")), ask(Var(b"is_args")), ask(Var(b"real_request_uri"))]
        )
        return HTTPReqCallResp(message.id)

    runner.calls(answer)
    app = GatewayApp(routes(PRE), runner.path, upstream=echo)
    path, _, query = target.partition(b"?")
    extensions = {TARGET: target}
    scope: dict[str, Any] = {"raw_path": path, "query_string": query, "extensions": extensions}
    sent = asyncio.run(called(app, path=path.decode(), headers=[(b"host", b"h")], **scope))
    assert asked == [args, args, b"?" if args else b"", upstream.encode()]
    assert f'"target": "{upstream}"'.encode() in sent[1]["body"]


def test_query_that_a_plugin_emptied_is_an_empty_one(runner: RunnerDouble) -> None:
    asked: list[Any] = []

    def answer(message: Message, ask: Ask) -> Message:
        assert isinstance(message, HTTPReqCallReq)
        asked.append(ask(Var(b"args")))
        return HTTPReqCallResp(message.id, Rewrite(args=[(b"a", None)]))

    runner.calls(answer)
    assert client(runner, {**PRE, **POST}).get("/x?a=1").json()["target"] == "/x"
    assert asked == [b"a=1", b""]


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ('/a"b', '/a"b'),
        ("/a<>b", "/a<>b"),
        ("/a\\^`{|}b", "/a\\\\^`{|}b"),
        ("/a//b/../c|", "/a/c|"),
        ("/a%7Cb|", "/a%7Cb%7C"),
        ("/%C3%A9{", "/%C3%A9%7B"),
    ],
)
def test_raw_path_is_escaped_only_where_it_had_an_escape(runner: RunnerDouble, path: str, sent: str) -> None:
    runner.calls(action(Rewrite(args=[(b"z", b"1")])))
    app = GatewayApp(routes(PRE), runner.path, upstream=echo)
    got = asyncio.run(called(app, path=path, raw_path=path.encode(), headers=[(b"host", b"h")]))
    assert f'"target": "{sent.replace(chr(34), chr(92) + chr(34))}?z=1"'.encode() in got[1]["body"]


# --- what nginx refuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b"authorization", b"content-range", b"expect", b"if-match", b"if-none-match", b"if-range", b"if-modified-since",
        b"if-unmodified-since", b"host", b"content-length",
    ],
)  # fmt: skip
def test_nginx_refuses_a_header_that_may_stand_there_once(runner: RunnerDouble, name: bytes) -> None:
    app = GatewayApp(routes(PRE), runner.path, upstream=echo)
    headers = [(b"host", b"h"), (name, b"0"), (name.title(), b"0")]
    assert asyncio.run(called(app, headers=headers))[0]["status"] == 400
    assert runner.got == []
    if name != b"host":
        assert asyncio.run(called(app, headers=headers[:2]))[0]["status"] != 400


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        ("1.0", [(b"transfer-encoding", b"chunked")], 400),
        ("1.1", [(b"transfer-encoding", b"Chunked")], 200),
        ("1.1", [(b"transfer-encoding", b"gzip, chunked")], 501),
        ("1.1", [(b"transfer-encoding", b"chunked"), (b"content-length", b"1")], 400),
        ("1.1", [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")], 400),
    ],
)
def test_nginx_refuses_transfer_encodings(
    runner: RunnerDouble, version: str, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    app = GatewayApp(routes(), runner.path, upstream=echo)
    head = [(b"host", b"h"), *headers]
    assert asyncio.run(called(app, "POST", headers=head, body=b"x", http_version=version))[0]["status"] == status


# --- beyond ASCII -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "path", "found"),
    [
        ("/ä/*", "/%C3%A4/foo", True),
        ("/ä/*", "/%E4/foo", False),
        ("/日本", "/%E6%97%A5%E6%9C%AC", True),
        ("/日*", "/%E6%97%A5%E6%9C%AC", True),
        ("/Ã*", "/%C3%A4", False),
        ("/😀", "/%F0%9F%98%80", True),
        ("/%C3%A4", "/%C3%A4", False),
        ("/*", "/%FF%FE", True),
    ],
)
def test_uris_are_compared_as_bytes(runner: RunnerDouble, uri: str, path: str, found: bool) -> None:
    app = GatewayApp(read_routes({"routes": [{"id": "r", "uri": uri, "upstream": UP}]}), runner.path, upstream=echo)
    assert (TestClient(app).get(path).status_code == 200) is found


def test_longest_path_is_counted_in_bytes(runner: RunnerDouble) -> None:
    app = GatewayApp(read_routes({"routes": [{"id": "r", "uri": "/ä/*", "upstream": UP}]}), runner.path, upstream=echo)
    caller = TestClient(app)
    # of three bytes each; longer ones do not fit nginx's buffer as they are written
    short, long = "%E6%97%A5" * 200, "x" * 5798
    assert [caller.get(f"/%C3%A4/{short}{rest}").status_code for rest in (long, long + "x")] == [200, 404]


@pytest.mark.parametrize(
    ("rewriting", "path", "target"),
    [
        ({"uri": "/größe"}, "/x", "/gr%C3%B6%C3%9Fe?q=1"),
        ({"uri": "/x?ö=1"}, "/x", "/x?Ã¶=1&q=1"),
        ({"regex_uri": ["^/(ä+)$", "/日/$1"]}, "/%C3%A4", "/%E6%97%A5/%C3%A4?q=1"),
        ({"regex_uri": ["^/.$", "/one"]}, "/%C3%A4", "/%C3%A4?q=1"),
        ({"regex_uri": ["^/..$", "/two"]}, "/%C3%A4", "/two?q=1"),
        ({"regex_uri": ["^/([^?]*)$", "/x?y=$1"]}, "/a%0D%0Ab%09", "/x?y=a%0D%0Ab%09&q=1"),
    ],
)
def test_proxy_rewrite_beyond_ascii(runner: RunnerDouble, rewriting: Any, path: str, target: str) -> None:
    assert client(runner, {"proxy-rewrite": rewriting}).get(f"{path}?q=1").json()["target"] == target


def test_headers_and_bodies_of_a_rewrite_beyond_ascii(runner: RunnerDouble) -> None:
    plugins = {
        "proxy-rewrite": {"headers": {"set": {"X-U": "日"}, "add": {"X-V": "ü"}}},
        "response-rewrite": {"headers": {"set": {"X-R": "ü"}}, "body": "日本"},
    }
    got: list[Any] = []

    async def keeping(scope: Scope, receive: Receive, send: Send) -> None:
        got.extend(value for name, value in scope["headers"] if name in (b"x-u", b"x-v"))
        await echo(scope, receive, send)

    sent = asyncio.run(called(GatewayApp(routes(plugins), runner.path, upstream=keeping)))
    assert got == ["ü".encode(), "日".encode()]
    assert (sent[1]["body"], dict(sent[0]["headers"])[b"X-R"]) == ("日本".encode(), "ü".encode())


@pytest.mark.parametrize(
    ("key", "sent_key", "status"),
    [
        ("schlüssel", "schlüssel".encode(), 200),
        ("schlüssel", "schlüssel".encode("latin-1"), 401),
        ("鍵", "鍵".encode(), 200),
        ("e\u0301", "\u00e9".encode(), 401),
        ("\u00e9", b"\xc3\xa9", 200),
        ("plain", b"plain\xff", 401),
    ],
)
def test_keys_of_consumers_are_bytes(runner: RunnerDouble, key: str, sent_key: bytes, status: int) -> None:
    config = {
        "routes": [{"id": "r", "uri": "/*", "plugins": {"key-auth": {"query": "schlüssel"}}, "upstream": UP}],
        "consumers": [{"username": "bob", "plugins": {"key-auth": {"key": key}}}],
    }
    app = GatewayApp(read_routes(config), runner.path, upstream=echo)
    headers = [(b"host", b"h"), (b"apikey", sent_key)]
    assert asyncio.run(called(app, headers=headers))[0]["status"] == status
    query = b"schl%C3%BCssel=" + b"".join(b"%%%02X" % code for code in sent_key)
    answer = asyncio.run(called(app, headers=[(b"host", b"h")], query_string=query))
    assert answer[0]["status"] == status


def test_names_beyond_ascii_are_utf_8_for_the_runner(runner: RunnerDouble) -> None:
    asked: list[Any] = []

    def answer(message: Message, ask: Ask) -> Message:
        assert isinstance(message, HTTPReqCallReq)
        asked.extend([ask(Var(b"route_name")), ask(Var(b"service_name"))])
        return HTTPReqCallResp(message.id)

    runner.calls(answer)
    config = {
        "routes": [{"id": "r", "uri": "/*", "name": "Größe", "plugins": PRE, "service_id": "s"}],
        "services": [{"id": "s", "name": "日本", "upstream": UP}],
    }
    TestClient(GatewayApp(read_routes(config), runner.path, upstream=echo)).get("/x")
    assert asked == ["Größe".encode(), "日本".encode()]


# --- blanks and control characters in values --------------------------------------------------------------------------


def test_blanks_around_values_are_taken_off_on_their_way(runner: RunnerDouble) -> None:
    async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
        assert [value for name, value in scope["headers"] if name == b"x-a"] == [b"a b"]
        headers = [(b"set-cookie", b" a=1; path=/ "), (b"x-up", b"\tup")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    runner.calls(action(Rewrite(headers=[(b"X-A", b" \ta b  ")], resp_headers=[(b"X-R", b" r "), (b"X-E", b" ")])))
    app = GatewayApp(routes(PRE), runner.path, upstream=upstream)
    sent = asyncio.run(called(app, headers=[(b"host", b"h")]))
    values = dict(sent[0]["headers"])
    assert [values[name] for name in (b"set-cookie", b"x-up", b"x-r", b"x-e")] == [b"a=1; path=/", b"up", b"r", b""]
    runner.calls(action(Stop(200, [(b"X-S", b"  s\t"), (b"Content-Type", b" text/x ")], b"ok")))
    sent = asyncio.run(called(app, headers=[(b"host", b"h")]))
    assert [dict(sent[0]["headers"])[name] for name in (b"x-s", b"Content-Type")] == [b"s", b"text/x"]


@pytest.mark.parametrize("code", [0x00, 0x01, 0x0A, 0x0D, 0x1F, 0x7F])
def test_control_characters_of_a_plugin_are_escaped(runner: RunnerDouble, code: int) -> None:
    value = b"a%cb" % code
    runner.calls(action(Rewrite(headers=[(b"X-A", value)], resp_headers=[(b"X-R", value)])))
    answer = client(runner, PRE).get("/x")
    assert (seen(answer, "x-a"), answer.headers["x-r"]) == ([f"a%{code:02X}b"], f"a%{code:02X}b")


def test_control_characters_of_an_upstream_are_left_out_and_logged(
    runner: RunnerDouble, caplog: pytest.LogCaptureFixture
) -> None:
    async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-bad", b"a\x01b"), (b"x-worse", b"\x7f"), (b"x-tab", b"a\tb")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    answer = client(runner, upstream=upstream).get("/x")
    assert (answer.status_code, answer.text, answer.headers["x-tab"]) == (200, "ok", "a\tb")
    assert not {"x-bad", "x-worse"} & set(answer.headers)
    assert [record.getMessage() for record in caplog.records if "left out" in record.getMessage()] == [
        "GET /x: left out of the upstream's response: x-bad, x-worse; APISIX passes on a value with a control "
        "character, which a server under ASGI refuses to send"
    ]


# --- disabled plugins -------------------------------------------------------------------------------------------------


def held(near: dict[str, Any], far: dict[str, Any], holder: str) -> dict[str, Any]:
    """Routes with the nearer plugins on the route, and the farther ones on what the route refers to."""
    route = {"id": "r", "uri": "/*", "plugins": near, "upstream": UP}
    if holder == "service":
        return {"routes": [{**route, "service_id": "f"}], "services": [{"id": "f", "plugins": far}]}
    return {"routes": [{**route, "plugin_config_id": "f"}], "plugin_configs": [{"id": "f", "plugins": far}]}


@pytest.mark.parametrize("holder", ["service", "plugin_config"])
@pytest.mark.parametrize("phase", ["ext-plugin-pre-req", "ext-plugin-post-req", "ext-plugin-post-resp"])
def test_disabled_plugin_of_a_route_takes_the_place_of_the_farther_one(
    runner: RunnerDouble, holder: str, phase: str
) -> None:
    config = held({phase: {**OFF, **CONF}}, {phase: CONF}, holder)
    assert TestClient(GatewayApp(read_routes(config), runner.path, upstream=echo)).get("/x").status_code == 200
    assert runner.got == []
    config = held({phase: CONF}, {phase: {**OFF, **CONF}}, holder)
    TestClient(GatewayApp(read_routes(config), runner.path, upstream=echo)).get("/x")
    assert len([message for message in runner.got if isinstance(message, PrepareConfReq)]) == 1


def test_disabled_authentication_of_a_route_is_off(runner: RunnerDouble) -> None:
    """It seems to be tested where the service's runs, and is not on in production."""
    key_auth: dict[str, Any] = {"key-auth": {}}
    config = held({"key-auth": OFF}, key_auth, "service")
    assert TestClient(GatewayApp(read_routes(config), runner.path, upstream=echo)).get("/x").status_code == 200
    config = held({}, key_auth, "service")
    assert TestClient(GatewayApp(read_routes(config), runner.path, upstream=echo)).get("/x").status_code == 401


@pytest.mark.parametrize(
    ("route", "consumer", "calls"),
    [
        # the route's pre-req has run before anybody knows the consumer
        ({"ext-plugin-pre-req": CONF}, {"ext-plugin-pre-req": OFF}, 1),
        ({"ext-plugin-post-req": CONF}, {"ext-plugin-post-req": OFF}, 0),
        ({"ext-plugin-post-resp": CONF}, {"ext-plugin-post-resp": OFF}, 0),
        ({"ext-plugin-post-req": OFF}, {"ext-plugin-post-req": CONF}, 1),
        # trap: a disabled one on the route keeps the consumer's from being run in the rewrite phase
        ({"ext-plugin-pre-req": OFF}, {"ext-plugin-pre-req": CONF}, 0),
        ({}, {"ext-plugin-pre-req": CONF}, 1),
        ({}, {"ext-plugin-pre-req": OFF}, 0),
    ],
)
def test_disabled_plugins_of_a_route_and_of_a_consumer(
    runner: RunnerDouble, route: dict[str, Any], consumer: dict[str, Any], calls: int
) -> None:
    config = {
        "routes": [{"id": "r", "uri": "/*", "plugins": {"key-auth": {}, **route}, "upstream": UP}],
        "consumers": [{"username": "bob", "plugins": {"key-auth": {"key": "k"}, **consumer}}],
    }
    app = GatewayApp(read_routes(config), runner.path, upstream=echo)
    assert TestClient(app).get("/x", headers={"apikey": "k"}).status_code == 200
    assert len([message for message in runner.got if not isinstance(message, PrepareConfReq)]) == calls


# --- error_response ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error_response", "body"),
    [("sorry", b"sorry"), ({"a": "ü/", "b": [1]}, '{"a":"ü\\/","b":[1]}\n'.encode()), ("", b"")],
)
def test_error_response_takes_the_place_of_a_body(runner: RunnerDouble, error_response: Any, body: bytes) -> None:
    listed = {**CONF, "_meta": {"error_response": error_response}}
    for status, expected in ((403, body), (399, b"own")):
        runner.calls(action(Stop(status, None, b"own")))
        for phase in ("ext-plugin-pre-req", "ext-plugin-post-req"):
            answer = client(runner, {phase: listed}).get("/x")
            assert (answer.status_code, answer.content) == (status, expected)
    runner.calls(lambda message, ask: None)
    answer = client(runner, {"ext-plugin-pre-req": listed}).get("/x")
    assert (answer.status_code, answer.content) == (503, body)
    runner.calls(lambda message, ask: HTTPRespCallResp(message.id, 500, None, b"own"))
    answer = client(runner, {"ext-plugin-post-resp": listed}).get("/x")
    assert (answer.status_code, answer.content) == (500, body)
    answer = client(runner, {"key-auth": {"_meta": {"error_response": error_response}}}).get("/x")
    assert (answer.status_code, answer.content) == (401, body)


# --- what hangs or breaks on APISIX -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "body", "ask_first", "response_phase", "status"),
    [
        # nginx reads as much of the client as Content-Length says, which the plugin has made longer or shorter
        (b"9", b"123456789", False, True, 502),
        (b"2", b"12", False, True, 502),
        (b"9", None, False, True, 502),
        (b"0", None, False, False, 502),
        # ... unless the body has been read before
        (b"9", b"123456789", True, True, 200),
        (b"9", b"123456789", True, False, 200),
        (b"9", None, True, False, 502),
        (b"5", None, False, True, 200),
        # ... or a Rewrite replaces what was read of it; the rest is the client's next request all the same
        (b"2", b"12", False, False, 200),
    ],
)
def test_content_length_set_by_a_plugin(
    runner: RunnerDouble,
    caplog: pytest.LogCaptureFixture,
    length: bytes,
    body: bytes | None,
    ask_first: bool,
    response_phase: bool,
    status: int,
) -> None:
    def answer(message: Message, ask: Ask) -> Message:
        if isinstance(message, HTTPRespCallReq):
            return HTTPRespCallResp(message.id)
        assert isinstance(message, HTTPReqCallReq)
        if ask_first:
            assert ask(ReqBody()) == b"short"
        return HTTPReqCallResp(message.id, Rewrite(headers=[(b"Content-Length", length)], body=body))

    runner.calls(answer)
    response = client(runner, {**PRE, **(RESP if response_phase else {})}).post("/x", content=b"short")
    assert response.status_code == status
    logged = [
        record.getMessage() for record in caplog.records if "answered 502; APISIX would have" in record.getMessage()
    ]
    assert len(logged) == (status == 502)
    rest = [message for message in caplog.messages if "APISIX would have taken 3 bytes of the body" in message]
    assert bool(rest) is (length == b"2")
    if status == 200:
        assert response.json()["body"] == (body or b"short").decode()


def test_content_length_that_nginx_cannot_read_is_an_error(runner: RunnerDouble) -> None:
    for length in (b"-1", b"1e3", b" 5", b"9" * 19, b"9" * 5000):
        runner.calls(action(Rewrite(headers=[(b"content-length", length)])))
        assert client(runner, PRE).post("/x", content=b"short").status_code == 500
        runner.calls(action(Stop(200, [(b"Content-Length", length)], b"ok")))
        assert client(runner, PRE).get("/x").status_code == 500


def test_longer_body_under_the_old_length_is_logged(runner: RunnerDouble, caplog: pytest.LogCaptureFixture) -> None:
    runner.calls(both(Rewrite(body=b"longer than before")))
    answer = client(runner, {**PRE, **RESP}).post("/x", content=b"short")
    assert (answer.status_code, answer.json()["body"]) == (200, "longe")
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "POST /x (route r): a plugin has changed the body: ext-plugin-post-resp sends 18 bytes under the old "
        "Content-Length: 5, and the upstream takes the rest for another request"
    ]


@pytest.mark.parametrize(
    ("rewritten", "status", "method", "seen_status"),
    [
        (205, 204, "GET", 502),
        (200, 204, "GET", 502),
        (500, 204, "POST", 502),
        (204, 204, "GET", 204),
        (304, 204, "GET", 304),
        (205, 204, "HEAD", 205),
        (205, 200, "GET", 205),
        (205, 304, "GET", 205),
    ],
)
def test_204_with_a_filler_that_becomes_another_status(
    runner: RunnerDouble, rewritten: int, status: int, method: str, seen_status: int
) -> None:
    plugins = {**PRE, "response-rewrite": {"status_code": rewritten}}
    runner.calls(action(Stop(status, [(b"Content-Type", b"a/b")], b" ")))
    assert client(runner, plugins).request(method, "/x").status_code == seen_status
    if status == 204:
        # without the filler nothing hangs
        runner.calls(action(Stop(status)))
        assert client(runner, plugins).request(method, "/x").status_code == rewritten


# --- ext-plugin-post-resp in a global rule and on the route -----------------------------------------------------------


class Twice:
    """A gateway with ext-plugin-post-resp in both places, in front of an upstream that counts."""

    def __init__(self, runner: RunnerDouble, of_rule: Any, of_route: Any, upstream: ASGIApp | None = None) -> None:
        self.calls: list[str] = []
        self.upstream = upstream
        listed = {"ext-plugin-post-resp": {"conf": [{"name": "rule", "value": "{}"}]}}
        config = {
            "routes": [{"id": "r", "uri": "/*", "plugins": RESP, "upstream": UP}],
            "global_rules": [{"id": "g", "plugins": listed}],
        }
        answers = [of_rule, of_route]
        runner.calls(lambda message, ask: answers.pop(0)(message, ask))
        self.app = GatewayApp(read_routes(config), runner.path, upstream=self.counted)

    async def counted(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls.append(scope["method"])
        if self.upstream is not None:
            await self.upstream(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-up", b"1")]})
        await send({"type": "http.response.body", "body": b"upstream's"})

    def get(self, method: str = "GET") -> tuple[list[Any], bool]:
        """What was sent to the client, and whether the connection was broken then."""
        sent: list[Any] = []

        async def main() -> bool:
            async def send(message: Any) -> None:
                sent.append(message)

            async def receive() -> Any:
                if not sent:
                    return {"type": "http.request", "body": b"", "more_body": False}
                await asyncio.Event().wait()

            scope = {"type": "http", "method": method, "path": "/x", "headers": [(b"host", b"h")]}
            try:
                await self.app(scope, receive, send)
            except CutOff:
                return True
            return False

        return sent, asyncio.run(main())


def answering(status: int = 0, headers: Any = None, body: bytes | None = None) -> Any:
    return lambda message, ask: HTTPRespCallResp(message.id, status, headers, body)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_second_list_calls_the_upstream_again_and_the_response_is_cut_off(runner: RunnerDouble, method: str) -> None:
    gateway = Twice(runner, answering(201, [(b"X-Rule", b"1")]), answering(200, [(b"X-Route", b"1")]))
    sent, broken = gateway.get(method)
    assert (gateway.calls, broken, sent[0]["status"]) == ([method] * 2, True, 201)
    assert [message["body"] for message in sent[1:]] == [b"upstream's"]
    assert all(message["more_body"] for message in sent[1:])
    names = [name.lower() for name, _ in sent[0]["headers"]]
    assert (b"x-rule" in names, b"x-route" in names) == (True, False)
    assert len([message for message in runner.got if isinstance(message, HTTPRespCallReq)]) == 2


def test_second_list_does_not_run_where_the_first_one_sends_a_body(runner: RunnerDouble) -> None:
    gateway = Twice(runner, answering(200, None, b"rule's"), answering())
    sent, broken = gateway.get()
    assert (gateway.calls, broken, [message.get("body") for message in sent[1:]]) == (["GET"], False, [b"rule's"])


@pytest.mark.parametrize("first", [lambda message, ask: None, answering(404, [(b"X-Rule", b"1")])])
def test_second_list_runs_behind_an_error_too(runner: RunnerDouble, first: Any) -> None:
    gateway = Twice(runner, first, answering(200, [(b"X-Route", b"1")]))
    sent, broken = gateway.get()
    assert (gateway.calls, broken, sent[0]["status"] in (404, 503)) == (["GET", "GET"], True, True)


def test_second_list_that_fails_leaves_the_response_whole(runner: RunnerDouble) -> None:
    gateway = Twice(runner, answering(), lambda message, ask: None)
    sent, broken = gateway.get()
    assert (gateway.calls, broken, sent[-1]["more_body"]) == (["GET", "GET"], False, False)
    assert b"".join(message["body"] for message in sent[1:]) == b"upstream's"


def test_second_list_without_a_header_to_set_sends_the_body_again(runner: RunnerDouble) -> None:
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"a/b")]})
        await send({"type": "http.response.body", "body": b"again"})

    gateway = Twice(runner, answering(), answering(), plain)
    sent, broken = gateway.get()
    assert (gateway.calls, broken) == (["GET", "GET"], False)
    assert b"".join(message["body"] for message in sent[1:]) == b"againagain"


def test_nothing_to_send_goes_to_the_second_list_and_then_upstream(runner: RunnerDouble) -> None:
    """HEAD: post-resp has nothing to send, so each list fetches, and nginx proxies in the end."""
    gateway = Twice(runner, answering(), answering())
    sent, broken = gateway.get("HEAD")
    assert (gateway.calls, broken, sent[0]["status"]) == (["HEAD"] * 3, False, 200)


def test_two_lists_are_logged_when_the_routes_are_read(runner: RunnerDouble, caplog: pytest.LogCaptureFixture) -> None:
    rule = {"global_rules": [{"id": "g", "plugins": RESP}]}
    route = {"id": "r", "uri": "/*", "upstream": UP}
    twice = read_routes({"routes": [{**route, "plugins": RESP}, {**route, "id": "s"}], **rule})
    for alone in ({"routes": [route], **rule}, {"routes": [{**route, "plugins": RESP}]}):
        app = GatewayApp(read_routes(alone), runner.path)
    assert caplog.messages == []
    logged = (
        "route r and a global rule both have ext-plugin-post-resp: APISIX then calls the upstream twice and cuts the "
        "client's response off, or passes over the route's list; keep one of the two"
    )
    app.routes = twice
    assert caplog.messages == [logged]
    GatewayApp(twice, runner.path)
    assert caplog.messages == [logged, logged]


# --- WebSockets -------------------------------------------------------------------------------------------------------


def test_handshake_of_a_websocket_is_a_plain_request_and_logged(
    runner: RunnerDouble, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket", "Sec-WebSocket-Version": "13"}
    answer = client(runner).get("/x", headers=headers)
    assert (seen(answer, "upgrade"), seen(answer, "sec-websocket-version")) == ([], ["13"])
    assert caplog.messages == [
        "GET /x: the stand-in does not proxy WebSockets; the handshake goes upstream as a plain request, as APISIX "
        "sends it for a route without enable_websocket"
    ]
    caplog.clear()
    client(runner).get("/x", headers={"Connection": "upgrade", "Upgrade": "h2c"})
    assert caplog.messages == []
