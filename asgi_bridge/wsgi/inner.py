"""The ASGI application that WSGI code wraps, called while the WSGI code's thread waits for its response."""

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

__all__ = ["YIELD_EVERY", "Inner", "ReplacedBody", "read_all"]

READ = 1 << 16
"""Bytes of a replaced request body that are read at a time."""
YIELD_EVERY = 64
"""Messages after which other tasks get a turn. Nothing here waits, so an endless response would block them."""


class Inner:
    """One request to the inner application: the response, and the task in which the application runs.

    Args:
        app: The inner application.
        scope: What it is called with.
        lane: The thread that waits.

    Attributes:
        status, headers, body: The response, once it is complete.
        complete: True: the response is complete.
        responded: Done when the response is complete; cancelled when it never will be.
        context: The context variables as the application left them; None: it still runs, after its response.
        fault: The exception that the application raised after its response.
    """

    def __init__(self, app: ASGIApp, scope: Scope, lane: Lane) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = False
        self.responded: asyncio.Future[None] | None = None
        self.context: Context | None = None
        self.fault: BaseException | None = None
        self._app = app
        self._scope = scope
        self._lane = lane
        self._parts = bytearray()
        self._messages = 0
        self._task: asyncio.Task[None] | None = None
        self._context: Context | None = None
        self._wait: Wait | None = None

    def start(self, receive: Receive, wait: Wait, context: Context) -> "asyncio.Task[None]":
        """Start the application, in the event loop.

        Args:
            receive: What it is called with.
            wait: Finished when its response is complete, or when there will be none.
            context: The context that it runs in.

        Returns:
            The task that it runs in.
        """
        loop = asyncio.get_running_loop()
        self.responded = loop.create_future()
        self._wait = wait
        self._context = context
        self._task = loop.create_task(self._run(receive), context=context)
        self._task.add_done_callback(self._finish)
        return self._task

    async def _run(self, receive: Receive) -> None:
        waiting_lane.set(self._lane)
        # Never exited: it ends with the task's own context. Code that the application leaves behind may still use it.
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
                assert self.responded is not None
                self.responded.set_result(None)
                # not at once: the application most often ends in this step, and then its context variables are final
                asyncio.get_running_loop().call_soon(self._finish)
        elif kind != "http.response.debug":
            raise PluginError(f"{kind} does not belong here")

    def _finish(self, ended: "asyncio.Task[None] | None" = None) -> None:
        """Wake the thread: the response is complete, or never will be."""
        task = self._task
        if task is None:  # the thread is awake already
            return
        assert self._wait is not None and self.responded is not None
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
            self.responded.cancel()
            self._wait.finish(error=error or PluginError("the inner application ended without a complete response"))


class ReplacedBody:
    """A receive that returns another request body, which the waiting thread reads when it is asked for.

    Args:
        inner: The request that it belongs to.
        lane: The thread that waits.
        read: Returns the whole body.
    """

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
        assert self._inner.responded is not None
        await asyncio.shield(self._inner.responded)
        return {"type": "http.disconnect"}


def read_all(stream: Any) -> bytes:
    """Read a replaced request body up to its end.

    CONTENT_LENGTH does not count: who replaces the body does not always change it too. Each read has a size, because
    PEP 3333 has no ``read()`` without one.
    """
    body = bytearray()
    while part := stream.read(READ):
        body += part
        if len(body) > MAX_PAYLOAD:
            raise PluginError(f"the request body was changed to more than the protocol's {MAX_PAYLOAD} bytes")
    return bytes(body)
