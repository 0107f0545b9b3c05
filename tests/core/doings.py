"""What the plugins of the random calls in ``calls.py`` do."""

import asyncio
import contextlib
import random
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from asgi_bridge.adapter import RequestCall
from asgi_bridge.errors import PluginError
from asgi_bridge.plugins import apisix
from asgi_bridge.plugins import upstream as upstream_in_python
from asgi_bridge.plugins.extension import Apisix, current, new_next

__all__ = ["DOINGS", "KEPT", "USUAL", "Chance", "Doing", "Seen"]

Chance = random.Random
Seen = list[object]
Doing: TypeAlias = Callable[[Scope, Receive, Send, Seen, Chance], Awaitable[None]]
"""What a plugin does; the list gets what both have to see."""


_next = new_next()


def upstream(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    """Pass the request on, by what the middleware of such a call wraps: compiled, or in Python."""
    extension = current.get(None)
    usual = extension is not None and type(getattr(extension, "_call", None)) is RequestCall
    return (_next if usual else upstream_in_python)(scope, receive, send)


@contextlib.contextmanager
def maybe_caught(kind: type[BaseException], seen: Seen, chance: Chance) -> Iterator[None]:
    """Note an exception that comes out of the block, and catch every second one."""
    try:
        yield
    except kind as exc:
        seen.append((type(exc), str(exc)))
        if chance.random() < 0.5:
            raise


async def passes(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    await upstream(scope, receive, send)


async def rewrites(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    names = (b"x-a", b"X-A", b"host", b"cookie", b"x-real-ip", b"bad name", b"content-length")
    for _ in range(chance.randrange(4)):
        entry = chance.choice(names), chance.choice((b"1", b"", b" 2 ", b"a\r\nb"))
        scope["headers"].insert(chance.randrange(len(scope["headers"]) + 1), entry)
    if chance.random() < 0.3 and scope["headers"]:
        del scope["headers"][chance.randrange(len(scope["headers"]))]
    if chance.random() < 0.3:
        scope["path"] = chance.choice(("/b", "b", "/\udc80", "/\ufffd", 5, scope["path"] + "/c"))
    if chance.random() < 0.2:
        scope["query_string"] = chance.choice((b"a=1", b"b", b"", "a=1"))
    if chance.random() < 0.1:
        scope["method"] = "PUT"
    if chance.random() < 0.1:
        scope["raw_path"] = chance.choice((None, b"/raw"))
    await upstream(scope, receive, send)


async def answers(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    status = chance.choice((200, 200, 404, 204, 304, 403, 101, 444, 1000, 10**30, "200"))
    headers: Any = [(b"content-type", b"text/plain")] * chance.randrange(2)
    headers += chance.choice(([], [(b"X-A", b"1")], [(b"content-length", b"3")], [(b"server", b"s")], [(b"x-a", b"")]))
    if chance.random() < 0.1:
        headers = chance.choice((tuple(headers), None, [("a", "b")]))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for _ in range(chance.randrange(3)):
        part = chance.choice((b"abc", b"", bytearray(b"d"), "e"))
        await send({"type": "http.response.body", "body": part, "more_body": chance.choice((True, 1))})
    body: dict[str, Any] = {"type": "http.response.body"}
    if chance.random() < 0.8:
        body["body"] = chance.choice((b"abc", b"", b"x" * 1000))
    if chance.random() < 0.5:
        body["more_body"] = chance.choice((False, 0, None))
    await send(body)
    if chance.random() < 0.1:
        await send(body)


async def answers_with_starlette(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    await PlainTextResponse("hello", chance.choice((200, 404, 503, 204)))(scope, receive, send)


async def sends_nonsense(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    await send({"type": chance.choice(("http.response.body", "nothing", 5, "http.response.debug"))})
    await upstream(scope, receive, send)


async def raises(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    if chance.random() < 0.5:
        await upstream(scope, receive, send)
    raise chance.choice((ValueError("fault"), PluginError("own fault"), asyncio.CancelledError()))


async def catches(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    with contextlib.suppress(Exception):
        await upstream(scope, receive, send)


async def calls_twice(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    await upstream(scope, receive, send)
    await upstream(scope, receive, send)


async def does_nothing(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    pass


async def wraps_send(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    async def sending(message: Message) -> None:
        seen.append(("sends", repr(message)))
        if message["type"] == "http.response.start" and chance.random() < 0.5:
            message = {**message, "headers": [*message["headers"], (b"x-sent", b"1")]}
        await send(message)

    await upstream(scope, receive, sending)


async def wraps_receive(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    changes = chance.random() < 0.5

    async def receiving() -> Message:
        message = await receive()
        seen.append(("receives", repr(message)))
        return {**message, "body": b"changed"} if changes and message["type"] == "http.request" else message

    await upstream(scope, receiving, send)


async def reads(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    for _ in range(chance.choice((1, 1, 1, 2))):
        seen.append(repr(await receive()))
    await upstream(scope, receive, send)


async def asks(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    names: tuple[Any, ...] = ("remote_addr", "request_id", "unknown", "broken", "", 5, "x" * 2000)
    wanted = [chance.choice(names[: chance.choice((3, 3, 7))]) for _ in range(chance.randrange(4))]
    with maybe_caught(PluginError, seen, chance):
        seen.append(repr(await apisix(scope).var(*wanted)))
    await upstream(scope, receive, send)


async def makes_another_scope(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    other = dict(scope)
    for name in ("extensions", "state", "headers", "path", "raw_path", "method"):
        if chance.random() < 0.15:
            del other[name]
    if chance.random() < 0.2 and "headers" in other:
        other["headers"] = tuple(other["headers"])
    if chance.random() < 0.2:
        other["extensions"] = {**scope["extensions"], "more": {}}
    if chance.random() < 0.2:
        other["state"] = {"other": True}
    await upstream(other, receive, send)


async def waits(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    await asyncio.sleep(0)
    await upstream(scope, receive, send)
    if chance.random() < 0.5:
        await asyncio.sleep(0)


async def goes_on_in_a_task(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    await asyncio.create_task(_run(scope, receive, send))


async def _run(scope: Scope, receive: Receive, send: Send) -> None:
    await upstream(scope, receive, send)


async def talks_without_end(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(chance.choice((3, 62, 63, 64, 130))):
        await send({"type": "http.response.body", "body": b".", "more_body": True})
    await send({"type": "http.response.body"})


async def hands_on_another_extension(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    own = apisix(scope)
    others: tuple[Any, ...] = (own._earlier, dict(own), Apisix(own), None, 5, {})
    scope["extensions"] = chance.choice(({"apisix": chance.choice(others)}, {}, None, 5))
    await upstream(scope, receive, send)


async def is_cancelled(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    task = asyncio.current_task()
    assert task is not None
    before = chance.random() < 0.5
    if before:
        task.cancel()
    if chance.random() < 0.3:
        await asyncio.sleep(0)
    await upstream(scope, receive, send)
    if not before:
        task.cancel()
    if chance.random() < 0.5:
        with maybe_caught(asyncio.CancelledError, seen, chance):
            await asyncio.sleep(0)


async def waits_for_nothing_that_comes(
    scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance
) -> None:  # fmt: skip
    """Wait inside of other plugins, until the call is ended from outside."""
    forever: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with maybe_caught(BaseException, seen, chance):
        await forever
    await upstream(scope, receive, send)


async def sends_later(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    async def later() -> None:
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        for message in ({"type": "http.response.start", "status": 404}, {"type": "http.response.body"}):
            try:
                await send(message)
            except Exception as exc:
                seen.append((type(exc), str(exc)))

    task = asyncio.create_task(later())
    try:
        await upstream(scope, receive, send)
    finally:
        if chance.random() < 0.7:
            await task
        else:
            await asyncio.wait([task])


async def keeps_its_task(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    task = asyncio.current_task()
    assert task is not None
    KEPT.append(chance.choice((task, weakref.ref(task))))
    await upstream(scope, receive, send)


KEPT: deque[object] = deque(maxlen=8)
"""Tasks that plugins keep."""


async def sends_at_the_end(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    await upstream(scope, receive, send)
    await send(chance.choice(({"type": "http.response.start", "status": 200}, {"type": "http.response.body"})))


GONE = object()
ODD: tuple[Any, ...] = (GONE, GONE, None, 5, -1, 10**30, True, (), [], {}, "", b"")
PLACES: dict[str, tuple[str, ...]] = {
    "call": ("sent", "stage", "chain", "request_id", "extension", "state", "parking", "_messages", "_rewrite",
             "changed_body", "_connection", "_message", "faults", "failed", "request_body", "_host"),
    "sent": ("status", "headers", "content", "complete", "upstream"),
    "message": ("id", "method", "headers", "args", "path", "src_ip"),
    "chain": ("cures", "states", "names", "calls"),
    "layer": ("app", "inner", "options", "name", "root", "_entries"),
    "extension": ("_call", "_layer", "_receive", "_send", "_earlier"),
}  # fmt: skip
"""What a plugin can reach without a right to: attributes by where they are."""


async def misuses_awaitables(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    """Do with what a plugin has to await what can be done with a coroutine."""
    extension = apisix(scope)
    made: Any = chance.choice(
        (
            lambda: upstream(scope, receive, send),
            lambda: extension.var("remote_addr"),
            lambda: extension.var("remote_addr", "broken"),
            lambda: send({"type": "http.response.start", "status": 403, "headers": []}),
            lambda: send({"type": "nothing"}),
        )
    )()
    begun = chance.random() < 0.5
    misuses: tuple[Callable[[], object], ...] = (
        made.close, lambda: made.throw(KeyError("thrown")), lambda: made.throw(StopIteration), lambda: made.send(5),
        lambda: made.send(None), lambda: made.throw(asyncio.CancelledError()),
    )  # fmt: skip
    for use in chance.choices(misuses[int(begun) :], k=chance.randrange(3)):
        try:
            seen.append(type(use()))
        except BaseException as exc:
            seen.append((type(exc), str(exc)) if type(exc) is not TypeError else TypeError)
    with maybe_caught(Exception, seen, chance):
        seen.append(await (asyncio.create_task(made) if begun else made))
    with maybe_caught(Exception, seen, chance):
        await made


async def breaks_something(scope: Scope, receive: Receive, send: Send, seen: Seen, chance: Chance) -> None:
    """Set an attribute that is not a plugin's own to something odd, or delete it."""
    extension = apisix(scope)
    call: Any = extension._call
    if chance.random() < 0.5:
        await send({"type": "http.response.start", "status": 403, "headers": [(b"x-a", b"1")]})
    places = {
        "call": call, "sent": call.sent, "message": call._message, "chain": call.chain, "layer": extension._layer,
        "extension": extension,
    }  # fmt: skip
    place = chance.choice(list(places))
    name, value = chance.choice(PLACES[place]), chance.choice(ODD)
    seen.append((place, name, repr(value) if value is not GONE else "gone"))
    if place == "message" or name in ("_message", "_host"):
        seen.append(("spoils",))
    if places[place] is None:
        return
    chain = call.chain
    before = getattr(places[place], name)
    if value is GONE:
        delattr(places[place], name)
    else:
        setattr(places[place], name, value)
    try:
        if chance.random() < 0.5:
            await send({"type": "http.response.body", "body": b"a"})
        else:
            await upstream(scope, receive, send)
    finally:
        if place == "chain" or name in ("chain", "stage", "_host"):  # a runner cannot go on without them
            setattr(places[place], name, before)
            call.chain = chain


DOINGS = (
    passes, passes, rewrites, rewrites, answers, answers, answers_with_starlette, sends_nonsense, raises, catches,
    calls_twice, does_nothing, wraps_send, wraps_receive, reads, asks, asks, makes_another_scope, waits,
    goes_on_in_a_task, talks_without_end, hands_on_another_extension, is_cancelled, waits_for_nothing_that_comes,
    sends_later, sends_at_the_end, keeps_its_task, misuses_awaitables, breaks_something, breaks_something,
)  # fmt: skip
"""All that plugins do."""
USUAL = (passes, rewrites, answers, answers_with_starlette, catches, asks, asks, waits, reads, raises, keeps_its_task)
"""What plugins do that mean no harm."""
