"""Who looks at an exchange, and at what crosses the wire to runner and upstream. Without a watch nothing is kept."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from .upstream import Request, Response, UpstreamError

if TYPE_CHECKING:
    from ..wire.messages import Message
    from .exchange import Exchange

__all__ = ["Watch", "watched", "watching"]


class Watch(Protocol):
    """Looks at one exchange. Its methods change nothing but the chunks of a response, which they may wrap."""

    def began(self, exchange: "Exchange") -> None:
        """The gateway has read the head of the request."""

    def frame(self, message: "Message", size: int, *, sent: bool) -> None:
        """A frame has crossed the connection to the runner.

        Args:
            message: What it says.
            size: Of the frame, in bytes.
            sent: True: the gateway has sent it; False: the runner has.
        """

    def requested(self, request: Request) -> None:
        """A request goes upstream."""

    def responded(self, response: Response) -> None:
        """The head of the upstream's response has come."""

    def failed(self, reason: str) -> None:
        """The upstream gives no response, or breaks it off."""


watching: ContextVar[Watch | None] = ContextVar("asgi_bridge.gateway.watch", default=None)
"""The watch of the exchange that the running code works for."""

Send = Callable[[Request], contextlib.AbstractAsyncContextManager[Response]]


def watched(send: Send) -> Send:
    """Return a function that sends requests upstream as `send` does, and tells the watch."""

    @contextlib.asynccontextmanager
    async def sending(request: Request) -> AsyncIterator[Response]:
        watch = watching.get()
        if watch is None:
            async with send(request) as response:
                yield response
            return
        watch.requested(request)
        try:
            async with send(request) as response:
                watch.responded(response)
                yield response
        except UpstreamError as exc:
            watch.failed(str(exc) or type(exc).__name__)
            raise

    return sending
