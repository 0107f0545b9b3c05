"""Frameworks and middleware that people use, as plugins: in plain ASGI, and through frames in every phase."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import django
import flask
import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from paste.gzipper import middleware as gzipper  # type: ignore[import-untyped]
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response
from whitenoise import WhiteNoise  # type: ignore[import-untyped]

from asgi_bridge import Bridge, ConfigurationError, PluginError
from asgi_bridge import upstream as next_layer
from asgi_bridge.plugins.lifespan import Lifespan
from asgi_bridge.testing import Gateway, PluginClient
from asgi_bridge.wsgi import WSGIApp, WSGIMiddleware, upstream

from .calls import ask, request, started

# Flask

flask_app = flask.Flask(__name__)


@flask_app.route("/hello/<name>", methods=["GET", "POST"])
def hello(name: str) -> Any:
    return {
        "name": name,
        "query": flask.request.args.to_dict(flat=False),
        "body": flask.request.get_data(as_text=True),
        "conf": flask.request.environ["asgi_bridge.apisix"].conf,
        "ip": flask.request.remote_addr,
    }


@flask_app.route("/stream")
def stream() -> Any:
    def numbers() -> Any:
        for number in range(3):
            yield f"{number} {flask.request.path}\n"

    return flask.Response(flask.stream_with_context(numbers()), mimetype="text/plain")


@flask_app.route("/async")
async def asynchronous() -> str:
    await asyncio.sleep(0)
    return "async"


@flask_app.route("/broken")
def broken() -> Any:
    raise ValueError("broken view")


@flask_app.route("/", defaults={"rest": ""})
@flask_app.route("/<path:rest>", methods=["GET", "POST"])
def anything(rest: str) -> Any:
    response = Response.from_app(upstream, flask.request.environ)
    response.headers["X-Flask"] = flask.request.environ["asgi_bridge.apisix"]["plugin"]
    return response


# Django

if not settings.configured:
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", USE_TZ=True)
    django.setup()


def django_view(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"path": request.path, "body": request.body.decode(), "ip": request.META["REMOTE_ADDR"]})


async def django_async_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await sync_to_async(lambda: "async")())


urlpatterns = [path("d/ä", django_view), path("a", django_async_view)]


# around the upstream


async def real(scope: Scope, receive: Receive, send: Send) -> None:
    """An upstream that answers with what it got."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    target = scope["raw_path"].decode() + "?" + scope["query_string"].decode()
    text = f"{scope['method']} {target} {headers['host']} {headers.get('x-a')} {body.decode()}"
    await PlainTextResponse(text, headers={"x-real": "1"})(scope, receive, send)


def numbering(app: Any, header: str = "X-A", value: int = 1) -> Any:
    """A WSGI middleware that sets a request header and a response header, and reverses the body."""

    def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
        environ["HTTP_" + header.upper().replace("-", "_")] = str(value)

        def answer(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, (header, str(value))], exc_info)

        return [chunk[::-1] for chunk in app(environ, answer)]

    return wsgi


def mounted() -> Bridge:
    bridge = Bridge()
    bridge.mount("flask", WSGIApp(flask_app))
    bridge.mount("django", WSGIApp(WSGIHandler()))
    bridge.add_middleware("fix", WSGIMiddleware(ProxyFix))
    bridge.add_middleware("numbering", WSGIMiddleware(numbering))
    bridge.add_middleware("numbering-both", WSGIMiddleware(numbering), phase="both")
    bridge.add_middleware("gzip", WSGIMiddleware(gzipper))
    bridge.add_middleware("gzip-both", WSGIMiddleware(gzipper), phase="both")
    bridge.add_middleware("static", WSGIMiddleware(WhiteNoise))
    bridge.add_middleware("valid", WSGIMiddleware(validator))
    bridge.add_middleware("valid-both", WSGIMiddleware(validator), phase="both")
    bridge.mount("valid-app", WSGIApp(validator(started(b"valid"))))
    return bridge


BRIDGE = mounted()


def client(name: str, conf: Any = None, upstream: ASGIApp = real) -> PluginClient:
    return PluginClient(BRIDGE, name, conf, upstream=upstream)


def gateway(
    *names: tuple[str, str], phases: str = "request", bridge: Bridge = BRIDGE, upstream: ASGIApp = real
) -> TestClient:
    """A gateway whose one route lists plugins with their configurations, in one phase or both."""
    conf = {"conf": [{"name": name, "value": value} for name, value in names]}
    lists = {"request": ["ext-plugin-pre-req"], "response": ["ext-plugin-post-resp"]}
    lists["both"] = lists["request"] + lists["response"]
    routes = [{"uri": "/*", "plugins": dict.fromkeys(lists[phases], conf)}]
    return TestClient(Gateway(bridge, routes, upstream=upstream))


