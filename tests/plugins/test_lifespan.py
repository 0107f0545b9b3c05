"""The lifespan of one application: start-up, shutdown, and every way of doing them wrong."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, PluginError, apisix
from asgi_bridge.plugins import lifespan as module
from asgi_bridge.plugins.lifespan import Lifespan, quiet_lifespan
from asgi_bridge.testing import PluginClient

Lines = Callable[[], list[str]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    caplog.set_level(logging.DEBUG, "asgi_bridge.plugins")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "asgi_bridge.plugins"]


def sending(*answers: str | None, then: Callable[[], Awaitable[Any]] | None = None, **words: Any) -> ASGIApp:
    """An application that answers each message of its lifespan with the next of `answers`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for answer in answers:
            await receive()
            if answer is not None:
                await send({"type": f"lifespan.{answer}", **words})
        if then is not None:
            await then()

    return app


async def hang() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ZeroDivisionError("why")


def start_and_stop(app: ASGIApp, seconds: float = 5.0) -> Lifespan:
    async def main() -> Lifespan:
        lifespan = Lifespan(app, "a")
        await lifespan.start(5.0)
        await lifespan.stop(seconds)
        assert lifespan._task is not None and lifespan._task.done()
        return lifespan

    return asyncio.run(main())


def test_state_is_what_the_application_put_into_it() -> None:
    events: list[str] = []

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        events.append("up")
        yield {"pool": 5}
        events.append("down")

    assert start_and_stop(Starlette(lifespan=life)).state == {"pool": 5}
    assert events == ["up", "down"]


def test_state_reaches_each_scope_as_a_copy() -> None:
    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        yield {"pool": [1]}

    async def show(request: Request) -> PlainTextResponse:
        before = str(request.scope["state"])
        request.state.pool = None
        request.state.pool_of = apisix(request.scope).plugin
        return PlainTextResponse(before)

    app = Starlette(lifespan=life, routes=[Route("/", show)])
    bridge = Bridge()
    bridge.mount("mounted", app)
    bridge.plugin("made")(lambda: app)

    for name in ("mounted", "made"):
        with PluginClient(bridge, name) as client:
            assert [client.get("/").text for _ in range(2)] == ["{'pool': [1]}"] * 2


def test_scope_and_messages_are_those_of_the_specification() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append({**scope})
        for kind in ("startup", "shutdown"):
            seen.append(await receive())
            await send({"type": f"lifespan.{kind}.complete"})

    start_and_stop(app)

    assert seen == [
        {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}},
        {"type": "lifespan.startup"},
        {"type": "lifespan.shutdown"},
    ]


