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
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from contextvars import Context
from types import TracebackType
from typing import Any, TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import PluginError
from ..plugins import Apisix
from ..wire import MAX_PAYLOAD
from .environ import (
    Headers,
    build_environ,
    changed_scope,
    may_have_untold_body,
    parse_headers,
    parse_status,
    status_line,
    text_headers,
)
from .inner import YIELD_EVERY, GivenBody, Inner, read_all
from .request import Input, WSGIApisix
from .threads import Lane, Wait, lane_of_thread, waiting_lane

__all__ = ["ExcInfo", "StartResponse", "WSGIApplication", "WSGICall", "upstream"]

logger = logging.getLogger("asgi_bridge.wsgi")

Environ: TypeAlias = dict[str, Any]
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]
WSGIApplication: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

FLUSH = 1 << 20
"""Bytes of a response body that are gathered before they are sent on."""

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
        self._inners: list[Inner] = []
        self._tasks: set[asyncio.Task[None]] = set()
        # the thread's
        self._input: Input | None = None
        self._before: Environ = {}
        self._given: list[tuple[str, str]] = []
        self._refusal: PluginError | None = None
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
                self._error, inner.fault = inner.fault, None
                self._raise()
        except BaseException:
            await self._abort(future)
            raise
        finally:
            # the environ, its input and this hold each other: only the cyclic garbage collector would free them
            self._aborted = True
            self._inners.clear()
            self._input = None
            self._before = {}
            self._refusal = None
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

    def _start_inner(self, wait: Wait, inner: Inner, receive: Receive, context: Context) -> None:
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
            error, error.__cause__ = PluginError(f"the WSGI application raised {error!r}"), error
        refusal = self._refusal
        if refusal is not None and refusal is not error and not self._aborted:
            logger.error("plugin %s: %s; the WSGI application has caught it", self._plugin(), refusal)
        self._error = error
        del error, refusal  # their tracebacks hold this frame
        self._finished = True
        try:
            if not self._posted:
                self._loop.call_soon_threadsafe(self._take, None)
            elif self._ended is not None:
                self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            logger.debug("the event loop was closed before a WSGI application ended")

    def _environ(self) -> Environ:
        self._input = Input(self._read_body)
        environ = build_environ(self._scope, self._input)
        environ["asgi_bridge.scope"] = self._scope
        environ[_CALL] = self
        extension = (self._scope.get("extensions") or {}).get("apisix")
        if isinstance(extension, Apisix):
            environ["asgi_bridge.apisix"] = WSGIApisix(extension, self._ask)
        if may_have_untold_body(self._scope) and not (
            isinstance(extension, Apisix) and not extension._layer.options.request_body  # noqa: SLF001
        ):
            # Trap: Django and others read CONTENT_LENGTH bytes, none without it, whatever wsgi.input_terminated says:
            # a check would see an empty body.
            length = self._input.read_ahead()
            environ.pop("HTTP_TRANSFER_ENCODING", None)
            if length:
                environ["CONTENT_LENGTH"] = str(length)
        self._before = environ.copy()
        return environ

    def start_response(self, status: str, headers: Iterable[Any], exc_info: ExcInfo | None = None) -> Any:
        """As PEP 3333 has it. The headers count as sent with the first byte of the body, or call of ``write``."""
        with self._noting():
            return self._start_response(status, headers, exc_info)

    def _start_response(self, status: str, headers: Iterable[Any], exc_info: ExcInfo | None) -> Any:
        if exc_info:
            try:
                if self._headers_sent and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # else this frame and the traceback hold each other
        elif self._status:
            raise PluginError("start_response was called twice without exc_info (PEP 3333)")
        checked = parse_status(status), parse_headers(headers, self._given)
        self._status, self._headers = checked
        return self._write

    def _write(self, data: bytes) -> None:
        self._headers_sent = True
        with self._noting():
            self._add(data)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """An error that goes to the application gets into the log even if the application catches it."""
        try:
            yield
        except PluginError as exc:
            self._refusal = self._refusal or exc
            raise

    def _plugin(self) -> str:
        extension = (self._scope.get("extensions") or {}).get("apisix")
        return extension.plugin if isinstance(extension, Apisix) else "?"

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

    def _ask(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Runs a coroutine in the event loop, and waits for its result."""
        return self._await(self._start, make, contextvars.copy_context())

    def _await(self, begin: Callable[..., None], *args: Any) -> Any:
        """Calls `begin` in the event loop, with a new Wait and `args`, and waits until that is finished."""
        if threading.get_ident() == self._loop_thread:
            raise PluginError("WSGI code was called in the event loop's thread, which it would wait for")
        with lane_of_thread(self._pool) as lane:
            return lane.wait(lambda wait: self._loop.call_soon_threadsafe(begin, wait, *args))

    def _read_body(self) -> bytes:
        """The request body. Once the request was passed on, it belongs to whom it was passed on to."""
        if self._passed_on:
            return b""
        body: bytes = self._ask(self._receive_body)
        return body

    async def _receive_body(self) -> bytes:
        body = bytearray()
        messages = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise OSError("the client went away before the end of the request body")
            body += message.get("body", b"")
            if len(body) > MAX_PAYLOAD:
                raise PluginError(f"the request body is longer than the protocol's {MAX_PAYLOAD} bytes")
            if not message.get("more_body", False):
                return bytes(body)
            messages += 1
            if not messages % YIELD_EVERY:
                await asyncio.sleep(0)

    def upstream(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """The inner application, as WSGI."""
        if self._aborted:
            raise asyncio.CancelledError(_CUT_OFF)
        with self._noting():
            scope = changed_scope(self._scope, self._before, environ)
        with lane_of_thread(self._pool) as lane:
            inner = Inner(self._app, scope, lane)
            receive = self._receive_of(environ, inner, lane)
            context = contextvars.copy_context()
            self._await(self._start_inner, inner, receive, context)
        if inner.context is not None:
            _take_over(inner.context)
        headers = text_headers(inner.headers)
        if not headers and not inner.body and inner.status == 200:
            self._typeless = True
            headers.append(("Content-Type", EMPTY_TYPE))
        self._given = headers.copy()
        start_response(status_line(inner.status), headers)
        return [inner.body]

    def _receive_of(self, environ: Environ, inner: Inner, lane: Lane) -> Receive:
        """The receive of the inner application: the very one that we have, where the body was not touched."""
        stream = environ.get("wsgi.input")
        if isinstance(stream, Input) and stream is self._input:
            read = stream.body
            if read is None:
                self._passed_on = True
                return self._receive
            # whoever reads the body and leaves it in place has looked at it only
            stream.drop()
            return GivenBody(inner, lane, lambda: read)
        return GivenBody(inner, lane, lambda: read_all(stream))


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
