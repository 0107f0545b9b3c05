"""What plugins and libraries may do to the compiled core: odd objects, and odd ways to run what it gives them."""

import asyncio
import contextlib
import contextvars
import gc
import os
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from importlib import import_module
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge.compiled import core_in_use
from asgi_bridge.errors import LocalProtocolError, PluginError
from asgi_bridge.plugins import Chain, Layer, extension, upstream
from asgi_bridge.plugins.extension import Apisix, current
from asgi_bridge.plugins.options import Options
from asgi_bridge.wire import HTTPReqCallReq, HTTPReqCallResp, Var
from asgi_bridge.wire.session import State

if core_in_use() != "compiled" and os.environ.get("ASGI_BRIDGE_COMPILED") != "1":
    pytest.skip("the compiled core is not in use", allow_module_level=True)

from asgi_bridge.adapter import Host, RequestCall, new_request_call
from asgi_bridge.adapter import _request_scope as request_scope  # type: ignore[attr-defined]
from asgi_bridge.adapter.sent import Sent
from asgi_bridge.server.call_tasks import CallTasks

from .calls import HOST, Gateway, Owner, PureCall, PureLayer
from .odd import connected, take_from_a_dict_that_changes, try_all

Run = Coroutine[Any, Any, None]
FORWARDED = [(b"x-forwarded-proto", b"http"), (b"x-forwarded-host", b"a.test")]


def test_odd_arguments_and_slots_crash_nothing() -> None:
    try_all(1)


def test_a_dict_may_change_while_it_is_read() -> None:
    sent = take_from_a_dict_that_changes()
    assert (sent.status, bytes(sent.content)) == (403, b"a" * 100)


def _call(*apps: ASGIApp, seen: list[object] | None = None, pure: bool = False, message: Any = None) -> RequestCall:
    """Return a call through layers with these applications."""
    kind = PureLayer if pure else Layer
    inner: Layer | None = None
    found: list[Layer] = []
    for number, app in reversed(list(enumerate(apps))):
        inner = kind(f"plugin {number}", Options(), {}, inner)
        inner.app = app
        found.insert(0, inner)
    make = PureCall if pure else new_request_call
    message = message or HTTPReqCallReq(headers=list(FORWARDED))
    return make(message, Chain(found, None), Gateway([] if seen is None else seen), Host(HOST))


both = pytest.mark.parametrize("pure", [False, True], ids=["compiled", "pure"])


def _run_inner(pure: bool, inner: ASGIApp, use: Callable[[Any, RequestCall, object], Awaitable[None]]) -> None:
    """Let an outer plugin do something with the run of an inner one, instead of awaiting it.

    Args:
        pure: Whether the layers are those of pure Python.
        inner: The inner plugin.
        use: Called with the run, the call, and the outer plugin's extension.
    """
    done: list[bool] = []

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        run = extension.pass_on(scope, receive, send)
        await use(run, call, scope["extensions"]["apisix"])
        done.append(True)

    call = _call(outer, inner, pure=pure)
    asyncio.run(call.run())
    assert done


async def _waits(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0)


@both
def test_the_run_of_a_layer_runs_once(pure: bool) -> None:
    async def use(run: Any, call: RequestCall, own: object) -> None:
        await run
        token = current.set(None)
        with pytest.raises(RuntimeError, match="^cannot reuse already awaited coroutine$"):
            await run
        assert current.get() is None
        current.reset(token)
        assert (current.get(), call.failed) == (own, None)
        run.close()
        assert (current.get(), call.failed) == (own, None)

    _run_inner(pure, _waits, use)


