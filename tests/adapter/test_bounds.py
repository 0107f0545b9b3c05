"""What a client or a long wait can make a runner keep: caches have bounds in bytes, parked calls hold no bodies."""

import asyncio
import gc
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, upstream
from asgi_bridge.adapter import headers, request_scope
from asgi_bridge.wire import HTTPReqCallReq
from asgi_bridge.wsgi import WSGIApp, environ
from asgi_bridge.wsgi import upstream as wsgi_upstream

from .calls import answer, passing, request
from .phases import PRE_REQ, Exchange, begin, chain, fresh_host, respond, response

LONG = 1 << 20


def kept() -> int:
    """Bytes of all long bytes and texts that something still refers to."""
    gc.collect()
    seen: dict[int, int] = {}
    # without modules: before CPython 3.12.6 and 3.13.0 asyncio's gives away what it has freed (gh-122695)
    objects = [each for each in gc.get_objects() if not isinstance(each, ModuleType)]
    for part in gc.get_referents(*objects):
        if isinstance(part, (bytes, str, bytearray)) and sys.getsizeof(part) >= LONG // 2:
            seen[id(part)] = sys.getsizeof(part)
    return sum(seen.values())


def header(name: bytes, value: bytes) -> HTTPReqCallReq:
    return HTTPReqCallReq(5, b"\x7f\x00\x00\x01", "GET", b"/x", None, [(b"host", b"a.test"), (name, value)], 1)


def forwarded(number: int) -> HTTPReqCallReq:
    return HTTPReqCallReq(
        5, None, "GET", b"/x", None,
        [(b"x-forwarded-proto", b"http"), (b"x-forwarded-host", b"%d" % number + b"a" * LONG)], 1,
    )  # fmt: skip


def named(number: int) -> bytes:
    return b"x-%d-" % number + b"a" * LONG


def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
    return wsgi_upstream(environ, start_response)


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (passing(), forwarded),
        (passing(), lambda number: request(src_ip=b"%d" % number + b"a" * LONG)),
        (passing(lambda scope: scope["headers"].reverse()), lambda number: header(named(number), b"1")),
        (passing(lambda scope: scope["headers"].append((named(len(scope["path"])), b""))), lambda number: request()),
        (WSGIApp(wsgi), lambda number: header(named(number), b"1")),
    ],
    ids=["x-forwarded-host", "address", "header names that are checked", "header names that are warned of", "WSGI"],
)
def test_what_clients_make_up_is_not_kept(app: ASGIApp, message: Callable[[int], HTTPReqCallReq]) -> None:
    before = kept()
    for number in range(5):
        answer(app, message=message(number))
    assert kept() <= before + LONG


def test_usual_origins_addresses_and_names_are_kept() -> None:
    """A cache that keeps nothing would be bounded too."""
    origin = {b"x-forwarded-proto": b"http", b"x-forwarded-host": b"a.test"}
    uses: tuple[tuple[Any, Callable[[], object]], ...] = (
        (request_scope._cached_origin, lambda: request_scope.forwarded_origin(origin)),
        (request_scope._cached_address, lambda: request_scope._address(b"\x7f\0\0\x01")),
    )
    for cache, use in uses:
        cache.cache_clear()
        for _ in range(3):
            use()
        assert (cache.cache_info().hits, cache.cache_info().misses) == (2, 1)
    answer(passing(lambda scope: scope["headers"].append((b"X-Kept", b"1"))))
    assert headers._names[b"X-Kept"] == b"x-kept" and b"X-Kept" in headers._names
    assert environ._key(b"x-kept") == "HTTP_X_KEPT"


BODY = b"b" * LONG
POST = request((b"content-length", b"%d" % LONG), method="POST")


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await upstream(scope, receive, send)


async def comparing(scope: Scope, receive: Receive, send: Send) -> None:
    async def same() -> Message:
        return await receive()

    await upstream(scope, same, send)


async def changing(scope: Scope, receive: Receive, send: Send) -> None:
    async def other() -> Message:
        message = await receive()
        return {**message, "body": bytes(len(message["body"]))}

    await upstream(scope, other, send)


def wsgi_reading(environ: dict[str, Any], start_response: Any) -> Any:
    assert len(environ["wsgi.input"].read()) == LONG
    return wsgi_upstream(environ, start_response)


@pytest.mark.parametrize("on_error", ["closed", "open"])
@pytest.mark.parametrize(
    "app", [reading, comparing, changing, WSGIApp(wsgi_reading)], ids=["reads", "compares", "changes", "WSGI"]
)
def test_parked_calls_keep_no_bodies(app: ASGIApp, on_error: Any) -> None:
    async def main() -> int:
        bridge = Bridge()
        bridge.mount("p", app, phase="both", on_error=on_error)
        plugins, host = await chain(bridge, PRE_REQ), fresh_host()
        before = kept()
        calls = []
        for _ in range(3):
            exchange = Exchange(body=bytes(bytearray(BODY)))
            calls.append((await begin(plugins, host, POST, exchange))[0])
            # what the gateway of this test has and got
            exchange._body = None
            exchange.answers.clear()
        assert len(host.parked) == 3
        after = kept() - before
        for call in calls:
            call.abandon()
            assert call.task is not None
            await asyncio.wait([call.task])
        return after

    assert asyncio.run(main()) == 0


def test_a_parked_call_still_gives_a_body_that_nobody_has_read() -> None:
    """It was fetched, for somebody who gave up waiting."""
    found: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        waiting.cancel()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                found.append(await receive())
            await send(message)

        await upstream(scope, receive, sending)

    async def main() -> Any:
        bridge = Bridge()
        bridge.mount("p", app, phase="both")
        host = fresh_host()
        message = request((b"content-length", b"5"), method="POST")
        call, _ = await begin(await chain(bridge, PRE_REQ), host, message, Exchange(body=b"hello"))
        (answer,) = (await respond(await chain(bridge), response(), host=host)).answers
        assert call.task is None
        return answer.status

    assert asyncio.run(main()) == 200
    assert found == [{"type": "http.request", "body": b"hello", "more_body": False}]
