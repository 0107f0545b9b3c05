"""Small route files as values, each with one route."""

from typing import Any

__all__ = ["builtin", "ext", "route", "upstream"]


def route(**fields: Any) -> dict[str, Any]:
    """One route with these fields."""
    return {"routes": [{"id": "x", "uri": "/", "plugins": {}, **fields}]}


def ext(**conf: Any) -> dict[str, Any]:
    """One route with this ``ext-plugin-pre-req``."""
    return route(plugins={"ext-plugin-pre-req": conf})


def upstream(**fields: Any) -> dict[str, Any]:
    """One route with an upstream of these fields."""
    return route(upstream={"nodes": {"h:1": 1}, **fields})


def builtin(name: str, **conf: Any) -> dict[str, Any]:
    """One route with one of APISIX's own plugins."""
    return route(plugins={name: conf})
