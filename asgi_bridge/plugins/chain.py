"""The onion: the plugins of one configuration, the first listed outermost, each an ASGI layer of its own."""

import asyncio
import logging

from .layer import INNERMOST, Layer
from .state import States

__all__ = ["Chain"]

logger = logging.getLogger("asgi_bridge.plugins")

MAX_WARNINGS = 1000
"""Warnings of one chain. Some name a header, and anybody can make up names."""


class Chain:
    """All layers of one configuration, built once and shared by its calls.

    Args:
        layers: outermost first.
        route_id: the APISIX route that the configuration belongs to, where its key tells.

    Attributes:
        names: of its plugins, for logs.
        exact, cures, request_headers: what the plugins' options come to.
        both: a plugin of it sees both halves of a request, so all of it does.
        request, response: whether its plugins may run in that phase.
        begin, enter: those of the outermost layer.
        calls: calls that are inside.
    """

    def __init__(self, layers: list[Layer], route_id: str | None) -> None:
        self.layers = layers
        self.route_id = route_id
        self.names = ", ".join(layer.name for layer in layers)
        self.exact = any(layer.options.exact for layer in layers)
        self.cures = all(layer.options.cures for layer in layers)
        self.request_headers = tuple(dict.fromkeys(name for layer in layers for name in layer.options.request_headers))
        self.both = any(layer.options.phase == "both" for layer in layers)
        self.request = all(layer.options.phase != "response" for layer in layers)
        self.response = all(layer.options.phase != "request" for layer in layers)
        self.states = States((layer, layer.state) for layer in layers)
        for layer in layers:
            layer.states = self.states
        first = layers[0] if layers else INNERMOST
        self.begin, self.enter = first.begin, first.enter
        self.calls = 0
        self._idle: asyncio.Event | None = None
        self._warned: set[str] = set()

    def leave(self) -> None:
        """A call has ended."""
        self.calls -= 1
        if self.calls == 0 and self._idle is not None:
            self._idle.set()

    async def retire(self, seconds: float) -> None:
        """Closes the chain once its last call has ended."""
        while self.calls:
            self._idle = asyncio.Event()
            await self._idle.wait()
        await self.close(seconds)

    def warn_once(self, about: str, message: str, *args: object) -> None:
        """Logs a warning for these plugins, the first time only for each `about`."""
        if about not in self._warned and len(self._warned) < MAX_WARNINGS:
            self._warned.add(about)
            logger.warning("plugin %s: " + message, self.names, *args)

    async def close(self, seconds: float) -> None:
        """Lets go of the layers' instances. The lifespans of those that no other chain has are shut down, side by side:
        all of them have `seconds`."""
        instances = [layer.instance for layer in self.layers if layer.instance is not None]
        for layer in self.layers:
            layer.instance = None
        await asyncio.gather(*[instance.release(seconds) for instance in instances])
