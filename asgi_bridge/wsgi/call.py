"""One request on its way through a WSGI application in a worker thread.

The way of a request::

    event loop   run ───────────────▶ inner application ──▶ response        send ──▶
                  │ environ             ▲ scope               │ start_response  ▲ status, headers, whole body
    thread        └▶ application ──▶ upstream ◀───────────────┘ ──▶ iterable ──▶┘ close()

The thread crosses over once for the response, and once for each thing that it asks for: the inner application, the
request body when somebody reads it, a variable. The body of a response is gathered: a gateway's runner has to hand it
over whole, and a hop for each chunk is what makes adapters slow. A long one is sent on in parts of ``FLUSH`` bytes.
"""

import asyncio
import contextvars
import io
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextvars import Context
from types import TracebackType
from typing import Any, TypeAlias

from asgiref.sync import ThreadSensitiveContext
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import PluginError
from ..plugins import Apisix
from .environ import (
    Headers,
    build_environ,
    changed_scope,
    has_body,
    parse_headers,
    parse_status,
    status_line,
    text_headers,
)
from .threads import Lane, Wait, lane_of_thread, waiting_lane

__all__ = ["ExcInfo", "StartResponse", "WSGIApisix", "WSGIApplication", "WSGICall", "upstream"]

logger = logging.getLogger("asgi_bridge.wsgi")

Environ: TypeAlias = dict[str, Any]
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]
WSGIApplication: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

FLUSH = 1 << 20
"""Bytes of a response body that are gathered before they are sent on."""

READ = 1 << 16
EMPTY_TYPE = "inode/x-empty"
"""What WSGI code sees as the type of the empty 200 of the request phase, since it expects every response to have one.
Neither text/ nor application/, which compressing middleware looks for."""

_CALL = "asgi_bridge.call"
_Part: TypeAlias = tuple[bytes, Wait | None]
"""A part of the response for the event loop to send, and what the thread waits for meanwhile; None: it is the last."""
_Tokens: TypeAlias = list[tuple[contextvars.ContextVar[Any], contextvars.Token[Any]]]
_CUT_OFF = "the request was cut off, or has ended"
_MISSING = object()


