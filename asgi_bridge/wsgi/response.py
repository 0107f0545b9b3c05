"""The response of a WSGI application: gathered in its thread, handed to the event loop in large parts.

A gateway's runner hands a response body over whole, and one thread switch for each chunk is what makes adapters slow.
So the body is gathered. A long one is sent on in parts of ``FLUSH`` bytes.
"""

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context
from types import TracebackType
from typing import Any, TypeAlias

from ..errors import PluginError
from .crossing import Crossing
from .headers import Headers, parse_headers, parse_status, text_headers
from .threads import Wait

__all__ = ["FLUSH", "ExcInfo", "Part", "Response", "StartResponse"]

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]

Part: TypeAlias = tuple[bytes, Wait | None]
"""Bytes of the body for the event loop to send, and what the thread waits for meanwhile; None: it is the last part."""

FLUSH = 1 << 20
"""Bytes of a response body that are gathered before they are sent on."""

EMPTY_TYPE = "inode/x-empty"
"""The content type that WSGI code sees in the empty 200 of the request phase, since it expects every response to have
one. It is neither text/ nor application/, which compressing middleware looks for."""
_EMPTY_TYPE_HEADER = b"content-type", EMPTY_TYPE.encode("ascii")


class Response:
    """The response of one run.

    Args:
        crossing: The way to the event loop.

    Attributes:
        status: As passed to ``start_response``; 0: it was not called yet.
        headers: Likewise.
        noted_error: The first error that the application got from us. It may have caught it.
        complete: The last part is on its way to the event loop.
        context: The context variables as the application left them, once the response is complete.
    """

    def __init__(self, crossing: Crossing) -> None:
        self.status = 0
        self.headers: Headers = []
        self.noted_error: PluginError | None = None
        self.complete = False
        self.context: Context | None = None
        self._crossing = crossing
        self._inner_headers: list[tuple[str, str]] = []
        self._has_empty_type = False
        self._headers_sent = False
        self._parts: list[bytes] = []
        self._size = 0
        self._next: asyncio.Future[Part | None] = asyncio.get_running_loop().create_future()

    # in the thread

    def start_response(self, status: str, headers: Iterable[Any], exc_info: ExcInfo | None = None) -> Any:
        """PEP 3333's ``start_response``. The first byte of the body, or a call of ``write``, sends the headers."""
        with self.noting_errors():
            return self._start_response(status, headers, exc_info)

    def _start_response(self, status: str, headers: Iterable[Any], exc_info: ExcInfo | None) -> Any:
        if exc_info:
            try:
                if self._headers_sent and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # else this frame and the traceback hold each other
        elif self.status:
            raise PluginError("start_response was called twice without exc_info (PEP 3333)")
        checked = parse_status(status), parse_headers(headers, self._inner_headers)
        self.status, self.headers = checked
        return self._write

    def _write(self, data: bytes) -> None:
        self._headers_sent = True
        with self.noting_errors():
            self.add(data)

    @contextmanager
    def noting_errors(self) -> Iterator[None]:
        """Note an error that goes to the application, so that the log has it even if the application catches it."""
        try:
            yield
        except PluginError as exc:
            self.noted_error = self.noted_error or exc
            raise

    def inner_headers(self, status: int, headers: Headers, body: bytes) -> list[tuple[str, str]]:
        """Return the headers of an inner application's response, as the WSGI application gets them.

        Args:
            status, headers, body: The inner application's response.
        """
        texts = text_headers(headers)
        if not texts and not body and status == 200:
            self._has_empty_type = True
            texts.append(("Content-Type", EMPTY_TYPE))
        self._inner_headers = texts.copy()
        return texts

    def add(self, data: bytes) -> None:
        """Add bytes to the body. Wait while the event loop sends what has been gathered, if that is much."""
        self._crossing.check_open()
        if not isinstance(data, bytes):
            raise PluginError(f"a part of the response body must be bytes, not {type(data).__name__} (PEP 3333)")
        if data:
            if not self.status:
                raise PluginError("there is a response body before start_response was called (PEP 3333)")
            self._headers_sent = True
            self._parts.append(data)
            self._size += len(data)
            if self._size >= FLUSH:
                self._crossing.wait_for(self._take_and_wait, self._gathered())

    def finish(self) -> None:
        """Hand over the last part: the application's iterable has ended."""
        if not self.status:
            raise PluginError("the WSGI application ended without calling start_response (PEP 3333)")
        body = self._gathered()
        self.complete = True
        self.context = contextvars.copy_context()
        self._crossing.post(self.take, (body, None))

    def _gathered(self) -> bytes:
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self._has_empty_type and not body:
            self.headers = [header for header in self.headers if header != _EMPTY_TYPE_HEADER]
        return body

    # in the event loop

    def take(self, part: Part | None) -> None:
        """Take a part from the thread; None: the run has failed, and there is none."""
        if not self._next.done():
            self._next.set_result(part)

    def _take_and_wait(self, wait: Wait, body: bytes) -> None:
        if self._crossing.admit(wait):
            self.take((body, wait))

    async def next_part(self) -> Part | None:
        """Wait for the next part; None: the run has failed."""
        part = await self._next
        self._next = asyncio.get_running_loop().create_future()
        return part
