"""The onion: the plugins of one configuration, the first listed outermost, each an ASGI layer of its own.

A layer gets its own copy of the scope and its own ``extensions["apisix"]``; ``state`` is one object for all layers of a
request. Whoever it wraps is the next layer, which :func:`upstream` finds by the scope or the context of the call: an
application may stand in several chains at once. Innermost is the call itself, which knows what to do with a request
that every plugin let pass.
"""

import asyncio
import contextvars
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from time import monotonic
from typing import TYPE_CHECKING, Any, AnyStr, Protocol, overload

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import PluginError
from .lifespan import Lifespan, quiet_lifespan
from .options import Options
from .reasons import reason_of
from .state import Apart, Overlay, State, States

if TYPE_CHECKING:
    from .instances import Instance

__all__ = ["INNERMOST", "Apisix", "Chain", "Layer", "Next", "OnionCall", "Step", "Variables", "apisix", "upstream"]

logger = logging.getLogger("asgi_bridge.plugins")


MAX_WARNINGS = 1000
"""Warnings of one chain. Some name a header, and anybody can make up names."""


class Variables(Protocol):
    """``var`` of the extension: asks the gateway for nginx and APISIX variables."""

    @overload
    def __call__(self, name: str, /) -> Awaitable[bytes | None]: ...
    @overload
    def __call__(self, name: str, second: str, /, *more: str) -> Awaitable[dict[str, bytes | None]]: ...


