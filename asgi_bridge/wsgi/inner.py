"""The ASGI application that WSGI code wraps, called for a thread that waits for it."""

import asyncio
import contextvars
from collections.abc import Callable
from contextvars import Context
from typing import Any

from asgiref.sync import ThreadSensitiveContext
from starlette.types import ASGIApp, Message, Receive, Scope

from ..errors import PluginError
from ..wire import MAX_PAYLOAD
from .threads import Lane, Wait, waiting_lane

__all__ = ["YIELD_EVERY", "GivenBody", "Inner", "read_all"]

READ = 1 << 16
YIELD_EVERY = 64
"""Messages after which the event loop gets its turn: nothing here waits, so an endless response would block it."""


class Inner:
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
        self._parts = bytearray()
        self._messages = 0
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
        # Entered, and left with the task's own context only: what it leaves behind would find an exited one unusable.
        await ThreadSensitiveContext(executor=self._lane).__aenter__()  # type: ignore[no-untyped-call]
        await self._app(self._scope, receive, self._send)

    async def _send(self, message: Message) -> None:
        self._messages += 1
        if not self._messages % YIELD_EVERY:
            await asyncio.sleep(0)
        kind = message["type"]
        if kind == "http.response.start" and not self.status and not self.complete:
            self.status = int(message["status"])
            self.headers = list(message.get("headers") or ())
        elif kind == "http.response.body" and self.status and not self.complete:
            self._parts += message.get("body") or b""
            if len(self._parts) > MAX_PAYLOAD:
                raise PluginError(f"the response body is longer than the protocol's {MAX_PAYLOAD} bytes")
            if not message.get("more_body", False):
                self.complete = True
                self.body = bytes(self._parts)
                self._parts = bytearray()
                assert self.over is not None
                self.over.set_result(None)
                # not at once: it most often ends in this step, and then its context variables are final
                asyncio.get_running_loop().call_soon(self._finish)
        elif kind != "http.response.debug":
            raise PluginError(f"{kind} does not belong here")

    def _finish(self, ended: "asyncio.Task[None] | None" = None) -> None:
        """The response is complete, or will never be."""
        task = self._task
        if task is None:  # seen already
            return
        assert self._wait is not None and self.over is not None
        error: BaseException | None = None
        if task.done():
            self._task = None  # it holds its exception, whose frames hold this
            error = PluginError("the inner application was cancelled") if task.cancelled() else task.exception()
        if self.complete:
            self.fault = error
            if task.done() and not self._wait.done:
                self.context = self._context
            self._wait.finish()
        else:
            self.over.cancel()
            self._wait.finish(error=error or PluginError("the inner application ended without a complete response"))


class GivenBody:
    """A receive that gives another body, read in the thread that waits for the inner application."""

    def __init__(self, inner: Inner, lane: Lane, read: Callable[[], bytes]) -> None:
        self._inner = inner
        self._lane = lane
        self._read: Callable[[], bytes] | None = read

    async def __call__(self) -> Message:
        read, self._read = self._read, None  # it may hold the body
        if read is not None:
            context = contextvars.copy_context()
            body = await asyncio.get_running_loop().run_in_executor(self._lane, context.run, read)
            return {"type": "http.request", "body": body, "more_body": False}
        assert self._inner.over is not None
        await asyncio.shield(self._inner.over)
        return {"type": "http.disconnect"}


def read_all(stream: Any) -> bytes:
    # Up to its end, whatever CONTENT_LENGTH says: that is not always changed together with it. With a size, since PEP
    # 3333 has no read() without one.
    body = bytearray()
    while part := stream.read(READ):
        body += part
        if len(body) > MAX_PAYLOAD:
            raise PluginError(f"the request body was changed to more than the protocol's {MAX_PAYLOAD} bytes")
    return bytes(body)
