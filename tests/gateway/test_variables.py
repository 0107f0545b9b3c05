import asyncio
from typing import Any

import pytest

from asgi_bridge.gateway.exchange import Exchange
from asgi_bridge.gateway.nginx.variables import variable
from asgi_bridge.gateway.routes.route import Consumer, Node, Route, Upstream


def exchange(
    method: str = "GET", query: bytes = b"", body: bytes = b"", client: str = "10.0.0.9", **headers: str
) -> Exchange:
    messages = [{"type": "http.request", "body": body}]

    async def receive() -> Any:
        return messages.pop()

    scope = {
        "type": "http",
        "method": method,
        "path": "/x",
        "query_string": query,
        "headers": [
            (b"host", b"H.test:81"),
            *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
        ],
        "server": ("127.0.0.1", 9080),
        "client": (client, 4000),
    }
    return Exchange(scope, receive, None)  # type: ignore[arg-type]


def values(made: Exchange, *names: str) -> list[bytes | None]:
    async def main() -> list[bytes | None]:
        return [await variable(made, name.encode("latin-1")) for name in names]

    return asyncio.run(main())


def test_address_and_connection() -> None:
    made = exchange(x_real_ip="1.2.3.4")
    assert values(made, "remote_addr", "REMOTE_PORT", "host", "http_host", "server_port", "is_args") == [
        b"10.0.0.9", b"4000", b"h.test", b"H.test:81", b"9080", b"",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("real_ip", "seen"),
    [
        ("1.1.1.1", (b"1.1.1.1", b"")),
        ("1.1.1.1:88", (b"1.1.1.1", b"88")),
        ("1.1.1.1, 2.2.2.2 ,", (b"2.2.2.2", b"")),
        ("1.1.1.1 2.2.2.2:1", (b"2.2.2.2", b"1")),
        ("2001:db8::1", (b"2001:db8::1", b"")),
        ("[2001:db8::1]:80", (b"2001:db8::1", b"80")),
        ("[2001:db8::1]", (b"127.0.0.1", b"4000")),
        ("1.1.1.1:0", (b"127.0.0.1", b"4000")),
        ("1.1.1.1:65536", (b"127.0.0.1", b"4000")),
        ("", (b"127.0.0.1", b"4000")),
    ],
)
def test_real_address_of_a_trusted_client(real_ip: str, seen: tuple[bytes, bytes]) -> None:
    made = exchange(client="127.0.0.1", x_real_ip=real_ip, X_Real_IP="3.3.3.3")
    assert tuple(values(made, "remote_addr", "remote_port")) == seen
    assert values(made, "realip_remote_addr", "realip_remote_port") == [b"127.0.0.1", b"4000"]


def test_volatile_ones_are_there() -> None:
    names = "request_time", "msec", "time_iso8601", "time_local", "pid", "connection", "hostname", "request_id"
    assert all(values(exchange(), *names))


def test_arguments_and_cookies() -> None:
    made = exchange(query=b"a=1&a=2&flag&b=%20", cookie="c=1; d=2; e")
    assert values(made, "arg_a", "arg_flag", "arg_b", "arg_A", "cookie_d", "cookie_e", "cookie_", "is_args") == [
        b"1", b"true", b" ", None, b"2", None, None, b"?",
    ]  # fmt: skip


def test_headers_are_joined_and_cached() -> None:
    made = exchange(x_a="1")
    made.headers.nginx.append((b"X_A", b"2"))
    assert values(made, "http_x_a", "http_") == [b"1, 2", None]
    made.headers.set(b"X-A", b"new")
    assert values(made, "http_x_a") == [b"1, 2"]


def test_what_was_there_once_is_kept_and_what_was_not_is_looked_for_again() -> None:
    made = exchange(query=b"a=1", cookie="c=1", authorization="old", x_a="old", referer="old")
    names = "arg_a", "query_string", "cookie_c", "http_authorization", "http_x_a", "http_referer", "http_cookie"
    assert values(made, *names) == [b"1", b"a=1", b"1", b"old", b"old", b"old", b"c=1"]
    assert values(made, "args", "arg_b", "cookie_d", "http_x_b", "msec", "request_length")[:4] == [b"a=1"] + [None] * 3
    kept = values(made, "msec", "request_length")
    made.outgoing.set_args(b"a=2&b=2")
    for header in (b"Cookie", b"Authorization", b"X-A", b"Referer", b"X-B"):
        made.set_header(header, b"c=2; d=2")
    made.body.content = b"12345"
    assert values(made, *names) == [b"1", b"a=1", b"1", b"c=2; d=2", b"old", b"old", b"c=2; d=2"]
    assert values(made, "args", "arg_b", "cookie_d", "http_x_b") == [b"a=2&b=2", b"2", None, b"c=2; d=2"]
    assert values(made, "msec", "request_length") == kept


