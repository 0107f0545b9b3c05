"""HTTP clients of the gateway, and the routes that they ask for."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from asgi_bridge.gateway import GatewayApp, read_routes

__all__ = ["client_of", "routes_of"]

UPSTREAM = {"type": "roundrobin", "nodes": {"upstream.test:80": 1}}


def routes_of(*routes: dict[str, Any]) -> Any:
    """Return routes for a gateway, all of them with one upstream."""
    return read_routes({"routes": [{**route, "upstream": UPSTREAM} for route in routes]})


@contextlib.asynccontextmanager
async def client_of(gateway: GatewayApp) -> AsyncIterator[httpx2.AsyncClient]:
    """Give a client of `gateway`, which keeps its connections to the runner meanwhile."""
    gateway.pool.start()
    try:
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=gateway), base_url="http://gateway.test"
        ) as client:
            yield client
    finally:
        await gateway.pool.stop()
