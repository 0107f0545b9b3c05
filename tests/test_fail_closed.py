"""A fault in a plugin refuses the request, logs one line, and leaves the runner as it was."""

import asyncio
import gc
import logging
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.gateway import GatewayApp, Limits
from asgi_bridge.server.runner import RunnerOptions
from asgi_bridge.testing import Gateway

from .doubles.clients import client_of, routes_of
from .doubles.runner_process import RunnerProcess, runner_process
from .doubles.upstream import Upstream

LEAK_CALLS = int(os.environ.get("LEAK_CALLS", "1500"))

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
BODY: Message = {"type": "http.response.body", "body": b"answered", "more_body": False}


# --- faults -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A plugin named ``faulty`` that does something wrong.

    Attributes:
        name: the test's id.
        mount: mounts the plugin.
        reason: regular expression for the log line.
        value: the plugin's configuration on the route.
    """

    name: str
    mount: Callable[[Bridge], object]
    reason: str
    value: str = "{}"


def mounted(name: str, app: ASGIApp, reason: str, **options: Any) -> Fault:
    async def without_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await app(scope, receive, send)

    return Fault(name, lambda bridge: bridge.mount("faulty", without_lifespan, **options), reason)


def sending(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def answering(status: int, *headers: tuple[Any, Any]) -> ASGIApp:
    return sending({"type": "http.response.start", "status": status, "headers": headers}, BODY)


def sending_and_raising(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sending(*messages)(scope, receive, send)
        raise ValueError("spilt")

    return app


def passing_on(**changes: Any) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream({**scope, **changes}, receive, send)

    return app


async def sleeping(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(5)


async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
    """Catch the cancellation, and answer when nobody waits any more."""
    try:
        await asyncio.sleep(5)
    except asyncio.CancelledError:
        await answering(200)(scope, receive, send)


async def breaks_its_extension(scope: Scope, receive: Receive, send: Send) -> None:
    del apisix(scope)._entered  # what a log line is made of
    raise ValueError("spilt")


async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
    raise asyncio.CancelledError


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    async def again() -> None:
        await again()

    gc.disable()  # a collection that runs so deep in the stack would fail in the finalizers of what earlier tests left
    try:
        await again()
    finally:
        gc.enable()


async def twice(scope: Scope, receive: Receive, send: Send) -> None:
    async def unheard(message: Message) -> None:
        pass

    await upstream(scope, receive, unheard)
    await upstream(scope, receive, send)


async def twice_and_quiet(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await twice(scope, receive, send)
    except Exception:
        await answering(200)(scope, receive, send)


async def hostless(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [entry for entry in scope["headers"] if entry[0] != b"host"]
    await upstream({**scope, "headers": headers}, receive, send)


async def emptying(scope: Scope, receive: Receive, send: Send) -> None:
    async def empty() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    await upstream(scope, empty, send)


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    for _ in range(17):
        await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})


APPLICATIONS = [
    mounted("raises", sending_and_raising(), "ValueError: spilt"),
    mounted("raises in its answer", sending_and_raising(START), "ValueError: spilt"),
    mounted(
        "raises in its body",
        sending_and_raising(START, {"type": "http.response.body", "body": b"a", "more_body": True}),
        "ValueError: spilt",
    ),
    mounted("does not answer", sending(), "it ended without a complete response"),
    mounted("answers half", sending(START), "it ended without a complete response"),
    mounted("sleeps", sleeping, "no answer in time", timeout=0.2),
    mounted("breaks its extension", breaks_its_extension, "ValueError: spilt"),
    mounted("cancels itself", cancelled, "CancelledError"),
    mounted("calls itself for ever", endless, "RecursionError: maximum recursion depth exceeded"),
    *[
        mounted(f"status {status}", answering(status), rf"status {status}: (a response has|APISIX would close)")
        for status in (99, 101, 199, 408, 444, 499, 1000)
    ],
    mounted("status of no number", answering("200"), "status '200': a response has a status from 200 to 999"),  # type: ignore[arg-type]
    mounted("line feed", answering(200, (b"x-a", b"a\nset-cookie: b")), "header x-a: its value holds a CR, LF or NUL"),
    mounted("carriage return", answering(200, (b"x-a", b"a\r")), "header x-a: its value holds a CR, LF or NUL"),
    mounted("name", answering(200, (b"x a", b"b")), r"header b'x a': that is no header name"),
    mounted("text", answering(200, ("x-a", "b")), r"header 'x-a': name and value must be bytes"),
    mounted("length", answering(200, (b"content-length", b"3")), "content-length says 3, the body has 8 bytes"),
    mounted("body first", sending(BODY), "http.response.body before http.response.start"),
    mounted("start twice", sending(START, START), "http.response.start twice"),
    mounted("message", sending({"type": "websocket.accept"}), "'websocket.accept' is none of an HTTP response"),
    mounted("no type", sending({"status": 200}), "KeyError: 'type'"),
    mounted("16 MiB", large, "the response body is longer than the protocol's 16777215 bytes"),
    mounted("upstream twice", twice, "the upstream was called twice"),
    mounted("upstream twice, caught", twice_and_quiet, "the upstream was called twice"),
    mounted("method", passing_on(method="DELETE"), "the method was changed to 'DELETE'"),
    mounted("relative path", passing_on(path="a"), "the path was changed to 'a'; a path begins with"),
    mounted("path of surrogates", passing_on(path="/\udcff"), "which is not UTF-8"),
    mounted("text as query", passing_on(query_string="a=b"), "the query string was changed to 'a=b'; it is bytes"),
    mounted("request header", passing_on(headers=[(b"host", b"a"), (b"x", b"\n")]), "header x: its value holds a CR"),
    mounted("no host", hostless, "the host header was deleted"),
    mounted("empty body", emptying, "the request body was emptied"),
]


class Conf(TypedDict):
    count: int


def wanting_conf(bridge: Bridge) -> None:
    @bridge.plugin("faulty")
    def factory(conf: Conf) -> ASGIApp:
        return upstream


def raising_factory(bridge: Bridge) -> None:
    @bridge.plugin("faulty")
    def factory() -> ASGIApp:
        raise ValueError("no such file")


def raising_async_factory(bridge: Bridge) -> None:
    @bridge.plugin("faulty")
    async def factory() -> ASGIApp:
        await asyncio.sleep(0)
        raise ValueError("no such host")


def empty_factory(bridge: Bridge) -> None:
    @bridge.plugin("faulty")
    def factory() -> Any:
        return None


async def failing_startup(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


def failing_lifespan(bridge: Bridge) -> None:
    @bridge.plugin("faulty")
    def factory() -> ASGIApp:
        return failing_startup


CONFIGURATIONS = [
    Fault("unknown", lambda bridge: None, "plugin faulty is not mounted; mounted are: healthy"),
    Fault("no JSON", wanting_conf, "plugin faulty: .*JSON", "{count"),
    Fault("any, and no JSON", lambda bridge: bridge.mount("faulty", upstream), "plugin faulty: .*JSON", "{count"),
    Fault("wrong type", wanting_conf, "plugin faulty: Input should be", "[]"),
    Fault("wrong type of a field", wanting_conf, "plugin faulty: field 'count': Input should be", '{"count": "many"}'),
    Fault("unknown key", wanting_conf, "plugin faulty: field 'size': Extra inputs", '{"count": 1, "size": 2}'),
    Fault("missing key", wanting_conf, "plugin faulty: field 'count': Field required", "{}"),
    Fault("empty", wanting_conf, "plugin faulty: field 'count': Field required", ""),
    Fault("factory raises", raising_factory, "plugin faulty: it could not be built: ValueError: no such file"),
    Fault("async factory raises", raising_async_factory, "plugin faulty: .* ValueError: no such host"),
    Fault("factory gives nothing", empty_factory, "plugin faulty: its factory returned NoneType"),
    Fault("start-up fails", failing_lifespan, "plugin faulty: its lifespan start-up failed: no database"),
    Fault(
        "start-up of a mounted one fails",
        lambda bridge: bridge.mount("faulty", failing_startup),
        "plugin faulty: its lifespan start-up failed: no database",
    ),
    Fault(
        "other phase",
        lambda bridge: bridge.mount("faulty", upstream, phase="response"),
        "plugin faulty is for the response phase: list it under ext-plugin-post-resp",
    ),
]

ALL = [pytest.param(fault, id=fault.name) for fault in APPLICATIONS + CONFIGURATIONS]


# --- what the client and the operator see -----------------------------------------------------------------------------


def route(uri: str, *plugins: tuple[str, str], phase: str = "ext-plugin-pre-req", **more: Any) -> dict[str, Any]:
    if not plugins:
        return {"uri": uri, "plugins": {}}
    conf = [{"name": name, "value": value} for name, value in plugins]
    return {"uri": uri, "plugins": {phase: {"conf": conf, **more}}}


def bridge_with(fault: Fault) -> Bridge:
    bridge = Bridge()
    bridge.mount("healthy", upstream)
    fault.mount(bridge)
    return bridge


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the runner logged."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("asgi_bridge.") and record.name != "asgi_bridge.gateway"
    ]


def send_odd_request(client: TestClient) -> Any:
    """Send a request that has something of everything, so that any change of it shows."""
    return client.post(
        "/faulty/%7Ea%20b//c%2Fd?x=1&x=%20&flag&y=&x=+",
        headers=[("x-a", "1"), ("x-a", "2"), ("cookie", "a=b"), ("cookie", "c=d"), ("x-empty", "")],
        content=b"body\xff",
    )


@pytest.mark.parametrize("fault", ALL)
def test_fault_refuses_the_request_and_nothing_else(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    seen = Upstream("from upstream")
    routes = [route("/faulty/*", ("faulty", fault.value)), route("/healthy", ("healthy", "{}"))]

    with TestClient(Gateway(bridge_with(fault), routes, upstream=seen), raise_server_exceptions=False) as client:
        caplog.clear()
        refused = send_odd_request(client)
        assert (refused.status_code, seen.requests) == (503, [])
        (line,) = said(caplog)
        assert re.search("plugin faulty(:| is)", line) and re.search(fault.reason, line)

        response = client.get("/healthy")
        assert (response.status_code, response.text) == (200, "from upstream")
        assert said(caplog) == [line]


@pytest.mark.parametrize("fault", ALL)
def test_degradation_lets_the_request_go_on_as_it_came(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    seen = Upstream("from upstream")
    degraded = route("/*", ("faulty", fault.value), allow_degradation=True)

    for routes in ([degraded], [route("/*")]):
        with TestClient(Gateway(bridge_with(fault), routes, upstream=seen), raise_server_exceptions=False) as client:
            caplog.clear()
            response = send_odd_request(client)
            assert (response.status_code, response.text) == (200, "from upstream")
            assert len(said(caplog)) == (1 if routes == [degraded] else 0)
    with_plugin, without = seen.requests
    assert with_plugin == without


@pytest.mark.parametrize("phase", ["ext-plugin-pre-req", "ext-plugin-post-req"])
def test_both_request_phases_refuse(phase: str, caplog: pytest.LogCaptureFixture) -> None:
    seen = Upstream("from upstream")
    bridge = bridge_with(mounted("", sending_and_raising(), ""))
    gateway = Gateway(bridge, [route("/*", ("faulty", "{}"), phase=phase)], upstream=seen)

    with TestClient(gateway, raise_server_exceptions=False) as client:
        assert client.get("/").status_code == 503
    assert seen.requests == []
    assert said(caplog) == ["plugin faulty: request refused: ValueError: spilt"]


async def spoiling(scope: Scope, receive: Receive, send: Send) -> None:
    """Call the upstream, and then raise."""

    async def spoilt(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise ValueError("spilt")
        await send(message)

    await upstream(scope, receive, spoilt)


@pytest.mark.parametrize("app", [sending_and_raising(), spoiling], ids=["before the upstream", "after the upstream"])
def test_fault_in_the_response_phase(app: ASGIApp, caplog: pytest.LogCaptureFixture) -> None:
    seen = Upstream("from upstream")
    bridge = bridge_with(mounted("", app, ""))
    routes = [
        route("/closed", ("faulty", "{}"), phase="ext-plugin-post-resp"),
        route("/open", ("faulty", "{}"), phase="ext-plugin-post-resp", allow_degradation=True),
    ]

    with TestClient(Gateway(bridge, routes, upstream=seen), raise_server_exceptions=False) as client:
        # APISIX has the upstream's response already; it sends the body with its own status
        assert client.get("/closed").status_code == 503
        assert said(caplog) == ["plugin faulty: request refused: ValueError: spilt"]
        response = client.get("/open")
        assert (response.status_code, response.text) == (200, "from upstream")
    assert said(caplog) == ["plugin faulty: request refused: ValueError: spilt"] * 2
    assert len(seen.requests) == 2


@pytest.mark.parametrize(
    ("app", "reached"), [(sending_and_raising(), 0), (spoiling, 1)], ids=["in the request half", "in the response half"]
)
def test_fault_of_a_plugin_of_both_phases(app: ASGIApp, reached: int, caplog: pytest.LogCaptureFixture) -> None:
    seen = Upstream("from upstream")
    bridge = bridge_with(mounted("", app, "", phase="both"))
    conf = {"conf": [{"name": "faulty", "value": "{}"}]}
    routes = [{"uri": "/*", "plugins": {"ext-plugin-pre-req": conf, "ext-plugin-post-resp": conf}}]

    with TestClient(Gateway(bridge, routes, upstream=seen), raise_server_exceptions=False) as client:
        for number in (1, 2):
            assert client.get("/").status_code == 503
            assert said(caplog) == ["plugin faulty: request refused: ValueError: spilt"] * number
            assert len(seen.requests) == number * reached


@pytest.mark.parametrize("degraded", [False, True], ids=["closed", "allow_degradation"])
def test_hundred_headers_are_refused_with_431(degraded: bool, caplog: pytest.LogCaptureFixture) -> None:
    # APISIX hides what comes after the hundredth, so no degradation lets the request pass
    seen = Upstream("from upstream")
    routes = [route("/*", ("healthy", "{}"), allow_degradation=degraded)]
    headers = [(f"x-{number}", "1") for number in range(100)]

    with TestClient(Gateway(bridge_with(CONFIGURATIONS[0]), routes, upstream=seen)) as client:
        refused = client.get("/", headers=headers)
        assert (refused.status_code, refused.text) == (
            431,
            "100 or more header fields: the gateway cannot check them\n",
        )
        assert seen.requests == []
        assert said(caplog) == ["plugin healthy: request refused with 431: 100 or more header fields"]
        assert client.get("/", headers=headers[:80]).status_code == 200


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (sending_and_raising(START, BODY), "ValueError: spilt"),
        (sending(START, BODY, START), "http.response.start after the response was complete"),
        (sending(START, BODY, BODY), "http.response.body after the response was complete"),
        (sending(START, BODY, START, BODY), "http.response.start after the response was complete"),
    ],
    ids=["raises", "starts again", "goes on", "answers again"],
)
def test_answer_stands_whatever_comes_after_it(app: ASGIApp, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    seen = Upstream("from upstream")
    gateway = Gateway(bridge_with(mounted("", app, "")), [route("/*", ("faulty", "{}"))], upstream=seen)

    with TestClient(gateway, raise_server_exceptions=False) as client:
        for number in (1, 2):
            response = client.get("/")
            assert (response.status_code, response.text) == (200, "answered")
            assert said(caplog) == [f"plugin faulty: a fault after its answer, which stands: {reason}"] * number
    assert seen.requests == []


def test_late_answer_of_a_call_that_took_too_long_reaches_nobody(caplog: pytest.LogCaptureFixture) -> None:
    seen = Upstream("from upstream")
    routes = [route("/faulty", ("faulty", "{}")), route("/healthy", ("healthy", "{}"))]
    bridge = bridge_with(mounted("", deaf, "", timeout=0.2))

    with TestClient(Gateway(bridge, routes, upstream=seen), raise_server_exceptions=False) as client:
        assert client.get("/faulty").status_code == 503
        assert [client.get("/healthy").text for _ in range(3)] == ["from upstream"] * 3
    assert said(caplog)[0] == "plugin faulty: request refused: no answer in time (option timeout: 0.2 s)"
    assert len(seen.requests) == 3


def test_passed_on_request_stands_whatever_comes_after_it(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream({**scope, "path": "/other"}, receive, send)
        raise ValueError("spilt")

    seen = Upstream("from upstream")
    gateway = Gateway(bridge_with(mounted("", app, "")), [route("/*", ("faulty", "{}"))], upstream=seen)

    with TestClient(gateway, raise_server_exceptions=False) as client:
        assert client.get("/").status_code == 200
    assert [request[1] for request in seen.requests] == [b"/other?"]
    assert said(caplog) == ["plugin faulty: a fault after its answer, which stands: ValueError: spilt"]


def test_log_names_the_plugin_of_the_list_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    bridge = bridge_with(mounted("", sending_and_raising(), ""))
    routes = [route("/*", ("healthy", "{}"), ("faulty", "{}"))]

    with TestClient(Gateway(bridge, routes), raise_server_exceptions=False) as client:
        assert client.get("/").status_code == 503
    assert said(caplog) == ["plugin faulty: request refused: ValueError: spilt"]


@pytest.mark.parametrize("faulty", [mounted("", sending_and_raising(), ""), mounted("", deaf, "", timeout=0.2)])
def test_a_fault_refuses_the_request_also_if_it_cannot_be_logged(
    faulty: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "request refused" in record.getMessage():
                raise OSError("no space left on device")

    broken = Broken()
    logging.getLogger("asgi_bridge").addHandler(broken)
    routes = [route("/faulty", ("faulty", "{}")), route("/healthy", ("healthy", "{}"))]
    gateway = Gateway(bridge_with(faulty), routes, upstream=Upstream("from upstream"))
    try:
        with TestClient(gateway, raise_server_exceptions=False) as client:
            assert client.get("/faulty").status_code == 503
            assert client.get("/healthy").text == "from upstream"
            assert [line for line in caplog.messages if "RPC_HTTP_REQ_CALL" in line] == [
                "GET /faulty (route arr_1): failed to receive RPC_HTTP_REQ_CALL: service unavailable"
            ]
    finally:
        logging.getLogger("asgi_bridge").removeHandler(broken)


def test_failed_preparation_is_logged_once_and_refuses_every_request(caplog: pytest.LogCaptureFixture) -> None:
    fault = next(fault for fault in CONFIGURATIONS if fault.name == "unknown key")
    routes = [route("/*", ("faulty", fault.value))]

    gateway = Gateway(bridge_with(fault), routes)
    caplog.clear()  # it has checked the routes
    with TestClient(gateway, raise_server_exceptions=False) as client:
        assert [client.get("/").status_code for _ in range(20)] == [503] * 20
    assert len(said(caplog)) == 1


def test_secret_of_a_configuration_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    routes = [route("/*", ("faulty", '{"count": "s3cret"}'))]
    bridge = bridge_with(CONFIGURATIONS[1])

    with TestClient(Gateway(bridge, routes), raise_server_exceptions=False) as client:
        assert client.get("/").status_code == 503
    assert "s3cret" not in caplog.text


# --- a runner in a process of its own ---------------------------------------------------------------------------------

OVERLOADED = """
import asyncio, signal
from asgi_bridge import Bridge, upstream

