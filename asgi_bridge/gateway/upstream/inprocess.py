"""An ASGI application as the upstream, in process: what it is called with is what the wire would have carried."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import httpx2
from asgiref.typing import ASGI3Application

from asgi_bridge.gateway.exchange import TARGET

if TYPE_CHECKING:
    from asgi_bridge.gateway.nginx.headers import Header

__all__ = ["ASGIUpstream"]


class _Body(httpx2.AsyncByteStream):
    def __init__(self, call: "_Call") -> None:
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._call.next_message()
            if message is None:
                return
            body: bytes = message.get("body", b"")
            if body:
                yield bytes(body)
            if not message.get("more_body", False):
                self._call.complete = True
                # what the application does after its answer is part of the call: its exceptions are the caller's
                await self._call.task
                return

    async def aclose(self) -> None:
        await self._call.close()


class _Call:
    """One call of the application, in a task of its own. Its answer is handed over message by message."""

    def __init__(self, app: ASGI3Application, scope: Any, body: bytes) -> None:
        self._messages: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)
        self._body: bytes | None = body
        self._disconnected = asyncio.Event()
        self.complete = False
        self.task = asyncio.ensure_future(self._run(app, scope))

    async def _run(self, app: ASGI3Application, scope: Any) -> None:
        await app(scope, self._receive, self._send)

    async def _receive(self) -> Any:
        # a loop's turn, so that a poll for a disconnect does not swallow the body
        await asyncio.sleep(0)
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] in ("http.response.start", "http.response.body") and not self._disconnected.is_set():
            await self._messages.put(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._disconnected.set()

    async def next_message(self) -> Any:
        """Wait for a message; None: the application has returned without one."""
        if self._messages.empty() and not self.task.done():
            getter = asyncio.ensure_future(self._messages.get())
            try:
                await asyncio.wait({getter, self.task}, return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    return getter.result()
            finally:
                getter.cancel()
        if not self._messages.empty():
            return self._messages.get_nowait()
        # raises what the application has raised
        self.task.result()
        return None

    async def close(self) -> None:
        self._disconnected.set()
        if not self.task.done():
            self.task.cancel()
            await asyncio.wait({self.task})
        if not self.task.cancelled() and self.task.exception() is not None and self.complete:
            self.task.result()


class ASGIUpstream(httpx2.AsyncBaseTransport):
    """A transport that calls an application.

    Its exceptions propagate to the caller. The scope has the raw path, the query and the headers exactly as they would
    have gone over the wire, and ``http_version`` 1.1.

    Args:
        app: the upstream.
    """

    def __init__(self, app: ASGI3Application) -> None:
        self.app = app

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Call the application, and give its response once it has begun."""
        target: bytes = request.extensions.get("target", request.url.raw_path)
        raw_path, _, query = target.partition(b"?")
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        body = b"".join([chunk async for chunk in request.stream])
        declared = dict(request.headers.raw).get(b"content-length", b"")
        if declared.isdigit():
            # a server would not read on
            body = body[: int(declared)]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.url.scheme,
            "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            # as a server reads them: without blanks around the values
            "headers": [(name.lower(), value.strip(b" \t")) for name, value in request.headers.raw],
            "client": ("127.0.0.1", 0),
            "server": (request.url.host, request.url.port or (443 if request.url.scheme == "https" else 80)),
            "state": {},
            "extensions": {TARGET: target},
        }
        call = _Call(self.app, scope, body)
        try:
            start = await call.next_message()
            if start is None:
                raise httpx2.RemoteProtocolError("the upstream application returned without an answer")
        except BaseException:
            await call.close()
            raise
        headers: list[Header] = [(bytes(name), bytes(value).strip(b" \t")) for name, value in start.get("headers", [])]
        return httpx2.Response(start["status"], headers=headers, stream=_Body(call))
