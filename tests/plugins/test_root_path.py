"""``root_path`` of a mount means what uvicorn's ``--root-path`` means, and the upstream sees nothing of it."""

import asyncio
import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError, upstream
from asgi_bridge.testing import Gateway, PluginClient
from asgi_bridge.wsgi import WSGIApp
from asgi_bridge.wsgi import upstream as wsgi_upstream

from ..doubles.waiting import until
from .calls import FakeCall, chain_of

SEEN = ("root_path", "path", "raw_path")


async def show(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the paths of the request."""
    seen = {key: scope[key].decode() if isinstance(scope[key], bytes) else scope[key] for key in SEEN}
    await JSONResponse(seen)(scope, receive, send)


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """Return the address of a uvicorn with a root path."""
    config = uvicorn.Config(show, port=0, root_path="/api/v1", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(60)


@pytest.mark.parametrize("target", ["/", "/a", "/a/b?c=d", "/a%20b", "/%C3%A4", "/api/v1", "/api/v1/a"])
def test_a_plugin_sees_what_it_sees_under_uvicorn(served: str, target: str) -> None:
    bridge = Bridge()
    bridge.mount("show", show, root_path="/api/v1")
    route = {"uri": "/*", "plugins": {"ext-plugin-pre-req": {"conf": [{"name": "show", "value": "{}"}]}}}
    with urllib.request.urlopen(served + target) as answer, TestClient(Gateway(bridge, [route])) as client:
        assert client.get(target).json() == json.load(answer)


def rooted(app: ASGIApp, root_path: str = "/api") -> Bridge:
    bridge = Bridge()
    bridge.mount("rooted", app, root_path=root_path)
    bridge.mount("plain", upstream)
    return bridge


def passed_on(bridge: Bridge, *names: str, **paths: Any) -> Scope:
    """Return the scope that reaches the upstream."""
    call = FakeCall()
    scope = {"type": "http", "method": "GET", "query_string": b"", "headers": [], "extensions": {}, **paths}
    asyncio.run(chain_of(bridge, *names).enter(call, scope, call.receive, call.send))
    return call.scopes[0]


PATHS: list[dict[str, Any]] = [
    {"path": "/", "raw_path": b"/", "root_path": ""},
    {"path": "/users/5", "raw_path": b"/users/5", "root_path": ""},
    {"path": "/api/x", "raw_path": b"/api/x", "root_path": ""},
    {"path": "/ä b", "raw_path": b"/%C3%A4%20b", "root_path": ""},
    {"path": "/", "raw_path": None, "root_path": ""},
]


@pytest.mark.parametrize("on_error", ["closed", "open"])
@pytest.mark.parametrize("paths", PATHS)
def test_what_passes_on_changes_nothing_upstream(paths: dict[str, Any], on_error: Any) -> None:
    bridge = Bridge()
    bridge.mount("a", upstream, root_path="/api", on_error=on_error)
    bridge.mount("b", upstream, root_path="/other/api", on_error=on_error)
    for names in (["a"], ["a", "b"], ["b", "a", "a"]):
        scope = passed_on(bridge, *names, **paths)
        assert {key: scope[key] for key in SEEN} == paths


def changing(**changes: Any) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream({**scope, **changes}, receive, send)

    return app


@pytest.mark.parametrize(
    ("changes", "path", "root_path"),
    [
        ({"path": "/api/other"}, "/other", ""),
        ({"path": "/api"}, "/", ""),
        ({"path": "/api/"}, "/", ""),
        # not under the root path: as the plugin set it
        ({"path": "/other"}, "/other", ""),
        ({"path": "/apiary"}, "/apiary", ""),
        ({"path": "/a", "root_path": ""}, "/a", ""),
        # a mount further inside the application
        ({"path": "/api/a/b", "root_path": "/api/a"}, "/a/b", "/a"),
    ],
)
def test_a_path_that_was_changed_goes_on_without_the_root_path(
    changes: dict[str, Any], path: str, root_path: str
) -> None:
    scope = passed_on(rooted(changing(**changes)), "rooted", "plain", path="/a", raw_path=b"/a", root_path="")

    assert (scope["path"], scope["root_path"], scope["raw_path"]) == (path, root_path, b"/a")


def test_a_scope_without_paths_passes() -> None:
    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        kept = {key: value for key, value in scope.items() if key not in SEEN}
        await upstream(kept, receive, send)

    assert passed_on(rooted(bare), "rooted", path="/a")["root_path"] == ""


def test_an_application_builds_its_urls_and_routes_with_it() -> None:
    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.url_for("page", number=5)))

    async def away(request: Request) -> RedirectResponse:
        return RedirectResponse(request.url_for("page", number=7))

    app = Starlette(routes=[Route("/page/{number}", page, name="page"), Route("/away", away), Mount("/", app=upstream)])
    with PluginClient(rooted(app), "rooted", upstream=show) as client:
        assert client.get("/page/1").text == "http://testserver/api/page/5"
        answer = client.get("/away", follow_redirects=False)
        assert answer.headers["location"] == "http://testserver/api/page/7"
        assert client.get("/else").json() == {"root_path": "", "path": "/else", "raw_path": "/else"}


@pytest.mark.parametrize("phase", ["request", "response", "both"])
def test_in_each_phase_the_upstream_is_asked_as_the_client_asked(phase: Any) -> None:
    seen: list[tuple[str, str]] = []

    class Sees:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                seen.append((scope["root_path"], scope["path"]))
            await self.app(scope, receive, send)

    bridge = Bridge()
    bridge.add_middleware("sees", Sees, root_path="/api", phase=phase)
    conf = {"conf": [{"name": "sees", "value": "{}"}]}
    places = {"request": ["pre-req"], "response": ["post-resp"], "both": ["pre-req", "post-resp"]}[phase]
    route = {"uri": "/*", "plugins": {f"ext-plugin-{place}": conf for place in places}}
    with TestClient(Gateway(bridge, [route], upstream=show)) as client:
        assert client.get("/users").json() == {"root_path": "", "path": "/users", "raw_path": "/users"}
    assert seen == [("/api", "/api/users")]


def test_wsgi_has_it_as_script_name() -> None:
    seen: list[tuple[str, str]] = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append((environ["SCRIPT_NAME"], environ["PATH_INFO"]))
        return wsgi_upstream(environ, start_response)

    with PluginClient(rooted(WSGIApp(app)), "rooted", upstream=show) as client:
        answers = [client.get(path).json()["path"] for path in ("/", "/a/b", "/ä")]

    assert seen == [("/api", "/"), ("/api", "/a/b"), ("/api", "/Ã¤")]
    assert answers == ["/", "/a/b", "/ä"]


@pytest.mark.parametrize("root_path", ["api", "/", "/api/", "/a//b", "/a b", "/a?b", "/a#b", "/%61", "/ä", 5])
def test_what_is_no_root_path_is_refused_at_the_mount(root_path: Any) -> None:
    with pytest.raises(ConfigurationError, match="^plugin rooted: option root_path: "):
        rooted(upstream, root_path)
