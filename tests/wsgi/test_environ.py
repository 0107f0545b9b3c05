"""The environ that WSGI code sees, and which of its changes reach the application inside."""

import sys
from collections.abc import Callable
from typing import Any
from wsgiref.util import FileWrapper

import pytest

from asgi_bridge.errors import PluginError
from asgi_bridge.wsgi import WSGIMiddleware

from .calls import call, environ_of, request, responding


def test_environ_is_that_of_pep_3333() -> None:
    scope = request(
        (b"accept", b"a/b"),
        (b"content-type", b"text/plain"),
        (b"content-length", b"3"),
        (b"cookie", b"a=1"),
        (b"accept", b"c/d"),
        (b"cookie", b"b=2"),
        (b"x-latin", b"caf\xe9"),
        (b"x_under", b"spoofed"),
        method="POST",
        path="/ä b",
        query_string=b"q=%C3%A4&q=2",
    )
    environ = environ_of(scope)
    assert type(environ) is dict
    environ = {key: value for key, value in environ.items() if key not in ("asgi_bridge.run", "wsgi.input")}
    assert environ == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/Ã¤ b",
        "QUERY_STRING": "q=%C3%A4&q=2",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
        "SERVER_NAME": "a.test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "5000",
        "HTTP_HOST": "a.test",
        "HTTP_ACCEPT": "a/b,c/d",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_LATIN": "caf\xe9",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "asgi_bridge.scope": scope,
    }
    assert {type(environ[key]) for key in environ if "." not in key} == {str}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"path": "/app/x", "root_path": "/app"}, {"SCRIPT_NAME": "/app", "PATH_INFO": "/x"}),
        ({"path": "/app", "root_path": "/app/"}, {"SCRIPT_NAME": "/app", "PATH_INFO": ""}),
        ({"path": "/apple", "root_path": "/app"}, {"SCRIPT_NAME": "/app", "PATH_INFO": "/apple"}),
        ({"path": "/", "root_path": "/"}, {"SCRIPT_NAME": "", "PATH_INFO": "/"}),
        ({"path": "/é/x", "root_path": "/é"}, {"SCRIPT_NAME": "/Ã©", "PATH_INFO": "/x"}),
        ({"server": None}, {"SERVER_NAME": "a.test", "SERVER_PORT": "80"}),
        ({"server": ("", 80)}, {"SERVER_NAME": "a.test", "SERVER_PORT": "80"}),
        ({"server": None, "headers": [(b"host", b"b.test:81")]}, {"SERVER_NAME": "b.test", "SERVER_PORT": "80"}),
        ({"server": None, "headers": []}, {"SERVER_NAME": "localhost"}),
        ({"server": ("/run/x.sock", None), "scheme": "https"}, {"SERVER_PORT": "443", "wsgi.url_scheme": "https"}),
        ({"client": None}, {"REMOTE_ADDR": None, "REMOTE_PORT": None}),
        ({"client": ("::1", 0)}, {"REMOTE_ADDR": "::1", "REMOTE_PORT": None}),
        ({"http_version": "2"}, {"SERVER_PROTOCOL": "HTTP/2"}),
    ],
)
def test_environ_of_other_scopes(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    environ = environ_of(request(**changes))
    assert {key: environ.get(key) for key in expected} == expected


def middleware(change: Callable[[dict[str, Any]], Any]) -> Any:
    """A WSGI middleware that changes the environ."""

    def factory(app: Any) -> Any:
        def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
            change(environ)
            return app(environ, start_response)

        return wsgi

    return WSGIMiddleware(factory)


REPEATS = [(b"accept", b"a/b"), (b"x-a", b"1"), (b"accept", b"c/d"), (b"x-a", b"2"), (b"x_a", b"3")]


def scope_after(change: Callable[[dict[str, Any]], Any], **changes: Any) -> Any:
    """Return the parts of a scope that differ behind a middleware."""
    scope = request(*REPEATS, **changes)
    before = dict(scope)
    scopes: list[Any] = []
    call(middleware(change)(responding(scopes=scopes)), scope)
    assert scope == before
    (after,) = scopes
    return {key: value for key, value in after.items() if value != before.get(key)}


HOST = (b"host", b"a.test")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda environ: None, {}),
        (lambda environ: environ.update(HTTP_ACCEPT="a/b,c/d"), {}),
        (lambda environ: environ.update(REQUEST_METHOD="PUT"), {"method": "PUT"}),
        (lambda environ: environ.update(QUERY_STRING="a=\xe9"), {"query_string": b"a=\xe9"}),
        (lambda environ: environ.pop("QUERY_STRING"), {}),
        (lambda environ: environ.update(PATH_INFO="/Ã¤ b"), {"path": "/ä b", "raw_path": b"/%C3%A4%20b"}),
        (lambda environ: environ.update(SCRIPT_NAME="/x", PATH_INFO=""), {"root_path": "/x"}),
        (lambda environ: environ.update(SCRIPT_NAME="/prefix"), {"root_path": "/prefix"}),
        (
            lambda environ: environ.update(SCRIPT_NAME="/p", PATH_INFO="/y"),
            {"root_path": "/p", "path": "/p/y", "raw_path": b"/p/y"},
        ),
        (lambda environ: environ.update(REMOTE_ADDR="::1"), {"client": ("::1", 0)}),
        (lambda environ: environ.update(REMOTE_ADDR="::1", REMOTE_PORT="7"), {"client": ("::1", 7)}),
        (lambda environ: environ.update(REMOTE_PORT=7), {"client": ("192.0.2.1", 7)}),
        (lambda environ: environ.pop("REMOTE_ADDR"), {"client": None}),
        (lambda environ: environ.update({"wsgi.url_scheme": "https"}), {"scheme": "https"}),
        (lambda environ: environ.update(SERVER_NAME="b.test"), {"server": ("b.test", 80)}),
        (lambda environ: environ.update(SERVER_PORT="?"), {"server": ("a.test", None)}),
        (
            lambda environ: environ.update(HTTP_X_A="9"),
            {"headers": [HOST, (b"accept", b"a/b"), (b"x-a", b"9"), (b"accept", b"c/d")]},
        ),
        (
            lambda environ: environ.pop("HTTP_X_A"),
            {"headers": [HOST, (b"accept", b"a/b"), (b"accept", b"c/d")]},
        ),
        (
            lambda environ: environ.update(HTTP_Z="", HTTP_B_C="\xe9", CONTENT_TYPE="a/b"),
            {"headers": [HOST, *REPEATS, (b"b-c", b"\xe9"), (b"content-type", b"a/b"), (b"z", b"")]},
        ),
        # an empty value means "none" in CGI; some keys mean nothing
        (lambda environ: environ.update(CONTENT_TYPE="", CONTENT_LENGTH=""), {}),
        (lambda environ: environ.update(HTTP_CONTENT_TYPE="a/b", HTTP_CONTENT_LENGTH="1"), {}),
        (lambda environ: environ.update({"asgi_bridge.scope": None, "wsgi.errors": None}), {}),
        # for the next WSGI plugin
        (lambda environ: environ.update(REMOTE_USER="me"), {"asgi_bridge.environ": {"REMOTE_USER": "me"}}),
    ],
)  # fmt: skip
def test_only_what_was_changed_in_the_environ_changes_the_scope(change: Any, expected: dict[str, Any]) -> None:
    assert scope_after(change) == expected


