"""Plugins that block the event loop, and the log line about them."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge
from asgi_bridge.adapter import RequestCall
from asgi_bridge.plugins import Layer
from asgi_bridge.plugins.lifespan import Lifespan
from asgi_bridge.server import hangs
from asgi_bridge.server.hangs import HangWatch

from ..doubles.runner_thread import ThreadRunner
from ..doubles.waiting import until
from .sample import hello, respond

bridge = Bridge()
SECONDS = 1.2


async def sleeping(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    time.sleep(SECONDS)  # noqa: ASYNC251
    await respond(send, b"")


async def half_made(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"

    def sleep(call: RequestCall, layer: Layer, lifespan: Lifespan) -> None:
        time.sleep(SECONDS)

    # what the watch sees if it looks while the loop's thread makes these: objects without their attributes
    sleep(RequestCall.__new__(RequestCall), Layer.__new__(Layer), Lifespan.__new__(Lifespan))
    await respond(send, b"")


async def deep(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"

    def inner() -> None:
        subprocess.run([sys.executable, "-c", f"import time; time.sleep({SECONDS})"], check=True)

    inner()
    await respond(send, b"")


async def locking(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        sum(range(4 * 10**7))  # keeps the interpreter's lock
    await respond(send, b"")


async def background(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await respond(send, b"")
    time.sleep(SECONDS)  # noqa: ASYNC251


async def passing_to_task(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"

    async def work() -> None:
        time.sleep(SECONDS)  # noqa: ASYNC251

    await asyncio.create_task(work())
    await respond(send, b"")


class Outer(BaseHTTPMiddleware):
    """Runs the wrapped application in another task."""


async def dispatch(request: Request, call_next: Any) -> Response:
    return await call_next(request)  # type: ignore[no-any-return]


class Middle:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
        if scope["type"] == "http":
            time.sleep(SECONDS)  # noqa: ASYNC251


@bridge.plugin("building")
def building(conf: dict[str, Any]) -> ASGIApp:
    time.sleep(SECONDS)
    return hello


for app in (hello, sleeping, half_made, deep, locking, background, passing_to_task):
    bridge.mount(app.__name__, app)
bridge.add_middleware("outer", Outer, defaults={"dispatch": dispatch})
bridge.add_middleware("middle", Middle)


def hung(text: str) -> list[str]:
    return [line for line in text.splitlines() if "blocks the event loop" in line]


@pytest.mark.parametrize(
    ("plugins", "named", "place", "code"),
    [
        (["sleeping"], "sleeping, route 7", "in sleeping", "time.sleep(SECONDS)"),
        (["half_made"], "half_made, route 7", "in sleep", "time.sleep(SECONDS)"),
        (["deep"], "deep, route 7", "in inner", "subprocess.run("),
        (["locking"], "locking, route 7", "in locking", "sum(range("),
        (["background"], "background, route 7", "in background", "time.sleep(SECONDS)"),
        (["outer", "sleeping"], "sleeping, route 7", "in sleeping", "time.sleep(SECONDS)"),
        (["outer", "middle", "hello"], "middle, route 7", "in __call__", "time.sleep(SECONDS)"),
        (["building"], "building, route 7", "in building", "time.sleep(SECONDS)"),
    ],
)
def test_a_plugin_that_blocks_the_loop_is_named_with_its_line(
    serving: Callable[..., ThreadRunner],
    caplog: pytest.LogCaptureFixture,
    plugins: list[str],
    named: str,
    place: str,
    code: str,
) -> None:
    runner = serving(bridge=bridge)
    with runner.connect() as connection:
        answer = connection.prepare(*[(plugin, {}) for plugin in plugins], key="route#7#ext-plugin-pre-req#1")
        connection.call(answer.conf_token)  # type: ignore[union-attr]
    until(lambda: hung(caplog.text))
    (line,) = hung(caplog.text)
    assert f"plugin {named}, blocks the event loop: no call of any route has gone on for " in line
    found = re.search(r"It is at (\S+):(\d+) (in \w+): (.*?)\. Let it await", line)
    assert found is not None
    file, number, where, shown = found.groups()
    assert (file, where) == (__file__, place)
    assert code in shown and Path(file).read_text().splitlines()[int(number) - 1].strip() in line


def test_a_task_of_its_own(serving: Callable[..., ThreadRunner], caplog: pytest.LogCaptureFixture) -> None:
    runner = serving(bridge=bridge)
    with runner.connect() as connection:
        connection.call(connection.token("passing_to_task"))
    until(lambda: hung(caplog.text))
    (line,) = hung(caplog.text)
    assert re.search(r"(plugin passing_to_task, route 1,|a task of an unknown plugin) blocks the event loop", line)
    assert "in work: 'time.sleep(SECONDS)" in line


def test_one_line_a_minute(serving: Callable[..., ThreadRunner], caplog: pytest.LogCaptureFixture) -> None:
    runner = serving(bridge=bridge)
    with runner.connect() as connection:
        token = connection.token("sleeping")
        for _ in range(3):
            connection.call(token)
    assert len(hung(caplog.text)) == 1


def test_a_loop_that_works_in_many_short_steps_is_left_in_peace(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No timer fires, but no single step blocks the loop."""
    seen = HangWatch._stack
    looks: list[bool] = []

    def stack(watch: HangWatch) -> Any:
        found = seen(watch)
        looks.append(bool(found))
        return found

    monkeypatch.setattr(hangs, "HANG_SECONDS", 0.05)
    monkeypatch.setattr(HangWatch, "_stack", stack)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        enough = asyncio.Event()

        def step() -> None:
            time.sleep(0.005)
            enough.set() if looks.count(True) >= 5 else loop.call_soon(step)

        watch = HangWatch()
        watch.start()
        loop.call_soon(step)
        await enough.wait()
        watch.stop()

    asyncio.run(main())
    assert hung(caplog.text) == []


def test_a_loop_that_waits_runs_no_step(serving: Callable[..., ThreadRunner], monkeypatch: pytest.MonkeyPatch) -> None:
    watches: list[HangWatch] = []
    monkeypatch.setattr(HangWatch, "start", lambda self: watches.append(self))
    serving(bridge=bridge)
    until(lambda: watches)
    (watch,) = watches
    until(lambda: watch._stack() == [])
