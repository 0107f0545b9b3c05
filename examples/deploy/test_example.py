"""The plugin of the deployments answers its own path, and marks what the upstream answers."""

from pathlib import Path

from starlette.testclient import TestClient

from asgi_bridge.testing import Gateway

from .gate import bridge

ROUTES = Path(__file__).parent / "apisix.yaml"


def test_the_plugin_works_with_the_routes_of_the_deployments() -> None:
    with TestClient(Gateway(bridge, ROUTES)) as client:
        own, other = client.get("/gate"), client.get("/anything")

    assert (own.status_code, own.json(), own.headers["x-gate"]) == (200, {"status": "ok"}, "1")
    assert (other.status_code, other.json()["path"], other.headers["x-gate"]) == (200, "/anything", "1")
