"""What authors of plugins test with: PluginClient, in plain ASGI, and Gateway, through frames."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import TypedDict

from asgi_bridge import Bridge, ConfigurationError, PluginError, apisix, upstream
from asgi_bridge.server.runner import RunnerOptions
from asgi_bridge.testing import Gateway, PluginClient


class SizeConf(TypedDict):
    size: int


class App:
    """An application with a lifespan that keeps a diary.

    Args:
        diary: gets a line for each start-up, request and shutdown.
        name: stands in each of them.
        answers: what it does with a request.
    """

    def __init__(self, diary: list[str], name: str, answers: ASGIApp) -> None:
        self.diary = diary
        self.name = name
        self.answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.diary.append(f"{self.name} {scope['path']} {scope['state'].get('name')}")
            await self.answers(scope, receive, send)
            return
        await receive()
        self.diary.append(f"{self.name} starts")
        scope["state"]["name"] = self.name
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.diary.append(f"{self.name} stops")
        await send({"type": "lifespan.shutdown.complete"})


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await PlainTextResponse("hello")(scope, receive, send)


async def failing_startup(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    raise ValueError("spilt")


def noting(found: list[Any], what: Callable[[Scope], Any]) -> ASGIApp:
    """Notes something of the scope, and passes the request on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        found.append(what(scope))
        await upstream(scope, receive, send)

    return app


def bridge_of(**apps: ASGIApp) -> Bridge:
    bridge = Bridge()
    for name, app in apps.items():
        bridge.mount(name, app)
    return bridge


def route(*names: str, conf: str = "{}", **more: Any) -> dict[str, Any]:
    entries = [{"name": name, "value": conf} for name in names]
    return {"uri": "/*", "plugins": {"ext-plugin-pre-req": {"conf": entries}}, **more}


# --- PluginClient -----------------------------------------------------------------------------------------------------


def test_plugin_answers_by_itself_or_the_upstream_does() -> None:
    assert PluginClient(bridge_of(hello=hello), "hello").get("/").text == "hello"

    echoed = PluginClient(bridge_of(passing=upstream), "passing").post("/a?b=c", content=b"body").json()
    assert {key: echoed[key] for key in ("method", "target", "path", "query", "body")} == {
        "method": "POST", "target": "/a?b=c", "path": "/a", "query": "b=c", "body": "body",
    }  # fmt: skip

    assert PluginClient(bridge_of(passing=upstream), "passing", upstream=hello).get("/").text == "hello"


def test_client_runs_the_lifespans_of_plugins_and_upstream_around_all_requests() -> None:
    diary: list[str] = []
    bridge = bridge_of(mounted=App(diary, "mounted", upstream))

    @bridge.plugin("built")
    def built(conf: dict[str, Any]) -> ASGIApp:
        return App(diary, f"built {conf['name']}", upstream)

    plugins = [("mounted", None), ("built", {"name": "x"}), ("mounted", None)]
    with PluginClient(bridge, plugins, upstream=App(diary, "upstream", hello)) as client:
        diary.append("entered")
        assert [client.get(path).text for path in ("/1", "/2")] == ["hello", "hello"]
        diary.append("leaving")
    # the application that is mounted once and listed twice starts once
    assert diary == [
        "upstream starts", "mounted starts", "built x starts",
        "entered",
        "mounted /1 mounted", "built x /1 built x", "mounted /1 mounted", "upstream /1 upstream",
        "mounted /2 mounted", "built x /2 built x", "mounted /2 mounted", "upstream /2 upstream",
        "leaving",
        "built x stops", "mounted stops", "upstream stops",
    ]  # fmt: skip


def test_client_can_be_entered_again() -> None:
    diary: list[str] = []
    client = PluginClient(bridge_of(mounted=App(diary, "mounted", hello)), "mounted")
    for _ in range(2):
        with client:
            assert client.get("/").text == "hello"
    assert diary == ["mounted starts", "mounted / mounted", "mounted stops"] * 2


