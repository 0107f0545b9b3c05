"""The onion: what each layer gets, where `upstream` leads, and what a fault of a layer does."""

import asyncio
import contextlib
import contextvars
import gc
import logging
import warnings
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from asgiref import sync
from asgiref.compatibility import guarantee_single_callable
from starlette._utils import is_async_callable
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Apisix, Bridge, PluginError, apisix, upstream
from asgi_bridge.plugins import Chain
from asgi_bridge.plugins.extension import new_next
from asgi_bridge.plugins.layer import Layer
from asgi_bridge.plugins.options import Options
from asgi_bridge.testing import PluginClient

from .calls import FakeCall, Tap, answering, chain_of, read, scope


def run(chain: Chain, call: FakeCall | None = None) -> FakeCall:
    call = call or FakeCall()
    asyncio.run(call.through(chain))
    return call


def bridge_of(**plugins: Any) -> Bridge:
    """Applications, or tuples of an application and its options, under their keywords."""
    bridge = Bridge()
    for name, plugin in plugins.items():
        app, options = plugin if isinstance(plugin, tuple) else (plugin, {})
        bridge.mount(name, app, **options)
    return bridge


# order, and what a layer gets


def test_the_first_listed_is_outermost() -> None:
    order: list[str] = []
    bridge = Bridge()
    for name in ("a", "b", "c"):

        def before(scope: Scope, name: str = name) -> None:
            order.append(name)

        bridge.add_middleware(name, Tap, defaults={"before": before})

    run(chain_of(bridge, "b", "a", "c"))

    assert order == ["b", "a", "c"]


def test_no_plugin_at_all_is_the_upstream() -> None:
    call = run(chain_of(Bridge()))

    assert call.status() == 200
    assert call.scopes == [scope()]


def test_a_layer_has_its_own_scope_headers_and_extensions() -> None:
    seen: list[Scope] = []

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        before = dict(scope.items())
        await upstream(scope, receive, send)
        assert scope == before
        assert scope["headers"] == [(b"host", b"a.test")]
        assert set(scope["extensions"]) == {"other", "apisix"}
        assert scope["state"] == {"a": 1}

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        scope["path"] = "/inner"
        scope["headers"].append((b"x", b"y"))
        scope["extensions"]["more"] = {}
        scope["state"]["a"] = 1
        await upstream(scope, receive, send)

    call = run(chain_of(bridge_of(outer=outer, inner=inner), ("outer", "5"), ("inner", '{"a": 1}')))

    (innermost,) = call.scopes
    assert (innermost["path"], innermost["headers"]) == ("/inner", [(b"host", b"a.test"), (b"x", b"y")])
    assert seen[0]["extensions"]["apisix"] == {
        "plugin": "inner",
        "phase": "request",
        "conf": {"a": 1},
        "route_id": "1",
        "request_id": None,
        "var": call.var,
    }


def test_a_scope_without_extensions_is_fine() -> None:
    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        del scope["extensions"]
        await upstream(scope, receive, send)

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        assert list(scope["extensions"]) == ["apisix"]
        await upstream(scope, receive, send)

    assert run(chain_of(bridge_of(bare=bare, inner=inner), "bare", "inner")).status() == 200


def test_the_extension_has_typed_properties() -> None:
    found: list[Apisix] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(apisix(scope))
        assert await apisix(scope).var("a") == b"value"
        assert await apisix(scope).var("a", "b") == {"a": b"value", "b": b"value"}
        await answering(200)(scope, receive, send)

    run(chain_of(bridge_of(app=app), ("app", "[1]")))

    (extension,) = found
    assert (extension.plugin, extension.phase, extension.conf, extension.route_id, extension.request_id) == (
        "app",
        "request",
        [1],
        "1",
        None,
    )


def test_through_the_client_the_request_id_is_there_once_it_was_asked_for() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        before = apisix(scope).request_id
        await apisix(scope).var("request_id", "other")
        await PlainTextResponse(f"{before} {apisix(scope).request_id}")(scope, receive, send)

    assert PluginClient(bridge_of(app=app), "app", variables={"request_id": "r1"}).get("/").text == "None r1"


# upstream


