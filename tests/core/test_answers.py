"""What a call waits for when it has asked the gateway is like a future for everybody, and wakes its spare."""

import asyncio
import contextlib
import gc
import warnings
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from importlib import import_module
from typing import Any

import anyio
import pytest

from asgi_bridge.errors import PluginError
from asgi_bridge.server.call_tasks import EAGER

from ..server.test_call_tasks import Calls

answers: Any = import_module("asgi_bridge.server._answers").answers

Log = list[object]
Result = list[bytes | None]
Waited = Any
"""Answers, or a future."""

number: ContextVar[int] = ContextVar("number", default=0)


# ways to wait


async def plainly(waited: Waited, log: Log) -> None:
    number.set(7)
    log.append(await waited)
    log.append(number.get())
    await asyncio.sleep(0)
    log.append(asyncio.current_task() is not None)


async def twice(waited: Waited, log: Log) -> None:
    log.append(await waited)
    log.append(await waited)


async def in_a_task(waited: Waited, log: Log) -> None:
    async def child() -> Result:
        return await waited  # type: ignore[no-any-return]

    log.append(await asyncio.create_task(child()))


async def in_many_tasks(waited: Waited, log: Log) -> None:
    async def child() -> Result:
        return await waited  # type: ignore[no-any-return]

    log += map(repr, await asyncio.gather(child(), child(), waited, return_exceptions=True))


async def within_a_time(waited: Waited, log: Log) -> None:
    log.append(await asyncio.wait_for(waited, 60))


async def with_a_limit(waited: Waited, log: Log) -> None:
    async with asyncio.timeout(60):
        log.append(await waited)
    with anyio.move_on_after(60):
        log.append(await waited)


async def with_a_limit_that_is_over(waited: Waited, log: Log) -> None:
    try:
        async with asyncio.timeout(0):
            await waited
    except TimeoutError:
        log.append("too late")
    log.append(asyncio.isfuture(waited) and waited.cancelled())


async def shielded(waited: Waited, log: Log) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.shield(waited)
    log.append(waited.done())
    log.append(await waited)


async def with_a_callback(waited: Waited, log: Log) -> None:
    waited.add_done_callback(lambda done: log.append(("called back", done.done())))
    log.append(await waited)
    await asyncio.sleep(0)


async def by_hand(waited: Waited, log: Log) -> None:
    """Run a coroutine with `send`, as code of other frameworks does, and wait for what it yields."""

    async def child() -> None:
        log.append(await waited)

    class Driven:
        def __await__(self) -> Generator[Any, Any, None]:
            coroutine = child()
            with contextlib.suppress(StopIteration):
                while True:
                    found = coroutine.send(None)
                    log.append((asyncio.isfuture(found), found.done(), found.get_loop() is asyncio.get_running_loop()))
                    yield found

    await Driven()


async def cancelled_and_asks_on(waited: Waited, log: Log) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    try:
        await waited
    except asyncio.CancelledError:
        log.append("cancelled")
        task.uncancel()
    await asyncio.sleep(0)
    log.append("goes on")


WAYS: list[Callable[[Waited, Log], Awaitable[None]]] = [
    plainly, twice, in_a_task, in_many_tasks, within_a_time, with_a_limit, with_a_limit_that_is_over, shielded,
    with_a_callback, by_hand, cancelled_and_asks_on,
]  # fmt: skip


async def story(way: Callable[[Waited, Log], Awaitable[None]], waited: Waited, error: bool) -> Log:
    """Return what a call notes that waits in some way."""
    log: Log = []
    calls = await Calls.ready()
    ended = asyncio.get_running_loop().create_future()

    async def call() -> None:
        try:
            await way(waited, log)
        except Exception as exc:
            log.append(repr(exc))
        finally:
            ended.set_result(None)

    calls.start(call())
    for _ in range(6):
        await asyncio.sleep(0.001)
    if not waited.done():
        if error:
            waited.set_exception(PluginError("none"))
            waited.exception()
        else:
            waited.set_result([b"1", None])
    await asyncio.wait_for(ended, 5)
    await asyncio.sleep(0)
    assert calls.waiting is not None
    log.append(len(calls.waiting))
    calls.tasks.close()
    return log