@both
def test_the_run_of_a_layer_cannot_be_run_within_itself(pure: bool) -> None:
    runs: list[Any] = []
    errors: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        for again in (runs[0].close, lambda: runs[0].send(None), lambda: runs[0].throw(KeyError())):
            with pytest.raises(ValueError, match="^coroutine already executing$") as found:
                again()
            errors.append(str(found.value))
        assert current.get() is scope["extensions"]["apisix"]

    async def use(run: Any, call: RequestCall, own: object) -> None:
        runs.append(run)
        await run
        assert (current.get(), call.failed, len(errors)) == (own, None, 3)

    _run_inner(pure, inner, use)


@both
@pytest.mark.parametrize("how", ["close", "throw"])
def test_the_run_of_a_layer_can_be_ended_early(pure: bool, how: str) -> None:
    seen: list[object] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(0)
        except BaseException as exc:
            seen.append(type(exc))
            raise

    async def use(run: Any, call: RequestCall, own: object) -> None:
        step = run.send(None)
        assert step is None
        if how == "close":
            run.close()
        else:
            with pytest.raises(KeyError):
                run.throw(KeyError("a"))
        assert current.get() is own
        assert call.failed is not None
        kind = GeneratorExit if how == "close" else KeyError
        assert (type(call.failed[0]), call.failed[1], seen) == (kind, "plugin 1", [kind])
        call.failed = None

    _run_inner(pure, inner, use)


@both
def test_a_run_that_ends_in_another_context_leaves_that_one_alone(pure: bool) -> None:
    """The garbage collector ends a run wherever it happens to be: perhaps in another request."""

    async def use(run: Any, call: RequestCall, own: object) -> None:
        run.send(None)
        other = contextvars.Context()
        theirs = Apisix()
        other.run(current.set, theirs)
        with pytest.raises(ValueError, match="different Context"):
            other.run(run.close)
        assert other[current] is theirs

    _run_inner(pure, _waits, use)


@both
@pytest.mark.parametrize("number", [0, 1], ids=["outermost", "inner"])
def test_a_coroutine_that_is_awaited_elsewhere_is_left_alone(pure: bool, number: int) -> None:
    shared: list[Run] = []
    steps: list[str] = []

    async def first() -> None:
        await asyncio.sleep(0)
        steps.append("first")
        await asyncio.sleep(0)
        steps.append("last")

    async def awaits_it() -> None:
        await shared[0]

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return shared[0]

    seen: list[object] = []

    async def main() -> None:
        shared.append(first())
        elsewhere = awaits_it()
        elsewhere.send(None)
        call = _call(*[upstream] * number, app, seen=seen, pure=pure)
        owner = Owner([])
        tasks = CallTasks(asyncio.get_running_loop())
        await asyncio.sleep(0)
        tasks.start(call, owner)
        for _ in range(5):
            await asyncio.sleep(0)
        assert steps == []
        tasks.close()
        elsewhere.close()

    asyncio.run(main())
    assert [each[2] for each in seen if isinstance(each, tuple)] == ["error"]


