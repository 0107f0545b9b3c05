"""``server-timing`` measures the real upstream, and names its node."""

import asyncio
import json
import re
from typing import Any

import pytest
from asgi_bridge_apps import bridge
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_bridge import ConfigurationError
from asgi_bridge.testing import Gateway, PluginClient

SLOW = 0.05


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await asyncio.sleep(SLOW)
        await PlainTextResponse("slow", headers={"server-timing": "db;dur=1"})(scope, receive, send)


def gateway(conf: Any, *phases: str) -> TestClient:
    listed = {"conf": [{"name": "server-timing", "value": json.dumps(conf)}]}
    return TestClient(Gateway(bridge, [{"uri": "/*", "plugins": dict.fromkeys(phases, listed)}], upstream=slow))


def metrics(client: TestClient) -> list[str]:
    found: list[str] = client.get("/").headers.get_list("server-timing")
    return found


@pytest.mark.parametrize("request_phase", ["ext-plugin-pre-req", "ext-plugin-post-req"])
def test_the_upstreams_time_is_measured_across_the_phases(request_phase: str) -> None:
    first, second = metrics(gateway({}, request_phase, "ext-plugin-post-resp"))
    assert first == "db;dur=1"
    match = re.fullmatch(r"upstream;dur=(\d+\.\d)", second)
    assert match is not None and float(match[1]) >= SLOW * 1000


def test_as_plain_asgi() -> None:
    _, second = metrics(PluginClient(bridge, "server-timing", {"metric": "backend"}, upstream=slow))
    match = re.fullmatch(r"backend;dur=(\d+\.\d)", second)
    assert match is not None and float(match[1]) >= SLOW * 1000


def test_the_node_is_in_the_header_if_the_route_wants_it() -> None:
    _, second = metrics(gateway({"node": True}, "ext-plugin-pre-req", "ext-plugin-post-resp"))
    assert re.fullmatch(r'upstream;dur=[\d.]+;desc="upstream.test:80"', second)


def test_a_gateway_that_does_not_know_the_node() -> None:
    _, second = metrics(PluginClient(bridge, "server-timing", {"node": True}, upstream=slow))
    assert re.fullmatch(r"upstream;dur=[\d.]+", second)


def test_without_the_request_phase_there_is_no_header() -> None:
    assert metrics(gateway({}, "ext-plugin-post-resp")) == ["db;dur=1"]


def test_refuses_a_bad_name() -> None:
    with pytest.raises(ConfigurationError, match="plugin server-timing: field 'metric'"):
        PluginClient(bridge, "server-timing", {"metric": "a b"}).get("/")
