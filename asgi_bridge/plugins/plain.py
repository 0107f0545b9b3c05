"""Calls without a gateway: plugins around an upstream that is an ASGI application, for tests and probes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

from starlette.types import ASGIApp, Receive, Scope, Send

from .chain import Chain

if TYPE_CHECKING:
    from .extension import Apisix
    from .layer import Layer, Step
    from .state import Apart, State

__all__ = ["PlainCall"]


class PlainCall:
    """One request through a chain in plain ASGI.

    Args:
        phase: ``"request"`` or ``"response"``.
        chain: the plugins.
        upstream: the innermost application.
        upstream_state: its lifespan state.
        variables: what ``var`` gives, name → value.

    Attributes:
        wrapped_send: a plugin handed on another `send` than it was given.
    """

    def __init__(
        self,
        phase: str,
        chain: Chain,
        upstream: ASGIApp,
        upstream_state: dict[str, Any],
        variables: Mapping[str, bytes | str | None],
    ) -> None:
        self.phase = phase
        self.route_id = chain.route_id
        self._upstream = upstream
        self._upstream_state = upstream_state
        self._variables = variables
        # where the runner has asked for it before the plugins run
        asked = chain.exact or chain.both or phase == "response"
        found = self._variable("request_id") if asked else None
        self.request_id = None if found is None else found.decode("latin-1")
        self.deadline = float("inf")
        self.late = ""
        self.changed_body = False
        self.culprit: tuple[BaseException, str] | None = None
        self.extensions: list[Apisix] = []
        self.end: Step | None = None
        self.state: State | None = None
        self.apart: Apart[Layer] | None = None
        self.wrapped_send = False

    @overload
    async def var(self, name: str, /) -> bytes | None: ...
    @overload
    async def var(self, name: str, second: str, /, *more: str) -> dict[str, bytes | None]: ...
    async def var(self, *names: str) -> bytes | dict[str, bytes | None] | None:
        found = {name: self._variable(name) for name in names}
        if found.get("request_id") is not None:
            for extension in self.extensions:
                extension["request_id"] = (found["request_id"] or b"").decode("latin-1")
        return found if len(names) > 1 else found[names[0]]

    def _variable(self, name: str) -> bytes | None:
        value = self._variables.get(name)
        return value.encode() if isinstance(value, str) else value

    async def upstream(self, scope: Scope, receive: Receive, send: Send) -> None:
        extensions = {name: value for name, value in (scope.get("extensions") or {}).items() if name != "apisix"}
        inner = {**scope, "extensions": extensions, "state": self._upstream_state.copy()}
        inner.pop("app", None)
        await self._upstream(inner, receive, send)

    def wraps_send(self, layer: object) -> None:
        """Notes it: the response is the upstream's own in any case."""
        self.wrapped_send = True
