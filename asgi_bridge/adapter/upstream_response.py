"""A response on its way to the client: the upstream's, or what a chain made of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import PluginError
from ..wire import MAX_PAYLOAD
from .scope import Headers

__all__ = ["Response", "UpstreamBody"]


class UpstreamBody:
    """The upstream's body. The gateway is asked for it when a plugin wants it, once: APISIX gives nil to a second ask.

    Args:
        ask: Asks the gateway for the body.
        length: What the upstream's content-length says; None: it does not.
        bodyless: There is none, and it must not be asked for (HEAD, 204, 304).

    Attributes:
        content: The body, once it has been fetched.
    """

    __slots__ = ("_ask", "_asked", "bodyless", "content", "length")

    def __init__(
        self, ask: Callable[[], "asyncio.Future[list[bytes | None]]"], length: int | None, bodyless: bool
    ) -> None:
        self._ask = ask
        self._asked: asyncio.Future[list[bytes | None]] | None = None
        self.length = length
        self.bodyless = bodyless
        self.content: bytes | None = None

    @property
    def too_long(self) -> bool:
        """Whether its content-length says that it does not fit into a frame."""
        return not self.bodyless and self.length is not None and self.length > MAX_PAYLOAD

    @property
    def awaited(self) -> bool:
        """Whether the gateway was asked for it, and has not answered yet."""
        return self._asked is not None and not self._asked.done()

    def ask(self) -> "asyncio.Future[list[bytes | None]]":
        """Ask the gateway for the body, unless that was done before. Returns the future of its answer."""
        if self._asked is None:
            self._asked = self._ask()
        return self._asked

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            PluginError: It is too long, or the upstream broke off.
        """
        if self.bodyless:
            return b""
        if self.too_long:
            raise PluginError(
                f"the upstream's body has {self.length} bytes, and only {MAX_PAYLOAD} can be handed over; mount the "
                "plugin with response_body=False if it does not change the body"
            )
        (body,) = await asyncio.shield(self.ask())
        if body is None:
            raise PluginError("the upstream's body could not be read")
        self.content = body
        return body


@dataclass(frozen=True, slots=True)
class Response:
    """A response: status, headers, and a body of bytes, or the upstream's, which may not be fetched yet."""

    status: int
    headers: Headers
    body: bytes | UpstreamBody

    async def read(self) -> bytes:
        """Return the body as bytes. Raises what :meth:`UpstreamBody.read` raises."""
        return self.body if isinstance(self.body, bytes) else await self.body.read()
