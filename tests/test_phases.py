"""Both phases through the gateway, with real frames: APISIX's rules, and how often the upstream is called."""

import asyncio
import contextlib
import contextvars
import dataclasses
import gc
import os
import weakref
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from asgiref.testing import ApplicationCommunicator
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError, upstream
from asgi_bridge.adapter.parked_calls import ParkedCalls
from asgi_bridge.gateway import GatewayApp
from asgi_bridge.server.runner import Runner, RunnerOptions
from asgi_bridge.testing import Gateway, PluginClient

from .doubles.clients import client_of, routes_of
from .doubles.runner_process import runner_process

BOTH_CALLS = int(os.environ.get("BOTH_CALLS", "500"))
CONCURRENT = 64
PRE, POST, RESP = "ext-plugin-pre-req", "ext-plugin-post-req", "ext-plugin-post-resp"


def marking(name: str) -> ASGIApp:
    """Return a plugin that adds a header and a cookie to the response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("x-by", name)
                MutableHeaders(scope=message).append("set-cookie", f"{name}=1")
            await send(message)

        await upstream(scope, receive, sending)

    return app


def route(**lists: Sequence[str]) -> dict[str, Any]:
    """Return a route with these plugin lists: pre, post, resp."""
    phases = {"pre": PRE, "post": POST, "resp": RESP}
    return {
        "id": "7",
        "uri": "/*",
        "plugins": {
            phases[phase]: {"conf": [{"name": name, "value": "{}"} for name in names]} for phase, names in lists.items()
        },
    }


class Upstream:
    """Answers as the path says, and notes its requests."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.app = Starlette(
            routes=[Route("/{path:path}", self.answer, methods=["GET", "HEAD", "POST", "PUT", "DELETE"])]
        )

    async def answer(self, request: Request) -> Response:
        raw = request.scope["raw_path"].decode()
        body = (await request.body()).decode()
        self.calls.append(f"{request.method} {raw} {body}".strip())
        if raw.startswith("/status/"):
            return Response(status_code=int(raw.removeprefix("/status/")), headers={"etag": '"1"', "x-upstream": "1"})
        if raw == "/cookies":
            response: Response = PlainTextResponse("cookies")
            for number in range(3):
                response.headers.append("set-cookie", f"upstream{number}=1")
            return response
        if raw == "/stream":
            return StreamingResponse(iter([b"a", b"b"]), headers={"x-upstream": "1"})
        return PlainTextResponse("x" * 77, headers={"x-upstream": "1"})


@contextlib.contextmanager
def standing(bridge: Bridge, **lists: Sequence[str]) -> Any:
    """Give a client of a gateway with one route, and the upstream."""
    upstream_ = Upstream()
    with TestClient(Gateway(bridge, [route(**lists)], upstream=upstream_.app), raise_server_exceptions=False) as client:
        yield client, upstream_


def bridge_of(**phases: Any) -> Bridge:
    """Return a bridge with marking plugins, each given as name=phase."""
    bridge = Bridge()
    for name, phase in phases.items():
        options = phase if isinstance(phase, dict) else {"phase": phase}
        bridge.mount(name, marking(name), **options)
    return bridge


# one call of the upstream

