"""The life of a call: contexts, deadlines, shutdown, the gateway going away, and nothing left behind."""

import asyncio
import contextlib
import contextvars
import gc
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.adapter import RequestCall
from asgi_bridge.errors import PluginError
from asgi_bridge.plugins import Apisix
from asgi_bridge.wire import HTTPReqCallReq, HTTPReqCallResp, Rewrite

from .calls import REFUSED, Gateway, chain_of, errors, passing, request, responding, run, warnings

POST = request((b"content-length", b"5"), method="POST")


# exceptions


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class Refusal(Unspeakable, PluginError):
    """One that a plugin makes of ours."""


@pytest.mark.parametrize("kind", [Unspeakable, Refusal])
@pytest.mark.parametrize("on_error", ["closed", "open"])
def test_an_exception_without_a_text_refuses_as_any_other(
    kind: type[Exception], on_error: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise kind

    async def main() -> list[Any]:
        gateway = await run(await chain_of(app, on_error=on_error))
        return gateway.answers

    assert asyncio.run(main()) == [REFUSED if on_error == "closed" else HTTPReqCallResp(5, None)]
    (line,) = errors(caplog)
    assert line.endswith("(its text cannot be had: ValueError)")


# contexts


def test_context_variables_do_not_reach_the_next_call() -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(user.get())
        user.set("jack")
        await passing(lambda scope: seen.append(user.get()))(scope, receive, send)

    async def main() -> None:
        chain = await chain_of(app)
        for _ in range(2):
            await run(chain)

    asyncio.run(main())
    assert seen == ["nobody", "jack"] * 2


def test_calls_of_a_chain_side_by_side() -> None:
    async def main() -> None:
        all_in = asyncio.Event()
        entered: list[Apisix] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            entered.append(apisix(scope))
            if len(entered) == 3:
                all_in.set()
            await all_in.wait()
            scope["path"] = "/" + dict(scope["headers"])[b"x-number"].decode()
            # found by the context, without the scope's extension
            await upstream({**scope, "extensions": {}}, receive, send)

        chain = await chain_of(app)
        calls = [run(chain, request((b"x-number", b"%d" % number))) for number in range(3)]
        gateways = await asyncio.gather(*calls)
        assert [gateway.answers[0].action for gateway in gateways] == [
            Rewrite(path=b"/0"), Rewrite(path=b"/1"), Rewrite(path=b"/2"),
        ]  # fmt: skip
        assert len({id(extension) for extension in entered}) == 3
        assert chain.calls == 0

    asyncio.run(main())


# deadlines and shutdown


def waiting(cancelled: list[str], entered: asyncio.Event) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("cancelled")
            raise

    return app


def test_expired_call_is_refused_once_and_ended(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        cancelled: list[str] = []
        entered = asyncio.Event()
        gateway = Gateway()
        chain = await chain_of(passing(), waiting(cancelled, entered))
        task = asyncio.create_task(run(chain, None, gateway))
        await entered.wait()
        assert gateway.call is not None
        assert asyncio.get_running_loop().time() < gateway.call.deadline < float("inf")
        gateway.call.expire()
        assert (gateway.answers, gateway.outcomes) == ([REFUSED], ["error timeout"])
        gateway.call.expire()
        await task
        assert gateway.answers == [REFUSED]
        assert cancelled == ["cancelled"]
        assert chain.calls == 0

    asyncio.run(main())
    assert errors(caplog) == ["plugin p0: request refused: no answer in time (option timeout: 30 s)"]


def test_the_late_plugin_is_the_one_whose_time_is_up_first(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        entered = asyncio.Event()
        bridge = Bridge()
        bridge.mount("patient", passing(), timeout=60.0)
        bridge.mount("quick", waiting([], entered), timeout=1.0)
        gateway = Gateway()
        task = asyncio.create_task(run(await chain_of(bridge=bridge), None, gateway))
        await entered.wait()
        assert gateway.call is not None
        gateway.call.expire()
        await task

    asyncio.run(main())
    assert errors(caplog) == ["plugin quick: request refused: no answer in time (option timeout: 1 s)"]


async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
    await asyncio.Event().wait()


async def reading_twice(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()

    async def again() -> Message:
        return await receive()

    await upstream(scope, again, send)


@pytest.mark.parametrize(
    ("app", "why"),
    [
        (streaming, "; it has begun to answer, but an answer is one message here: a stream without end cannot be sent"),
        (reading_twice, "; it has read the request body, and the receive that it hands on gives no more: mount it with "
                        "request_body=False if it does not change the body"),
        (waiting([], asyncio.Event()), ""),
    ],
    ids=["a stream", "a body that is gone", "it waits"],
)  # fmt: skip
def test_a_late_plugin_is_told_how_long_and_why(app: ASGIApp, why: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        gateway = Gateway(body=b"hello")
        chain = await chain_of(app, timeout=0.25)
        task = asyncio.create_task(run(chain, request((b"content-length", b"5"), method="POST"), gateway))
        for _ in range(20):  # steps, until it stands where it waits
            await asyncio.sleep(0)
        assert gateway.call is not None
        gateway.call.expire()
        await task

    asyncio.run(main())
    assert errors(caplog) == [f"plugin p0: request refused: no answer in time (option timeout: 0.25 s){why}"]


@pytest.mark.parametrize(("timeout", "warned"), [(60.0, False), (60.5, True), (3600, True), (0.5, False)])
@pytest.mark.parametrize("way", ["mount", "add_middleware", "plugin"])
def test_a_timeout_that_apisix_does_not_wait_for_is_warned_of(
    timeout: float, warned: bool, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    bridge = Bridge()
    if way == "mount":
        bridge.mount("slow", passing(), timeout=timeout)
    elif way == "add_middleware":
        bridge.add_middleware("slow", GZipMiddleware, timeout=timeout)
    else:
        bridge.plugin("slow", timeout=timeout)(lambda: passing())
    line = (
        f"plugin slow: its option timeout is {timeout:g} s, but APISIX gives up after 60 s and answers 503: lower the "
    )
    assert [text.removesuffix("timeout") for text in warnings(caplog)] == ([line] if warned else [])


def test_a_plugin_that_answers_when_it_is_ended_late_answers_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Gateway:
        entered = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            entered.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await upstream(scope, receive, send)

        gateway = Gateway()
        task = asyncio.create_task(run(await chain_of(app), None, gateway))
        await entered.wait()
        assert gateway.call is not None
        gateway.call.expire()
        await task
        return gateway

    assert asyncio.run(main()).answers == [REFUSED]
    assert errors(caplog) == ["plugin p0: request refused: no answer in time (option timeout: 30 s)"]


def test_background_tasks_have_no_deadline(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        go_on = asyncio.Event()
        done: list[bool] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await upstream(scope, receive, send)
            await go_on.wait()
            done.append(True)

        gateway = Gateway()
        task = asyncio.create_task(run(await chain_of(app), None, gateway))
        await gateway.answered.wait()
        assert gateway.call is not None
        gateway.call.expire()
        go_on.set()
        await task
        assert done == [True]
        assert gateway.answers == [HTTPReqCallResp(5)]

    asyncio.run(main())
    assert errors(caplog) == []


def test_shutdown_refuses_a_call(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        cancelled: list[str] = []
        entered = asyncio.Event()
        gateway = Gateway()
        chain = await chain_of(waiting(cancelled, entered))
        task = asyncio.create_task(run(chain, None, gateway))
        await entered.wait()
        assert gateway.call is not None and gateway.call.task is not None
        gateway.call.task.cancel()
        await task
        assert (gateway.answers, cancelled, chain.calls) == ([REFUSED], ["cancelled"], 0)

    asyncio.run(main())
    assert errors(caplog) == ["plugin p0: request refused: it was cut off by the shutdown"]


def test_shutdown_ends_background_tasks_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        gateway = Gateway()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await upstream(scope, receive, send)
            await asyncio.Event().wait()

        task = asyncio.create_task(run(await chain_of(app), None, gateway))
        await gateway.answered.wait()
        assert gateway.call is not None and gateway.call.task is not None
        gateway.call.task.cancel()
        await task
        assert gateway.answers == [HTTPReqCallResp(5)]

    asyncio.run(main())
    assert caplog.records == []


def test_the_time_of_a_call_is_up_that_the_gateway_has_left(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        cancelled: list[str] = []
        entered = asyncio.Event()
        gateway = Gateway()
        task = asyncio.create_task(run(await chain_of(waiting(cancelled, entered)), None, gateway))
        await entered.wait()
        gateway.disconnect()
        assert gateway.call is not None
        gateway.call.expire()
        await task
        assert (gateway.answers, cancelled) == ([], ["cancelled"])

    asyncio.run(main())


def test_a_plugins_own_cancellation_is_not_the_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    async def main() -> Gateway:
        return await run(await chain_of(app))

    assert asyncio.run(main()).answers == [REFUSED]
    assert errors(caplog) == ["plugin p0: request refused: CancelledError"]


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_a_plugin_cannot_end_the_runner(exception: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise exception("bye")

    async def main() -> Gateway:
        return await run(await chain_of(app))

    assert asyncio.run(main()).answers == [REFUSED]
    assert errors(caplog) == [f"plugin p0: request refused: {exception.__name__}: bye"]


# leaks


@contextlib.contextmanager
def no_cyclic_collection() -> Iterator[None]:
    """Without the cyclic garbage collector, and without log records, which keep the frames of an exception."""
    gc.collect()
    gc.disable()
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()


def alive() -> list[Any]:
    return [type(found).__name__ for found in gc.get_objects() if isinstance(found, RequestCall | Apisix)]


async def swallowing(scope: Scope, receive: Receive, send: Send) -> None:
    with contextlib.suppress(PluginError):
        await send({"type": "http.response.body"})


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    await Request(scope, receive).body()
    await upstream(scope, receive, send)


async def polling(scope: Scope, receive: Receive, send: Send) -> None:
    await Request(scope, receive).is_disconnected()
    await upstream(scope, receive, send)


async def listening(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    gone = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    await upstream(scope, receive, send)
    await gone


async def asking(scope: Scope, receive: Receive, send: Send) -> None:
    await apisix(scope).var("request_id")
    await upstream(scope, receive, send)


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    raise KeyError("secret")


async def raising_late(scope: Scope, receive: Receive, send: Send) -> None:
    await upstream(scope, receive, send)
    raise KeyError("secret")


async def wrapping(scope: Scope, receive: Receive, send: Send) -> None:
    async def received() -> Message:
        return await receive()

    async def sending(message: Message) -> None:
        await send(message)

    scope["path"] = "/y"
    await upstream(scope, received, sending)


ANSWERING = responding({"type": "http.response.start", "status": 403}, {"type": "http.response.body", "body": b"no"})


@pytest.mark.parametrize(
    "app",
    [
        passing(), passing(lambda scope: scope.update(path="/y")), ANSWERING, reading, polling, listening, asking,
        raising, raising_late, wrapping, swallowing, responding({"type": "http.response.body"}),
        passing(lambda scope: scope.update(method="POST")), passing(lambda scope: scope.update(path="")),
        responding(), PlainTextResponse("x"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("exact", [False, True])
def test_calls_are_freed_without_the_garbage_collector(app: ASGIApp, exact: bool) -> None:
    async def main() -> None:
        chain = await chain_of(passing(), app, passing(), exact=exact)
        for _ in range(3):
            await run(chain, POST, Gateway({"request_id": b"1"}, b"hello"))
        # the loop lets go of what ran last
        await asyncio.sleep(0)
        assert alive() == []

    with no_cyclic_collection():
        asyncio.run(main())


@pytest.mark.parametrize("end", ["expire", "disconnect", "cancel"])
def test_interrupted_calls_are_freed_without_the_garbage_collector(end: str) -> None:
    async def one(gateway: Gateway) -> None:
        entered = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            entered.set()
            await receive()
            await receive()

        task = asyncio.create_task(run(await chain_of(passing(), app), POST, gateway))
        await entered.wait()
        assert gateway.call is not None and gateway.call.task is not None
        if end == "expire":
            gateway.call.expire()
        elif end == "disconnect":
            gateway.disconnect()
        else:
            gateway.call.task.cancel()
        await task

    async def main() -> None:
        for _ in range(3):
            await one(Gateway(body=b"hello", holding=True))
        await asyncio.sleep(0)
        assert alive() == []

    with no_cyclic_collection():
        asyncio.run(main())


def test_requests_refused_before_the_chain_are_freed_without_the_garbage_collector() -> None:
    async def main() -> None:
        chain = await chain_of(passing())
        wrong: list[HTTPReqCallReq] = [request((None, None)), request(*[(b"x-a", b"1")] * 100)]
        for message in wrong:
            await run(chain, message)
        await asyncio.sleep(0)
        assert alive() == []

    with no_cyclic_collection():
        asyncio.run(main())


def test_frameworks_are_freed_by_the_garbage_collector_at_the_latest() -> None:
    class Base(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            return await call_next(request)

    async def main() -> None:
        bridge = Bridge()
        bridge.add_middleware("base", Base)
        bridge.add_middleware("cors", CORSMiddleware)
        bridge.mount("app", Starlette(routes=[Route("/hello", lambda request: None), Mount("/", app=upstream)]))
        chain = await chain_of(bridge=bridge)
        for _ in range(3):
            assert (await run(chain, POST, Gateway(body=b"hello"))).outcomes in (["pass"], ["rewrite"])
        await asyncio.sleep(0)
        gc.collect()
        assert alive() == []

    asyncio.run(main())
