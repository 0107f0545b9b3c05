"""Plugins that raise SystemExit or KeyboardInterrupt: the runner goes on."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from asgi_bridge import Bridge, apisix

from ..doubles.connection import UNAVAILABLE, body_of
from ..doubles.runner_process import RunnerProcess
from ..doubles.runner_thread import ThreadRunner
from ..doubles.waiting import until
from .sample import hello, respond

EXITS: dict[str, Callable[[], BaseException]] = {
    "interrupt": lambda: KeyboardInterrupt("of a plugin"),
    "exit": lambda: SystemExit("of a plugin"),
}

bridge = Bridge()
bridge.mount("hello", hello)


def plugin(function: Callable[..., Any]) -> Callable[..., Any]:
    bridge.mount(function.__name__, function)
    return function


@plugin
async def in_call(scope: Scope, receive: Receive, send: Send) -> None:
    raise EXITS[apisix(scope).conf]()


@plugin
async def in_task(scope: Scope, receive: Receive, send: Send) -> None:
    async def work() -> None:
        raise EXITS[apisix(scope).conf]()

    await asyncio.create_task(work())


@plugin
async def in_lost_task(scope: Scope, receive: Receive, send: Send) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise EXITS[conf]()

    conf = apisix(scope).conf
    lost.append(asyncio.create_task(work()))
    await respond(send, b"")


@plugin
async def in_task_group(scope: Scope, receive: Receive, send: Send) -> None:
    async def work() -> None:
        raise EXITS[apisix(scope).conf]()

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        group.create_task(asyncio.sleep(60))


@plugin
async def in_callback(scope: Scope, receive: Receive, send: Send) -> None:
    def work() -> None:
        raise EXITS[conf]()

    conf = apisix(scope).conf
    asyncio.get_running_loop().call_soon(work)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await respond(send, b"")


@plugin
async def behind_answer(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"")
    raise EXITS[apisix(scope).conf]()


@plugin
async def in_thread(scope: Scope, receive: Receive, send: Send) -> None:
    def work() -> None:
        raise EXITS[conf]()

    conf = apisix(scope).conf
    await asyncio.to_thread(work)


class Base(BaseHTTPMiddleware):
    """Runs the wrapped application in another task."""


async def dispatch(request: Request, call_next: Any) -> Response:
    return await call_next(request)  # type: ignore[no-any-return]


bridge.add_middleware("base", Base, defaults={"dispatch": dispatch})
lost: list[asyncio.Task[None]] = []
ANSWERED = ("in_lost_task", "in_callback", "behind_answer")


@pytest.mark.parametrize("kind", EXITS)
def test_no_plugin_ends_the_runner(
    serving: Callable[..., ThreadRunner], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    runner = serving(bridge=bridge)
    names = [name for name in bridge.plugins if name not in ("hello", "base")]
    with runner.connect() as other, runner.connect() as connection:
        hello = other.token("hello")
        for name in names:
            for plugins in ([(name, kind)], [("base", {}), (name, kind)]):
                answer = connection.prepare(*plugins)
                found = connection.call(answer.conf_token)  # type: ignore[union-attr]
                if name in ANSWERED:
                    assert body_of(found) == b""
                else:
                    assert (name, found) == (name, UNAVAILABLE)
                assert body_of(other.call(hello)) == b"hello"
        until(lambda: all(task.done() for task in lost))
    assert {task.exception().args for task in lost} == {("of a plugin",)}  # type: ignore[union-attr]
    lost.clear()
    assert not runner.server.should_exit
    for name in ("in_call", "in_task", "in_task_group", "in_thread"):
        assert f"plugin {name}: request refused: " in caplog.text
    raised = repr(EXITS[kind]())
    assert f"A task or callback of a plugin raised {raised}; the runner goes on" in caplog.text


LIFESPANS = """
import asyncio
from asgi_bridge import Bridge

bridge = Bridge()

async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})

async def breaking(scope, receive, send):
    async def work():
        raise %s("of a lifespan")

    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        work_at_start = asyncio.create_task(work())
        await receive()
        work_at_end = asyncio.create_task(work())
        await asyncio.sleep(0)
        await send({"type": "lifespan.shutdown.complete"})

bridge.mount("hello", hello)
bridge.mount("breaking", breaking)
"""


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize(("sig", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_no_lifespan_ends_the_runner(
    start: Callable[..., RunnerProcess], folder: Path, kind: str, sig: int, status: int
) -> None:
    (folder / "breaking.py").write_text(LIFESPANS % kind)
    runner = start(target="breaking:bridge", app_dir=str(folder))
    with runner.connect() as connection:
        assert body_of(connection.call(connection.token("hello"))) == b"hello"
    runner.stop(sig)
    assert runner.process.returncode == status
    assert runner.log.count(f"raised {kind}('of a lifespan'); the runner goes on") == 2
    assert "Application shutdown complete" in runner.log


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "raise KeyboardInterrupt('mine')",
            "a module of the plugins raised KeyboardInterrupt('mine') when it was imported",
        ),
        ("import sys; sys.exit('mine')", "cannot import 'ending:bridge': SystemExit: mine"),
    ],
)
def test_a_module_that_ends_the_program_is_said(
    start: Callable[..., RunnerProcess], folder: Path, statement: str, said: str
) -> None:
    (folder / "ending.py").write_text(statement + "\n")
    runner = start(target="ending:bridge", app_dir=str(folder))
    assert runner.wait() == 2
    assert f"asgi-bridge: {said}" in runner.log.splitlines()


def test_the_real_ctrl_c_still_ends_it(start: Callable[..., RunnerProcess]) -> None:
    runner = start()
    with runner.connect() as connection:
        connection.token("hello")
    runner.stop(signal.SIGINT)
    assert runner.process.returncode == 0
    assert "the runner goes on" not in runner.log