def entered(call: FakeCall) -> list[str]:
    """The plugins that `call` has entered, the first one first."""
    names = []
    extension = call.extension
    while extension is not None:
        names.append(extension.plugin)
        extension = extension._earlier
    return names[::-1]


def test_upstream_is_the_next_layer_by_scope_and_by_context() -> None:
    async def by_scope(scope: Scope, receive: Receive, send: Send) -> None:
        # in a context that knows of no call
        await asyncio.get_running_loop().create_task(
            call_upstream(dict(scope), receive, send), context=contextvars.Context()
        )

    async def call_upstream(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream(scope, receive, send)

    async def by_context(scope: Scope, receive: Receive, send: Send) -> None:
        fresh = {"type": "http", "path": "/fresh", "headers": []}
        async with anyio.create_task_group() as group:
            group.start_soon(upstream, fresh, receive, send)

    call = run(chain_of(bridge_of(a=by_scope, b=by_context, c=by_scope), "a", "b", "c"))

    assert call.scopes[0]["path"] == "/fresh"
    assert entered(call) == ["a", "b", "c"]


def test_a_plain_dict_in_place_of_the_extension_is_not_taken_for_it() -> None:
    async def copies(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"]["apisix"] = dict(scope["extensions"]["apisix"])
        await upstream(scope, receive, send)

    assert run(chain_of(bridge_of(a=copies), "a")).status() == 200


@pytest.mark.parametrize("found", [scope(), {"type": "http"}, {"type": "http", "extensions": None}])
def test_upstream_outside_a_call_is_an_error(found: Scope) -> None:
    call = FakeCall()

    with pytest.raises(
        PluginError, match="^this scope does not belong to the call of a plugin: hand on the one that the plugin got"
    ):
        asyncio.run(upstream(found, call.receive, call.send))


def test_the_context_is_as_it_was_after_a_call_and_after_a_fault() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        await FakeCall().through(chain_of_two)
        for failing in (closed, opened):
            with contextlib.suppress(ZeroDivisionError):
                await FakeCall().through(failing)
        with pytest.raises(PluginError):
            apisix({"type": "http"})

    bridge = bridge_of(up=upstream, fails=fails, open=(fails, {"on_error": "open"}))
    chain_of_two, closed, opened = chain_of(bridge, "up", "up"), chain_of(bridge, "fails"), chain_of(bridge, "open")
    asyncio.run(main())


@pytest.mark.parametrize("fresh", [False, True])
def test_an_application_before_a_refusing_middleware_cannot_step_past_it(fresh: bool) -> None:
    async def eager(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream({"type": "http", "path": "/", "headers": []} if fresh else scope, receive, send)

    class Refuses:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await answering(401)(scope, receive, send)

    bridge = bridge_of(eager=eager)
    bridge.add_middleware("auth", Refuses)
    call = run(chain_of(bridge, "eager", "auth"))

    assert (call.status(), call.scopes) == (401, [])


def test_an_application_behind_another_is_reached_by_upstream() -> None:
    call = run(chain_of(bridge_of(first=upstream, second=answering(418)), "first", "second"))

    assert (call.status(), call.scopes) == (418, [])


def test_real_middleware_around_a_real_upstream() -> None:
    async def dispatch(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        response = await call_next(request)
        response.headers["x-plugin"] = apisix(request.scope).plugin
        return response

    bridge = bridge_of(up=upstream)
    bridge.add_middleware("cors", CORSMiddleware)
    bridge.add_middleware("gzip", GZipMiddleware, defaults={"minimum_size": 1})
    bridge.add_middleware("base", BaseHTTPMiddleware, defaults={"dispatch": dispatch})
    plugins = [("cors", {"allow_origins": ["*"]}), ("base", None), ("up", None), ("gzip", None)]
    answer = PluginClient(bridge, plugins, upstream=PlainTextResponse("x" * 100)).get(
        "/", headers={"origin": "https://a.test"}
    )

    assert (answer.text, answer.headers["content-encoding"]) == ("x" * 100, "gzip")
    assert (answer.headers["access-control-allow-origin"], answer.headers["x-plugin"]) == ("*", "base")


def test_lifespan_ends_at_the_layer_that_asks_inwards() -> None:
    async def main() -> list[Message]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        for app in (upstream, new_next()):
            inbox: list[Message] = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}]

            async def receive(inbox: list[Message] = inbox) -> Message:
                return inbox.pop()

            await app({"type": "lifespan"}, receive, send)
        return sent

    assert asyncio.run(main()) == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}] * 2


