"""``shadow=True``: a plugin runs beside the requests, and changes nothing.

The layer starts the plugin on copies, in a task of its own, and lets the request go on at once. The run belongs to the
call's owner (:meth:`~.ChainCall.shadow`), which knows what the plugin's answer would have been. Mounts without
``shadow`` have plain layers, and pay nothing.

A plugin that never asks the gateway for anything runs after the request went on, mostly after its answer. The gateway
can be asked only while the call is open, so a plugin that does ask comes too late once. From then on, requests of this
layer wait for what the plugin asks first: one turn of the event loop and a round trip, and never longer than the call's
owner allows.
"""

import asyncio
import contextvars
import copy
import dataclasses
import logging
import random
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from .chain import Chain
from .layer import Layer
from .options import Options
from .reasons import reason_of
from .shadow_record import MAX_IN_FLIGHT, ShadowRecord, ShadowRun

if TYPE_CHECKING:
    from .call import ChainCall

__all__ = ["ShadowLayer", "copied"]

logger = logging.getLogger("asgi_bridge.shadow")

MAX_DEPTH = 8
"""Maximum nesting of lists and dicts that a shadow gets copies of. What is deeper is shared."""


class ShadowLayer(Layer):
    """A layer whose plugin runs beside the requests.

    Args:
        name, options, inner, route_id: As of :class:`~.Layer`.
        record: Where the plugin's verdicts go.

    Attributes:
        asks: True: the plugin has asked the gateway for something, so requests wait for its first question.
        absent: True: the plugin could not be built, so requests pass without it.
    """

    __slots__ = ("_alone", "_conf", "absent", "asks", "record", "route_id")

    def __init__(
        self,
        name: str,
        options: Options,
        inner: Layer | None,
        route_id: str | None,
        record: ShadowRecord,
    ) -> None:
        super().__init__(name, options, None, inner, route_id)
        self.route_id = route_id
        self._conf: Any = None
        self.record = record
        self.asks = False
        self.absent = False
        self._alone: Chain | None = None

    @property
    def conf(self) -> Any:
        return self._conf

    def configure(self, conf: Any) -> None:
        """Set the route's configuration of the plugin, parsed."""
        self._conf = conf

    def begin(self, call: "ChainCall", scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        """Start the plugin beside the call, and begin the next layer inwards."""
        run = self._started(call, scope, receive)
        if run is None:
            return self.go_on(call, scope, receive, send)
        asks = self.asks or (
            call.phase == "response" and not set(self.options.request_headers) <= set(call.chain.request_headers)
        )
        if call.phase == "request" and not asks:
            return self.go_on(call, scope, receive, send)
        return self._go_on_beside(run, asks, call, scope, receive, send)

    async def enter(self, call: "ChainCall", scope: Scope, receive: Receive, send: Send) -> None:
        """Do what :meth:`begin` does. What it raises is the fault of another plugin, or of the call."""
        running = self.begin(call, scope, receive, send)
        if running is not None:
            await running

    async def _go_on_beside(
        self, run: ShadowRun, asks: bool, call: "ChainCall", scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            if asks:
                await run.settle()
            running = self.go_on(call, scope, receive, run.watch(send))
            if running is not None:
                await running
        finally:
            run.lose()

    def _started(self, call: "ChainCall", scope: Scope, receive: Receive) -> ShadowRun | None:
        """Start a run; None: this request has none."""
        record, options = self.record, self.options
        if options.sample < 1 and random.random() >= options.sample:  # noqa: S311  # no secret
            return None
        if self.absent or record.in_flight >= MAX_IN_FLIGHT:
            record.counts["skipped"] += 1
            return None
        try:
            run = call.shadow(self._chain(), self._copy(call, scope), receive)
        except Exception as exc:  # an outer plugin may have passed on what is no scope: the request fails by itself
            record.counts["skipped"] += 1
            logger.warning("plugin %s: shadow: it cannot run on this request: %s", self.name, reason_of(exc))
            return None
        if run is None:
            return None
        chain = call.chain
        record.in_flight += 1
        chain.calls += 1  # or the plugin's lifespan might end under it
        loop = asyncio.get_running_loop()
        # In a context of its own: a cancelled timer may stay in the loop, and keep alive what its context holds.
        timer = loop.call_later(options.timeout, run.expire, context=contextvars.Context())
        run.task = loop.create_task(self._run(run, chain, timer), name=f"{self.name} (shadow)")
        return run

    async def _run(self, run: ShadowRun, chain: Chain, timer: asyncio.TimerHandle) -> None:
        try:
            await run.run()
        finally:
            timer.cancel()
            run.task = None
            self.asks = self.asks or run.late
            self.record.in_flight -= 1
            chain.call_ended()
            if run.verdict is not None:
                self.record.note(run.verdict, self.route_id)

    def _chain(self) -> Chain:
        """Return the chain of this plugin alone, as it would act."""
        if self._alone is None:
            options = dataclasses.replace(self.options, shadow=False, sample=1.0, on_error="closed")
            layer = Layer(self.name, options, self._conf, None, self.route_id)
            layer.app, layer.state = self.app, self.state
            self._alone = Chain([layer], self.route_id)
        return self._alone

    def _copy(self, call: "ChainCall", scope: Scope) -> Scope:
        """Return a copy of `scope`, with the lifespan state of this plugin in it."""
        lifespans = call.chain.states.begin()
        state = scope.get("state", call.state)
        inner: Scope = {key: copied(value) for key, value in scope.items() if key not in ("extensions", "state", "app")}
        inner["app"] = scope.get("app")
        inner["extensions"] = {
            key: copied(value) for key, value in (scope.get("extensions") or {}).items() if key != "apisix"
        }
        # what lifespans give is shared by all requests anyway, and may be large
        inner["state"] = {
            key: value if lifespans.get(key) is value else copied(value)
            for key, value in (lifespans if state is None else state).items()
        } | self.state  # fmt: skip
        return inner


def copied(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return a copy of `value` that can be changed without a trace on it.

    Lists, dicts, sets and bytearrays are copied, and what is in them. Other objects are shared.

    Args:
        value: Part of a scope or of its state.
        depth: Number of nested containers that are copied.
    """
    if not depth:
        return value
    if isinstance(value, dict):
        new = copy.copy(value)  # of its own class: a session knows whether it was changed
        for key, item in value.items():
            if isinstance(item, dict | list | set | bytearray):
                dict.__setitem__(new, key, copied(item, depth - 1))
        return new
    if type(value) is list:
        return [copied(item, depth - 1) if isinstance(item, dict | list | set | bytearray) else item for item in value]
    return copy.copy(value) if type(value) in (set, bytearray) else value
