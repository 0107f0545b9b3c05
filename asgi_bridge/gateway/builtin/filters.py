"""``_meta.filter``: whether a plugin runs for a request (``meta_filter`` in plugin.lua)."""

from collections.abc import Iterable, Mapping
from typing import Any

from asgi_bridge.gateway.exchange import Exchange
from asgi_bridge.gateway.nginx.headers import Header
from asgi_bridge.gateway.nginx.uri import raw
from asgi_bridge.gateway.nginx.variables import variable
from asgi_bridge.gateway.routes.expressions import Lookup
from asgi_bridge.gateway.routes.route import Plugins

__all__ = ["lookup", "running", "runs"]


def lookup(exchange: Exchange, status: int | None = None, headers: Iterable[Header] = ()) -> Lookup:
    """Give the way to a request's variables.

    Args:
        exchange: the request.
        status, headers: of its response, once there is one.
    """
    sent = [(name.lower().replace(b"-", b"_"), value) for name, value in headers]

    async def look(name: str) -> bytes | None:
        if status is not None:
            if name.lower() in ("status", "upstream_status"):
                return str(status).encode()
            for prefix in ("sent_http_", "upstream_http_"):
                if name.lower().startswith(prefix):
                    wanted = raw(name.lower().removeprefix(prefix))
                    return next((value for each, value in sent if each == wanted), None)
        return await variable(exchange, raw(name))

    return look


async def runs(exchange: Exchange, plugins: Plugins, name: str, look: Lookup | None = None) -> bool:
    """Whether the plugin's filter holds. The first answer counts for the rest of the request.

    Args:
        exchange: the request.
        plugins: those that the plugin is one of.
        name: the plugin's.
        look: the way to the variables; None: those of the request.
    """
    expression = plugins.filters.get(name)
    if expression is None:
        return True
    # with a consumer the configuration is another one, whose filters are asked anew
    key = plugins is exchange.global_rules, exchange.consumer is not None, name
    if key not in exchange.filtered:
        exchange.filtered[key] = await expression.holds(look or lookup(exchange))
    return exchange.filtered[key]


async def running(
    exchange: Exchange, plugins: Plugins, status: int, headers: Iterable[Header] = ()
) -> Mapping[str, Mapping[str, Any]]:
    """Give those of the emulated plugins that run for the response."""
    if not plugins.filters:
        return plugins.builtin
    look = lookup(exchange, status, headers)
    return {name: conf for name, conf in plugins.builtin.items() if await runs(exchange, plugins, name, look)}