def test_frameworks_see_that_what_a_plugin_awaits_is_async() -> None:
    """They ask in ways of their own. asgiref would call the application in two steps, as one of ASGI 2."""
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        called: tuple[Any, ...] = (upstream, new_next(), send, receive, apisix(scope).var)
        seen.extend(sync.iscoroutinefunction(each) or sync.iscoroutinefunction(each.__call__) for each in called)
        seen.extend(is_async_callable(each) for each in called)
        with warnings.catch_warnings(action="error"):
            for each in called:
                sync.async_to_sync(each)
        made: Any = new_next()(scope, receive, send)
        seen.append(asyncio.iscoroutine(made))
        await asyncio.create_task(made)

    bridge = Bridge()
    bridge.mount("asks", app)
    assert PluginClient(bridge, "asks").get("/").status_code == 200
    assert seen == [True] * 11
    app_behind: Any = new_next()
    assert asyncio.iscoroutinefunction(app_behind.__call__)  # what Sentry looks at
    single: Any = guarantee_single_callable
    assert single(app_behind) is app_behind


# what the layers tell the call


def test_a_call_may_end_at_a_layer() -> None:
    chain = chain_of(bridge_of(a=upstream, b=answering(418)), "a", "b")
    call = FakeCall()
    call.boundary = chain.layers[1]
    run(chain, call)

    assert (call.status(), len(call.scopes)) == (200, 1)


def wrapping(receive_too: bool, send_too: bool) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def own_receive() -> Message:
            return await receive()

        async def own_send(message: Message) -> None:
            await send(message)

        await upstream(scope, own_receive if receive_too else receive, own_send if send_too else send)

    return app


@pytest.mark.parametrize("on_error", ["closed", "open"])
@pytest.mark.parametrize(
    ("app", "request_body", "changed", "wrapped"),
    [
        (upstream, True, False, []),
        (wrapping(True, False), True, True, []),
        (wrapping(True, False), False, False, []),
        (wrapping(False, True), True, False, ["a"]),
    ],
)
def test_the_call_is_told_who_wraps_receive_and_send(
    app: ASGIApp, request_body: bool, changed: bool, wrapped: list[str], on_error: str
) -> None:
    bridge = bridge_of(a=(app, {"request_body": request_body, "on_error": on_error}), b=upstream)
    call = run(chain_of(bridge, "a", "b"), FakeCall([b"ab", b"c"]))

    assert (call.changed_body, call.wrapped_send, call.bodies) == (changed, wrapped, [b"abc"])


def test_the_tightest_deadline_counts_and_names_its_plugin() -> None:
    bridge = bridge_of(slow=(upstream, {"timeout": 50}), quick=(upstream, {"timeout": 5}), late=(upstream, {}))

    async def main() -> FakeCall:
        loop = asyncio.get_running_loop()
        before = loop.time()
        call = FakeCall()
        await call.through(chain)
        assert before + 5 <= call.deadline <= loop.time() + 5
        return call

    chain = chain_of(bridge, "slow", "quick", "late")

    assert asyncio.run(main()).overdue == "quick"


@pytest.mark.parametrize(("outer", "overdue"), [(50, "open"), (2, "outer")])
def test_an_open_plugins_time_becomes_a_deadline_once_it_passes_on(outer: float, overdue: str) -> None:
    async def checks(scope: Scope, receive: Receive, send: Send) -> None:
        extension = apisix(scope)
        assert extension._call.overdue == "outer"
        await upstream(scope, receive, send)
        await asyncio.sleep(0)

    bridge = bridge_of(outer=(upstream, {"timeout": outer}), open=(checks, {"on_error": "open", "timeout": 5}))

    assert run(chain_of(bridge, "outer", "open")).overdue == overdue


