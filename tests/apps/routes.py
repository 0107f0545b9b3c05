"""A gateway with one route, and the headers that its upstream got."""

import json
from typing import Any

import httpx2

from asgi_bridge import Bridge
from asgi_bridge.testing import Gateway

__all__ = ["gateway", "sent"]


def gateway(bridge: Bridge, plugin: str, conf: Any, *, both: bool = False) -> Gateway:
    """Return a gateway with one route that lists the plugin, in the request phase or in `both` phases."""
    entry = {"conf": [{"name": plugin, "value": json.dumps(conf)}]}
    phases = ["ext-plugin-pre-req", "ext-plugin-post-resp"] if both else ["ext-plugin-pre-req"]
    return Gateway(bridge, [{"id": "r", "uri": "/*", "plugins": dict.fromkeys(phases, entry)}])


def sent(answer: httpx2.Response, *names: str) -> list[list[str]]:
    """Return the headers of `names` that the echoing upstream got."""
    assert answer.status_code == 200, answer.text
    return [pair for pair in answer.json()["headers"] if pair[0] in names]