release = asyncio.Event()

async def hold(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, release.set)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await release.wait()
    await upstream(scope, receive, send)

bridge = Bridge()
bridge.mount("hold", hold)
bridge.mount("healthy", upstream)
"""


@pytest.mark.parametrize("degraded", [False, True], ids=["closed", "allow_degradation"])
def test_calls_over_the_limit_are_refused_at_once(degraded: bool, tmp_path: Path) -> None:
    seen = Upstream("from upstream")
    routes = routes_of(route("/hold", ("hold", "{}"), allow_degradation=degraded), route("/healthy", ("healthy", "{}")))

    errors: list[str | None] = []

    async def play(runner: RunnerProcess) -> tuple[list[int], list[int]]:
        gateway = GatewayApp(
            routes,
            runner.path,
            upstream=seen,
            observe=lambda call: errors.append(call.error),
            limits=Limits(connect=30.0, lock=30.0),
        )
        async with client_of(gateway) as client:
            calls = {asyncio.ensure_future(client.get("/hold")) for _ in range(400)}
            ended: set[asyncio.Future[Any]] = set()
            while len(ended) < 300:
                done, calls = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                ended |= done
            assert len(seen.requests) == (300 if degraded else 0)
            os.kill(runner.worker, signal.SIGUSR1)
            held, _ = await asyncio.wait(calls)
            assert (await client.get("/healthy")).status_code == 200
            return [call.result().status_code for call in ended], [call.result().status_code for call in held]

    with runner_process(tmp_path, OVERLOADED, "--limit-concurrency", "100") as runner:
        over, held = asyncio.run(play(runner))
        assert over == [200 if degraded else 503] * 300
        assert held == [200] * 100
        assert errors == ["failed to receive RPC_HTTP_REQ_CALL: service unavailable"] * 300 + [None] * 101
        assert len(seen.requests) == (401 if degraded else 101)
        refused = 0
        while refused < 300:  # a line a second at most
            line = runner.line_with("calls at once (--limit-concurrency)")
            found = re.search(r"plugin \S+: (\d+) requests refused: more than 100 calls at once", line)
            assert found
            refused += int(found[1])
        assert refused == 300


def test_limit_holds_in_the_test_gateway_too(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(
        bridge_with(CONFIGURATIONS[0]),
        [route("/*", ("healthy", "{}"))],
        options=RunnerOptions(limit_concurrency=0),
    )
    with TestClient(gateway) as client:
        assert client.get("/").status_code == 503


EVERY_FAULT = """
import asyncio, gc, json, os, sys
from asgi_bridge import Bridge, upstream

