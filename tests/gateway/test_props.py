"""Plugins and variables that an application gets beside those of the stand-in."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from asgi_bridge.errors import ConfigurationError
from asgi_bridge.gateway import GatewayApp, echo, read_routes
from asgi_bridge.wire.messages import HTTPReqCallReq, HTTPReqCallResp, Message, Var
from tests.doubles.runner_double import Ask, RunnerDouble
from tests.gateway.props import props
from tests.gateway.test_app import PRE, client, routes

SET = "return function(conf, ctx) require('apisix.core').request.set_header(ctx, 'X-A', '1') end"


@pytest.mark.parametrize(
    ("conf", "part"),
    [
        ({}, "only phase: rewrite with a list of functions"),
        ({"phase": "rewrite", "functions": ["x"]}, "the stand-in runs no Lua"),
    ],
)
def test_what_is_wrong_with_a_further_plugin_is_named(conf: dict[str, Any], part: str) -> None:
    with props(), pytest.raises(ConfigurationError, match=part):
        routes({"serverless-pre-function": conf})


def test_a_further_plugin_runs(runner: RunnerDouble) -> None:
    with props():
        answer = client(runner, {"serverless-pre-function": {"phase": "rewrite", "functions": [SET]}}).get("/x")
    assert ["x-a", "1"] in answer.json()["headers"]


def test_further_variables_can_be_asked_for_and_compared(runner: RunnerDouble) -> None:
    asked: list[bytes | None] = []

    def answer(message: Message, ask: Ask) -> Message:
        assert isinstance(message, HTTPReqCallReq)
        asked.extend([ask(Var(b"tcpinfo_rtt")), ask(Var(b"uri"))])
        return HTTPReqCallResp(message.id)

    runner.calls(answer)
    up = {"nodes": {"up.test:80": 1}}
    route = {"uri": "/*", "plugins": PRE, "upstream": up, "vars": [["tcpinfo_rtt", "==", "30"]]}
    caller = TestClient(GatewayApp(read_routes({"routes": [route]}), runner.path, upstream=echo))
    assert caller.get("/x").status_code == 404
    with props():
        assert caller.get("/x").status_code == 200
    assert asked == [b"30", b"/x"]
