"""``scope["state"]`` is one object for all layers of a request, except for keys that two lifespans set."""

import asyncio
import contextlib
import functools
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, upstream
from asgi_bridge.plugins import ConfigurationStore
from asgi_bridge.plugins.state import Overlay, States
from asgi_bridge.testing import Gateway, PluginClient

from .calls import KEY, FakeCall

CallNext = Callable[[Request], Awaitable[Response]]
Logged = Callable[[], list[str]]


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Logged:
    def found() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    return found


class Sees:
    """A middleware that notes the state before and after what it wraps, and puts a key of its own into it."""

    def __init__(self, app: ASGIApp, log: list[Any], before: dict[str, Any], after: dict[str, Any]) -> None:
        self.app, self.log, self.before, self.after = app, log, before, after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.log.append(dict(scope["state"]))
        scope["state"].update(self.before)
        await self.app(scope, receive, send)
        scope["state"].update(self.after)
        self.log.append(dict(scope["state"]))


def test_what_one_layer_puts_there_is_seen_by_all_others_on_the_way_in_and_out() -> None:
    bridge = Bridge()
    logs: dict[str, list[Any]] = {"a": [], "b": [], "c": []}
    for name, log in logs.items():
        defaults = {"log": log, "before": {name: "in"}, "after": {name: "out"}}
        bridge.add_middleware(name, Sees, defaults=defaults)
    client = PluginClient(bridge, [("a", None), ("b", None), ("c", None)])
    for _ in range(2):
        client.get("/")

    once = {
        "a": [{}, {"a": "out", "b": "out", "c": "out"}],
        "b": [{"a": "in"}, {"a": "in", "b": "out", "c": "out"}],
        "c": [{"a": "in", "b": "in"}, {"a": "in", "b": "in", "c": "out"}],
    }
    assert logs == {name: [*seen, *seen] for name, seen in once.items()}


async def authenticate(request: Request, call_next: CallNext) -> Response:
    request.state.user = request.headers.get("x-user", "nobody")
    return await call_next(request)


class AccessLog:
    def __init__(self) -> None:
        self.users: list[str] = []

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        self.users.append(request.state.user)
        response.headers["x-seen"] = request.state.user
        return response


def route(**lists: Sequence[str]) -> dict[str, Any]:
    plugins = {
        f"ext-plugin-{place.replace('_', '-')}": {"conf": [{"name": name, "value": "{}"} for name in names]}
        for place, names in lists.items()
    }
    return {"uri": "/*", "plugins": plugins}


@pytest.mark.parametrize(
    "lists",
    [
        {"pre_req": ["log", "auth"], "post_resp": ["log", "auth"]},
        {"pre_req": ["log", "auth"], "post_resp": ["auth", "log"]},
        # in a call each, both parked
        {"pre_req": ["log"], "post_req": ["auth"], "post_resp": ["log", "auth"]},
        # the response half of one, and the other in the response phase alone
        {"pre_req": ["auth"], "post_resp": ["auth", "plain-log"]},
        # both in the response phase alone
        {"post_resp": ["plain-log", "plain-auth"]},
        {"post_resp": ["log", "auth"]},
    ],
)
def test_authentication_is_seen_by_an_access_log_in_whatever_lists_they_stand(lists: dict[str, list[str]]) -> None:
    bridge, log = Bridge(), AccessLog()
    headers = ["x-user"]
    for name, dispatch in (("auth", authenticate), ("log", log)):
        defaults = {"dispatch": dispatch}
        bridge.add_middleware(name, BaseHTTPMiddleware, defaults=defaults, phase="both", request_headers=headers)
        bridge.add_middleware(f"plain-{name}", BaseHTTPMiddleware, defaults=defaults, request_headers=headers)
    with TestClient(Gateway(bridge, [route(**lists)])) as client:
        seen = [client.get("/", headers={"x-user": user}).headers["x-seen"] for user in ("ann", "bob")]

    assert seen == log.users == ["ann", "bob"]


