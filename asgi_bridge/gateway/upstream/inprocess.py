"""An ASGI application as the upstream, in this process. It is called with what the wire would have carried."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Message, Scope

from ..nginx.request import TARGET
from . import BrokenAnswer, Request, Response

__all__ = ["InProcessUpstream"]


class _Run:
    """A run of the application in a task of its own, which gives its answer message by message."""

    def __init__(self, app: ASGIApp, scope: Scope, body: bytes) -> None:
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._body: bytes | None = body
        self._over = asyncio.Event()
        self._task = asyncio.ensure_future(self._run(app, scope))
        self._task.add_done_callback(lambda task: self._messages.put_nowait(None))

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        await app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        # yield once, so that an application that polls for a disconnect with a timeout of 0 does not lose the body
        await asyncio.sleep(0)
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "http.response.body") and not self._over.is_set():
            self._messages.put_nowait(message)
            # wait until somebody has taken it
            await self._messages.join()
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._over.set()

    async def next_message(self) -> Message | None:
        """Wait for a message; None: the application has returned. Raises what the application raises."""
        message = await self._messages.get()
        self._messages.task_done()
        if message is None:
            self._task.result()
        return message

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the parts of the body, then wait for the application to return. Raises what the application raises."""
        while (message := await self.next_message()) is not None:
            if message.get("body", b""):
                yield bytes(message["body"])
            if not message.get("more_body", False):
                await self._task

    async def end(self) -> None:
        """Cancel the application, if it still runs: nobody wants the rest of its answer."""
        self._over.set()
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            # the exception has been raised already, if anybody has read so far
            self._task.exception()


class InProcessUpstream:
    """Calls one application with all requests. The application's exceptions propagate.

    The scope has the raw path, the query and the headers exactly as they would have gone over the wire, and
    ``http_version`` 1.1.

    Args:
        app: The upstream.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    @contextlib.asynccontextmanager
    async def send(self, request: Request) -> AsyncIterator[Response]:
        """Call the application, and give its response once it has begun.

        Raises:
            BrokenAnswer: The application returned without an answer.
        """
        run = _Run(self._app, _scope(request), _read(request))
        try:
            start = await run.next_message()
            if start is None:
                raise BrokenAnswer("the upstream application returned without an answer")
            headers = [(bytes(name), bytes(value).strip(b" \t")) for name, value in start.get("headers", [])]
            yield Response(start["status"], headers, run.chunks())
        finally:
            await run.end()


def _scope(request: Request) -> dict[str, Any]:
    raw_path, _, query = request.target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.upstream.scheme,
        "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        # a server removes blanks around values
        "headers": [(name.lower(), value.strip(b" \t")) for name, value in request.headers],
        "client": ("127.0.0.1", 0),
        "server": (request.node.host, request.node.port),
        "state": {},
        "extensions": {TARGET: request.target},
    }


def _read(request: Request) -> bytes:
    """Give the body as a server reads it: as many bytes as Content-Length says."""
    declared = dict(request.headers).get(b"content-length", b"")
    return request.body[: int(declared)] if declared.isdigit() else request.body