FORMS = {
    "response": ({"p": "response"}, {"resp": ["p"]}),
    "both": ({"p": "both"}, {"pre": ["p"], "resp": ["p"]}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("method", "target", "status", "length", "body"),
    [
        ("HEAD", "/page", 200, "77", b""),
        ("GET", "/status/204", 204, None, b""),
        ("POST", "/status/204", 204, None, b""),
        ("DELETE", "/status/204", 204, None, b""),
        ("GET", "/status/304", 304, None, b""),
        ("HEAD", "/status/404", 404, "0", b""),
        ("GET", "/page", 200, None, b"x" * 77),
        ("POST", "/stream", 200, None, b"ab"),
    ],
)
def test_the_upstream_is_called_once(
    form: str, method: str, target: str, status: int, length: str | None, body: bytes
) -> None:
    phases, lists = FORMS[form]
    with standing(bridge_of(**phases), **lists) as (client, upstream_):
        sent = b"sent" if method == "POST" else None
        found = client.request(method, target, content=sent)
    assert upstream_.calls == [f"{method} {target}{' sent' if sent else ''}"]
    assert (found.status_code, found.content) == (status, body)
    assert found.headers["x-upstream"] == "1"
    assert found.headers["x-by"] == "p"
    if method == "HEAD":
        assert found.headers["content-length"] == length


@pytest.mark.parametrize(("method", "target"), [("HEAD", "/page"), ("POST", "/status/204"), ("GET", "/status/304")])
def test_without_the_cures_apisix_calls_it_twice_and_ignores_the_plugin(method: str, target: str) -> None:
    with standing(bridge_of(p={"phase": "response", "cures": False}), resp=["p"]) as (client, upstream_):
        found = client.request(method, target)
    assert upstream_.calls == [f"{method} {target}"] * 2
    # the headers that the plugin added stand beside those of the second response
    assert found.headers.get_list("x-upstream") == ["1", "1"]


@pytest.mark.parametrize("lists", [{"pre": ["p"]}, {"post": ["p"]}, {"pre": ["p"], "post": ["q"]}])
def test_a_path_that_needs_escaping_reaches_the_upstream_as_sent(lists: dict[str, list[str]]) -> None:
    listed = [name for names in lists.values() for name in names]
    with standing(bridge_of(p="both", q="both"), **lists, resp=listed) as (client, upstream_):
        found = client.get("/a%20b%3Fc")
    assert (found.status_code, upstream_.calls) == (200, ["GET /a%20b%3Fc"])
    assert found.headers.get_list("x-by") == listed[::-1]


def test_without_the_cures_such_a_path_is_a_502() -> None:
    with standing(bridge_of(p={"phase": "both", "cures": False}), pre=["p"], resp=["p"]) as (client, upstream_):
        assert client.get("/a%20b%3Fc").status_code == 502
    assert upstream_.calls == []


@pytest.mark.parametrize("form", FORMS)
def test_four_cookies_three_of_the_upstream_and_one_of_the_plugin(form: str) -> None:
    phases, lists = FORMS[form]
    with standing(bridge_of(**phases), **lists) as (client, _):
        found = client.get("/cookies").headers.get_list("set-cookie")
    assert found == ["upstream0=1", "upstream1=1", "upstream2=1", "p=1"]


# lists of plugins


def test_three_plugins_one_of_them_in_both_phases() -> None:
    bridge = bridge_of(request="request", both="both", response="response")
    with standing(bridge, pre=["request"], post=["both"], resp=["response", "both"]) as (client, upstream_):
        found = client.get("/page")
    assert upstream_.calls == ["GET /page"]
    # the gateway adds the request phase's headers to the upstream's; then the response phase replaces all
    assert found.headers.get_list("x-by") == ["both", "response"]


def test_halves_of_both_request_phases() -> None:
    bridge = bridge_of(a="both", b="both", c="response")
    with standing(bridge, pre=["a"], post=["b"], resp=["a", "c", "b"]) as (client, _):
        assert client.get("/page").headers.get_list("x-by") == ["b", "c", "a"]


def test_a_consumer_whose_plugins_run_in_both_phases() -> None:
    """Both halves run although APISIX finds the consumer between them, which changes the key of the configuration."""
    lists = route(pre=["p"], resp=["p"])
    lists["plugins"]["key-auth"] = {}
    routes = {"routes": [lists], "consumers": [{"username": "jack", "plugins": {"key-auth": {"key": "one"}}}]}
    seen = Upstream()
    with TestClient(Gateway(bridge_of(p="both"), routes, upstream=seen.app)) as client:
        assert client.get("/page").status_code == 401
        found = client.get("/page", headers={"apikey": "one"})
    assert (found.status_code, found.headers.get_list("x-by")) == (200, ["p"])
    assert seen.calls == ["GET /page"]


def test_a_chunked_request_body_is_refused_where_apisix_would_hang() -> None:
    with standing(bridge_of(p="both"), pre=["p"], resp=["p"]) as (client, upstream_):
        assert client.post("/page", content=iter([b"a", b"b"])).status_code == 411
    assert upstream_.calls == []


# nothing is mixed up

before: contextvars.ContextVar[str] = contextvars.ContextVar("before")


async def remembering(scope: Scope, receive: Receive, send: Send) -> None:
    """Put on the response what the plugin knew before the upstream answered."""
    number = scope["path"]
    before.set(number)

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] += [(b"x-local", number.encode()), (b"x-context", before.get().encode())]
        await send(message)

    await upstream(scope, receive, sending)


