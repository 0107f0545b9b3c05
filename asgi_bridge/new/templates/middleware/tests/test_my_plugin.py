"""The plugin by itself, and through a gateway with the routes of apisix.yaml."""

from pathlib import Path

import pytest
from asgi_bridge import ConfigurationError
from asgi_bridge.testing import Gateway, PluginClient
from starlette.testclient import TestClient

from my_plugin import bridge

NAME = "my-plugin"
ROUTES = Path(__file__).parent.parent / "apisix.yaml"


def test_the_upstream_gets_the_greeting() -> None:
    with PluginClient(bridge, NAME, {"greeting": "hi"}) as client:
        # the upstream of the tests answers with what it got
        headers = client.get("/orders", headers={"x_greeting": "forged"}).json()["headers"]
    assert [value for name, value in headers if name in ("x-greeting", "x_greeting")] == ["hi"]


@pytest.mark.parametrize(("path", "status"), [("/admin", 403), ("/admin/users", 403), ("/administer", 200)])
def test_closed_paths_are_refused(path: str, status: int) -> None:
    with PluginClient(bridge, NAME, {"closed": ["/admin/"]}) as client:
        assert client.get(path).status_code == status


def test_a_wrong_configuration_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="greeting"), PluginClient(bridge, NAME, {"greeting": 7}):
        pass


def test_the_route_through_a_gateway() -> None:
    with TestClient(Gateway(bridge, ROUTES)) as client:
        headers = client.get("/orders").json()["headers"]
        refused = client.get("/admin/users")
    assert ["x-greeting", "good day"] in headers
    assert (refused.status_code, refused.text) == (403, "This is closed.\n")
