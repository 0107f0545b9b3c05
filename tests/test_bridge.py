"""The bridge: mounting by name, and what a mounted plugin says of itself."""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError, apisix, upstream
from asgi_bridge.plugins.options import Options
from asgi_bridge.testing import PluginClient


async def echo_conf(scope: Scope, receive: Receive, send: Send) -> None:
    extension = apisix(scope)
    await PlainTextResponse(f"{extension.plugin} {extension.conf}")(scope, receive, send)


@dataclass
class SayConf:
    body: str = ""


@contextlib.contextmanager
def refused(reason: str) -> Any:
    with pytest.raises(ConfigurationError) as caught:
        yield
    assert str(caught.value) == reason


def test_a_mounted_application_gets_any_configuration() -> None:
    bridge = Bridge()
    bridge.mount("a", echo_conf)

    assert PluginClient(bridge, "a", {"x": [1]}).get("/").text == "a {'x': [1]}"
    assert PluginClient(bridge, "a", "5").get("/").text == "a 5"


def test_a_middleware_gets_keyword_arguments() -> None:
    bridge = Bridge()
    bridge.add_middleware("cors", CORSMiddleware, defaults={"allow_origins": ["https://a.test"]})
    origin = {"origin": "https://a.test"}

    assert PluginClient(bridge, "cors").get("/", headers=origin).headers["access-control-allow-origin"] == (
        "https://a.test"
    )
    assert (
        "access-control-allow-origin"
        not in PluginClient(bridge, "cors", {"allow_origins": []}).get("/", headers=origin).headers
    )


def test_factories_sync_and_async_with_and_without_configuration() -> None:
    bridge = Bridge()

    @bridge.plugin("sync")
    def sync(conf: SayConf) -> ASGIApp:
        return PlainTextResponse(f"sync {conf.body}")

    @bridge.plugin("async")
    async def later(conf: SayConf) -> ASGIApp:
        return PlainTextResponse(f"async {conf.body}")

    @bridge.plugin("bare")
    def bare() -> ASGIApp:
        return PlainTextResponse("bare")

    @bridge.plugin("untyped")
    def untyped(conf, second=None, *more, **most):  # type: ignore[no-untyped-def]
        return PlainTextResponse(f"untyped {conf}")

    @bridge.plugin("string")
    def string(conf: "SayConf") -> ASGIApp:
        return PlainTextResponse(f"string {conf.body}")

    bridge.plugin("partial")(functools.partial(untyped, second=2))

    texts = {
        name: PluginClient(bridge, name, conf).get("/").text
        for name, conf in {
            "sync": {"body": "x"},
            "async": {"body": "x"},
            "bare": None,
            "untyped": [1],
            "string": {"body": "x"},
            "partial": 1,
        }.items()
    }

    assert texts == {
        "sync": "sync x",
        "async": "async x",
        "bare": "bare",
        "untyped": "untyped [1]",
        "string": "string x",
        "partial": "untyped 1",
    }
    with refused("plugin bare: field 'x': Extra inputs are not permitted"):
        PluginClient(bridge, "bare", {"x": 1}).get("/")
    assert sync(SayConf()).body == b"sync "  # type: ignore[attr-defined]


def test_a_factory_whose_first_parameter_is_app_wraps_it() -> None:
    bridge = Bridge()

    class Says:
        def __init__(self, app: ASGIApp, text: str) -> None:
            self.app, self.text = app, text

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope["headers"].append((b"x-said", self.text.encode()))
            await self.app(scope, receive, send)

    @bridge.plugin("configured")
    def configured(app: ASGIApp, conf: SayConf) -> ASGIApp:
        return Says(app, conf.body)

    @bridge.plugin("bare")
    def bare(app: ASGIApp) -> ASGIApp:
        return Says(app, "bare")

    def said(name: str, conf: Any) -> Any:
        return [value for key, value in PluginClient(bridge, name, conf).get("/").json()["headers"] if key == "x-said"]

    assert said("configured", {"body": "x"}) == ["x"]
    assert said("bare", None) == ["bare"]


def test_a_factory_is_called_once_for_each_client() -> None:
    bridge = Bridge()
    calls = []

    @bridge.plugin("counted")
    def counted(conf: dict[str, Any]) -> ASGIApp:
        calls.append(conf)
        return PlainTextResponse("")

    client = PluginClient(bridge, "counted", {"a": 1})
    client.get("/")
    client.get("/")

    assert calls == [{"a": 1}]