def living(**state: Any) -> ASGIApp:
    """An application whose lifespan sets `state`. It notes a request's state and adds to it before it passes it on."""

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        yield state

    async def show(scope: Scope, receive: Receive, send: Send) -> None:
        seen = scope["app"].state.seen
        seen.append(dict(scope["state"]))
        for key in state:
            scope["state"][key] = f"{state[key]} changed"
        await upstream(scope, receive, send)
        seen.append(dict(scope["state"]))

    app = Starlette(lifespan=life, routes=[Mount("/", show)])
    app.state.seen = []
    return app


def seen(app: Any) -> list[dict[str, Any]]:
    return app.state.seen  # type: ignore[no-any-return]


def through(bridge: Bridge, *names: str, calls: int = 1) -> None:
    async def main() -> None:
        store = ConfigurationStore(bridge.plugins)
        await store.start()
        chain = store.find(await store.prepare(KEY, [(name.encode(), b"") for name in names]))
        assert chain is not None
        for _ in range(calls):
            call = FakeCall()
            await call.through(chain)
            assert call.status() == 200
        await store.close()

    asyncio.run(main())


@pytest.mark.parametrize("made", [False, True])
def test_all_begin_with_the_lifespan_states_of_all(made: bool, warned: Logged) -> None:
    bridge, apps = Bridge(), {"a": living(pool=1), "b": living(cache=[2])}
    for name, app in apps.items():
        if made:
            bridge.plugin(name)(functools.partial(lambda made: made, app))
        else:
            bridge.mount(name, app)
    through(bridge, "a", "b", calls=2)

    changed = {"pool": "1 changed", "cache": "[2] changed"}
    assert seen(apps["a"]) == [{"pool": 1, "cache": [2]}, changed] * 2
    assert seen(apps["b"]) == [{"pool": "1 changed", "cache": [2]}, changed] * 2
    assert warned() == []


def test_a_key_that_two_lifespans_give_is_apart_and_warned_of_once(warned: Logged) -> None:
    bridge = Bridge()
    apps = {"a": living(db="of a", x=1), "b": living(db="of b", y=2), "c": living(z=3)}
    for name, app in apps.items():
        bridge.mount(name, app)
    through(bridge, "a", "c", "b", calls=2)

    shared = {"x": "1 changed", "y": "2 changed", "z": "3 changed"}
    assert (
        seen(apps["a"])
        == [
            {"db": "of a", "x": 1, "y": 2, "z": 3},
            {"db": "of a changed", **shared},
        ]
        * 2
    )
    assert seen(apps["c"]) == [{"x": "1 changed", "y": 2, "z": 3}, shared] * 2
    assert (
        seen(apps["b"])
        == [
            {"db": "of b", "x": "1 changed", "y": 2, "z": "3 changed"},
            {"db": "of b changed", **shared},
        ]
        * 2
    )
    assert warned() == [
        "plugin a, c, b: the lifespans of a and b both give scope['state'] the key 'db': each of the two sees its own "
        "value, and no other plugin sees either"
    ]


def test_one_application_under_two_names_has_one_state(warned: Logged) -> None:
    bridge, app = Bridge(), living(db="one")
    bridge.mount("a", app)
    bridge.mount("b", app)
    through(bridge, "a", "b")

    assert seen(app) == [{"db": "one"}, {"db": "one changed"}, {"db": "one changed"}, {"db": "one changed"}]
    assert warned() == []


def test_three_lifespans_with_one_key() -> None:
    bridge, apps = Bridge(), [living(db=number) for number in range(3)]
    for number, app in enumerate(apps):
        bridge.mount(f"p{number}", app)
    through(bridge, "p0", "p1", "p2")

    assert [seen(app) for app in apps] == [[{"db": number}, {"db": f"{number} changed"}] for number in range(3)]


