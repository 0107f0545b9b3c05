"""Instances: the applications that plugins build, which chains share them, and when their lifespans start and stop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pydantic
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError, apisix, upstream
from asgi_bridge.plugins import Chain, ConfigurationStore
from asgi_bridge.plugins import instances as module
from asgi_bridge.plugins import store as store_module
from asgi_bridge.testing import Gateway

from .calls import FakeCall, answering

Conf = list[tuple[bytes | None, bytes | None]]

PRE = b"route#1#ext-plugin-pre-req#1"
POST = b"route#1#ext-plugin-post-req#1"
RESPONSE = b"route#1#ext-plugin-post-resp#1"
OTHER = b"route#2#ext-plugin-pre-req#1"
ONCE: Conf = [(b"once", b"{}")]


class Registry:
    """A registry of metrics, in which a name can be registered once."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def register(self, name: str) -> None:
        if name in self.names:
            raise ValueError(f"Duplicated timeseries: {name}")
        self.names.append(name)


def metered(**options: Any) -> tuple[Bridge, Registry]:
    """A bridge with a middleware that registers a metric when it is built."""
    bridge, registry = Bridge(), Registry()

    class Metered:
        def __init__(self, app: ASGIApp, metric: str = "requests") -> None:
            registry.register(metric)
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope, receive, send)

    bridge.add_middleware("once", Metered, **options)
    return bridge, registry


def run(bridge: Bridge, *prepared: tuple[bytes | None, Conf]) -> list[list[ASGIApp]]:
    """Prepare each configuration, and return the applications of each chain."""

    async def main() -> list[list[ASGIApp]]:
        store = ConfigurationStore(bridge.plugins)
        await store.start()
        found = []
        for key, conf in prepared:
            chain = store.find(await store.prepare(key, conf))
            assert chain is not None
            found.append([layer.app for layer in chain.layers])
            call = FakeCall()
            call.phase = "response" if key and b"post-resp" in key else "request"
            await call.through(chain)
            assert call.status() == 200
        await store.close()
        return found

    return asyncio.run(main())


async def settle(store: ConfigurationStore | None = None) -> None:
    """Let everything run that can run without waiting, and the work in the thread of `store`."""
    if store is not None:
        await settle()
        await asyncio.get_running_loop().run_in_executor(store._thread, lambda: None)
    for _ in range(30):
        await asyncio.sleep(0)