async def numbered(scope: Scope, receive: Receive, send: Send) -> None:
    number = scope["path"].encode()
    # other requests may overtake this one
    for _ in range(int(scope["path"][1:]) % 5):
        await asyncio.sleep(0)
    headers = [(b"x-upstream", number), (b"content-type", b"text/plain"), (b"content-length", b"%d" % len(number))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": number})


@contextlib.asynccontextmanager
async def started(app: ASGIApp) -> AsyncIterator[None]:
    """Run the lifespan of `app`."""
    lifespan = cast("Any", ApplicationCommunicator)(app, {"type": "lifespan"})
    await lifespan.send_input({"type": "lifespan.startup"})
    assert (await lifespan.receive_output(10))["type"] == "lifespan.startup.complete"
    yield
    await lifespan.send_input({"type": "lifespan.shutdown"})
    assert (await lifespan.receive_output(10))["type"] == "lifespan.shutdown.complete"
    await lifespan.wait()


async def ask(app: ASGIApp, path: str, query: bytes = b"") -> tuple[int, dict[bytes, bytes], bytes]:
    """Send a GET for a target that is not escaped."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query, "root_path": "",
        "headers": [(b"host", b"a.test")], "client": ("10.0.0.9", 4711), "server": ("10.0.0.1", 9080),
    }  # fmt: skip
    messages: list[Message] = []
    asked = False

    async def receive() -> Message:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, send)
    start, *bodies = messages
    headers = {name.lower(): value for name, value in start["headers"]}
    return start["status"], headers, b"".join(message.get("body", b"") for message in bodies)


@pytest.mark.parametrize("character", "<>`")
@pytest.mark.parametrize(
    ("options", "lists", "right"),
    [
        ({"phase": "both"}, {"pre": ["p"], "resp": ["p"]}, True),
        ({"phase": "both"}, {"post": ["p"], "resp": ["p"]}, True),
        ({"phase": "both", "cures": False}, {"pre": ["p"], "resp": ["p"]}, False),
        ({"phase": "response"}, {"resp": ["p"]}, False),
    ],
    ids=["pre-req", "post-req", "without cures", "the response phase alone"],
)
def test_a_query_that_apisix_refuses_to_fetch(
    character: str, options: Any, lists: dict[str, list[str]], right: bool
) -> None:
    queries: list[bytes] = []

    async def recording(scope: Scope, receive: Receive, send: Send) -> None:
        queries.append(scope["query_string"])
        await PlainTextResponse("x")(scope, receive, send)

    async def main() -> int:
        gateway = Gateway(bridge_of(p=options), [route(**lists)], upstream=recording)
        async with started(gateway):
            return (await ask(gateway, "/x", f"a={character}b&flag".encode()))[0]

    assert asyncio.run(main()) == (200 if right else 502)
    assert [sorted(query.split(b"&")) for query in queries] == (
        [[b"a=%%%02Xb" % ord(character), b"flag"]] if right else []
    )


def test_a_local_variable_is_never_another_requests(caplog: pytest.LogCaptureFixture) -> None:
    total = BOTH_CALLS

    async def main() -> tuple[int, int]:
        bridge = Bridge()
        bridge.mount("p", remembering, phase="both")
        gateway = Gateway(bridge, [route(pre=["p"], resp=["p"])], upstream=numbered)
        numbers = iter(range(total))
        right = mixed = 0

        async def client() -> None:
            nonlocal right, mixed
            for number in numbers:
                path = f"/{number}"
                status, headers, body = await ask(gateway, path)
                found = {headers[b"x-local"], headers[b"x-context"], headers[b"x-upstream"], body}
                if (status, found) == (200, {path.encode()}):
                    right += 1
                else:
                    mixed += 1

        async with started(gateway):
            await asyncio.gather(*[client() for _ in range(CONCURRENT)])
        return right, mixed

    assert asyncio.run(main()) == (total, 0)


def test_parked_calls_are_outside_the_limit() -> None:
    async def main() -> list[int]:
        parked, go_on = asyncio.Semaphore(0), asyncio.Semaphore(0)

        async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                parked.release()
                await go_on.acquire()
                await numbered(scope, receive, send)

        options = RunnerOptions(limit_concurrency=1)
        gateway = Gateway(bridge_of(p="both"), [route(pre=["p"], post=["p"])], upstream=waiting, options=options)
        async with started(gateway):
            requests = []
            for number in range(3):
                requests.append(asyncio.create_task(ask(gateway, f"/{number}")))
                await asyncio.wait_for(parked.acquire(), 60)
            statuses = []
            for request in requests:
                go_on.release()
                statuses.append((await request)[0])
            return statuses

    assert asyncio.run(main()) == [200, 200, 200]


# the response half does not come


def test_a_route_that_lists_it_in_the_request_phase_only(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line is logged, and the plugin runs as in the request phase from then on."""

    ended = asyncio.Event()

    class Watched(ParkedCalls):
        def _miss(self, call: Any, crowded: bool) -> None:
            super()._miss(call, crowded)
            ended.set()

    class Impatient(Runner):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.host = dataclasses.replace(self.host, parked=Watched(seconds=0.0))

    monkeypatch.setattr("asgi_bridge.testing.gateway.Runner", Impatient)

    async def main() -> tuple[list[bytes], int, int]:
        gateway = Gateway(bridge_of(p="both"), [route(pre=["p"])], upstream=numbered)
        found: list[bytes] = []
        async with started(gateway):
            tasks = asyncio.all_tasks()
            for number in range(50):
                found.append((await ask(gateway, f"/{number}"))[1].get(b"x-by", b"none"))
            await asyncio.wait_for(ended.wait(), 60)
            # but for the one that the next call begins in
            ending = {task for task in asyncio.all_tasks() - tasks if task.get_name() != "call"}
            left = len((await asyncio.wait(ending, timeout=60))[1]) if ending else 0
            found += [(await ask(gateway, f"/{number}"))[1].get(b"x-by", b"none") for number in range(3)]
        return found, left, len([record for record in caplog.records if "no response call came" in record.getMessage()])

    found, left, told = asyncio.run(main())
    assert found[-3:] == [b"p"] * 3
    assert set(found[:1]) == {b"none"}
    assert (left, told) == (0, 1)


RESTARTED = """
from starlette.types import Message, Receive, Scope, Send
from asgi_bridge import Bridge, ConfigurationError, upstream

bridge = Bridge()


async def phases(scope: Scope, receive: Receive, send: Send) -> None:
    phase = scope["extensions"]["apisix"]["phase"]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"].append((b"x-phase", phase.encode()))
        await send(message)

    await upstream(scope, receive, sending)


bridge.mount("rerun", phases, phase="both")
bridge.mount("refuse", phases, phase="both", on_missing="refuse")
"""


@pytest.mark.parametrize(("name", "status", "phase"), [("rerun", 200, "response"), ("refuse", 503, None)])
def test_a_runner_that_is_restarted_between_the_halves(
    tmp_path: Path, name: str, status: int, phase: str | None
) -> None:
    """The client gets the upstream's response, changed by the response form, or is refused if the plugin says so."""

    async def main() -> tuple[Any, Any]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(runner_process(tmp_path, RESTARTED))
            restart = True

            async def restarting(scope: Scope, receive: Receive, send: Send) -> None:
                nonlocal restart
                if restart:
                    restart = False
                    stack.close()
                    stack.enter_context(runner_process(tmp_path, RESTARTED))
                await numbered(scope, receive, send)

            gateway = GatewayApp(routes_of(route(pre=[name], resp=[name])), str(tmp_path / "runner.sock"),
                                 upstream=restarting)  # fmt: skip
            async with client_of(gateway) as client:
                return await client.get("/1"), await client.get("/2")

    first, second = asyncio.run(main())
    assert (first.status_code, first.headers.get("x-phase")) == (status, phase)
    assert first.content == b"/1"
    assert (second.status_code, second.headers.get("x-phase")) == (200, "request")


def test_memory_stays_flat_over_many_requests() -> None:
    """The request half and the response half of each request are freed without the garbage collector."""

    calls: list[weakref.ref[Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(weakref.ref(scope["extensions"]["apisix"]._call))
        await marking("p")(scope, receive, send)

    async def main() -> list[Any]:
        bridge = Bridge()
        bridge.mount("p", app, phase="both")
        gateway = Gateway(bridge, [route(pre=["p"], resp=["p"])], upstream=numbered)
        async with started(gateway):
            gc.disable()
            try:
                for number in range(100):
                    await ask(gateway, f"/{number}")
                return [call() for call in calls]
            finally:
                gc.enable()

    # the last call's task may be about to end
    found = asyncio.run(main())
    assert (len(found), found[:-1]) == (100, [None] * 99)


# plain ASGI


@pytest.mark.parametrize(
    ("phase", "seen"), [(None, "request"), ("request", "request"), ("response", "response"), ("both", "request")]
)
def test_a_plugin_client_has_the_phase_it_is_told(phase: Any, seen: str) -> None:
    found: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(scope["extensions"]["apisix"]["phase"])
        await upstream(scope, receive, send)

    bridge = Bridge()
    bridge.mount("p", app)
    assert PluginClient(bridge, "p", phase=phase).get("/").status_code == 200
    assert found == [seen]


def test_a_plugin_client_refuses_the_phase_that_the_runner_would_refuse() -> None:
    with pytest.raises(ConfigurationError, match="plugin p is for the request phase"):
        PluginClient(bridge_of(p="request"), "p", phase="response").get("/")
