"""Every shape of object, mounted in every way, works or is refused with the line to write instead."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.loading import load_bridge
from asgi_bridge.plugins.signatures import signature_of
from asgi_bridge.testing import Gateway, PluginClient
from asgi_bridge.wsgi import WSGIApp, WSGIMiddleware

from . import shapes

PYTHON: dict[str, Callable[[Bridge, Any], object]] = {
    "mount": lambda bridge, found: bridge.mount("x", found),
    "add_middleware": lambda bridge, found: bridge.add_middleware("x", found),
    "plugin": lambda bridge, found: bridge.plugin("x")(found),
}
FILE = ("app", "middleware", "factory", "wsgi", "wsgi_middleware")
WAYS = (*PYTHON, *FILE, "--mount")

TABLE = "[tool.asgi_bridge.plugins.x]"
APPLICATION = {"mount", "app", "--mount"}
MIDDLEWARE = {"add_middleware", "middleware", "--mount"}
FACTORY = {"plugin", "factory", "--mount"}


def load(way: str, name: str, folder: Path) -> Bridge:
    target = f"tests.plugins.shapes:{name}"
    if way in PYTHON:
        bridge = Bridge()
        PYTHON[way](bridge, getattr(shapes, name))
        return bridge
    if way == "--mount":
        return load_bridge(None, {"x": target}, start=folder)
    (folder / "pyproject.toml").write_text(f'{TABLE}\n{way} = "{target}"')
    return load_bridge(None, start=folder)


SHAPES: list[tuple[str, set[str], str, str]] = [
    # name, ways of mounting that work, and for the others the line to write in Python and in a file
    *[
        (name, APPLICATION, f'bridge.mount("x", {text})', f'app = "tests.plugins.shapes:{name}" in {TABLE}')
        for name, text in [
            ("coroutine_function", "coroutine_function"),
            ("returns_awaitable", "returns_awaitable"),
            ("returns_future", "returns_future"),
            ("plain", "app"),
            ("method", "method"),
            ("of_class", "of_class"),
            ("partial", "partial(with_more, ...)"),
            ("passed_on", "returns_awaitable"),
            ("injected", "injected"),
            ("decorated", "decorated"),
            ("Endpoint", "Endpoint"),
            ("double", "double"),
            ("Double", "Double"),
            ("here", "app"),
            ("fastapi_app", "app"),
        ]
    ],
    *[
        (name, MIDDLEWARE, f'bridge.add_middleware("x", {text})',
         f'middleware = "tests.plugins.shapes:{name}" in {TABLE}')
        for name, text in [
            ("Wrapping", "Wrapping"),
            ("PlainMiddleware", "PlainMiddleware"),
            ("ByPosition", "ByPosition"),
            ("ByStar", "ByStar"),
            ("Dataclass", "Dataclass"),
            ("OldMiddleware", "OldMiddleware"),
            ("partial_class", "partial(Wrapping, ...)"),
        ]
    ],
    *[
        (name, FACTORY, line, f'factory = "tests.plugins.shapes:{name}" in {TABLE}')
        for name, line in [
            ("factory", 'bridge.plugin("x")(factory)'),
            ("async_factory", 'bridge.plugin("x")(async_factory)'),
            ("wrapping_factory", 'bridge.plugin("x")(wrapping_factory)'),
            ("FactoryClass", 'bridge.plugin("x")(FactoryClass)'),
            (
                "create_app",
                'bridge.mount("x", create_app()), or bridge.plugin("x")(create_app) for one application a '
                "configuration",
            ),
        ]
    ],
    *[
        (name, {"wsgi", "--mount"}, f'from asgi_bridge.wsgi import WSGIApp; bridge.mount("x", WSGIApp({text}))',
         f'wsgi = "tests.plugins.shapes:{name}" in {TABLE}')
        for name, text in [("flask_app", "app"), ("wsgi", "wsgi"), ("WSGIClass", "WSGIClass")]
    ],
    (
        "WSGITiming", {"wsgi_middleware", "--mount"},
        'from asgi_bridge.wsgi import WSGIMiddleware; bridge.add_middleware("x", WSGIMiddleware(WSGITiming))',
        f'wsgi_middleware = "tests.plugins.shapes:WSGITiming" in {TABLE}',
    ),
    (
        "lacks_async", set(), "async def lacks_async(scope, receive, send)",
        "async def lacks_async(scope, receive, send)",
    ),
    (
        "LacksAsync", set(), "async def __call__(self, scope, receive, send)",
        "async def __call__(self, scope, receive, send)",
    ),
    (
        "StarletteClass", set(), 'bridge.mount("x", Starlette())',
        f'app = Starlette() in tests.plugins.shapes, and app = "tests.plugins.shapes:app" in {TABLE}',
    ),
    (
        "FlaskClass", set(), 'from asgi_bridge.wsgi import WSGIApp; bridge.mount("x", WSGIApp(Flask(...)))',
        f'app = Flask(...) in tests.plugins.shapes, and wsgi = "tests.plugins.shapes:app" in {TABLE}',
    ),
    (
        "entry", set(),
        'bridge.add_middleware("x", CORSMiddleware, defaults={"allow_origins": ..., "max_age": ...})',
        'middleware = "starlette.middleware.cors:CORSMiddleware" and '
        f"defaults = {{ allow_origins = ..., max_age = ... }} in {TABLE}",
    ),
    (
        "view", set(),
        "from starlette.applications import Starlette; from starlette.routing import Route; "
        'bridge.mount("x", Starlette(routes=[Route("/{path:path}", view)]))',
        "from starlette.applications import Starlette; from starlette.routing import Route; "
        'bridge.mount("x", Starlette(routes=[Route("/{path:path}", view)]))',
    ),
    (
        "dispatch", set(),
        "from starlette.middleware.base import BaseHTTPMiddleware; "
        'bridge.add_middleware("x", BaseHTTPMiddleware, defaults={"dispatch": dispatch})',
        'middleware = "starlette.middleware.base:BaseHTTPMiddleware" and '
        f'defaults = {{ dispatch = "tests.plugins.shapes:dispatch" }} in {TABLE}',
    ),
    (
        "DjangoMiddleware", set(),
        "it into MIDDLEWARE of Django's settings, and bridge.mount(\"x\", get_asgi_application())",
        "it into MIDDLEWARE of Django's settings, and bridge.mount(\"x\", get_asgi_application())",
    ),
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "works", "in_python", "in_file"), SHAPES, ids=[shape[0] for shape in SHAPES])
def test_a_shape_works_or_is_refused_with_the_line_to_write(
    name: str, works: set[str], in_python: str, in_file: str, way: str, tmp_path: Path
) -> None:
    if way in works or (name == "wrapping_factory" and way in ("add_middleware", "middleware")):
        conf: dict[str, Any] = (
            {} if name != "wrapping_factory" else {"conf": {}} if way in ("add_middleware", "middleware") else {}
        )
        with PluginClient(load(way, name, tmp_path), "x", conf) as client:
            assert client.get("/").text == "here"
        return
    if name == "wrapping_factory" and way == "wsgi_middleware":  # only its result shows that it is no WSGI middleware
        with pytest.raises(ConfigurationError, match="made an ASGI application, which is not a WSGI application"):
            PluginClient(load(way, name, tmp_path), "x", {"conf": {}}).get("/")
        return
    with pytest.raises(ConfigurationError) as caught:
        load(way, name, tmp_path)
    before, found, line = str(caught.value).partition(": write ")
    assert (found, line) == (": write ", in_python if way in PYTHON else in_file)
    assert before.startswith("plugin x: ")


# nothing shows what these are, so they are what they are mounted as


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("unnamed", "mount"),
        ("unnamed", "app"),
        ("unnamed", "--mount"),
        ("anything", "mount"),
        ("anything", "app"),
        ("anything", "--mount"),
        ("no_signature", "mount"),
        ("no_signature", "app"),
        ("closure", "add_middleware"),
        ("closure", "middleware"),
        ("closure", "--mount"),
        ("MadeByNew", "add_middleware"),
        ("MadeByNew", "middleware"),
        ("MadeByNew", "--mount"),
    ],
)
def test_a_shape_that_is_what_its_mount_says(name: str, way: str, tmp_path: Path) -> None:
    with PluginClient(load(way, name, tmp_path), "x") as client:
        assert client.get("/").text == "here"


@pytest.mark.parametrize("way", ["add_middleware", "middleware"])
@pytest.mark.parametrize("name", ["Wrapping", "PlainMiddleware", "ByPosition", "Dataclass", "OldMiddleware", "closure"])
def test_a_middleware_is_configured_by_its_further_parameters(name: str, way: str, tmp_path: Path) -> None:
    assert PluginClient(load(way, name, tmp_path), "x", {"text": "other"}).get("/").text == "other"
    with pytest.raises(ConfigurationError, match="^plugin x: field 'nowhere': Extra inputs are not permitted$"):
        PluginClient(load(way, name, tmp_path), "x", {"nowhere": 1}).get("/")


def test_wsgi_in_its_own_wrappers() -> None:
    bridge = Bridge()
    bridge.mount("app", WSGIApp(shapes.flask_app))
    bridge.mount("class", WSGIApp(shapes.WSGIClass))
    bridge.add_middleware("middleware", WSGIMiddleware(shapes.WSGITiming))

    assert [PluginClient(bridge, name).get("/").text for name in bridge.plugins] == ["here"] * 3


@pytest.mark.parametrize(
    ("wrap", "reason"),
    [
        (
            lambda: WSGIApp(shapes.fastapi_app),  # type: ignore[arg-type]
            'this FastAPI is an ASGI application, not a WSGI application: write bridge.mount("name", app)',
        ),
        (
            lambda: WSGIApp(shapes.ProxyFix),  # type: ignore[arg-type]
            "the class ProxyFix is a WSGI middleware, not a WSGI application: write from asgi_bridge.wsgi import "
            'WSGIMiddleware; bridge.add_middleware("name", WSGIMiddleware(ProxyFix))',
        ),
        (
            lambda: WSGIMiddleware(shapes.CORSMiddleware),  # type: ignore[arg-type]
            "the class CORSMiddleware is a middleware, not a WSGI middleware: write "
            'bridge.add_middleware("name", CORSMiddleware)',
        ),
        (
            lambda: WSGIMiddleware(shapes.flask_app),  # type: ignore[arg-type]
            "this Flask is a WSGI application, not a WSGI middleware: write from asgi_bridge.wsgi import WSGIApp; "
            'bridge.mount("name", WSGIApp(app))',
        ),
    ],
)
def test_the_wrappers_of_wsgi_refuse_what_is_no_wsgi(wrap: Callable[[], object], reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        wrap()
    assert str(caught.value) == reason


# mistakes that only a call shows


def wraps_unnamed(handler: Any) -> Any:
    return lambda scope, receive, send: shapes.here(scope, receive, send)


def returns_a_response(scope: Any, receive: Any, send: Any) -> Any:
    return shapes.here


def decides(scope: Any, receive: Any, send: Any) -> Any:
    return None if scope["type"] == "lifespan" else shapes.here(scope, receive, send)


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (
            returns_a_response,
            "returns_a_response returned PlainTextResponse, which cannot be awaited: write async def for the function "
            "of (scope, receive, send), and await in it what it calls",
        ),
        (
            wraps_unnamed,
            "wraps_unnamed has one parameter, so it was called as an ASGI 2 application, and returned function, not a "
            "function of (receive, send): write (scope, receive, send) if it is an application, "
            'bridge.add_middleware("name", ...) if it takes one, bridge.plugin("name") if it takes a configuration',
        ),
    ],
)
def test_a_wrong_application_is_refused_when_its_lifespan_starts(app: Any, reason: str) -> None:
    bridge = Bridge()
    bridge.mount("mounted", app)
    bridge.plugin("made")(lambda: app)

    for name in ("mounted", "made"):
        with pytest.raises(Exception, match="returned") as caught, PluginClient(bridge, name):
            pass
        assert str(caught.value).removeprefix(f"plugin {name}: ") == reason


def test_an_application_that_answers_nothing_to_lifespan_works() -> None:
    bridge = Bridge()
    bridge.mount("x", decides)

    with PluginClient(bridge, "x") as client:
        assert client.get("/").text == "here"


def returns_middleware(conf: dict[str, Any]) -> Any:
    return shapes.closure


def returns_wsgi(conf: dict[str, Any]) -> Any:
    return shapes.flask_app


def returns_a_class(conf: dict[str, Any]) -> Any:
    return shapes.Starlette


def returns_without_async(conf: dict[str, Any]) -> Any:
    def app(scope: Any, receive: Any, send: Any) -> None: ...

    return app


def returns_a_generator(conf: dict[str, Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> Any:
        yield

    return app


def returns_nothing(conf: dict[str, Any]) -> Any:
    return None


def returns_another_factory(conf: dict[str, Any]) -> Any:
    return shapes.create_app


def limit(rate):  # type: ignore[no-untyped-def]
    return lambda app: app


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (
            returns_middleware,
            "its factory returns_middleware returned a middleware, not an ASGI application: write "
            "def returns_middleware(app, conf), and return closure(app)",
        ),
        (
            returns_wsgi,
            "its factory returns_wsgi returned a WSGI application, not an ASGI application: write "
            "from asgi_bridge.wsgi import WSGIApp; return WSGIApp(app)",
        ),
        (
            returns_a_class,
            "its factory returns_a_class returned a class of ASGI applications, not an ASGI application: write "
            "return Starlette()",
        ),
        (
            returns_without_async,
            "its factory returns_without_async returned a function without async, not an ASGI application: write "
            "async def app(scope, receive, send)",
        ),
        (
            returns_a_generator,
            "its factory returns_a_generator returned a generator function, not an ASGI application: write "
            "async def app(scope, receive, send), without yield",
        ),
        (
            returns_nothing,
            "its factory returned NoneType, not an application: write return in returns_nothing, before the "
            "application",
        ),
        (
            returns_another_factory,
            "its factory returns_another_factory returned a factory without a configuration, not an ASGI application: "
            "write return create_app()",
        ),
    ],
)
def test_what_a_factory_returns_is_judged_at_the_first_preparation(factory: Any, reason: str) -> None:
    bridge = Bridge()
    bridge.plugin("x")(factory)

    with pytest.raises(ConfigurationError) as caught:
        PluginClient(bridge, "x").get("/")
    assert str(caught.value) == f"plugin x: {reason}"


def test_what_a_middleware_returns_is_judged_at_the_first_preparation(tmp_path: Path) -> None:
    bridge = Bridge()
    bridge.add_middleware("paste", shapes.paste_function)
    bridge.add_middleware("limit", limit)
    bridge.add_middleware("bare", shapes.WithoutCall)  # type: ignore[arg-type]
    in_file = load("middleware", "paste_function", tmp_path)

    for client, reason in [
        (
            PluginClient(bridge, "paste"),
            "plugin paste: its middleware paste_function returned a WSGI application, not an ASGI application: write "
            "from asgi_bridge.wsgi import WSGIMiddleware; "
            'bridge.add_middleware("paste", WSGIMiddleware(paste_function))',
        ),
        (
            PluginClient(in_file, "x"),
            "plugin x: its middleware paste_function returned a WSGI application, not an ASGI application: write "
            'wsgi_middleware = "tests.plugins.shapes:paste_function" in [tool.asgi_bridge.plugins.x]',
        ),
        (
            PluginClient(bridge, "bare"),
            "plugin bare: its factory returned WithoutCall, not an application: write async def __call__(self, scope, "
            "receive, send)",
        ),
        (
            PluginClient(bridge, "limit"),
            "plugin limit: its middleware limit returned a middleware, not an ASGI application: write "
            'bridge.add_middleware("limit", limit(...))',
        ),
    ]:
        with pytest.raises(ConfigurationError) as caught:
            client.get("/")
        assert str(caught.value) == reason


# habits from elsewhere


def middleware_line(line: str) -> str:
    return f"write bridge.add_middleware({line})"


@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        (
            lambda bridge: bridge.add_middleware(shapes.CORSMiddleware, allow_origins=["*"]),
            "Bridge.add_middleware: missing a required argument: 'middleware': "
            + middleware_line('"cors", CORSMiddleware, defaults={"allow_origins": ...}'),
        ),
        (
            lambda bridge: bridge.add_middleware("x", shapes.CORSMiddleware, allow_origins=["*"], max_age=5),
            "plugin x: allow_origins, max_age are no options of a mount, but parameters of CORSMiddleware: "
            + middleware_line('"x", CORSMiddleware, defaults={"allow_origins": ..., "max_age": ...}'),
        ),
        (
            lambda bridge: bridge.add_middleware("x", WSGIMiddleware(shapes.ProxyFix), x_for=2, phase="request"),
            "plugin x: x_for is no option of a mount, but a parameter of ProxyFix: "
            + middleware_line('"x", ProxyFix, defaults={"x_for": ...}'),
        ),
        (
            lambda bridge: bridge.configure(
                {"plugins": {"x": {"middleware": "tests.plugins.shapes:Wrapping", "text": "a"}}}
            ),
            "plugin x: text is no option of a mount, but a parameter of Wrapping: write defaults = { text = ... }",
        ),
        (
            lambda bridge: bridge.mount(shapes.here),
            "Bridge.mount: missing a required argument: 'app': write bridge.mount(\"app\", app)",
        ),
        (
            lambda bridge: bridge.mount("x"),
            "Bridge.mount: missing a required argument: 'app': write bridge.mount(\"name\", app)",
        ),
        (
            lambda bridge: bridge.mount(shapes.coroutine_function, "x"),
            'plugin x: the name comes first: write bridge.mount("x", coroutine_function)',
        ),
        (
            lambda bridge: bridge.add_middleware("x", shapes.Wrapping, {"text": "a"}),
            'Bridge.add_middleware: too many positional arguments: write bridge.add_middleware("wrapping", Wrapping)',
        ),
        (
            lambda bridge: bridge.plugin(),
            "Bridge.plugin: missing a required argument: 'name': write @bridge.plugin(\"name\")",
        ),
        (
            lambda bridge: bridge.mount("x", Bridge()),
            "plugin x: this is a Bridge, not an ASGI application: write bridge.include(...)",
        ),
        (
            lambda bridge: bridge.configure({"plugins": {"x": {"factory": "asgi_bridge_apps:bridge"}}}),
            'plugin x: this is a Bridge, not a factory: write bridge = "asgi_bridge_apps:bridge" in [tool.asgi_bridge]',
        ),
        (
            lambda bridge: bridge.mount("x", "main:app"),
            "plugin x: 'main:app' is not an ASGI application: write from main import app; bridge.mount(\"x\", app)",
        ),
        (
            lambda bridge: bridge.add_middleware("x", "main:Cors.inner"),
            "plugin x: 'main:Cors.inner' is not a middleware: write from main import Cors; "
            'bridge.add_middleware("x", Cors.inner)',
        ),
        (lambda bridge: bridge.mount("x", "an app"), "plugin x: 'an app' is not an ASGI application"),
        (
            lambda bridge: bridge.mount("x", shapes),
            "plugin x: the module tests.plugins.shapes is a module, not an ASGI application: write "
            'bridge.mount("x", tests.plugins.shapes.app)',
        ),
        (
            lambda bridge: bridge.mount("x", shapes.too_many),
            "plugin x: the function too_many is no ASGI application: it takes (one, two, three, four): write "
            "async def app(scope, receive, send)",
        ),
        (
            lambda bridge: bridge.add("x", shapes.any_arguments, "main:any_arguments"),
            "plugin x: main:any_arguments is no plugin: it takes any arguments, so nothing tells what it is: write "
            'app, middleware or factory = "module:attr" in [tool.asgi_bridge.plugins.NAME]',
        ),
    ],
)
def test_habits_from_elsewhere_are_told_the_line(mount: Callable[[Any], object], reason: str) -> None:
    bridge = Bridge()

    with pytest.raises(ConfigurationError) as caught:
        mount(bridge)
    assert str(caught.value) == reason
    assert bridge.plugins == {}


def test_a_coroutine_that_nobody_awaited_is_told_apart() -> None:
    coroutine = shapes.async_factory({})
    with pytest.raises(ConfigurationError) as caught:
        Bridge().mount("x", coroutine)  # type: ignore[arg-type]
    coroutine.close()
    assert str(caught.value) == (
        "plugin x: this coroutine is a coroutine that nobody awaited, not an ASGI application: write "
        'bridge.plugin("x")(async_factory), without calling it: the bridge awaits what it returns'
    )


# without a signature to read


def test_a_middleware_without_a_signature_takes_any_object_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge()
    bridge.add_middleware("x", shapes.no_signature_middleware)

    assert bridge.plugins["x"].configuration.check('{"a": [1]}') == {"a": [1]}
    with pytest.raises(ConfigurationError, match="Input should be an object"):
        bridge.plugins["x"].configuration.check("[1]")
    for _ in range(2):
        assert PluginClient(bridge, "x").get("/").status_code == 200
    assert [record.getMessage() for record in caplog.records if "signature" in record.getMessage()] == [
        "plugin x: app has no signature to read, so a route may configure any JSON object"
    ]


def test_a_middleware_compiled_by_mypyc(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    etags = pytest.importorskip("asgi_etags", reason="asgi-etags, which is compiled by mypyc, is not installed")
    target = "asgi_etags:ETagMiddleware"
    (tmp_path / "pyproject.toml").write_text(
        f'{TABLE}\nmiddleware = "{target}"\ndefaults = {{ etag_generator = "{__name__}:tag" }}'
    )
    in_python = Bridge()
    in_python.add_middleware("x", etags.ETagMiddleware, defaults={"etag_generator": tag})

    for bridge in (in_python, load_bridge(None, start=tmp_path)):
        with PluginClient(bridge, "x", {"ignore_paths": None}, upstream=PlainTextResponse("text")) as client:
            assert client.get("/").headers["etag"] == "4"
    line = "plugin x: ETagMiddleware has no signature to read, so a route may configure any JSON object"
    readable = signature_of(etags.ETagMiddleware) is not None  # newer releases of mypyc leave one
    assert [record.getMessage() for record in caplog.records if "signature" in record.getMessage()] == (
        [] if readable else [line, line]
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "pyproject.toml").touch()
    assert load_bridge(None, {"x": target}, start=tmp_path / "empty").plugins["x"].kind == "middleware"
    with pytest.raises(ConfigurationError, match="^plugin x: the class ETagMiddleware is a middleware, not an ASGI"):
        Bridge().mount("x", etags.ETagMiddleware)


def tag(body: bytes) -> str:
    return str(len(body))


# through frames


def test_shapes_answer_and_pass_requests_on_through_a_gateway() -> None:
    bridge = Bridge()
    bridge.add_middleware("plain", Passing, phase="both")
    bridge.add_middleware("future", passing_by_future, phase="both")
    bridge.add_middleware("no-signature", shapes.no_signature_middleware, phase="both")
    bridge.mount("answer", shapes.returns_future)
    passing = [{"name": name, "value": "{}"} for name in ("plain", "future", "no-signature")]
    both = {"ext-plugin-pre-req": {"conf": passing}, "ext-plugin-post-resp": {"conf": passing}}
    answer = {"ext-plugin-pre-req": {"conf": [{"name": "answer", "value": "{}"}]}}
    routes = [{"uri": "/both", "plugins": both}, {"uri": "/answer", "plugins": answer}]

    with TestClient(Gateway(bridge, routes, upstream=PlainTextResponse("upstream"))) as client:
        assert [client.get(path).text for path in ("/both", "/answer", "/both")] == ["upstream", "here", "upstream"]


class Passing:
    def __init__(self, wrapped: ASGIApp) -> None:
        self.wrapped = wrapped

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self.wrapped(scope, receive, send)


def passing_by_future(application: ASGIApp) -> Any:
    return lambda scope, receive, send: asyncio.ensure_future(application(scope, receive, send))


async def async_generator(scope: Any, receive: Any, send: Any) -> Any:
    yield


def generator(scope: Any, receive: Any, send: Any) -> Any:
    yield from ()


class WithYield:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        yield


class Wrapping(WithYield):
    def __init__(self, app: Any) -> None:
        pass


@pytest.mark.parametrize("way", PYTHON)
@pytest.mark.parametrize(
    ("found", "described", "name"),
    [
        (async_generator, "the function async_generator", "async_generator("),
        (generator, "the function generator", "generator("),
        (WithYield().__call__, "the function __call__", "__call__("),
        (WithYield(), "this WithYield", "__call__(self, "),
        (Wrapping, "the class Wrapping", "__call__(self, "),
    ],
)
def test_a_yield_in_an_application_is_told_at_the_mount(way: str, found: Any, described: str, name: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        PYTHON[way](Bridge(), found)
    assert str(raised.value) == (
        f"plugin x: {described} gives a generator when it is called, which nobody can await: write "
        f"async def {name}scope, receive, send), without yield"
    )


class OddSignature:
    @property
    def __signature__(self) -> Any:
        raise RuntimeError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("odd")(scope, receive, send)


class OddAttributes:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("odd")(scope, receive, send)


@pytest.mark.parametrize("found", [OddSignature, OddAttributes])
def test_an_application_whose_attributes_raise_is_an_application(found: Any) -> None:
    bridge = Bridge()
    bridge.mount("x", found())
    with PluginClient(bridge, "x") as client:
        assert client.get("/").text == "odd"