class Life:
    """A factory of applications that count how often their lifespans started and stopped."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.made: list[ASGIApp] = []

    def __call__(self, conf: dict[str, Any]) -> ASGIApp:
        app = Starlette(lifespan=self.lifespan, routes=[Mount("/", upstream)])
        self.made.append(app)
        return app

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.events.append("up")
        yield
        self.events.append("down")


def living(**options: Any) -> tuple[Bridge, Life]:
    bridge, life = Bridge(), Life()
    bridge.plugin("live", **options)(life.__call__)
    bridge.mount("other", upstream)
    return bridge, life


def conf_of(number: int) -> Conf:
    return [(b"live", b'{"a": %d}' % number)]


# which chains share it


@pytest.mark.parametrize("options", [{"phase": "both"}, {}, {"on_error": "open"}])
def test_the_lists_of_a_route_share_what_can_be_built_once_only(options: dict[str, Any]) -> None:
    bridge, registry = metered(**options)
    keys = [
        PRE,
        POST,
        RESPONSE,
        b"route#1#ext-plugin-pre-req#2",
        b"route#1#ext-plugin-pre-req#2#9",
        b"route&consumer#1&jack#ext-plugin-pre-req#1&1",
        b"route&consumer#1&jill#ext-plugin-post-resp#1&1",
        b"route&service#1&5#ext-plugin-post-resp#1&1",
    ]
    found = run(bridge, *[(key, ONCE) for key in keys], (PRE, [(b"once", b"")]), (RESPONSE, [(b"once", b" {\n} ")]))

    assert len({id(app) for (app,) in found}) == 1
    assert registry.names == ["requests"]


def test_through_the_gateway_both_phases_of_a_route_run_what_can_be_built_once_only() -> None:
    bridge, registry = metered(phase="both")
    conf = {"conf": [{"name": "once", "value": "{}"}]}
    route = {"uri": "/*", "plugins": {"ext-plugin-pre-req": conf, "ext-plugin-post-resp": conf}}
    with TestClient(Gateway(bridge, [route])) as client:
        assert [client.get("/").status_code for _ in range(2)] == [200, 200]

    assert registry.names == ["requests"]


def test_a_global_rule_has_its_own_in_all_its_lists() -> None:
    bridge, _life = living()
    pre, response = b"global_rule#1#ext-plugin-pre-req#1", b"global_rule#1#ext-plugin-post-resp#1"
    (one,), (same,), (route,) = run(bridge, (pre, conf_of(1)), (response, conf_of(1)), (PRE, conf_of(1)))

    assert one is same and one is not route


def test_other_routes_configurations_and_names_have_their_own() -> None:
    bridge, life = living()
    bridge.plugin("twin")(life.__call__)
    lists: list[tuple[bytes, Conf]] = [
        (PRE, conf_of(1)),
        (OTHER, conf_of(1)),
        (PRE, conf_of(2)),
        (PRE, [(b"live", b'{"a": 1.0}')]),
        (PRE, [(b"live", b'{"a": true}')]),
        (PRE, [(b"live", b'{"a": "1"}')]),
        (PRE, [(b"live", b'{"a": 1, "b": 2}')]),
        (PRE, [(b"live", b'{"b": 2, "a": 1}')]),  # code that reads the keys in their order may do something else
        (PRE, [(b"twin", b'{"a": 1}')]),
    ]
    found = run(bridge, *lists)

    assert len({id(app) for (app,) in found}) == len(life.made) == len(lists)


@pytest.mark.parametrize(
    "key", [None, b"", b"1", b"route##ext-plugin-pre-req#1", b"route&consumer#&jack#ext-plugin-pre-req#1&1"]
)
def test_without_a_route_nothing_is_shared(key: bytes | None) -> None:
    """Otherwise two routes with the same plugins would count into one limiter."""
    bridge, _life = living()
    one, other = run(bridge, (key, conf_of(1)), (key, [*conf_of(1), (b"other", b"")]))

    assert one[0] is not other[0]


def test_one_that_is_listed_twice_has_two_and_other_lists_share_them_in_order() -> None:
    """As under a server, the second is called inside the first."""
    bridge, _life = living()
    one, other = run(bridge, (PRE, conf_of(1) * 2), (RESPONSE, [(b"other", b""), *conf_of(1) * 2]))

    assert one == other[1:] and one[0] is not one[1]


def test_one_that_admits_one_request_at_a_time_may_be_listed_twice() -> None:
    bridge = Bridge()

    @bridge.plugin("alone")
    def alone() -> ASGIApp:
        lock = asyncio.Lock()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                async with lock:
                    await upstream(scope, receive, send)

        return app

    run(bridge, (PRE, [(b"alone", b"")] * 2))


# share


def test_a_shared_one_is_built_once_for_all_routes() -> None:
    bridge, registry = metered(share=True)
    keys = (PRE, RESPONSE, OTHER, b"global_rule#1#ext-plugin-pre-req#1", None, b"")
    found = run(bridge, *[(key, ONCE) for key in keys], (PRE, ONCE * 2))

    assert len({id(app) for apps in found for app in apps}) == 1
    assert registry.names == ["requests"]


def test_a_shared_one_of_another_configuration_is_another() -> None:
    bridge, registry = metered(share=True)
    run(bridge, (PRE, ONCE), (PRE, [(b"once", b'{"metric": "mine"}')]), (OTHER, [(b"once", b'{"metric":"mine"}')]))

    assert registry.names == ["requests", "mine"]


def test_a_shared_one_is_not_built_again_after_no_chain_had_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_CHAINS", 1)
    bridge, life = living(share=True)

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins)
        for key, conf in ((PRE, conf_of(1)), (PRE, [(b"other", b"")]), (OTHER, conf_of(1))):
            await store.prepare(key, conf)
            await settle()
        assert life.events == ["up", "down", "up"]
        await store.close()

    asyncio.run(main())

    assert (len(life.made), life.events) == (1, ["up", "down"] * 2)


def test_shared_ones_that_no_chain_has_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SHARED", 2)
    monkeypatch.setattr(store_module, "MAX_CHAINS", 1)
    bridge, life = living(share=True)

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins)
        for number in (1, 2, 3, 4, 1, 4):
            await store.prepare(PRE, conf_of(number))
            await settle()
        assert len(life.made) == 5  # the first was forgotten, the fourth was not
        await store.close()

    asyncio.run(main())


# one instance in several chains


def test_what_it_wraps_is_the_next_layer_of_the_chain_that_is_called() -> None:
    bridge, entered = Bridge(), asyncio.Event()

    class Wraps:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and apisix(scope).route_id == "2":
                entered.set()
            elif scope["type"] == "http":
                await entered.wait()  # until the other chain's call is inside too
            await self.app(scope, receive, send)

    bridge.add_middleware("wraps", Wraps, share=True)
    bridge.mount("answers", answering(418))

    async def main() -> list[int | None]:
        store = ConfigurationStore(bridge.plugins)
        chains: list[Chain] = []
        for key, conf in ((PRE, [(b"wraps", b"")]), (OTHER, [(b"wraps", b""), (b"answers", b"")])):
            chain = store.find(await store.prepare(key, conf))
            assert chain is not None
            chains.append(chain)
        calls = [FakeCall() for _ in chains]
        await asyncio.gather(*[call.through(chain) for call, chain in zip(calls, chains, strict=True)])
        await store.close()
        return [call.status() for call in calls]

    assert asyncio.run(main()) == [200, 418]


def test_its_lifespan_starts_once_and_stops_when_no_chain_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_CHAINS", 2)
    bridge, life = living()

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins)
        seen = []
        for key, conf in (
            (PRE, conf_of(1)),
            (RESPONSE, conf_of(1)),
            (OTHER, [(b"other", b"")]),
            (OTHER, [(b"other", b"1")]),
            (PRE, conf_of(1)),
        ):
            await store.prepare(key, conf)
            await settle()
            seen.append(list(life.events))
        assert seen == [["up"], ["up"], ["up"], ["up", "down"], ["up", "down", "up"]]
        await store.close()

    asyncio.run(main())

    assert life.events == ["up", "down"] * 2


def test_it_is_not_built_anew_before_its_shutdown_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold something that only one can have, such as a port."""
    monkeypatch.setattr(store_module, "MAX_CHAINS", 1)
    monkeypatch.setattr(store_module, "SHUTDOWN_SECONDS", 60.0)
    bridge, events, may_end = Bridge(), [], asyncio.Event()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        events.append("up")
        yield
        await may_end.wait()
        events.append("down")

    bridge.plugin("port")(lambda: Starlette(lifespan=lifespan))
    bridge.mount("other", upstream)

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins)
        await store.prepare(PRE, [(b"port", b"")])
        await store.prepare(OTHER, [(b"other", b"")])
        again = asyncio.get_running_loop().create_task(store.prepare(PRE, [(b"port", b"")]))
        await settle(store)
        assert events == ["up"]
        may_end.set()
        await again
        assert events == ["up", "down", "up"]
        await store.close()

    asyncio.run(main())


