"""A body that a plugin holds back until it is whole."""

import asyncio

from starlette.types import Message

from asgi_bridge import PluginError

__all__ = ["MAX_BODY", "YIELD_EVERY", "WholeBody"]

MAX_BODY = 2**24 - 1
"""Bytes of the longest body that the protocol can hand over."""
YIELD_EVERY = 64
"""Number of messages after which the event loop gets its turn. A stream without end would block it otherwise."""


class WholeBody:
    """Collects the messages of one body."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._messages = 0

    async def add(self, message: Message) -> bool:
        """Adds one ``http.request`` or ``http.response.body``; returns whether the body is complete with it.

        Raises:
            PluginError: the body is longer than the protocol can hand over.
        """
        self._messages += 1
        if not self._messages % YIELD_EVERY:
            await asyncio.sleep(0)
        self._content += message.get("body", b"")
        if len(self._content) > MAX_BODY:
            raise PluginError(f"a body is longer than the protocol's {MAX_BODY} bytes")
        return not message.get("more_body", False)

    @property
    def content(self) -> bytes:
        """The bytes so far."""
        return bytes(self._content)