class OnionCall(Protocol):
    """What the layers need to know of the call that goes through them, and tell it.

    Attributes:
        deadline: monotonic seconds after which the call is refused; `late` is the plugin that it is due to.
        changed_body: a plugin handed on another `receive` than it was given.
        culprit: an exception and the plugin out of which it came first.
        extensions: the extension of every layer entered so far.
        end: a layer that stands for the innermost application; None: the one behind the last layer does.
        state: what all its layers share; None: no layer was entered yet.
        apart: the keys that some layers keep apart.
    """

    phase: str
    route_id: str | None
    request_id: str | None
    deadline: float
    late: str
    changed_body: bool
    culprit: tuple[BaseException, str] | None
    extensions: list["Apisix"]
    end: "Step | None"
    state: State | None
    apart: "Apart[Layer] | None"

    @property
    def var(self) -> Variables:
        """Asks the gateway for variables."""

    def wraps_send(self, layer: "Layer") -> None:
        """`layer` handed on another `send` than it was given."""

    def upstream(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        """The innermost application; None: it has nothing to wait for, and is through."""


class Apisix(dict[str, Any]):
    """``scope["extensions"]["apisix"]``: a dict, its entries also as typed properties.

    ======== ============================== ======================================================
    entry    type                           meaning
    ======== ============================== ======================================================
    plugin   ``str``                        name under which this plugin is mounted
    phase    ``"request" | "response"``     what the gateway asks for
    conf     any                            the route's configuration, parsed JSON
    route_id ``str | None``                 id of the APISIX route
    request_id ``str | None``               ``$request_id``, once it has been asked for
    var      async callable                 ``await var("consumer_name")`` is ``bytes | None``; several names: a
                                            dict, in one round trip
    ======== ============================== ======================================================
    """

    __slots__ = ("_call", "_layer", "_receive", "_send")
    _call: OnionCall
    _layer: "Layer"
    _receive: Receive
    _send: Send

    @property
    def plugin(self) -> str:
        return self["plugin"]  # type: ignore[no-any-return]

    @property
    def phase(self) -> str:
        return self["phase"]  # type: ignore[no-any-return]

    @property
    def conf(self) -> Any:
        return self["conf"]

    @property
    def route_id(self) -> str | None:
        return self["route_id"]  # type: ignore[no-any-return]

    @property
    def request_id(self) -> str | None:
        return self["request_id"]  # type: ignore[no-any-return]

    @property
    def var(self) -> Variables:
        return self["var"]  # type: ignore[no-any-return]


class _OpenApisix(Apisix):
    """That of a plugin mounted with ``on_error="open"``: it knows whether a fault is still the plugin's own."""

    __slots__ = ("limit", "passed_on", "replay")
    limit: asyncio.Timeout
    passed_on: bool
    replay: "_Replay"

    def pass_on(self) -> None:
        """The plugin lets the request go inwards: from now on a fault may be another's."""
        if self.passed_on:
            return
        deadline = self.limit.when()
        try:
            self.limit.reschedule(None)
        except RuntimeError:  # passed over already, or about to be
            raise PluginError("the request cannot be passed on any more: the plugin's time is over") from None
        call = self._call
        if deadline is not None and deadline < call.deadline:
            call.deadline = deadline
            call.late = self._layer.name
        self.passed_on = True
        self.replay.forget()


_current: contextvars.ContextVar[Apisix | None] = contextvars.ContextVar("asgi_bridge.apisix")


def apisix(scope: Scope) -> Apisix:
    """The extension of the plugin whose scope this is.

    Raises:
        PluginError: this is not the scope of a plugin call.
    """
    extension = (scope.get("extensions") or {}).get("apisix")
    if isinstance(extension, Apisix):
        return extension
    current = _current.get(None)
    if current is None:
        raise PluginError("this scope does not belong to the call of a plugin")
    return current


async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
    """The next layer of the onion, as an ASGI application: the next plugin of the route, or the gateway's upstream.

    Only valid inside a plugin's call.

    Raises:
        PluginError: no plugin is being called.
    """
    if scope["type"] == "lifespan":
        await quiet_lifespan(scope, receive, send)
        return
    extension = apisix(scope)
    call, layer = extension._call, extension._layer
    if type(extension) is _OpenApisix:
        extension.pass_on()
    if receive is not extension._receive and layer.options.request_body:
        call.changed_body = True
    if send is not extension._send:
        call.wraps_send(layer)
    if layer.root:
        scope = layer.outside(scope)
    running = layer.following.go(call, scope, receive, send)
    if running is not None:
        await running


class Next:
    """:func:`upstream` as an object: what a middleware is given to wrap. Each has one of its own, since some tell the
    applications that they wrap apart."""

    __slots__ = ("__weakref__",)
    __call__ = staticmethod(upstream)


class Step(ABC):
    """One step inwards: what a layer wraps."""

    __slots__ = ()

    @abstractmethod
    def go(self, call: OnionCall, scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        """Runs this step for the plugin around it: awaiting what it gives is all of it; None: it is through."""

    @abstractmethod
    def begin(self, call: OnionCall, scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        """Begins this step of `call`: awaiting what it gives is the rest; None: there is none.

        No coroutine itself: each one costs, and this one would only wait for the plugin's. Two things are left to
        `enter`, or to whoever has a task of its own for the call: to note out of which plugin an exception came, and to
        leave the context as it was.
        """

    async def enter(self, call: OnionCall, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs this step of `call`."""
        running = self.begin(call, scope, receive, send)
        if running is not None:
            await running


class _Innermost(Step):
    """The step behind the last plugin: the call itself."""

    __slots__ = ()

    def begin(self, call: OnionCall, scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        return call.upstream(scope, receive, send)

    go = begin


class Layer(Step):
    """One plugin in one chain.

    Attributes:
        app: the plugin's application.
        following: the next step inwards.
        instance: that the application belongs to; None: it was mounted, and is the process's.
        state: its lifespan's state.
        states: those of all layers of its chain.
        root: the mount's ``root_path``.
    """

    __slots__ = ("_entries", "app", "following", "instance", "name", "options", "root", "state", "states")

    def __init__(self, name: str, options: Options, conf: Any, following: Step, route_id: str | None = None) -> None:
        self.name = name
        self.options = options
        self.following = following
        self.app: ASGIApp = upstream
        self.instance: Instance | None = None
        self.state: dict[str, Any] = {}
        self.states: States[Layer] = States([(self, self.state)])
        self.root = options.root_path
        entries = {"plugin": name, "phase": "", "conf": conf, "route_id": route_id, "request_id": None, "var": None}
        self._entries = {phase: {**entries, "phase": phase} for phase in ("request", "response")}

    @property
    def lifespan(self) -> Lifespan | None:
        """Its lifespan; None: the process has it, or nobody."""
        return None if self.instance is None else self.instance.lifespan

    def begin(self, call: OnionCall, scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        if call.end is self:
            return call.upstream(scope, receive, send)
        if self.options.on_error == "open":
            return self._enter_open(call, scope, receive, send)
        deadline = monotonic() + self.options.timeout
        if deadline < call.deadline:
            call.deadline = deadline
            call.late = self.name
        extension = Apisix(self._entries[call.phase])
        inner = self._scope(call, scope, receive, send, extension)
        _current.set(extension)
        return self.app(inner, receive, send)

    async def enter(self, call: OnionCall, scope: Scope, receive: Receive, send: Send) -> None:
        token = _current.set(None)
        try:
            running = self.begin(call, scope, receive, send)
            if running is not None:
                await running
        except BaseException as exc:
            if call.end is not self:
                self._blame(call, exc)
            raise
        finally:
            _current.reset(token)

    go = enter

    async def _enter_open(self, call: OnionCall, scope: Scope, receive: Receive, send: Send) -> None:
        """``on_error="open"``: a fault of this plugin, before it passed the request on or began to answer, is passed
        over, and the next step gets the request as this one got it. Its own timeout is such a fault; what comes out
        of ``receive`` is not: it is the fault of an outer plugin, or of the gateway."""
        replay = _Replay(receive)
        answering = passed_over = False

        async def sending(message: Message) -> None:
            nonlocal answering
            if passed_over:  # by a thread or task that it left behind
                raise PluginError("the plugin was passed over: it cannot answer any more")
            answering = True
            await send(message)

        extension = _OpenApisix(self._entries[call.phase])
        inner = self._scope(call, scope, replay, sending, extension)
        extension.passed_on = False
        extension.replay = replay
        limit = extension.limit = asyncio.timeout(None)
        deadline = monotonic() + self.options.timeout
        token = _current.set(extension)
        try:
            async with limit:
                # In a context of its own: a cancelled timer stays in the loop until its time has come, and keeps alive
                # what its context holds, here the whole call.
                contextvars.Context().run(limit.reschedule, deadline)
                await self.app(inner, replay, sending)
        except BaseException as exc:
            if not isinstance(exc, Exception) or extension.passed_on or answering or replay.failed:
                self._blame(call, exc)
                raise
            passed_over = True
            reason = f"no answer within {self.options.timeout:g} s" if limit.expired() else reason_of(exc)
            logger.error("plugin %s: passed over, since it is mounted with on_error='open': %s", self.name, reason)
        else:
            task = asyncio.current_task()
            if extension.passed_on or answering or replay.failed or (task is not None and task.cancelling()):
                return
            passed_over = True
            logger.error("plugin %s: passed over, since it is mounted with on_error='open': no answer", self.name)
        finally:
            _current.reset(token)
        await self.following.enter(call, scope, replay.again(), send)

    def _scope(self, call: OnionCall, scope: Scope, receive: Receive, send: Send, extension: Apisix) -> Scope:
        """This layer's own copy of `scope`, with its `extension`."""
        if call.request_id is not None:
            extension["request_id"] = call.request_id
        extension["var"] = call.var
        extension._call = call
        extension._layer = self
        extension._receive = receive
        extension._send = send
        call.extensions.append(extension)
        inner = scope.copy() if type(scope) is dict else dict(scope)
        inner["headers"] = list(scope["headers"])
        extensions = scope.get("extensions")
        inner["extensions"] = {**extensions, "apisix": extension} if extensions else {"apisix": extension}
        state = call.state
        if state is None:
            state = call.state = self.states.begin()
            call.apart = self.states.apart
        else:
            # whatever an outer plugin has put in its place; none is there in a scope that it made anew
            state = scope.get("state", state)
            if type(state) is Overlay:
                state = state.shared
        apart = call.apart
        if apart is not None and self in apart:
            source, keys = apart[self]
            state = Overlay({key: source[key] for key in keys}, state)
        inner["state"] = state
        if self.root:
            self._go_inside(inner)
        return inner

    def _go_inside(self, scope: Scope) -> None:
        """Puts the mount's ``root_path`` before the path, as uvicorn does."""
        scope["root_path"] = self.root + scope.get("root_path", "")
        scope["path"] = self.root + scope["path"]
        if scope.get("raw_path") is not None:
            scope["raw_path"] = self.root.encode() + scope["raw_path"]

    def outside(self, scope: Scope) -> Scope:
        """`scope` for the next step, which knows nothing of the mount's ``root_path``. A path that does not begin with
        it stays as the plugin set it."""
        root = self.root
        outer = {**scope, "root_path": _without(scope.get("root_path", ""), root)}
        if isinstance(scope.get("path"), str):
            outer["path"] = _without(scope["path"], root) or "/"
        if isinstance(scope.get("raw_path"), bytes):
            outer["raw_path"] = _without(scope["raw_path"], root.encode()) or b"/"
        return outer

    def _blame(self, call: OnionCall, exc: BaseException) -> None:
        if call.culprit is None or call.culprit[0] is not exc:
            call.culprit = (exc, self.name)


def _without(path: AnyStr, root: AnyStr) -> AnyStr:
    rest = path[len(root) :]
    slash = root[:1]
    return rest if path.startswith(root) and (not rest or rest.startswith(slash)) else path


class _Replay:
    """A receive that can be had again from the start, for the step behind a plugin that failed half-way."""

    __slots__ = ("_receive", "_seen", "failed")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._seen: list[Message] | None = []
        self.failed = False

    async def __call__(self) -> Message:
        try:
            message = await self._receive()
        except Exception:
            self.failed = True
            raise
        if self._seen is not None:
            self._seen.append(dict(message))
        return message

    def forget(self) -> None:
        """Nobody will want it again: the call may wait for a long time, and need not hold the body."""
        self._seen = None

    def again(self) -> Receive:
        """What was received so far, then the rest."""
        if not self._seen:
            return self._receive
        messages = iter(self._seen)

        async def replayed() -> Message:
            for message in messages:
                return message
            return await self._receive()

        return replayed


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


INNERMOST = _Innermost()
"""The step behind the last plugin of every chain."""
