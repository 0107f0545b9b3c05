import asyncio
from typing import Any

import pytest

from asgi_bridge.gateway.exchange import Exchange
from asgi_bridge.gateway.routes import Consumer, Node, Route, Upstream
from asgi_bridge.gateway.variables import variable


def exchange(method: str = "GET", query: bytes = b"", body: bytes = b"", **headers: str) -> Exchange:
    messages = [{"type": "http.request", "body": body}]

    async def receive() -> Any:
        return messages.pop()

    scope = {
        "type": "http",
        "method": method,
        "path": "/x",
        "query_string": query,
        "headers": [
            (b"host", b"User@H.test:81"),
            *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
        ],
        "server": ("127.0.0.1", 9080),
        "client": ("10.0.0.9", 4000),
    }
    return Exchange(scope, receive, None)  # type: ignore[arg-type]


def values(made: Exchange, *names: str) -> list[bytes | None]:
    async def main() -> list[bytes | None]:
        return [await variable(made, name.encode("latin-1")) for name in names]

    return asyncio.run(main())


def test_address_and_connection() -> None:
    made = exchange(x_real_ip="1.2.3.4")
    assert values(made, "remote_addr", "REMOTE_PORT", "host", "http_host", "server_port", "is_args") == [
        b"10.0.0.9", b"4000", b"h.test", b"User@H.test:81", b"9080", b"",
    ]  # fmt: skip


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
         [b"c", b"1.5", b"true", b"false", b"table: 0x7f0000000050", None, None, b"table: 0x7f0000000040"]),
        (b"not json", "application/json", [None] * 7 + [b"table: 0x7f0000000040"]),
        (b"a.b=1&n&t=x", "application/x-www-form-urlencoded", [b"1", b"true", b"x"] + [None] * 5),
        (b"", "text/plain", [None] * 8),
    ],
)  # fmt: skip
def test_fields_of_the_body(body: bytes, content_type: str, expected: list[bytes | None]) -> None:
    made = exchange("POST", body=body, content_type=content_type)
    paths = "a.b", "n", "t", "f", "l", "nope", "n.x", "l[*].x"
    assert values(made, *(f"post_arg.{path}" for path in paths)) == expected


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
    ],
)
def test_graphql(made: Exchange, expected: list[bytes | None]) -> None:
    assert values(made, "graphql_name", "graphql_operation", "graphql_nope") == [*expected, None]


def test_unknown_names() -> None:
    assert values(exchange(), "nope", "", "sent_http_x", "upstream_status") == [None] * 4
