"""The tasks of calls: a spare task is like one of its own, and nothing of a call reaches the next one in it."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import sniffio
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from asgi_bridge.adapter import Call
from asgi_bridge.server.call_tasks import EAGER, MAX_SPARES, PLAIN_CALLS, SPARE_TURNS, CallTasks, Spare

Log = list[object]
Run = Callable[[Log], Coroutine[Any, Any, None]]
number: ContextVar[int] = ContextVar("number", default=0)


class Calls:
    """Begins coroutines as calls of one chain. A spare task is ready."""

    def __init__(self) -> None:
        self.tasks = CallTasks(asyncio.get_running_loop())
        self.chain = SimpleNamespace(waits=0)
        self.waiting: list[asyncio.Task[None]] | None = []

    @classmethod
    async def ready(cls) -> "Calls":
        calls = cls()
        await asyncio.sleep(0)
        return calls

    @property
    def spare(self) -> Spare | None:
        """The one in which the next call begins; None: it gets a task of its own."""
        return self.tasks.spares[-1] if self.tasks.spares else None

    def start(self, run: Coroutine[Any, Any, None]) -> None:
        self.start_with(lambda: run)

    def start_with(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        call = SimpleNamespace(chain=self.chain, plugins="the plugins", run=lambda ended: run())
        self.tasks.start(call, self)  # type: ignore[arg-type]

    def note_task(self, call: Call, task: "asyncio.Task[None]") -> None:
        if self.waiting is not None:
            self.waiting.append(task)

    def ended(self, call: Call) -> None:
        pass

    async def run(self, run: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine to its end, whatever it raises."""
        ended = asyncio.get_running_loop().create_future()

        async def running() -> None:
            try:
                await run
            except (Exception, asyncio.CancelledError):
                pass
            finally:
                ended.set_result(None)

        self.start(running())
        await ended


# what a plugin may do; each notes what it sees


async def time_limit(log: Log) -> None:
    try:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    except TimeoutError:
        log.append("over")
    task = asyncio.current_task()
    assert task is not None
    log.append(task.cancelling())


async def time_limit_that_is_over(log: Log) -> None:
    try:
        async with asyncio.timeout(-1):
            log.append("inside")
            await asyncio.sleep(0)
            log.append("not reached")
    except TimeoutError:
        log.append("over")


async def group(log: Log) -> None:
    async def child(name: str) -> None:
        await asyncio.sleep(0)
        log.append(name)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(child("a"))
        tasks.create_task(child("b"))
    log.append("joined")


async def group_that_fails(log: Log) -> None:
    async def child() -> None:
        raise ValueError("child")

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child())
            await asyncio.Event().wait()
    except* ValueError as exc:
        log.append(str(exc.exceptions[0]))


async def scope(log: Log) -> None:
    log.append(sniffio.current_async_library())
    with anyio.move_on_after(0.01) as limited:
        await anyio.sleep(60)
    log.append(limited.cancelled_caught)
    with anyio.CancelScope() as cancelled:
        cancelled.cancel()
        await anyio.sleep(60)
    log.append(cancelled.cancelled_caught)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 60)
        tasks.cancel_scope.cancel()
    log.append(await anyio.to_thread.run_sync(lambda: "thread"))


async def cancels_itself(log: Log) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel("why")
    log.append(task.cancelling())
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    try:
        await future
    except asyncio.CancelledError:
        log.extend(("cancelled", task.cancelling(), future.cancelled()))
        log.append(task.uncancel())
    await asyncio.sleep(0)
    log.append("goes on")


async def cancels_itself_twice(log: Log) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    task.cancel()
    for _ in range(2):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
            log.append("not cancelled")
    log.append(task.cancelling())


async def is_cancelled_at_once(log: Log) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        log.append("cancelled")
        raise


async def is_cancelled_when_it_may_go_on(log: Log) -> None:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    future = loop.create_future()
    loop.call_soon(future.set_result, "told")
    loop.call_soon(task.cancel)
    try:
        log.append(await future)
    except asyncio.CancelledError:
        log.extend(("cancelled", future.result(), task.cancelling()))
    task.uncancel()
    await asyncio.sleep(0)
    log.append(task.cancelling())


async def shields(log: Log) -> None:
    task = asyncio.current_task()
    assert task is not None
    inner = asyncio.ensure_future(asyncio.sleep(0.001, "inner"))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.shield(inner)
    task.uncancel()
    log.append(await inner)


async def context(log: Log) -> None:
    log.append(number.get())
    token = number.set(number.get() + 1)
    await asyncio.sleep(0)
    log.append(number.get())

    async def child() -> None:
        log.append(number.get())
        number.set(50)

    await asyncio.create_task(child())
    asyncio.get_running_loop().call_soon(lambda: log.append(number.get()))
    await asyncio.sleep(0)
    log.append(number.get())
    number.reset(token)
    log.append(number.get())


