"""Tests of plugins, without a gateway and with one, for Starlette's TestClient.

`PluginClient` calls a plugin as plain ASGI. It needs no extra but what Starlette's TestClient needs. `Gateway` sends
the request through real frames and all of APISIX's rules. It needs the extra ``dev``, and is imported at its first use.
"""

from typing import TYPE_CHECKING

from .client import PluginClient

if TYPE_CHECKING:
    from .gateway import Gateway

__all__ = ["Gateway", "PluginClient"]

if not TYPE_CHECKING:  # a type checker would take every name for granted

    def __getattr__(name: str) -> object:
        """Import `Gateway` at its first use (PEP 562)."""
        if name != "Gateway":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .gateway import Gateway

        globals()[name] = Gateway
        return Gateway
