"""One request, plugin or route does not see what belongs to another."""

import asyncio
import contextvars
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.gateway import GatewayApp
from asgi_bridge.server.process import runner_config
from asgi_bridge.server.protocol import RunnerProtocol
from asgi_bridge.server.runner import Runner
from asgi_bridge.testing import Gateway
from asgi_bridge.wire import (
    ErrCode,
    ErrResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    PrepareConfReq,
    Role,
    Session,
    Stop,
)

from .doubles.clients import client_of, routes_of
from .doubles.runner_process import RunnerProcess, runner_process
from .doubles.upstream import Upstream


async def answer(send: Send, body: bytes, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def route(uri: str, *plugins: str | tuple[str, Any], phase: str = "ext-plugin-pre-req") -> dict[str, Any]:
    pairs = [(plugin, {}) if isinstance(plugin, str) else plugin for plugin in plugins]
    conf = [{"name": name, "value": json.dumps(value)} for name, value in pairs]
    return {"uri": uri, "plugins": {phase: {"conf": conf}}}


# --- requests ---------------------------------------------------------------------------------------------------------

current = contextvars.ContextVar("current", default="nobody")


def test_context_variable_does_not_outlive_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    connections: list[int] = []
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        seen.append(current.get())
        current.set(scope["path"])
        await asyncio.sleep(0)
        seen.append(current.get())
        await upstream(scope, receive, send)

    def count(self: RunnerProtocol, transport: asyncio.BaseTransport) -> None:
        connections.append(id(self))
        made(self, transport)

    made = RunnerProtocol.connection_made
    monkeypatch.setattr(RunnerProtocol, "connection_made", count)
    bridge = Bridge()
    bridge.mount("names", app)
    with TestClient(Gateway(bridge, [route("/*", "names")], upstream=Upstream())) as client:
        for path in ("/a", "/b", "/c"):
            assert client.get(path).text == path
    assert seen == ["nobody", "/a", "nobody", "/b", "nobody", "/c"]
    # one connection for the calls, and one for the preparation during the first call
    assert len(connections) == 2


def test_context_variable_of_a_factory_is_not_seen_by_requests() -> None:
    seen: list[str] = []
    bridge = Bridge()

    @bridge.plugin("names")
    async def names() -> ASGIApp:
        current.set("factory")

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["type"] == "http"
            seen.append(current.get())
            await upstream(scope, receive, send)

        return app

    with TestClient(Gateway(bridge, [route("/*", "names")], upstream=Upstream())) as client:
        assert [client.get("/").status_code for _ in range(2)] == [200, 200]
    assert seen == ["nobody", "nobody"]


def test_concurrent_requests_have_their_own_context_and_scope() -> None:
    entered: list[str] = []

    async def main() -> list[tuple[str, str]]:
        all_in = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["type"] == "http"
            current.set(scope["path"])
            scope["state"]["path"] = scope["path"]
            entered.append(scope["path"])
            if len(entered) == 20:
                all_in.set()
            await all_in.wait()
            await answer(send, f"{current.get()} {scope['state']['path']} {apisix(scope).plugin}".encode())

        bridge = Bridge()
        bridge.mount("names", app)
        gateway = Gateway(bridge, [route("/*", "names")])
        return await asyncio.gather(*[ask(gateway, f"/{number}") for number in range(20)])

    async def ask(gateway: Gateway, path: str) -> tuple[str, str]:
        got: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            got.append(message)

        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"host", b"a.test")],
        }  # fmt: skip
        await gateway(scope, receive, send)
        return path, b"".join(message.get("body", b"") for message in got).decode()

    # without a lifespan each request has a runner of its own, so this holds for several runners in one event loop too
    assert asyncio.run(main()) == [(f"/{number}", f"/{number} /{number} names") for number in range(20)]