# as plain ASGI


def test_flask_answers_by_itself() -> None:
    found = client("flask", {"a": 1}).post("/hello/J%C3%BCrg?q=1&q=%C3%A4", content=b"body")
    assert (found.status_code, found.headers["content-type"]) == (200, "application/json")
    assert found.json() == {
        "name": "Jürg", "query": {"q": ["1", "ä"]}, "body": "body", "conf": {"a": 1}, "ip": "testclient",
    }  # fmt: skip


def test_flask_streams_and_runs_async_views() -> None:
    assert client("flask").get("/stream").text == "0 /stream\n1 /stream\n2 /stream\n"
    assert client("flask").get("/async").text == "async"
    assert client("flask").head("/stream").text == ""


def test_flask_calls_the_upstream() -> None:
    found = client("flask").post("/other?a=1&a=2", content=b"body", headers={"x-a": "1"})
    assert found.text == "POST /other?a=1&a=2 testserver 1 body"
    assert (found.headers["x-real"], found.headers["x-flask"]) == ("1", "flask")


def test_flask_answers_its_own_errors(caplog: pytest.LogCaptureFixture) -> None:
    assert client("flask").get("/broken").status_code == 500
    assert "Exception on /broken [GET]" in caplog.text


def test_django() -> None:
    found = client("django").post("/d/%C3%A4", content=b"body")
    assert found.json() == {"path": "/d/ä", "body": "body", "ip": "testclient"}
    assert client("django").get("/a").text == "async"
    assert client("django").get("/none").status_code == 404


def test_gzip() -> None:
    found = client("gzip", {"compress_level": 9}).get("/x", headers={"accept-encoding": "gzip"})
    assert found.headers["content-encoding"] == "gzip"
    assert found.text == "GET /x? testserver None "


def test_whitenoise_serves_files_and_passes_the_rest_on(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"0123456789" * 2000)
    with client("static", {"root": str(tmp_path), "prefix": "static"}) as static:
        found = static.get("/static/a.txt")
        assert (found.status_code, found.headers["content-type"]) == (200, 'text/plain; charset="utf-8"')
        assert found.content == b"0123456789" * 2000
        assert static.get("/static/a.txt", headers={"range": "bytes=3-5"}).content == b"345"
        assert static.get("/static/a.txt", headers={"if-none-match": found.headers["etag"]}).status_code == 304
        assert static.get("/static/b.txt").text == "GET /static/b.txt? testserver None "


def test_dispatcher() -> None:
    bridge = Bridge()
    bridge.mount("apps", WSGIApp(DispatcherMiddleware(upstream, {"/flask": flask_app, "/valid": started(b"valid")})))
    apps = PluginClient(bridge, "apps", upstream=real)
    assert apps.get("/valid/x").text == "valid"
    assert apps.get("/flask/hello/you").json()["name"] == "you"
    assert apps.get("/other/x?a").text == "GET /other/x?a testserver None "
    # code inside a mounted application still asks for the whole path
    assert apps.get("/flask/other/x?a").text == "GET /flask/other/x?a testserver None "


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_validator_finds_nothing_wrong(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = client("valid").request(method, "/ä?b=1", headers={"x-a": "1"}, content=b"body")
    assert found.text == ("" if method == "HEAD" else f"{method} /%C3%A4?b=1 testserver 1 body")
    assert client("valid-app").request(method, "/ä?b=1", content=b"body").status_code == 200
    assert capsys.readouterr().err == ""


# through frames


def test_flask_stops_or_lets_pass() -> None:
    with gateway(("flask", '{"a": 1}')) as here:
        assert here.post("/hello/you?q=1", content=b"body").json() == {
            "name": "you", "query": {"q": ["1"]}, "body": "body", "conf": {"a": 1}, "ip": "127.0.0.1",
        }  # fmt: skip
        found = here.post("/other?b=2&a=1", content=b"body")
        assert found.text == "POST /other?b=2&a=1 testserver None body"
        assert found.headers["x-flask"] == "flask"
        assert here.get("/async").text == "async"
        assert here.get("/stream").text == "0 /stream\n1 /stream\n2 /stream\n"


def test_django_stops() -> None:
    with gateway(("django", "")) as here:
        assert here.post("/d/%C3%A4", content=b"body").json() == {"path": "/d/ä", "body": "body", "ip": "127.0.0.1"}
        assert here.get("/none").status_code == 404


def test_proxy_fix_rewrites_the_host() -> None:
    seen: list[Any] = []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["client"], scope["scheme"], scope["server"], scope["root_path"]))
        await next_layer(scope, receive, send)

    bridge = mounted()
    bridge.mount("behind", behind)
    conf = '{"x_for": 1, "x_port": 1, "x_prefix": 1}'
    with gateway(("fix", conf), ("behind", ""), bridge=bridge) as here:
        headers = {"x-forwarded-for": "203.0.113.7", "x-forwarded-prefix": "/p"}
        found = here.get("/x?a=1", headers=headers)
    # the gateway's port comes from the host now; the prefix is for plugins that read it, not for the upstream
    assert found.text == "GET /x?a=1 testserver:80 None "
    assert seen == [(("203.0.113.7", 0), "http", ("testserver", 80), "/p")]
    found = client("fix", {"x_host": 1}).get("/x", headers={"x-forwarded-host": "b.test:81"})
    assert found.text == "GET /x? b.test:81 None "


