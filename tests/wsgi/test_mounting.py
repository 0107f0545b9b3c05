"""How WSGI code is mounted: signatures, and the keys of a pyproject.toml."""

import functools
import inspect
from pathlib import Path
from typing import Any, Literal

import pytest
from starlette.types import ASGIApp
from werkzeug.middleware.proxy_fix import ProxyFix

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.loading import load_bridge
from asgi_bridge.testing import PluginClient
from asgi_bridge.wsgi import WSGIApp, WSGIMiddleware

from .calls import call, responding, started

hello = started(b"hello")


class Named:
    """Answers by itself."""

    def __init__(self, application: Any, word: Literal["a", "b"], *, times: int = 1) -> None:
        self.text = word * times

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return started(self.text.encode())(environ, start_response)


def anything(*arguments: Any, **options: Any) -> Any:
    return started(repr(sorted(options)).encode())


def conf(wsgi: Any, conf: int) -> Any:
    return started(b"%d" % conf)


def clash(wsgi: Any, app: int = 1) -> Any:
    return started(b"%d" % app)


class Callable:
    def __call__(self, wsgi: Any, times: int = 2) -> Any:
        return started(b"x" * times)


@pytest.mark.parametrize(
    ("middleware", "options", "body"),
    [
        (Named, '{"word": "a"}', "a"),
        (Named, '{"word": "b", "times": 3}', "bbb"),
        (functools.partial(Named, times=4), '{"word": "a"}', "aaaa"),
        (anything, '{"y": 1, "x": 2}', "['x', 'y']"),
        (conf, '{"conf": 5}', "5"),
        (clash, '{"app": 5}', "5"),
        (Callable(), '{"times": 1}', "x"),
    ],
)
def test_middleware_of_every_form(middleware: Any, options: str, body: str) -> None:
    bridge = Bridge()
    bridge.add_middleware("it", WSGIMiddleware(middleware))
    assert PluginClient(bridge, "it", options).get("/").text == body


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("{}", "field 'word': Field required"),
        ('{"word": "c"}', "field 'word': Input should be 'a' or 'b'"),
        ('{"word": "a", "times": "2"}', "field 'times': Input should be a valid integer"),
        ('{"word": "a", "application": 1}', "field 'application'"),
        ('{"word": "a", "app": 1}', "field 'app'"),
    ],
)
def test_configuration_is_checked_against_the_wsgi_middleware_s_signature(options: str, reason: str) -> None:
    bridge = Bridge()
    bridge.add_middleware("it", WSGIMiddleware(Named))
    with pytest.raises(ConfigurationError, match=f"plugin it: {reason}"):
        PluginClient(bridge, "it", options).get("/")


def test_the_asgi_middleware_looks_like_the_wsgi_middleware() -> None:
    made: Any = WSGIMiddleware(Named)
    assert (made.__name__, made.__qualname__, made.__doc__, made.__module__) == (
        "Named", "Named", "Answers by itself.", __name__,
    )  # fmt: skip
    app, word, times = inspect.signature(made).parameters.values()
    assert (app.name, app.annotation, app.kind) == ("app", ASGIApp, app.POSITIONAL_ONLY)
    assert (word.name, word.default) == ("word", word.empty)
    assert (times.name, times.default, times.kind) == ("times", 1, times.KEYWORD_ONLY)


def nothing(app: Any) -> Any:
    """A WSGI middleware that lacks its return."""


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: WSGIApp(1), "1 is not a WSGI application"),  # type: ignore[arg-type]
        (lambda: WSGIMiddleware(1), "1 is not a WSGI middleware"),  # type: ignore[arg-type]
        (lambda: WSGIMiddleware(dict), "the class dict is no WSGI middleware: "),  # type: ignore[arg-type]
        (lambda: WSGIMiddleware(lambda: hello), "a factory without a configuration, not a WSGI middleware"),
        (lambda: WSGIMiddleware(lambda *, app: hello), "is no WSGI middleware"),
        (lambda: WSGIMiddleware(nothing)(responding()), "made None, which is not a WSGI application"),
    ],
)
def test_what_cannot_work(make: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        make()


def test_keys_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        f"""
        [tool.asgi_bridge.plugins.hello]
        wsgi = "{__name__}:hello"
        threads = 2
        pool = "of a file"
        timeout = 3.0

        [tool.asgi_bridge.plugins.named]
        wsgi_middleware = "{__name__}:Named"
        threads = 2
        pool = "of a file"
        defaults = {{ word = "b" }}
        phase = "request"
        """
    )
    bridge = load_bridge(None, start=tmp_path)
    assert [(plugin.kind, plugin.options.timeout, plugin.phases) for plugin in bridge.plugins.values()] == [
        ("application", 3.0, ["request", "response"]),
        ("middleware", 30.0, ["request"]),
    ]
    assert PluginClient(bridge, "hello").get("/").text == "hello"
    assert PluginClient(bridge, "named", '{"times": 2}').get("/").text == "bb"


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"wsgi": f"{__name__}:hello", "threads": 0}, "threads is a number of threads, not 0"),
        ({"wsgi": f"{__name__}:hello", "defaults": {}}, "has defaults, which only a middleware or a factory takes"),
        ({"wsgi": f"{__name__}:__name__"}, "is not a WSGI application"),
        ({"wsgi": f"{__name__}:hello", "app": f"{__name__}:hello"}, "must have one of"),
        ({"wsgi_middleware": f"{__name__}:Named", "defaults": {"word": "c"}}, "default 'word'"),
        ({"app": "asgi_bridge:upstream", "threads": 1}, "threads"),
        ({"app": f"{__name__}:hello"}, f'write wsgi = "{__name__}:hello" in'),
    ],
)
def test_tables_that_cannot_work(table: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Bridge().configure({"plugins": {"x": table}})


def test_entry_points_and_mounts_see_a_middleware() -> None:
    bridge = Bridge()
    bridge.add("fix", WSGIMiddleware(ProxyFix))
    bridge.add("hello", WSGIApp(hello))
    assert [plugin.kind for plugin in bridge.plugins.values()] == ["middleware", "application"]


def test_outside_the_bridge_both_are_plain_asgi() -> None:
    assert call(WSGIMiddleware(Named)(responding(), word="a", times=2))[2] == b"aa"
    assert call(WSGIApp(hello))[2] == b"hello"
