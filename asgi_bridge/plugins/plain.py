"""Calls without a gateway: plugins around an upstream that is an ASGI application, for tests and probes."""

from collections.abc import Mapping
from typing import Any, overload

from starlette.types import ASGIApp, Receive, Scope, Send

from .call import ChainCall
from .chain import Chain
from .layer import Layer

__all__ = ["PlainCall"]


class PlainCall(ChainCall):
    """One request through a chain in plain ASGI.

    Args:
        phase: ``"request"`` or ``"response"``.
        chain: The plugins.
        upstream: What stands behind the last layer.
        upstream_state: Its lifespan state.
        variables: What ``var`` gives, name → value.

    Attributes:
        wrapped_send: True: a plugin handed on another `send` than it was given.
    """

    def __init__(
        self,
        phase: str,
        chain: Chain,
        upstream: ASGIApp,
        upstream_state: dict[str, Any],
        variables: Mapping[str, bytes | str | None],
    ) -> None:
        super().__init__(chain)
        self.phase = phase
        self._upstream = upstream
        self._upstream_state = upstream_state
        self._variables = variables
        # the runner has asked for it before the plugins of such calls run
        asked = chain.exact or chain.both or phase == "response"
        found = self._variable("request_id") if asked else None
        self.request_id = None if found is None else found.decode("latin-1")
        self.wrapped_send = False

    @overload
    async def var(self, name: str, /) -> bytes | None: ...
    @overload
    async def var(self, name: str, second: str, /, *more: str) -> dict[str, bytes | None]: ...
    async def var(self, *names: str) -> bytes | dict[str, bytes | None] | None:
        """Return variables out of those that it was made with."""
        found = {name: self._variable(name) for name in names}
        request_id = found.get("request_id")
        if request_id is not None:
            self.tell_request_id(request_id.decode("latin-1"))
        return found if len(names) > 1 else found[names[0]]

    def _variable(self, name: str) -> bytes | None:
        value = self._variables.get(name)
        return value.encode() if isinstance(value, str) else value

    async def innermost(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the upstream, with a scope as a server would make it."""
        extensions = {name: value for name, value in (scope.get("extensions") or {}).items() if name != "apisix"}
        inner = {**scope, "extensions": extensions, "state": self._upstream_state.copy()}
        inner.pop("app", None)
        await self._upstream(inner, receive, send)

    def wraps_send(self, layer: Layer) -> None:
        """Note it. The response is the upstream's own in any case."""
        self.wrapped_send = True
