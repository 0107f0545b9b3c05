"""``on_error="open"``: a plugin that fails is passed over.

A fault counts while the plugin has neither passed the request on nor begun to answer. Then the next layer
gets the request as this plugin got it. The plugin's own timeout counts too. What ``receive`` raises does not: it is the
fault of an outer plugin, or of the gateway.
"""

import asyncio
import contextvars
import logging
from time import monotonic
from typing import TYPE_CHECKING

from starlette.types import Message, Receive, Scope, Send

from ..errors import PluginError
from .extension import Apisix, current
from .reasons import reason_of
from .replay import Replay

if TYPE_CHECKING:
    from .call import ChainCall
    from .layer import Layer

__all__ = ["OpenApisix", "enter_open"]

logger = logging.getLogger("asgi_bridge.plugins")


class OpenApisix(Apisix):
    """The extension of a plugin mounted with ``on_error="open"``. It knows whether a fault is the plugin's own."""

    __slots__ = ("limit", "over", "passed_on", "replay")
    _fails_open = True
    limit: asyncio.Timeout
    over: bool
    passed_on: bool
    replay: Replay

    @property
    def _passed_over(self) -> bool:
        return self.over

    def _pass_on(self) -> None:
        """Note that the plugin passes the request on: from now on a fault may be another plugin's."""
        if self.passed_on:
            return
        deadline = self.limit.when()
        try:
            self.limit.reschedule(None)
        except RuntimeError:  # passed over already, or about to be
            raise PluginError("the request cannot be passed on any more: the plugin's time is over") from None
        if deadline is not None:
            self._call.limit(deadline, self._layer.name)
        self.passed_on = True
        self.replay.forget()


async def enter_open(
    layer: "Layer", extension: OpenApisix, call: "ChainCall", scope: Scope, receive: Receive, send: Send
) -> None:
    """Run the plugin of `layer`. After a fault of its own, run the next layer inwards with the same request.

    Args:
        layer: One that is mounted with ``on_error="open"``.
        extension: A new one, of that layer.
        call: The call that goes through it.
        scope, receive, send: As the layer got them.
    """
    replay = Replay(receive)
    answering = passed_over = False

    async def sending(message: Message) -> None:
        nonlocal answering
        if passed_over:  # by a thread or task that it left behind
            raise PluginError("the plugin was passed over: it cannot answer any more")
        answering = True
        await send(message)

    inner = call.enter(layer, extension, scope, replay, sending)
    extension.passed_on = extension.over = False
    extension.replay = replay
    limit = extension.limit = asyncio.timeout(None)
    deadline = monotonic() + layer.options.timeout
    token = current.set(extension)
    try:
        async with limit:
            # In a context of its own: a cancelled timer stays in the loop until its time has come, and keeps alive
            # what its context holds, here the whole call.
            contextvars.Context().run(limit.reschedule, deadline)
            await layer.app(inner, replay, sending)
    except BaseException as exc:
        if not isinstance(exc, Exception) or extension.passed_on or answering or replay.failed:
            call.fails(exc, layer.name)
            raise
        passed_over = extension.over = True
        reason = f"no answer within {layer.options.timeout:g} s" if limit.expired() else reason_of(exc)
        logger.error(
            "plugin %s: passed over, since it is mounted with on_error='open': %s", layer.name, reason,
            extra={"call": call.about(layer.name)},
        )  # fmt: skip
    else:
        task = asyncio.current_task()
        if extension.passed_on or answering or replay.failed or (task is not None and task.cancelling()):
            return
        passed_over = extension.over = True
        logger.error(
            "plugin %s: passed over, since it is mounted with on_error='open': no answer", layer.name,
            extra={"call": call.about(layer.name)},
        )  # fmt: skip
    finally:
        current.reset(token)
    again = replay.again()
    running = layer.go_on(call, scope, receive if again is replay else again, send)
    if running is not None:
        await running
