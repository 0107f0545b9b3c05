"""Where the plugins of a runner come from: a target, pyproject.toml, entry points, mounts."""

import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from starlette.middleware.cors import CORSMiddleware

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.loading import load_bridge
from asgi_bridge.testing import PluginClient

MODULE = """
import os
from asgi_bridge import Bridge
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse

async def app(scope, receive, send):
    await PlainTextResponse("app")(scope, receive, send)

def factory(conf: dict):
    return PlainTextResponse("factory " + conf.get("text", ""))

def wrapping(app, conf: dict):
    return app

class Both:
    def __init__(self, app, conf=None):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)

def keywords(app, number: int = 1):
    return app

bridge = Bridge()
bridge.mount("own", app)

def make_bridge():
    return bridge

async def make_bridge_later():
    return bridge

def wsgi_app(environ, start_response):
    start_response("200 OK", [])
    return [b"wsgi"]

def make_app():
    return app

def make_error():
    return os.environ["TOKEN"]

def make_nothing():
    return 5

def wants_more(settings):
    return bridge

nothing = Bridge()
ORIGINS = ["https://a.test"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to look for a pyproject.toml in, with a module of plugins to import."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "some_plugins.py").write_text(MODULE)
    monkeypatch.syspath_prepend(modules)
    found = tmp_path / "project"
    found.mkdir()
    return found


SOURCES = (
    '[tool.asgi_bridge.plugins.x] must have one of app, middleware, factory, wsgi and wsgi_middleware, as "module:attr"'
)

ADD_ONE = "; add one with mount, add_middleware or plugin of a Bridge"


def table(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(textwrap.dedent(text), "utf-8")


def kinds(bridge: Bridge) -> dict[str, str]:
    return {name: plugin.kind for name, plugin in bridge.plugins.items()}


def refusal(target: str | None, folder: Path, mounts: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_bridge(target, mounts, start=folder)
    return str(caught.value).replace(str(folder), "FOLDER")


# a target


@pytest.mark.parametrize("target", ["some_plugins:bridge", "some_plugins:make_bridge"])
def test_a_target_is_a_bridge_or_a_function_that_returns_one(folder: Path, target: str) -> None:
    table(folder, "[tool.asgi_bridge]\nnot = 'looked at'")

    assert kinds(load_bridge(target, start=folder)) == {"own": "application"}


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("some_plugins:make_nothing", "int"),
        ("some_plugins:wants_more", "function; --mount wants-more=some_plugins:wants_more mounts a factory"),
        (
            "some_plugins:make_bridge_later",
            "function; --mount make-bridge-later=some_plugins:make_bridge_later mounts a factory",
        ),
        ("some_plugins:ORIGINS", "list"),
    ],
)
def test_another_target_is_refused(folder: Path, target: str, found: str) -> None:
    assert refusal(target, folder) == (
        f"{target} is no Bridge, no function that returns one, and no ASGI application, but {found}"
    )


@pytest.mark.parametrize(
    ("target", "name", "kind"),
    [
        ("some_plugins:app", "app", "application"),
        ("some_plugins:make_app", "make-app", "application"),
        ("some_plugins:wsgi_app", "wsgi-app", "application"),
        ("some_plugins:keywords", "keywords", "middleware"),
        ("starlette.middleware.cors:CORSMiddleware", "cors", "middleware"),
    ],
)
def test_a_target_may_be_an_application_or_a_middleware(folder: Path, target: str, name: str, kind: str) -> None:
    assert kinds(load_bridge(target, start=folder)) == {name: kind}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from some_plugins import bridge, app", {"own": "application"}),
        ("from some_plugins import bridge as gate, app", {"own": "application"}),
        ("from some_plugins import nothing, bridge", {"own": "application"}),
        ("from some_plugins import make_bridge as bridge", {"own": "application"}),
        ("from some_plugins import app", {"app": "application"}),
        ("from some_plugins import app as application", {"application": "application"}),
        ("from some_plugins import app as api, factory", {"api": "application"}),
    ],
)
def test_a_module_stands_for_its_bridge_or_application(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: dict[str, str]
) -> None:
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "alone", raising=False)
    (folder / "alone.py").write_text(text)

    assert kinds(load_bridge("alone", start=folder)) == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "alone has no Bridge, and nothing called app or application or api; name what to run as \"alone:attr\""),
        ("app = 5", "alone has no Bridge, and nothing called app or application or api; name what to run as "
         "\"alone:attr\""),
        ("from asgi_bridge import Bridge\na, b = Bridge(), Bridge()",
         "alone has several Bridges; name one of them: alone:a, alone:b"),
        ("from asgi_bridge import Bridge\ngate = Bridge()",
         "no plugins in the Bridge alone:gate" + ADD_ONE),
    ],
)  # fmt: skip
def test_a_module_that_does_not_say_what_to_run_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "alone", raising=False)
    (folder / "alone.py").write_text(text)

    assert refusal("alone", folder) == reason


def test_a_function_that_should_return_a_bridge_and_raises_is_named(folder: Path) -> None:
    assert refusal("some_plugins:make_error", folder) == "some_plugins:make_error() raised KeyError: 'TOKEN'"
    table(folder, "[tool.asgi_bridge]\nbridge = 'some_plugins:make_error'")
    assert refusal(None, folder) == "some_plugins:make_error() raised KeyError: 'TOKEN'"


def test_a_bridge_loaded_is_not_the_bridge_named(folder: Path) -> None:
    assert kinds(load_bridge("some_plugins:bridge", {"more": "some_plugins:app"}, start=folder)) == {
        "own": "application",
        "more": "application",
    }
    assert kinds(load_bridge("some_plugins:bridge", start=folder)) == {"own": "application"}


# mounts


def test_mounts_are_taken_for_what_they_are(folder: Path) -> None:
    mounts = {
        "app": "some_plugins:app",
        "cors": "starlette.middleware.cors:CORSMiddleware",
        "class-of-both": "some_plugins:Both",
        "keywords": "some_plugins:keywords",
        "factory": "some_plugins:factory",
        "wrapping": "some_plugins:wrapping",
        "ignored": "some_plugins:bridge",
    }

    assert kinds(load_bridge(None, mounts, start=folder)) == {
        "app": "application",
        "cors": "middleware",
        "class-of-both": "middleware",
        "keywords": "middleware",
        "factory": "factory",
        "wrapping": "factory",
        "own": "application",
    }


def test_a_mounted_class_of_app_and_conf_works(folder: Path) -> None:
    bridge = load_bridge(None, {"both": "some_plugins:Both"}, start=folder)

    assert PluginClient(bridge, "both", {"conf": 1}).get("/").status_code == 200


def test_a_mount_of_a_name_that_is_there_is_refused(folder: Path) -> None:
    reason = "plugin own: the name is mounted already; each plugin has a name of its own"

    assert refusal("some_plugins:bridge", folder, {"own": "some_plugins:app"}) == reason
    assert refusal("some_plugins:bridge", folder, {"x": "some_plugins:bridge"}) == reason


# pyproject.toml


def test_the_nearest_pyproject_says_what_to_run(folder: Path) -> None:
    table(
        folder,
        """
        [tool.asgi_bridge]
        bridge = "some_plugins:make_bridge"
        [tool.asgi_bridge.plugins.app]
        app = "some_plugins:app"
        timeout = 5
        [tool.asgi_bridge.plugins.cors]
        middleware = "starlette.middleware.cors:CORSMiddleware"
        defaults = { allow_origins = ["*"], max_age = 7 }
        on_error = "open"
        [tool.asgi_bridge.plugins.say]
        factory = "some_plugins:factory"
        """,
    )
    (folder / "deep" / "er").mkdir(parents=True)
    bridge = load_bridge(None, start=folder / "deep" / "er")

    assert kinds(bridge) == {"own": "application", "app": "application", "cors": "middleware", "say": "factory"}
    assert bridge.plugins["app"].options.timeout == 5.0
    assert bridge.plugins["cors"].options.on_error == "open"
    assert bridge.plugins["cors"].configuration.check("") == {"allow_origins": ["*"], "max_age": 7}
    assert PluginClient(bridge, "say", {"text": "x"}).get("/").text == "factory x"


def test_the_working_directory_is_where_the_search_begins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(folder, "[tool.asgi_bridge]\nbridge = 'some_plugins:bridge'")
    monkeypatch.chdir(folder)

    assert kinds(load_bridge(None)) == {"own": "application"}


@pytest.mark.parametrize("text", ["", "tool = 5", "[tool.asgiref]\na = 1", "[[tool]]"])
def test_a_nearest_pyproject_without_the_table_is_none(folder: Path, text: str) -> None:
    table(folder, "[tool.asgi_bridge]\nbridge = 'some_plugins:bridge'")
    (folder / "nearer").mkdir()
    table(folder / "nearer", text)

    assert kinds(load_bridge(None, {"app": "some_plugins:app"}, start=folder / "nearer")) == {"app": "application"}


MISSHAPED = '[tool.asgi_bridge]: bridge must be a string, "module:attr", and allow a list of strings'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tool.asgi_bridge = 5", "FOLDER/pyproject.toml: [tool.asgi_bridge] must be a table"),
        ("a = ", "FOLDER/pyproject.toml cannot be read: Invalid value (at end of document)"),
        (
            "[tool.asgi_bridge]\nbrige = 'a:b'\naap = 1",
            "[tool.asgi_bridge] has no key aap, brige; it has bridge, plugins and allow; did you mean 'bridge'?",
        ),
        ("[tool.asgi_bridge]\nbridge = 5", MISSHAPED),
        ("[tool.asgi_bridge]\nbridge = ['a:b']", MISSHAPED),
        ("[tool.asgi_bridge]\nbridge = 'a:b'\nallow = '/etc/keys/'", MISSHAPED),
        (
            "[tool.asgi_bridge]\nplugins = ['a:b']",
            "[tool.asgi_bridge.plugins] must be a table of tables, one for each plugin",
        ),
        ("[tool.asgi_bridge.plugins]\nx = 'a:b'", "[tool.asgi_bridge.plugins.x] must be a table"),
        (
            "[tool.asgi_bridge.plugins.x]",
            SOURCES,
        ),
        (
            "[tool.asgi_bridge.plugins.x]\napp = 'some_plugins:app'\nmiddleware = 'some_plugins:Both'",
            SOURCES,
        ),
        (
            "[tool.asgi_bridge.plugins.x]\napp = 'some_plugins:app'\ndefaults = {}",
            "[tool.asgi_bridge.plugins.x] has defaults, which only a middleware or a factory takes",
        ),
        (
            "[tool.asgi_bridge.plugins.x]\nmiddleware = 'some_plugins:Both'\ndefaults = 5",
            "[tool.asgi_bridge.plugins.x]: defaults must be a table",
        ),
        (
            "[tool.asgi_bridge.plugins.x]\nmiddleware = 'some_plugins:keywords'\ndefaults = {number = 'x'}",
            "plugin x: default 'number': Input should be a valid integer",
        ),
        (
            "[tool.asgi_bridge.plugins.x]\napp = 'some_plugins:app'\nname = 'y'",
            "plugin x: option name: there is no such option; did you mean 'sample'?",
        ),
        (
            "[tool.asgi_bridge.plugins.x]\nfactory = 'some_plugins:factory'\ntimeout = 0",
            "plugin x: option timeout: Input should be greater than 0",
        ),
        (
            "[tool.asgi_bridge.plugins.x]\nfactory = 'some_plugins:ORIGINS'",
            "plugin x: ['https://a.test'] is not a factory: write def factory(conf), or def factory(app, conf) for a "
            "middleware",
        ),
        (
            "[tool.asgi_bridge.plugins.x]\nmiddleware = 'some_plugins:ORIGINS'",
            "plugin x: ['https://a.test'] is not a middleware: write def middleware(app), with what a route configures "
            "as keyword arguments",
        ),
        (
            "[tool.asgi_bridge.plugins.x]\napp = 'some_plugins:ORIGINS'",
            "plugin x: ['https://a.test'] is not an ASGI application: write async def app(scope, receive, send)",
        ),
        (
            "[tool.asgi_bridge.plugins.x]\napp = 'some_plugins:nothing_there'",
            "[tool.asgi_bridge.plugins.x] app: cannot import 'some_plugins:nothing_there': 'some_plugins' has no "
            "attribute 'nothing_there'; did you mean 'nothing'?",
        ),
        (
            "[tool.asgi-bridge]",
            "FOLDER/pyproject.toml has a table [tool.asgi-bridge]; did you mean [tool.asgi_bridge]?",
        ),
        (
            "[tool.asgi_brdige.plugins.x]",
            "FOLDER/pyproject.toml has a table [tool.asgi_brdige]; did you mean [tool.asgi_bridge]?",
        ),
        ("[tool.asgibridge]", "FOLDER/pyproject.toml has a table [tool.asgibridge]; did you mean [tool.asgi_bridge]?"),
        ("[asgi_bridge]", "FOLDER/pyproject.toml has a table [asgi_bridge]; did you mean [tool.asgi_bridge]?"),
        ("[tool.asgi_bridge.plugins.x]\nmidleware = 'some_plugins:Both'", SOURCES + "; did you mean 'middleware'?"),
        (
            "[tool.asgi_bridge.plugins.x]\napp = 'some_plugins:app'\nrequest-body = false",
            "plugin x: option request-body: there is no such option; did you mean 'request_body'?",
        ),
        (
            "[tool.asgi_bridge]",
            "no plugins in [tool.asgi_bridge] in FOLDER/pyproject.toml" + ADD_ONE,
        ),
        (
            "[tool.asgi_bridge]\nbridge = 'some_plugins:nothing'",
            "no plugins in [tool.asgi_bridge] in FOLDER/pyproject.toml, its Bridge some_plugins:nothing" + ADD_ONE,
        ),
    ],
)
def test_a_table_that_cannot_work_is_refused(folder: Path, text: str, reason: str) -> None:
    table(folder, text)

    assert refusal(None, folder) == reason


def test_a_pyproject_that_is_not_utf_8_is_refused(folder: Path) -> None:
    (folder / "pyproject.toml").write_bytes(b"a = '\xff'")

    assert refusal(None, folder).startswith("FOLDER/pyproject.toml cannot be read: 'utf-8' codec")


# entry points


def install(folder: Path, name: str, points: dict[str, str]) -> None:
    """What an installed distribution leaves in sys.path, for importlib.metadata to find."""
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    lines = [f"{point} = {value}" for point, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[asgi_bridge.plugins]", *lines]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "site"
    found.mkdir()
    monkeypatch.syspath_prepend(found)
    return found


def test_without_a_table_the_entry_points_are_run(folder: Path, site: Path) -> None:
    install(site, "one", {"say": "some_plugins:factory", "cors": "starlette.middleware.cors:CORSMiddleware"})
    install(site, "two", {"all-of-it": "some_plugins:bridge"})
    table(folder, "")

    bridge = load_bridge(None, start=folder)

    assert {"say": "factory", "cors": "middleware", "own": "application"}.items() <= kinds(bridge).items()


def test_entry_points_are_not_looked_at_beside_a_table(folder: Path, site: Path) -> None:
    install(site, "one", {"say": "some_plugins:factory"})
    table(folder, "[tool.asgi_bridge]\nbridge = 'some_plugins:bridge'")

    assert kinds(load_bridge(None, start=folder)) == {"own": "application"}


def test_two_distributions_with_the_same_plugin_are_refused(folder: Path, site: Path) -> None:
    install(site, "one", {"say": "some_plugins:factory"})
    install(site, "two", {"say": "some_plugins:app"})

    assert refusal(None, folder) == "plugin say: the name is mounted already; each plugin has a name of its own"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("nowhere_at_all:x", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("some_plugins:nothing_there", "AttributeError: module 'some_plugins' has no attribute 'nothing_there'"),
        ("broken_plugins:x", "ZeroDivisionError: division by zero"),
    ],
)
def test_an_entry_point_that_cannot_be_loaded_is_named(folder: Path, site: Path, value: str, reason: str) -> None:
    install(site, "one", {"say": value})
    (site / "broken_plugins.py").write_text("1 / 0")

    assert refusal(None, folder) == f"entry point say = {value!r}: {reason}"


# nothing


def test_nothing_to_run_is_an_error_that_says_what_to_do(folder: Path) -> None:
    table(folder, "")

    assert refusal("some_plugins:nothing", folder) == (
        "no plugins in the Bridge some_plugins:nothing; add one with mount, add_middleware or plugin of a Bridge"
    )
    assert refusal("some_plugins:nothing", folder, {"x": "some_plugins:nothing"}) == (
        "no plugins in the Bridge some_plugins:nothing, some_plugins:nothing of --mount x; add one with mount, "
        "add_middleware or plugin of a Bridge"
    )
    assert kinds(load_bridge("some_plugins:nothing", {"x": "some_plugins:app"}, start=folder)) == {"x": "application"}
    assert refusal(None, folder) == (
        'no plugins: give the "module:attr" of a Bridge or --mount NAME=module:attr, write a [tool.asgi_bridge] table '
        "into pyproject.toml, or install a package with entry points of the group 'asgi_bridge.plugins'"
    )


def test_an_object_may_be_added_too() -> None:
    bridge = Bridge()
    bridge.add("cors", CORSMiddleware)
    bridge.add("builtin", _NoSignature())

    assert kinds(bridge) == {"cors": "middleware", "builtin": "application"}


class _NoSignature:
    @property
    def __signature__(self) -> Any:
        raise ValueError("no signature")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...