# several builds at the same time


def gated() -> tuple[Bridge, asyncio.Event, list[str]]:
    """A bridge with a factory that waits until it may go on."""
    bridge, gate, events = Bridge(), asyncio.Event(), []

    @bridge.plugin("gated")
    async def factory(conf: dict[str, Any]) -> ASGIApp:
        events.append("begun")
        try:
            await gate.wait()
        except asyncio.CancelledError:
            events.append("cancelled")
            raise
        if conf:
            raise OSError("not today")
        events.append("built")
        return upstream

    return bridge, gate, events


def tasks_of(store: ConfigurationStore, conf: Conf, *keys: bytes) -> list["asyncio.Task[int]"]:
    return [asyncio.get_running_loop().create_task(store.prepare(key, conf)) for key in keys]


def test_lists_that_are_prepared_at_once_build_it_once() -> None:
    bridge, gate, events = gated()

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins)
        tasks = tasks_of(store, [(b"gated", b"")], PRE, POST, RESPONSE)
        await settle(store)
        gate.set()
        await asyncio.gather(*tasks)
        assert events == ["begun", "built"]
        await store.close()

    asyncio.run(main())


def test_a_build_that_fails_refuses_all_who_wait_and_is_tried_again() -> None:
    bridge, gate, events = gated()

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins)
        tasks = tasks_of(store, [(b"gated", b'{"a": 1}')], PRE, POST, RESPONSE)
        await settle(store)
        gate.set()
        failures = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(failure) for failure in failures] == ["plugin gated: it could not be built: OSError: not today"] * 3
        assert len(set(map(id, failures))) == 3
        with pytest.raises(ConfigurationError):
            await store.prepare(b"route&consumer#1&jack#ext-plugin-pre-req#1&1", [(b"gated", b'{"a": 1}')])
        assert events == ["begun", "begun"]
        assert store._instances._instances == {}
        await store.close()

    asyncio.run(main())


def test_a_build_goes_on_for_those_who_wait_and_ends_with_the_last_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge, _gate, events = gated()

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins)
        tasks = tasks_of(store, [(b"gated", b"")], PRE, RESPONSE)
        await settle(store)
        builds = list(store._building.values())
        builds[0].cancel()
        await settle()
        assert events == ["begun"]
        builds[1].cancel()
        await settle()
        assert events == ["begun", "cancelled"]
        assert store._instances._instances == {}
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()

    asyncio.run(main())