async def raises_later(log: Log) -> None:
    await asyncio.sleep(0)
    try:
        raise ValueError("later")
    finally:
        log.append("unwound")


async def same_task(log: Log) -> None:
    before = asyncio.current_task()
    await asyncio.sleep(0)
    log.append(before is asyncio.current_task())
    assert before is not None
    log.append(before in asyncio.all_tasks())
    log.append(before.get_name())


async def middleware(log: Log) -> None:
    async def dispatch(request: Request, call_next: Any) -> Response:
        number.set(7)
        response: Response = await call_next(request)
        response.headers["x-seen"] = "1"
        return response

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        log.append(number.get())
        await PlainTextResponse("hello")(scope, receive, send)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        log.append(message["type"])

    found = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await BaseHTTPMiddleware(app, dispatch)(found, receive, send)


DOINGS: list[Run] = [
    time_limit, time_limit_that_is_over, group, group_that_fails, scope, cancels_itself, cancels_itself_twice,
    is_cancelled_at_once, is_cancelled_when_it_may_go_on, shields, context, raises_later, same_task, middleware,
]  # fmt: skip


async def alone(doing: Run) -> Log:
    log: Log = []
    task = asyncio.Task(doing(log), name="the plugins")
    await asyncio.wait([task])
    log.append(task.cancelled() or repr(task.exception()))
    return log


@pytest.mark.parametrize("doing", DOINGS, ids=lambda doing: doing.__name__)
def test_a_spare_task_is_like_one_of_its_own(doing: Run) -> None:
    async def main() -> tuple[Log, Log]:
        calls, log = await Calls.ready(), []  # type: Calls, Log
        spare = calls.spare
        calls.start(doing(log))
        while not calls.waiting:  # noqa: ASYNC110  # nothing says so
            await asyncio.sleep(0)
        (task,) = calls.waiting
        assert EAGER or (spare is not None and task is spare.task)
        await asyncio.wait([task])
        log.append(task.cancelled() or repr(task.exception()))
        calls.tasks.close()
        return log, await alone(doing)

    found, wanted = asyncio.run(main())
    assert found == wanted


def test_calls_that_wait_for_nothing_have_contexts_of_their_own() -> None:
    async def main() -> None:
        calls = await Calls.ready()
        seen: list[int] = []

        async def call() -> None:
            number.set(number.get() + 1)
            seen.append(number.get())

        for _ in range(3):
            calls.start(call())
        await asyncio.sleep(0)
        assert seen == [1, 1, 1]
        assert calls.waiting == []
        assert number.get() == 0
        calls.tasks.close()

    asyncio.run(main())


# what a call may leave to the next one


async def keeps_it(kept: Log) -> None:
    kept.append(asyncio.current_task())


async def keeps_it_weakly(kept: Log) -> None:
    kept.append(weakref.ref(asyncio.current_task()))


async def waits_for_its_end(kept: Log) -> None:
    asyncio.current_task().add_done_callback(lambda task: kept.append("ended"))  # type: ignore[union-attr]


async def renames_it(kept: Log) -> None:
    asyncio.current_task().set_name("mine")  # type: ignore[union-attr]


async def cancels_it(kept: Log) -> None:
    asyncio.current_task().cancel()  # type: ignore[union-attr]


async def cancels_it_late(kept: Log) -> None:
    asyncio.get_running_loop().call_later(0.01, asyncio.current_task().cancel)  # type: ignore[union-attr]


async def leaves_a_time_limit(kept: Log) -> None:
    limit = asyncio.timeout(0.01)
    await limit.__aenter__()
    kept.append(limit)


async def uses_anyio(kept: Log) -> None:
    with anyio.CancelScope():  # noqa: ASYNC100  # as if a cache had the answer
        pass


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    "leaving",
    [
        keeps_it, keeps_it_weakly, waits_for_its_end, renames_it, cancels_it, cancels_it_late, leaves_a_time_limit,
        uses_anyio,
    ],
    ids=lambda leaving: leaving.__name__,
)  # fmt: skip
def test_a_task_that_a_call_has_left_something_on_is_not_used_again(leaving: Run, waits: bool) -> None:
    async def main() -> None:
        calls = await Calls.ready()
        calls.waiting = None  # which would hold the task
        log: Log = []
        spare = calls.spare

        async def later() -> None:
            task = asyncio.current_task()
            assert task is not None
            log.append(spare is not None and task is spare.task)
            log.append(task.get_name() == "mine")
            await asyncio.sleep(0.03)
            log.append("undisturbed")

        async def first() -> None:
            if waits:
                await asyncio.sleep(0)
            with contextlib.suppress(asyncio.CancelledError):
                await leaving(kept)

        kept: Log = []
        await calls.run(first())
        await calls.run(later())
        assert log == [False, False, "undisturbed"]
        assert "ended" in kept or leaving is not waits_for_its_end
        calls.tasks.close()

    asyncio.run(main())


