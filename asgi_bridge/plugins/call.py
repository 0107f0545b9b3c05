"""What the layers of a chain know of the call that goes through them, and what they note on it.

One class, with three owners: the runner's calls (``adapter``), calls in plain ASGI (:mod:`.plain`), and those of tests.
They differ in what stands behind the last layer, in who answers ``var``, and in what they do with a response. Only the
methods of this class write its attributes.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from time import monotonic
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from .extension import Apisix, Variables
from .replay import Replay
from .shadow_record import ShadowRun
from .state import Apart, Overlay, State

if TYPE_CHECKING:
    from .chain import Chain
    from .layer import Layer

__all__ = ["ChainCall"]

_NEVER = float("inf")


class ChainCall(ABC):
    """One call on its way through the layers of a chain.

    Args:
        chain: The plugins that it goes through.

    Attributes:
        phase: ``"request"`` or ``"response"``.
        boundary: The layer at which this call goes no further inwards; None: it goes through all layers.
        request_id: ``$request_id``, once it is known.
        deadline: Monotonic seconds after which the call is refused.
        overdue: Name of the plugin whose timeout that deadline is; before any plugin is entered, of all of them.
        changed_body: A plugin handed on another `receive` than it was given.
        failed: The exception that came out of a plugin, and the plugin that it came out of first.
        extension: That of the layer entered last. Each refers to the one entered before it.
        state: ``scope["state"]`` that the layers share; None: no layer was entered yet.
        apart: The keys of it that some layers keep apart.
    """

    __slots__ = (
        "apart", "chain", "changed_body", "deadline", "extension", "failed", "overdue", "request_id", "state",
        "__weakref__",
    )  # fmt: skip
    phase: str
    boundary: "Layer | None" = None

    def __init__(self, chain: "Chain") -> None:
        self.chain = chain
        self.request_id: str | None = None
        self.deadline = _NEVER
        self.overdue = chain.names
        self.changed_body = False
        self.failed: tuple[BaseException, str] | None = None
        self.extension: Apisix | None = None
        self.state: State | None = None
        self.apart: Apart[Layer] | None = None

    # what its owner does

    @property
    @abstractmethod
    def var(self) -> Variables:
        """Ask the gateway for variables."""

    @abstractmethod
    def innermost(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        """Run what stands behind the last layer. Awaiting the result runs it; None: it is done already."""

    @abstractmethod
    def wraps_send(self, layer: "Layer") -> None:
        """Note that the plugin of `layer` handed on another `send` than it was given."""

    def again(self, receive: Receive) -> Receive:
        """Return a receive that gives the request body from its beginning, for whoever has read some of it.

        Args:
            receive: As a layer got it.

        Returns:
            `receive` itself if nobody has read from it, or if it cannot begin again.
        """
        return receive.again() if isinstance(receive, Replay) else receive

    def shadow(self, chain: "Chain", scope: Scope, receive: Receive) -> ShadowRun | None:
        """Make a run of a shadow beside this call; None: there are none beside such calls.

        Args:
            chain: The shadow's plugin alone.
            scope: A copy of what the plugin would get.
            receive: As the plugin would get it.
        """
        return None

    def about(self, plugin: str | None = None) -> dict[str, Any]:
        """Return what a log line says of the call, beside its message.

        Args:
            plugin: Name of the plugin that the line is about; None: all plugins of the chain.

        Returns:
            ``method``, ``path``, ``route``, ``plugin``, ``phase``, ``request_id`` and ``milliseconds``, as far as they
            are known.
        """
        return {"plugin": plugin or self.chain.names, "phase": self.phase}

    # what the layers do

    def enter(self, layer: "Layer", extension: Apisix, scope: Scope, receive: Receive, send: Send) -> Scope:
        """Note that the call enters `layer`.

        Args:
            layer: The layer.
            extension: A new extension, of that layer.
            scope: As the layer got it. It is left as it is.
            receive: As the plugin gets it.
            send: As the plugin gets it.

        Returns:
            The layer's own copy of `scope`, with its `extension`.
        """
        extension._entered = now = monotonic()
        if not extension._fails_open:
            deadline = now + layer.options.timeout
            if deadline < self.deadline:
                self.deadline = deadline
                self.overdue = layer.name
        if self.request_id is not None:
            extension["request_id"] = self.request_id
        extension["phase"] = self.phase
        extension["var"] = self.var
        extension._call = self
        extension._layer = layer
        extension._receive = receive
        extension._send = send
        extension._earlier = self.extension
        self.extension = extension
        inner = scope.copy() if type(scope) is dict else dict(scope)
        inner["headers"] = list(scope["headers"])
        extensions = scope.get("extensions")
        inner["extensions"] = {**extensions, "apisix": extension} if extensions else {"apisix": extension}
        state = self.state
        if state is None:
            states = self.chain.states
            state = self.state = states.begin()
            self.apart = states.apart
        else:
            # an outer plugin may have put another object in its place, or made its scope anew without any
            state = scope.get("state", state)
            if type(state) is Overlay:
                state = state.shared
        apart = self.apart
        if apart is not None and layer in apart:
            source, keys = apart[layer]
            state = Overlay({key: source[key] for key in keys}, state)
        inner["state"] = state
        if layer.root:
            layer.go_inside(inner)
        return inner

    def entered(self) -> "dict[Layer, tuple[float, bool]]":
        """Return the layers that the call has entered.

        Returns:
            For each layer when it was entered, in monotonic seconds, and whether it was passed over after a fault. It
            is empty after the call's end.
        """
        found: dict[Layer, tuple[float, bool]] = {}
        extension = self.extension
        while extension is not None:
            found[extension._layer] = extension._entered, extension._passed_over
            extension = extension._earlier
        return found

    def limit(self, deadline: float, name: str) -> None:
        """Refuse the call after `deadline`, if it is not refused earlier.

        Args:
            deadline: Monotonic seconds.
            name: Of the plugin whose timeout that is.
        """
        if deadline < self.deadline:
            self.deadline = deadline
            self.overdue = name

    def changes_body(self) -> None:
        """Note that a plugin handed on another `receive` than it was given."""
        self.changed_body = True

    def fails(self, exc: BaseException, name: str) -> None:
        """Note that `exc` came out of the plugin `name`, unless it came out of one further inside before."""
        if self.failed is None or self.failed[0] is not exc:
            self.failed = exc, name

    def tell_request_id(self, request_id: str) -> None:
        """Tell all plugins that were entered so far the ``$request_id``."""
        self.request_id = request_id
        extension = self.extension
        while extension is not None:
            extension["request_id"] = request_id
            extension = extension._earlier
