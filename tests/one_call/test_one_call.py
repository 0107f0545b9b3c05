"""One call: what each plugin changed, and what came of it."""

import re
import tempfile
from collections.abc import Iterator
from typing import Any

import click
import pytest

from asgi_bridge import ConfigurationError
from asgi_bridge.one_call import Outcome, Request, as_json, as_text, call_in_process, call_over_socket
from asgi_bridge.wire import (
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    PrepareConfReq,
    ReqBody,
    RespBody,
    Stop,
    Var,
)

from ..doubles.runner_double import running
from ..doubles.runner_thread import ThreadRunner
from ..doubles.waiting import SECONDS
from .gate import bridge

KEY = '{"key": "secret"}'
HOST = ["    host: localhost"]
FORWARDED = ["    x-forwarded-proto: http", "    x-forwarded-host: localhost", "    x-forwarded-port: 80"]


@pytest.fixture(scope="module")
def runner() -> Iterator[ThreadRunner]:
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as folder:
        runner = ThreadRunner(f"{folder}/r.sock", "asyncio", bridge)
        yield runner
        runner.stop()


def listed(*plugins: str | tuple[str, str]) -> list[tuple[str, str]]:
    return [(each, "{}") if isinstance(each, str) else each for each in plugins]


def called(*plugins: str | tuple[str, str], **fields: Any) -> tuple[Request, Outcome]:
    request = Request(listed(*plugins), **fields)
    return request, call_in_process(request, bridge.plugins)


def text(request: Request, outcome: Outcome) -> list[str]:
    """The lines without colours and times, and without the headers that APISIX adds."""
    lines = click.unstyle("\n".join(as_text(request, outcome))).split("\n")
    return [re.sub(r"  [\d.]+ ms$", "", line) for line in lines if line not in FORWARDED]


@pytest.mark.parametrize(
    ("plugins", "fields", "lines"),
    [
        (
            ["cors", ("api-key", KEY)],
            {"headers": [("Origin", "https://a.test")]},
            [
                "GET /  request phase",
                *HOST,
                "    origin: https://a.test",
                "cors: passes the request on",
                "    response header + access-control-allow-origin: *",
                "    response header + vary: Origin",
                "api-key: answers 401",
                "    response header + content-length: 12",
                "    response header + content-type: text/plain; charset=utf-8",
                "    response body 0 → 12 bytes: who are you?",
                "→ stop 401",
                "    header  content-type: text/plain; charset=utf-8",
                "    header  access-control-allow-origin: *",
                "    header  vary: Origin",
                "    body    12 bytes: who are you?",
            ],
        ),
        (
            [("api-key", KEY), "rewrite", "both"],
            {"path": "/a%20b", "query": "x=1&y", "headers": [("x-api-key", "secret"), ("cookie", "c=1")]},
            [
                "GET /a b?x=1&y  request phase",
                *HOST,
                "    x-api-key: secret",
                "    cookie: c=1",
                "asked for $request_id, $request, $uri",
                "api-key: passes the request on, and waits for the response",
                "rewrite: passes the request on, and waits for the response",
                "    request path /a b → /in/a b",
                "    request query x=1&y → x=2",
                "    request header - cookie: c=1",
                "    request header + x-user: joe",
                "both: passes the request on, and waits for the response",
                "→ rewrite",
                "    path    /in/a b",
                "    header  x-user: joe",
                "    header  cookie deleted",
                "    arg     x: 2",
                "    arg     y deleted",
            ],
        ),
        (
            ["in-place", "rooted", "upper"],
            {"method": "POST", "body": b"hello"},
            [
                "POST /  request phase",
                *HOST,
                "    content-length: 5",
                "asked for request body",
                "in-place: passes the request on",
                "    request path / → /changed",
                "    request header + x-user: joe",
                "rooted: passes the request on",
                "upper: passes the request on",
                "    request body 5 → 5 bytes: HELLO",
                "    response status 200 → 203",
                "    response header + content-type: text/plain",
                "→ rewrite",
                "    path    /changed",
                "    header  x-user: joe",
                "    body    5 bytes: HELLO",
            ],
        ),
        (
            ["asking"],
            {
                "path": "/%C3%A4", "query": "x=1",
                "headers": [("X-One", "1"), ("cookie", "a=b; c=d"), ("host", "a.test:81")],
                "variables": {"consumer_name": "jane", "remote_addr": "::1"},
            },
            [
                "GET /ä?x=1  request phase",
                "    x-forwarded-host: a.test:81",
                "    x-forwarded-port: 81",
                "    x-one: 1",
                "    cookie: a=b; c=d",
                "    host: a.test:81",
                "asked for $consumer_name, $remote_addr, $arg_x, $cookie_c, $http_x_one, $uri, $args, $host, $nothing",
                "asking: answers 200",
                "    response header + content-length: 64",
                "    response header + content-type: text/plain; charset=utf-8",
                "    response body 0 → 64 bytes: b'jane' b'::1' b'1' b'd' b'1' b'/\\xc3\\xa4' b'x=1' b'a.test' …",
                "→ stop 200",
                "    header  content-type: text/plain; charset=utf-8",
                "    body    64 bytes: b'jane' b'::1' b'1' b'd' b'1' b'/\\xc3\\xa4' b'x=1' b'a.test' …",
            ],
        ),
        (
            ["cors", "upper"],
            {
                "phase": "response", "status": 404, "response_headers": [("X-Up", "1")], "response_body": b"gone",
                "headers": [("origin", "https://a.test")],
            },
            [
                "GET /  response phase",
                "    origin: https://a.test",
                *HOST,
                "upstream 404",
                "    x-up: 1",
                "    content-length: 4",
                None,
                "cors: takes the upstream's response",
                "    response header + access-control-allow-origin: *",
                "    response header + vary: Origin",
                "upper: takes the upstream's response",
                "    response status 404 → 203",
                "    response header - x-up: 1",
                "    response header - content-length: 4",
                "    response header + content-type: text/plain",
                "    response body 4 → 4 bytes: GONE",
                "→ response 203",
                "    header  content-type: text/plain",
                "    header  access-control-allow-origin: *",
                "    header  vary: Origin",
                "    body    4 bytes: GONE",
            ],
        ),
    ],
)  # fmt: skip
def test_what_each_plugin_changed(plugins: list[Any], fields: dict[str, Any], lines: list[str | None]) -> None:
    found = text(*called(*plugins, **fields))
    assert [None if line.startswith("asked for") and None in lines else line for line in found] == lines


