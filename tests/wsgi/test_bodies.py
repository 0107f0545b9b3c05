"""Request bodies without a content-length, and headers, on their way through WSGI code."""

import asyncio
from collections.abc import Callable
from typing import Any

import django
import flask
import pytest
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest

from asgi_bridge import Bridge
from asgi_bridge.wire import MAX_PAYLOAD, ReqBody, Rewrite, Stop, TextEntry
from asgi_bridge.wsgi import WSGIApp, WSGIMiddleware, upstream

from ..adapter.calls import BODY_IF_ANY, REFUSED, answer, errors, request
from ..adapter.phases import chain, respond, response

CHUNKED: list[TextEntry] = [(b"transfer-encoding", b"chunked")]
HTTP_2: dict[str, bytes | None] = {"server_protocol": b"HTTP/2.0"}
TYPE: list[TextEntry] = [(b"content-type", b"text/plain")]

flask_app = flask.Flask(__name__)


@flask_app.route("/x", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def check_in_flask() -> Any:
    if b"evil" in flask.request.get_data():
        return flask.Response(b"no", 403, content_type="text/plain")
    return flask.Response.from_app(upstream, flask.request.environ)


if not settings.configured:  # once for all tests of a process
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="tests.wsgi.test_plugins", SECRET_KEY="x", USE_TZ=True)
    django.setup()


def check(read: Callable[[dict[str, Any]], bytes]) -> Any:
    """Make an application that refuses what `read` finds evil."""

    def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if b"evil" in read(environ):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"no"]
        return upstream(environ, start_response)

    return wsgi


check_in_django = check(lambda environ: WSGIRequest(environ).body)
check_by_hand = check(lambda environ: environ["wsgi.input"].read())
# as PEP 3333 says, and as many frameworks do it
check_by_length = check(lambda environ: environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))


def checking(app: Any) -> Bridge:
    bridge = Bridge()
    bridge.mount("check", WSGIApp(app))
    return bridge


@pytest.mark.parametrize("headers", [CHUNKED, []], ids=["chunked", "HTTP/2"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize("app", [flask_app, check_in_django, check_by_hand, check_by_length])
def test_a_body_that_nothing_tells_of_is_seen(app: Any, method: str, headers: list[TextEntry]) -> None:
    found = answer(
        bridge=checking(app), message=request(*headers, method=method), variables=HTTP_2, body=b"evil",
        asked=[BODY_IF_ANY],
    )  # fmt: skip
    assert found.status == 403
    assert found.body == b"no"


@pytest.mark.parametrize("method", ["DELETE", "QUERY", "PROPFIND", "REPORT", "delete"])
@pytest.mark.parametrize("app", [check_in_django, check_by_length])
def test_also_with_methods_that_seldom_have_one(app: Any, method: str) -> None:
    found = answer(bridge=checking(app), message=request(method=method), variables=HTTP_2, body=b"evil")
    assert found == Stop(403, TYPE, b"no")


@pytest.mark.parametrize(
    ("app", "method"),
    [(flask_app, "GET"), (flask_app, "DELETE"), *((check_by_hand, method) for method in ("GET", "DELETE", "OPTIONS"))],
)
def test_of_any_method(app: Any, method: str) -> None:
    found = answer(bridge=checking(app), message=request(method=method), variables=HTTP_2, body=b"evil")
    assert found == Stop(403, found.headers, b"no")


def test_of_any_method_where_the_version_is_known() -> None:
    bridge = Bridge()
    bridge.mount("check", WSGIApp(check_by_length), exact=True)
    found = answer(bridge=bridge, message=request(method="GET"), variables=HTTP_2, body=b"evil")
    assert found == Stop(403, TYPE, b"no")


@pytest.mark.parametrize("headers", [CHUNKED, []], ids=["chunked", "HTTP/2"])
@pytest.mark.parametrize("body", [b"good", None])
@pytest.mark.parametrize("app", [flask_app, check_in_django, check_by_hand, check_by_length])
def test_and_passes_as_it_came(app: Any, body: bytes | None, headers: list[TextEntry]) -> None:
    message = request(*headers, method="POST")
    assert answer(bridge=checking(app), message=message, variables=HTTP_2, body=body, asked=[BODY_IF_ANY]) is None


def test_code_that_does_not_read_is_not_made_to() -> None:
    def passing(environ: dict[str, Any], start_response: Any) -> Any:
        return upstream(environ, start_response)

    assert answer(bridge=checking(passing), message=request(), asked=[]) is None
    length = request((b"content-length", b"%d" % (MAX_PAYLOAD + 1)), method="POST")
    assert answer(bridge=checking(passing), message=length, asked=[]) is None
    bridge = Bridge()
    bridge.mount("check", WSGIApp(passing), request_body=False)
    assert answer(bridge=bridge, message=request(*CHUNKED, method="POST"), asked=[]) is None


def test_a_body_that_the_gateway_could_not_read_is_no_empty_one(caplog: pytest.LogCaptureFixture) -> None:
    message = request((b"content-length", b"4"), method="POST")
    assert answer(bridge=checking(check_by_hand), message=message, body=None, asked=[[ReqBody()]]) == REFUSED
    assert errors(caplog)[0].startswith("plugin check: request refused: the gateway could not read the request body")


# headers


def setting_cookie(app: Any) -> Any:
    """Set a cookie as Django does: the header's value begins with a blank."""

    def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
        environ["HTTP_X_A"] = " 1\t"

        def starting(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, ("Set-Cookie", " a=1; Path=/"), ("X-B", "b\t ")], *rest)

        return app(environ, starting)

    return wsgi


def test_blanks_around_values_are_no_part_of_them() -> None:
    bridge = Bridge()
    bridge.add_middleware("cookie", WSGIMiddleware(setting_cookie))
    assert answer(bridge=bridge) == Rewrite(
        headers=[(b"x-a", b"1")], resp_headers=[(b"set-cookie", b"a=1; Path=/"), (b"x-b", b"b")]
    )


def test_what_the_upstream_sent_passes_as_it_came() -> None:
    """The plugin is not to blame for a control character in the upstream's headers."""
    odd = (b"x-odd", b"a\x01b")

    async def main() -> Any:
        bridge = Bridge()
        bridge.add_middleware("cookie", WSGIMiddleware(setting_cookie))
        return (await respond(await chain(bridge), response(odd, *TYPE))).answers

    (found,) = asyncio.run(main())
    assert found.headers == [odd, *TYPE, (b"set-cookie", b"a=1; Path=/"), (b"x-b", b"b")]


@pytest.mark.parametrize("value", ["a\x01", "\x7f", "a\x1fb", "a\x0bb"])
def test_control_characters_are_refused(value: str, caplog: pytest.LogCaptureFixture) -> None:
    def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("X-A", value)])
        return [b"x"]

    assert answer(bridge=checking(wsgi)) == REFUSED
    assert errors(caplog) == [
        "plugin check: request refused: start_response was called with a control character in the value of X-A"
    ]
