"""FastAPI's dependencies do not run before a mounted upstream."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, PassOn, upstream
from asgi_bridge.check import check_routes
from asgi_bridge.compat import Subject, examine, report
from asgi_bridge.gateway import read_routes
from asgi_bridge.testing import PluginClient
from tests.check.bridges import make_bridge


class Gate:
    """A middleware that may check what the dependencies do not."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


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


def mounted_in_a_router(dependencies: list[Any], outside: list[Any]) -> FastAPI:
    router = APIRouter(dependencies=dependencies)
    router.get("/own")(lambda: "own")
    router.mount("/api", upstream)
    app = FastAPI()
    app.include_router(router, dependencies=outside)
    return app


def mounted_below(sub: Any) -> FastAPI:
    app = app_of(Depends(nobody), path=None)
    app.mount("/api", sub)
    return app


def by_host() -> FastAPI:
    app = app_of(Depends(nobody), path=None)
    app.host("testserver", upstream)
    return app


def by_default() -> FastAPI:
    app = app_of(Depends(nobody), path=None)
    app.router.default = upstream
    return app


UNGUARDED = [
    (lambda: app_of(Depends(nobody)), "app.mount('/', upstream)"),
    (lambda: app_of(Depends(nobody), path="/api"), "app.mount('/api', upstream)"),
    (lambda: mounted_in_a_router([Depends(nobody)], []), "app.mount('/api', upstream)"),
    (lambda: mounted_in_a_router([], [Depends(nobody)]), "app.mount('/api', upstream)"),
    (lambda: mounted_below(app_of()), "app.mount('/', upstream)"),
    (lambda: mounted_below(Starlette(routes=[Mount("/", upstream)])), "app.mount('/', upstream)"),
    (lambda: mounted_below(Router(default=upstream)), "app.router.default = upstream"),
    (by_host, "app.host('testserver', upstream)"),
    (by_default, "app.router.default = upstream"),
]
ids = [f"{number} {way}" for number, (_, way) in enumerate(UNGUARDED)]


def text_about(way: str) -> str:
    return (
        f"requests that {way} passes on run no dependencies of the application, so these guard nothing there; write a "
        "route that returns PassOn() in its place, or check in a middleware (docs/passing.md)"
    )


@pytest.mark.parametrize(("make", "way"), UNGUARDED, ids=ids)
def test_dependencies_that_guard_no_mounted_upstream_are_a_warning(make: Callable[[], FastAPI], way: str) -> None:
    app = make()
    with PluginClient(make_bridge(login=app), "login") as client:
        assert (client.get("/own").status_code, client.get("/api").status_code) == (401, 200)

    message = f"route 'r': ext-plugin-pre-req.conf[0]: plugin login: {text_about(way)}"
    assert warnings_of(app, lists=2) == [("warning", "r", "login", message)]


@pytest.mark.parametrize(("make", "way"), UNGUARDED, ids=ids)
def test_compat_says_it_too_also_of_what_a_factory_makes(make: Callable[[], FastAPI], way: str) -> None:
    def factory(conf: dict[str, str]) -> FastAPI:
        return make()

    for found in (make(), factory):
        bridge = Bridge()
        bridge.add("login", found)
        subject, findings = examine(Subject("gate:login", bridge.plugins["login"], "app"), "{}")
        assert f"  guards nothing: {text_about(way)}" in list(report(subject, {}, findings))


def test_a_route_that_passes_on_is_guarded() -> None:
    app = app_of(Depends(nobody), path=None)
    app.api_route("/{path:path}", methods=["GET", "POST"])(lambda: PassOn())
    with PluginClient(make_bridge(login=app), "login") as client:
        assert (client.get("/own").status_code, client.get("/api").status_code) == (401, 401)
    assert warnings_of(app) == []


def test_an_application_without_either_is_not_mentioned() -> None:
    included = FastAPI()
    included.include_router(APIRouter(dependencies=[Depends(nobody)]))
    included.mount("/", upstream)
    behind = FastAPI(dependencies=[Depends(nobody)], routes=[Mount("/", upstream, middleware=[Middleware(Gate)])])
    apps = [app_of(), app_of(Depends(nobody), path=None), included, behind, mounted_in_a_router([], [])]
    assert [warnings_of(app) for app in apps] == [[]] * 5


def test_a_plugin_that_no_route_lists_is_not_mentioned() -> None:
    plugins = make_bridge(login=app_of(Depends(nobody))).plugins
    assert check_routes(read_routes({"routes": [{"uri": "/*", "plugins": {}}]}), plugins) == []