@pytest.mark.parametrize(
    ("plugins", "end"),
    [
        (
            ["cors", "failing", "rewrite"],
            ["cors: passes the request on", "failing: fails: ValueError: boom", "rewrite: is not reached",
             "→ refused: ValueError: boom"],
        ),
        (
            ["open", "rewrite"],
            ["open: fails: ValueError: boom", "rewrite: passes the request on", "    request path / → /in/",
             "    request query  → x=2", "    request header + x-user: joe", "→ rewrite", "    path    /in/",
             "    header  x-user: joe", "    arg     x: 2"],
        ),
        (
            ["sleeping"],
            ["sleeping: gives no answer",
             "→ refused: plugin sleeping: no answer in time (option timeout: 0.05 s)"],
        ),
        (["silent"], ["silent: gives no answer", "→ refused: it ended without a complete response"]),
        ([], ["→ pass"]),
    ],
)  # fmt: skip
def test_plugins_that_fail(plugins: list[Any], end: list[str]) -> None:
    assert text(*called(*plugins))[2:] == end


def test_a_plugin_that_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="plugin nope is not mounted; mounted are: "):
        called("nope")
    with pytest.raises(ConfigurationError, match=r"plugin api-key: field 'key': Field required"):
        called("api-key")
    with pytest.raises(
        ConfigurationError, match="plugin api-key is for the request phase: list it under ext-plugin-pre"
    ):
        called(("api-key", KEY), phase="response")
    with pytest.raises(ConfigurationError, match="APISIX hands over no BREW requests, but only GET, HEAD, "):
        called("cors", method="BREW")


def test_values_for_programs() -> None:
    request, outcome = called(("api-key", KEY), headers=[("x-\xe4", "\xe4")])
    values = as_json(request, outcome)
    assert values.pop("milliseconds") >= 0
    assert values == {
        "phase": "request",
        "request": {
            "method": "GET",
            "target": "/",
            "headers": [
                ("host", "localhost"), ("x-forwarded-proto", "http"), ("x-forwarded-host", "localhost"),
                ("x-forwarded-port", "80"), ("x-ä", "ä"),
            ],
            "scheme": "http",
            "http_version": "1.1",
            "client": ("127.0.0.1", 0),
            "server": ("localhost", 80),
        },
        "asked": [],
        "plugins": [
            {
                "name": "api-key",
                "what": "answers 401",
                "request": [],
                "response": [
                    "response header + content-length: 12",
                    "response header + content-type: text/plain; charset=utf-8",
                    "response body 0 → 12 bytes: who are you?",
                ],
            }
        ],
        "answer": {
            "action": "stop",
            "status": 401,
            "headers": [["content-type", "text/plain; charset=utf-8"]],
            "body": "who are you?",
        },
        "error": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("plugins", "fields", "answer"),
    [
        (
            ["rewrite"],
            {},
            {
                "action": "rewrite", "path": "/in/", "headers": [["x-user", "joe"]], "args": [["x", "2"]],
                "response_headers": [], "body": None,
            },
        ),
        (["rooted"], {}, {"action": "pass"}),
        (
            ["upper"],
            {"phase": "response", "response_body": b"a"},
            {"action": "response", "status": 203, "headers": [["content-type", "text/plain"]], "body": "A"},
        ),
        (["failing"], {}, None),
    ],
)  # fmt: skip
def test_answers_for_programs(plugins: list[Any], fields: dict[str, Any], answer: dict[str, Any] | None) -> None:
    assert as_json(*called(*plugins, **fields))["answer"] == answer