bridge = Bridge()
START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"answered"}

def mount(name, *messages, raising=None, **options):
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        for message in messages:
            await send(message)
        if raising is not None:
            raise raising("spilt")
    bridge.mount(name, app, **options)

mount("raises", raising=ValueError)
mount("raises-in-answer", START, raising=ValueError)
mount("raises-after-answer", START, BODY, raising=ValueError)
mount("silent")
mount("half", START)
mount("twice", START, BODY, START)
mount("status", {"type": "http.response.start", "status": 444, "headers": []}, BODY)
mount("line-feed", {"type": "http.response.start", "status": 200, "headers": [(b"a", b"\\n")]}, BODY)
mount("exits", raising=SystemExit)
mount("interrupts", raising=KeyboardInterrupt)
mount("memory", raising=MemoryError)

async def slow(scope, receive, send):
    assert scope["type"] == "http"
    # no sleep: asyncio keeps up to a hundred cancelled timers, each with the context of its call, and we count objects
    await asyncio.Event().wait()
bridge.mount("slow", slow, timeout=0.1)

async def reads(scope, receive, send):
    assert scope["type"] == "http"
    await receive()
    async def broken(): raise ValueError("broken")
    await upstream(scope, broken, send)
bridge.mount("reads", reads)

async def waits(scope, receive, send):
    assert scope["type"] == "http"
    await receive()
    while (await receive())["type"] != "http.disconnect":
        pass