def test_late_answer_is_not_the_answer_of_the_next_call_on_the_connection(tmp_path: Path) -> None:
    """APISIX closes a connection on which a call failed. No other call depends on it."""

    async def main() -> list[Any]:
        begun = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["type"] == "http"
            if scope["path"] == "/slow":
                try:
                    await asyncio.sleep(600)
                except asyncio.CancelledError:  # this plugin does not need it
                    await begun.wait()
            else:
                begun.set()
                for _ in range(10):
                    await asyncio.sleep(0)
            await answer(send, scope["path"].encode())

        bridge = Bridge()
        bridge.mount("app", app, timeout=1.0)
        runner = Runner(bridge.plugins)
        await runner.start()
        config = runner_config(lambda: runner)
        config.load()
        state = ServerState()
        path = str(tmp_path / "socket")
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: RunnerProtocol(config=config, server_state=state), path
        )
        reader, writer = await asyncio.open_unix_connection(path)
        session = Session(Role.GATEWAY)

        async def rpc(message: Any) -> Any:
            writer.write(session.send(message))
            while (got := session.next_message()) is None:
                session.receive_data(await reader.read(65536))
            return got

        prepared = await rpc(PrepareConfReq([(b"app", b"{}")], b"route#1#ext-plugin-pre-req#1"))
        headers = [(b"host", b"a"), (b"x-forwarded-proto", b"http"), (b"x-forwarded-host", b"a")]
        answers = []
        for number, path_asked in enumerate((b"/slow", b"/quick")):
            call = HTTPReqCallReq(number, bytes(4), "GET", path_asked, [], list(headers), prepared.conf_token)
            answers.append(await rpc(call))
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await runner.stop()
        return answers

    stop = Stop(200, [(b"content-type", b"text/plain")], b"/quick")
    assert asyncio.run(main()) == [ErrResp(ErrCode.SERVICE_UNAVAILABLE), HTTPReqCallResp(1, stop)]


# --- plugins of one list ----------------------------------------------------------------------------------------------


class Refusing:
    """Answer 403 to every request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await answer(send, b"refused", 403)


class RefusingLate:
    """Call the inner application first, and answer 403 in place of its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        unheard: list[Message] = []

        async def keep(message: Message) -> None:
            unheard.append(message)

        await self.app(scope, receive, keep)
        await answer(send, b"refused", 403)


