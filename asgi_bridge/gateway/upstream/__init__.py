"""The way to the upstream: one interface, over the network or to an ASGI application in this process."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from ..nginx.headers import Header
from ..routes.route import Node, Upstream

__all__ = ["BrokenAnswer", "CannotConnect", "Request", "Response", "Sender", "UpstreamError", "UpstreamTimeout"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the upstream, with everything as it is to be written.

    Attributes:
        method: any text.
        target: any bytes, even such as an HTTP library refuses to send.
        headers: in their order, with their spelling.
        body: the whole body; `headers` say how long it is.
        upstream: the upstream that the request goes to.
        node: that of its servers that the request goes to.
        fetch: ext-plugin-post-resp sends the request itself. It takes a connection of its own, shows no certificate,
            and checks the server's.
    """

    method: str
    target: bytes
    headers: list[Header]
    body: bytes
    upstream: Upstream
    node: Node
    fetch: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """An upstream's response, whose body is still to be read.

    Attributes:
        status: what the upstream answered.
        headers: as they came.
        chunks: the parts of the body. They can be read once, and raise `UpstreamError` where the body breaks off.
    """

    status: int
    headers: list[Header]
    chunks: AsyncIterator[bytes]


class UpstreamError(Exception):
    """The upstream gives no answer, or breaks it off.

    Attributes:
        tries: how often the request was sent.
    """

    tries = 1


class UpstreamTimeout(UpstreamError):
    """The upstream took too long."""


class CannotConnect(UpstreamError):
    """There is no connection to the upstream."""


class BrokenAnswer(UpstreamError):
    """The upstream closed the connection too early, or what it sent is no HTTP/1.1."""


class Sender(Protocol):
    """What takes requests to their upstreams."""

    def start(self) -> None:
        """Keep idle connections from now on."""

    async def stop(self) -> None:
        """Close idle connections, and keep no more."""

    def send(self, request: Request) -> AbstractAsyncContextManager[Response]:
        """Send a request. The response can be read inside of the context.

        Raises:
            UpstreamError: there is no answer.
        """
        ...
