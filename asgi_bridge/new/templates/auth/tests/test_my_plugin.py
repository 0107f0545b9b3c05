"""The plugin by itself, and through a gateway with the routes of apisix.yaml."""

import hashlib
from pathlib import Path

import pytest
from asgi_bridge import ConfigurationError
from asgi_bridge.testing import Gateway, PluginClient
from starlette.testclient import TestClient

from my_plugin import bridge

NAME = "my-plugin"
ROUTES = Path(__file__).parent.parent / "apisix.yaml"
CONF = {"users": {hashlib.sha256(b"bob-secret").hexdigest(): "bob"}}


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "guessed"}, {"x-user": "root"}])
def test_without_a_valid_key_it_is_401(headers: dict[str, str]) -> None:
    with PluginClient(bridge, NAME, CONF) as client:
        answer = client.get("/orders", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.json() == {"title": "Unauthorized", "status": 401, "detail": "Send a valid x-api-key."}


def test_with_a_key_the_upstream_gets_the_user() -> None:
    forged = [("x-api-key", "bob-secret"), ("X-User", "root"), ("x_user", "root")]
    with PluginClient(bridge, NAME, CONF) as client:
        # the upstream of the tests answers with what it got
        got = client.post("/orders?page=2", content="body", headers=forged).json()
    assert (got["target"], got["body"]) == ("/orders?page=2", "body")
    names = ("x-user", "x_user", "x-api-key")
    assert [header for header in got["headers"] if header[0] in names] == [["x-user", "bob"]]


@pytest.mark.parametrize("conf", [{}, {"users": ["bob"]}])
def test_a_wrong_configuration_is_refused(conf: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="users"), PluginClient(bridge, NAME, conf):
        pass


def test_the_route_through_a_gateway() -> None:
    with TestClient(Gateway(bridge, ROUTES)) as client:
        refused = client.get("/orders")
        headers = client.get("/orders", headers={"x-api-key": "ada-secret"}).json()["headers"]
    assert refused.status_code == 401
    assert ["x-user", "ada"] in headers
