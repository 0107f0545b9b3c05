"""`asgi_bridge.wsgi.pass_on`: in Flask, in plain WSGI, and what goes wrong."""

from collections.abc import Iterable
from typing import Any
from wsgiref.validate import validator

import flask
import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from asgi_bridge import Bridge, PluginError
from asgi_bridge.wsgi import WSGIApp, WSGIMiddleware, pass_on
from tests.passing.stage import Stage, Upstream, gateway, plain

stages = pytest.mark.parametrize("stage", [plain, gateway])


def bridge_of(wsgi: Any, **options: Any) -> Bridge:
    bridge = Bridge()
    bridge.mount("gate", WSGIApp(wsgi), **options)
    return bridge


def flask_app(read: bool = False, **changes: Any) -> flask.Flask:
    """A Flask application that lets every request go on, with a session and a hook of its own."""
    app = flask.Flask("gate")
    app.secret_key = "secret"

    @app.before_request
    def count() -> None:
        flask.session["seen"] = flask.session.get("seen", 0) + 1

    @app.after_request
    def no_frames(response: flask.Response) -> flask.Response:
        response.headers["X-Frame-Options"] = "DENY"
        return response

    @app.route("/", defaults={"rest": ""}, methods=["GET", "POST"])
    @app.route("/<path:rest>", methods=["GET", "POST"])
    def anything(rest: str) -> Any:
        if read:
            flask.request.get_data()
        return pass_on(**changes)

    return app


@stages
def test_all_changes_reach_the_upstream(stage: Stage) -> None:
    shop = Upstream()
    app = flask_app(headers={"x-user": "ada", "cookie": None}, path="/v2/ä", query={"page": "2"}, body="new")
    sent = [("x_user", "root"), ("x-user", "eve"), ("cookie", "a=b"), ("x-trace", "7")]
    with stage(bridge_of(app), ["gate"], shop) as client:
        answer = client.post("/orders?page=1", headers=sent, content=b"old one")

    assert (answer.status_code, answer.text) == (201, "from the upstream")
    assert shop.seen == [("POST", "/v2/ä?page=2", b"new")]
    assert {name: shop.headers.get(name) for name in ("x-user", "x_user", "cookie", "x-trace", "content-length")} == {
        "x-user": ["ada"], "x_user": None, "cookie": None, "x-trace": ["7"], "content-length": ["3"],
    }  # fmt: skip


@stages
@pytest.mark.parametrize("read", [False, True])
def test_session_and_hooks_of_flask_are_kept(stage: Stage, read: bool) -> None:
    shop = Upstream()
    with stage(bridge_of(flask_app(read, response_headers={"x-a": "1"})), ["gate"], shop) as client:
        answer = client.post("/orders", content="ä")
    assert shop.seen == [("POST", "/orders", "ä".encode())]
    assert (answer.status_code, answer.headers["content-type"]) == (201, "text/plain; charset=utf-8")
    assert (answer.headers["x-frame-options"], answer.headers["x-a"]) == ("DENY", "1")
    cookies = sorted(line.partition(".")[0] for line in answer.headers.get_list("set-cookie"))
    assert cookies == ["of=upstream; Path=/; Partitioned", "of=upstream; Path=/a", "session=eyJzZWVuIjoxfQ"]


def test_in_both_phases_the_real_response_is_changed() -> None:
    shop = Upstream()
    app = flask_app(response_headers={"x-of": "gate", "vary": None})
    with gateway(bridge_of(app, phase="both"), ["gate"], shop, "both") as client:
        answer = client.post("/", content=b"a")
    assert (answer.status_code, answer.text, answer.headers["x-of"]) == (201, "from the upstream", "gate")
    assert answer.headers["vary"] == "Cookie"  # of Flask's session
    assert shop.seen == [("POST", "/", b"a")]


@stages
def test_the_response_can_be_changed_in_the_view(stage: Stage) -> None:
    app = flask.Flask("gate")

    @app.get("/")
    def view() -> Any:
        response = flask.make_response(pass_on(flask.request.environ))
        response.set_cookie("own", "1")
        return response, {"x-a": "1"}

    with stage(bridge_of(app), ["gate"], Upstream()) as client:
        answer = client.get("/")
    assert (answer.status_code, answer.headers["x-a"], answer.headers["x-of"]) == (201, "1", "upstream")
    assert "own=1; Path=/" in answer.headers.get_list("set-cookie")


@stages
def test_plain_wsgi(stage: Stage) -> None:
    shop = Upstream()

    @validator
    def wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["HTTP_X_OWN"] = "1"
        changed = pass_on(environ, headers={"x-seen": "yes"}, query="", response_headers={"x-a": "1"})
        return changed(environ, start_response)

    with stage(bridge_of(wsgi), ["gate"], shop) as client:
        answer = client.get("/orders?a=1")
    assert (answer.status_code, answer.headers["x-a"], answer.text) == (201, "1", "from the upstream")
    assert (shop.seen, shop.headers["x-own"], shop.headers["x-seen"]) == ([("GET", "/orders", b"")], ["1"], ["yes"])


@stages
def test_a_middleware_and_an_application_below_a_prefix(stage: Stage) -> None:
    shop = Upstream()
    bridge = bridge_of(DispatcherMiddleware(flask_app(), {"/api": flask_app(path="/api/v2")}))

    class Marking:
        def __init__(self, app: Any) -> None:
            self.app = app

        def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
            return pass_on(headers={"x-marked": "1"})(environ, start_response)

    bridge.add_middleware("marking", WSGIMiddleware(Marking))
    with stage(bridge, ["marking", "gate"], shop) as client:
        client.get("/api/orders")
    assert (shop.seen, shop.headers["x-marked"]) == ([("GET", "/api/v2", b"")], ["1"])


@stages
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "x"}, "path='x': a path is a str that begins with \"/\""),
        ({"headers": {"x-a": 1}}, "headers['x-a'] is 1; names and values are text, None removes a name"),
        (
            {"environ": {}},
            "this environ does not belong to the call of a WSGIApp or WSGIMiddleware: hand on the one that the "
            "application got, or a copy",
        ),
    ],
)
def test_what_cannot_be_done_lets_nothing_pass(stage: Stage, changes: dict[str, Any], message: str) -> None:
    shop = Upstream()

    def wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return pass_on(**changes)(environ, start_response)

    with stage(bridge_of(wsgi), ["gate"], shop) as client, pytest.raises(PluginError) as raised:
        client.get("/")
    assert (str(raised.value), shop.seen) == (message, [])


def test_outside_of_a_plugin_it_says_so() -> None:
    with flask_app().test_client() as client, pytest.raises(PluginError) as raised:
        client.application.testing = True
        client.get("/")
    assert str(raised.value) == (
        "this environ does not belong to the call of a WSGIApp or WSGIMiddleware: hand on the one that the application "
        "got, or a copy"
    )