def test_a_route_s_configuration_is_checked_against_the_wsgi_middleware() -> None:
    for name, conf, reason in [
        ("fix", '{"x_host": "1"}', "field 'x_host': Input should be a valid integer"),
        ("fix", '{"xhost": 1}', "field 'xhost'"),
        ("numbering", '{"value": 1.5}', "field 'value'"),
        ("valid", '{"x": 1}', "field 'x'"),
    ]:
        with pytest.raises(ConfigurationError, match=reason):
            client(name, conf).get("/")
    assert BRIDGE.plugins["fix"].describe()["schema"]["properties"]["x_for"] == {
        "default": 1, "title": "x_for", "type": "integer",
    }  # fmt: skip


def test_changes_of_the_environ_are_a_rewrite() -> None:
    with gateway(("numbering", '{"value": 7}')) as here:
        found = here.get("/x")
    assert found.text == "GET /x? testserver 7 "
    assert found.headers["x-a"] == "7"


def test_response_phase(caplog: pytest.LogCaptureFixture) -> None:
    with gateway(("numbering", ""), phases="response") as here:
        found = here.get("/x?a=1")
    assert found.text == "GET /x?a=1 testserver None "[::-1]
    assert (found.headers["x-real"], found.headers["x-a"]) == ("1", "1")
    assert caplog.messages == [
        "plugin numbering: in the response phase the request has gone upstream already: a change of its headers "
        "reaches nobody but the plugins further inside"
    ]


def test_gzip_in_the_response_phase() -> None:
    with gateway(("gzip", ""), phases="response") as here:
        found = here.get("/x", headers={"accept-encoding": "gzip"})
    assert (found.headers["content-encoding"], found.text) == ("gzip", "GET /x? testserver None ")


