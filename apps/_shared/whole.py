"""A body that a plugin collects until it is complete."""

import asyncio

from starlette.types import Message

from asgi_bridge import PluginError

__all__ = ["MAX_BODY", "YIELD_EVERY", "WholeBody"]

MAX_BODY = 2**24 - 1
"""Maximum length of a body in APISIX's protocol, in bytes."""
YIELD_EVERY = 64
"""Number of messages after which other tasks get their turn. A stream without end would block the event loop."""


class WholeBody:
    """Collects the messages of one body."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._messages = 0

    async def add(self, message: Message) -> bool:
        """Add an ``http.request`` or ``http.response.body`` message.

        Returns:
            Whether the body is complete.

        Raises:
            PluginError: The body is longer than the protocol allows.
        """
        self._messages += 1
        if not self._messages % YIELD_EVERY:
            await asyncio.sleep(0)
        self._content += message.get("body", b"")
        if len(self._content) > MAX_BODY:
            raise PluginError(f"a body is longer than the {MAX_BODY} bytes that the protocol allows")
        return not message.get("more_body", False)

    @property
    def content(self) -> bytes:
        """The bytes collected so far."""
        return bytes(self._content)
