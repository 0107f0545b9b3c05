"""APISIX's half of the protocol over HTTP: a gateway to try plugins on, for ``asgi-bridge dev`` and for tests."""

from ..extras import NamesExtra

with NamesExtra("asgi_bridge.gateway"):
    from .app import GatewayApp
    from .routes.load import load_routes, parse_routes, read_routes
    from .routes.places import Finding
    from .routes.route import ExtPlugin, Node, Plugins, Route, Routes, Upstream
    from .runner.calls import Call
    from .runner.connection import Limits
    from .upstream.echo import echo

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