@pytest.mark.parametrize("name", ["numbering-both", "gzip-both", "valid-both"])
def test_both(name: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with gateway((name, ""), phases="both") as here:
        found = here.post("/x?a=1", headers={"accept-encoding": "gzip"}, content=b"body")
    if name == "numbering-both":
        assert (found.text, found.headers["x-a"]) == ("POST /x?a=1 testserver 1 body"[::-1], "1")
    else:
        assert found.text == "POST /x?a=1 testserver None body"
    assert found.headers["x-real"] == "1"
    assert (found.headers.get("content-encoding") == "gzip") is (name == "gzip-both")
    assert (caplog.messages, capsys.readouterr().err) == ([], "")


@pytest.mark.parametrize("phases", ["request", "response"])
@pytest.mark.parametrize("name", ["valid", "gzip", "fix"])
def test_no_warnings_where_nothing_is_changed(
    name: str, phases: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with gateway((name, ""), phases=phases) as here:
        found = here.post("/x?b=1&a=2&b=3", content=b"body", headers={"x-a": "1", "accept-encoding": "gzip"})
        assert found.text == "POST /x?b=1&a=2&b=3 testserver 1 body"
    assert (caplog.messages, capsys.readouterr().err) == ([], "")


def test_a_fault_refuses_the_request(caplog: pytest.LogCaptureFixture) -> None:
    def midway(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"half of "
        raise ValueError("midway")

    def at_once(environ: Any, start_response: Any) -> Any:
        raise ValueError("at once")

    bridge = Bridge()
    bridge.mount("midway", WSGIApp(midway))
    bridge.mount("at-once", WSGIApp(at_once))
    bridge.mount("open", WSGIApp(at_once), on_error="open")
    for name, reason in [("midway", "midway"), ("at-once", "at once")]:
        with gateway((name, ""), bridge=bridge) as here:
            with pytest.raises(ValueError, match=reason):
                here.get("/x")
            here._transport.raise_server_exceptions = False  # type: ignore[attr-defined]
            assert here.get("/x").status_code == 503
        refusals = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert refusals[0].getMessage() == f"plugin {name}: request refused: ValueError: {reason}"
        caplog.clear()
    with gateway(("open", ""), bridge=bridge) as here:
        assert here.get("/x").text == "GET /x? testserver None "


def test_a_body_that_is_too_long_ends_the_application_soon() -> None:
    made: list[int] = []

    def endless(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        while True:
            made.append(1)
            yield b"x" * (1 << 20)

    bridge = Bridge()
    bridge.mount("endless", WSGIApp(endless))
    too_long = pytest.raises(PluginError, match="longer than the protocol's 16777215 bytes")
    with gateway(("endless", ""), bridge=bridge) as here, too_long:
        here.get("/x")
    assert len(made) <= 17


def test_variables() -> None:
    found: list[Any] = []

    def asking(environ: dict[str, Any], start_response: Any) -> Any:
        apisix = environ["asgi_bridge.apisix"]
        found.append((apisix.plugin, apisix.phase, apisix.conf, apisix.route_id, apisix.request_id))
        found.append((apisix.var("request_method"), apisix["var"]("none"), apisix.var("scheme", "request_id")))
        found.append((sorted(apisix), len(apisix), apisix["plugin"], len(apisix.request_id)))
        return upstream(environ, start_response)

    bridge = Bridge()
    bridge.mount("asking", WSGIApp(asking))
    with gateway(("asking", '{"a": 1}'), bridge=bridge) as here:
        assert here.get("/x").status_code == 200
    request_id = found[1][2]["request_id"]
    assert found == [
        ("asking", "request", {"a": 1}, "arr_1", None),
        (b"GET", None, {"scheme": b"http", "request_id": request_id}),
        (["conf", "phase", "plugin", "request_id", "route_id", "var"], 6, "asking", len(request_id)),
    ]


def test_a_call_beyond_its_deadline_gives_its_thread_back() -> None:
    ended = threading.Event()

    def endless(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] != "/endless":
            return started(b"quick")(environ, start_response)
        return waiting(environ, start_response)

    def waiting(environ: dict[str, Any], start_response: Any) -> Any:
        try:
            start_response("200 OK", [])
            while True:
                yield b""
                time.sleep(0.001)
        finally:
            ended.set()

    bridge = Bridge()
    bridge.mount("endless", WSGIApp(endless, threads=1), timeout=0.2)
    with gateway(("endless", ""), bridge=bridge) as here:
        here._transport.raise_server_exceptions = False  # type: ignore[attr-defined]
        assert here.get("/endless").status_code == 503
        assert ended.wait(60)
        # its time is short for a busy machine
        assert any(here.get("/x").text == "quick" for _ in range(100))


@contextlib.asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[None]:
    """Run the lifespan of an application."""
    lifespan = Lifespan(app, "gateway")
    await lifespan.start(60)
    assert lifespan.own
    yield
    await lifespan.stop(60)


def test_forty_requests_at_once_do_not_hold_up_each_other_or_anybody_else() -> None:
    sleepy = flask.Flask("sleepy")
    all_asleep = threading.Barrier(41)
    awake = threading.Event()

    @sleepy.route("/sleepy")
    def sleep() -> str:
        all_asleep.wait(60)  # breaks if they have to wait for each other
        assert awake.wait(60)
        return "slept"

    async def quick(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("quick")(scope, receive, send)

    bridge = Bridge()
    bridge.mount("sleepy", WSGIApp(sleepy, threads=40))
    bridge.mount("quick", quick)
    routes = [
        {"uri": f"/{name}", "plugins": {"ext-plugin-pre-req": {"conf": [{"name": name, "value": ""}]}}}
        for name in ("sleepy", "quick")
    ]
    here = Gateway(bridge, routes)

    async def status(path: str) -> int:
        found = await ask(here, request(path=path, raw_path=path.encode()))
        return int(found[0])

    async def main() -> None:
        async with running(here):
            forty = asyncio.gather(*[status("/sleepy") for _ in range(40)])
            await asyncio.to_thread(all_asleep.wait, 60)
            assert [await status("/quick") for _ in range(15)] == [200] * 15
            assert not forty.done()
            awake.set()
            assert await forty == [200] * 40

    asyncio.run(main())
