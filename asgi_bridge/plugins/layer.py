"""One layer of the onion: one plugin in one chain, around the next layer inwards.

A layer gets its own copy of the scope and its own ``extensions["apisix"]``; ``state`` is one object for all layers of a
request. Behind the last layer stands the call itself, which knows what to do with a request that every plugin let pass.
"""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, AnyStr

from starlette.types import ASGIApp, Receive, Scope, Send

from .extension import Apisix, current, upstream
from .lifespan import Lifespan
from .open import OpenApisix, enter_open
from .options import Options

if TYPE_CHECKING:
    from .call import ChainCall
    from .instances import Instance

__all__ = ["Layer", "awaiting"]


async def awaiting(running: Awaitable[None]) -> None:
    """Await anything in a coroutine."""
    await running


class Layer:
    """One plugin in one chain.

    Args:
        name: Under which the plugin is mounted.
        options: How it is run.
        conf: The route's configuration of it, parsed.
        inner: The next layer inwards; None: this is the last one.
        route_id: Id of the APISIX route, if it is known.

    Attributes:
        app: The plugin's application.
        instance: That the application belongs to; None: it was mounted, and is the process's.
        state: Its lifespan's state.
        root: The mount's ``root_path``.
    """

    __slots__ = ("_entries", "app", "inner", "instance", "name", "options", "root", "state")

    def __init__(
        self, name: str, options: Options, conf: Any, inner: "Layer | None" = None, route_id: str | None = None
    ) -> None:
        self.name = name
        self.options = options
        self.inner = inner
        self.app: ASGIApp = upstream
        self.instance: Instance | None = None
        self.state: dict[str, Any] = {}
        self.root = options.root_path
        # the compiled core leaves the phase as it is where it is right already
        self._entries = {
            "plugin": name, "phase": "request", "conf": conf, "route_id": route_id, "request_id": None, "var": None,
        }  # fmt: skip

    @property
    def conf(self) -> Any:
        """The route's configuration of the plugin, parsed."""
        return self._entries["conf"]

    @property
    def lifespan(self) -> Lifespan | None:
        """Its lifespan; None: the process has it, or nobody."""
        return None if self.instance is None else self.instance.lifespan

    def begin(self, call: "ChainCall", scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        """Begin to run this layer's plugin. Awaiting the result runs the rest; None: there is none.

        This is no coroutine itself: each one costs, and this one would only wait for the plugin's. Two things are left
        to :meth:`enter`, or to whoever has a task of its own for the call: to note out of which plugin an exception
        came, and to leave the context as it was.
        """
        if self.options.on_error == "open":
            return enter_open(self, OpenApisix(self._entries), call, scope, receive, send)
        extension = Apisix(self._entries)
        inner = call.enter(self, extension, scope, receive, send)
        current.set(extension)
        return self.app(inner, receive, send)

    async def enter(self, call: "ChainCall", scope: Scope, receive: Receive, send: Send) -> None:
        """Run this layer's plugin. Raises what the plugin raises, and notes on the call that it was this plugin."""
        token = current.set(None)
        try:
            running = self.begin(call, scope, receive, send)
            if running is not None:
                await running
        except BaseException as exc:
            call.fails(exc, self.name)
            raise
        finally:
            current.reset(token)

    def go_on(self, call: "ChainCall", scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        """Run what this layer wraps. Awaiting the result runs it; None: it is done already."""
        inner = self.inner
        if inner is None or inner is call.boundary:
            return call.innermost(scope, receive, send)
        return inner.enter(call, scope, receive, send)

    def go_inside(self, scope: Scope) -> None:
        """Put the mount's ``root_path`` before the path, as uvicorn does."""
        scope["root_path"] = self.root + scope.get("root_path", "")
        scope["path"] = self.root + scope["path"]
        if scope.get("raw_path") is not None:
            scope["raw_path"] = self.root.encode() + scope["raw_path"]

    def outside(self, scope: Scope) -> Scope:
        """Return `scope` for the next layer, which knows nothing of this mount's ``root_path``.

        A path that does not begin with it stays as the plugin set it.
        """
        root = self.root
        outer = {**scope, "root_path": _without(scope.get("root_path", ""), root)}
        if isinstance(scope.get("path"), str):
            outer["path"] = _without(scope["path"], root) or "/"
        if isinstance(scope.get("raw_path"), bytes):
            outer["raw_path"] = _without(scope["raw_path"], root.encode()) or b"/"
        return outer


def _without(path: AnyStr, root: AnyStr) -> AnyStr:
    """Return `path` without `root` before it; `path` itself where another segment begins with `root`."""
    rest = path[len(root) :]
    slash = root[:1]
    return rest if path.startswith(root) and (not rest or rest.startswith(slash)) else path