@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_answers_are_like_a_future(way: Callable[[Waited, Log], Awaitable[None]], error: bool) -> None:
    async def main() -> tuple[Log, Log]:
        loop = asyncio.get_running_loop()
        return await story(way, loop.create_future(), error), await story(way, answers(loop), error)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        future, own = asyncio.run(main())
        gc.collect()
    assert own == future
    assert len(own) > 1


@pytest.mark.skipif(EAGER, reason="asyncio begins tasks itself, so there are no spares")
def test_a_spare_waits_for_answers_without_a_future() -> None:
    async def main() -> None:
        calls = await Calls.ready()
        for _ in range(2):
            calls.tasks.make_spare()
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        made = [answers(loop) for _ in range(3)]
        log: Log = []

        def of(waited: Waited, name: int) -> Callable[[], Any]:
            async def run() -> None:
                number.set(name)
                log.append((await waited, number.get(), asyncio.current_task() is calls.waiting[name]))  # type: ignore[index]

            return run

        for name, each in enumerate(made):
            calls.start_with(of(each, name))
        for _ in range(3):
            await asyncio.sleep(0)
        spares = [spare for spare in gc.get_objects() if type(spare).__name__ == "Spare" and spare.call is not None]
        assert {id(spare.waits_for) for spare in spares} == set(map(id, made))

        for name, each in enumerate(made):
            each.set_result([b"%d" % name])
        assert len(calls.tasks.woken) == 3
        await asyncio.sleep(0)
        assert calls.tasks.woken == []
        assert log == [([b"%d" % name], name, True) for name in range(3)]
        calls.tasks.close()

    asyncio.run(main())


@pytest.mark.skipif(EAGER, reason="asyncio begins tasks itself, so there are no spares")
def test_calls_go_on_though_another_one_ends_the_loop() -> None:
    log: Log = []
    loop = asyncio.new_event_loop()
    made = [answers(loop) for _ in range(3)]

    async def begin() -> Calls:
        calls = await Calls.ready()
        for _ in range(2):
            calls.tasks.make_spare()
        await asyncio.sleep(0)

        def of(waited: Waited, name: int) -> Callable[[], Any]:
            async def run() -> None:
                await waited
                log.append(name)
                if name == 1:
                    raise KeyboardInterrupt

            return run

        for name, each in enumerate(made):
            calls.start_with(of(each, name))
        for _ in range(3):
            await asyncio.sleep(0)
        return calls

    calls = loop.run_until_complete(begin())
    for each in made:
        each.set_result([None])
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_until_complete(asyncio.sleep(0.01))
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_until_complete(asyncio.sleep(0.01))
    assert sorted(log) == [0, 1, 2]  # type: ignore[type-var]
    calls.tasks.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_answers_that_nobody_waits_for_may_come_or_stay_away() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        answers(loop)
        for error in (False, True):
            made = answers(loop)
            made.set_exception(PluginError("none")) if error else made.set_result([b"1"])
            made.set_result([b"2"])
            assert made.done()
            assert (made.exception() is not None) == error
            if not error:
                assert (made.result(), await made) == ([b"1"], [b"1"])
        left = answers(loop).__await__()
        left.send(None)
        with pytest.raises(KeyError):
            left.throw(KeyError())
        with pytest.raises(RuntimeError, match="already awaited"):
            left.send(None)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
        gc.collect()


@pytest.mark.filterwarnings("ignore:the .type, exc, tb. signature of throw:DeprecationWarning")  # from Python 3.12 on
@pytest.mark.parametrize("thrown", [(StopIteration,), (StopIteration(),), (StopIteration, StopIteration(), None)])
def test_a_stop_iteration_ends_the_waiting_as_it_does_with_a_future(thrown: tuple[Any, ...]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for made in (loop.create_future().__await__(), answers(loop).__await__()):
            made.send(None)
            with pytest.raises(StopIteration):
                made.throw(*thrown)

    asyncio.run(main())


def test_a_step_before_they_have_come_is_an_error() -> None:
    async def main() -> None:
        made = answers(asyncio.get_running_loop()).__await__()
        made.send(None)
        with pytest.raises(RuntimeError, match="await wasn't used with future"):
            made.send(None)

    asyncio.run(main())
