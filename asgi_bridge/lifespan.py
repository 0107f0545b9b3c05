"""The application's half of an ASGI lifespan: what our own applications answer to the server that runs them.

The server's half, which runs the lifespans of plugins with time limits, is :mod:`asgi_bridge.plugins.lifespan`.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

__all__ = ["answer_lifespan"]


async def answer_lifespan(
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[Any], Awaitable[None]],
    running: AbstractAsyncContextManager[object],
    failures: tuple[type[Exception], ...] = (),
) -> None:
    """Start up, wait for the server's shutdown message, and shut down.

    Args:
        receive, send: From the server's lifespan call.
        running: Entered at start-up, and exited at shutdown.
        failures: Errors of the start-up that the server gets as ``lifespan.startup.failed`` too. All errors are raised.
    """
    async with AsyncExitStack() as stack:
        await receive()
        try:
            await stack.enter_async_context(running)
        except failures as exc:
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