def upstream(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Whoever a WSGI plugin wraps, as a WSGI application: the next plugin of the route, or the gateway's upstream.

    Only valid with the environ of a plugin's call, or a copy of it, and while that call runs. What the environ says
    otherwise than it was handed over becomes a change of the request.

    Raises:
        PluginError: the environ belongs to no such call.

    Example::

        @flask_app.route("/<path:path>")
        def anything(path):
            return Response.from_app(upstream, request.environ)
    """
    call = environ.get(_CALL)
    if not isinstance(call, WSGICall):
        raise PluginError("this environ does not belong to the call of a WSGIApp or WSGIMiddleware")
    return call.upstream(environ, start_response)


class WSGIApisix(Mapping[str, Any]):
    """``environ["asgi_bridge.apisix"]``: the entries of :class:`asgi_bridge.Apisix`, and ``var`` for a thread."""

    __slots__ = ("_call", "_extension")

    def __init__(self, extension: Apisix, call: "WSGICall") -> None:
        self._extension = extension
        self._call = call

    def __getitem__(self, key: str) -> Any:
        return self.var if key == "var" else self._extension[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._extension)

    def __len__(self) -> int:
        return len(self._extension)

    @property
    def plugin(self) -> str:
        return self._extension.plugin

    @property
    def phase(self) -> str:
        return self._extension.phase

    @property
    def conf(self) -> Any:
        return self._extension.conf

    @property
    def route_id(self) -> str | None:
        return self._extension.route_id

    @property
    def request_id(self) -> str | None:
        return self._extension.request_id

    def var(self, *names: str) -> Any:
        """Asks the gateway: ``var("consumer_name")`` is ``bytes | None``; several names: a dict, in one round trip."""
        extension: Any = self._extension

        async def ask() -> Any:
            return await extension.var(*names)

        return self._call.ask(ask)


class _Input:
    """``wsgi.input``: the request body, asked for when somebody reads it."""

    __slots__ = ("_body", "_call", "_file")

    def __init__(self, call: "WSGICall") -> None:
        self._call = call
        self._file: io.BytesIO | None = None
        self._body = b""

    @property
    def body(self) -> bytes | None:
        """All of it; None: nobody has read of it."""
        return None if self._file is None else self._body

    def _opened(self) -> io.BytesIO:
        if self._file is None:
            self._body = self._call.read_body()
            self._file = io.BytesIO(self._body)
        return self._file

    def read(self, size: int | None = -1) -> bytes:
        return self._opened().read(size)

    def readline(self, size: int | None = -1) -> bytes:
        return self._opened().readline(size)

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        return self._opened().readlines(hint)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._opened())


class _Inner:
    """One call of the inner application: its response, and the task that it goes on in."""

    def __init__(self, app: ASGIApp, scope: Scope, lane: Lane) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.context: Context | None = None
        """How its context variables ended; None: it still runs, behind its response."""
        self.complete = False
        self.over: asyncio.Future[None] | None = None
        """Done with the response."""
        self.fault: BaseException | None = None
        """What it raised behind its response."""
        self._app = app
        self._scope = scope
        self._lane = lane
        self._parts: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._context: Context | None = None
        self._wait: Wait | None = None

    def start(self, receive: Receive, wait: Wait, context: Context) -> "asyncio.Task[None]":
        """Starts it, in the event loop."""
        loop = asyncio.get_running_loop()
        self.over = loop.create_future()
        self._wait = wait
        self._context = context
        self._task = loop.create_task(self._run(receive), context=context)
        self._task.add_done_callback(self._finish)
        return self._task

    async def _run(self, receive: Receive) -> None:
        waiting_lane.set(self._lane)
        async with ThreadSensitiveContext(executor=self._lane):
            await self._app(self._scope, receive, self._send)

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start" and not self.status and not self.complete:
            self.status = int(message["status"])
            self.headers = list(message.get("headers") or ())
        elif kind == "http.response.body" and self.status and not self.complete:
            self._parts.append(bytes(message.get("body") or b""))
            if not message.get("more_body", False):
                self.complete = True
                self.body = b"".join(self._parts)
                assert self.over is not None
                self.over.set_result(None)
                # not at once: it most often ends in this step, and then its context variables are final
                asyncio.get_running_loop().call_soon(self._finish)
        elif kind != "http.response.debug":
            raise PluginError(f"{kind} does not belong here")

    def _finish(self, ended: "asyncio.Task[None] | None" = None) -> None:
        """The response is complete, or will never be."""
        assert self._task is not None and self._wait is not None and self.over is not None
        error: BaseException | None = None
        if self._task.done():
            if self._task.cancelled():
                error = PluginError("the inner application was cancelled")
            else:
                error = self._task.exception()
        if self.complete:
            self.fault = error
            if self._task.done() and not self._wait.done:
                self.context = self._context
            self._wait.finish()
        else:
            self.over.cancel()
            self._wait.finish(error=error or PluginError("the inner application ended without a complete response"))


class WSGICall:
    """One request.

    Args:
        wsgi: the application to call.
        inner: what :func:`upstream` stands for.
        pool: of the threads to run in.
        scope, receive, send: of the ASGI call.
    """

    def __init__(
        self, wsgi: WSGIApplication, inner: ASGIApp, pool: Executor, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._wsgi = wsgi
        self._app = inner
        self._pool = pool
        self._scope = scope
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._part: asyncio.Future[_Part | None] = self._loop.create_future()
        self._ended: asyncio.Future[None] | None = None
        self._waits: set[Wait] = set()
        self._inners: list[_Inner] = []
        self._tasks: set[asyncio.Task[None]] = set()
        # the thread's
        self._input: _Input | None = None
        self._before: Environ = {}
        self._status = 0
        self._headers: Headers = []
        self._headers_sent = False
        self._parts: list[bytes] = []
        self._size = 0
        self._typeless = False
        self._passed_on = False
        self._posted = False
        self._final: Context | None = None
        self._tokens: _Tokens = []
        # both look at these, each after it has said its own
        self._finished = False
        self._error: BaseException | None = None
        self._aborted = False

    # in the event loop

    async def run(self) -> None:
        """Runs the application, and sends its response."""
        context = contextvars.copy_context()
        lane = waiting_lane.get(None)
        future = lane.offer(lambda: context.run(self._work)) if lane is not None else None
        if future is None:
            future = self._pool.submit(context.run, self._work)
        try:
            await self._send_response(await self._next_part())
            if not self._finished:
                self._ended = self._loop.create_future()
                if not self._finished:
                    await self._ended
            self._restored(context)
            self._raise()
            if self._tasks:  # background tasks of the inner application
                await asyncio.wait(self._tasks)
            for inner in self._inners:
                if inner.fault is not None:
                    raise inner.fault
        except BaseException:
            await self._abort(future)
            raise
        finally:
            # the environ, its input and this hold each other: only the cyclic garbage collector would free them
            self._aborted = True
            self._input = None
            self._before = {}
            self._final = None
            self._tokens = []

    async def _next_part(self) -> _Part:
        part = await self._part
        self._part = self._loop.create_future()
        if part is None:  # it has failed
            self._raise()
        assert part is not None
        return part

    async def _send_response(self, part: _Part) -> None:
        body, wait = part
        self._take_over_final(wait)
        try:
            await self._send({"type": "http.response.start", "status": self._status, "headers": self._headers})
            while wait is not None:
                await self._send({"type": "http.response.body", "body": body, "more_body": True})
                wait.finish()
                body, wait = await self._next_part()
                self._take_over_final(wait)
            await self._send({"type": "http.response.body", "body": body, "more_body": False})
        except BaseException as exc:
            if wait is not None:
                wait.finish(error=exc)
            raise

    def _take_over_final(self, wait: Wait | None) -> None:
        """What wraps the response outside sees the context variables too, though close() is still to come."""
        if wait is None:
            assert self._final is not None
            self._tokens = _take_over(self._final)

    def _restored(self, context: Context) -> None:
        """Context variables are as the application left them, after close()."""
        for variable, token in self._tokens:
            if variable not in context:  # it has reset it since
                variable.reset(token)
        _take_over(context)

    def _raise(self) -> None:
        error, self._error = self._error, None  # an exception holds its frames, and they this
        if error is not None:
            try:
                raise error
            finally:
                del error

    async def _abort(self, future: "Future[None]") -> None:
        """Nobody waits for the response any more: the thread must not wait for anything either."""
        self._aborted = True
        future.cancel()
        for wait in list(self._waits):
            wait.finish(error=asyncio.CancelledError(_CUT_OFF))
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _take(self, part: _Part | None) -> None:
        if not self._part.done():
            self._part.set_result(part)

    def _take_and_wait(self, wait: Wait, body: bytes) -> None:
        if self._begin(wait):
            self._take((body, wait))

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _start(self, wait: Wait, make: Callable[[], Coroutine[Any, Any, Any]], context: Context) -> None:
        async def answer() -> None:
            try:
                wait.finish(await make())
            except BaseException as exc:
                wait.finish(error=exc)

        if self._begin(wait):
            self._keep(self._loop.create_task(answer(), context=context))

    def _start_inner(self, wait: Wait, inner: _Inner, receive: Receive, context: Context) -> None:
        if self._begin(wait):
            self._inners.append(inner)
            self._keep(inner.start(receive, wait, context))

    def _begin(self, wait: Wait) -> bool:
        if self._aborted:
            wait.finish(error=asyncio.CancelledError(_CUT_OFF))
            return False
        self._waits.add(wait)
        return True

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # in the thread

    def _work(self) -> None:
        error: BaseException | None = None
        with lane_of_thread(self._pool):
            iterable: Iterable[bytes] | None = None
            try:
                iterable = self._wsgi(self._environ(), self.start_response)
                self._gather(iterable)
            except BaseException as exc:
                error = exc
            try:
                close = getattr(iterable, "close", None)
                if close is not None:
                    close()
            except BaseException as exc:
                if error is None:
                    error = exc
                else:
                    logger.error("close() of a WSGI application's iterable raised, after %r", error, exc_info=exc)
        if error is not None and not isinstance(error, Exception):
            # SystemExit and its like would end the event loop
            stopped = PluginError(f"the WSGI application raised {error!r}")
            stopped.__cause__ = error
            error = stopped
        self._error = error
        self._finished = True
        try:
            if not self._posted:
                self._loop.call_soon_threadsafe(self._take, None)
            elif self._ended is not None:
                self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            logger.debug("the event loop was closed before a WSGI application ended")

    def _environ(self) -> Environ:
        self._input = _Input(self)
        environ = build_environ(self._scope, self._input)
        environ["asgi_bridge.scope"] = self._scope
        environ[_CALL] = self
        extension = (self._scope.get("extensions") or {}).get("apisix")
        if isinstance(extension, Apisix):
            environ["asgi_bridge.apisix"] = WSGIApisix(extension, self)
        self._before = environ.copy()
        return environ

    def start_response(self, status: str, headers: Iterable[Any], exc_info: ExcInfo | None = None) -> Any:
        """As PEP 3333 has it. The headers count as sent with the first byte of the body, or call of ``write``."""
        if exc_info:
            try:
                if self._headers_sent and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # else this frame and the traceback hold each other
        elif self._status:
            raise PluginError("start_response was called twice without exc_info (PEP 3333)")
        checked = parse_status(status), parse_headers(headers)
        self._status, self._headers = checked
        return self._write

    def _write(self, data: bytes) -> None:
        self._headers_sent = True
        self._add(data)

    def _add(self, data: bytes) -> None:
        if self._aborted:
            raise asyncio.CancelledError(_CUT_OFF)
        if not isinstance(data, bytes):
            raise PluginError(f"the response body is of bytes, not of {type(data).__name__} (PEP 3333)")
        if data:
            if not self._status:
                raise PluginError("there is a response body before start_response was called (PEP 3333)")
            self._headers_sent = True
            self._parts.append(data)
            self._size += len(data)
            if self._size >= FLUSH:
                self._await(self._take_and_wait, self._gathered())

    def _gather(self, iterable: Iterable[bytes]) -> None:
        for data in iterable:
            self._add(data)
        if not self._status:
            raise PluginError("the WSGI application ended without calling start_response (PEP 3333)")
        body = self._gathered()
        self._posted = True
        self._final = contextvars.copy_context()
        self._loop.call_soon_threadsafe(self._take, (body, None))

    def _gathered(self) -> bytes:
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self._typeless and not body:
            self._headers = [header for header in self._headers if header != _EMPTY_TYPE]
        return body

    def ask(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Runs a coroutine in the event loop, and waits for its result."""
        return self._await(self._start, make, contextvars.copy_context())

    def _await(self, begin: Callable[..., None], *args: Any) -> Any:
        """Calls `begin` in the event loop, with a new Wait and `args`, and waits until that is finished."""
        if threading.get_ident() == self._loop_thread:
            raise PluginError("WSGI code was called in the event loop's thread, which it would wait for")
        with lane_of_thread(self._pool) as lane:
            return lane.wait(lambda wait: self._loop.call_soon_threadsafe(begin, wait, *args))

    def read_body(self) -> bytes:
        """The request body. Once the request was passed on, it belongs to whom it was passed on to."""
        if self._passed_on or not has_body(self._scope):
            return b""
        body: bytes = self.ask(self._receive_body)
        return body

    async def _receive_body(self) -> bytes:
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise OSError("the client went away before the end of the request body")
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts)

    def upstream(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """The inner application, as WSGI."""
        if self._aborted:
            raise asyncio.CancelledError(_CUT_OFF)
        scope = changed_scope(self._scope, self._before, environ)
        with lane_of_thread(self._pool) as lane:
            inner = _Inner(self._app, scope, lane)
            receive = self._receive_of(environ, inner, lane)
            context = contextvars.copy_context()
            self._await(self._start_inner, inner, receive, context)
        if inner.context is not None:
            _take_over(inner.context)
        headers = text_headers(inner.headers)
        if not headers and not inner.body and inner.status == 200:
            self._typeless = True
            headers.append(("Content-Type", EMPTY_TYPE))
        start_response(status_line(inner.status), headers)
        return [inner.body]

    def _receive_of(self, environ: Environ, inner: _Inner, lane: Lane) -> Receive:
        """The receive of the inner application: the very one that we have, where the body was not touched."""
        stream = environ.get("wsgi.input")
        if isinstance(stream, _Input) and stream is self._input:
            read = stream.body
            if read is None:
                self._passed_on = True
                return self._receive
            # whoever reads the body and leaves it in place has looked at it only
            return _Given(inner, lane, lambda: read)
        return _Given(inner, lane, lambda: _read_all(stream))


class _Given:
    """A receive that gives another body, read in the thread that waits for the inner application."""

    def __init__(self, inner: _Inner, lane: Lane, read: Callable[[], bytes]) -> None:
        self._inner = inner
        self._lane = lane
        self._read = read
        self._taken = False

    async def __call__(self) -> Message:
        if not self._taken:
            self._taken = True
            context = contextvars.copy_context()
            body = await asyncio.get_running_loop().run_in_executor(self._lane, context.run, self._read)
            return {"type": "http.request", "body": body, "more_body": False}
        assert self._inner.over is not None
        await asyncio.shield(self._inner.over)
        return {"type": "http.disconnect"}


def _read_all(stream: Any) -> bytes:
    # Up to its end, whatever CONTENT_LENGTH says: that is not always changed together with it. With a size, since PEP
    # 3333 has no read() without one.
    parts: list[bytes] = []
    while part := stream.read(READ):
        parts.append(part)
    return b"".join(parts)


def _take_over(context: Context) -> _Tokens:
    """Sets the context variables as they are in `context`; gives those that were not set before."""
    new: _Tokens = []
    for variable, value in context.items():
        if variable is not waiting_lane:
            current = variable.get(_MISSING)
            if current is not value:
                token = variable.set(value)
                if current is _MISSING:
                    new.append((variable, token))
    return new


_EMPTY_TYPE = b"content-type", EMPTY_TYPE.encode("ascii")
