"""A plugin whose messages never end: the event loop gets its turn, and the plugin's deadline ends it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.adapter import RequestCall, ResponseCall
from asgi_bridge.adapter.call import YIELD_EVERY
from asgi_bridge.wsgi import WSGIApp, WSGIMiddleware

from .calls import HOST, REFUSED, Gateway, chain_of, errors, request
from .phases import Exchange, chain, response

ENOUGH = 50 * YIELD_EVERY
"""Messages after which a plugin would have blocked the loop for good."""

POST = request((b"content-length", b"5"), method="POST")
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
EMPTY: Message = {"type": "http.response.body", "body": b"", "more_body": True}

Step = Callable[[Scope, Receive, Send], Awaitable[object]]


def endless(step: Step, first: Message | None = None, catches: bool = False) -> ASGIApp:
    """An application that does `step` again and again.

    Args:
        first: is sent before.
        catches: errors do not end it.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if first is not None:
            await send(first)
        for _ in range(ENOUGH):
            try:
                await step(scope, receive, send)
            except Exception:
                if not catches:
                    raise
        raise AssertionError("the event loop never got its turn")

    return app


def noting(app: ASGIApp, entered: asyncio.Event) -> ASGIApp:
    """`app`, which says when it is called."""

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await app(scope, receive, send)

    return noted


async def ask_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await apisix(scope).var("")


async def step_inwards(scope: Scope, receive: Receive, send: Send) -> None:
    await upstream({**scope, "method": "POST"}, receive, send)


async def pass_on_endless_body(scope: Scope, receive: Receive, send: Send) -> None:
    async def empty() -> Message:
        return {"type": "http.request", "body": b"", "more_body": True}

    await upstream(scope, empty, send)


async def swallow(message: Message) -> None: ...


async def read_twice(scope: Scope, receive: Receive, send: Send) -> None:
    await upstream(scope, receive, swallow)


ENDLESS = {
    "empty chunks": endless(lambda scope, receive, send: send(EMPTY), START),
    "small chunks": endless(lambda scope, receive, send: send({**EMPTY, "body": b"x"}), START),
    "debug messages": endless(lambda scope, receive, send: send({"type": "http.response.debug", "info": {}})),
    "faults that are caught": endless(lambda scope, receive, send: send({"type": "http.response.push"}), None, True),
    "variables without a name": endless(ask_nothing, None, True),
    "upstreams that are refused": endless(step_inwards, None, True),
    "upstreams that were called already": endless(read_twice, None, True),
    "a changed body without end": pass_on_endless_body,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_messages_without_end_do_not_block_the_loop(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Gateway:
        gateway = Gateway(body=b"hello")
        call = RequestCall(POST if "body" in name else request(), await chain_of(ENDLESS[name]), gateway, HOST)
        call.task = asyncio.create_task(call.run())
        await asyncio.sleep(0)  # its first step, which ends when it leaves the loop to others
        call.expire()
        await asyncio.wait([call.task])
        return gateway

    assert asyncio.run(main()).answers == [REFUSED]
    assert errors(caplog)[0].startswith("plugin p0: request refused: no answer in time (option timeout: 30 s)")


def test_receive_after_the_answer_does_not_block_the_loop() -> None:
    others: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream(scope, receive, send)
        asyncio.get_running_loop().call_soon(others.append, "turn")
        for _ in range(ENOUGH):
            assert await receive() == {"type": "http.disconnect"}
            if others:
                return
        raise AssertionError("the event loop never got its turn")

    async def main() -> None:
        call = RequestCall(request(), await chain_of(app), Gateway(), HOST)
        await call.run()

    asyncio.run(main())
    assert others == ["turn"]


@pytest.mark.parametrize("name", ["empty chunks", "debug messages", "faults that are caught"])
def test_nor_in_the_response_phase(name: str) -> None:
    async def main() -> Exchange:
        exchange, entered = Exchange(), asyncio.Event()
        call = ResponseCall(response(), await chain({"p0": noting(ENDLESS[name], entered)}), exchange, HOST)
        call.task = asyncio.create_task(call.run())
        await entered.wait()
        call.expire()
        await asyncio.wait([call.task])
        return exchange

    assert asyncio.run(main()).answers == [REFUSED]


class Passing:
    """A WSGI middleware that does nothing."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app

    def __call__(self, environ: object, start_response: object) -> Iterable[bytes]:
        return self.app(environ, start_response)


@pytest.mark.parametrize("name", ["empty chunks", "debug messages", "faults that are caught"])
def test_nor_inside_of_wsgi_code(name: str) -> None:
    async def main() -> Gateway:
        entered = asyncio.Event()
        bridge = Bridge()
        bridge.add_middleware("outer", WSGIMiddleware(Passing))
        bridge.mount("inner", noting(ENDLESS[name], entered))
        gateway = Gateway()
        call = RequestCall(request(), await chain_of(bridge=bridge), gateway, HOST)
        call.task = asyncio.create_task(call.run())
        await entered.wait()
        call.expire()
        await asyncio.wait([call.task])
        return gateway

    assert asyncio.run(main()).answers == [REFUSED]


def test_nor_a_body_without_end_that_wsgi_code_reads() -> None:
    def reading(environ: dict[str, object], start_response: object) -> list[bytes]:
        environ["wsgi.input"].read()  # type: ignore[attr-defined]
        raise AssertionError("it has no end")

    async def main() -> Gateway:
        entered = asyncio.Event()
        messages = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def empty() -> Message:
                nonlocal messages
                messages += 1
                entered.set()
                assert messages < ENOUGH, "the event loop never got its turn"
                return {"type": "http.request", "body": b"", "more_body": True}

            await upstream(scope, empty, send)

        bridge = Bridge()
        bridge.mount("outer", app)
        bridge.mount("inner", WSGIApp(reading))
        gateway = Gateway()
        call = RequestCall(request(), await chain_of(bridge=bridge), gateway, HOST)
        call.task = asyncio.create_task(call.run())
        await entered.wait()
        call.expire()
        await asyncio.wait([call.task])
        return gateway

    assert asyncio.run(main()).answers == [REFUSED]
