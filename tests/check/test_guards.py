"""FastAPI's dependencies do not run before a mounted upstream."""

from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException

from asgi_bridge import upstream
from asgi_bridge.check import check_routes
from asgi_bridge.gateway import read_routes
from asgi_bridge.testing import PluginClient
from tests.check.bridges import make_bridge


def nobody() -> None:
    raise HTTPException(401)


def app_of(*dependencies: Any, path: str | None = "/") -> FastAPI:
    app = FastAPI(dependencies=list(dependencies))
    app.get("/own")(lambda: "own")
    if path is not None:
        app.mount(path, upstream)
    return app


def warnings_of(app: FastAPI, lists: int = 1) -> list[tuple[str, str | None, str | None, str]]:
    listed = {"conf": [{"name": "login", "value": "{}"}] * lists}
    routes = read_routes({"routes": [{"id": "r", "uri": "/*", "plugins": {"ext-plugin-pre-req": listed}}]})
    findings = check_routes(routes, make_bridge(login=app).plugins)
    return [(each.severity, each.route, each.plugin, each.message) for each in findings]


@pytest.mark.parametrize(("path", "shown"), [("/", "/"), ("/api", "/api")])
def test_dependencies_that_guard_no_mounted_upstream_are_a_warning(path: str, shown: str) -> None:
    app = app_of(Depends(nobody), path=path)
    with PluginClient(make_bridge(login=app), "login") as client:
        assert (client.get("/own").status_code, client.get(path).status_code) == (401, 200)

    assert warnings_of(app, lists=2) == [
        (
            "warning", "r", "login",
            f"route 'r': ext-plugin-pre-req.conf[0]: plugin login: requests that app.mount({shown!r}, upstream) passes "
            "on run no dependencies of the application, so these guard nothing there; check in a middleware, or in a "
            "route whose response calls upstream (examples/fastapi_auth)",
        )
    ]  # fmt: skip


def test_an_application_without_either_is_not_mentioned() -> None:
    included = FastAPI()
    included.include_router(APIRouter(dependencies=[Depends(nobody)]))
    included.mount("/", upstream)
    assert [warnings_of(app) for app in (app_of(), app_of(Depends(nobody), path=None), included)] == [[], [], []]


def test_a_plugin_that_no_route_lists_is_not_mentioned() -> None:
    plugins = make_bridge(login=app_of(Depends(nobody))).plugins
    assert check_routes(read_routes({"routes": [{"uri": "/*", "plugins": {}}]}), plugins) == []
