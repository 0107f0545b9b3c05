"""What a plugin sees of the bridge: ``scope["extensions"]["apisix"]``, and :func:`upstream`, whom it wraps.

:func:`upstream` is the next layer inwards. It finds that layer by the scope or the context of the call, since an
application may stand in several chains at once.
"""

import contextvars
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, overload

from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import PluginError
from .lifespan import quiet_lifespan
from .replay import Replay

if TYPE_CHECKING:
    from .call import ChainCall
    from .layer import Layer

__all__ = [
    "Apisix",
    "Next",
    "Variables",
    "about_current",
    "apisix",
    "current",
    "is_upstream",
    "layer_of",
    "make_next",
    "new_next",
    "pass_on",
    "receive_again",
    "upstream",
]


class Variables(Protocol):
    """``var`` of the extension: ask the gateway for variables of nginx and APISIX."""

    @overload
    def __call__(self, name: str, /) -> Awaitable[bytes | None]: ...
    @overload
    def __call__(self, name: str, second: str, /, *more: str) -> Awaitable[dict[str, bytes | None]]: ...


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

    __slots__ = ("_call", "_earlier", "_entered", "_layer", "_receive", "_send")
    _call: "ChainCall"
    _earlier: "Apisix | None"
    """That of the layer that the same call entered before."""
    _entered: float
    """When the call entered its layer, in monotonic seconds."""
    _layer: "Layer"
    _receive: Receive
    _send: Send
    _fails_open: ClassVar[bool] = False
    """Whether the plugin is mounted with ``on_error="open"``: then `_pass_on` has something to do."""

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

    @property
    def _passed_over(self) -> bool:
        """Whether the request went on without the plugin, after a fault."""
        return False

    def _pass_on(self) -> None:
        """Note that the plugin passes the request on."""


current: contextvars.ContextVar[Apisix | None] = contextvars.ContextVar("asgi_bridge.apisix")
"""The extension of the plugin whose code runs; None: no plugin's code runs."""


def about_current() -> dict[str, Any]:
    """Return what a log line says of the call whose plugin runs here; empty: no plugin runs here."""
    extension = current.get(None)
    return {} if extension is None else extension._call.about(extension.plugin)


def apisix(scope: Scope) -> Apisix:
    """Return the extension of the plugin whose scope this is.

    Args:
        scope: Of the plugin, or one that was made from it.

    Raises:
        PluginError: This is not the scope of a plugin call.
    """
    extension = (scope.get("extensions") or {}).get("apisix")
    if isinstance(extension, Apisix):
        return extension
    found = current.get(None)
    if found is None:
        raise PluginError(
            "this scope does not belong to the call of a plugin: hand on the one that the plugin got, or a copy with "
            "its extensions"
        )
    return found


def layer_of(scope: Scope) -> "Layer | None":
    """Return the layer of the plugin whose scope this is; None: no plugin is being called.

    Args:
        scope: Of the plugin, or one that was made from it.
    """
    extension = (scope.get("extensions") or {}).get("apisix")
    if not isinstance(extension, Apisix):
        extension = current.get(None)
    return None if extension is None else extension._layer


def receive_again(scope: Scope, receive: Receive) -> Receive:
    """Return a receive that gives the request body from its beginning, as the plugin got it.

    From now on it is the plugin's own, so to hand it on is no change of the body.

    Args:
        scope: Of the plugin, or one that was made from it.
        receive: What the plugin would hand on. It is returned if nobody has read from the plugin's own.

    Raises:
        PluginError: No plugin is being called.
    """
    extension = apisix(scope)
    again = extension._call.again(extension._receive)
    if again is not extension._receive:
        receive = extension._receive = again
    return receive


def pass_on(scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
    """Do what :func:`upstream` does. Awaiting the result does the rest; None: there is none."""
    try:
        extension = scope["extensions"]["apisix"]
    except (KeyError, TypeError):
        extension = None
    if not isinstance(extension, Apisix):
        extension = apisix(scope)
    call, layer = extension._call, extension._layer
    if extension._fails_open:
        extension._pass_on()
    if receive is not extension._receive:
        if layer.options.request_body:
            call.changes_body()
        if layer.inner is not None:
            receive = Replay(receive)
    if send is not extension._send:
        call.wraps_send(layer)
    if layer.root:
        scope = layer.outside(scope)
    return layer.go_on(call, scope, receive, send)


async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
    """Pass the request on: to the next plugin of the route or, behind the last one, to the gateway's upstream.

    This is an ASGI application. It can be called inside of a plugin's call only.

    Args:
        scope: The plugin's own, or one that was made from it. Its changes become a Rewrite.
        receive: The plugin's own, or one that wraps it. What it gives becomes the request body.
        send: The plugin's own, or one that wraps it. It gets the response.

    Example::

        async def hello(scope, receive, send):
            scope["headers"].append((b"x-hello", b"world"))
            await upstream(scope, receive, send)

    Raises:
        PluginError: No plugin is being called.
    """
    if scope["type"] == "lifespan":
        await quiet_lifespan(scope, receive, send)
        return
    running = pass_on(scope, receive, send)
    if running is not None:
        await running


class Next:
    """:func:`upstream` as an object, for a middleware to wrap."""

    __slots__ = ("__weakref__",)
    __call__ = staticmethod(upstream)
    is_asgi_bridge_upstream: ClassVar[bool] = True


make_next: Callable[[], Any] = Next
"""Makes what :func:`new_next` returns. The compiled core has something that is quicker to call."""


def new_next() -> ASGIApp:
    """Return :func:`upstream` as an object of its own, since some middleware keeps data for each app that it wraps."""
    return make_next()  # type: ignore[no-any-return]


def is_upstream(app: object) -> bool:
    """Return whether an application is :func:`upstream`, under whatever name."""
    return app is upstream or getattr(app, "is_asgi_bridge_upstream", None) is True