async def http_only(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"


@pytest.mark.parametrize("app", [http_only, sending(), sending(None)], ids=["raises", "returns", "reads"])
def test_an_application_without_lifespan_is_fine(app: ASGIApp) -> None:
    async def main() -> None:
        lifespan = Lifespan(app, "a")
        await lifespan.start(5.0)
        assert lifespan._task is not None and lifespan._task.done()
        await lifespan.stop(5.0)

    asyncio.run(main())


def test_what_an_application_without_lifespan_raised_is_there_for_debugging(lines: Lines) -> None:
    start_and_stop(sending(None, then=fail))

    assert lines() == ["plugin a: it has no lifespan: ZeroDivisionError('why')"]


def test_a_lifespan_that_was_never_started_stops_at_once() -> None:
    asyncio.run(Lifespan(hang, "a").stop(5.0))  # type: ignore[arg-type]


def failing_start(app: ASGIApp, seconds: float) -> str:
    async def main() -> str:
        lifespan = Lifespan(app, "a")
        with pytest.raises(PluginError) as caught:
            await lifespan.start(seconds)
        assert lifespan._task is not None and lifespan._task.done()
        await lifespan.stop(0.001)
        return str(caught.value)

    return asyncio.run(main())


def test_a_failed_start_is_an_error() -> None:
    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        await fail()
        yield

    assert failing_start(sending("startup.failed", message=" no database\n"), 5.0) == (
        "its lifespan start-up failed: no database"
    )
    assert failing_start(sending("startup.failed", then=hang), 5.0) == ("its lifespan start-up failed: no reason given")
    assert "ZeroDivisionError: why" in failing_start(Starlette(lifespan=life), 5.0)


@pytest.mark.parametrize("answer", [None, "shutdown.complete", "nonsense"])
def test_a_start_without_an_answer_takes_too_long(answer: str | None) -> None:
    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(PluginError):
            await sending(answer)(scope, receive, send)
        await hang()

    assert failing_start(stubborn, 0.001) == "its lifespan start-up took more than 0.001 s"


async def waits(scope: Scope, receive: Receive, send: Send) -> None:
    await hang()


async def sleeps(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(3600)


async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
    with contextlib.suppress(KeyError):
        assert scope["path"]
    await hang()


@pytest.mark.parametrize("app", [waits, sleeps, guarded])
def test_what_never_looks_at_the_type_of_its_scope_is_told_so(app: ASGIApp) -> None:
    assert failing_start(app, 0.01) == (
        'its lifespan start-up took more than 0.01 s: it was called with scope["type"] == "lifespan" and never called '
        'receive; an application without a lifespan returns at once unless scope["type"] is "http"'
    )


def test_a_start_that_is_cancelled_ends_its_application() -> None:
    async def main() -> None:
        asking = asyncio.Event()

        async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
            asking.set()
            await hang()

        lifespan = Lifespan(hangs, "a")
        starting = asyncio.get_running_loop().create_task(lifespan.start(5.0))
        await asking.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert lifespan._task is not None and lifespan._task.done()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("app", "logged"),
    [
        (sending("startup.complete", "shutdown.complete"), []),
        (sending("startup.complete", "shutdown.complete", then=hang), []),
        (sending("startup.complete", None), []),
        (sending("startup.complete"), []),
        (
            sending("startup.complete", "shutdown.failed", message="why"),
            ["plugin a: its lifespan shutdown failed: why"],
        ),
        (sending("startup.complete", None, then=fail), ["plugin a: its lifespan raised"]),
        (
            sending("startup.complete", "shutdown.complete", then=fail),
            ["plugin a: its lifespan raised"],
        ),
        (sending("startup.complete", "startup.complete"), ["plugin a: its lifespan raised"]),
        (sending("startup.complete", "other"), ["plugin a: its lifespan raised"]),
    ],
    ids=[
        "complete", "complete and on", "no answer", "ended before", "failed", "raises", "raises after",
        "wrong answer", "no such answer",
    ],
)  # fmt: skip
def test_shutdown(app: ASGIApp, logged: list[str], lines: Lines) -> None:
    start_and_stop(app)

    assert lines() == logged


def test_a_shutdown_that_takes_too_long_is_cut_off(lines: Lines) -> None:
    start_and_stop(sending("startup.complete", None, then=hang), 0.001)

    assert lines() == ["plugin a: its lifespan shutdown took more than 0.001 s and was cut off"]


def test_a_shutdown_answered_before_it_was_asked_for_is_an_error(lines: Lines) -> None:
    async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    start_and_stop(hasty)

    assert lines() == ["plugin a: its lifespan raised"]


def test_an_application_that_ignores_its_cancellation_is_left_behind(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.001)

    async def main() -> None:
        enough = asyncio.Event()

        async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
            while not enough.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await enough.wait()

        lifespan = Lifespan(stubborn, "a")
        with pytest.raises(PluginError, match="took more than"):
            await lifespan.start(0.001)
        enough.set()

    asyncio.run(main())

    assert lines() == ["plugin a: its lifespan does not end although it was cancelled"]


def test_the_wrapped_application_answers_lifespan_quietly() -> None:
    assert start_and_stop(quiet_lifespan).state == {}