bridge.mount("waits", waits, timeout=60)

async def spoils(scope, receive, send):
    assert scope["type"] == "http"
    async def spoilt(message):
        raise ValueError("spilt")
    await upstream(scope, receive, spoilt)
bridge.mount("spoils", spoils, phase="both")

@bridge.plugin("cannot-be-built")
def cannot_be_built(conf: dict):
    raise ValueError("no such file")

async def census(scope, receive, send):
    assert scope["type"] == "http"
    for _ in range(3):
        gc.collect()
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    counted = {
        # those that stand by for calls come and go with the load; with a call they have another name
        "tasks": len([task for task in asyncio.all_tasks() if task.get_name() != "call"]),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "objects": len(gc.get_objects()),
        "kilobytes": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
    }
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(counted).encode()})
bridge.mount("census", census)
"""

FAULTS = [
    "raises", "raises-in-answer", "raises-after-answer", "silent", "half", "twice", "status", "line-feed", "exits",
    "interrupts", "memory", "slow", "reads", "waits", "spoils",
]  # fmt: skip
UNPREPARED = ["cannot-be-built", "nobody"]
"""Lists that cannot be prepared. They are called less often, since the gateway prepares one list at a time."""
STANDS = {"raises-after-answer": 200, "twice": 200}


def test_failing_calls_leave_nothing_behind(tmp_path: Path) -> None:
    both = {"conf": [{"name": "spoils", "value": "{}"}]}
    routes = routes_of(
        *[route(f"/{name}", (name, "{}")) for name in [*FAULTS, *UNPREPARED, "census"] if name != "spoils"],
        {"uri": "/spoils", "plugins": {"ext-plugin-pre-req": both, "ext-plugin-post-resp": both}},
    )
    seen = Upstream("from upstream")

    async def play(runner: RunnerProcess) -> tuple[dict[str, int], dict[str, int]]:
        # on a busy machine a connect takes longer than APISIX would wait
        gateway = GatewayApp(routes, runner.path, upstream=seen, limits=Limits(connect=30.0, lock=30.0))
        async with client_of(gateway) as client:
            gone = 0

            async def fail(name: str) -> None:
                call = client.post(f"/{name}", content=b"body")
                if name == "waits":  # the client goes away, and so does the gateway's connection
                    nonlocal gone
                    try:
                        await asyncio.wait_for(call, 0.1)
                    except TimeoutError:
                        gone += 1
                else:
                    assert (await call).status_code == STANDS.get(name, 503), name

            async def fail_often(times: int) -> None:
                names = FAULTS * 10 + UNPREPARED
                work = iter(names[number % len(names)] for number in range(times))

                async def worker() -> None:
                    for name in work:
                        await fail(name)

                await asyncio.gather(*[worker() for _ in range(50)])

            async def census() -> dict[str, int]:
                # one connection each, so that what was open before does not count
                await gateway.pool.stop()
                gateway.pool.start()
                counted: dict[str, int] = (await client.get("/census")).json()
                return counted

            await fail_often(LEAK_CALLS // 3)
            before = await census()
            await fail_often(LEAK_CALLS)
            seen.requests.clear()
            # not each one: on a machine that is too busy to connect in time the gateway answers 503 itself
            assert gone > LEAK_CALLS // (2 * len(FAULTS))
            return before, await census()

    with runner_process(tmp_path, EVERY_FAULT) as runner:
        before, after = asyncio.run(play(runner))
        grown = {what: after[what] - before[what] for what in before}
        # if each call left something behind, it would be there LEAK_CALLS times
        assert grown["tasks"] <= 2
        assert grown["descriptors"] <= 2
        assert grown["objects"] < LEAK_CALLS // 10
        assert grown["kilobytes"] < 8 * 1024
        said = runner.log.split("\n")
        assert any("plugin exits: request refused: SystemExit: spilt" in line for line in said)
        assert runner.process.poll() is None