@both
def test_an_exception_of_a_plugin_leaves_no_garbage(pure: bool) -> None:
    class Thing:
        pass

    left: list[weakref.ref[Thing]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        thing = Thing()
        left.append(weakref.ref(thing))
        raise PluginError("own fault")  # whose traceback no log keeps

    async def main() -> None:
        tasks = CallTasks(asyncio.get_running_loop())
        await asyncio.sleep(0)
        tasks.start(_call(upstream, app, pure=pure), Owner([]))
        await asyncio.sleep(0)
        assert len(left) == 1
        tasks.close()

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
        assert left[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("entries", [[[b"a", b"b"]], [(b"a",)], [(b"a", b"b", b"c")], [5], [None], [()]])
@pytest.mark.parametrize("field", ["headers", "args"])
def test_a_message_of_odd_entries_is_refused_or_read(field: str, entries: Any) -> None:
    outcomes = []
    for pure in (True, False):
        message = HTTPReqCallReq(headers=list(FORWARDED))
        setattr(message, field, FORWARDED + entries if field == "headers" else entries)
        seen: list[object] = []
        asyncio.run(_call(upstream, seen=seen, pure=pure, message=message).run())
        outcomes.append(seen)
    assert outcomes[0] == outcomes[1]


def test_an_origin_is_a_pair() -> None:
    with pytest.raises(ValueError, match="^an origin is a scheme and a server$"):
        request_scope.build_scope(HTTPReqCallReq(), [], [], (), None)


@pytest.mark.parametrize("status", [10**30, -(10**30), 2**63, 2**31])
def test_numbers_may_have_any_size(status: int) -> None:
    def first_step(run: Any) -> object:
        try:
            return type(run.send(None))
        except BaseException as exc:
            return type(exc), str(exc)

    async def main(pure: bool) -> list[object]:
        call = _call(upstream, pure=pure)
        found = [first_step(call.send({"type": "http.response.start", "status": status}))]
        call.sent = Sent(False)
        call.sent.status = status
        found.append(first_step(call.send({"type": "http.response.body"})))
        call._messages = status
        found.append(first_step(call.send({"type": "http.response.start", "status": 200})))
        found.append(first_step(call.var("a")))
        return found

    assert asyncio.run(main(pure=True)) == asyncio.run(main(pure=False))


def test_asks_are_counted_in_a_session_with_any_number_of_them() -> None:
    async def main() -> None:
        made = connected(asyncio.get_running_loop())
        made._session._state, made._session._asks = State.REQ_CALLED, 2**40
        made.ask((Var(b"a"), Var(b"b")))
        assert made._session._asks == 2**40 + 2
        with pytest.raises(AttributeError):
            made.ask((Var.__new__(Var),))
        made._session._state = State.IDLE
        with pytest.raises(Exception, match="ExtraInfoReq while"):
            made.ask((Var(b"a"),))

    asyncio.run(main())


def test_a_call_of_another_chain_is_made_as_the_class_makes_it() -> None:
    class OtherChain(Chain):
        __slots__ = ()

    chain = OtherChain([], None)
    call = new_request_call(HTTPReqCallReq(), chain, Gateway([]), Host(HOST))
    assert (type(call), call.chain) == (RequestCall, chain)


def test_an_answer_that_fits_into_no_frame_is_noted_once() -> None:
    class Refusing(Gateway):
        def answer(self, message: Any, outcome: str) -> None:
            if type(message) is HTTPReqCallResp:
                raise LocalProtocolError("too long")
            super().answer(message, outcome)

    found = []
    for kind, make in ((Layer, new_request_call), (PureLayer, PureCall)):
        seen: list[object] = []
        layer = kind("a", Options(), {})
        call = make(HTTPReqCallReq(headers=list(FORWARDED)), Chain([layer], None), Refusing(seen), Host(HOST))
        asyncio.run(call.run())
        found.append([*seen, call.stage, call._messages])
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["plugins._layers.Passing", "adapter._asking.Asking", "adapter._request_call.Sending"])
def test_what_is_awaited_can_be_made_by_hand_and_does_nothing(name: str) -> None:
    module, _, kind = name.rpartition(".")
    make: Any = getattr(import_module(f"asgi_bridge.{module}"), kind)
    uses: tuple[Callable[[Any], Any], ...] = (
        lambda made: made.send(None), lambda made: next(made), lambda made: made.throw(KeyError()),
    )  # fmt: skip
    for use in uses:
        made = make()
        with pytest.raises((AttributeError, KeyError, TypeError)):
            use(made)
        made.close()
        with pytest.raises(RuntimeError, match="^cannot reuse already awaited coroutine$"):
            made.send(None)


def test_answers_can_be_made_by_hand_and_never_come() -> None:
    make: Any = import_module("asgi_bridge.server._answers").Answers
    uses: tuple[Callable[[Any], Any], ...] = (
        lambda made: made.send(None), lambda made: made.done, lambda made: made.anything,
    )  # fmt: skip
    for use in uses:
        with contextlib.suppress(AttributeError):
            use(make())
    make().set_result([])