@pytest.mark.parametrize("name", [b"x_user", b"x_User", b"x-user"])
def test_a_client_cannot_put_its_own_value_beside_the_application_s(name: bytes) -> None:
    scopes: list[Any] = []
    scope = request((name.lower(), b"root"), (b"x_other", b"1"))
    call(middleware(lambda environ: environ.update(HTTP_X_USER="ada"))(responding(scopes=scopes)), scope)
    assert scopes[0]["headers"] == [HOST, (b"x-user", b"ada"), (b"x_other", b"1")]


def test_a_scope_without_changes_is_handed_on_itself() -> None:
    scope = request()
    scopes: list[Any] = []
    call(middleware(lambda environ: None)(responding(scopes=scopes)), scope)
    assert scopes[0] is scope


def test_a_header_that_is_emptied_or_an_own_content_length() -> None:
    scopes: list[Any] = []
    scope = request((b"content-type", b"a/b"), (b"content-length", b"1"))
    change = middleware(lambda environ: environ.update(CONTENT_TYPE="", CONTENT_LENGTH=22))
    call(change(responding(scopes=scopes)), scope)
    assert scopes[0]["headers"] == [HOST, (b"content-length", b"22")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"HTTP_X": "\u20ac"}, r"environ\['HTTP_X'\] was changed to text that is not latin-1"),
        ({"HTTP_X": b"bytes"}, r"environ\['HTTP_X'\] was changed to bytes; it must be a str"),
        ({"HTTP_\u20ac": "x"}, "that is no header name"),
        ({"PATH_INFO": "/\xe9"}, "which is not UTF-8"),
        ({"PATH_INFO": "/\u20ac"}, r"environ\['PATH_INFO'\] was changed to text that is not latin-1"),
        ({"REQUEST_METHOD": None}, "was changed to NoneType; it must be a str"),
    ],
)
def test_what_no_environ_can_hold_is_an_error(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(PluginError, match=reason):
        call(middleware(lambda environ: environ.update(change))(responding()))


def test_keys_of_an_outer_wsgi_plugin_reach_the_inner_one() -> None:
    session = object()
    seen: list[Any] = []

    def change(environ: dict[str, Any]) -> None:
        environ.update({"my.session": session, "REMOTE_USER": "me"})

    def look(environ: dict[str, Any]) -> None:
        seen.append((environ["my.session"], environ.pop("REMOTE_USER"), environ["HTTP_HOST"]))

    scopes: list[Any] = []
    call(middleware(change)(middleware(look)(responding(scopes=scopes))))
    assert seen == [(session, "me", "a.test")]
    assert scopes[0]["asgi_bridge.environ"] == {"my.session": session}
