"""start_response, write, the iterable and its close(): a table of PEP 3333's traps."""

import asyncio
import contextlib
import io
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Scope, Send

from asgi_bridge.errors import PluginError
from asgi_bridge.wsgi import WSGIApp, WSGIMiddleware
from asgi_bridge.wsgi.response import FLUSH

from .calls import call, request, responding

PLAIN = [("Content-Type", "text/plain")]
TYPED = [(b"content-type", b"text/plain")]


class Iterable:
    """An iterable of chunks that counts how often it was closed. It raises a chunk that is an exception."""

    def __init__(self, *chunks: Any, at_close: BaseException | None = None) -> None:
        self.closed = 0
        self._chunks = iter(chunks)
        self._at_close = at_close

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        chunk = next(self._chunks)
        if isinstance(chunk, BaseException):
            raise chunk
        return chunk

    def close(self) -> None:
        self.closed += 1
        if self._at_close is not None:
            raise self._at_close


def returned(value: Any) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", PLAIN)
        return value

    return app


def written(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", PLAIN)
    write(b"a")
    write(b"")
    return [b"b", b"", b"c"]


def generated(environ: Any, start_response: Any) -> Any:
    yield b""
    start_response("200 OK", PLAIN)
    yield b"a"
    yield b"b"


def replaced(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    try:
        raise KeyError
    except KeyError:
        start_response("500 Oh No", [("X-A", "1"), ("X-A", "2")], sys.exc_info())
    return [b"sorry"]


def first_with_exc_info(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN, (None, None, None))
    return []


def wrapped(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](io.BytesIO(b"x" * 20000))


def latin(environ: Any, start_response: Any) -> Any:
    start_response(status="299 Caf\xe9", headers=(("X-A", "caf\xe9"), ["Set-Cookie", "a=1"], ("set-cookie", "b=2")))
    return []


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (returned([]), (200, TYPED, b"")),
        (returned(()), (200, TYPED, b"")),
        (returned(iter([b"a", b"b"])), (200, TYPED, b"ab")),
        (returned(Iterable(b"a", b"", b"b")), (200, TYPED, b"ab")),
        (written, (200, TYPED, b"abc")),
        (generated, (200, TYPED, b"ab")),
        (replaced, (500, [(b"x-a", b"1"), (b"x-a", b"2")], b"sorry")),
        (first_with_exc_info, (200, TYPED, b"")),
        (wrapped, (200, TYPED, b"x" * 20000)),
        (latin, (299, [(b"x-a", b"caf\xe9"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")], b"")),
        (lambda environ, start_response: start_response("204", []) and [], (204, [], b"")),
    ],
)
def test_what_an_application_answers(app: Any, expected: Any) -> None:
    assert call(WSGIApp(app)) == expected


def answering(*arguments: Any) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(*arguments)
        return []

    return app


def twice(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    start_response("200 OK", PLAIN)
    return []


def late(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    yield b"a"
    try:
        raise KeyError("late")
    except KeyError:
        start_response("500 Oh No", PLAIN, sys.exc_info())


def late_after_write(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)(b"")
    try:
        raise KeyError("late")
    except KeyError:
        start_response("500 Oh No", PLAIN, sys.exc_info())


def never(environ: Any, start_response: Any) -> Any:
    return []


def too_early(environ: Any, start_response: Any) -> Any:
    yield b"a"


def nothing(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)


def raising(exc: BaseException) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        raise exc

    return app


OK = "200 OK"


@pytest.mark.parametrize(
    ("app", "error", "reason"),
    [
        (twice, PluginError, "start_response was called twice without exc_info"),
        (late, KeyError, "late"),
        (late_after_write, KeyError, "late"),
        (never, PluginError, "ended without calling start_response"),
        (too_early, PluginError, "a response body before start_response was called"),
        (nothing, TypeError, "not iterable"),
        (returned("text"), PluginError, "must be bytes, not str"),
        (returned([b"a", 1]), PluginError, "must be bytes, not int"),
        (returned(Iterable(b"a", ValueError("midway"))), ValueError, "midway"),
        (raising(ValueError("at once")), ValueError, "at once"),
        (raising(StopIteration()), RuntimeError, "StopIteration"),
        (raising(SystemExit(3)), PluginError, r"the WSGI application raised SystemExit\(3\)"),
        (raising(asyncio.CancelledError()), PluginError, r"the WSGI application raised CancelledError\(\)"),
        (answering(b"200 OK", PLAIN), PluginError, "the status b'200 OK'"),
        (answering(200, PLAIN), PluginError, "the status 200"),
        (answering("OK", PLAIN), PluginError, "the status 'OK'"),
        (answering("2000 OK", PLAIN), PluginError, "the status '2000 OK'"),
        (answering("099 Low", PLAIN), PluginError, "the status '099 Low'"),
        (answering("200 OK\r\nx: y", PLAIN), PluginError, "the status"),
        (answering(OK, [(b"x", b"y")]), PluginError, "name and value are str"),
        (answering(OK, [("x", 1)]), PluginError, "name and value are str"),
        (answering(OK, [("x", None)]), PluginError, "name and value are str"),
        (answering(OK, [("x", "\u20ac")]), PluginError, "a value of x that is not latin-1"),
        (answering(OK, [("x", "a\nb")]), PluginError, "a CR, LF or NUL in the value of x"),
        (answering(OK, [("x y", "a")]), PluginError, "'x y': that is no header name"),
        (answering(OK, [("\xe9", "a")]), PluginError, "that is no header name"),
        (answering(OK, [("x", "y", "z")]), PluginError, "it is a pair"),
        (answering(OK, [1]), PluginError, "it is a pair"),
        *[
            (answering(OK, [(name, "x")]), PluginError, f"with {name}, which is the server's own")
            for name in ("Connection", "Keep-Alive", "Transfer-Encoding", "TE", "Upgrade", "Proxy-Authenticate")
        ],
    ],
)
def test_what_no_application_may_do(app: Any, error: type[BaseException], reason: str) -> None:
    with pytest.raises(error, match=reason):
        call(WSGIApp(app))


def test_an_application_may_catch_the_error_and_answer() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        try:
            start_response("200 OK", [("Connection", "close")])
        except PluginError:
            start_response("500 Oh No", [], sys.exc_info())
        return []

    assert call(WSGIApp(app)) == (500, [], b"")


@pytest.mark.parametrize(
    "chunks", [[], [b"a"], [b"a", ValueError("midway")], ["text"], [b"x" * FLUSH, b"y"], [b"x" * FLUSH, ValueError()]]
)
def test_the_iterable_is_closed_once_whatever_happens(chunks: list[Any]) -> None:
    iterable = Iterable(*chunks)
    with contextlib.suppress(ValueError, PluginError):
        call(WSGIApp(returned(iterable)))
    assert iterable.closed == 1


def test_the_iterable_is_closed_without_start_response() -> None:
    iterable = Iterable()
    with pytest.raises(PluginError, match="without calling start_response"):
        call(WSGIApp(lambda environ, start_response: iterable))
    assert iterable.closed == 1


def test_a_generator_gets_its_finally() -> None:
    ended: list[str] = []

    def app(environ: Any, start_response: Any) -> Any:
        try:
            start_response("200 OK", PLAIN)
            yield "no bytes"
        finally:
            ended.append("finally")

    with pytest.raises(PluginError, match="must be bytes, not str"):
        call(WSGIApp(app))
    assert ended == ["finally"]


def test_the_response_does_not_wait_for_close() -> None:
    order: list[str] = []

    async def main() -> None:
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()

        class Slow(Iterable):
            def close(self) -> None:
                # a response that waited for this would wait for ever
                asyncio.run_coroutine_threadsafe(gone.wait(), loop).result()
                order.append("closed")

        async def send(message: Message) -> None:
            order.append(message["type"])
            if message["type"] == "http.response.body":
                gone.set()

        await WSGIApp(returned(Slow(b"a")))(request(), receive, send)
        order.append("ended")

    asyncio.run(main())
    assert order == ["http.response.start", "http.response.body", "closed", "ended"]


async def ask_with(app: ASGIApp, send: Send) -> None:
    await app(request(), receive, send)


async def receive() -> Message:
    raise AssertionError("nobody wants the body")


def test_an_error_of_close_comes_behind_the_response() -> None:
    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])

    with pytest.raises(ValueError, match="at close"):
        asyncio.run(ask_with(WSGIApp(returned(Iterable(b"a", at_close=ValueError("at close")))), send))
    assert sent == ["http.response.start", "http.response.body"]


def test_an_error_of_close_after_another_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyError, match="first"):
        call(WSGIApp(returned(Iterable(KeyError("first"), at_close=ValueError("second")))))
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "close() of a WSGI application's iterable raised, after KeyError('first')")
    ]


def test_a_long_body_is_sent_in_parts() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", PLAIN)
        for number in range(5):
            yield bytes([number]) * (FLUSH // 2)

    asyncio.run(WSGIApp(app)(request(), receive, send))
    assert [(len(message.get("body", b"")), message.get("more_body")) for message in sent] == [
        (0, None),
        (FLUSH, True),
        (FLUSH, True),
        (FLUSH // 2, False),
    ]


@pytest.mark.parametrize("failing", ["http.response.start", "http.response.body"])
@pytest.mark.parametrize("chunks", [[b"short"], [b"x" * FLUSH, b"more"]])
def test_an_error_of_send_reaches_the_application_where_it_waits(failing: str, chunks: list[bytes]) -> None:
    iterable = Iterable(*chunks)

    async def send(message: Message) -> None:
        if message["type"] == failing:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        asyncio.run(WSGIApp(returned(iterable))(request(), receive, send))
    # the thread goes on after the exception
    while not iterable.closed:
        time.sleep(0)
    assert iterable.closed == 1


def test_head_and_lengths_are_left_to_the_application() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "5")])
        return []

    assert call(WSGIApp(app), request(method="HEAD")) == (200, [(b"content-length", b"5")], b"")