def test_a_factory_that_ignores_its_cancellation_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.001)
    monkeypatch.setattr("asgi_bridge.plugins.build.BUILD_SECONDS", 0.01)
    bridge, enough, life = Bridge(), asyncio.Event(), Life()

    @bridge.plugin("stubborn")
    async def stubborn() -> ASGIApp:
        while not enough.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await enough.wait()
        return life({})

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins)
        with pytest.raises(ConfigurationError, match="^plugin stubborn: building took more than 0.01 s$"):
            await store.prepare(PRE, [(b"stubborn", b"")])
        enough.set()
        await settle()
        await store.close()

    asyncio.run(main())

    assert life.events == []  # nobody waits for it any more
    assert "plugin stubborn: its factory does not end although it was cancelled" in caplog.messages


# exceptions that must not end the process


class Odd(BaseException):
    pass


Raise = Callable[[], Any]
EXCEPTIONS = [KeyboardInterrupt, SystemExit, Odd, GeneratorExit, asyncio.CancelledError]


@pytest.mark.parametrize("exception", EXCEPTIONS)
@pytest.mark.parametrize("where", ["factory", "async factory", "validator", "await", "start-up", "text"])
def test_whatever_a_plugin_raises_while_it_is_built_refuses_its_route(
    exception: type[BaseException], where: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Wordless(Exception):
        def __str__(self) -> str:
            fail()
            return ""

    def fail(value: Any = None) -> Any:
        raise exception("no")

    bridge = Bridge()
    bridge.mount("other", upstream)
    if where == "validator":

        @bridge.plugin("fails")
        def checked(conf: Annotated[dict[str, Any], pydantic.AfterValidator(fail)]) -> ASGIApp:
            return upstream

    elif where == "start-up":

        async def starts(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            fail()

        bridge.plugin("fails")(lambda: starts)
    elif where == "factory":
        bridge.plugin("fails")(lambda: fail())
    elif where == "text":

        @bridge.plugin("fails")
        def wordless() -> ASGIApp:
            raise Wordless

    else:

        @bridge.plugin("fails")
        async def later() -> ASGIApp:
            if where == "await":
                await asyncio.sleep(0)
            fail()
            return upstream

    async def main() -> None:
        unhandled: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
        store = ConfigurationStore(bridge.plugins)
        with pytest.raises(ConfigurationError, match="^plugin fails: "):
            await store.prepare(PRE, [(b"fails", b"")])
        assert await store.prepare(PRE, [(b"other", b"")])
        await store.close()
        await settle()
        assert unhandled == []

    asyncio.run(main())

    reason = {
        "start-up": f"its lifespan start-up failed: {exception.__name__}: no",
        "text": f"it could not be built: Wordless: (its text cannot be had: {exception.__name__})",
    }.get(where, f"it could not be built: {exception.__name__}: no")
    assert caplog.messages == [f"route 1 refused: plugin fails: {reason}"]


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_whatever_a_lifespan_raises_later_is_a_line_of_the_log(
    exception: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise exception("no")

    bridge = Bridge()
    bridge.mount("mounted", fails)
    bridge.plugin("made")(lambda: fails)

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins)
        await store.start()
        await store.prepare(PRE, [(b"mounted", b""), (b"made", b"")])
        await store.close()

    asyncio.run(main())

    assert sorted(caplog.messages) == ["plugin made: its lifespan raised", "plugin mounted: its lifespan raised"]


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_a_mounted_application_that_wants_to_end_the_process_refuses_its_routes(
    exception: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise exception("no")

    bridge = Bridge()
    bridge.mount("mounted", fails)

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins)
        await store.start()
        with pytest.raises(ConfigurationError):
            await store.prepare(PRE, [(b"mounted", b"")])
        await store.close()

    asyncio.run(main())

    reason = f"plugin mounted: its lifespan start-up failed: {exception.__name__}: no"
    assert caplog.messages == [f"{reason}; routes that list it are refused", f"route 1 refused: {reason}"]


@pytest.mark.parametrize("size", [1, 10, 10_000_000])
def test_an_exceptions_text_is_cut_where_it_is_long(size: int, caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge()

    @bridge.plugin("talks")
    def talks() -> ASGIApp:
        raise ValueError("a" * size + "end")

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins)
        with pytest.raises(ConfigurationError):
            await store.prepare(PRE, [(b"talks", b"")])

    asyncio.run(main())
    (message,) = caplog.messages

    assert message.startswith("route 1 refused: plugin talks: it could not be built: ValueError: a")
    assert message.endswith("end") and len(message) < 1700