async def passing(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await upstream(scope, receive, send)


async def passing_plainly(scope: Scope, receive: Receive, send: Send) -> None:
    """Pass on a scope of its own, which does not tell whose call it belongs to."""
    assert scope["type"] == "http"
    kept = ("type", "asgi", "http_version", "method", "path", "raw_path", "query_string", "headers")
    await upstream({name: scope[name] for name in kept}, receive, send)


async def passing_in_a_task(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await asyncio.create_task(passing_plainly(scope, receive, send))


@pytest.mark.parametrize("app", [passing, passing_plainly, passing_in_a_task])
@pytest.mark.parametrize("refusing", [Refusing, RefusingLate])
@pytest.mark.parametrize("phase", ["ext-plugin-pre-req", "ext-plugin-post-req"])
def test_application_cannot_step_past_the_middleware_behind_it(app: ASGIApp, refusing: Any, phase: str) -> None:
    seen = Upstream()
    bridge = Bridge()
    bridge.mount("passing", app)
    bridge.add_middleware("auth", refusing)
    with TestClient(Gateway(bridge, [route("/*", "passing", "auth", phase=phase)], upstream=seen)) as client:
        response = client.get("/")
        assert (response.status_code, response.text) == (403, "refused")
    assert seen.requests == []


@pytest.mark.parametrize(
    "plugins", [["auth"], ["auth", "passing"], ["passing", "auth"], ["passing", "auth", "passing"]]
)
def test_refusal_after_calling_the_next_layer_reaches_the_client_and_nothing_the_upstream(plugins: list[str]) -> None:
    seen = Upstream()
    bridge = Bridge()
    bridge.mount("passing", passing)
    bridge.add_middleware("auth", RefusingLate)
    with TestClient(Gateway(bridge, [route("/*", *plugins)], upstream=seen)) as client:
        response = client.get("/")
        assert (response.status_code, response.text) == (403, "refused")
    assert seen.requests == []


def test_layers_have_their_own_scope_state_and_extension() -> None:
    seen: dict[str, dict[str, Any]] = {}
    bridge = Bridge()

    def noting(name: str) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await receive()
                scope["state"]["started"] = name
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            extension = apisix(scope)
            seen[name] = {
                "conf": extension.conf,
                "headers": list(scope["headers"]),
                "left by others": scope.get("left"),
                "phase": extension.phase,
                "plugin": extension.plugin,
                "route_id": extension.route_id,
                "state": dict(scope["state"]),
            }
            headers = [*scope["headers"], (b"x-" + name.encode(), b"1")]
            await upstream({**scope, "headers": headers, "left": name}, receive, send)
            # what a layer does to its own scope afterwards concerns no other layer
            scope["headers"].append((b"x-late", b"1"))
            scope["state"]["late"] = name
            extension["conf"] = "late"

        return app

    for name in ("outer", "inner"):
        bridge.mount(name, noting(name))
    routes = [{**route("/*", ("outer", {"a": 1}), ("inner", {"b": 2})), "id": "r1"}]
    with TestClient(Gateway(bridge, routes, upstream=Upstream())) as client:
        for _ in range(2):
            seen.clear()
            assert client.get("/").status_code == 200
            outer, inner = seen["outer"], seen["inner"]
            assert inner.pop("headers") == [*outer.pop("headers"), (b"x-outer", b"1")]
            common = {"phase": "request", "route_id": "r1"}
            state = {"started": "outer"}
            assert outer == {"conf": {"a": 1}, "left by others": None, "plugin": "outer", "state": state, **common}
            state = {"started": "inner"}
            assert inner == {"conf": {"b": 2}, "left by others": "outer", "plugin": "inner", "state": state, **common}


def test_plugin_listed_twice_is_two_layers() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        seen.append(apisix(scope).conf)
        await upstream(scope, receive, send)

    bridge = Bridge()
    bridge.mount("twice", app)
    with TestClient(Gateway(bridge, [route("/*", ("twice", 1), ("twice", 2))], upstream=Upstream())) as client:
        assert client.get("/").status_code == 200
    assert seen == [1, 2]


def test_lifespan_state_reaches_every_request_as_a_copy() -> None:
    ended: list[str] = []

    class Starlette:
        """Has a lifespan, as Starlette's applications have."""

        def __init__(self, app: ASGIApp, name: str) -> None:
            self.app = app
            self.name = name

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                scope["state"]["requests"] = scope["state"].get("requests", 0) + 1
                scope["state"]["shared"].append(scope["path"])
                await answer(send, json.dumps(scope["state"]).encode())
                return
            await receive()
            scope["state"].update({"name": self.name, "shared": []})
            await send({"type": "lifespan.startup.complete"})
            await receive()
            ended.append(self.name)
            await send({"type": "lifespan.shutdown.complete"})

    bridge = Bridge()
    bridge.add_middleware("stateful", Starlette)
    routes = [route("/a", ("stateful", {"name": "a"})), route("/b", ("stateful", {"name": "b"}))]
    with TestClient(Gateway(bridge, routes, upstream=Upstream())) as client:
        assert client.get("/a").json() == {"name": "a", "requests": 1, "shared": ["/a"]}
        # as with uvicorn: the copy is shallow
        assert client.get("/a").json() == {"name": "a", "requests": 1, "shared": ["/a", "/a"]}
        assert client.get("/b").json() == {"name": "b", "requests": 1, "shared": ["/b"]}
        assert ended == []
    assert sorted(ended) == ["a", "b"]


# --- routes -----------------------------------------------------------------------------------------------------------

COUNTING = """
import itertools
from asgi_bridge import Bridge

bridge = Bridge()

@bridge.plugin("count")
def count(conf: dict):
    numbers = itertools.count(1)

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(next(numbers)).encode()})

    return app
"""


def counting_bridge() -> Bridge:
    """Mount a plugin that numbers its requests, and tells the upstream the number."""
    bridge = Bridge()

    @bridge.plugin("count")
    def count(conf: dict[str, Any]) -> ASGIApp:
        numbers = itertools.count(1)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["type"] == "http"
            headers = [*scope["headers"], (b"x-count", b"%d" % next(numbers))]
            await upstream({**scope, "headers": headers}, receive, send)

        return app

    return bridge


async def counted(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the numbers that the plugins have told."""
    assert scope["type"] == "http"
    await answer(send, dict(scope["headers"])[b"x-count"])


def test_routes_with_equal_configurations_do_not_share_state() -> None:
    routes = [route("/a", "count"), route("/b", "count")]
    with TestClient(Gateway(counting_bridge(), routes, upstream=counted)) as client:
        assert [client.get(path).text for path in ("/a", "/a", "/b", "/a", "/b")] == ["1", "2", "1", "3", "2"]


def test_lists_of_one_route_share_state_where_plugin_and_configuration_are_equal() -> None:
    conf = {"conf": [{"name": "count", "value": "{}"}]}
    routes = [{"uri": "/*", "plugins": {"ext-plugin-pre-req": conf, "ext-plugin-post-req": conf}}]
    with TestClient(Gateway(counting_bridge(), routes, upstream=counted)) as client:
        assert [client.get("/").text for _ in range(2)] == ["1, 2", "3, 4"]


def test_edit_of_one_route_keeps_the_state_of_the_others(tmp_path: Path) -> None:
    def routes(limit: int) -> Any:
        return routes_of(
            {**route("/a", ("count", {"limit": limit})), "id": "a"},
            {**route("/b", ("count", {"limit": 1})), "id": "b"},
        )

    async def play(runner: RunnerProcess) -> list[str]:
        gateway = GatewayApp(routes(1), runner.path)
        async with client_of(gateway) as client:
            counted = [(await client.get(path)).text for path in ("/a", "/a", "/b")]
            gateway.routes = routes(2)  # a new version of all routes, as with each edit of APISIX's route file
            counted += [(await client.get(path)).text for path in ("/a", "/b")]
            gateway.routes = routes(2)
            counted += [(await client.get(path)).text for path in ("/a", "/b")]
            gateway.routes = routes(1)
            counted += [(await client.get(path)).text for path in ("/a", "/b")]
            return counted

    with runner_process(tmp_path, COUNTING) as runner:
        assert asyncio.run(play(runner)) == ["1", "2", "1"] + ["1", "2"] + ["2", "3"] + ["3", "4"]


def test_gateway_of_one_runner_does_not_fool_another(tmp_path: Path) -> None:
    """Tokens that the gateway kept over a restart mean the same, or nothing, to the new runner."""

    async def play(first: str, second: str, moved: Path) -> list[tuple[int, str]]:
        gateway = GatewayApp(routes_of(route("/a", "count"), route("/b", ("count", {"b": 1}))), str(moved))
        answers = []
        os.symlink(first, moved)
        async with client_of(gateway) as client:
            for path in ("/a", "/b", "/a"):
                answers.append(await client.get(path))
            await gateway.pool.stop()
            gateway.pool.start()
            os.unlink(moved)
            os.symlink(second, moved)
            for path in ("/b", "/a"):
                answers.append(await client.get(path))
        return [(response.status_code, response.text) for response in answers]

    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with runner_process(folders[0], COUNTING) as first, runner_process(folders[1], COUNTING) as second:
        answers = asyncio.run(play(first.path, second.path, tmp_path / "socket"))
        assert answers == [(200, "1"), (200, "1"), (200, "2"), (200, "1"), (200, "1")]
