"""One layer of the onion: one plugin in one chain, around the next step inwards.

A layer gets its own copy of the scope and its own ``extensions["apisix"]``; ``state`` is one object for all layers of a
request. The innermost step is the call itself, which knows what to do with a request that every plugin let pass.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from time import monotonic
from typing import TYPE_CHECKING, Any, AnyStr, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from .extension import Apisix, Variables, current, upstream
from .lifespan import Lifespan
from .open import OpenApisix, enter_open
from .options import Options
from .state import Apart, Overlay, State, States

if TYPE_CHECKING:
    from .instances import Instance

__all__ = ["INNERMOST", "Layer", "OnionCall", "Step"]


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
    extensions: list[Apisix]
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
            return enter_open(self, OpenApisix(self._entries[call.phase]), call, scope, receive, send)
        deadline = monotonic() + self.options.timeout
        if deadline < call.deadline:
            call.deadline = deadline
            call.late = self.name
        extension = Apisix(self._entries[call.phase])
        inner = self.inner_scope(call, scope, receive, send, extension)
        current.set(extension)
        return self.app(inner, receive, send)

    async def enter(self, call: OnionCall, scope: Scope, receive: Receive, send: Send) -> None:
        token = current.set(None)
        try:
            running = self.begin(call, scope, receive, send)
            if running is not None:
                await running
        except BaseException as exc:
            if call.end is not self:
                self.blame(call, exc)
            raise
        finally:
            current.reset(token)

    go = enter

    def inner_scope(self, call: OnionCall, scope: Scope, receive: Receive, send: Send, extension: Apisix) -> Scope:
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

    def blame(self, call: OnionCall, exc: BaseException) -> None:
        """Notes that `exc` came out of this plugin, unless it came out of one further inside before."""
        if call.culprit is None or call.culprit[0] is not exc:
            call.culprit = (exc, self.name)


def _without(path: AnyStr, root: AnyStr) -> AnyStr:
    rest = path[len(root) :]
    slash = root[:1]
    return rest if path.startswith(root) and (not rest or rest.startswith(slash)) else path


INNERMOST = _Innermost()
"""The step behind the last plugin of every chain."""
