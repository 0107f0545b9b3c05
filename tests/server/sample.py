"""The plugins of the runners in these tests."""

import asyncio
import contextlib
import contextvars
import gc
import json
import os
import sys
import time
from typing import Any

import anyio.to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, PluginError, apisix, upstream
from asgi_bridge.adapter import Call

bridge = Bridge()
seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="")
built: list[Any] = []


async def respond(send: Send, body: bytes, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"hello")


async def passing(scope: Scope, receive: Receive, send: Send) -> None:
    await upstream(scope, receive, send)


async def sleeping(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(apisix(scope).conf)
    await respond(send, b"slept")


async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits until the gateway closes the connection, and then writes a file."""
    assert (await receive())["type"] == "http.request"
    assert (await receive())["type"] == "http.disconnect"
    with open(apisix(scope).conf, "w"):  # noqa: ASYNC230
        pass


async def cycling(scope: Scope, receive: Receive, send: Send) -> None:
    """Leave 200 KB that refer to themselves."""
    cycle: list[Any] = [b"x" * 200_000]
    cycle.append(cycle)
    await respond(send, b"left")


async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
    """Does not end when it is cancelled."""
    end = time.monotonic() + apisix(scope).conf
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(left)


async def asyncio_thread(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.to_thread(time.sleep, apisix(scope).conf)
    await respond(send, b"slept")


async def anyio_thread(scope: Scope, receive: Receive, send: Send) -> None:
    await anyio.to_thread.run_sync(time.sleep, apisix(scope).conf)
    await respond(send, b"slept")


async def blocking(scope: Scope, receive: Receive, send: Send) -> None:
    seconds = apisix(scope).conf
    print("the event loop is blocked now", file=sys.stderr, flush=True)
    time.sleep(seconds)  # noqa: ASYNC251  # what it is for
    await respond(send, b"slept")


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("as it was told")


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def asking(scope: Scope, receive: Receive, send: Send) -> None:
    names = apisix(scope).conf
    answer: Any = await apisix(scope).var(*names)
    found: dict[str, bytes | None] = {names[0]: answer} if len(names) == 1 else answer
    texts = {name: None if value is None else value.decode() for name, value in found.items()}
    await respond(send, json.dumps(texts).encode())


told: list[str] = []


async def asking_behind(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers while a task that it has started still asks the gateway."""

    async def ask() -> None:
        try:
            await apisix(scope).var("a")
        except PluginError as exc:
            told.append(str(exc))

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    await respond(send, b"done")
    await task


async def impatient(scope: Scope, receive: Receive, send: Send) -> None:
    """Asks the gateway, and does not wait for the answer."""
    try:
        await asyncio.wait_for(apisix(scope).var("a"), 0.01)
    except TimeoutError:
        await asyncio.sleep(0.2)
    await respond(send, b"done")


async def counting(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers the length of the request body."""
    message: Message = await receive()
    await respond(send, b"%d" % len(message["body"]))


async def big(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"x" * apisix(scope).conf)


async def remembering(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers the value of a context variable, which is empty unless calls share a context."""
    before = seen.get()
    seen.set("a call before")
    await respond(send, before.encode())


async def pid(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"%d" % os.getpid())


async def census(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers how many tasks and calls the process has."""
    gc.collect()
    calls = sum(isinstance(each, Call) for each in gc.get_objects())
    await respond(send, json.dumps({"tasks": len(asyncio.all_tasks()), "calls": calls}).encode())


for app in (
    hello, passing, sleeping, waiting, stubborn, asyncio_thread, anyio_thread, blocking, raising, silent, asking,
    counting, cycling, big, remembering, pid, census, asking_behind, impatient,
):  # fmt: skip
    bridge.mount(app.__name__, app)
bridge.mount("hurried", sleeping, timeout=0.2)
bridge.mount("hurried-stubborn", stubborn, timeout=0.2)


@bridge.plugin("built")
async def build(conf: dict[str, Any]) -> ASGIApp:
    built.append(conf)
    await asyncio.sleep(conf.get("seconds", 0))
    number = b"%d" % len(built)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, number)

    return app


@bridge.plugin("made")
def make(conf: dict[str, Any]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"%d" % conf["number"])

    return app


async def hang(scope: Scope, receive: Receive, send: Send) -> None:
    """Its lifespan shutdown does not end."""
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.sleep(5)


hanging = Bridge()
hanging.include(bridge)
hanging.mount("hang", hang)