def test_client_without_context_manager_runs_no_lifespan() -> None:
    diary: list[str] = []
    bridge = bridge_of(mounted=App(diary, "mounted", upstream))
    client = PluginClient(bridge, "mounted", upstream=App(diary, "upstream", hello))
    assert [client.get(path).text for path in ("/1", "/2")] == ["hello", "hello"]
    assert diary == ["mounted /1 None", "upstream /1 None", "mounted /2 None", "upstream /2 None"]


def test_factory_is_called_once_for_all_requests_of_a_client() -> None:
    calls: list[dict[str, Any]] = []
    bridge = Bridge()

    @bridge.plugin("built")
    async def built(conf: dict[str, Any]) -> ASGIApp:
        calls.append(conf)
        return hello

    client = PluginClient(bridge, "built", {"a": 1})
    assert calls == []
    assert [client.get("/").text for _ in range(2)] == ["hello", "hello"]
    assert calls == [{"a": 1}]


@pytest.mark.parametrize(
    ("conf", "parsed"),
    [(None, {}), ({"a": [1]}, {"a": [1]}), ('{"a": [1]}', {"a": [1]}), ([1], [1]), (1, 1), ("", {})],
)
def test_configuration_is_given_as_json_or_as_what_json_has(conf: Any, parsed: Any) -> None:
    found: list[Any] = []
    client = PluginClient(bridge_of(noting=noting(found, lambda scope: apisix(scope).conf)), "noting", conf)
    assert client.get("/").status_code == 200
    assert found == [parsed]


@pytest.mark.parametrize(
    ("plugin", "conf", "reason"),
    [
        ("typed", {"size": "large"}, "plugin typed: field 'size': Input should be"),
        ("typed", {"size": 1, "colour": 2}, "plugin typed: field 'colour': Extra inputs"),
        ("typed", "{size", "plugin typed: .*JSON"),
        ("nobody", None, "plugin nobody is not mounted; mounted are: broken, typed"),
        ("broken", None, "plugin broken: it could not be built: ValueError: no such file"),
    ],
)
def test_configuration_that_the_runner_would_refuse_is_raised(plugin: str, conf: Any, reason: str) -> None:
    bridge = Bridge()

    @bridge.plugin("typed")
    def typed(conf: SizeConf) -> ASGIApp:
        return hello

    @bridge.plugin("broken")
    def broken() -> ASGIApp:
        raise ValueError("no such file")

    client = PluginClient(bridge, plugin, conf)
    with pytest.raises(ConfigurationError, match=reason):
        client.get("/")
    with pytest.raises(ConfigurationError, match=reason), client:
        raise AssertionError("it was entered")


@pytest.mark.parametrize("failing", ["mounted", "built", "upstream"])
def test_failed_startup_is_raised_on_entering_and_ends_what_was_started(failing: str) -> None:
    diary: list[str] = []
    bridge = bridge_of(mounted=failing_startup if failing == "mounted" else App(diary, "mounted", upstream))

    @bridge.plugin("built")
    def built() -> ASGIApp:
        return failing_startup if failing == "built" else App(diary, "built", upstream)

    app = failing_startup if failing == "upstream" else App(diary, "upstream", hello)
    client = PluginClient(bridge, [("mounted", None), ("built", None)], upstream=app)
    with pytest.raises((ConfigurationError, PluginError), match="its lifespan start-up failed: no database"), client:
        raise AssertionError("it was entered")
    started = {"upstream": [], "mounted": ["upstream"], "built": ["upstream", "mounted"]}[failing]
    assert diary == [f"{name} starts" for name in started] + [f"{name} stops" for name in reversed(started)]


def test_exceptions_of_plugin_and_upstream_are_raised_in_the_test() -> None:
    with pytest.raises(ValueError, match="spilt"):
        PluginClient(bridge_of(raising=raising), "raising").get("/")
    with pytest.raises(ValueError, match="spilt"):
        PluginClient(bridge_of(passing=upstream), "passing", upstream=raising).get("/")


