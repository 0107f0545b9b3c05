"""Plugins whose module is imported when the first route lists them."""

import asyncio
import copy
import threading
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.plugins import Plugin, build_chain
from asgi_bridge.plugins.advice import Place
from asgi_bridge.plugins.deferred import DeferredPlugin
from asgi_bridge.plugins.options import Options


class Middleware:
    """Does nothing."""

    def __init__(self, app: ASGIApp, size: int = 1) -> None:
        self.app = app
        self.size = size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Mounts:
    """Mounts the middleware, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> Plugin:
        self.count += 1
        bridge = Bridge()
        bridge.add_middleware("p", Middleware, phase="request")
        return bridge.plugins["p"]


def deferred(mount: Any, **options: Any) -> DeferredPlugin:
    return DeferredPlugin(Place("p", "somewhere:Middleware"), "middleware", Options(phase="request", **options), mount)


def test_what_the_mount_says_needs_no_import() -> None:
    mounts = Mounts()
    plugin = deferred(mounts, exact=True)

    assert (plugin.name, plugin.kind, plugin.phases, plugin.options.exact) == ("p", "middleware", ["request"], True)
    assert (plugin.application, plugin.shadow, plugin.is_loaded, mounts.count) == (None, None, False, 0)


@pytest.mark.parametrize(
    "use",
    [
        lambda plugin: plugin.describe(),
        lambda plugin: plugin.found,
        lambda plugin: plugin.make,
        lambda plugin: plugin.configuration.check("{}"),
        lambda plugin: plugin.secret_fields,
        lambda plugin: plugin.load(),
    ],
)
def test_it_is_imported_once_at_the_first_use(use: Any) -> None:
    mounts = Mounts()
    plugin = deferred(mounts)
    use(plugin)
    use(plugin)

    assert (plugin.found, plugin.is_loaded, mounts.count) == (Middleware, True, 1)


def test_it_takes_what_the_same_plugin_takes_when_it_is_mounted_at_once() -> None:
    plugin = deferred(Mounts())

    assert plugin.describe() == Mounts()().describe()
    assert plugin.configuration.check('{"size": 2}') == {"size": 2}
    with pytest.raises(ConfigurationError, match="field 'size'"):
        plugin.configuration.check('{"size": "2"}')


@pytest.mark.parametrize("loaded", [False, True])
def test_its_routes_may_name_what_the_bridge_allows(loaded: bool) -> None:
    plugin = deferred(Mounts(), allow=("/etc/one/",))
    if loaded:
        plugin.load()
    allowing = plugin.allowing(["/etc/two/"])

    assert allowing.options.allow == ("/etc/one/", "/etc/two/")
    assert allowing.configuration._rules.allow == ("/etc/one/", "/etc/two/")  # type: ignore[attr-defined]
    assert plugin.options.allow == ("/etc/one/",)
    assert plugin.configuration._rules.allow == ("/etc/one/",)  # type: ignore[attr-defined]


def test_a_copy_with_another_make_keeps_it() -> None:
    def make(conf: Any, app: ASGIApp) -> ASGIApp:
        return app

    plugin = deferred(Mounts()).with_make(make)

    assert plugin.configuration.check("{}") == {}
    assert (plugin.make, plugin.found) == (make, Middleware)


def test_copies_do_not_share_what_is_loaded() -> None:
    plugin = deferred(Mounts())
    other = copy.copy(plugin)
    other.load()

    assert (plugin.is_loaded, other.is_loaded) == (False, True)
    assert deferred(Mounts(), shadow=True).acting().shadow is None


def test_other_attributes_are_missing_as_anywhere() -> None:
    with pytest.raises(AttributeError, match="'DeferredPlugin' object has no attribute 'colour'"):
        deferred(Mounts()).colour  # noqa: B018


def failing() -> Plugin:
    raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")


def mounted_wrongly() -> Plugin:
    bridge = Bridge()
    bridge.add_middleware("p", Middleware, phase="never")  # type: ignore[arg-type]
    return bridge.plugins["p"]


async def refused(mount: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        await build_chain({"p": deferred(mount)}, b"key", [(b"p", b"{}")], None)
    assert str(refusal.value).startswith(reason)


@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        (failing, "plugin p: somewhere:Middleware cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        (mounted_wrongly, "plugin p: option phase: "),
    ],
)
def test_a_route_whose_plugin_cannot_be_imported_is_refused(mount: Any, reason: str) -> None:
    asyncio.run(refused(mount, reason))


def test_other_calls_go_on_while_a_module_is_imported() -> None:
    event = threading.Event()

    def slow() -> Plugin:
        assert event.wait(60)  # the loop sets it, so the loop goes on
        return Mounts()()

    async def main() -> list[str]:
        asyncio.get_running_loop().call_later(0.05, event.set)
        chain = await build_chain({"p": deferred(slow)}, b"key", [(b"p", b"{}"), (b"p", b"{}")], None)
        return [layer.name for layer in chain.layers]

    assert asyncio.run(main()) == ["p", "p"]


def test_a_configuration_of_a_plugin_that_takes_long_to_import_is_refused_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event = threading.Event()
    monkeypatch.setattr("asgi_bridge.plugins.build.BUILD_SECONDS", 0.05)

    def slow() -> Plugin:
        assert event.wait(60)
        return Mounts()()

    async def main() -> list[str]:
        plugins = {"p": deferred(slow)}
        with pytest.raises(ConfigurationError, match="^plugin p: building took more than"):
            await build_chain(plugins, b"key", [(b"p", b"{}")], None)
        event.set()
        monkeypatch.setattr("asgi_bridge.plugins.build.BUILD_SECONDS", 30)
        chain = await build_chain(plugins, b"key", [(b"p", b"{}")], None)
        return [layer.name for layer in chain.layers]

    assert asyncio.run(main()) == ["p"]
