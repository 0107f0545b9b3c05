"""How much the runner asks of the gateway: each variable costs both of them, so calls ask for few."""

from collections.abc import Sequence
from typing import Any

import pytest
from asgi_bridge_apps import ready_made
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, upstream
from asgi_bridge.adapter.scope import RESPONSE_VARIABLES
from asgi_bridge.gateway.runner import calls
from asgi_bridge.testing import Gateway
from asgi_bridge.wire import ExtraInfoReq, Info, Var

MOST = 10
"""Variables that a call asks for by default."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Info]:
    """What the gateway was asked for: one entry for each ExtraInfo request that reached it."""
    found: list[Info] = []
    answer = calls._extra_info

    async def counting(exchange: Any, asking: ExtraInfoReq) -> bytes | None:
        assert asking.info is not None
        found.append(asking.info)
        return await answer(exchange, asking)

    monkeypatch.setattr(calls, "_extra_info", counting)
    return found


def route(pre: Sequence[tuple[str, str]] = (), resp: Sequence[tuple[str, str]] = ()) -> list[dict[str, Any]]:
    lists = {"ext-plugin-pre-req": pre, "ext-plugin-post-resp": resp}
    plugins = {
        place: {"conf": [{"name": name, "value": value} for name, value in entries]}
        for place, entries in lists.items()
        if entries
    }
    return [{"id": "7", "uri": "/*", "plugins": plugins}]


def get(bridge: Bridge, routes: list[dict[str, Any]], target: str = "/x?a=1", **headers: str) -> Any:
    with TestClient(Gateway(bridge, routes, upstream=PlainTextResponse("page" * 400))) as client:
        answer = client.get(target, headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert answer.status_code == 200
    return answer


def names(asked: list[Info]) -> list[str]:
    return [(info.name or b"").decode() if isinstance(info, Var) else type(info).__name__ for info in asked]


def seeing(scopes: list[Scope]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scopes.append(dict(scope))
        await upstream(scope, receive, send)

    return app


def test_an_unknown_plugin_of_the_response_phase_costs_ten_asks(asked: list[Info]) -> None:
    scopes: list[Scope] = []
    bridge = Bridge()
    bridge.mount("seeing", seeing(scopes), phase="response")
    get(bridge, route(resp=[("seeing", "")]), "/%78//y?a=%20b", accept_encoding="br", authorization="Basic eDp5")
    assert len(asked) == MOST
    (scope,) = scopes
    shown = ("method", "path", "raw_path", "query_string", "http_version", "scheme", "server", "headers")
    assert {key: scope[key] for key in shown} == {
        "method": "GET",
        "path": "/x/y",
        "raw_path": b"/%78//y",
        "query_string": b"a=%20b",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("testserver", 80),
        "headers": [(b"host", b"testserver"), (b"accept-encoding", b"br"), (b"authorization", b"Basic eDp5")],
    }


def test_what_is_known_of_a_middleware_is_not_asked_for_in_vain(asked: list[Info]) -> None:
    bridge = Bridge()
    bridge.add_middleware("gzip", GZipMiddleware, phase="response")
    answer = get(bridge, route(resp=[("gzip", "{}")]), accept_encoding="gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert names(asked) == ["request_id", "request", "uri", "remote_addr", "scheme", "http_accept_encoding", "RespBody"]


def test_headers_of_several_plugins_are_asked_for_once(asked: list[Info]) -> None:
    bridge = Bridge()
    for name in ("a", "b", "c"):
        bridge.mount(name, upstream, phase="response")
    get(bridge, route(resp=[("a", ""), ("b", ""), ("c", "")]))
    assert len(asked) == MOST


def test_both_phases_of_a_plugin_ask_three_times_together(asked: list[Info]) -> None:
    bridge = Bridge()
    bridge.mount("both", upstream, phase="both", response_body=False)
    get(bridge, route([("both", "")], [("both", "")]))
    assert names(asked) == ["request_id", "request", "request_id"]


def test_no_ready_made_plugin_asks_for_more() -> None:
    plugins = ready_made().plugins.values()
    asks = {
        plugin.name: len(RESPONSE_VARIABLES) + len({*plugin.options.request_headers})
        for plugin in plugins
        if plugin.options.phase != "request"
    }
    assert asks["gzip"] == asks["etag"] == len(RESPONSE_VARIABLES) + 1
    assert max(asks.values()) <= MOST, asks
