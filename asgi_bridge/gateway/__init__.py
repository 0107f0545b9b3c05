"""APISIX's half of the protocol over HTTP: a gateway to try plugins on, for ``asgi-bridge dev`` and for tests."""

from asgi_bridge.extras import extra_of

try:
    from asgi_bridge.gateway.app import GatewayApp
    from asgi_bridge.gateway.routes.places import Finding
    from asgi_bridge.gateway.routes.reader import load_routes, parse_routes, read_routes
    from asgi_bridge.gateway.routes.route import ExtPlugin, Node, Plugins, Route, Routes, Upstream
    from asgi_bridge.gateway.runner.calls import Call
    from asgi_bridge.gateway.runner.connection import Limits
    from asgi_bridge.gateway.upstream.echo import echo
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
