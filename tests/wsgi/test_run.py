"""One run between the event loop and its thread: bodies on demand, context variables, cancellation, lent threads."""

import asyncio
import contextlib
import contextvars
import gc
import io
import logging
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from starlette.types import Message, Receive, Scope, Send

from asgi_bridge.errors import ConfigurationError, PluginError
from asgi_bridge.wsgi import WSGIApp, WSGIMiddleware, upstream
from asgi_bridge.wsgi.response import FLUSH
from asgi_bridge.wsgi.threads import Wait, lane_of_thread

from .calls import Asked, ask, call, request, responding, started

BODY = b"one\ntwo\nthree"
WITH_BODY = request((b"content-length", b"13"), method="POST")


def middleware(before: Callable[[dict[str, Any]], Any], after: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Make a WSGI middleware that does something before and after."""

    def factory(app: Any) -> Any:
        def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
            before(environ)
            found = app(environ, start_response)
            if after is not None:
                after(environ)
            return found

        return wsgi

    return WSGIMiddleware(factory)


# the request body


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda stream: stream.read(), BODY),
        (lambda stream: (stream.read(2), stream.read(3), stream.read(None)), (b"on", b"e\nt", b"wo\nthree")),
        (lambda stream: (stream.readline(), stream.readline(2), stream.readline()), (b"one\n", b"tw", b"o\n")),
        (lambda stream: stream.readlines(), [b"one\n", b"two\n", b"three"]),
        (lambda stream: stream.readlines(1), [b"one\n"]),
        (lambda stream: list(stream), [b"one\n", b"two\n", b"three"]),
        (lambda stream: (stream.readline(3), stream.read(), stream.read(1), stream.readline(), stream.readlines()),
         (b"one", b"\ntwo\nthree", b"", b"", [])),
    ],
)  # fmt: skip
def test_input_is_a_file(read: Any, expected: Any) -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(read(environ["wsgi.input"]))
        return started()(environ, start_response)

    call(WSGIApp(app), WITH_BODY, BODY)
    assert seen == [expected]


def unused(*arguments: Any) -> Any:
    """A ``start_response`` that is never called."""
    raise AssertionError("start_response was called")


def reading(environ: dict[str, Any]) -> None:
    environ["wsgi.input"].read()


def reads_its_body(environ: dict[str, Any], start_response: Any) -> Any:
    """A WSGI application that reads its body and answers."""
    reading(environ)
    return started()(environ, start_response)


@pytest.mark.parametrize(
    ("scope", "app", "asks"),
    [
        (WITH_BODY, started(), 0),
        (WITH_BODY, reads_its_body, 2),
        (request(), started(), 0),
        (request(), reads_its_body, 2),
        (
            request((b"transfer-encoding", b"chunked")),
            reads_its_body,
            2,
        ),
        (
            request(http_version="2"),
            reads_its_body,
            2,
        ),
    ],
)
def test_a_body_is_asked_for_when_somebody_reads(scope: Scope, app: Any, asks: int) -> None:
    asked: Asked = []
    call(WSGIApp(app), scope, BODY, asked)
    assert len(asked) == asks


def test_an_untouched_body_is_the_very_receive() -> None:
    receives: list[Receive] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        receives.append(receive)
        await responding()(scope, receive, send)

    async def receive() -> Message:
        raise AssertionError("nobody wants the body")

    async def send(message: Message) -> None: ...

    asyncio.run(ask_with(middleware(lambda environ: None)(app), receive, send))
    assert receives == [receive]


async def ask_with(app: Any, receive: Receive, send: Send) -> None:
    await app(WITH_BODY, receive, send)


def replace(body: Any) -> Callable[[dict[str, Any]], None]:
    def change(environ: dict[str, Any]) -> None:
        environ["wsgi.input"] = body

    return change


def wrap(environ: dict[str, Any]) -> None:
    stream = environ["wsgi.input"]

    class Upper:
        def read(self, size: int) -> bytes:
            data: bytes = stream.read(size)
            return data.upper()

    environ["wsgi.input"] = Upper()


@pytest.mark.parametrize(
    ("change", "body"),
    [
        (lambda environ: None, BODY),
        (reading, BODY),
        (lambda environ: environ["wsgi.input"].read(4), BODY),
        (replace(io.BytesIO(b"another")), b"another"),
        (replace(io.BytesIO()), b""),
        (wrap, BODY.upper()),
    ],
)
def test_the_body_that_the_inner_application_gets(change: Any, body: bytes) -> None:
    bodies: list[bytes] = []
    assert call(middleware(change)(responding(bodies=bodies)), WITH_BODY, BODY)[2] == b"inner"
    assert bodies == [body]


def test_a_replaced_body_is_read_only_if_somebody_wants_it() -> None:
    asked: Asked = []
    call(middleware(wrap)(responding()), WITH_BODY, BODY, asked)
    assert asked == []


def test_a_body_that_was_passed_on_is_gone() -> None:
    left: list[bytes] = []
    bodies: list[bytes] = []
    app = middleware(lambda environ: None, lambda environ: left.append(environ["wsgi.input"].read()))
    call(app(responding(bodies=bodies)), WITH_BODY, BODY)
    assert (bodies, left) == ([BODY], [b""])


def test_behind_another_body_comes_the_disconnect_with_the_response() -> None:
    order: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        order.append((await receive())["body"])
        following = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        order.append(following.done())
        await responding()(scope, receive, send)
        order.append(await following)

    call(middleware(replace(io.BytesIO(b"another")))(app), WITH_BODY, BODY)
    assert order == [b"another", False, {"type": "http.disconnect"}]


def test_a_client_that_goes_away_while_the_body_is_read() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None: ...

    def app(environ: Any, start_response: Any) -> Any:
        environ["wsgi.input"].read()

    with pytest.raises(OSError, match="the client went away"):
        asyncio.run(ask_with(WSGIApp(app), receive, send))


# context variables

number: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)
other: contextvars.ContextVar[str] = contextvars.ContextVar("other", default="")


def test_context_variables_go_in_and_out() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(("inside", number.get()))
        number.set(number.get() + 1)
        other.set("inside")
        await responding()(scope, receive, send)

    def before(environ: Any) -> None:
        seen.append(("before", number.get()))
        number.set(number.get() + 1)

    def after(environ: Any) -> None:
        seen.append(("after", number.get(), other.get()))
        number.set(number.get() + 1)

    async def main() -> None:
        number.set(1)
        await ask(middleware(before, after)(app), request())
        seen.append(("outside", number.get(), other.get()))

    asyncio.run(main())
    assert seen == [("before", 1), ("inside", 2), ("after", 3, "inside"), ("outside", 4, "inside")]


def test_context_variables_of_the_iterable_are_seen_with_the_response_and_those_of_close_after_it() -> None:
    seen: list[Any] = []
    gone: contextvars.ContextVar[int] = contextvars.ContextVar("gone")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        number.set(1)
        ending.append(gone.set(1))
        yield b"a"
        number.set(2)
        yield b"x" * FLUSH
        number.set(3)

    ending: list[Any] = []

    class Closing:
        def __init__(self, chunks: Any) -> None:
            self.chunks = chunks

        def __iter__(self) -> Any:
            return self.chunks

        def close(self) -> None:
            number.set(4)
            gone.reset(ending[0])

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        seen.append((message["type"][14:], number.get(), gone.get(0)))

    async def main() -> None:
        await WSGIApp(lambda environ, start_response: Closing(app(environ, start_response)))(request(), receive, send)
        seen.append(("after", number.get(), gone.get(0)))

    asyncio.run(main())
    # a part that is sent earlier does not have the thread's variables yet
    assert seen == [("start", 0, 0), ("body", 0, 0), ("body", 3, 1), ("after", 4, 0)]


def test_context_variables_of_an_application_that_goes_on_behind_its_response_are_left_alone() -> None:
    seen: list[Any] = []
    release: list[asyncio.Event] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        release.append(asyncio.Event())
        number.set(7)
        await responding()(scope, receive, send)
        await release[0].wait()
        seen.append("behind")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            seen.append("sent")
            release[0].set()

    async def receive() -> Message:
        raise AssertionError

    asyncio.run(
        ask_with(middleware(lambda environ: None, lambda environ: seen.append(number.get()))(app), receive, send)
    )
    assert seen == [0, "sent", "behind"]


# threads


def test_wsgi_code_inside_runs_in_the_thread_that_waits_for_it() -> None:
    threads: list[int] = []

    def note(environ: Any = None) -> None:
        threads.append(threading.get_ident())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sync_to_async(note)()
        await responding()(scope, receive, send)

    wrapping = middleware(note, note)
    call(wrapping(wrapping(WSGIMiddleware(lambda app: app)(wrapping(app)))))
    assert len(threads) == 7
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


def test_thread_sensitive_code_that_is_left_behind_still_finds_a_thread() -> None:
    async def main() -> None:
        asked = asyncio.Event()
        left: list[asyncio.Task[Any]] = []

        async def behind() -> int:
            await asked.wait()
            return await sync_to_async(threading.get_ident)()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            left.append(asyncio.ensure_future(behind()))
            await responding()(scope, receive, send)

        await ask(WSGIMiddleware(lambda app: app)(app), request())
        asked.set()
        assert await left[0] != threading.get_ident()

    asyncio.run(main())


def test_an_error_of_thread_sensitive_code_is_its_caller_s() -> None:
    def fail() -> None:
        raise ValueError("sensitive")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(ValueError, match="sensitive"):
            await sync_to_async(fail)()
        await responding()(scope, receive, send)

    assert call(WSGIMiddleware(lambda app: app)(app))[2] == b"inner"


def test_work_that_reaches_a_thread_too_late_or_was_cancelled() -> None:
    ran: list[tuple[str, int]] = []

    def note(name: str) -> None:
        ran.append((name, threading.get_ident()))

    with ThreadPoolExecutor(1) as pool, lane_of_thread(pool) as lane:
        (elsewhere,) = {pool.submit(threading.get_ident).result()}

        def begin(wait: Wait) -> None:
            lane.submit(note, "in time")
            lane.submit(note, "in vain").cancel()
            lane.submit(wait.finish, "done")
            lane.submit(note, "too late")

        lane.submit(note, "before")
        assert lane.wait(begin) == "done"
    here = threading.get_ident()
    assert sorted(ran) == [("before", elsewhere), ("in time", here), ("too late", elsewhere)]


def test_a_wrapped_body_is_read_through_all_layers_of_one_thread() -> None:
    bodies: list[bytes] = []

    def look(environ: dict[str, Any]) -> None:
        bodies.append(environ["wsgi.input"].read())

    layers = middleware(wrap)(middleware(look)(middleware(wrap)(responding(bodies=bodies))))
    call(layers, WITH_BODY, BODY)
    assert bodies == [BODY.upper(), BODY.upper()]


def test_many_requests_through_two_layers_of_one_small_pool() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        await responding()(scope, receive, send)

    layer = WSGIMiddleware(lambda app: app, threads=2, pool="two layers")
    both = layer(WSGIMiddleware(lambda app: app, threads=2, pool="two layers")(app))

    async def main() -> list[tuple[Any, ...]]:
        return await asyncio.gather(*[ask(both, request()) for _ in range(20)])

    assert [found[2] for found in asyncio.run(main())] == [b"inner"] * 20


def test_requests_run_side_by_side_up_to_the_number_of_threads() -> None:
    barrier = threading.Barrier(8)
    inside = 0
    most = 0
    lock = threading.Lock()

    def app(environ: Any, start_response: Any) -> Any:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        barrier.wait(60)  # breaks unless all of them are here at once
        with lock:
            inside -= 1
        return started()(environ, start_response)

    async def main() -> None:
        mounted = WSGIApp(app, threads=8)
        await asyncio.gather(*[ask(mounted, request()) for _ in range(24)])

    asyncio.run(main())
    assert most == 8


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "4", None])
def test_a_number_of_threads_that_cannot_be(threads: Any) -> None:
    with pytest.raises(ConfigurationError, match="threads is a number of threads, not"):
        WSGIApp(started(), threads=threads)


def test_a_pool_has_one_size() -> None:
    WSGIApp(started(), threads=3, pool="sized")
    WSGIMiddleware(lambda app: app, threads=3, pool="sized")
    with pytest.raises(ConfigurationError, match="the thread pool 'sized' has 3 threads already, not 40"):
        WSGIApp(started(), pool="sized")


def test_idle_threads_end_with_their_application() -> None:
    async def main() -> None:
        def noting(environ: Any, start_response: Any) -> Any:
            names.append(threading.current_thread())
            return started()(environ, start_response)

        app = WSGIApp(noting)
        await ask(app, request())

    names: list[threading.Thread] = []
    asyncio.run(main())
    for thread in names:
        thread.join(60)
        assert not thread.is_alive()


# cancellation


async def cancelled(app: Any, scope: Scope, entered: threading.Event) -> None:
    """Cancel a run once its thread has set `entered`."""
    task = asyncio.ensure_future(ask(app, scope, BODY))
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def never_ending(entered: threading.Event) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await asyncio.Event().wait()

    return app


def test_a_cancelled_run_frees_its_thread_where_it_waits_for_the_inner_application() -> None:
    closed: list[str] = []
    entered = threading.Event()

    def factory(app: Any) -> Any:
        def wsgi(environ: Any, start_response: Any) -> Any:
            try:
                try:
                    return app(environ, start_response)
                except Exception:
                    closed.append("swallowed")
            finally:
                closed.append("finally")

        return wsgi

    one = WSGIMiddleware(factory, threads=1)

    async def main() -> Any:
        await cancelled(one(one(never_ending(entered))), request(), entered)
        return await asyncio.wait_for(ask(one(responding()), request()), 60)

    assert asyncio.run(main()) == (200, [(b"content-type", b"text/plain")], b"inner")
    assert closed == ["finally"] * 3


def test_a_cancelled_run_ends_a_generator() -> None:
    entered = threading.Event()
    ended = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x"
                entered.set()
                time.sleep(0.001)
        finally:
            ended.set()

    asyncio.run(cancelled(WSGIApp(app), request(), entered))
    assert ended.wait(60)


def test_a_cancelled_run_frees_its_thread_where_it_waits_for_the_body_or_a_part_to_be_sent() -> None:
    entered = threading.Event()
    results: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        try:
            if environ["PATH_INFO"] == "/read":
                return environ["wsgi.input"].read()
            start_response("200 OK", [])(b"x" * FLUSH)
        except asyncio.CancelledError as exc:
            results.append(str(exc))
            raise
        finally:
            done.set()

    async def stuck(*arguments: Any) -> Any:
        entered.set()
        await asyncio.Event().wait()

    done = threading.Event()
    mounted = WSGIApp(app, threads=1)

    async def main(path: str) -> None:
        entered.clear()
        done.clear()
        scope = {**WITH_BODY, "path": path}
        task = asyncio.ensure_future(ask_at(mounted, scope, stuck))
        await asyncio.to_thread(entered.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(done.wait, 10)

    for path in ("/read", "/write"):
        asyncio.run(main(path))
    assert results[0] == "the request was cut off, or has ended"
    assert len(results) == 2


async def ask_at(app: Any, scope: Scope, stuck: Any) -> None:
    await app(scope, stuck, stuck)


def test_a_thread_that_asks_after_its_run_was_cancelled_gets_an_error() -> None:
    entered = threading.Event()
    release = threading.Event()
    errors: list[str] = []
    done = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        entered.set()
        release.wait(60)
        try:
            environ["wsgi.input"].read()
        except asyncio.CancelledError as exc:
            errors.append(str(exc))
        finally:
            done.set()

    async def main() -> None:
        await cancelled(WSGIApp(app), WITH_BODY, entered)
        release.set()
        await asyncio.to_thread(done.wait, 10)

    asyncio.run(main())
    assert errors == ["the request was cut off, or has ended"]


def test_a_run_that_is_cancelled_while_it_waits_for_a_thread_never_starts() -> None:
    ran: list[str] = []
    entered = threading.Event()
    release = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        ran.append(environ["PATH_INFO"])
        entered.set()
        release.wait(60)
        return started()(environ, start_response)

    mounted = WSGIApp(app, threads=1)

    async def main() -> None:
        first = asyncio.ensure_future(ask(mounted, request(path="/first")))
        await asyncio.to_thread(entered.wait, 10)
        second = asyncio.ensure_future(ask(mounted, request(path="/second")))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        release.set()
        await first
        await ask(mounted, request(path="/third"))

    asyncio.run(main())
    assert ran == ["/first", "/third"]


def test_code_that_asks_after_the_end_gets_an_error() -> None:
    left: list[dict[str, Any]] = []
    entered = threading.Event()

    def note(environ: dict[str, Any]) -> None:
        left.append(environ)

    async def main() -> Any:
        await cancelled(middleware(note)(never_ending(entered)), WITH_BODY, entered)
        # code that keeps the environ of the run, such as a thread that was left behind
        await asyncio.to_thread(upstream, left[0], unused)

    with pytest.raises(asyncio.CancelledError, match="the request was cut off"):
        asyncio.run(main())


def test_a_thread_that_ends_after_its_event_loop(caplog: pytest.LogCaptureFixture) -> None:
    entered = threading.Event()
    release = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        entered.set()
        release.wait(60)
        raise ValueError("nobody hears it")

    with caplog.at_level(logging.DEBUG, "asgi_bridge.wsgi"):
        asyncio.run(cancelled(WSGIApp(app), request(), entered))
        release.set()
        while not caplog.messages:
            time.sleep(0)
    assert caplog.messages == ["the event loop was closed before a WSGI application ended"]


# memory


class Probe:
    """An object in a scope, to see whether the scope is freed."""


@pytest.mark.parametrize("fault", [None, "before", "inside", "behind", "after"])
def test_a_run_leaves_nothing_for_the_cyclic_garbage_collector(fault: str | None) -> None:
    def fail(where: str) -> None:
        if fault == where:
            raise ValueError(where)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        fail("inside")
        await responding(bodies=[])(scope, receive, send)
        fail("behind")

    def before(environ: dict[str, Any]) -> None:
        reading(environ)
        number.set(5)
        fail("before")

    layers = middleware(before, lambda environ: fail("after"))(app)

    async def main() -> Any:
        probe = Probe()
        scope = {**WITH_BODY, "probe": probe}
        with contextlib.suppress(ValueError):
            await ask(layers, scope, BODY)
        return weakref.ref(probe)

    gc.collect()
    gc.disable()
    try:
        left = asyncio.run(main())
        deadline = time.monotonic() + 60
        while left() is not None and time.monotonic() < deadline:
            time.sleep(0)  # the thread is about to drop it
        assert left() is None
    finally:
        gc.enable()


# what can be called where


def test_upstream_belongs_to_a_request() -> None:
    with pytest.raises(PluginError, match="this environ does not belong to the call of a WSGIApp or WSGIMiddleware"):
        upstream({}, unused)


def test_upstream_is_no_use_in_the_event_loop() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        upstream(left[0], unused)

    left: list[dict[str, Any]] = []
    with pytest.raises(PluginError, match="in the event loop's thread"):
        call(middleware(left.append)(app))


def test_a_thread_of_the_application_s_own_may_call_upstream() -> None:
    def factory(app: Any) -> Any:
        def wsgi(environ: Any, start_response: Any) -> Any:
            found: list[Any] = []
            thread = threading.Thread(target=lambda: found.append(app(environ, start_response)))
            thread.start()
            thread.join()
            return found[0]

        return wsgi

    assert call(WSGIMiddleware(factory)(responding()))[2] == b"inner"


def test_the_inner_application_can_be_called_again() -> None:
    def factory(app: Any) -> Any:
        def wsgi(environ: Any, start_response: Any) -> Any:
            ignored: list[Any] = []
            first = app(environ, lambda *arguments: ignored.append(arguments))
            return [*first, *app(environ, start_response)]

        return wsgi

    assert call(WSGIMiddleware(factory)(responding()))[2] == b"innerinner"


def test_a_wsgi_application_knows_http_only() -> None:
    with pytest.raises(PluginError, match="a WSGI application knows HTTP only, not 'websocket'"):
        call(WSGIApp(started()), {"type": "websocket"})


def test_lifespan_of_an_application_is_quiet_and_a_middleware_hands_it_on() -> None:
    async def lifespan(app: Any) -> list[str]:
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent: list[str] = []

        async def receive() -> Message:
            return messages.pop(0)

        async def send(message: Message) -> None:
            sent.append(message["type"])

        await app({"type": "lifespan"}, receive, send)
        return sent

    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    assert asyncio.run(lifespan(WSGIApp(started()))) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert asyncio.run(lifespan(WSGIMiddleware(lambda app: app)(app))) == []
    assert seen == ["lifespan"]