def passing(app: Any) -> Any:
    return app


def test_response_of_the_inner_application_as_wsgi_code_sees_it() -> None:
    seen: list[Any] = []

    def looking(app: Any) -> Callable[..., Any]:
        def wsgi(environ: Any, start_response: Any) -> Any:
            def look(status: Any, headers: Any, exc_info: Any = None) -> Any:
                seen.append((status, list(headers)))
                return start_response(status, headers, exc_info)

            return app(environ, look)

        return wsgi

    headers = [
        (b"etag", b'"1"'),
        (b"set-cookie", b"a=1"),
        (b"x-request-id", b"caf\xe9"),
        (b"set-cookie", b"b=2"),
        (b"connection", b"close"),
        (b"www-authenticate", b"Basic"),
    ]
    found = call(WSGIMiddleware(looking)(responding(b"abc", 404, headers)))
    assert seen == [
        (
            "404 Not Found",
            [
                ("ETag", '"1"'),
                ("Set-Cookie", "a=1"),
                ("X-Request-Id", "caf\xe9"),
                ("Set-Cookie", "b=2"),
                ("WWW-Authenticate", "Basic"),
            ],
        )
    ]
    assert found == (404, [header for header in headers if header[0] != b"connection"], b"abc")
    assert call(WSGIMiddleware(passing)(responding(b"x", 299)))[0] == 299