@pytest.mark.skipif(EAGER, reason="asyncio makes a task for each call")
def test_calls_that_leave_nothing_share_a_task() -> None:
    async def main() -> None:
        calls = await Calls.ready()
        spare, seen = calls.spare, []
        assert spare is not None

        async def call() -> None:
            seen.append(asyncio.current_task() is spare.task)
            asyncio.timeout(5)
            with contextlib.suppress(ValueError):
                raise ValueError

        for _ in range(100):
            calls.start(call())
        await asyncio.sleep(0)
        assert seen == [True] * 100
        assert calls.tasks.spares == [spare] and calls.chain.waits == 0
        calls.tasks.close()
        await asyncio.wait([spare.task])

    asyncio.run(main())


@pytest.mark.skipif(EAGER, reason="asyncio makes a task for each call")
def test_calls_that_have_waited_share_a_task_too() -> None:
    async def main() -> None:
        calls = await Calls.ready()
        calls.waiting = None  # which would hold the task
        spare, seen = calls.spare, []
        assert spare is not None

        async def call() -> None:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            loop.call_soon(future.set_result, None)
            for waits in (asyncio.sleep(0), future, asyncio.create_task(asyncio.sleep(0)), asyncio.sleep(0.001)):
                await waits
                seen.append((asyncio.current_task() is spare.task, spare.task.get_name()))

        for _ in range(3):
            await calls.run(call())
        assert seen == [(True, "the plugins")] * 12
        assert spare in calls.tasks.spares and calls.chain.waits == 0
        assert spare.task.get_name() == "call"
        calls.tasks.close()
        await asyncio.wait([spare.task])

    asyncio.run(main())


@pytest.mark.skipif(EAGER, reason="asyncio makes a task for each call")
def test_spares_that_nobody_needs_end() -> None:
    async def main() -> None:
        calls = await Calls.ready()
        calls.waiting = None
        event = asyncio.Event()
        for _ in range(MAX_SPARES + 100):
            calls.start(waits_for(event))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        event.set()
        await asyncio.sleep(0.01)
        assert len(calls.tasks.spares) == MAX_SPARES
        for _ in range(SPARE_TURNS * MAX_SPARES):
            calls.start(asyncio.sleep(0))
            await asyncio.sleep(0)
        assert len(calls.tasks.spares) == 1
        calls.tasks.close()
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


async def waits_for(event: asyncio.Event) -> None:
    await event.wait()


@pytest.mark.skipif(EAGER, reason="asyncio makes a task for each call")
def test_a_spare_that_somebody_has_cancelled_is_not_used() -> None:
    async def main() -> list[str]:
        calls, seen = await Calls.ready(), []  # type: Calls, list[str]
        assert calls.spare is not None
        cancelled = calls.spare.task
        cancelled.cancel()

        async def call() -> None:
            assert asyncio.current_task() is not cancelled
            await asyncio.sleep(0)
            seen.append("undisturbed")

        await calls.run(call())
        calls.tasks.close()
        return seen

    assert asyncio.run(main()) == ["undisturbed"]


@pytest.mark.skipif(EAGER, reason="asyncio makes a task for each call")
def test_after_a_call_that_leaves_something_the_next_ones_of_its_chain_get_a_task_at_once() -> None:
    async def main() -> None:
        calls = await Calls.ready()
        await calls.run(uses_anyio([]))
        assert calls.chain.waits == PLAIN_CALLS
        calls.tasks.close()

    asyncio.run(main())


def test_a_call_that_raises_does_not_keep_the_others_from_beginning() -> None:
    async def main() -> tuple[list[str], list[str]]:
        calls, seen, told = await Calls.ready(), [], []  # type: Calls, list[str], list[str]
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: told.append(repr(context["exception"])))

        async def call(name: str) -> None:
            seen.append(name)
            if name == "b":
                raise OSError("no space left on device")

        for name in "abcd":
            calls.start(call(name))
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()  # a task tells it when it goes
        calls.tasks.close()
        return seen, told

    assert asyncio.run(main()) == (["a", "b", "c", "d"], ["OSError('no space left on device')"])


def test_calls_that_have_not_begun_are_dropped_at_the_end() -> None:
    async def main() -> list[str]:
        calls, seen = await Calls.ready(), []  # type: Calls, list[str]

        async def call() -> None:
            seen.append("begun")

        calls.start_with(call)
        calls.tasks.close()
        await asyncio.sleep(0.01)
        return seen

    assert asyncio.run(main()) == []
    gc.collect()  # a coroutine that was never awaited would warn