def test_cookies_are_read_when_the_first_one_is_asked_for() -> None:
    made = exchange()
    assert values(made, "cookie_c") == [None]
    made.headers.nginx += [(b"Cookie", b" c=1; c=2 3=4"), (b"Cookie", b'd="x"; e=')]
    assert values(made, "cookie_c", "cookie_3", "cookie_d", "cookie_e", "cookie_C") == [
        b"2", b"4", b'"x"', b"", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("authorization", "user"),
    [
        ("Basic YTpi", b"a"),
        ("bASIC  YWI6Og==", b"ab"),
        ("Basic YTpiYw", b"a"),
        ("Basic OmI=", None),
        ("Basic YWI=", None),
        ("Basic Y", None),
        ("Bearer YTpi", None),
    ],
)
def test_user_of_basic_authentication(authorization: str, user: bytes | None) -> None:
    assert values(exchange(authorization=authorization), "remote_user") == [user]


def test_route_and_consumer() -> None:
    made = exchange()
    names = "route_id", "route_name", "service_id", "service_name", "consumer_name", "balancer_ip", "upstream_scheme"
    assert values(made, *names) == [None] * 6 + [b"http"]
    made = exchange()
    made.route = Route("r", name="n", service_id="s", service_name="sn")
    made.consumer = Consumer("bob", "k")
    made.node, made.upstream = Node("h", 1), Upstream(scheme="https")
    assert values(made, *names, "balancer_port") == [b"r", b"n", b"s", b"sn", b"bob", b"h", b"https", b"1"]


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b'{"a": {"b": "c"}, "n": 1.5, "t": true, "f": false, "l": [1]}', "application/json",
         [b"c", b"1.5", b"true", None, b"table: 0x7f0000000050", None, None, b"table: 0x7f0000000040"]),
        (b"not json", "application/json", [None] * 7 + [b"table: 0x7f0000000040"]),
        (b'{"n": ' + b"[" * 100_000, "application/json", [None] * 7 + [b"table: 0x7f0000000040"]),
        (b'{"a":' * 100_000, "application/json", [None] * 7 + [b"table: 0x7f0000000040"]),
        (b"a.b=1&n&t=x", "application/x-www-form-urlencoded", [b"1", b"true", b"x"] + [None] * 5),
        (b"", "text/plain", [None] * 8),
    ],
)  # fmt: skip
def test_fields_of_the_body(body: bytes, content_type: str, expected: list[bytes | None]) -> None:
    made = exchange("POST", body=body, content_type=content_type)
    paths = "a.b", "n", "t", "f", "l", "nope", "n.x", "l[*].x"
    assert values(made, *(f"post_arg.{path}" for path in paths)) == expected


def test_half_a_character_in_a_body_is_a_value_like_others() -> None:
    made = exchange("POST", body=b'{"a": {"b": "\\ud800"}}', content_type="application/json")
    assert values(made, "post_arg.a.b") == [b"\xed\xa0\x80"]


def test_fields_of_a_form() -> None:
    made = exchange("POST", body=b"a=1", content_type="application/x-www-form-urlencoded")
    assert values(made, "post_arg_a", "post_arg_b", "post_arg_", "post_argx") == [b"1", None, None, None]
    made = exchange("POST", body=b'{"a": 1}', content_type="application/json")
    assert values(made, "post_arg_a", "request_body", "request_length") == [
        None,
        None,
        values(made, "request_length")[0],
    ]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (exchange("POST", body=b'{"query": "mutation m { a }"}', content_type="application/json"), [b"m", b"mutation"]),
        (exchange("POST", body=b"query { a }", content_type="application/graphql"), [b"", b"query"]),
        (exchange("GET", b"query=%7Ba%7D"), [b"", b"query"]),
        (exchange("GET"), [None, None]),
        (exchange("POST", body=b'{"query": 1}', content_type="application/json"), [None, None]),
        (exchange("POST", body=b"[]", content_type="application/json"), [None, None]),
        (exchange("POST", body=b'{"query": "{a}"}', content_type="application/json; charset=utf-8"), [None, None]),
        (exchange("PUT", body=b"query { a }", content_type="application/graphql"), [None, None]),
    ],
)
def test_graphql(made: Exchange, expected: list[bytes | None]) -> None:
    assert values(made, "graphql_name", "graphql_operation", "graphql_nope") == [*expected, None]


@pytest.mark.parametrize(
    ("size", "headers", "kept"),
    [(20479, {}, True), (20480, {}, False), (16383, {"Transfer_Encoding": "chunked"}, True),
     (16384, {"Transfer_Encoding": "chunked"}, False)],
)  # fmt: skip
def test_request_body_that_lies_in_a_file_is_no_variable(size: int, headers: dict[str, str], kept: bool) -> None:
    made = exchange("POST", b"", b"", **headers)
    made.body.content = b"x" * size
    assert values(made, "request_body") == [made.body.content if kept else None]
    made.set_body(b"y" * size)
    assert values(made, "REQUEST_BODY") == [made.body.content]


def test_case_counts_in_the_names_of_apisix_only() -> None:
    made = exchange(query=b"a=%20", content_type="application/json")
    made.route = Route("r")
    assert values(made, "METHOD", "ROUTE_ID", "REAL_REQUEST_URI", "Post_arg.a", "GRAPHQL_name") == [None] * 5
    assert values(made, "URI", "REQUEST_URI", "HTTP_HOST", "Request_Method") == [
        b"/x", b"/x?a=%20", b"H.test:81", b"GET",
    ]  # fmt: skip


def test_unknown_names() -> None:
    assert values(exchange(), "nope", "", "sent_http_x", "upstream_status") == [None] * 4
