"""The plugin by itself, and through a gateway with the routes of apisix.yaml."""

from pathlib import Path

import pytest
from asgi_bridge import ConfigurationError
from asgi_bridge.testing import Gateway, PluginClient
from starlette.testclient import TestClient

from my_plugin import bridge

NAME = "my-plugin"
ROUTES = Path(__file__).parent.parent / "apisix.yaml"


def test_it_answers_hello() -> None:
    with PluginClient(bridge, NAME, {"greeting": "hi"}) as client:
        answer = client.get("/hello")
    assert (answer.status_code, answer.json()) == (200, {"greeting": "hi"})


def test_everything_else_reaches_the_upstream_with_the_greeting() -> None:
    with PluginClient(bridge, NAME, {"greeting": "hi"}) as client:
        # the upstream of the tests answers with what it got
        got = client.post("/orders?page=2", content="body", headers={"x-greeting": "forged"}).json()
    assert (got["target"], got["body"]) == ("/orders?page=2", "body")
    assert [value for name, value in got["headers"] if name == "x-greeting"] == ["hi"]


def test_a_wrong_configuration_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="greeting"), PluginClient(bridge, NAME, {"greeting": 7}):
        pass


def test_the_route_through_a_gateway() -> None:
    with TestClient(Gateway(bridge, ROUTES)) as client:
        answer = client.get("/hello")
        headers = client.get("/orders").json()["headers"]
    assert answer.json() == {"greeting": "good day"}
    assert ["x-greeting", "good day"] in headers
