"""The gateway on real sockets: uvicorn's parsers, with and without uvloop, and what a scope does not hold."""

import contextlib
import importlib.util
import json
import logging
import socket

import pytest
from starlette.middleware.gzip import GZipMiddleware
from starlette.testclient import TestClient

from asgi_bridge import Bridge
from asgi_bridge.gateway import GatewayApp, echo
from asgi_bridge.gateway.server import http_protocol
from asgi_bridge.testing import Gateway
from asgi_bridge.wire.messages import Rewrite, Stop
from tests.doubles.http_servers import serving
from tests.doubles.runner_double import RunnerDouble
from tests.gateway.test_app import PRE, action, routes
from tests.loops import LOOPS, loop_factory


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


PARSERS = [
    "h11",
    pytest.param(
        "httptools", marks=pytest.mark.skipif(not installed("httptools"), reason="httptools is not installed")
    ),
]


def asked(port: int, *heads: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Send requests over one connection, one after the other; give status, headers and body of each."""
    answers = []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, connection.makefile("rb") as stream:
        for head in heads:
            connection.sendall(head.replace(b"\n", b"\r\n") + b"\r\n\r\n")
            status = int(stream.readline().split()[1])
            headers = {}
            while (line := stream.readline().decode("latin-1").strip()) != "":
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            body = b""
            if "content-length" in headers:
                body = stream.read(int(headers["content-length"]))
            elif headers.get("transfer-encoding") == "chunked":
                while (size := int(stream.readline(), 16)) > 0:
                    body += stream.read(size)
                    stream.readline()
                stream.readline()
            answers.append((status, headers, body))
    return answers


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("loop", LOOPS)
def test_gateway_works_with_each_parser_on_each_loop(runner: RunnerDouble, loop: str, parser: str) -> None:
    runner.calls(action(Rewrite(headers=[(b"X-A", b"1")])))
    app = GatewayApp(routes(PRE), runner.path, upstream=echo)
    with serving(app, loop_factory(loop), http=http_protocol(parser)) as port:
        answers = asked(port, b"GET /x HTTP/1.1\nHost: h", b"GET /y HTTP/1.1\nHost: h")
    assert [status for status, _, _ in answers] == [200, 200]
    assert [json.loads(body)["target"] for _, _, body in answers] == ["/x", "/y"]
    # the second call took the connection of the first one
    assert runner.accepted == 2


@pytest.mark.parametrize("with_lifespan", [True, False])
@pytest.mark.parametrize("loop", LOOPS)
def test_gateway_of_the_tests_works_on_each_loop(loop: str, with_lifespan: bool) -> None:
    bridge = Bridge()
    bridge.add_middleware("gzip", GZipMiddleware, phase="response", request_headers=["accept-encoding"])
    conf = {"conf": [{"name": "gzip", "value": '{"minimum_size": 1}'}]}
    app = Gateway(bridge, [{"uri": "/*", "plugins": {"ext-plugin-post-resp": conf}}])
    client = TestClient(app, backend_options={"use_uvloop": loop == "uvloop"})
    with client if with_lifespan else contextlib.nullcontext():
        answers = [client.get(path) for path in ("/x", "/y")]
    assert [answer.json()["target"] for answer in answers] == ["/x", "/y"]
    assert [answer.headers["content-encoding"] for answer in answers] == ["gzip", "gzip"]


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("own", [True, False])
def test_statuses_above_599_are_sent(runner: RunnerDouble, parser: str, own: bool) -> None:
    """With the gateway's own protocols, and with uvicorn's."""
    statuses = [600, 650, 700, 999]
    answers = [Stop(status, None, b"body") for status in statuses] + [Stop(status) for status in statuses]
    runner.calls(lambda message, ask: action(answers.pop(0))(message, ask))
    app = GatewayApp(routes(PRE), runner.path, upstream=echo)
    with serving(app, http=http_protocol(parser) if own else parser) as port:
        got = asked(port, *[b"GET /x HTTP/1.1\nHost: h"] * 8)
    assert [(status, body) for status, _, body in got] == [
        *((status, b"body") for status in statuses),
        *((status, b"") for status in statuses),
    ]


@pytest.mark.parametrize("parser", PARSERS)
def test_target_is_what_the_client_wrote(runner: RunnerDouble, parser: str) -> None:
    targets = ["/x", "/x?", "/x??", "/x?#", "/x?a=1", "http://h/x?", "/a%2Fb/..//c?"]
    app = GatewayApp(routes(), runner.path, upstream=echo)
    with serving(app, http=http_protocol(parser)) as port:
        got = asked(port, *(b"GET %s HTTP/1.1\nHost: h" % target.encode() for target in targets))
    assert [json.loads(body)["target"] for _, _, body in got] == [target.removeprefix("http://h") for target in targets]


@pytest.mark.parametrize("parser", PARSERS)
def test_blanks_around_values_pass_each_parser(runner: RunnerDouble, parser: str) -> None:
    runner.calls(action(Stop(200, [(b"X-A", b" a\t"), (b"Set-Cookie", b" a=1")], b"ok")))
    app = GatewayApp(routes(PRE), runner.path, upstream=echo)
    with serving(app, http=http_protocol(parser)) as port:
        status, headers, body = asked(port, b"GET /x HTTP/1.1\nHost: h")[0]
    assert (status, headers["x-a"], headers["set-cookie"], body) == (200, "a", "a=1", b"ok")


@pytest.mark.parametrize("parser", PARSERS)
def test_websocket_handshake_is_told_once(runner: RunnerDouble, caplog: pytest.LogCaptureFixture, parser: str) -> None:
    """uvicorn would advise a package that does not help."""
    app = GatewayApp(routes(), runner.path, upstream=echo)
    handshake = b"GET /x HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13"
    with serving(app, http=http_protocol(parser)) as port:
        assert asked(port, handshake)[0][0] == 200
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("GET /x: the stand-in does not proxy WebSockets; ")


def test_httptools_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from uvicorn.protocols.http.h11_impl import H11Protocol

    assert issubclass(http_protocol(), H11Protocol) is not installed("httptools")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert issubclass(http_protocol(), H11Protocol)
