"""``rewrite`` changes path, headers and arguments of the request for the upstream."""

from typing import Any

import pytest
from asgi_bridge_apps import bridge
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_bridge import ConfigurationError
from asgi_bridge.testing import PluginClient


def seen(conf: Any, target: str = "/", headers: list[tuple[str, str]] | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = PluginClient(bridge, "rewrite", conf).get(target, headers=headers or []).json()
    return answer


def values(request: dict[str, Any], name: str) -> list[str]:
    return [value for key, value in request["headers"] if key == name]


@pytest.mark.parametrize("conf", [{}, ""])
def test_without_a_configuration_it_changes_what_the_example_changes(conf: Any) -> None:
    request = seen(conf, "/get?a=1")

    assert request["target"] == "/a6/python/runner?a=1&a6_runner=Python"
    assert values(request, "x-resp-a6-runner") == ["Python"]


def test_only_what_is_configured_is_changed() -> None:
    request = seen({"path": "/new"}, "/old?a=1")

    assert request["target"] == "/new?a=1"
    assert values(request, "x-resp-a6-runner") == []


def test_an_empty_object_of_headers_changes_nothing() -> None:
    assert seen({"headers": {}}, "/old?a=1")["target"] == "/old?a=1"


@pytest.mark.parametrize(
    ("path", "target"),
    [("/a b", "/a%20b"), ("/a?b", "/a%3Fb"), ("/ü", "/%C3%BC"), ("/%41", "/%2541"), ("/a:b@c", "/a:b@c")],
)
def test_the_path_is_configured_decoded(path: str, target: str) -> None:
    request = seen({"path": path})

    assert (request["path"], request["target"]) == (path, target)


@pytest.mark.parametrize("query", ["ü=1&b=2", "%C3%BC=1&b=2", "%c3\xbc=1&b=2", "b=2&ü"])
def test_an_argument_is_found_however_it_is_escaped(query: str) -> None:
    raw = query.encode("latin-1" if "\xbc" in query and "%" in query else "utf-8")
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await PlainTextResponse("")(scope, receive, send)

    async def with_raw_query(scope: Scope, receive: Receive, send: Send) -> None:
        await client.app({**scope, "query_string": raw}, receive, send)

    client = PluginClient(bridge, "rewrite", {"args": {"ü": None}}, upstream=app)
    TestClient(with_raw_query).get("/")
    assert [scope["query_string"] for scope in scopes] == [b"b=2"]


def test_headers_are_set_added_and_deleted() -> None:
    conf = {"headers": {"X-Set": "new", "X-Two": ["1", "2"], "X-Gone": None, "Host": "b.test"}}
    sent = [("x-set", "old"), ("x-set", "older"), ("x-gone", "1"), ("x-kept", "1"), ("x-kept", "2")]

    request = seen(conf, headers=sent)

    names = ("x-set", "x-two", "x-gone", "x-kept", "host")
    assert {name: values(request, name) for name in names} == {
        "x-set": ["new"],
        "x-two": ["1", "2"],
        "x-gone": [],
        "x-kept": ["1", "2"],
        "host": ["b.test"],
    }


@pytest.mark.parametrize(
    ("args", "before", "after"),
    [
        ({"a": "1"}, "", "?a=1"),
        ({"a": "1"}, "?b=2&a=0&c&a=9", "?b=2&c&a=1"),
        ({"a": ["1", "2"]}, "?a=0", "?a=1&a=2"),
        ({"a": None}, "?a=0", ""),
        ({"a": None}, "?b=%20x&a&b=+", "?b=%20x&b=+"),
        ({"a b": None}, "?a+b=1&a%20b=2&ab=3", "?ab=3"),
        ({"ü": "&="}, "?%C3%BC=0", "?%C3%BC=%26%3D"),
        ({"a": ""}, "", "?a="),
    ],
)
def test_arguments_are_set_added_and_deleted(args: dict[str, Any], before: str, after: str) -> None:
    assert seen({"args": args}, "/x" + before)["target"] == "/x" + after


def test_head_and_a_body_pass() -> None:
    client = PluginClient(bridge, "rewrite", {"path": "/new"})

    assert client.head("/").content == b""
    assert client.post("/", content=b"abc").json()["body"] == "abc"


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"path": "new"}, "field 'path': String should match pattern"),
        ({"path": ""}, "field 'path': String should match pattern"),
        ({"headers": {"x:": "1"}}, "field 'headers.x:.*': String should match pattern"),
        ({"headers": {"x": "\0"}}, "field 'headers.x.*': String should match pattern"),
        ({"headers": {"Host": None}}, "Value error, headers: host cannot be deleted"),
        ({"headers": {"host": []}}, "Value error, headers: host cannot be deleted"),
        ({"headers": {"connection": "close"}}, "field 'headers.*': Value error, connection belongs to one connection"),
        ({"args": {"a": 1}}, "field 'args.a.*': Input should be a valid string"),
        ({"args": "a=1"}, "field 'args': Input should be an object"),
        ({"uri": "/"}, "field 'uri': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration(conf: object, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^plugin rewrite: .*{reason}"):
        PluginClient(bridge, "rewrite", conf).get("/")