def test_asgi_2_applications() -> None:
    bridge = Bridge()

    def double(scope: Scope) -> Any:
        async def instance(receive: Receive, send: Send) -> None:
            await PlainTextResponse(apisix(scope).plugin)(scope, receive, send)

        return instance

    class Double:
        def __init__(self, scope: Scope) -> None:
            self.scope = scope

        async def __call__(self, receive: Receive, send: Send) -> None:
            await PlainTextResponse("class")(self.scope, receive, send)

    bridge.mount("function", double)  # type: ignore[arg-type]
    bridge.mount("class", Double)  # type: ignore[arg-type]

    @bridge.plugin("made")
    def made() -> Any:
        return Double

    assert [PluginClient(bridge, name).get("/").text for name in ("function", "class", "made")] == [
        "function",
        "class",
        "class",
    ]


def test_an_endpoint_class_of_starlette_is_an_asgi_3_application() -> None:
    class Hello(HTTPEndpoint):
        async def get(self, request: Any) -> PlainTextResponse:
            return PlainTextResponse("hello")

    bridge = Bridge()
    bridge.mount("hello", Hello)
    bridge.plugin("made")(lambda: Hello)

    assert [PluginClient(bridge, name).get("/").text for name in ("hello", "made")] == ["hello", "hello"]


@pytest.mark.parametrize("name", ["a", "a" * 128, "ümläut", "with blank", "ä" * 128])
def test_names_that_apisix_takes(name: str) -> None:
    bridge = Bridge()
    bridge.mount(name, upstream)

    assert list(bridge.plugins) == [name]


@pytest.mark.parametrize("name", ["", "a" * 129, 5, None])
def test_names_that_apisix_does_not_take(name: Any) -> None:
    with refused(f"a plugin's name must be a string of 1 to 128 characters (APISIX's schema), not {name!r}"):
        Bridge().mount(name, upstream)


def no_middleware() -> None: ...


def by_keyword(*, conf: dict[str, Any]) -> Any: ...


def any_keyword(**conf: Any) -> Any: ...


def two_configurations(conf: dict[str, Any], second: int, *, third: int) -> Any: ...


def unresolved(conf: "Nowhere") -> Any: ...  # type: ignore[name-defined]  # noqa: F821


def unchecked(conf: PlainTextResponse) -> Any: ...


@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        (
            lambda bridge: bridge.mount("there", upstream),
            "plugin there: the name is mounted already; each plugin has a name of its own",
        ),
        (
            lambda bridge: bridge.mount("x", 5),
            "plugin x: 5 is not an ASGI application: write async def app(scope, receive, send)",
        ),
        (
            lambda bridge: bridge.mount("x", CORSMiddleware),
            "plugin x: the class CORSMiddleware is a middleware, not an ASGI application: write "
            'bridge.add_middleware("x", CORSMiddleware)',
        ),
        (
            lambda bridge: bridge.plugin(unchecked),
            f"a plugin's name must be a string of 1 to 128 characters (APISIX's schema), not {unchecked!r}: write "
            '@bridge.plugin("unchecked")',
        ),
        (
            lambda bridge: bridge.add_middleware("x", 5),
            "plugin x: 5 is not a middleware: write def middleware(app), with what a route configures as keyword "
            "arguments",
        ),
        (
            lambda bridge: bridge.add_middleware("x", no_middleware),
            "plugin x: the function no_middleware is a factory without a configuration, not a middleware: write "
            'bridge.mount("x", no_middleware()), or bridge.plugin("x")(no_middleware) for one application a '
            "configuration",
        ),
        (
            lambda bridge: bridge.add_middleware("x", CORSMiddleware, defaults={"max_ag": 1}),
            "plugin x: CORSMiddleware has no parameter 'max_ag'; did you mean 'max_age'?",
        ),
        (
            lambda bridge: bridge.plugin("x")(5),
            "plugin x: 5 is not a factory: write def factory(conf), or def factory(app, conf) for a middleware",
        ),
        (
            lambda bridge: bridge.plugin("x")(two_configurations),
            "plugin x: its factory gets one positional argument, the configuration, but needs more: second, third: "
            "write def two_configurations(conf), or (app, conf) for a middleware",
        ),
        (
            lambda bridge: bridge.plugin("x")(by_keyword),
            "plugin x: its factory gets one positional argument, the configuration, but needs more: conf: "
            "write def by_keyword(conf), or (app, conf) for a middleware",
        ),
        (
            lambda bridge: bridge.plugin("x")(any_keyword),
            "plugin x: its factory gets one positional argument, the configuration, but needs more: conf: "
            "write def any_keyword(conf), or (app, conf) for a middleware",
        ),
        (
            lambda bridge: bridge.plugin("x")(unresolved),
            "plugin x: an annotation of its factory does not resolve: name 'Nowhere' is not defined",
        ),
        (
            lambda bridge: bridge.plugin("x")(unchecked),
            "plugin x: the annotation <class 'starlette.responses.PlainTextResponse'> cannot be checked: "
            "Unable to generate pydantic-core schema for <class 'starlette.responses.PlainTextResponse'>. "
            "Set `arbitrary_types_allowed=True` in the model_config to ignore this error or implement "
            "`__get_pydantic_core_schema__` on your type to fully support it.",
        ),
        (
            lambda bridge: bridge.mount("x", upstream, timeot=1),
            "plugin x: option timeot: there is no such option; did you mean 'timeout'?",
        ),
        (
            lambda bridge: bridge.mount("x", upstream, timeout="5"),
            "plugin x: option timeout: Input should be a valid number",
        ),
        (
            lambda bridge: bridge.mount("x", upstream, timeout=0),
            "plugin x: option timeout: Input should be greater than 0",
        ),
        (
            lambda bridge: bridge.mount("x", upstream, request_headers=["a b"]),
            "plugin x: option request_headers.0: 'a b' is no name of a header: those have letters, digits and hyphens",
        ),
        (
            lambda bridge: bridge.mount("x", upstream, phase="respond"),
            "plugin x: option phase: Input should be 'auto', 'request', 'response' or 'both'",
        ),
        (
            lambda bridge: bridge.mount("x", upstream, timeout=float("inf")),
            "plugin x: option timeout: Input should be a finite number",
        ),
        (
            lambda bridge: bridge.mount("x", upstream, on_error="opn", exact=1),
            "plugin x: option exact: Input should be a valid boolean; on_error: Input should be 'closed' or 'open'",
        ),
    ],
)
def test_what_can_never_work_is_refused_at_once(mount: Callable[[Bridge], None], reason: str) -> None:
    bridge = Bridge()
    bridge.mount("there", upstream)

    with refused(reason):
        mount(bridge)
    assert list(bridge.plugins) == ["there"]