@pytest.mark.parametrize(
    ("inner", "error", "reason"),
    [
        ([], PluginError, "ended without a complete response"),
        ([{"type": "http.response.body", "body": b""}], PluginError, "http.response.body does not belong here"),
        ([{"type": "http.response.start", "status": 200}] * 2, PluginError, "http.response.start does not belong"),
        ([ValueError("inside")], ValueError, "inside"),
        ([asyncio.CancelledError()], PluginError, "the inner application was cancelled"),
    ],
)
def test_faults_of_the_inner_application(inner: list[Any], error: type[BaseException], reason: str) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.debug", "info": {}})
        for message in inner:
            if isinstance(message, BaseException):
                raise message
            await send(message)

    with pytest.raises(error, match=reason):
        call(WSGIMiddleware(passing)(app))


def test_wsgi_code_can_answer_for_a_failed_inner_application() -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        raise ValueError("inside")

    def guard(app: Any) -> Any:
        def wsgi(environ: Any, start_response: Any) -> Any:
            try:
                return app(environ, start_response)
            except ValueError as exc:
                start_response("502 Bad Gateway", PLAIN)
                return [str(exc).encode()]

        return wsgi

    assert call(WSGIMiddleware(guard)(app)) == (502, TYPED, b"inside")


def test_an_error_behind_the_inner_response_comes_behind_the_response() -> None:
    sent: list[Any] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await responding(b"kept")(scope, receive, send)
        await asyncio.sleep(0)
        raise ValueError("behind")

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(ValueError, match="behind"):
        asyncio.run(ask_with(WSGIMiddleware(passing)(app), send))
    assert sent[1]["body"] == b"kept"
