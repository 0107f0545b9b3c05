"""How a request call is parked: it has been answered, and waits for the response call."""

import asyncio

from .upstream_response import Response

__all__ = ["Parking"]


class Parking:
    """What a call with a plugin of ``phase="both"`` needs beside what all calls need.

    Args:
        uri: ``$uri``: the path as APISIX has it.

    Attributes:
        failed_plugin: Name of the plugin that failed after the response call came; None: none has.
    """

    __slots__ = ("_delivered", "_resumed", "failed_plugin", "uri")

    def __init__(self, uri: bytes | None) -> None:
        self.uri = uri
        self.failed_plugin: str | None = None
        self._resumed: asyncio.Future[Response] | None = None
        self._delivered: asyncio.Future[Response] | None = None

    def begin(self) -> "asyncio.Future[Response]":
        """Return the future that the upstream's response will come in."""
        loop = asyncio.get_running_loop()
        self._delivered = loop.create_future()
        self._resumed = loop.create_future()
        return self._resumed

    def undo(self) -> None:
        """Undo :meth:`begin`: the call could not be parked."""
        self._resumed = self._delivered = None

    @property
    def begun(self) -> bool:
        """Whether the call was parked."""
        return self._resumed is not None

    @property
    def waits(self) -> bool:
        """Whether the response call has not come yet."""
        return self._resumed is not None and not self._resumed.done()

    @property
    def owes(self) -> bool:
        """Whether the response call gets a response, or an exception, from this call."""
        return self._delivered is not None and not self._delivered.done()

    @property
    def abandoned(self) -> bool:
        """Whether no response call will come any more."""
        return self._resumed is not None and self._resumed.cancelled()

    async def until_resumed(self) -> None:
        """Wait until the response call has come, if it has not."""
        if self._resumed is not None and not self._resumed.done():
            await asyncio.wait([self._resumed])

    async def resume(self, response: Response) -> Response:
        """Give the chain the upstream's `response`; return the chain's response.

        Raises:
            PluginError: The request half has ended.
            Exception: What the chain raised instead of a response.
        """
        delivered = self._delivered
        assert self._resumed is not None and delivered is not None
        self._resumed.set_result(response)
        try:
            return await delivered
        finally:
            # an exception holds its frames, and they the call
            self._delivered = None

    def deliver(self, response: Response) -> None:
        """Give the response call the chain's response."""
        if self._delivered is not None and not self._delivered.done():
            self._delivered.set_result(response)

    def fail(self, exc: Exception) -> None:
        """Give the response call `exc` instead of a response."""
        assert self._delivered is not None
        self._delivered.set_exception(exc)
        self._delivered.exception()  # seen: no response call may come

    def abandon(self) -> None:
        """Give up waiting for the response call."""
        if self._resumed is not None:
            self._resumed.cancel()
        self._delivered = None
