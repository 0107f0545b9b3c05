"""APISIX's half of the protocol over HTTP: a gateway to try plugins on, for ``asgi-bridge dev`` and for tests."""

from ..extras import extra_of

try:
    from .app import GatewayApp
    from .routes.load import load_routes, parse_routes, read_routes
    from .routes.places import Finding
    from .routes.route import ExtPlugin, Node, Plugins, Route, Routes, Upstream
    from .runner.calls import Call
    from .runner.connection import Limits
    from .upstream.echo import echo
except ModuleNotFoundError as exc:
    missing = extra_of(exc)
    if not missing:
        raise
    raise ModuleNotFoundError(f"asgi_bridge.gateway {missing}", name=exc.name) from exc

__all__ = [
    "Call",
    "ExtPlugin",
    "Finding",
    "GatewayApp",
    "Limits",
    "Node",
    "Plugins",
    "Route",
    "Routes",
    "Upstream",
    "echo",
    "load_routes",
    "parse_routes",
    "read_routes",
]
