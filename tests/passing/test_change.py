"""What a `Change` makes of a request and of a response, and which values it refuses."""

import re
from typing import Any

import pytest

from asgi_bridge import PluginError
from asgi_bridge.passing import Change

SCOPE: dict[str, Any] = {
    "type": "http", "method": "POST", "path": "/a", "raw_path": b"/a", "query_string": b"x=1&y&x=2&%C3%A4=3&a+b=4",
    "headers": [
        (b"host", b"shop.test"), (b"x-user", b"root"), (b"x_user", b"root"), (b"x-user", b"eve"),
        (b"content-length", b"3"), (b"x-trace", b"7"),
    ],
}  # fmt: skip


def test_nothing_changed_is_the_same_scope() -> None:
    assert Change().request(SCOPE) is SCOPE


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        ({"X-User": "ada"}, [(b"x-user", b"ada")]),
        ({"x_user": "ada"}, [(b"x_user", b"ada")]),
        ({"x-user": None}, []),
        ({"x-user": ["ada", "bob"], "x-more": "é"}, [(b"x-user", b"ada"), (b"x-user", b"bob"), (b"x-more", b"\xe9")]),
    ],
)
def test_a_header_replaces_every_line_that_an_upstream_may_take_for_it(
    headers: dict[str, Any], after: list[tuple[bytes, bytes]]
) -> None:
    others = [(b"host", b"shop.test"), (b"content-length", b"3"), (b"x-trace", b"7")]
    assert Change(headers=headers).request(SCOPE) == {**SCOPE, "headers": [*others, *after]}


@pytest.mark.parametrize(
    ("query", "after"),
    [
        ("a=%20b", b"a=%20b"),
        ("", b""),
        ({"x": "9"}, b"y&%C3%A4=3&a+b=4&x=9"),
        ({"ä": None, "a b": ["1", "&="]}, b"x=1&y&x=2&a%20b=1&a%20b=%26%3D"),
        ({"y": None, "x": None, "ä": "é"}, b"a+b=4&%C3%A4=%C3%A9"),
    ],
)
def test_a_query_is_replaced_and_arguments_are_set(query: Any, after: bytes) -> None:
    assert Change(query=query).request(SCOPE) == {**SCOPE, "query_string": after}


def test_path_and_body() -> None:
    changed = Change(path="/ä b", body="ü").request(SCOPE)
    framed = [line for line in SCOPE["headers"] if line[0] != b"content-length"] + [(b"content-length", b"2")]
    assert changed == {**SCOPE, "path": "/ä b", "raw_path": None, "headers": framed}
    assert Change(body=b"").body == b""


def test_response_headers_replace_those_of_their_names_and_add_cookies() -> None:
    headers = [(b"Vary", b"accept"), (b"set-cookie", b"a=1"), (b"x-of", b"upstream"), (b"x-gone", b"1")]
    change = Change(response_headers={"vary": "origin", "Set-Cookie": ["b=2", "c=3"], "x-gone": None})
    assert change.response(headers) == [
        (b"set-cookie", b"a=1"), (b"x-of", b"upstream"), (b"vary", b"origin"), (b"set-cookie", b"b=2"),
        (b"set-cookie", b"c=3"),
    ]  # fmt: skip
    assert Change(response_headers={"set-cookie": None}).response(headers[1:3]) == [headers[2]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"headers": {"x-age": 7}}, "headers['x-age'] is 7; names and values are text, None removes a name"),
        ({"headers": {b"x-age": "7"}}, "headers[b'x-age'] is '7'; names and values are text, None removes a name"),
        ({"headers": [("x-age", "7")]}, "headers is list; it has to be a dict, name → text"),
        (
            {"headers": {"x-user": "Łucja"}},
            "headers['x-user'] is not latin-1, which headers are; urllib.parse.quote makes ASCII of any text",
        ),
        (
            {"response_headers": {"x-a": [b"1"]}},
            "response_headers['x-a'] is [b'1']; names and values are text, None removes a name",
        ),
        ({"path": "orders"}, "path='orders': a path is a str that begins with \"/\""),
        ({"path": b"/orders"}, "path=b'/orders': a path is a str that begins with \"/\""),
        ({"query": {"page": 2}}, "query['page'] is 2; names and values are text, None removes a name"),
        ({"query": b"page=2"}, "query is bytes; it has to be a dict, name → text"),
        (
            {"query": "?page=2"},
            "query='?page=2': a query is percent-encoded and has no leading '?'; a dict of arguments is encoded for "
            "you",
        ),
        (
            {"query": "name=ä"},
            "query='name=ä': a query is percent-encoded and has no leading '?'; a dict of arguments is encoded for you",
        ),
        ({"body": {"a": 1}}, "body is dict; it has to be bytes or str"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_it(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginError, match=f"^{re.escape(message)}$"):
        Change(**wrong)