def test_a_type_without_a_signature_is_no_factory() -> None:
    with pytest.raises(ConfigurationError, match="^plugin x: "):
        Bridge().plugin("x")(type)


def test_options() -> None:
    bridge = Bridge()
    bridge.mount(
        "x", upstream, phase="request", exact=True, request_body=False, on_error="open", cures=False, timeout=5
    )
    bridge.mount("y", upstream)
    bridge.mount(
        "z", upstream, phase="both", response_body=False, on_missing="refuse", request_headers=["Accept", "x-1"]
    )

    assert bridge.plugins["z"].options == Options(
        phase="both", response_body=False, on_missing="refuse", request_headers=("accept", "x-1")
    )
    assert bridge.plugins["x"].options == Options(
        phase="request", exact=True, request_body=False, on_error="open", cures=False, timeout=5.0
    )
    assert bridge.plugins["y"].options == Options()


def test_includes_the_plugins_of_another_bridge() -> None:
    one, other = Bridge(), Bridge()
    other.mount("a", upstream)
    one.include(other)

    assert one.plugins == other.plugins
    with refused("plugin a: the name is mounted already; each plugin has a name of its own"):
        one.include(other)


def test_a_plugin_describes_itself() -> None:
    bridge = Bridge()
    bridge.mount("app", Starlette())

    @bridge.plugin("bare")
    def bare() -> ASGIApp:
        return upstream

    @bridge.plugin("say")
    def say(conf: SayConf) -> ASGIApp:
        return upstream

    bridge.mount("request", upstream, phase="request")
    bridge.mount("response", upstream, phase="response")
    bridge.mount("both", upstream, phase="both")

    assert {name: plugin.phases for name, plugin in bridge.plugins.items()} == {
        "app": ["request", "response"],
        "bare": ["request", "response"],
        "say": ["request", "response"],
        "request": ["request"],
        "response": ["response"],
        "both": ["request", "response"],
    }
    assert [plugin.describe() for plugin in list(bridge.plugins.values())[:3]] == [
        {"name": "app", "kind": "application", "phase": "auto", "phases": ["request", "response"], "schema": {}},
        {
            "name": "bare",
            "kind": "factory",
            "phase": "auto",
            "phases": ["request", "response"],
            "schema": {
                "title": "_unconfigured",
                "type": "object",
                "properties": {},
                "additionalProperties": False,
            },
        },
        {
            "name": "say",
            "kind": "factory",
            "phase": "auto",
            "phases": ["request", "response"],
            "schema": {
                "title": "SayConf",
                "type": "object",
                "properties": {"body": {"title": "Body", "type": "string", "default": ""}},
                "additionalProperties": False,
            },
        },
    ]
