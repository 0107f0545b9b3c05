"""One run of a WSGI application in a worker thread, for one request.

The way of a request::

    event loop   run ───────────────▶ inner application ──▶ response        send ──▶
                  │ environ             ▲ scope               │ start_response  ▲ status, headers, whole body
    thread        └▶ application ──▶ upstream ◀───────────────┘ ──▶ iterable ──▶┘ close()

The thread crosses over once for the response, and once for each thing that it asks for: the inner application, the
request body when somebody reads it, a variable.
"""

import asyncio
import contextvars
import io
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import PluginError
from ..passing.change import Change
from .crossing import Crossing
from .headers import status_line
from .inner import Inner
from .request import Request
from .response import Part, Response, StartResponse
from .threads import Wait, lane_of_thread, waiting_lane

__all__ = ["Run", "WSGIApplication", "run_of", "upstream"]

logger = logging.getLogger("asgi_bridge.wsgi")

Environ: TypeAlias = dict[str, Any]
WSGIApplication: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

_Tokens: TypeAlias = list[tuple[contextvars.ContextVar[Any], contextvars.Token[Any]]]
_UNSET = object()


def upstream(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The application that a WSGI plugin wraps, as WSGI: the next plugin of the route, or the gateway's upstream.

    It works with the environ of a plugin's request, or a copy of it, while that request runs. What the plugin has
    changed in the environ becomes a change of the request.

    Raises:
        PluginError: The environ belongs to no such request.

    Example::

        def app(environ, start_response):
            environ["HTTP_X_SEEN"] = "yes"
            return upstream(environ, start_response)

    A view of Flask returns :func:`asgi_bridge.wsgi.pass_on` instead.
    """
    return run_of(environ).call_inner(environ, start_response)


def run_of(environ: Mapping[str, Any]) -> "Run":
    """Return the run that an environ belongs to.

    Args:
        environ: Of a plugin's request, or a copy of it.

    Raises:
        PluginError: It belongs to none.
    """
    run = environ.get("asgi_bridge.run")
    if not isinstance(run, Run):
        raise PluginError(
            "this environ does not belong to the call of a WSGIApp or WSGIMiddleware: hand on the one that the "
            "application got, or a copy"
        )
    return run


class Run:
    """One run of a WSGI application.

    Args:
        wsgi: The application.
        inner: The ASGI application that :func:`upstream` calls.
        pool: The threads to run in.
        scope, receive, send: Of the ASGI call.
    """

    def __init__(
        self, wsgi: WSGIApplication, inner: ASGIApp, pool: Executor, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._wsgi = wsgi
        self._app = inner
        self._send = send
        self._crossing = Crossing(pool)
        self._request = Request(scope, receive, self._crossing)
        self._response = Response(self._crossing)
        self._inners: list[Inner] = []
        self._tokens: _Tokens = []
        self._thread_done: asyncio.Future[None] | None = None
        # The thread writes these two, in this order, and looks at `_thread_done` after that. The event loop sets
        # `_thread_done` before it looks at them. So one of the two sees what the other wrote.
        self._error: BaseException | None = None
        self._finished = False

    # in the event loop

    async def run(self) -> None:
        """Run the application, and send its response."""
        context = contextvars.copy_context()
        lane = waiting_lane.get(None)
        thread = lane.offer(lambda: context.run(self._work)) if lane is not None else None
        if thread is None:
            thread = self._crossing.pool.submit(context.run, self._work)
        try:
            await self._send_response()
            if not self._finished:
                self._thread_done = asyncio.get_running_loop().create_future()
                if not self._finished:
                    await self._thread_done
            self._set_variables_after_close(context)
            self._raise_error()
            await self._crossing.tasks_done()  # background tasks of the inner application
            for inner in self._inners:
                self._error, inner.fault = inner.fault, None
                self._raise_error()
        except BaseException:
            await self._crossing.abort(thread)
            raise
        finally:
            # the environ, its input and this hold each other: only the garbage collector would free them
            self._crossing.aborted = True
            self._inners.clear()
            self._request.release()
            self._response.noted_error = None
            self._response.context = None
            self._tokens = []

    async def _next_part(self) -> Part:
        part = await self._response.next_part()
        if part is None:
            self._raise_error()
        assert part is not None
        if part[1] is None:  # the last: whatever wraps the response sees the context variables, before close()
            assert self._response.context is not None
            self._tokens = _copy_variables(self._response.context)
        return part

    async def _send_response(self) -> None:
        response = self._response
        wait: Wait | None = None
        try:
            body, wait = await self._next_part()
            await self._send({"type": "http.response.start", "status": response.status, "headers": response.headers})
            while wait is not None:
                await self._send({"type": "http.response.body", "body": body, "more_body": True})
                wait.finish()
                body, wait = await self._next_part()
            await self._send({"type": "http.response.body", "body": body, "more_body": False})
        except BaseException as exc:
            if wait is not None:
                wait.finish(error=exc)
            raise

    def _set_variables_after_close(self, context: Context) -> None:
        """Set the context variables as the application left them in close()."""
        for variable, token in self._tokens:
            if variable not in context:  # it has been reset since
                variable.reset(token)
        _copy_variables(context)

    def _raise_error(self) -> None:
        error, self._error = self._error, None  # an exception holds its frames, and they hold this
        if error is not None:
            try:
                raise error
            finally:
                del error

    def _note_thread_done(self) -> None:
        if self._thread_done is not None and not self._thread_done.done():
            self._thread_done.set_result(None)

    def _start_inner(self, wait: Wait, inner: Inner, receive: Receive, context: Context) -> None:
        if self._crossing.admit(wait):
            self._inners.append(inner)
            self._crossing.keep(inner.start(receive, wait, context))

    # in the thread

    def _work(self) -> None:
        error: BaseException | None = None
        with lane_of_thread(self._crossing.pool):
            iterable: Iterable[bytes] | None = None
            try:
                iterable = self._wsgi(self._request.environ(run=self), self._response.start_response)
                for data in iterable:
                    self._response.add(data)
                self._response.finish()
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
        noted = self._response.noted_error
        if noted is not None and noted is not error and not self._crossing.aborted:
            logger.error("plugin %s: %s; the WSGI application has caught it", self._request.plugin, noted)
        self._error = error
        del error, noted  # their tracebacks hold this frame
        self._finished = True
        try:
            if not self._response.complete:
                self._crossing.post(self._response.take, None)
            elif self._thread_done is not None:
                self._crossing.post(self._note_thread_done)
        except RuntimeError:
            logger.debug("the event loop was closed before a WSGI application ended")

    def call_inner(
        self, environ: Environ, start_response: StartResponse, change: Change | None = None
    ) -> Iterable[bytes]:
        """Call the inner application, as WSGI.

        Args:
            environ, start_response: As in PEP 3333.
            change: What to change beside what was changed in `environ`.
        """
        self._crossing.check_open()
        with self._response.noting_errors():
            scope = self._request.changed_scope(environ)
            if change is not None:
                scope = change.request(scope)
                if change.body is not None:
                    environ = {**environ, "wsgi.input": io.BytesIO(change.body)}
        with lane_of_thread(self._crossing.pool) as lane:
            inner = Inner(self._app, scope, lane)
            receive = self._request.receive_of(environ, inner, lane)
            self._crossing.wait_for(self._start_inner, inner, receive, contextvars.copy_context())
        if inner.context is not None:
            _copy_variables(inner.context)
        headers = self._response.inner_headers(inner.status, inner.headers, inner.body)
        if change is not None:
            headers = _with_response_headers(headers, change)
        start_response(status_line(inner.status), headers)
        return [inner.body]


def _with_response_headers(headers: list[tuple[str, str]], change: Change) -> list[tuple[str, str]]:
    """Return the headers of a response, as text, with those that `change` sets."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in change.response(raw)]


def _copy_variables(context: Context) -> _Tokens:
    """Set the context variables as they are in `context`; return those that were not set before, with their tokens."""
    new: _Tokens = []
    for variable, value in context.items():
        if variable is not waiting_lane:
            current = variable.get(_UNSET)
            if current is not value:
                token = variable.set(value)
                if current is _UNSET:
                    new.append((variable, token))
    return new