@pytest.mark.parametrize(
    ("plugins", "fields"),
    [
        (["cors", ("api-key", KEY)], {"headers": [("origin", "https://a.test")]}),
        (["rewrite"], {"path": "/a%20b", "query": "x=1&y"}),
        (["in-place", "upper"], {"method": "POST", "body": b"hello"}),
        (["upper"], {"phase": "response", "status": 404, "response_body": b"gone"}),
        (["asking"], {"variables": {"consumer_name": "jane"}}),
    ],
)
def test_a_running_runner_answers_the_same(runner: ThreadRunner, plugins: list[Any], fields: dict[str, Any]) -> None:
    request, here = called(*plugins, **fields)
    there = call_over_socket(request, runner.path, SECONDS)
    assert there.answer is not None and here.answer is not None
    here.answer.id = there.answer.id
    assert (there.answer, there.asked, there.error) == (here.answer, here.asked, None)
    # what each plugin changed is known in this process only
    assert as_json(request, there)["plugins"] == []


def test_what_a_running_runner_is_sent() -> None:
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as folder, running(f"{folder}/r.sock") as double:
        asked: list[bytes | None] = []

        def answer(message: Any, ask: Any) -> Any:
            asked.extend(ask(info) for info in (Var(b"request_method"), ReqBody(), RespBody(), Var(b"x")))
            return HTTPReqCallResp(message.id, Stop(418, [(b"a", None)], b"tea"))

        double.calls(answer)
        request = Request([("a", "1"), ("b", "2")], method="PUT", path="/x", query="q", body=b"body")
        outcome = call_over_socket(request, double.path, SECONDS)
        prepared, call = double.got
    assert prepared == PrepareConfReq([(b"a", b"1"), (b"b", b"2")], b"route#asgi-bridge-call#ext-plugin-pre-req#1")
    assert call == HTTPReqCallReq(
        0, b"\x7f\0\0\1", "PUT", b"/x", [(b"q", None)],
        [
            (b"host", b"localhost"), (b"x-forwarded-proto", b"http"), (b"x-forwarded-host", b"localhost"),
            (b"x-forwarded-port", b"80"), (b"content-length", b"4"),
        ],
        7,
    )  # fmt: skip
    assert asked == [b"PUT", b"body", None, None]
    assert outcome.answer == HTTPReqCallResp(0, Stop(418, [(b"a", None)], b"tea"))
    assert text(request, outcome) == [
        "PUT /x?q  request phase", *HOST, "    content-length: 4",
        "asked for $request_method, request body, response body, $x",
        "→ stop 418", "    header  a deleted", "    body    3 bytes: tea",
    ]  # fmt: skip
    assert Request([], phase="response", status=204).message(3, 7) == HTTPRespCallReq(3, 204, [], 7)


def test_a_running_runner_that_refuses(runner: ThreadRunner) -> None:
    log = "the runner's log says why"
    refused = call_over_socket(Request(listed("nope")), runner.path, SECONDS)
    assert refused.error == f"failed to receive RPC_PREPARE_CONF: bad request; {log}"
    failed = call_over_socket(Request(listed("failing")), runner.path, SECONDS)
    assert failed.error == f"failed to receive RPC_HTTP_REQ_CALL: service unavailable; {log}"
    nobody = call_over_socket(Request(listed("cors")), runner.path + "x", SECONDS)
    assert nobody.error == f"failed to connect to the unix socket unix:{runner.path}x: no such file or directory"


def test_a_terminal_gets_no_commands() -> None:
    outcome = Outcome([Var(b"\x1b[2J")], HTTPReqCallResp(1, Stop(400, [(b"a", b"\x1b[2J")], b"x\n\x1b[2J")))
    request = Request([], path="/%1b", headers=[("b", "\x1b[2J")])
    assert text(request, outcome) == [
        "GET /%1b  request phase", *HOST, r"    b: \x1b[2J", r"asked for $\x1b[2J", "→ stop 400",
        r"    header  a: \x1b[2J", r"    body    6 bytes: x\n\x1b[2J",
    ]  # fmt: skip
    assert text(Request([]), Outcome(error="\x1b[2J"))[-1] == r"→ refused: \x1b[2J"
