"""The hooks of a layer: an application around the plugin's, and a layer that looks at what its plugin passes on.

They change nothing. Objects that the plugin gets and hands on are told apart by identity, so the hooks' own ``receive``
and ``send`` are noted as the plugin's.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from ..adapter import Call
from ..adapter.stage import EXPIRED
from ..hiding import SECRETS
from ..logs import traceback_text
from ..plugins import Chain, Layer
from ..plugins.reasons import reason_of
from ..plugins.replay import Replay
from ..plugins.shadow import ShadowLayer
from ..plugins.shadow_record import ShadowRun
from ..tracebacks import own_frames
from .story import Part, Story

__all__ = ["Hooks"]

Parts = dict[int, tuple[Story, Part]]


class Hooks:
    """Looks at the plugins of chains.

    Args:
        story_of: Finds the story of a call.
        changed: Called when the part of a layer in a story has changed, with the story and the layer's key.
        told_more: Called when anything else was added to a story.
    """

    def __init__(
        self,
        story_of: Callable[[Call], Story],
        changed: Callable[[Story, int], None],
        told_more: Callable[[Story], None],
    ) -> None:
        self._story_of = story_of
        self._changed = changed
        self._told_more = told_more

    def add_to(self, chain: Chain) -> None:
        """Look at the plugins of a new chain. Shadows act on no request, so only their verdicts are looked at."""
        for index, layer in enumerate(chain.acting):
            layer.app = self._application(layer, index)
            # whoever holds the layer holds its methods too, so another object in its place would come too late
            layer.__class__ = _WatchedLayer
            _HOOKS[id(layer)] = self
        for layer in chain.layers:
            if isinstance(layer, ShadowLayer):
                layer.__class__ = _WatchedShadow
                _HOOKS[id(layer)] = self

    def _application(self, layer: Layer, index: int) -> Any:
        """Return the application around that of a layer."""
        app, key = layer.app, id(layer)

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            extension = scope["extensions"]["apisix"]
            call = extension._call
            if not isinstance(call, Call):  # of a check, or of a shadow
                await app(scope, receive, send)
                return
            story = self._story_of(call)
            part = story.parts[key] = Part(layer.name, index, call.phase)
            part.got.request(layer.outside(scope) if layer.root else scope)
            self._changed(story, key)

            async def receiving() -> Message:
                message = await receive()
                part.got.receive(message)
                return message

            async def sending(message: Message) -> None:
                if part.sent.send(message):
                    part.done = monotonic()
                    self._changed(story, key)
                await send(message)

            own = Replay(receiving)  # a plugin may read the body, and then let the request go on
            extension._receive, extension._send = own, sending
            try:
                await app(scope, own, sending)
            except BaseException as exc:
                part.fault = _fault(exc, call, layer)
                if part.fault is not None and part.done is not None:
                    part.fault["late"] = "its response was complete already"
                raise
            finally:
                part.ended = True
                part.done = part.done or monotonic()
                part.passed_over = bool(getattr(extension, "over", False))
                self._changed(story, key)

        return watched

    def passes_on(self, layer: Layer, call: Call, scope: Scope, receive: Receive, send: Send) -> tuple[Receive, Send]:
        """Note what a plugin passes on. Returns the ``receive`` and ``send`` for whoever is inside."""
        key = id(layer)
        story = self._story_of(call)
        part = story.parts.get(key)
        if part is None:  # the story was told long ago
            return receive, send
        part.passed_at = monotonic()
        part.passed.request(scope)
        self._changed(story, key)

        async def receiving() -> Message:
            message = await receive()
            part.passed.receive(message)
            return message

        async def sending(message: Message) -> None:
            if part.inside.send(message):
                part.back = monotonic()
            await send(message)

        return receiving, sending

    def shadow_runs(self, layer: ShadowLayer, call: Call, run: ShadowRun) -> None:
        """Note the verdict of a shadow once its run is over."""
        assert run.task is not None

        def ended(_: object) -> None:
            if run.verdict is not None:
                story = self._story_of(call)
                story.add_shadow(layer.name, run.verdict.outcome, run.verdict.text)
                self._told_more(story)

        run.task.add_done_callback(ended)


_HOOKS: dict[int, Hooks] = {}
"""The hooks of each layer that is looked at, by its identity. A layer has no room for more attributes."""


class _WatchedLayer(Layer):
    """A layer that looks at what its plugin passes on."""

    __slots__ = ()

    def go_on(self, call: Any, scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        hooks = _HOOKS.get(id(self))
        if hooks is not None and isinstance(call, Call):
            receive, send = hooks.passes_on(self, call, scope, receive, send)
        return super().go_on(call, scope, receive, send)

    def __del__(self) -> None:
        _HOOKS.pop(id(self), None)


class _WatchedShadow(ShadowLayer):
    """A shadow whose verdicts are looked at."""

    __slots__ = ()

    def _started(self, call: Any, scope: Scope, receive: Receive) -> ShadowRun | None:
        run = super()._started(call, scope, receive)
        hooks = _HOOKS.get(id(self))
        if run is not None and hooks is not None and isinstance(call, Call):
            hooks.shadow_runs(self, call, run)
        return run

    def __del__(self) -> None:
        _HOOKS.pop(id(self), None)


def _fault(exc: BaseException, call: Call, layer: Layer) -> dict[str, str] | None:
    """Describe what came out of a plugin; None: it came out of a plugin further inside, or nothing went wrong."""
    if isinstance(exc, asyncio.CancelledError):
        if call.stage is EXPIRED and call.overdue == layer.name:
            return {"kind": "timeout", "text": f"no answer in time (option timeout: {layer.options.timeout:g} s)"}
        return None
    if call.failed is not None and call.failed[0] is exc:
        return None
    return {
        "kind": "exception",
        "text": reason_of(exc),
        "own": SECRETS.taken_out(own_frames(exc)),
        "whole": traceback_text(exc),
    }
