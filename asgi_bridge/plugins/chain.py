"""The onion: the plugins of one configuration, the first listed outermost, each an ASGI layer of its own."""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from .layer import Layer
from .state import States

if TYPE_CHECKING:
    from .call import ChainCall

__all__ = ["Chain"]

logger = logging.getLogger("asgi_bridge.plugins")

MAX_WARNINGS = 1000
"""Maximum number of warnings of one chain. Some name a header, and clients make up names."""


class Chain:
    """All layers of one configuration, built once and shared by its calls.

    Args:
        layers: Outermost first.
        route_id: The APISIX route that the configuration belongs to; None: its key does not name one.

    Attributes:
        names: Of its plugins, for logs; of the shadows only where there are no others.
        exact: True: one of its plugins is mounted with ``exact``.
        cures: True: all of its plugins are mounted with ``cures``.
        both: True: one of its plugins is mounted with ``phase="both"``, so the whole chain runs in both phases.
        request: True: its plugins may run in the request phase.
        request_headers: Names of the request headers that its plugins see in the response phase.
        only_state: As of :class:`.States`. A call finds it here with fewer steps.
        begin: :meth:`~.Layer.begin` of the outermost layer.
        calls: Number of calls that run in it.
        waits: Number of its next calls that get a task of their own at once, since one has left something on its task.
    """

    __slots__ = (
        "_idle", "_warned", "begin", "both", "calls", "cures", "exact", "layers", "names",
        "only_state", "request", "request_headers", "route_id", "states", "waits", "__weakref__",
    )  # fmt: skip

    def __init__(self, layers: list[Layer], route_id: str | None) -> None:
        self.layers = layers
        self.route_id = route_id
        acting = self.acting
        self.names = ", ".join(layer.name for layer in acting or layers)
        self.exact = any(layer.options.exact for layer in acting)
        self.cures = all(layer.options.cures for layer in acting)
        self.both = any(layer.options.phase == "both" for layer in acting)
        self.request = all(layer.options.phase != "response" for layer in acting)
        self.request_headers = tuple(dict.fromkeys(name for layer in acting for name in layer.options.request_headers))
        self.states = States((layer, layer.state) for layer in acting)
        self.only_state = self.states.only
        self.begin = layers[0].begin if layers else _begin_empty
        self.calls = 0
        self.waits = 0
        self._idle: asyncio.Event | None = None
        self._warned: set[str] | None = None

    @property
    def acting(self) -> list[Layer]:
        """The layers that act on requests: all but the shadows."""
        return [layer for layer in self.layers if not layer.options.shadow]

    @property
    def resumes(self) -> bool:
        """Whether all of its plugins run in both phases, so that a response call only has to find what is parked."""
        return bool(self.layers) and all(layer.options.phase == "both" for layer in self.layers)

    @property
    def response(self) -> bool:
        """Whether its plugins may run in the response phase."""
        return all(layer.options.phase != "request" for layer in self.acting)

    def enter(self, call: "ChainCall", scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Do what :meth:`~.Layer.enter` of the outermost layer does."""
        enter = self.layers[0].enter if self.layers else _enter_empty
        return enter(call, scope, receive, send)

    def call_ended(self) -> None:
        """Note that one of its calls has ended."""
        self.calls -= 1
        if self.calls == 0 and self._idle is not None:
            self._idle.set()

    async def retire(self, seconds: float) -> None:
        """Close the chain once its last call has ended.

        Args:
            seconds: As of :meth:`close`.
        """
        while self.calls:
            self._idle = asyncio.Event()
            await self._idle.wait()
        await self.close(seconds)

    def warn_once(self, about: str, message: str, *args: object) -> None:
        """Log a warning that names these plugins.

        Args:
            about: What it is about. A second warning about the same is not logged.
            message: In logging's format.
            args: For `message`.
        """
        warned = self._warned
        if warned is None:
            warned = self._warned = set()
        if about not in warned and len(warned) < MAX_WARNINGS:
            warned.add(about)
            logger.warning("plugin %s: " + message, self.names, *args)

    def begin_close(self) -> None:
        """Tell its lifespans to shut down: the process ends, and no other chain needs them. :meth:`close` waits."""
        for layer in self.layers:
            if layer.lifespan is not None and layer.instance is not None and layer.instance.building is None:
                layer.lifespan.begin_stop()

    async def close(self, seconds: float) -> None:
        """Release the instances of its layers. An instance that no other chain holds shuts its lifespan down.

        Args:
            seconds: That all these lifespans get together. They shut down at the same time.
        """
        instances = [layer.instance for layer in self.layers if layer.instance is not None]
        for layer in self.layers:
            layer.instance = None
        await asyncio.gather(*[instance.release(seconds) for instance in instances])


def _begin_empty(call: "ChainCall", scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
    return call.innermost(scope, receive, send)


async def _enter_empty(call: "ChainCall", scope: Scope, receive: Receive, send: Send) -> None:
    running = call.innermost(scope, receive, send)
    if running is not None:
        await running