@pytest.mark.parametrize("on_error", ["closed", "open"])
def test_the_layers_leave_it_to_the_call_what_passing_on_twice_means(on_error: str) -> None:
    async def twice(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream(scope, receive, send)
        await upstream(scope, receive, send)

    call = FakeCall()
    with pytest.raises(IndexError):  # the fake has no second body; the adapter's calls refuse
        run(chain_of(bridge_of(a=(twice, {"on_error": on_error})), "a"), call)
    assert len(call.scopes) == 2


def test_the_culprit_is_the_plugin_out_of_which_the_exception_came_first() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async def translates(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await upstream(scope, receive, send)
        except ZeroDivisionError as exc:
            raise OSError from exc

    bridge = bridge_of(up=upstream, fails=fails, translates=translates)
    call = FakeCall()
    with pytest.raises(ZeroDivisionError) as caught:
        run(chain_of(bridge, "up", "fails", "up"), call)
    assert call.failed == (caught.value, "fails")

    call = FakeCall()
    with pytest.raises(OSError) as other:
        run(chain_of(bridge, "up", "translates", "fails"), call)
    assert call.failed == (other.value, "translates")


# on_error="open"


def opened(app: ASGIApp, **options: Any) -> tuple[ASGIApp, dict[str, Any]]:
    return app, {"on_error": "open", **options}


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "asgi_bridge.plugins"]


def test_a_fault_before_passing_on_is_passed_over_with_the_request_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = "/changed"
        scope["headers"].append((b"x", b"y"))
        assert (await receive())["body"] == b"ab"
        raise ZeroDivisionError("why")

    call = run(chain_of(bridge_of(fails=opened(fails)), "fails"), FakeCall([b"ab", b"c", b"d"]))

    assert (call.scopes, call.bodies, call.status()) == ([scope()], [b"abcd"], 200)
    assert (call.failed, call.changed_body) == (None, False)
    assert logged(caplog) == [
        "plugin fails: passed over, since it is mounted with on_error='open': ZeroDivisionError: why"
    ]


def test_a_fault_before_reading_passes_the_calls_own_receive_on() -> None:
    received: list[Receive] = []

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async def shows(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(receive)
        await upstream(scope, receive, send)

    call = run(chain_of(bridge_of(fails=opened(fails), shows=shows), "fails", "fails", "shows"))

    assert received == [call.receive]


def test_several_failing_plugins_replay_one_anothers_body() -> None:
    async def reads_one(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise ZeroDivisionError

    async def reads_two(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        raise ZeroDivisionError

    bridge = bridge_of(one=opened(reads_one), two=opened(reads_two))

    assert run(chain_of(bridge, "two", "one", "two"), FakeCall([b"a", b"b", b"c"])).bodies == [b"abc"]


@pytest.mark.parametrize("catches", [False, True])
def test_a_timeout_is_passed_over(caplog: pytest.LogCaptureFixture, catches: bool) -> None:
    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if catches:
                raise OSError("in another shape") from None
            raise

    assert run(chain_of(bridge_of(hangs=opened(hangs, timeout=0.001)), "hangs")).status() == 200
    assert logged(caplog) == [
        "plugin hangs: passed over, since it is mounted with on_error='open': no answer within 0.001 s"
    ]


def test_a_timeout_of_the_plugins_own_is_not_called_ours(caplog: pytest.LogCaptureFixture) -> None:
    async def gives_up(scope: Scope, receive: Receive, send: Send) -> None:
        raise TimeoutError("redis")

    assert run(chain_of(bridge_of(a=opened(gives_up)), "a")).status() == 200
    assert logged(caplog) == ["plugin a: passed over, since it is mounted with on_error='open': TimeoutError: redis"]


def test_a_plugin_out_of_time_cannot_pass_the_request_on() -> None:
    async def too_late(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            scope["path"] = "/late"
            await upstream(scope, receive, send)

    call = run(chain_of(bridge_of(late=opened(too_late, timeout=0.001)), "late"))

    assert [each["path"] for each in call.scopes] == ["/"]


def test_what_a_plugin_left_behind_neither_answers_nor_passes_on() -> None:
    left: list[tuple[Scope, Receive, Send]] = []

    async def leaves(scope: Scope, receive: Receive, send: Send) -> None:
        left.append((scope, receive, send))
        raise ZeroDivisionError

    async def main() -> FakeCall:
        call = FakeCall()
        await call.through(chain)
        ((scope, receive, send),) = left
        with pytest.raises(PluginError, match="^the plugin was passed over: it cannot answer any more$"):
            await send({"type": "http.response.start", "status": 500})
        with pytest.raises(PluginError, match="^the request cannot be passed on any more: the plugin's time is over$"):
            await upstream(scope, receive, send)
        return call

    chain = chain_of(bridge_of(leaves=opened(leaves)), "leaves")
    call = asyncio.run(main())

    assert (len(call.sent), len(call.scopes)) == (2, 1)


async def fails_after_passing_on(scope: Scope, receive: Receive, send: Send) -> None:
    await upstream(scope, receive, send)
    raise ZeroDivisionError


async def fails_while_answering(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ZeroDivisionError


async def swallows_and_fails(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await receive()
    except OSError:
        raise ZeroDivisionError from None


@pytest.mark.parametrize("app", [fails_after_passing_on, fails_while_answering])
def test_a_fault_after_passing_on_or_while_answering_is_raised(app: ASGIApp) -> None:
    call = FakeCall()

    with pytest.raises(ZeroDivisionError) as caught:
        run(chain_of(bridge_of(a=opened(app)), "a"), call)
    assert call.failed == (caught.value, "a")
    assert len(call.scopes) <= 1


def test_a_timeout_while_answering_is_raised() -> None:
    async def stalls(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    call = FakeCall()
    with pytest.raises(TimeoutError):
        run(chain_of(bridge_of(a=opened(stalls, timeout=0.001)), "a"), call)
    assert call.scopes == []


def test_a_fault_of_an_inner_layer_or_of_the_upstream_is_never_passed_over() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    call = FakeCall()
    with pytest.raises(ZeroDivisionError) as caught:
        run(chain_of(bridge_of(open=opened(upstream), fails=fails), "open", "fails"), call)
    assert call.failed == (caught.value, "fails")
    assert entered(call) == ["open", "fails"]

    call = FakeCall()
    call.fault = OSError("gateway")
    with pytest.raises(OSError, match="gateway"):
        run(chain_of(bridge_of(open=opened(upstream)), "open", "open"), call)


def test_a_cancellation_is_never_passed_over() -> None:
    async def main() -> FakeCall:
        entered = asyncio.Event()

        async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
            entered.set()
            await asyncio.Event().wait()

        call = FakeCall()
        layer = Layer("hangs", Options(on_error="open"), {})
        layer.app = hangs
        task = asyncio.get_running_loop().create_task(call.through(Chain([layer], None)))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return call

    assert asyncio.run(main()).scopes == []


@pytest.mark.parametrize("app", [swallows_and_fails, read])
def test_what_an_outer_plugins_receive_raises_is_no_fault_of_the_open_one(app: Any) -> None:
    """A body limit outside must not be lifted by an open plugin inside."""

    class Limits:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def limited() -> Message:
                raise OSError("too long")

            try:
                await self.app(scope, limited, send)
            except Exception:
                await answering(413)(scope, receive, send)

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        await (read(receive) if app is read else app(scope, receive, send))
        await upstream(scope, receive, send)

    bridge = bridge_of(reads=opened(reads))
    bridge.add_middleware("limits", Limits, request_body=False)
    call = run(chain_of(bridge, "limits", "reads"))

    assert (call.status(), call.scopes) == (413, [])


def test_what_the_gateway_raises_is_no_fault_of_the_open_plugin() -> None:
    call = FakeCall()
    call.receive_fault = PluginError("the gateway has closed the connection")

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)

    with pytest.raises(PluginError, match="^the gateway has closed the connection$"):
        run(chain_of(bridge_of(reads=opened(reads)), "reads"), call)
    assert call.scopes == []


def test_an_open_plugin_that_answers_is_no_fault() -> None:
    assert run(chain_of(bridge_of(a=opened(answering(403))), "a")).status() == 403


def test_an_open_plugin_that_does_nothing_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    call = run(chain_of(bridge_of(a=opened(nothing)), "a"), FakeCall([b"ab"]))
    assert (call.status(), call.bodies) == (200, [b"ab"])
    assert logged(caplog) == ["plugin a: passed over, since it is mounted with on_error='open': no answer"]


def test_a_fault_of_the_gateway_that_an_open_plugin_swallows_lets_nothing_pass() -> None:
    async def swallows(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(OSError):
            await receive()

    async def fails() -> Message:
        raise OSError("too much")

    call = FakeCall()
    call.receive = fails  # type: ignore[method-assign]
    assert run(chain_of(bridge_of(a=opened(swallows)), "a"), call).scopes == []


def test_a_cancellation_that_an_open_plugin_swallows_lets_nothing_pass() -> None:
    async def swallows(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    call, chain = FakeCall(), chain_of(bridge_of(a=opened(swallows)), "a")

    async def main() -> None:
        task = asyncio.create_task(call.through(chain))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    assert call.scopes == []


def test_what_an_open_plugin_did_to_a_message_is_not_passed_on() -> None:
    async def spoils(scope: Scope, receive: Receive, send: Send) -> None:
        (await receive())["body"] = b"spoilt"
        raise ValueError

    assert run(chain_of(bridge_of(a=opened(spoils)), "a"), FakeCall([b"ab"])).bodies == [b"ab"]


# the chain as a whole


def test_a_chain_knows_what_its_plugins_options_come_to() -> None:
    bridge = bridge_of(
        plain=upstream,
        exact=(upstream, {"exact": True, "request_headers": ["x-a"]}),
        bare=(upstream, {"cures": False, "request_headers": ["x-b", "x-a"]}),
        both=(upstream, {"phase": "both"}),
        request=(upstream, {"phase": "request"}),
        response=(upstream, {"phase": "response"}),
    )

    def sums(*names: str) -> tuple[object, ...]:
        chain = chain_of(bridge, *names, key=None)
        return chain.names, chain.exact, chain.cures, chain.both, chain.request, chain.response

    assert sums("plain", "request") == ("plain, request", False, True, False, True, False)
    assert sums("exact", "response") == ("exact, response", True, True, False, False, True)
    assert sums("bare", "both") == ("bare, both", False, False, True, True, True)
    assert chain_of(bridge, "exact", "bare").request_headers == ("x-a", "x-b")


def test_warns_once_for_each_subject(caplog: pytest.LogCaptureFixture) -> None:
    chain = chain_of(bridge_of(a=upstream, b=upstream), "a", "b")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            chain.warn_once("body", "a body of %d bytes is dropped", 5)
            chain.warn_once("path", "a path")

    assert logged(caplog) == ["plugin a, b: a body of 5 bytes is dropped", "plugin a, b: a path"]


def test_a_retired_chain_closes_when_its_last_call_has_ended() -> None:
    async def main() -> None:
        chain = Chain([], None)
        chain.calls = 2
        retiring = asyncio.get_running_loop().create_task(chain.retire(1.0))
        await asyncio.sleep(0)
        chain.call_ended()
        await asyncio.sleep(0)
        assert not retiring.done()
        chain.call_ended()
        chain.calls += 1  # one that came before the retiring task woke up
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not retiring.done()
        chain.call_ended()
        await retiring

        idle = Chain([], None)
        await idle.retire(1.0)

    asyncio.run(main())


@pytest.mark.parametrize("on_error", ["closed", "open"])
@pytest.mark.parametrize("fault", [False, True])
def test_a_call_leaves_no_reference_cycle_behind(on_error: str, fault: bool) -> None:
    """The adapter clears what the call holds of the layers; nothing else may keep it alive."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if fault:
            raise ZeroDivisionError
        await upstream(scope, receive, send)

    async def main() -> None:
        call = FakeCall([b"a", b"b"])
        gone = weakref.ref(call)
        with contextlib.suppress(ZeroDivisionError):
            await call.through(chain)
        call.extension = None
        call.scopes.clear()
        call.failed = None
        del call
        assert gone() is None

    chain = chain_of(bridge_of(a=(app, {"on_error": on_error}), b=upstream), "a", "b")
    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()