def test_exceptions_are_500_if_the_client_is_told_not_to_raise() -> None:
    client = PluginClient(bridge_of(raising=raising), "raising", raise_server_exceptions=False)
    assert client.get("/").status_code == 500


def test_keyword_arguments_are_those_of_starlettes_client() -> None:
    client = PluginClient(
        bridge_of(passing=upstream), "passing", base_url="https://a.test", headers={"x-a": "1"}, root_path="/root"
    )
    echoed = client.get("/").json()
    assert {"host": "a.test", "x-a": "1"}.items() <= dict(echoed["headers"]).items()


def test_list_of_plugins_is_an_onion_the_first_outermost() -> None:
    bridge = Bridge()

    def tag(app: ASGIApp, name: str) -> ASGIApp:
        async def tagged(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["type"] == "http"

            async def tagging(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (b"x-response", name.encode())]
                await send(message)

            headers = [*scope["headers"], (b"x-request", name.encode())]
            await app({**scope, "headers": headers}, receive, tagging)

        return tagged

    bridge.add_middleware("tag", tag)
    client = PluginClient(bridge, [("tag", {"name": "outer"}), ("tag", {"name": "inner"})])
    response = client.get("/")
    echoed = [value for name, value in response.json()["headers"] if name == "x-request"]
    assert (echoed, response.headers.get_list("x-response")) == (["outer", "inner"], ["inner", "outer"])


def test_empty_list_of_plugins_is_the_upstream() -> None:
    assert PluginClient(Bridge(), [], upstream=hello).get("/").text == "hello"


@pytest.mark.parametrize(
    ("phase", "seen"), [("auto", "request"), ("request", "request"), ("both", "request"), ("response", "response")]
)
def test_scope_is_that_of_the_runner(phase: Any, seen: str) -> None:
    found: list[Scope] = []
    bridge = Bridge()
    bridge.mount("noting", noting(found, dict), phase=phase)
    assert PluginClient(bridge, "noting", {"a": 1}, route_id="r7").get("/").status_code == 200
    (scope,) = found
    extension = scope["extensions"]["apisix"]
    assert extension == {
        "plugin": "noting", "phase": seen, "conf": {"a": 1}, "route_id": "r7", "request_id": None,
        "var": extension.var,
    }  # fmt: skip
    assert (scope["state"], scope["asgi"]["version"], scope["app"].state._state) == ({}, "3.0", {})


def test_plugins_of_two_phases_in_one_list_are_refused() -> None:
    bridge = Bridge()
    bridge.mount("early", upstream, phase="request")
    bridge.mount("late", upstream, phase="response")
    with pytest.raises(ConfigurationError, match="plugin early is for the request phase"):
        PluginClient(bridge, [("early", None), ("late", None)]).get("/")


def test_upstream_gets_nothing_of_the_plugins_scope() -> None:
    found: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["own"] = 1
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        found.append(scope)
        await hello(scope, receive, send)

    with PluginClient(bridge_of(passing=upstream), "passing", upstream=app) as client:
        client.get("/")
    assert (found[0]["state"], "apisix" in found[0]["extensions"], "app" in found[0]) == ({"own": 1}, False, False)


def test_scope_may_be_a_smaller_one_of_the_plugins_own() -> None:
    async def copies(scope: Scope, receive: Receive, send: Send) -> None:
        wanted = ("type", "method", "path", "query_string", "headers")
        await upstream({name: scope[name] for name in wanted}, receive, send)

    assert PluginClient(bridge_of(p=copies), "p").get("/x").status_code == 200


@pytest.mark.parametrize(
    ("options", "phase", "told"),
    [
        ({}, "request", None),
        ({"exact": True}, "request", "r1"),
        ({"phase": "both"}, None, "r1"),
        ({}, "response", "r1"),
    ],
)
def test_request_id_is_known_where_the_runner_has_asked_for_it(options: Any, phase: Any, told: str | None) -> None:
    async def tells(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(str(apisix(scope).request_id))(scope, receive, send)

    bridge = Bridge()
    bridge.mount("p", tells, **options)
    client = PluginClient(bridge, "p", variables={"request_id": "r1"}, phase=phase)
    assert client.get("/x").text == str(told)


def test_phase_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match='phase must be "request", "response" or "both", not \'x\''):
        PluginClient(Bridge(), "p", phase="x")  # type: ignore[arg-type]


def test_variables_are_those_of_the_test() -> None:
    found: list[Any] = []

    async def asking(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        extension = apisix(scope)
        found.append(await extension.var("text"))
        found.append(await extension.var("bytes"))
        found.append(await extension.var("text", "none", "unknown"))
        found.append(extension.request_id)
        found.append(await extension.var("request_id"))
        found.append(extension.request_id)
        await upstream(scope, receive, send)

    found_inside: list[Any] = []
    bridge = bridge_of(asking=asking, inside=noting(found_inside, lambda scope: apisix(scope).request_id))
    variables = {"text": "é", "bytes": b"\xff", "none": None, "request_id": "abc"}
    client = PluginClient(bridge, [("asking", None), ("inside", None)], variables=variables)
    assert client.get("/").status_code == 200
    assert found == [
        "é".encode(), b"\xff", {"text": "é".encode(), "none": None, "unknown": None}, None, b"abc", "abc",
    ]  # fmt: skip


def test_request_that_was_wrapped_reaches_the_upstream_wrapped() -> None:
    async def doubling(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"

        async def doubled() -> Message:
            message = await receive()
            return {**message, "body": message["body"] * 2}

        async def shouting(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": message["body"].upper()}
            await send(message)

        await upstream(scope, doubled, shouting)

    async def repeating(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await PlainTextResponse(await Request(scope, receive).body())(scope, receive, send)

    client = PluginClient(bridge_of(doubling=doubling), "doubling", upstream=repeating)
    assert client.post("/", content=b"ab").text == "ABAB"


# --- Gateway ----------------------------------------------------------------------------------------------------------

FILE = """
routes:
  - id: 7
    uri: /*
    plugins:
      ext-plugin-pre-req:
        conf:
          - name: noting
            value: '{"a": 1}'
    upstream_id: 1
upstreams:
  - id: 1
    type: roundrobin
    nodes: {"127.0.0.1:1": 1}
#END
"""


@pytest.mark.parametrize("kind", ["path", "name", "dict", "list", "tuple"])
def test_routes_are_a_file_or_its_content(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "apisix.yaml"
    path.write_text(FILE)
    upstreams = [{"id": "1", "type": "roundrobin", "nodes": {"127.0.0.1:1": 1}}]
    given: Any = {
        "path": path,
        "name": str(path),
        "dict": {"routes": [route("noting", conf='{"a": 1}', id="7", upstream_id="1")], "upstreams": upstreams},
        "list": [route("noting", conf='{"a": 1}', id="7")],
        "tuple": (route("noting", conf='{"a": 1}', id="7"),),
    }[kind]
    found: list[Any] = []
    bridge = bridge_of(noting=noting(found, lambda scope: (apisix(scope).route_id, apisix(scope).conf)))
    with TestClient(Gateway(bridge, given, upstream=hello)) as client:
        assert client.get("/").text == "hello"
    assert found == [("7", {"a": 1})]


def test_routes_given_as_a_dict_are_left_as_they_were() -> None:
    given = {"routes": [route("hello")]}
    before = json.dumps(given)
    Gateway(bridge_of(hello=hello), given)
    assert json.dumps(given) == before


@pytest.mark.parametrize(
    ("routes", "reason"),
    [
        ("/does/not/exist.yaml", "/does/not/exist.yaml"),
        ([{"uri": "/*", "plugin": {}}], "plugin"),
        ({"route": []}, "route"),
    ],
)
def test_routes_that_cannot_be_read_are_refused_at_once(routes: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Gateway(bridge_of(hello=hello), routes)


def test_no_route_is_404_and_the_upstream_is_the_echo_by_default() -> None:
    with TestClient(Gateway(bridge_of(passing=upstream), {})) as client:
        assert client.get("/").status_code == 404
    with TestClient(Gateway(bridge_of(passing=upstream), [route("passing")])) as client:
        assert client.get("/a%20b?c").json()["target"] == "/a%20b?c"


def test_gateway_runs_the_lifespans_once_around_all_requests() -> None:
    diary: list[str] = []
    bridge = bridge_of(mounted=App(diary, "mounted", upstream))

    @bridge.plugin("built")
    def built() -> ASGIApp:
        return App(diary, "built", upstream)

    app = App(diary, "upstream", hello)
    with TestClient(Gateway(bridge, [route("mounted", "built")], upstream=app)) as client:
        assert diary == ["upstream starts", "mounted starts"]
        diary.clear()
        assert [client.get(path).text for path in ("/1", "/2")] == ["hello", "hello"]
        # a chain is built at its first request; what the upstream's lifespan left stays with the upstream's own server
        assert diary == [
            "built starts",
            "mounted /1 mounted", "built /1 built", "upstream /1 None",
            "mounted /2 mounted", "built /2 built", "upstream /2 None",
        ]  # fmt: skip
        diary.clear()
    assert sorted(diary[:-1]) == ["built stops", "mounted stops"]
    assert diary[-1] == "upstream stops"


def test_gateway_without_context_manager_starts_for_each_request() -> None:
    diary: list[str] = []
    bridge = bridge_of(mounted=App(diary, "mounted", upstream))
    client = TestClient(Gateway(bridge, [route("mounted")], upstream=App(diary, "upstream", hello)))
    assert [client.get(path).text for path in ("/1", "/2")] == ["hello", "hello"]
    assert diary == [
        "mounted starts", "mounted /1 mounted", "upstream /1 None", "mounted stops",
        "mounted starts", "mounted /2 mounted", "upstream /2 None", "mounted stops",
    ]  # fmt: skip


def test_exception_that_refuses_a_request_is_raised_in_the_test() -> None:
    for context in (True, False):
        client = TestClient(Gateway(bridge_of(raising=raising), [route("raising")]))
        with pytest.raises(ValueError, match="spilt"):
            if context:
                with client:
                    client.get("/")
            else:
                client.get("/")


def test_exception_of_one_request_is_not_raised_in_the_next() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (raising if scope["path"] == "/raise" else upstream)(scope, receive, send)

    with TestClient(Gateway(bridge_of(app=app), [route("app")], upstream=hello)) as client:
        with pytest.raises(ValueError, match="spilt"):
            client.get("/raise")
        assert client.get("/").text == "hello"


def test_fault_behind_an_answer_is_not_raised_in_a_later_request(caplog: pytest.LogCaptureFixture) -> None:
    next_one, failed = asyncio.Event(), asyncio.Event()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        await next_one.wait()
        failed.set()
        raise ValueError("behind the answer")

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        next_one.set()
        await failed.wait()
        await asyncio.sleep(0)
        await hello(scope, receive, send)

    with TestClient(
        Gateway(bridge_of(late=late, slow=slow), [route("late", uri="/late"), route("slow", uri="/slow")])
    ) as client:
        assert [client.get("/late").text, client.get("/slow").text] == ["hello", "hello"]
    assert "a fault after its answer, which stands" in caplog.text


def test_exception_that_a_framework_answers_with_500_is_raised_in_the_test() -> None:
    """Starlette's ServerErrorMiddleware sends its answer, and raises again so that tests can see why."""

    def broken(request: Request) -> PlainTextResponse:
        raise ValueError("in the view")

    bridge = bridge_of(p=Starlette(routes=[Route("/{rest:path}", broken)]))
    with TestClient(Gateway(bridge, [route("p")])) as client, pytest.raises(ValueError, match="in the view"):
        client.get("/")
    with TestClient(Gateway(bridge, [route("p")]), raise_server_exceptions=False) as client:
        assert (client.get("/").status_code, client.get("/").text) == (500, "Internal Server Error")


def test_plugin_that_takes_too_long_is_raised_in_the_test() -> None:
    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await asyncio.Event().wait()

    bridge = Bridge()
    bridge.mount("hangs", hangs, timeout=0.01)
    with TestClient(Gateway(bridge, [route("hangs")])) as client, pytest.raises(PluginError, match="no answer in time"):
        client.get("/hangs")


def test_refused_request_is_503_if_the_client_is_told_not_to_raise(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(bridge_of(raising=raising), [route("raising")])
    with TestClient(gateway, raise_server_exceptions=False) as client:
        assert client.get("/").status_code == 503
    assert "plugin raising: request refused: ValueError: spilt" in caplog.messages


def test_configuration_that_the_runner_refuses_is_raised_in_the_test() -> None:
    with TestClient(Gateway(bridge_of(hello=hello), [route("nobody")])) as client:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="plugin nobody is not mounted; mounted are: hello"):
                client.get("/")


def test_exception_of_the_upstream_is_raised_in_the_test() -> None:
    app = Gateway(bridge_of(passing=upstream), [route("passing")], upstream=raising)
    with TestClient(app) as client, pytest.raises(ValueError, match="spilt"):
        client.get("/")


def test_failed_startup_of_the_upstream_is_raised_on_entering() -> None:
    gateway = Gateway(bridge_of(hello=hello), [route("hello")], upstream=failing_startup)
    with pytest.raises(PluginError, match="its lifespan start-up failed: no database"), TestClient(gateway):
        raise AssertionError("it was entered")


def test_failed_startup_of_a_plugin_refuses_its_routes_only() -> None:
    bridge = bridge_of(broken=failing_startup, hello=hello)
    routes = [route("broken", uri="/broken"), route("hello", uri="/hello")]
    with TestClient(Gateway(bridge, routes)) as client:
        assert client.get("/hello").text == "hello"
        with pytest.raises(ConfigurationError, match="plugin broken: its lifespan start-up failed: no database"):
            client.get("/broken")


def test_options_are_the_runners(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asgi_bridge.access")
    options = RunnerOptions(access_log=True)
    with TestClient(Gateway(bridge_of(hello=hello), [route("hello")], options=options)) as client:
        client.get("/")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "asgi_bridge.access"]
    assert line.startswith("hello - route arr_1 - stop 200 - ")


def test_plugins_run_in_all_phases() -> None:
    found: list[str] = []
    bridge = bridge_of(noting=noting(found, lambda scope: apisix(scope).phase))
    conf = {"conf": [{"name": "noting", "value": "{}"}]}
    places = ("ext-plugin-pre-req", "ext-plugin-post-req", "ext-plugin-post-resp")
    routes = [{"uri": "/*", "plugins": dict.fromkeys(places, conf)}]
    with TestClient(Gateway(bridge, routes, upstream=hello)) as client:
        assert client.get("/").text == "hello"
    assert found == ["request", "request", "response"]


def test_plugin_that_still_runs_when_the_gateway_ends_is_cut_off() -> None:
    ended: list[str] = []

    async def lingering(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await hello(scope, receive, send)
        try:
            await receive()  # a disconnect: the response is over
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("ended")

    with TestClient(Gateway(bridge_of(lingering=lingering), [route("lingering")])) as client:
        assert client.get("/").text == "hello"
        assert ended == []
    assert ended == ["ended"]