def test_a_key_that_lifespans_of_two_lists_give_is_apart_too(warned: Logged) -> None:
    bridge = Bridge()
    apps = {"half": living(x=1), "inner": living(db="of inner"), "form": living(db="of form", y=2)}
    bridge.mount("half", apps["half"], phase="both")
    bridge.mount("inner", apps["inner"])
    bridge.mount("form", apps["form"])
    with TestClient(Gateway(bridge, [route(pre_req=["half", "inner"], post_resp=["half", "form"])])) as client:
        assert [client.get("/").status_code for _ in range(2)] == [200, 200]

    last = {"x": "1 changed", "db": "of inner changed", "y": "2 changed"}
    assert seen(apps["half"]) == [{"x": 1, "db": "of inner"}, last] * 2
    assert seen(apps["inner"]) == [{"x": "1 changed", "db": "of inner"}, last] * 2
    assert (
        seen(apps["form"])
        == [
            {"db": "of form", "x": "1 changed", "y": 2},
            {"db": "of form changed", "x": "1 changed", "y": "2 changed"},
        ]
        * 2
    )
    assert [line for line in warned() if "'db'" in line] == [
        "plugin half, form: its lifespan and that of another plugin of the route (half, inner) both give "
        "scope['state'] the key 'db': each sees its own value"
    ]


def test_what_a_lifespan_puts_there_later_reaches_the_next_request() -> None:
    states: list[dict[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            states.append(scope["state"])
            assert (await receive())["type"] == "lifespan.startup"
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            await send({"type": "lifespan.shutdown.complete"})
            return
        answer = json.dumps(scope["state"])
        states[0]["late"] = 1
        await PlainTextResponse(answer)(scope, receive, send)

    bridge = Bridge()
    bridge.mount("a", app)
    bridge.mount("b", upstream)
    with PluginClient(bridge, [("b", None), ("a", None)]) as client:
        assert [client.get("/").json() for _ in range(2)] == [{}, {"late": 1}]


def test_another_state_is_the_one_inside_and_a_scope_without_one_has_that_of_the_request() -> None:
    states: list[Any] = []
    mine = {"mine": 1}

    async def replaces(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream({**scope, "state": mine}, receive, send)

    async def anew(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["a"] = 1
        await upstream({key: value for key, value in scope.items() if key != "state"}, receive, send)

    async def keeps(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            states.append(scope["state"])
        await upstream(scope, receive, send)

    bridge = Bridge()
    for app in (replaces, anew, keeps):
        bridge.mount(app.__name__, app)
    through(bridge, "replaces", "keeps")
    through(bridge, "anew", "keeps")

    assert states[0] is mine
    assert states[1] == {"a": 1}


def test_an_overlay_is_a_mapping_of_both() -> None:
    shared = {"a": 1, "b": 2}
    overlay = Overlay({"b": 20, "c": 30}, shared)

    assert (dict(overlay), len(overlay), repr(overlay)) == ({"b": 20, "c": 30, "a": 1}, 3, "{'b': 20, 'c': 30, 'a': 1}")
    overlay["b"], overlay["d"] = 21, 40
    del overlay["a"]
    assert (overlay.copy(), shared) == ({"b": 21, "c": 30, "d": 40}, {"b": 2, "d": 40})
    del overlay["b"]
    assert overlay["b"] == 2
    with pytest.raises(KeyError):
        overlay["a"]


def test_without_conflicts_a_request_begins_with_a_copy() -> None:
    source = {"a": [1]}
    states = States([("x", source)])
    begun = states.begin()

    assert (begun, begun is source, begun["a"] is source["a"], states.apart) == (source, False, True, None)


def test_starlettes_request_state_works_on_what_is_kept_apart() -> None:
    async def page(request: Request) -> PlainTextResponse:
        request.state.db += "!"
        request.state.user = "ann"
        return PlainTextResponse(f"{request.state.db} {request.state.user}")

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        yield {"db": "of page"}

    bridge = Bridge()
    bridge.mount("a", living(db="of a"))
    bridge.mount("page", Starlette(lifespan=life, routes=[Route("/", page)]))
    with PluginClient(bridge, [("a", None), ("page", None)]) as client:
        assert client.get("/").text == "of page! ann"
