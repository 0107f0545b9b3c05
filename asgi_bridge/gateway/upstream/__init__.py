"""The way to the upstream: ``async with sender.send(request) as response``.

`network.NetworkUpstream` goes over the network, `inprocess.InProcessUpstream` to an ASGI application in this process.
"""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ..nginx.headers import Header
from ..routes.route import Node, Upstream

__all__ = ["BrokenAnswer", "CannotConnect", "Request", "Response", "UpstreamError", "UpstreamTimeout"]

logger = logging.getLogger("asgi_bridge.gateway")


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the upstream, exactly as it is written.

    Attributes:
        method: Any text.
        target: Any bytes, even those that an HTTP library refuses to send.
        headers: In their order, with their spelling.
        body: The whole body; `headers` say how long it is.
        upstream: The upstream that the request goes to.
        node: The server of the upstream that the request goes to.
        fetch: ext-plugin-post-resp sends the request. It uses a new connection, shows no certificate, and checks the
            server's.
    """

    method: str
    target: bytes
    headers: list[Header]
    body: bytes
    upstream: Upstream
    node: Node
    fetch: bool = False


class UpstreamError(Exception):
    """The upstream gives no answer, or a part of one.

    Attributes:
        tries: How often the request was sent.
    """

    tries = 1


class UpstreamTimeout(UpstreamError):
    """The upstream took too long."""


class CannotConnect(UpstreamError):
    """There is no connection to the upstream."""


class BrokenAnswer(UpstreamError):
    """The upstream closed the connection too early, or sent something that is not HTTP/1.1."""


class Response:
    """An upstream's response, whose body is still to be read.

    Args:
        status: What the upstream answered.
        headers: As they came.
        chunks: The parts of the body. They can be read once, and raise `UpstreamError` where the body breaks off.

    Attributes:
        asked: The runner has asked for the body.
        body: What the runner got; None: the body cannot be read.
    """

    def __init__(self, status: int, headers: list[Header], chunks: AsyncIterator[bytes]) -> None:
        self.status = status
        self.headers = headers
        self.chunks = chunks
        self.asked = False
        self.body: bytes | None = None

    async def ask(self) -> bytes | None:
        """ExtraInfo RespBody: give the whole body; None: it cannot be read.

        Trap: the runner gets nothing when it asks a second time, because the reader in Lua is at its end.
        """
        if self.asked:
            return None
        self.asked = True
        try:
            self.body = b"".join([chunk async for chunk in self.chunks])
        except UpstreamError as exc:
            logger.error("read response failed: %s", exc)
        return self.body
